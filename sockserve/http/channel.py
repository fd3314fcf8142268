"""
HTTP connections: requests one after another on one connection, each answered before the
next is looked at.

This room owns what a connection does between accept and end when HTTP is spoken on it:
which deadline runs, when a request is looked at, and what comes after a response.  It must
not know how a connection came about, or how a request is answered
(L{sockserve.http.coroutine}, L{sockserve.http.blocking}).  Everything runs on the reactor
thread.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.logs import Topic, logger
from sockserve.core.statistics import HTTPRequestRecord
from sockserve.core.tasks import Task
from sockserve.http.h1.framing import Event, RemoteProtocolError, State
from sockserve.http.h1.head import HeaderSection, RequestHead
from sockserve.http.h1.reader import RequestParser
from sockserve.http.requests import RequestConnection
from sockserve.http.responses import CoroutineResponse, Response, answer_error, status_for
from sockserve.interfaces import DeadlineExpired, Outcome, Phase
from sockserve.sockets.lending import is_lendable
from sockserve.streams.channel import ChannelOwner, Pending, TransportChannel
from sockserve.streams.reader import HIGH_WATER_BYTES, LOW_WATER_BYTES, StreamReader

__all__ = ["ChannelState", "HTTPChannel"]

#: How much of a body that its handler left unread is read and thrown away so that the
#: connection can be used again.  256 KiB: Go's C{maxPostHandlerReadBytes}.
MAX_DISCARD_BYTES = 256 * 1024

#: How much is read at once of a connection whose requests have had no body yet: what heads
#: take.  Twisted's 64 KiB, allocated for each read, take half a microsecond more.
HEAD_READ_BYTES = 4096
BODY_READ_BYTES = 65536

_log = logger(Topic.HTTP)


class ChannelState(Enum):
    """What a connection does."""

    #: The server has not begun to process it.
    OFFERED = "offered"
    #: It waits for a request, or for the rest of its head.
    READING = "reading"
    #: A request is being answered.
    ANSWERING = "answering"
    #: It is answered; what its handler left unread is thrown away.
    DISCARDING = "discarding"
    #: It is answered; the client has yet to take much of it.
    FLUSHING = "flushing"
    #: There will be no further request.
    CLOSING = "closing"


#: Looked up once, as L{sockserve.core.lifecycle} does.
_READING = ChannelState.READING
_ANSWERING = ChannelState.ANSWERING
_CLOSING = ChannelState.CLOSING
_IDLE = State.IDLE
_HEAD = State.HEAD
_COMPLETE = State.COMPLETE
_END = Event.END
_ERROR = Outcome.ERROR
_PHASE_IDLE = Phase.IDLE


def _ignore(data: bytes) -> None:
    """What comes after the last request."""


class HTTPChannel(TransportChannel):
    """
    One HTTP connection: the part that is the same wherever its handlers run.
    """

    has_requests = True

    def __init__(
        self, protocol: ChannelOwner, addresses: tuple[Any, Any], lenient: bool = False
    ) -> None:
        """
        @param lenient: as L{RequestParser}'s.
        """
        super().__init__(protocol)
        self.deadlines = self.factory.http_deadlines
        self._addresses = addresses
        self._requests = RequestParser(lenient)
        if is_lendable(self.transport):
            self.transport.bufferSize = HEAD_READ_BYTES
        protocol.set_receiver(self.feed)
        self._state = ChannelState.OFFERED
        self._answer_began = 0.0
        #: What L{DeadlineTimer.seconds} asks; twice for every request.
        self._seconds: Callable[[], float] = self.factory.reactor.seconds
        self._received = 0
        #: What handlers have sent without the writer.
        self._sent = 0
        self._body: StreamReader | None = None
        self._discarded = 0
        self._task: Task | None = None
        self._draining = False
        self._paused = False
        self.request = RequestConnection(
            self.transport, self._writer, addresses, self._close, self._open_body
        )

    # What the protocol calls

    @override
    def start(self) -> None:
        self._state = _READING
        self.timer.arm(_PHASE_IDLE, self.deadlines.idle)
        self._read()

    def feed(self, data: bytes) -> None:
        """Bytes have arrived."""
        self._received += len(data)
        self._requests.feed(data)
        if self._state is _READING:
            self._read()
        else:
            self._read_on()

    @override
    def eof_received(self) -> None:
        self._requests.feed_eof()
        if self._state is _READING:
            self._read()
        elif self._requests.state is State.SWITCHED and self._body is not None:
            self._body.feed_eof()
        else:
            self._read_on()
        super().eof_received()

    @override
    def connection_lost(self, reason: Failure) -> None:
        self.protocol.record.received = self._received
        super().connection_lost(reason)
        self._requests.feed_eof()
        if self._body is not None:
            self._body.fail(ConnectionResetError(reason.getErrorMessage()))
        if self._state is not _ANSWERING:
            self._shut_down()
        self._part_ended(Pending.CONNECTION)

    @override
    def deadline_applies(self, phase: Phase) -> bool:
        if self._state is _CLOSING and phase not in (Phase.WRITE, Phase.LIFETIME, Phase.DRAIN):
            return False
        if phase is Phase.IDLE:
            if self._body is not None and self._state is _ANSWERING:
                return self._body.deadline_applies(phase)
            return self._state is _READING and self._requests.state is _IDLE
        if (
            phase in (Phase.HEADER, Phase.BODY)
            and self._body is not None
            and self._state is _ANSWERING
        ):
            return self._body.deadline_applies(phase)
        return super().deadline_applies(phase)

    @override
    def deadline_passed(self, phase: Phase) -> None:
        error = DeadlineExpired(phase)
        if phase is Phase.WRITE or phase is Phase.DRAIN:
            if self._task is not None:
                self._task.cancel(error)
            self._writer.discard(error)
            self.abort()
        elif self._state is _ANSWERING:
            # It may be answered in good order yet, but is the last.
            self.request.response.close = True
            if self._body is not None:
                self._body.fail(error)
            if phase in (Phase.HANDLE, Phase.LIFETIME) and self._task is not None:
                self._task.cancel(error)
        elif self._state is _READING and self._requests.state is _HEAD:
            self._refuse(RemoteProtocolError(status_for(error), str(error)))
        else:
            self._shut_down()

    @override
    def drain(self) -> None:
        self._draining = True
        if self._state is _ANSWERING:
            self.request.response.close = True
        elif self._state is _READING and self._requests.state is _IDLE:
            self._shut_down()

    def is_reading(self) -> bool:
        """Whether it waits for a request, or for the rest of one's head."""
        return self._state is _READING

    @override
    def request_closing(self) -> None:
        self._state = _CLOSING

    @override
    def discard_input(self) -> bool:
        requests = self._requests
        unread = requests.buffered > 0 or requests.state not in (_IDLE, _COMPLETE, State.ENDED)
        self.protocol.set_receiver(_ignore)
        self._resume()
        return unread and not requests.eof

    @override
    def input_ended(self) -> bool:
        return self._requests.eof

    # Reading requests

    def _read(self) -> None:
        """Take requests, as long as each is answered at once."""
        requests = self._requests
        before = requests.state
        try:
            while (head := requests.next_event()) is not None:
                if before is _HEAD:
                    self.timer.disarm(Phase.HEADER)
                    before = _IDLE
                if requests.state is not _COMPLETE:
                    self.transport.bufferSize = BODY_READ_BYTES
                self._answer(head)  # type: ignore[arg-type]
                if self._state is not _READING or requests.is_empty():
                    return
        except RemoteProtocolError as error:
            self._refuse(error)
            return
        self._resume()
        state = requests.state
        if state is _HEAD:
            if before is not _HEAD:
                self.timer.arm(Phase.HEADER, self.deadlines.header)
        elif state is not _IDLE:
            self._shut_down()

    def _read_on(self) -> None:
        """Bytes have come while a request is in service, or after it."""
        requests = self._requests
        if self._state is ChannelState.DISCARDING:
            self._discard()
            if self._state is _READING:
                self._read()
            return
        body = self._body
        if body is not None and self._state is _ANSWERING:
            try:
                # Whoever reads may come to its end at each piece.
                while self._body is body and (event := requests.next_event()) is not None:
                    if event is _END:
                        self.timer.disarm(Phase.BODY)
                        body.feed_eof()
                    else:
                        body.feed(event)  # type: ignore[arg-type]
            except RemoteProtocolError as error:
                self.request.response.close = True
                body.fail(error)
        if body is None or requests.state is _COMPLETE:
            self._pause_when_full()

    def _pause_when_full(self) -> None:
        if self._requests.buffered > HIGH_WATER_BYTES:
            # Again and again: whoever reads the body resumes without asking.
            self._pause()

    def _pause(self) -> None:
        self._paused = True
        self.transport.pauseProducing()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self.transport.resumeProducing()

    # Answering one

    def _answer(self, head: RequestHead) -> None:
        """Have the request answered, now or later; L{_await_next} or L{_shut_down} follows."""
        raise NotImplementedError

    def _open_body(self) -> StreamReader:
        """The stream of the body, made when somebody asks for it."""
        raise NotImplementedError

    # After it

    def _finish_request(self) -> None:
        """The request is answered, and the connection stays."""
        if self._body is not None:
            self._body.discard()
            self._body = None
        if self._requests.state is not _COMPLETE:
            self._state = ChannelState.DISCARDING
            self._discarded = 0
            self.timer.arm(Phase.BODY, self.deadlines.header)
            self._discard()
        else:
            self._resume_when_low()
            self._await_next(self.timer.seconds())

    def _discard(self) -> None:
        requests = self._requests
        try:
            while (event := requests.next_event()) is not None:
                if event is _END:
                    self.timer.disarm(Phase.BODY)
                    self._resume_when_low()
                    self._await_next(self.timer.seconds())
                    return
                self._discarded += len(event)  # type: ignore[arg-type]
        except RemoteProtocolError:
            self._shut_down()
            return
        if self._discarded > MAX_DISCARD_BYTES or requests.state is State.FAILED:
            self._shut_down()
        else:
            self._resume()

    def _resume_when_low(self) -> None:
        if self._requests.buffered <= LOW_WATER_BYTES:
            self._resume()

    def _await_next(self, now: float) -> None:
        self._requests.next_request()
        # An idle connection keeps nothing of what it has served.
        request = self.request
        request.head = request.response = request.wfile = None
        if self._writer.queued_bytes > HIGH_WATER_BYTES:
            # A client that asks on and on without reading is not answered on and on.
            self._state = ChannelState.FLUSHING
            Task(self._writer.emptied(), self._flushed).start()
            return
        self._state = _READING
        self.timer.arm(_PHASE_IDLE, self.deadlines.idle, now)
        if self._draining and self._requests.is_empty():
            self._shut_down()

    def _flushed(self, result: Any, error: BaseException | None) -> None:
        if error is None and self._state is ChannelState.FLUSHING:
            self._state = _READING
            self.timer.arm(_PHASE_IDLE, self.deadlines.idle)
            self._read()
            if self._draining and self._state is _READING and self._requests.state is _IDLE:
                self._shut_down()

    def _refuse(self, error: RemoteProtocolError, head: RequestHead | None = None) -> None:
        """
        Answer what is no request, or not a good one.

        @param head: its head, if that is good.
        """
        self.timer.disarm(Phase.HEADER)
        if head is None:
            self._answer_began = self._seconds()
            head = RequestHead("", "", (1, 1), b"-", HeaderSection())
        response = CoroutineResponse(head, self._writer, self.factory.outbox)
        response.close = True
        answer_error(response, error.status, str(error))
        response.finish()
        self._account(response, Outcome.LOST)
        self._shut_down()

    def _shut_down(self) -> None:
        """There will be no further request."""
        if self._state is not _CLOSING:
            self._state = _CLOSING
            for phase in (Phase.HEADER, Phase.BODY, Phase.HANDLE):
                self.timer.disarm(phase)
            try:
                self.factory.shutdown_request(self.request)
            except Exception:  # an override's; the connection ends even so
                _log.failure("shutdown_request raised")
                if self.parts & Pending.CONNECTION:
                    self.abort()

    def _account(self, response: Response, outcome: Outcome) -> float:
        """Count the request, and tell of it; gives the time."""
        factory = self.factory
        now = self._seconds()
        seconds = now - self._answer_began
        factory.statistics.count_response(response.status, outcome is _ERROR, seconds)
        if factory.observers:
            head = response.request
            ended = self.protocol.record.outcome
            factory.observe(
                HTTPRequestRecord(
                    self.protocol.record.peer,
                    factory.handler_name,
                    {"handle": seconds},
                    head.length,
                    response.sent,
                    str(outcome) if ended == "ok" else ended,
                    head.request_line,
                    response.status,
                    (head.field(b"referer") or b"-").decode("latin-1"),
                    (head.field(b"user-agent") or b"-").decode("latin-1"),
                )
            )
        return now
