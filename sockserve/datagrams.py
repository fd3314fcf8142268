"""
Datagrams: requests that are one packet each, over UDP and UNIX sockets.

This room owns the server object of datagram listeners (L{DatagramServer}) and what
happens to one packet.  It must not know options.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sockserve.admission import Admission
from sockserve.deadlines import DeadlineTimer
from sockserve.interfaces import ConfigurationError, DeadlineExpired, IJob, Outcome, Phase
from sockserve.lifecycle import offer, serve, serve_coroutine
from sockserve.ports import UDPPort
from sockserve.servers import ABANDON_SECONDS, RequestServer
from sockserve.stats import RequestRecord
from sockserve.tasks import Task

__all__ = ["MAX_REQUESTS", "DatagramAnswer", "DatagramServer"]

#: How many requests of one listener are under way at once (being served, or waiting for
#: a worker) before it stops reading; what comes then waits in the kernel's buffer, and
#: what finds that full is lost, as networks lose packets.  1,000: 8 MiB of packets of
#: the default greatest size.
MAX_REQUESTS = 1000

_log = Logger()


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
        @param admission: the networks requests are served from.
        @param options: as L{RequestServer.__init__}.
        @raise ConfigurationError: C{max_requests} is less than 1.
        """
        super().__init__(RequestHandlerClass, **options)
        if max_requests < 1:
            raise ConfigurationError(f"max_requests: {max_requests} is less than 1")
        self.max_requests = max_requests
        self.admission = Admission() if admission is None else admission
        self._servings: dict[int, _DatagramServing] = {}
        self._draining = False

    def startProtocol(self) -> None:
        self._answer = DatagramAnswer(self.transport.answer, None)
        self._watch_silence()

    def stopProtocol(self) -> None:
        self._unwatch_silence()

    # Override points that differ from those of streams

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start serving the request; returns before it is served.  Reactor thread."""
        self._servings[id(request)].process()

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
        self._arrived()
        statistics = self.statistics
        if len(data) > self.max_packet_size:
            statistics.refused["truncated"] += 1
            return True
        refusal = self.admission.refusal(address)
        if refusal is not None:
            statistics.refused[refusal] += 1
            return True
        statistics.active += 1
        serving = _DatagramServing(self, data, address, arrived_at)
        request = serving.request
        self._servings[id(request)] = serving
        if not offer(self, request, address):
            statistics.refused["verify"] += 1
            serving.outcome = "refused: verify"
        if not serving.under_way:
            serving.settle()
        elif statistics.active >= self.max_requests:
            self.transport.stopReading()
            return False
        return True

    # Ends

    def suspend(self) -> None:
        """Read no more packets."""
        self._draining = True
        self.transport.stopReading()

    def resume(self) -> None:
        """Read packets again."""
        self._draining = False
        if self.statistics.active < self.max_requests:
            self.transport.startReading()

    def drain(self) -> Deferred[None]:
        """
        Let requests come to their end within the C{drain} deadline, then give them up.
        Fires when all are gone.
        """
        for serving in list(self._servings.values()):
            serving.drain()
        return self.drained()

    def abort(self) -> None:
        """Give all requests up now."""
        for serving in list(self._servings.values()):
            serving.abandon()

    def _settled(self, serving: _DatagramServing) -> None:
        del self._servings[id(serving.request)]
        statistics = self.statistics
        if statistics.active == self.max_requests and not self._draining:
            self.transport.startReading()
        statistics.active -= 1
        self._finished(serving.record())


class DatagramAnswer:
    """
    What a coroutine handler answers with: the second half of its request.

    @ivar sent: bytes sent.
    """

    __slots__ = ("_arrived_at", "_send", "sent")

    def __init__(self, send: Callable[[bytes, Any, Any], None], arrived_at: Any) -> None:
        self._send = send
        self._arrived_at = arrived_at
        self.sent = 0

    def sendto(self, data: bytes, address: Any) -> int:
        """
        Send a packet, never waiting: when the kernel's buffer is full it is lost.

        @return: the number of bytes in C{data}.
        @raise OSError: the system refuses it, for example as too long.
        """
        self._send(data, address, self._arrived_at)
        size = len(data)
        self.sent += size
        return size


@implementer(IJob)
class _DatagramServing:
    """
    One packet being served.

    @ivar under_way: whether it was begun and is not over.
    """

    __slots__ = (
        "_began",
        "_expired",
        "_handled",
        "_queued",
        "_queued_at",
        "_server",
        "_settled",
        "_task",
        "_timer",
        "answer",
        "arrived_at",
        "client_address",
        "outcome",
        "request",
        "under_way",
    )

    def __init__(
        self, server: DatagramServer, data: bytes, client_address: Any, arrived_at: Any
    ) -> None:
        self._server = server
        self.client_address = client_address
        self.arrived_at = arrived_at
        self.outcome = "ok"
        self.under_way = False
        self._settled = False
        self._task: Task | None = None
        self._timer: DeadlineTimer | None = None
        self._expired = False
        self._began: float | None = None
        self._queued: float | None = None
        self._handled: float | None = None
        if server.coroutine:
            self.answer = DatagramAnswer(server.transport.answer, arrived_at)
            self.request: Any = (data, self.answer)
        else:
            self.request = (data, server.transport.socket)

    def process(self) -> None:
        """Start serving."""
        server = self._server
        self.under_way = True
        if server.concurrency is None:
            self._began = server.reactor.seconds()
            self._task = task = Task(
                serve_coroutine(server, self.request, self.client_address), self._task_ended
            )
            task.start()
            if self.under_way:
                self._guard()
        else:
            self._queued_at = server.reactor.seconds()
            server.concurrency.run(self)

    def record(self) -> RequestRecord:
        """What it leaves behind."""
        record = RequestRecord(self.client_address, self._server.handler_name)
        record.received = len(self.request[0])
        record.sent = self.answer.sent if self._server.coroutine else None
        record.outcome = self.outcome
        if self._queued is not None:
            record.phases["queue"] = self._queued
        if self._handled is not None:
            record.phases["handle"] = self._handled
        return record

    # The job of a blocking handler

    def started(self) -> None:
        self._began = self._server.reactor.seconds()
        self._queued = self._began - self._queued_at
        self._guard()

    def serve(self) -> Outcome:
        """Runs on the worker thread or in the child."""
        serving = self.request[1].serving
        serving.arrived_at = self.arrived_at
        try:
            return serve(self._server, self.request, self.client_address)
        finally:
            serving.arrived_at = None

    def forked(self) -> None:
        """The parent keeps nothing of a packet."""

    def ended(self, outcome: Outcome) -> None:
        self._over(outcome)

    def failed(self, error: OSError) -> None:
        try:
            raise error
        except OSError:
            self._server.handle_error(self.request, self.client_address)
        self._server.shutdown_request(self.request)
        self._over(Outcome.ERROR)

    # Ends

    def _task_ended(self, result: Any, error: BaseException | None) -> None:
        if error is not None:
            _log.failure("serving a request raised past its server's handle_error", Failure(error))
        self._over(result if error is None else Outcome.ERROR)

    def _over(self, outcome: Outcome) -> None:
        server = self._server
        self.under_way = False
        self._task = None
        if self._began is not None:
            self._handled = server.reactor.seconds() - self._began
        if self.outcome == "ok":
            self.outcome = outcome
        server.count_request(outcome)
        if self._settled:
            server.statistics.abandoned -= 1
        else:
            self.settle()

    def _guard(self) -> None:
        """The handler waits, or runs elsewhere: keep its deadlines."""
        deadlines = self._server.deadlines
        if deadlines.handle is not None or deadlines.lifetime is not None:
            timer = self._timer_made()
            timer.arm(Phase.HANDLE, deadlines.handle)
            timer.arm(Phase.LIFETIME, deadlines.lifetime)

    def _timer_made(self) -> DeadlineTimer:
        if self._timer is None:
            self._timer = DeadlineTimer(self._server.reactor, self._passed)
        return self._timer

    def drain(self) -> None:
        """The service stops."""
        self._timer_made().arm(Phase.DRAIN, self._server.deadlines.drain)

    def _passed(self, phase: Phase) -> None:
        """The timer says that a deadline has passed."""
        if self._expired:
            self.abandon()
            return
        self._expired = True
        server = self._server
        server.statistics.expiries[phase] += 1
        self.outcome = f"expired: {phase}"
        _log.info(
            "{peer}: the {phase} deadline expired", peer=self.client_address, phase=phase
        )
        self._timer_made().arm(phase, ABANDON_SECONDS)
        if self._task is not None:
            self._task.cancel(DeadlineExpired(phase))
        elif server.concurrency is not None:
            if server.concurrency.withdraw(self):
                server.shutdown_request(self.request)
                self.under_way = False
                self.settle()
            else:
                server.concurrency.kill(self)

    def abandon(self) -> None:
        """Wait for the handler no longer."""
        if self.under_way and not self._settled:
            self._server.statistics.abandoned += 1
            self.settle()
            task, self._task = self._task, None
            if task is not None:
                task.abandon()

    def settle(self) -> None:
        """The request is over: account for it."""
        if not self._settled:
            self._settled = True
            if self._timer is not None:
                self._timer.stop()
            self._server._settled(self)
