"""
The PROXY protocol: stream connections that begin with a header of a proxy's.

This room owns the differences from Twisted's wrapper: it tells when the header has been
read, so that a server may speak first, and passes half-closes on.  It must not know
handlers.
(reactor thread)
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IListeningPort,
    IProtocolFactory,
    IProtocolNegotiationFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Protocol
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._info import ProxyInfo
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper, HAProxyWrappingFactory
from typing_extensions import override
from zope.interface import Interface, implementer

from sockserve.listeners.proxy_faults import header_fault

__all__ = ["IProxyHeaderListener", "ProxyEndpoint", "ProxyProtocol"]

#: How many bytes Twisted needs to tell which version of a header begins.
_V1_BYTES = 8
_V2_BYTES = 16


class IProxyHeaderListener(Interface):
    """A protocol that is told when the PROXY header before it has been read."""

    def proxy_header_received() -> None:
        """The header has been read: C{getPeer} and C{getHost} tell the truth from now on."""

    def proxy_header_failed(fault: str) -> None:
        """The header is none, as C{fault} says in a few words; the connection is closed next."""


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class ProxyProtocol(HAProxyProtocolWrapper):
    """
    The protocol between a transport and one that follows a PROXY header.

    (The wrappers of Twisted's public C{proxyEndpoint} do not tell when a header has been
    read.  The parser is theirs, from a module that has had this name since 17.1.)
    """

    #: What has come while it does not show the version yet.
    _first = b""
    #: What has come of the header.
    _header = b""

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._proxyInfo is not None:
            self.wrappedProtocol.dataReceived(data)
            return
        self._header += data
        if self._parser is None:
            # The base class closes where the first piece does not show the version.
            data = self._first = self._first + data
            if data.startswith(V1Parser.PROXYSTR[: len(data)]):
                if len(data) < _V1_BYTES:
                    return
                self._parser = _Version1Parser()
            elif data.startswith(V2Parser.PREFIX[: len(data)]) and len(data) < _V2_BYTES:
                return
        protocol = self.wrappedProtocol
        # The header's last bytes and the first of the content may come together; the
        # listener must hear of the header first.
        self.wrappedProtocol = behind = _Remainder()
        try:
            super().dataReceived(data)
        finally:
            self.wrappedProtocol = protocol
        if self._proxyInfo is None and self.disconnecting:
            if IProxyHeaderListener.providedBy(protocol):
                protocol.proxy_header_failed(header_fault(self._header))
        elif self._proxyInfo is not None:
            if IProxyHeaderListener.providedBy(protocol):
                protocol.proxy_header_received()
            self._header = b""
            if behind.data:
                protocol.dataReceived(behind.data)

    def readConnectionLost(self) -> None:
        """The client has ended its side: tell the wrapped protocol."""
        half_closeable = IHalfCloseableProtocol(self.wrappedProtocol, None)
        if half_closeable is not None and self._proxyInfo is not None:
            half_closeable.readConnectionLost()
        else:
            self.loseConnection()

    def handshakeCompleted(self) -> None:
        """A TLS handshake is complete: tell the wrapped protocol if it began TLS itself."""
        # TLS below the header is complete before it.
        if self._proxyInfo is not None and IHandshakeListener.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.handshakeCompleted()

    def writeConnectionLost(self) -> None:
        """This side's output has ended: tell the wrapped protocol."""
        half_closeable = IHalfCloseableProtocol(self.wrappedProtocol, None)
        if half_closeable is not None:
            half_closeable.writeConnectionLost()


class _Version1Parser(V1Parser):
    """
    The parser of the header's version 1, which also takes C{PROXY UNKNOWN} without addresses
    (the specification allows it), and refuses addresses that are none.
    """

    @classmethod
    @override
    def parse(cls, line: bytes) -> ProxyInfo:
        if line == b"PROXY UNKNOWN":  # "the sender should only send" this, without addresses
            line += b" "
        try:
            info = super().parse(line)
            for address in (info.source, info.destination):
                if isinstance(address, (IPv4Address, IPv6Address)):
                    ip_address(address.host)
        except ValueError as error:
            raise InvalidProxyHeader from error
        return info


class _Remainder(Protocol):
    """A protocol that keeps the bytes which came after the header in the same piece."""

    data = b""

    @override
    def dataReceived(self, data: bytes) -> None:
        self.data = data


@implementer(IProtocolNegotiationFactory)
class _ProxyFactory(HAProxyWrappingFactory):
    """The factory of connections with a header: it drops clients that are not trusted."""

    noisy = False
    protocol: type[HAProxyProtocolWrapper] = ProxyProtocol

    def __init__(self, factory: IProtocolFactory, trusted: Callable[[IAddress], bool]) -> None:
        super().__init__(factory)
        self._trusted = trusted

    def acceptableProtocols(self) -> list[bytes]:
        """The protocols that the wrapped factory agrees to in a TLS handshake (ALPN)."""
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

    A client that is not trusted is dropped: its bytes begin with a header, which cannot be
    read as anything else.
    """

    def __init__(
        self, endpoint: IStreamServerEndpoint, trusted: Callable[[IAddress], bool]
    ) -> None:
        """
        @param endpoint: the endpoint to listen on.
        @param trusted: whether a header from that address is believed.
        """
        self._endpoint = endpoint
        self._trusted = trusted

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Listen.

        @return: a Deferred that fires with the C{IListeningPort}, or fails as the
            endpoint's does.
        """
        return self._endpoint.listen(_ProxyFactory(factory, self._trusted))
