"""
Datagrams: requests that are one packet each, over UDP and UNIX sockets.

This room owns the server object of datagram listeners (L{DatagramServer}) and what
happens to one packet.  It must not know options.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from sockserve.core.admission import Admission
from sockserve.core.deadlines import DeadlineTimer
from sockserve.core.lifecycle import serve, serve_coroutine, verify_and_process
from sockserve.core.logs import Topic, logger
from sockserve.core.statistics import RequestRecord
from sockserve.core.tasks import Task
from sockserve.interfaces import ConfigurationError, DeadlineExpired, IJob, Outcome, Phase
from sockserve.listeners.datagram_ports import UDPPort
from sockserve.listeners.server import RequestServer

__all__ = [
    "MAX_REQUESTS",
    "DatagramServer",
]

#: How many requests of one listener are under way at once (being served, or waiting for
#: a worker) before it stops reading; what comes then waits in the kernel's buffer, and
#: what finds that full is lost, as networks lose packets.  1,000: 8 MiB of packets of
#: the default greatest size.
MAX_REQUESTS = 1000

_log = logger(Topic.CONNECTIONS)
_handlers_log = logger(Topic.HANDLERS)


class DatagramServer(RequestServer, DatagramProtocol):
    """
    The server object of datagram listeners, and Twisted's protocol for them.

    @cvar max_packet_size: a longer packet is dropped and counted as C{truncated}.
    @ivar max_requests: see L{MAX_REQUESTS}.
    """

    noisy = False
    socket_type: int = socket.SOCK_DGRAM
    max_packet_size: int = 8192
    transport: UDPPort

    def __init__(
        self,
        RequestHandlerClass: Callable[..., Any],
        *,
        admission: Admission | None = None,
        max_requests: int = MAX_REQUESTS,
        **options: Any,
    ) -> None:
        """
        @param admission: the networks requests are served from.  (Its caps are for
            connections.)
        @param options: as L{RequestServer.__init__}.
        @raise ConfigurationError: C{max_requests} is less than 1.
        """
        super().__init__(RequestHandlerClass, **options)
        if max_requests < 1:
            raise ConfigurationError(f"max_requests: {max_requests} is less than 1")
        self.max_requests = max_requests
        self.admission = Admission() if admission is None else admission
        #: Requests whose handlers take a while.
        self.pending: set[_PendingDatagram] = set()
        self._arrivals: dict[int, Any] = {}
        self._seconds = self.reactor.seconds
        self._suspended = False

    @override
    def startProtocol(self) -> None:
        self._socket = self.transport.socket
        self._answering = self.transport.answering()
        self._suspended = False
        self._start_idle_timeout()

    @override
    def stopProtocol(self) -> None:
        self._stop_idle_timeout()

    # Override points that differ from those of streams

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start serving the request; returns before it is served.  Reactor thread."""
        if self.concurrency is not None:
            _BlockingDatagram(self, request, client_address).start()
            return
        # A coroutine that does not wait is driven to its end right here, and nothing is
        # made for it that only a waiting one needs.
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
            serving = _CoroutineDatagram(self, request, client_address, began)
            serving.attach(coroutine, context, awaited)

    def shutdown_request(self, request: Any) -> None:
        """A packet has no output to end: L{close_request}.  Where the handler ran."""
        self.close_request(request)

    def close_request(self, request: Any) -> None:
        """A packet has nothing to close.  Where the handler ran."""

    # What the port calls

    def received(self, data: bytes, address: Any, arrived_at: Any) -> bool:
        """
        A packet has come.

        @param arrived_at: what sends the answer from where it came to, or None.
        @return: whether there may be more.
        """
        statistics = self.statistics
        statistics.accepted += 1
        if self._idle_call is not None:
            self._reset_idle_timeout()
        if len(data) > self.max_packet_size:
            statistics.refused["truncated"] += 1
            return True
        if not self.admission.allows(address):
            statistics.refused["network"] += 1
            return True
        if self.concurrency is None:
            request: Any = (data, self._answering(arrived_at))
        elif arrived_at is None:
            request = (data, self._socket)
        else:
            request = (data, self._socket)
            self._arrivals[id(request)] = arrived_at
        if not verify_and_process(self, request, address):
            statistics.refused["verify"] += 1
        if arrived_at is not None:
            self._arrivals.pop(id(request), None)
        if statistics.active >= self.max_requests:
            self.transport.stopReading()
            return False
        return True

    @override
    def descriptors(self) -> Iterator[int]:
        if self.transport is not None:
            yield self.transport.fileno()

    # Ends

    def suspend(self) -> None:
        """Read no more packets."""
        self._suspended = True
        self.transport.stopReading()

    def resume(self) -> None:
        """Read packets again."""
        self._suspended = False
        if self.statistics.active < self.max_requests:
            self.transport.startReading()

    def drain(self) -> Deferred[None]:
        """
        Let requests come to their end within the C{drain} deadline, then give them up.
        Fires when all are gone.
        """
        for serving in list(self.pending):
            serving.drain()
        return self.drained()

    def abort(self) -> None:
        """Give all requests up now."""
        for serving in list(self.pending):
            serving.abandon()

    def _account(
        self, request: Any, client_address: Any, began: float, ended: Outcome, outcome: str
    ) -> None:
        """
        A request is over.

        @param ended: how its handler ended.
        @param outcome: how the request did: that, or that a deadline expired.
        """
        statistics = self.statistics
        if statistics.active >= self.max_requests and not self._suspended:
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
                    client_address,
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
    One packet whose handler takes a while.

    @ivar began: when its handler began.
    """

    def __init__(
        self, server: DatagramServer, request: Any, client_address: Any, began: float
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
        """The service stops."""
        self._timer_made().arm(Phase.DRAIN, self._server.deadlines.drain)

    def abandon(self) -> None:
        """Wait for the handler no longer."""
        if not self._finished:
            self._server.statistics.abandoned += 1
            self._finish(Outcome.ERROR)

    def deadline_passed(self, phase: Phase) -> None:
        """A deadline has passed: bring the request to an end."""
        raise NotImplementedError

    def _arm_deadlines(self) -> None:
        """The handler waits, or runs elsewhere: keep its deadlines."""
        deadlines = self._server.deadlines
        if deadlines.handle is not None or deadlines.lifetime is not None:
            timer = self._timer_made()
            timer.arm(Phase.HANDLE, deadlines.handle)
            timer.arm(Phase.LIFETIME, deadlines.lifetime)

    def _timer_made(self) -> DeadlineTimer:
        if self._timer is None:
            self._timer = DeadlineTimer(self._server.reactor, self._deadline_passed)
        return self._timer

    def _deadline_passed(self, phase: Phase) -> None:
        """The timer says that a deadline has passed."""
        if self._expired_phase is not None:
            if phase is Phase.LIFETIME:
                self.abandon()
            return
        self._expired_phase = phase
        self._server.statistics.expiries[phase] += 1
        _log.info("{peer}: the {phase} deadline expired", peer=self.client_address, phase=phase)
        # Nothing else arms this one by now.
        self._timer_made().arm(Phase.LIFETIME, self._server.deadlines.abandon)
        self.deadline_passed(phase)

    def _handler_finished(self, outcome: Outcome) -> None:
        """The handler has come to its end."""
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
    """A coroutine that waits."""

    def attach(self, coroutine: Any, context: Context, awaited: Any) -> None:
        """It waits for C{awaited} now."""
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

    def _ended(self, result: Any, error: BaseException | None) -> None:
        if error is not None:
            _handlers_log.failure(
                "serving a request raised past its server's handle_error", Failure(error)
            )
        self._handler_finished(result if error is None else Outcome.ERROR)


@implementer(IJob)
class _BlockingDatagram(_PendingDatagram):
    """A blocking handler on a thread or in a child."""

    def __init__(self, server: DatagramServer, request: Any, client_address: Any) -> None:
        super().__init__(server, request, client_address, server.reactor.seconds())
        self._arrived_at = server._arrivals.pop(id(request), None)

    @property
    def descriptors(self) -> tuple[int]:
        """A child answers through the listener's own socket."""
        return (self.request[1].fileno(),)

    def start(self) -> None:
        """Start serving, or wait for a worker."""
        self._server.statistics.active += 1
        concurrency = self._server.concurrency
        assert concurrency is not None
        concurrency.run(self)

    def started(self) -> None:
        self.began = self._server.reactor.seconds()
        self._arm_deadlines()

    def serve(self) -> Outcome:
        """Runs on the worker thread or in the child."""
        serving = self.request[1].serving
        serving.arrived_at = self._arrived_at
        try:
            return serve(self._server, self.request, self.client_address)
        finally:
            serving.arrived_at = None

    def runs_long(self) -> None:
        """Nothing depends on it."""

    def forked(self) -> None:
        """The parent keeps nothing of a packet."""

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
