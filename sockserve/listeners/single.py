"""
Single requests: those that are no connection, but one handler's each: a packet, a row of a table.

This room owns the way of one such request from C{process_request} to the end of its handler, on
the reactor, on a thread or in a child, under its deadlines.  It must not know whence requests come.
(reactor thread, but where a method says otherwise)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from typing import Any

from twisted.internet.defer import Deferred
from typing_extensions import override
from zope.interface import implementer

from sockserve.core.addresses import canonical_address
from sockserve.core.beginnings import Waiting, begin_on
from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.in_progress import RequestInProgress, RequestStatus, next_deadline, next_id
from sockserve.core.lifecycle import serve, serve_coroutine
from sockserve.core.logs import Topic, log_raised, logger
from sockserve.core.tasks import Task
from sockserve.interfaces import DeadlineExpired, IJob, Outcome, Phase, RequestAborted
from sockserve.listeners.server import RequestServer

__all__ = ["BlockingRequest", "CoroutineRequest", "PendingRequest", "SingleRequestServer"]

_handlers_log = logger(Topic.HANDLERS)

# Looked up once (see L{sockserve.core.lifecycle}).
_OK, _ERROR = Outcome.OK, Outcome.ERROR


class SingleRequestServer(RequestServer):
    """
    The server object of requests that are no connections.

    @ivar pending: the requests that are not finished when C{process_request} returns.
    """

    def __init__(self, RequestHandlerClass: Callable[..., Any], **options: Any) -> None:
        """
        @param options: as L{RequestServer.__init__}.
        """
        super().__init__(RequestHandlerClass, **options)
        self.pending: set[PendingRequest] = set()
        self._seconds = self.clock.seconds
        self._begin = begin_on(self.reactor)

    # Override points that differ from those of streams

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start serving the request; return without waiting for its end. (reactor thread)"""
        if self.concurrency is not None:
            self.make_blocking(request, client_address).start()
            return
        # A coroutine that does not wait is driven to its end right here, without the
        # objects that only a waiting one needs.
        statistics = self.statistics
        statistics.active += 1
        began = self._seconds()
        context = copy_context()
        outcomes: list[Outcome] = []
        served = serve_coroutine(self, request, client_address, outcomes)
        try:
            begun = context.run(self._begin, served)
        except BaseException:
            log_raised(_handlers_log, "serving a request raised past its server's handle_error")
            begun = None
            outcomes.append(_ERROR)
        if begun is None:
            outcome = outcomes[0] if outcomes else _OK
            self.account(request, client_address, began, outcome, outcome)
        else:
            pending = CoroutineRequest(self, request, client_address, began)
            pending.attach(begun, context, outcomes)

    def shutdown_request(self, request: Any) -> None:
        """Call L{close_request}: such a request has no output to end. (handler's thread)"""
        self.close_request(request)

    def close_request(self, request: Any) -> None:
        """Do nothing: nothing is open for the request alone. (handler's thread)"""

    # For the source of the requests

    @override
    def in_progress(self) -> Iterable[RequestInProgress]:
        return self.pending

    def amounts(self, request: Any) -> tuple[int | None, int | None]:
        """The bytes that have come with a request, and those that were sent; None: unknown."""
        return None, None

    def make_blocking(self, request: Any, client_address: Any) -> BlockingRequest:
        """The job of a request whose handler blocks."""
        return BlockingRequest(self, request, client_address, self._seconds())

    def account(
        self, request: Any, client_address: Any, began: float, ended: Outcome, outcome: str
    ) -> None:
        """
        Account for a request that is finished or abandoned: the last that is told of it.

        @param began: when its handler began, by the reactor's clock.
        @param ended: how its handler finished.
        @param outcome: the same for the record, or why it was ended.
        """
        raise NotImplementedError

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


class PendingRequest:
    """
    One request whose handler waits, or runs on a thread or in a child.

    @ivar request: what the handler sees as C{self.request}.
    @ivar began: when its handler began, by the reactor's clock.
    @ivar stage: what is under way, in a word of L{RequestStatus
        <sockserve.core.in_progress.RequestStatus>}.
    """

    stage = "handle"

    def __init__(
        self, server: SingleRequestServer, request: Any, client_address: object, began: float
    ) -> None:
        # For good
        self._server = server
        self.request = request
        self.client_address = client_address
        self.began = began
        # From when it is asked for
        self._timer: DeadlineTimer | None = None
        self._id: int | None = None
        # From its end on
        #: The reason for which it was ended, if its handler has not finished of itself.
        self._outcome: str | None = None
        #: Whether it is accounted for; of an abandoned one the handler may go on.
        self._is_finished = False
        server.pending.add(self)

    def status(self) -> RequestStatus:
        """The stand of the request."""
        if self._id is None:
            self._id = next_id()
        server = self._server
        deadline, expires_in = next_deadline(self._timer)
        received, sent = server.amounts(self.request)
        return RequestStatus(
            id=self._id,
            listener=server.statistics.listener,
            peer=canonical_address(self.client_address),
            handler=server.handler_name,
            stage=self.stage,
            seconds=server.clock.seconds() - self.began,
            received=received,
            sent=sent,
            deadline=deadline,
            expires_in=expires_in,
        )

    def abort_by_operator(self) -> None:
        """End the request now; of a handler that does not hear of that, no longer wait for it."""
        if self._outcome is None:
            self._end_by("aborted", RequestAborted())

    def drain(self) -> None:
        """Give the handler until the C{drain} deadline."""
        self._need_timer().arm(Phase.DRAIN, self._server.deadlines.drain)

    def abandon(self) -> None:
        """Count the request as failed, and its handler as one that will not end."""
        if not self._is_finished:
            self._server.statistics.abandoned += 1
            self._finish(Outcome.ERROR)

    def interrupt(self, error: Exception) -> None:
        """Make the handler finish: raise C{error} in it, if it can be."""
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
        if self._outcome is None:
            self._server.statistics.expiries[phase] += 1
            self._server.log_expiry(self.client_address, phase)
            self._end_by(f"expired: {phase}", DeadlineExpired(phase))
        elif phase is Phase.LIFETIME:  # armed for the second time
            self.abandon()

    def _end_by(self, outcome: str, error: Exception) -> None:
        """Make the handler finish, for a reason other than its own."""
        self._outcome = outcome
        # Nothing else arms this one by now.
        self._need_timer().arm(Phase.LIFETIME, self._server.deadlines.abandon)
        self.interrupt(error)

    def _handler_finished(self, outcome: Outcome) -> None:
        """The handler has finished, perhaps long after it was abandoned."""
        if self._is_finished:
            self._server.statistics.abandoned -= 1
        else:
            self._finish(outcome)

    def _finish(self, ended: Outcome) -> None:
        """The request is finished or abandoned: account for it."""
        self._is_finished = True
        if self._timer is not None:
            self._timer.stop()
        self._server.pending.discard(self)
        self._server.account(
            self.request,
            self.client_address,
            self.began,
            ended,
            ended if self._outcome is None else self._outcome,
        )


class CoroutineRequest(PendingRequest):
    """A request whose handler is a coroutine that waits."""

    def attach(self, begun: Waiting, context: Context, outcomes: list[Outcome]) -> None:
        """
        Go on with a coroutine that has begun.

        @param outcomes: given its outcome, unless that is C{OK}.
        """
        self._outcomes = outcomes
        self._arm_deadlines()
        self._task = Task(begun.coroutine, self._ended, context=context)
        self._task.attach(begun.awaited)

    @override
    def interrupt(self, error: Exception) -> None:
        self._task.cancel(error)

    @override
    def abandon(self) -> None:
        # Unlike a thread, a coroutine can be ended.
        if not self._is_finished:
            self._finish(Outcome.ERROR)
            self._task.abandon()

    def _ended(self, result: None, error: BaseException | None) -> None:
        """The coroutine has come to its end."""
        if error is not None:
            log_raised(
                _handlers_log, "serving a request raised past its server's handle_error", error
            )
            self._outcomes.append(_ERROR)
        self._handler_finished(self._outcomes[0] if self._outcomes else _OK)


@implementer(IJob)
class BlockingRequest(PendingRequest):
    """A request whose handler blocks, on a thread or in a child."""

    def start(self) -> None:
        """Give the request to a worker, or let it wait for one."""
        self._server.statistics.active += 1
        self.stage = "queue"
        concurrency = self._server.concurrency
        assert concurrency is not None
        concurrency.run(self)

    def started(self) -> None:
        """A place was found: the request's deadlines run. (reactor thread)"""
        self.stage = "handle"
        self.began = self._server.clock.seconds()
        self._arm_deadlines()

    def serve(self) -> Outcome:
        """Serve the request from start to end. (worker thread)"""
        return serve(self._server, self.request, self.client_address)

    def runs_long(self) -> None:
        """Do nothing: a long request is served like a short one."""

    def forked(self) -> None:
        """Do nothing: the parent keeps no copy of a request that it could close."""

    def ended(self, outcome: Outcome) -> None:
        """The handler has finished. (reactor thread)"""
        self._handler_finished(outcome)

    def failed(self, error: OSError) -> None:
        """There is no thread or process for it. (reactor thread)"""
        try:
            raise error
        except OSError:
            self._server.handle_error(self.request, self.client_address)
        self._server.shutdown_request(self.request)
        self._handler_finished(Outcome.ERROR)

    @override
    def interrupt(self, error: Exception) -> None:
        concurrency = self._server.concurrency
        assert concurrency is not None
        if concurrency.withdraw(self):
            self._server.shutdown_request(self.request)
            self._finish(Outcome.LOST)
        else:
            # Nothing that a thread waits for is its request's own, so nothing can wake it.
            concurrency.kill(self)
