"""
Datagrams: requests that are one packet each, over UDP and UNIX sockets.

This room owns the server object of datagram listeners (L{DatagramServer}), and the way of
one packet from its arrival to the end of its handler.  It must not know options.
(reactor thread, but where a method says otherwise)
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context, copy_context
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from sockserve.core.addresses import SocketAddress, canonical_address
from sockserve.core.admission import Admission
from sockserve.core.deadlines import DeadlineTimer
from sockserve.core.lifecycle import serve, serve_coroutine, verify_and_process
from sockserve.core.logs import Topic, logger
from sockserve.core.statistics import RequestRecord
from sockserve.core.tasks import Task
from sockserve.interfaces import DeadlineExpired, IJob, Outcome, Phase
from sockserve.listeners.datagram_ports import Ancillary, UDPPort
from sockserve.listeners.server import RequestServer

__all__ = ["DatagramServer"]

_handlers_log = logger(Topic.HANDLERS)


class DatagramServer(RequestServer, DatagramProtocol):
    """
    The server object of datagram listeners, and Twisted's protocol for them.

    @cvar max_packet_size: the longest packet that is served, in bytes; a longer one is
        dropped and counted as C{truncated}.
    @cvar max_datagrams: the most requests that are under way at once, being served or waiting
        for a worker; None: any number.  Beyond it the listener stops reading: packets wait in
        the kernel's buffer, and those that find it full are lost, as networks lose packets.
        1,000: 8 MiB of packets of the default greatest size.
    @ivar admission: the networks requests are served from; may be shared.
    @ivar pending: the requests that are not finished when C{process_request} returns.
    """

    noisy = False
    socket_type: int = socket.SOCK_DGRAM
    max_packet_size: int = 8192
    max_datagrams: int | None = 1000
    transport: UDPPort

    def __init__(
        self,
        RequestHandlerClass: Callable[..., Any],
        *,
        admission: Admission | None = None,
        **options: Any,
    ) -> None:
        """
        @param admission: the networks requests are served from; by default all.  (Its caps
            are for connections, and do nothing here.)
        @param options: as L{RequestServer.__init__}.
        """
        super().__init__(RequestHandlerClass, **options)
        self.admission = Admission() if admission is None else admission
        self.pending: set[_PendingDatagram] = set()
        #: By the C{id} of a request that is being offered to a blocking handler, the
        #: ancillary data that sends its answer from where it came to.
        self._arrivals: dict[int, Ancillary] = {}
        self._seconds = self.clock.seconds
        self._suspended = False

    @override
    def startProtocol(self) -> None:
        self._socket = self.transport.socket
        self._make_reply = self.transport.reply_maker()
        self._suspended = False
        self._start_idle_timeout()
        self.begin_watch()

    @override
    def stopProtocol(self) -> None:
        self._stop_idle_timeout()
        self.end_watch()

    # Override points that differ from those of streams

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start serving the request; return without waiting for its end. (reactor thread)"""
        if self.concurrency is not None:
            _BlockingDatagram(self, request, client_address).start()
            return
        # A coroutine that does not wait is driven to its end right here, without the
        # objects that only a waiting one needs.
        statistics = self.statistics
        statistics.active += 1
        began = self._seconds()
        coroutine = serve_coroutine(self, request, client_address)
        context = copy_context()
        try:
            awaited = context.run(coroutine.send, None)
        except StopIteration as end:
            self._account(request, client_address, began, end.value, end.value)
        except BaseException:
            _handlers_log.failure("serving a request raised past its server's handle_error")
            self._account(request, client_address, began, Outcome.ERROR, Outcome.ERROR)
        else:
            pending = _CoroutineDatagram(self, request, client_address, began)
            pending.attach(coroutine, context, awaited)

    def shutdown_request(self, request: Any) -> None:
        """Call L{close_request}: a packet has no output to end. (handler's thread)"""
        self.close_request(request)

    def close_request(self, request: Any) -> None:
        """Do nothing: the socket is the listener's. (handler's thread)"""

    # What the port calls

    def received(
        self, data: bytes, address: SocketAddress | None, arrived_at: Ancillary | None
    ) -> bool:
        """
        A packet has come: offer it to the server.

        @param address: the client's, as a socket gives it; None for a UNIX client without a name.
        @param arrived_at: the ancillary data that sends the answer from the address that
            the packet came to; None to let the system choose.
        @return: whether the port is to read on; if not, it has been stopped.
        """
        statistics = self.statistics
        statistics.accepted += 1
        if self._idle_call is not None:
            self._reset_idle_timeout()
        if len(data) > self.max_packet_size:
            self._refuse_long(address)
            return True
        if not self.admission.allows(address):
            statistics.refused["network"] += 1
            return True
        if self.concurrency is None:
            request: Any = (data, self._make_reply(arrived_at, address))
        elif arrived_at is None:
            request = (data, self._socket)
        else:
            request = (data, self._socket)
            self._arrivals[id(request)] = arrived_at
        if not verify_and_process(self, request, address):
            statistics.refused["verify"] += 1
        if arrived_at is not None:
            self._arrivals.pop(id(request), None)
        most = self.max_datagrams
        if most is not None and statistics.active >= most:
            self._limits_log.add("max_datagrams", self._why_full())
            self.transport.stopReading()
            return False
        return True

    def _why_full(self) -> str:
        return (
            f"{self.max_datagrams} datagrams are under way, which is max_datagrams; others wait"
            " in the system's buffer, and are lost if that is full"
        )

    def _refuse_long(self, address: object) -> None:
        """Account for a packet that is longer than L{max_packet_size}."""
        self.statistics.refused["truncated"] += 1
        self.log_over_limit(address, "max_packet_size")
        if self.observers:
            record = RequestRecord(address, self.handler_name, {}, None, 0, "refused: truncated")
            record.reason = "max_packet_size"
            self.observe(record)

    @override
    def descriptors(self) -> Iterator[int]:
        if self.transport is not None:
            yield self.transport.fileno()

    # Ends

    def suspend(self) -> None:
        """Read no packets until L{resume}; they wait in the kernel's buffer."""
        self._suspended = True
        self.transport.stopReading()

    def resume(self) -> None:
        """Read packets again."""
        self._suspended = False
        if self.max_datagrams is None or self.statistics.active < self.max_datagrams:
            self.transport.startReading()

    def drain(self) -> Deferred[None]:
        """
        Give the requests until the C{drain} deadline to finish, then abandon them.

        @return: a Deferred that fires when no request is left.
        """
        for pending in list(self.pending):
            pending.drain()
        return self.drained()

    def abort(self) -> None:
        """Abandon all requests now."""
        for pending in list(self.pending):
            pending.abandon()

    def _account(
        self, request: Any, client_address: object, began: float, ended: Outcome, outcome: str
    ) -> None:
        """
        Account for a request that is finished or abandoned.

        @param began: when its handler began, by the reactor's clock.
        @param ended: how its handler finished.
        @param outcome: the same for the record, or the deadline that expired.
        """
        statistics = self.statistics
        most = self.max_datagrams
        if most is not None and statistics.active >= most and not self._suspended:
            self.transport.startReading()
        statistics.active -= 1
        self.count_request(ended)
        seconds = self._seconds() - began
        received = len(request[0])
        sent = request[1].sent if self.concurrency is None else None
        statistics.received += received
        if sent:
            statistics.sent += sent
        statistics.observe_duration("handle", seconds)
        if self.observers:
            self.observe(
                RequestRecord(
                    canonical_address(client_address),
                    self.handler_name,
                    {"handle": seconds},
                    received,
                    sent,
                    outcome,
                )
            )
        if self._drained is not None:
            self._check_drained()


class _PendingDatagram:
    """
    One packet whose handler waits, or runs on a thread or in a child.

    @ivar request: what the handler sees as C{self.request}.
    @ivar began: when its handler began, by the reactor's clock.
    """

    def __init__(
        self, server: DatagramServer, request: Any, client_address: object, began: float
    ) -> None:
        self._server = server
        self.request = request
        self.client_address = client_address
        self.began = began
        self._timer: DeadlineTimer | None = None
        self._expired_phase: Phase | None = None
        self._finished = False
        server.pending.add(self)

    def drain(self) -> None:
        """Give the handler until the C{drain} deadline."""
        self._need_timer().arm(Phase.DRAIN, self._server.deadlines.drain)

    def abandon(self) -> None:
        """Count the request as failed, and its handler as one that will not end."""
        if not self._finished:
            self._server.statistics.abandoned += 1
            self._finish(Outcome.ERROR)

    def deadline_passed(self, phase: Phase) -> None:
        """A deadline has passed: make the handler finish."""
        raise NotImplementedError

    def _arm_deadlines(self) -> None:
        """Arm the deadlines of a handler that waits, or has begun elsewhere."""
        deadlines = self._server.deadlines
        if deadlines.handle is not None or deadlines.lifetime is not None:
            timer = self._need_timer()
            timer.arm(Phase.HANDLE, deadlines.handle)
            timer.arm(Phase.LIFETIME, deadlines.lifetime)

    def _need_timer(self) -> DeadlineTimer:
        """The request's timer, made when it is first needed."""
        if self._timer is None:
            self._timer = DeadlineTimer(self._server.reactor, self._deadline_passed)
        return self._timer

    def _deadline_passed(self, phase: Phase) -> None:
        """The timer says that a deadline has passed."""
        if self._expired_phase is not None:
            if phase is Phase.LIFETIME:  # armed below, for the second time
                self.abandon()
            return
        self._expired_phase = phase
        self._server.statistics.expiries[phase] += 1
        self._server.log_expiry(self.client_address, phase)
        # Nothing else arms this one by now.
        self._need_timer().arm(Phase.LIFETIME, self._server.deadlines.abandon)
        self.deadline_passed(phase)

    def _handler_finished(self, outcome: Outcome) -> None:
        """The handler has finished, perhaps long after it was abandoned."""
        if self._finished:
            self._server.statistics.abandoned -= 1
        else:
            self._finish(outcome)

    def _finish(self, ended: Outcome) -> None:
        self._finished = True
        if self._timer is not None:
            self._timer.stop()
        self._server.pending.discard(self)
        phase = self._expired_phase
        self._server._account(
            self.request,
            self.client_address,
            self.began,
            ended,
            ended if phase is None else f"expired: {phase}",
        )


class _CoroutineDatagram(_PendingDatagram):
    """A packet whose handler is a coroutine that waits."""

    def attach(
        self, coroutine: Coroutine[object, None, Outcome], context: Context, awaited: object
    ) -> None:
        """Go on with a coroutine that has been driven until it waits for C{awaited}."""
        self._arm_deadlines()
        self._task = Task(coroutine, self._ended, context=context)
        self._task.attach(awaited)

    def deadline_passed(self, phase: Phase) -> None:
        self._task.cancel(DeadlineExpired(phase))

    def abandon(self) -> None:
        # Unlike a thread, a coroutine can be ended.
        if not self._finished:
            self._finish(Outcome.ERROR)
            self._task.abandon()

    def _ended(self, result: Outcome | None, error: BaseException | None) -> None:
        if error is not None:
            _handlers_log.failure(
                "serving a request raised past its server's handle_error", Failure(error)
            )
        self._handler_finished(Outcome.ERROR if result is None else result)


@implementer(IJob)
class _BlockingDatagram(_PendingDatagram):
    """A packet whose handler blocks, on a thread or in a child."""

    def __init__(self, server: DatagramServer, request: Any, client_address: object) -> None:
        super().__init__(server, request, client_address, server.clock.seconds())
        self._arrived_at = server._arrivals.pop(id(request), None)

    @property
    def descriptors(self) -> tuple[int]:
        """The listener's own socket, by which a child answers."""
        return (self.request[1].fileno(),)

    def start(self) -> None:
        """Give the request to a worker, or let it wait for one."""
        self._server.statistics.active += 1
        concurrency = self._server.concurrency
        assert concurrency is not None
        concurrency.run(self)

    def started(self) -> None:
        self.began = self._server.clock.seconds()
        self._arm_deadlines()

    def serve(self) -> Outcome:
        """Serve the packet, with the socket answering from where it came to. (worker thread)"""
        replying = self.request[1].replying
        replying.client_address = self.client_address
        replying.arrived_at = self._arrived_at
        try:
            return serve(self._server, self.request, self.client_address)
        finally:
            replying.__dict__.clear()

    def runs_long(self) -> None:
        """Do nothing: a long request is served like a short one."""

    def forked(self) -> None:
        """Do nothing: the parent keeps no copy of a packet that it could close."""

    def ended(self, outcome: Outcome) -> None:
        self._handler_finished(outcome)

    def failed(self, error: OSError) -> None:
        try:
            raise error
        except OSError:
            self._server.handle_error(self.request, self.client_address)
        self._server.shutdown_request(self.request)
        self._handler_finished(Outcome.ERROR)

    def deadline_passed(self, phase: Phase) -> None:
        concurrency = self._server.concurrency
        assert concurrency is not None
        if concurrency.withdraw(self):
            self._server.shutdown_request(self.request)
            self._finish(Outcome.LOST)
        else:
            # A thread shares its socket with all others, so nothing can wake it.
            concurrency.kill(self)
