"""
The PROXY protocol: stream connections that begin with a header of a proxy's.

This room owns the differences from Twisted's wrapper: it tells when the header has been
read, so that a server may speak first, and passes half-closes on.  It must not know
handlers.
(reactor thread)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper, HAProxyWrappingFactory
from typing_extensions import override
from zope.interface import Interface, implementer

from sockserve.core.addresses import twisted_address
from sockserve.listeners.proxy_header import (
    ProxyHeader,
    ProxyHeaderError,
    parse_proxy_header,
)

__all__ = ["IProxyHeaderListener", "ProxyEndpoint", "ProxyProtocol"]


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
    read, and read headers that are none.)
    """

    #: What has come, until that is a header.
    _received: bytearray | None = None
    _header: ProxyHeader | None = None

    @property
    def has_header(self) -> bool:
        """Whether the header has been read."""
        return self._header is not None

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._header is not None:
            self.wrappedProtocol.dataReceived(data)
            return
        if self.disconnecting:
            return
        if self._received is None:
            self._received = bytearray()
        self._received += data
        try:
            parsed = parse_proxy_header(self._received)
        except ProxyHeaderError as error:
            if IProxyHeaderListener.providedBy(self.wrappedProtocol):
                self.wrappedProtocol.proxy_header_failed(str(error))
            self.loseConnection()
            return
        if parsed is not None:
            self._header, length = parsed
            behind = bytes(self._received[length:])
            self._received = None
            # The listener must hear of the header before it gets what came with it.
            if IProxyHeaderListener.providedBy(self.wrappedProtocol):
                self.wrappedProtocol.proxy_header_received()
            if behind:
                self.wrappedProtocol.dataReceived(behind)

    @override
    def getPeer(self) -> IAddress:
        """The client's address: the header's, if that says one."""
        if self._header is not None and self._header.source is not None:
            return twisted_address(self._header.source)
        return self.transport.getPeer()  # type: ignore[union-attr]

    @override
    def getHost(self) -> IAddress:
        """The address that the client connected to: the header's, if that says one."""
        if self._header is not None and self._header.destination is not None:
            return twisted_address(self._header.destination)
        return self.transport.getHost()  # type: ignore[union-attr]

    def readConnectionLost(self) -> None:
        """The client has ended its side: tell the wrapped protocol."""
        half_closeable = IHalfCloseableProtocol(self.wrappedProtocol, None)
        if half_closeable is not None and self._header is not None:
            half_closeable.readConnectionLost()
        else:
            self.loseConnection()

    def handshakeCompleted(self) -> None:
        """A TLS handshake is complete: tell the wrapped protocol if it began TLS itself."""
        # TLS below the header, as some plugin's endpoint may have it, is complete before it.
        if self._header is not None and IHandshakeListener.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.handshakeCompleted()

    def writeConnectionLost(self) -> None:
        """This side's output has ended: tell the wrapped protocol."""
        half_closeable = IHalfCloseableProtocol(self.wrappedProtocol, None)
        if half_closeable is not None:
            half_closeable.writeConnectionLost()


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

    @ivar endpoint: the endpoint that listens.
    """

    def __init__(
        self, endpoint: IStreamServerEndpoint, trusted: Callable[[IAddress], bool]
    ) -> None:
        """
        @param endpoint: the endpoint to listen on.
        @param trusted: whether a header from that address is believed.
        """
        self.endpoint = endpoint
        self._trusted = trusted

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Listen.

        @return: a Deferred that fires with the C{IListeningPort}, or fails as the
            endpoint's does.
        """
        return self.endpoint.listen(_ProxyFactory(factory, self._trusted))
