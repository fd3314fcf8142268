"""
The cycle of a coroutine: one HTTP request that is answered on the reactor.

This room owns driving the coroutine, the streams it gets, and what a handler that fails is
answered with.  It must not know how a connection came about, or what comes after the request.
(reactor thread)
"""

from __future__ import annotations

from contextvars import copy_context

from twisted.python.failure import Failure

from sockserve.core.forking import end_child, is_child
from sockserve.core.lifecycle import serve_next_coroutine
from sockserve.core.logs import Topic, log_raised, logger
from sockserve.core.tasks import Task
from sockserve.http.cycle import CycleOwner
from sockserve.http.h1.framing import LocalProtocolError, RemoteProtocolError
from sockserve.http.h1.head import RequestHead
from sockserve.http.refusals import absent_response, answer_error, reason_for, status_for
from sockserve.http.requests import BodyReader
from sockserve.interfaces import DeadlineExpired, Outcome, Phase
from sockserve.streams.channel import Pending
from sockserve.streams.reader import StreamReader

__all__ = ["CoroutineCycle"]

_log = logger(Topic.HTTP)

# Looked up once (see L{sockserve.core.lifecycle}).
_OK = Outcome.OK


class CoroutineCycle:
    """
    One request that a coroutine answers.

    @ivar response: what answers it, and C{self.wfile} of the handler.
    """

    __slots__ = ("_body", "_channel", "_error", "_task", "began", "response")

    def __init__(self, channel: CycleOwner, head: RequestHead, began: float) -> None:
        """
        @param began: when the head came.
        """
        self._channel = channel
        self.began = began
        self._body: StreamReader | None = None
        self._task: Task | None = None
        #: What the handler has raised.
        self._error: Exception | None = None
        make_response = channel.make_response
        self.response = make_response(head, channel.writer)

    def stage(self) -> str:
        """What is under way."""
        return "handle"

    @property
    def wants_body(self) -> bool:
        """Whether the handler has asked for the body."""
        return self._body is not None

    def start(self) -> None:
        """The head has come: begin to answer."""
        channel, response = self._channel, self.response
        request = channel.request
        request.cycle = self
        request.response = request.wfile = response
        if response.request.expects_continue:
            response.has_begun_body = channel.input.has_begun_body
        if channel.is_draining:
            self.drain()
        if channel.deadlines.handle is not None:
            channel.timer.arm(Phase.HANDLE, channel.deadlines.handle)
        context = copy_context()
        settings = channel.settings
        served = serve_next_coroutine(
            channel.factory,
            request,
            channel.client_address,
            self,
            channel.makes_handlers,
        )
        try:
            begun = context.run(settings.begin, served)
        except BaseException as error:
            self._handler_raised(error)
            return
        if begun is None:
            self._handler_finished()
            return
        if is_child():  # there is no reactor to wait for
            end_child()
        channel.parts |= Pending.HANDLER
        response.uncork()
        self._task = Task(begun.coroutine, self._task_finished, response, context)
        self._task.attach(begun.awaited)

    # The body

    def open_body(self) -> StreamReader:
        """The stream of the body, or of what comes after a switch, made when asked for."""
        channel, response = self._channel, self.response
        is_whole = channel.input.has_whole_body()
        if is_whole and response.started and response.switches:
            response.flush()
            self._body = StreamReader(channel.flow, channel.deadlines, channel.timer)
            channel.resume()
            rest = channel.switch(self._body.feed)
            if rest:
                self._body.feed(rest)
            if channel.input.eof:
                self._body.feed_eof()
        elif self._body is None:
            if is_whole:
                self._body = StreamReader(channel.flow, channel.deadlines, channel.timer)
                self._body.feed_eof()
            else:
                self._body = BodyReader(
                    channel.flow, channel.deadlines, channel.timer, self._ask_for_body
                )
                channel.resume()
                channel.read_body()
        return self._body

    def _ask_for_body(self) -> None:
        """The body is waited for: let a client that waits to be asked send it."""
        head, response = self.response.request, self.response
        if head.expects_continue and not response.is_continued:
            response.is_continued = True
            if not response.started:
                self._channel.ask_for_body()

    def body_received(self, data: bytes) -> None:
        """A piece of the body has come."""
        assert self._body is not None
        self.response.is_continued = True
        self._body.feed(data)

    def body_ended(self) -> None:
        """The body is complete."""
        assert self._body is not None
        self._body.feed_eof()

    def body_failed(self, error: Exception) -> None:
        """The rest of the body will not come."""
        self.response.close = True
        if self._body is not None:
            self._body.fail(error)

    def eof_received(self) -> None:
        """The client has ended its side of what is no HTTP any more."""
        if self._body is not None:
            self._body.feed_eof()

    # Ends

    def connection_lost(self, reason: Failure) -> bool:
        """The handler hears of it by what it reads and writes."""
        return False

    def running_task(self) -> Task | None:
        """The drive of the handler; None if it does not wait."""
        return self._task

    def reads_on(self) -> bool:
        """Whether the handler waits for a part of the body, or for what is no HTTP."""
        return self._body is not None and self._body.waiting()

    def input_taken(self) -> int:
        """How many bytes of the body the handler has taken."""
        return 0 if self._body is None else self._body.taken

    def has_connection(self) -> bool:
        """Whether the handler has the connection itself: no, the reactor has."""
        return False

    def deadline_applies(self, phase: Phase) -> bool | None:
        """Whether a deadline has really passed; None if that is the connection's to say."""
        body = self._body
        if phase is Phase.IDLE:
            return body is not None and body.deadline_applies(phase)
        if body is not None and (phase is Phase.HEADER or phase is Phase.BODY):
            return body.deadline_applies(phase)
        return None

    def deadline_passed(self, phase: Phase) -> None:
        """A deadline has passed: bring the request to an end."""
        error, channel = DeadlineExpired(phase), self._channel
        cancels = channel.departure.deadline_expired(phase)
        # The handler may come to its end within each of these calls, in good order.
        if phase is Phase.WRITE or phase is Phase.DRAIN:
            if cancels and self._task is not None:
                self._task.cancel(error)
            channel.writer.discard(error)
            channel.abort_transport()
            return
        self.body_failed(error)
        if cancels and self._task is not None:
            self._task.cancel(error)

    def drain(self) -> None:
        """The service stops: let the response be the last, unless a request has come after it."""
        self.response.is_followed = self._channel.has_next_request

    def abort(self) -> None:
        """End the connection now; the handler hears of it."""
        self._channel.abort_transport()

    def abandon(self) -> bool:
        """The handler has not come to its end in time: unlike a thread, it can be ended."""
        departure = self._channel.departure
        if self._task is None or departure.finishes_regardless():
            return False
        task, self._task = self._task, None
        task.abandon()
        outcome = Outcome.LOST if departure.was_told() else Outcome.ERROR
        self._channel.account(self.response, outcome, self.began)
        return True

    # The handler's end

    def handler_failed(self, error: Exception) -> None:
        """The handler has raised C{error}, which the server has handled."""
        self._error = error

    def _task_finished(self, result: None, error: BaseException | None) -> None:
        self._task = None
        self._channel.parts &= ~Pending.HANDLER  # before the next request has one
        if error is None:
            self._handler_finished()
        else:
            self._handler_raised(error)
        self._channel.read_next()

    def _handler_raised(self, error: BaseException) -> None:
        log_raised(_log, "serving a request raised past its server's handle_error", error)
        self._error = RuntimeError("the server's handle_error raised")
        self._handler_finished()

    def _handler_finished(self) -> None:
        """
        The handler has come to its end.  The connection is kept, unless

         1. it has been closed by the handler, or broken by the client;
         2. the handler failed after the head had left: the client can tell by the connection's
            end only, which must not look in order;
         3. more of the body is unread than is worth reading;
         4. the handler has ended the connection's output, or the response says so;
         5. the response is not what its head has promised.
        """
        channel, response = self._channel, self.response
        error = self._error
        if error is not None:
            self._error = None  # its traceback leads to this cycle: a circle, otherwise
        channel.departure.is_finishing = False  # the next request's is yet to come
        if channel.deadlines.handle is not None:
            channel.timer.disarm(Phase.HANDLE)
        outcome = _OK if error is None else channel.factory.outcome_of(channel.request, error)
        writer, breaks = channel.writer, False
        is_open = writer.is_open
        if not is_open and (writer.is_broken() or channel.is_closing()):
            response.close = True
            if outcome is _OK and channel.departure.has_cancelled():
                outcome = Outcome.LOST
        elif error is not None and response.begun:
            response.close = breaks = True
        else:
            if not is_open or (response.request.length != 0 and self._leaves_too_much()):
                response.close = True
            if error is not None or not response.started:
                self._answer_failure(error)
            try:
                response.finish()
            except LocalProtocolError as broken:
                channel.factory.log_fault(Topic.HTTP, str(broken))
                outcome = Outcome.ERROR
                writer.flush()
                response.close = True
        if self._body is not None:
            if not response.close:
                self._body.discard()
            self._body = None  # it may know this cycle still: a circle, otherwise
        channel.request_finished(response, outcome, self.began, breaks)

    def _answer_failure(self, error: Exception | None) -> None:
        response = self.response
        if error is None:
            self._channel.factory.log_fault(Topic.HTTP, absent_response(response))
        elif isinstance(error, RemoteProtocolError):
            response.reason = reason_for(error)
        response.reset()
        status = 500 if error is None else status_for(error)
        if status != 500 or isinstance(error, DeadlineExpired):
            response.close = True
        answer_error(response, status, self._channel.settings.handler)

    def _leaves_too_much(self) -> bool:
        """Whether the rest of the body is not worth to be read."""
        channel, response = self._channel, self.response
        return not channel.input.has_whole_body() and (
            response.awaits_continue() or not channel.input.can_skip_body()
        )
