"""
Proxying: stream connections that begin with a PROXY header.

This room owns one difference from Twisted's wrapper: it says when the header is
through, so that a server may speak first, and passes half-closes on.  It must not
know handlers.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocolNegotiationFactory,
    IStreamServerEndpoint,
)
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper, HAProxyWrappingFactory
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import Interface, implementer

__all__ = ["IProxyHeaderListener", "ProxyEndpoint", "ProxyProtocol"]

#: How many bytes Twisted needs to see which version of a header begins.
_V1_SHOWS = 8
_V2_SHOWS = 16


class IProxyHeaderListener(Interface):
    """A protocol that wants to know when the PROXY header before it is through."""

    def proxy_header_received() -> None:
        """The transport's C{getPeer} and C{getHost} tell the truth from now on."""


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class ProxyProtocol(HAProxyProtocolWrapper):
    """
    Twisted's public C{proxyEndpoint} makes wrappers that pass a header on silently;
    theirs is the parser, from a module that has had this name since 17.1.
    """

    _first = b""

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._proxyInfo is not None:
            self.wrappedProtocol.dataReceived(data)
            return
        if self._parser is None:
            # The base class closes where the first piece does not show the version.
            data = self._first = self._first + data
            if data.startswith(V1Parser.PROXYSTR[: len(data)]):
                if len(data) < _V1_SHOWS:
                    return
                self._parser = _Version1Parser()
            elif data.startswith(V2Parser.PREFIX[: len(data)]) and len(data) < _V2_SHOWS:
                return
        protocol: Any = self.wrappedProtocol
        # The header's last bytes and the first of the content may come together; the
        # listener must hear of the header first.
        self.wrappedProtocol = behind = _Behind()  # type: ignore[assignment]
        try:
            super().dataReceived(data)
        finally:
            self.wrappedProtocol = protocol
        if self._proxyInfo is not None:
            if IProxyHeaderListener.providedBy(protocol):
                protocol.proxy_header_received()
            if behind.data:
                protocol.dataReceived(behind.data)

    def readConnectionLost(self) -> None:
        """The client has ended its side: pass it on."""
        half_closeable = IHalfCloseableProtocol(self.wrappedProtocol, None)
        if half_closeable is not None and self._proxyInfo is not None:
            half_closeable.readConnectionLost()
        else:
            self.loseConnection()

    def handshakeCompleted(self) -> None:
        """TLS is through."""
        # TLS below the header is through before it; only TLS begun later is news.
        if self._proxyInfo is not None and IHandshakeListener.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.handshakeCompleted()

    def writeConnectionLost(self) -> None:
        """This side is ended: pass it on."""
        half_closeable = IHalfCloseableProtocol(self.wrappedProtocol, None)
        if half_closeable is not None:
            half_closeable.writeConnectionLost()


class _Version1Parser(V1Parser):
    """Adds what the specification allows and checks what Twisted's parser does not."""

    @classmethod
    @override
    def parse(cls, line: bytes) -> Any:
        if line == b"PROXY UNKNOWN":  # "the sender should only send" this, without addresses
            line += b" "
        try:
            info: Any = super().parse(line)
            for address in (info.source, info.destination):
                if address is not None:
                    ip_address(address.host)
        except ValueError as error:
            raise InvalidProxyHeader from error
        return info


class _Behind:
    """What came behind the header in the same piece."""

    data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data = data

    def connectionLost(self, reason: Failure) -> None:
        """Cannot come while data is being received."""


@implementer(IProtocolNegotiationFactory)
class _ProxyFactory(HAProxyWrappingFactory):
    """Drops clients that are not trusted proxies."""

    noisy = False
    protocol: type[HAProxyProtocolWrapper] = ProxyProtocol

    def __init__(self, factory: Any, trusted: Callable[[IAddress], bool]) -> None:
        super().__init__(factory)
        self._trusted = trusted

    def acceptableProtocols(self) -> list[bytes]:
        """What the factory behind agrees to."""
        negotiating = IProtocolNegotiationFactory(self.wrappedFactory, None)
        return [] if negotiating is None else negotiating.acceptableProtocols()

    @override
    def buildProtocol(self, addr: IAddress | None) -> Any:
        if addr is None or not self._trusted(addr):
            return None
        return super().buildProtocol(addr)


@implementer(IStreamServerEndpoint)
class ProxyEndpoint:
    """
    An endpoint whose clients all begin with a PROXY header.

    @param trusted: whether a header from that address is believed; whoever is not is
        dropped, for without the header nothing it says makes sense.
    """

    def __init__(self, endpoint: Any, trusted: Callable[[IAddress], bool]) -> None:
        self._endpoint = endpoint
        self._trusted = trusted

    def listen(self, factory: Any) -> Any:
        """Listen; fires with the C{IListeningPort}."""
        return self._endpoint.listen(_ProxyFactory(factory, self._trusted))
