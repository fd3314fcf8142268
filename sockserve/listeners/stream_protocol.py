"""
One stream connection, from accept to its end.

This room owns what happens to a connection before and after its request is served: its
handshake, admission, deadlines and record.  It must not know which channel serves it, or what a
handler speaks.
(reactor thread)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from sockserve.core.addresses import Addresses, SocketAddress, socket_address
from sockserve.core.admission import Admission
from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.drain_notice import DrainNotice
from sockserve.core.in_progress import (
    RequestInProgress,
    RequestStatus,
    UnderWay,
    next_deadline,
    next_id,
)
from sockserve.core.lifecycle import verify_and_process
from sockserve.core.statistics import RequestRecord
from sockserve.core.tls import handshake_fault
from sockserve.core.transports import IStreamTransport
from sockserve.executors.fork import ForkExecutor
from sockserve.interfaces import DeadlineExpired, HandshakeFailed, IStreamServer, Outcome, Phase
from sockserve.listeners.proxy_protocol import IProxyHeaderListener, ProxyProtocol
from sockserve.listeners.server import RequestServer
from sockserve.sockets.hangups import HangupWatch, connection_below
from sockserve.sockets.keepalive import keep_alive
from sockserve.streams.channel import Channel, transport_descriptors

if TYPE_CHECKING:
    from _typeshed import MaybeNone

    from sockserve.streams.tls import ClientAuthority

__all__ = ["StreamProtocol", "StreamServer"]


@implementer(IStreamServer)
class StreamServer(RequestServer):
    """
    The part of a server object that its connections know.

    @ivar admission: caps on connections, and the networks they are served from; may be
        shared.
    @ivar connections: the connections that are open.
    @ivar channels: by request, the channel of each connection that is not finished.
    @ivar hangups: the connections that nobody reads at the moment.
    @ivar drain_notice: tells handlers that have their connections themselves that it drains.
    """

    #: Whether connections have the options of L{keep_alive} from what has accepted them.
    inherits_keepalive = False
    #: The authority whose certificates TLS listeners ask clients for; None for nobody's.
    client_authority: ClientAuthority | None = None

    def __init__(
        self, RequestHandlerClass: Callable[..., Any], admission: Admission | None, **options: Any
    ) -> None:
        super().__init__(RequestHandlerClass, **options)
        self.admission = Admission() if admission is None else admission
        self.connections: set[StreamProtocol] = set()
        self.channels: dict[object, Channel] = {}
        self.hangups = HangupWatch()
        self.drain_notice = DrainNotice(self.deadlines)

    @property
    def handlers_server(self) -> Any:
        """The server object that handlers see."""
        return self

    @override
    def in_progress(self) -> Iterable[RequestInProgress]:
        return self.connections

    def make_channel(self, protocol: StreamProtocol, addresses: Addresses) -> Channel:
        """
        Make the channel of a connection, which serves it.

        @param addresses: the client's and the server's, as a socket gives them.
        @raise OSError: there is no descriptor to be had.
        """
        raise NotImplementedError

    def upgrade_failed(
        self, client_address: object, request: object, error: DeadlineExpired | HandshakeFailed
    ) -> None:
        """
        Account for a connection that its handler could not turn to TLS by itself: note that on its
        record, count it, and log it; in a child it is only logged. (handler's thread)
        """
        reason: str | None
        if isinstance(error, DeadlineExpired):
            phase = error.phase
            self.log_expiry(client_address, phase)
            self.call_on_reactor(lambda: self.statistics.expiries.update([phase]))
            outcome, reason = f"expired: {phase}", None
        else:
            self.count_failure(client_address, "handshake", error.reason)
            outcome, reason = "failed: handshake", error.reason
        channel = self.channels.get(request)
        if channel is not None and channel.protocol.record.outcome == "ok":
            record = channel.protocol.record
            record.outcome, record.reason = outcome, reason

    @override
    def _limit(self, name: str) -> object:
        return getattr(self.admission if name == "max_connections_per_peer" else self, name)

    def log_shortage(self, client_address: object, error: OSError) -> None:
        """Log that there was no descriptor to serve a client with, once for many of these."""
        raise NotImplementedError


@implementer(IHalfCloseableProtocol, IHandshakeListener, IProxyHeaderListener)
class StreamProtocol(Protocol):
    """
    One connection, as Twisted's protocol.

    @ivar record: what observers are told of the connection at its end.
    @ivar timer: its deadlines.
    @ivar client_address: the client's address, as a socket gives it; None until it is
        known (after a PROXY header) and admitted.
    @ivar is_finished: whether the server has accounted for it; at most an abandoned
        handler is left.
    """

    factory: StreamServer
    transport: IStreamTransport | MaybeNone
    client_address: object = None
    is_finished = False
    _admitted: SocketAddress | None = None
    _channel: Channel | None = None
    _expired_phase: Phase | None = None
    _was_aborted = False
    _is_draining = False
    #: Its number, once somebody has asked.
    _id: int | None = None
    #: What is wrong with the PROXY header.
    _header_fault: str | None = None
    _handled_at: float | None = None

    # From accept to the offer

    @override
    def connectionMade(self) -> None:
        factory = self.factory
        transport = self.transport
        factory.connections.add(self)
        factory.statistics.active += 1
        factory.admission.opened()
        factory.request_accepted()
        self.timer = timer = DeadlineTimer(factory.reactor, self._deadline_passed)
        self._opened_at = timer.seconds()
        if factory.deadlines.lifetime is not None:
            timer.arm(Phase.LIFETIME, factory.deadlines.lifetime)
        peer = transport.getPeer()
        self.record = RequestRecord(socket_address(peer), factory.handler_name)
        if isinstance(peer, (IPv4Address, IPv6Address)):
            transport.setTcpNoDelay(True)
            if not factory.inherits_keepalive and (below := connection_below(transport)):
                keep_alive(below.socket, factory.deadlines)
        if ISSLTransport.providedBy(transport) or isinstance(transport, HAProxyProtocolWrapper):
            timer.arm(Phase.HANDSHAKE, factory.deadlines.handshake)
        else:
            self._offer()

    def handshakeCompleted(self) -> None:
        """A TLS handshake is complete, at the start or after C{start_tls}."""
        if self._channel is None:
            self._transport_ready()
        else:
            self._channel.handshake_completed()

    def proxy_header_received(self) -> None:
        """The PROXY header has been read."""
        self._transport_ready()

    def proxy_header_failed(self, fault: str) -> None:
        """The PROXY header is none, and the connection about to be closed."""
        self._header_fault = fault

    def _opening_failed(self, reason: Failure) -> None:
        """The connection is lost before its client's address was known."""
        assert reason.value is not None
        fault = self._header_fault or handshake_fault(reason.value)
        wrapper = self.transport
        if isinstance(wrapper, HAProxyProtocolWrapper) and not isinstance(wrapper, ProxyProtocol):
            # Twisted's own does not tell what was wrong.
            fault = "no header" if wrapper.disconnecting else fault
        # Below the header there may be TLS, whose failures are errors of other kinds; or above it.
        is_in_order = isinstance(reason.value, (ConnectionDone, ConnectionLost, ConnectionAborted))
        is_header = is_in_order and isinstance(wrapper, HAProxyProtocolWrapper)
        below = getattr(wrapper, "transport", None)
        if isinstance(below, ProxyProtocol):
            is_header = not below.has_header
            self.record.peer = socket_address(below.getPeer())  # it may have named another
        self.factory.opening_failed(
            self.record, "proxy header" if is_header else "handshake", fault
        )

    def _transport_ready(self) -> None:
        self.timer.disarm(Phase.HANDSHAKE)
        self.record.phases["handshake"] = self.timer.seconds() - self._opened_at
        self.record.peer = socket_address(self.transport.getPeer())  # PROXY has named another
        self._offer()

    def _offer(self) -> None:
        """The client's address is known: offer its request to the server."""
        factory = self.factory
        addresses = (self.record.peer, socket_address(self.transport.getHost()))
        refusal = factory.admission.admit(addresses[0])
        if refusal is not None:
            if refusal == "peer":
                self.record.reason = "max_connections_per_peer"
                factory.log_over_limit(addresses[0], "max_connections_per_peer")
            self._refuse(refusal)
            return
        self.client_address = self._admitted = addresses[0]
        try:
            channel = self._channel = self.make_channel(addresses)
        except OSError as error:
            factory.log_shortage(addresses[0], error)
            self._refuse("descriptors")
            return
        factory.channels[channel.request] = channel
        self.start_channel(channel)
        if self._is_draining:
            # What has come together with the end of the handshake, or of the header, is first.
            factory.clock.callLater(0, self._drain_late)

    def _drain_late(self) -> None:
        """The connection has been offered while the server drains."""
        if not self.is_finished:
            assert self._channel is not None
            self._channel.drain()

    def make_channel(self, addresses: Addresses) -> Channel:
        """
        Make the connection's channel.

        @param addresses: the client's and the server's, as a socket gives them.
        @raise OSError: there is no descriptor to be had.
        """
        return self.factory.make_channel(self, addresses)

    def start_channel(self, channel: Channel) -> None:
        """Have the server verify the connection's request, and start serving it."""
        if not verify_and_process(self.factory, channel.request, self.client_address):
            self.factory.statistics.refused["verify"] += 1
            self.record.outcome = "refused: verify"

    def set_receiver(self, receive: Callable[[bytes], object]) -> None:
        """Call C{receive} with what arrives from now on, in the place of L{dataReceived}."""
        self.dataReceived = receive  # type: ignore[method-assign, assignment]

    def _refuse(self, reason: str) -> None:
        self.factory.statistics.refused[reason] += 1
        self.record.outcome = f"refused: {reason}"
        self.set_receiver(lambda data: None)
        self.abort()

    # While it is served

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._channel is None and not self.transport.disconnecting:
            # Only a wrapper that does not tell of its end delivers before the offer.
            self._transport_ready()
            self.dataReceived(data)

    def readConnectionLost(self) -> None:
        """The client has ended its side."""
        if self._channel is None:
            self.transport.loseConnection()
        else:
            self._channel.eof_received()

    def writeConnectionLost(self) -> None:
        """All of the output has left: tell the channel, which has ended it."""
        if self._channel is not None:
            self._channel.output_ended()

    def _deadline_passed(self, phase: Phase) -> None:
        """The timer says that a deadline has passed."""
        channel = self._channel
        if self._expired_phase is not None or self._was_aborted:
            if phase is Phase.LIFETIME and channel is not None:
                channel.abandon()
        elif phase is Phase.HANDSHAKE and self._is_draining:
            self.abort()
        elif channel is None or channel.deadline_applies(phase):
            self._expired_phase = phase
            self.factory.statistics.expiries[phase] += 1
            self.record.outcome = f"expired: {phase}"
            self.factory.log_expiry(self.record.peer, phase)
            # Nothing else arms or disarms this one by now.
            self.timer.arm(Phase.LIFETIME, self.factory.deadlines.abandon)
            if channel is None:
                self.abort()
            else:
                channel.deadline_passed(phase)

    def drain(self) -> None:
        """
        Give the connection until the C{drain} deadline to finish.  A client whose handshake or
        PROXY header is under way has as long for that as one without, for its request.
        """
        deadlines = self.factory.deadlines
        self._is_draining = True
        self.timer.arm(Phase.DRAIN, deadlines.drain)
        if self._channel is not None:
            self._channel.drain()
        elif deadlines.quiet is None:
            self.abort()
        else:
            self.timer.arm(Phase.HANDSHAKE, deadlines.quiet)

    def descriptors(self) -> Iterator[int]:
        """The descriptors open for the connection here; -1 for one that is closed."""
        if self._channel is None:
            yield from transport_descriptors(self.transport)
        else:
            yield from self._channel.owned_descriptors()

    def abort(self) -> None:
        """End the connection now, whatever is under way."""
        self._was_aborted = True
        if self._channel is None:
            self.transport.abortConnection()
        else:
            self._channel.abort()

    # For an operator

    def status(self) -> RequestStatus:
        """The stand of the connection, or of its request."""
        if self._id is None:
            self._id = next_id()
        channel, record = self._channel, self.record
        stage, request, began = UnderWay("handshake") if channel is None else channel.under_way()
        received, sent = (0, 0) if channel is None else channel.traffic()
        deadline, expires_in = next_deadline(self.timer)
        return RequestStatus(
            id=self._id,
            listener=self.factory.statistics.listener,
            peer=record.peer,
            handler=record.handler,
            stage=stage,
            request=request,
            seconds=self.timer.seconds() - (self._opened_at if began is None else began),
            received=received,
            sent=sent,
            deadline=deadline,
            expires_in=expires_in,
        )

    def abort_by_operator(self) -> None:
        """End the connection now; of a handler that does not hear of that, no longer wait for
        it in a while."""
        if self.record.outcome == "ok":
            self.record.outcome = "aborted"
        self.timer.arm(Phase.LIFETIME, self.factory.deadlines.abandon)
        self.abort()

    # The end

    def is_gone(self) -> bool:
        """Whether the client, or a deadline, has ended the connection. (any thread)"""
        has_expired = self._expired_phase is not None
        if has_expired or not self.connected:
            return True
        return self._channel is not None and self._channel.is_broken()

    def has_been_ended(self) -> bool:
        """Whether the server has ended the connection by a deadline or at its own end.
        (any thread)"""
        return self._expired_phase is not None or self._was_aborted

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.connected = 0
        if self._channel is None:
            if self.record.outcome == "ok":
                self._opening_failed(reason)
            self.finish()
        else:
            self._channel.connection_lost(reason)

    def handler_finished(self, seconds: float, outcome: Outcome) -> None:
        """The handler has finished, C{seconds} after it began."""
        self._handled_at = self.timer.seconds()
        self.record.phases["handle"] = seconds
        if self.record.outcome == "ok":
            self.record.outcome = outcome
            if outcome is Outcome.LOST and isinstance(self.factory.concurrency, ForkExecutor):
                self.factory.log_client(self.client_address, "is gone")  # more its child knew
        self.factory.statistics.count_request(outcome is Outcome.ERROR)

    def finish(self) -> None:
        """Account for the connection; when it is finished already, do nothing."""
        if self.is_finished:
            return
        self.is_finished = True
        self.timer.stop()
        factory = self.factory
        if self._channel is not None:
            factory.channels.pop(self._channel.request, None)
        if self._handled_at is not None:
            self.record.phases["write"] = self.timer.seconds() - self._handled_at
        factory.connections.discard(self)
        factory.statistics.active -= 1
        factory.admission.closed(self._admitted)
        observed = self._channel is None or not self._channel.has_requests
        factory.request_finished(self.record, observed=observed)
