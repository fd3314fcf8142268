"""
Connections: stream connections from accept to their end.

This room owns the server object of stream listeners (L{StreamFactory}) and what
happens to a connection before and after its request is served (L{StreamProtocol}).  It
must not know options or endpoints.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocolNegotiationFactory,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from sockserve.core.admission import Admission, Network
from sockserve.core.deadlines import DeadlineTimer
from sockserve.core.lifecycle import handler_class, makes, offer, run_handler, run_handler_coroutine
from sockserve.core.statistics import RequestRecord
from sockserve.executors.fork import ForkConcurrency
from sockserve.http.blocking import BlockingHTTPServing
from sockserve.http.buffered_request import is_gathered
from sockserve.http.channel import HTTPServing
from sockserve.http.coroutine import CoroutineHTTPServing
from sockserve.http.handler_socket import RequestSocket
from sockserve.http.stock import make_stock_handler
from sockserve.interfaces import IHTTPRequestHandler, IRequestHandler, Outcome, Phase
from sockserve.listeners.proxy_protocol import IProxyHeaderListener
from sockserve.listeners.server import ABANDON_SECONDS, RequestServer
from sockserve.sockets.lending import is_lendable
from sockserve.streams.blocking import LentServing, PumpedServing
from sockserve.streams.channel import CoroutineServing, Serving, transport_descriptors
from sockserve.streams.writer import Outbox

__all__ = ["StreamFactory", "StreamProtocol", "socket_address"]

#: How long one complaint about a lack of descriptors stands for those that follow: a
#: minute, so that a log read later shows how long the shortage lasted.
COMPLAINT_SECONDS = 60.0

_log = Logger()


def socket_address(address: Any) -> Any:
    """A Twisted address as a socket gives it."""
    if isinstance(address, IPv4Address):
        return (address.host, address.port)
    if isinstance(address, IPv6Address):
        return (address.host, address.port, address.flowInfo, address.scopeID)
    name = getattr(address, "name", None)
    if name is None:
        return ""
    # Linux's abstract names are bytes there, too.
    return name if name.startswith(b"\0") else os.fsdecode(name)


@implementer(IProtocolNegotiationFactory)
class StreamFactory(RequestServer, ServerFactory):
    """
    The server object of stream listeners, and Twisted's factory for them: give it to
    any server endpoint.

    @ivar admission: who may connect; may be shared.
    @ivar connections: those that are open.
    @ivar servings: what serves each request that is not over.
    @ivar ports: the listening ports.
    @ivar http_deadlines: where the reactor reads HTTP: with the handler's C{timeout}.
    @ivar stock: whether the handler is one L{is_gathered} is about.
    @cvar acceptable_protocols: what to agree to when a TLS client names protocols (ALPN,
        RFC 7301); None for HTTP's when the handler is one of C{http.server}'s, else
        nothing.  A client that names none is served; one that names only others is
        turned away by Twisted.
    @cvar max_body_bytes: the largest body of an HTTP request that is kept for a blocking
        handler; more is answered with 413.  1 GiB: waitress' C{max_request_body_size}.
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
        @param admission: caps and networks; by default none.
        @param proxy_from: the networks of proxies whose PROXY header is believed, when
            the endpoint asks for one; by default all.
        @param options: as L{RequestServer.__init__}.
        """
        super().__init__(RequestHandlerClass, **options)
        cls = handler_class(RequestHandlerClass)
        self.stock = is_gathered(RequestHandlerClass)
        gathers = self.stock and not isinstance(self.concurrency, ForkConcurrency)
        self.http = gathers or makes(cls, IHTTPRequestHandler)
        # What such a handler asks of its own reads.
        patience = getattr(cls, "timeout", None) if self.http else None
        self.http_deadlines = self.deadlines.at_most(patience, "idle", "header")
        self.admission = Admission() if admission is None else admission
        self._proxies = Admission(allow=proxy_from)
        #: By HTTP method, whether the handler's must run on a thread; those it has.
        self._blocking_methods: dict[str, bool] = {}
        if makes(cls, IHTTPRequestHandler):
            self._blocking_methods = {name: cls.blocks(name) for name in cls.commands()}
        self.outbox = Outbox(self.reactor)
        self.connections: set[StreamProtocol] = set()
        self.ports: set[Any] = set()
        self.servings: dict[Any, Serving] = {}
        self._silent_until = 0.0

    @override
    def buildProtocol(self, addr: Any) -> Any:
        protocol = StreamProtocol()
        protocol.factory = self
        return protocol

    @override
    def startFactory(self) -> None:
        self._watch_silence()

    @override
    def stopFactory(self) -> None:
        self._unwatch_silence()

    def acceptableProtocols(self) -> list[bytes]:
        """L{acceptable_protocols}, for Twisted's TLS."""
        https = (b"http/1.1", b"http/1.0") if self.speaks_http else ()
        return list(https if self.acceptable_protocols is None else self.acceptable_protocols)

    def method_blocks(self, command: str) -> bool:
        """Whether an HTTP method of the handler's must run on a thread."""
        if command in self._blocking_methods:
            return self._blocking_methods[command]
        return bool(handler_class(self.RequestHandlerClass).blocks(command))

    @property
    def speaks_http(self) -> bool:
        """Whether the handler is one of HTTP, of whatever kind."""
        cls = handler_class(self.RequestHandlerClass)
        return self.http or (isinstance(cls, type) and issubclass(cls, BaseHTTPRequestHandler))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start serving the request; returns before it is served.  Reactor thread."""
        self.servings[request].process()

    @override
    def finish_request(self, request: Any, client_address: Any) -> Any:
        """Make the handler and let it serve.  Where the handler runs."""
        if self.stock and isinstance(request, RequestSocket):
            return make_stock_handler(self.RequestHandlerClass, request, client_address, self)
        handler = self.RequestHandlerClass(request, client_address, self)
        if not isinstance(request, socket.socket):
            return run_handler_coroutine(handler)
        if IRequestHandler.providedBy(handler):
            run_handler(handler)
        return None

    @override
    def shutdown_request(self, request: Any) -> None:
        """End the request's output, then close it.  Where the handler ran."""
        serving = self.servings.get(request)
        if serving is not None:
            serving.measure()
        super().shutdown_request(request)

    @override
    def close_request(self, request: Any) -> None:
        """Close the request.  Where the handler ran; with C{fork} in the parent too."""
        serving = self.servings.get(request)
        if serving is not None:
            serving.closing()
        super().close_request(request)

    def complain(self, client_address: Any, error: OSError) -> None:
        """A request cannot be served for want of descriptors; of many, the log has one."""
        now = self.reactor.seconds()
        if now >= self._silent_until:
            self._silent_until = now + COMPLAINT_SECONDS
            _log.error(
                "cannot serve {peer}: {error}; raise the limit of open files (ulimit -n)",
                peer=client_address,
                error=error,
            )

    def trusts_proxy(self, address: Any) -> bool:
        """Whether a PROXY header from C{address} is believed; if not, that is counted."""
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
        Let requests come to their end within the C{drain} deadline, then abort them.
        Fires when all are gone.
        """
        for protocol in list(self.connections):
            protocol.drain()
        return self.drained()

    def abort(self) -> None:
        """Abort all connections now."""
        for protocol in list(self.connections):
            protocol.abort()

    def _peer_is_gone(self, request: Any) -> bool:
        if isinstance(request, RequestSocket) and request.gathering is not None:
            return request.gathering.client_is_gone()
        serving = self.servings.get(request)
        if serving is not None and serving.protocol.is_gone():
            return True
        return super()._peer_is_gone(request)


@implementer(IHalfCloseableProtocol, IHandshakeListener, IProxyHeaderListener)
class StreamProtocol(Protocol):
    """
    One connection.  Everything runs on the reactor thread.

    @ivar record: what the connection will leave behind.
    @ivar client_address: whom it is from, once that is sure (PROXY) and admitted.
    @ivar settled: whether it is over for the server, with nothing left but perhaps a
        handler that was abandoned.
    """

    factory: StreamFactory
    transport: Any
    client_address: Any = None
    settled = False
    _admitted: Any = None
    _serving: Serving | None = None
    _expired_phase: Phase | None = None
    _handled_at: float | None = None

    # From accept to the offer

    @override
    def connectionMade(self) -> None:
        factory = self.factory
        transport = self.transport
        factory.connections.add(self)
        factory.statistics.active += 1
        factory.admission.opened()
        factory.arrived()
        self.timer = timer = DeadlineTimer(factory.reactor, self._passed)
        self._opened_at = timer.seconds()
        timer.arm(Phase.LIFETIME, factory.deadlines.lifetime)
        peer = transport.getPeer()
        self.record = RequestRecord(socket_address(peer), factory.handler_name)
        if isinstance(peer, (IPv4Address, IPv6Address)):
            transport.setTcpNoDelay(True)
        if ISSLTransport.providedBy(transport) or isinstance(transport, HAProxyProtocolWrapper):
            timer.arm(Phase.HANDSHAKE, factory.deadlines.handshake)
        else:
            self._offer()

    def handshakeCompleted(self) -> None:
        """TLS is through, at the start or after C{start_tls}."""
        if isinstance(self._serving, CoroutineServing):
            self._serving.handshake_completed()
        else:
            self._opened()

    def proxy_header_received(self) -> None:
        """The PROXY header is through."""
        self._opened()

    def _opened(self) -> None:
        self.timer.disarm(Phase.HANDSHAKE)
        self.record.phases["handshake"] = self.timer.seconds() - self._opened_at
        self._offer()

    def _offer(self) -> None:
        """The client's address is known: offer its request to the server."""
        factory = self.factory
        transport = self.transport
        addresses = (socket_address(transport.getPeer()), socket_address(transport.getHost()))
        self.record.peer = addresses[0]
        refusal = factory.admission.refusal(addresses[0])
        if refusal is not None:
            self._refuse(refusal)
            return
        factory.admission.enter(addresses[0])
        self.client_address = self._admitted = addresses[0]
        try:
            serving = self._serving = self._serve(addresses)
        except OSError as error:
            factory.complain(addresses[0], error)
            self._refuse("descriptors")
            return
        factory.servings[serving.request] = serving
        if not offer(factory, serving.request, addresses[0]):
            factory.statistics.refused["verify"] += 1
            self.record.outcome = "refused: verify"

    def _serve(self, addresses: tuple[Any, Any]) -> Serving:
        serving: CoroutineServing | HTTPServing | PumpedServing
        if self.factory.http:
            way = CoroutineHTTPServing if self.factory.coroutine else BlockingHTTPServing
            serving = way(self, addresses)
        elif self.factory.coroutine:
            serving = CoroutineServing(self, addresses)
        elif is_lendable(self.transport):
            return LentServing(self)
        else:
            serving = PumpedServing(self, addresses)
        self.deliver_to(serving.feed)
        return serving

    def deliver_to(self, receive: Callable[[bytes], object]) -> None:
        """What arrives from now on goes to C{receive}: one call less for every piece."""
        self.dataReceived = receive  # type: ignore[method-assign, assignment]

    def _refuse(self, reason: str) -> None:
        self.factory.statistics.refused[reason] += 1
        self.record.outcome = f"refused: {reason}"
        self.deliver_to(lambda data: None)
        self.abort()

    # While it is served

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._serving is None and not self.transport.disconnecting:
            # Only a wrapper that does not say when it is through delivers before the offer.
            self._opened()
            self.dataReceived(data)

    def readConnectionLost(self) -> None:
        """The client has ended its side."""
        if self._serving is None:
            self.transport.loseConnection()
        else:
            self._serving.read_ended()

    def writeConnectionLost(self) -> None:
        """This side's own doing."""

    def _passed(self, phase: Phase) -> None:
        """The timer says that a deadline has passed."""
        serving = self._serving
        if self._expired_phase is not None:
            if phase is Phase.LIFETIME and serving is not None:
                serving.abandon()
        elif serving is None or serving.passed(phase):
            self._expired_phase = phase
            self.factory.statistics.expiries[phase] += 1
            self.record.outcome = f"expired: {phase}"
            _log.info("{peer}: the {phase} deadline expired", peer=self.record.peer, phase=phase)
            # Nothing else arms or disarms this one by now.
            self.timer.arm(Phase.LIFETIME, ABANDON_SECONDS)
            if serving is None:
                self.abort()
            else:
                serving.expire(phase)

    def drain(self) -> None:
        """The service stops."""
        self.timer.arm(Phase.DRAIN, self.factory.deadlines.drain)
        if self._serving is None:
            self.abort()
        else:
            self._serving.drain()

    def descriptors(self) -> Iterator[int]:
        """What is open for the connection in this process; -1 for what is not."""
        if self._serving is None:
            yield from transport_descriptors(self.transport)
        else:
            yield from self._serving.owned_descriptors()

    def abort(self) -> None:
        """End the connection now."""
        if self._serving is None:
            self.transport.abortConnection()
        else:
            self._serving.abort()

    # The end

    def is_gone(self) -> bool:
        """Whether the client, or a deadline, has ended the connection."""
        return (
            self._expired_phase is not None
            or not self.connected
            or (self._serving is not None and self._serving.broken())
        )

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.connected = 0
        if self._serving is None:
            self.settle()
        else:
            self._serving.lost(reason)

    def handled(self, seconds: float, outcome: Outcome) -> None:
        """The handler has come to its end."""
        self._handled_at = self.timer.seconds()
        self.record.phases["handle"] = seconds
        if self.record.outcome == "ok":
            self.record.outcome = outcome
        self.factory.count_request(outcome)

    def settle(self) -> None:
        """The connection is over: account for it."""
        if self.settled:
            return
        self.settled = True
        self.timer.stop()
        factory = self.factory
        if self._serving is not None:
            factory.servings.pop(self._serving.request, None)
        if self._handled_at is not None:
            self.record.phases["write"] = self.timer.seconds() - self._handled_at
        if self._admitted is not None:
            factory.admission.leave(self._admitted)
        factory.connections.discard(self)
        factory.statistics.active -= 1
        factory.admission.closed()
        factory.finished(self.record, observed=not isinstance(self._serving, HTTPServing))
