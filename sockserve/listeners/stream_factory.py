"""
The server object of stream listeners, and Twisted's factory for them.

This room owns which channel serves a connection to a handler of each kind, and the override
points that differ for streams.  It must not know options or endpoints.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IProtocolNegotiationFactory,
)
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from typing_extensions import override
from zope.interface import implementer

from sockserve.core.admission import Admission, Network
from sockserve.core.handler_kinds import HandlerKind, provides, unwrap
from sockserve.core.lifecycle import run_handler, run_handler_coroutine
from sockserve.executors.fork import ForkExecutor
from sockserve.http.blocking import BlockingHTTPChannel
from sockserve.http.coroutine import CoroutineHTTPChannel
from sockserve.http.handler_socket import RequestSocket
from sockserve.http.stock import make_stock_handler
from sockserve.interfaces import IHTTPRequestHandler, IRequestHandler
from sockserve.listeners.stream_protocol import StreamProtocol, StreamServer
from sockserve.streams.blocking import make_socket_channel
from sockserve.streams.channel import Channel, ChannelOwner
from sockserve.streams.coroutine import CoroutineChannel
from sockserve.streams.writer import Outbox

__all__ = ["StreamFactory"]

#: A shortage of descriptors is logged once in so many seconds: a minute, so that a log read
#: later shows how long the shortage lasted.
SHORTAGE_LOG_SECONDS = 60.0

_log = Logger()


#: Makes the channel of a connection, by the kind of its handler.
_CHANNELS: dict[HandlerKind, Callable[[ChannelOwner, tuple[Any, Any]], Channel]] = {
    HandlerKind.COROUTINE: CoroutineChannel,
    HandlerKind.BLOCKING: make_socket_channel,
    HandlerKind.HTTP_COROUTINE: CoroutineHTTPChannel,
    HandlerKind.HTTP_MIXED: BlockingHTTPChannel,
    HandlerKind.HTTP_STOCK: BlockingHTTPChannel,
}


@implementer(IProtocolNegotiationFactory)
class StreamFactory(StreamServer, ServerFactory):
    """
    The server object of stream listeners, and Twisted's factory for them: give it to
    any server endpoint.

    @ivar ports: the listening ports.
    @ivar outbox: the output that connections send at the end of the reactor's turn.
    @ivar http_deadlines: the deadlines where the reactor reads HTTP; C{idle} and C{header}
        are at most the C{timeout} of the handler's class.
    @cvar acceptable_protocols: the protocols to agree to when a TLS client names some
        (ALPN, RFC 7301); None for HTTP's when the handler is one of HTTP, else none.  A
        client that names no protocol is served; one that names only others is turned away
        by Twisted.
    @cvar max_body_bytes: the largest body of an HTTP request that is kept for a blocking
        handler, in bytes; a larger one is answered with 413.  1 GiB: waitress'
        C{max_request_body_size}.
    """

    noisy = False
    acceptable_protocols: tuple[bytes, ...] | None = None
    max_body_bytes: int = 2**30

    def __init__(
        self,
        RequestHandlerClass: Callable[..., Any],
        *,
        admission: Admission | None = None,
        proxy_from: Iterable[Network] = (),
        **options: Any,
    ) -> None:
        """
        @param admission: caps on connections, and the networks they are served from; by
            default neither.
        @param proxy_from: the networks of proxies whose PROXY header is believed, when
            the endpoint asks for one; by default all.
        @param options: as L{RequestServer.__init__}.
        """
        super().__init__(RequestHandlerClass, admission, **options)
        cls = unwrap(RequestHandlerClass)
        if self.kind is HandlerKind.HTTP_STOCK and isinstance(self.concurrency, ForkExecutor):
            self.kind = HandlerKind.BLOCKING  # a child reads its requests by itself
        # In seconds, by which a handler of HTTP limits its own reads.
        patience = getattr(cls, "timeout", None) if self.kind.is_http else None
        self.http_deadlines = self.deadlines.capped(patience, "idle", "header")
        self._proxies = Admission(allow=proxy_from)
        #: By HTTP method, whether the handler's must run on a thread; of the methods that
        #: its class is known to have.
        self._blocking_methods: dict[str, bool] = {}
        if provides(cls, IHTTPRequestHandler):
            self._blocking_methods = {name: cls.blocks(name) for name in cls.commands()}
        self.outbox = Outbox(self.reactor)
        self.ports: set[Any] = set()
        self._shortage_logged_until = 0.0

    @override
    def buildProtocol(self, addr: Any) -> Any:
        protocol = StreamProtocol()
        protocol.factory = self
        return protocol

    @override
    def startFactory(self) -> None:
        self._start_idle_timeout()

    @override
    def stopFactory(self) -> None:
        self._stop_idle_timeout()

    def acceptableProtocols(self) -> list[bytes]:
        """Called by Twisted's TLS for L{acceptable_protocols}."""
        https = (b"http/1.1", b"http/1.0") if self.speaks_http else ()
        return list(https if self.acceptable_protocols is None else self.acceptable_protocols)

    def method_blocks(self, command: str) -> bool:
        """Whether the handler's method for C{command}, as C{"GET"}, must run on a thread."""
        if command in self._blocking_methods:
            return self._blocking_methods[command]
        return bool(unwrap(self.RequestHandlerClass).blocks(command))

    @property
    def speaks_http(self) -> bool:
        """Whether the handler answers HTTP requests, whatever its kind."""
        cls = unwrap(self.RequestHandlerClass)
        is_stdlibs = isinstance(cls, type) and issubclass(cls, BaseHTTPRequestHandler)
        return self.kind.is_http or is_stdlibs

    @override
    def make_channel(self, protocol: StreamProtocol, addresses: tuple[Any, Any]) -> Channel:
        return _CHANNELS[self.kind](protocol, addresses)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start serving the request; return without waiting for its end. (reactor thread)"""
        self.channels[request].start()

    @override
    def finish_request(self, request: Any, client_address: Any) -> Any:
        """Make the handler and let it serve; as L{RequestServer}'s. (handler's thread)"""
        if self.kind is HandlerKind.HTTP_STOCK and isinstance(request, RequestSocket):
            return make_stock_handler(self.RequestHandlerClass, request, client_address, self)
        handler = self.RequestHandlerClass(request, client_address, self)
        if not isinstance(request, socket.socket):
            return run_handler_coroutine(handler)
        if IRequestHandler.providedBy(handler):
            run_handler(handler)
        return None

    @override
    def close_request(self, request: Any) -> None:
        """
        Close the request; with C{fork} in the child and in the parent too.
        (handler's thread)
        """
        channel = self.channels.get(request)
        if channel is not None:
            channel.request_closing()
        super().close_request(request)

    @override
    def log_shortage(self, client_address: Any, error: OSError) -> None:
        now = self.reactor.seconds()
        if now >= self._shortage_logged_until:
            self._shortage_logged_until = now + SHORTAGE_LOG_SECONDS
            _log.error(
                "cannot serve {peer}: {error}; raise the limit of open files (ulimit -n)",
                peer=client_address,
                error=error,
            )

    def trusts_proxy(self, address: Any) -> bool:
        """Whether a PROXY header from C{address} is believed; if not, count a refusal."""
        trusted = self._proxies.refusal(address) is None
        if not trusted:
            self.count_refusal("proxy")
        return trusted

    @override
    def descriptors(self) -> Iterator[int]:
        for port in self.ports:
            yield port.fileno()
        for protocol in self.connections:
            yield from protocol.descriptors()

    def drain(self) -> Deferred[None]:
        """
        Give the connections until the C{drain} deadline to finish, then abort them.

        @return: a Deferred that fires when no connection is left.

        (reactor thread)
        """
        for protocol in list(self.connections):
            protocol.drain()
        return self.drained()

    def abort(self) -> None:
        """Abort all connections now. (reactor thread)"""
        for protocol in list(self.connections):
            protocol.abort()

    def _peer_is_gone(self, request: Any) -> bool:
        if isinstance(request, RequestSocket) and request.buffered is not None:
            return request.buffered.client_is_gone()
        channel = self.channels.get(request)
        if channel is not None and channel.protocol.is_gone():
            return True
        return super()._peer_is_gone(request)
