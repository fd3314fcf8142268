"""
Responses: one response from its first header field to its last byte.

This room owns what is held back so that head and body leave together, and what the server
adds to a head: C{Content-Length}, C{Transfer-Encoding}, C{Connection}.  It must not know
what a handler means by a response, or connections beyond something to write to.

A response whose length the handler does not name is held until the handler has come to
its end, and then has a C{Content-Length}.  One whose handler waits, flushes, or has written
more than the high watermark before that is sent in chunks (to HTTP/1.0: until the
connection ends).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from typing_extensions import override

from sockserve.core.buffers import bytes_of
from sockserve.core.statistics import HTTPRequestRecord, RequestRecord
from sockserve.http.h1.framing import (
    LocalProtocolError,
    ResponseFraming,
    State,
)
from sockserve.http.h1.head import RequestHead
from sockserve.http.h1.request_line import HTTP_1_1
from sockserve.interfaces import Outcome
from sockserve.streams.reader import HIGH_WATER_BYTES
from sockserve.streams.writer import StreamWriter

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "BlockingResponse",
    "CoroutineResponse",
    "Response",
    "ResponseBody",
]

# Looked up once (see L{sockserve.core.lifecycle}).
_AWAITED = State.AWAITED
_CHUNKED = State.CHUNKED
_UNTIL_CLOSE = State.UNTIL_CLOSE
_BODILESS = State.BODILESS
_SENT = State.SENT

#: A line of a head that says how a body ends.
_FRAMING_LINE = re.compile(r"(?im)^(?:content-length|transfer-encoding):[^\n]*\n")

#: Those of responses that have no body, or are not followed by HTTP.
_SPECIAL_STATUSES = frozenset([101, 204, 304])


class ResponseBody(Protocol):
    """C{self.wfile}, as much of it as a handler has in any case."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Send C{data} as a piece of the body."""

    def flush(self) -> None:
        """Send what was held back."""


class Response(ResponseFraming):
    """
    What both kinds of handler's responses share.

    It is framed as HTTP/1.  Another version's response frames what L{_take_held} gives, in a
    L{_compose} and a L{finish} of its own, and has its own L{send_informational}.

    @ivar request: the head of the request it answers.
    @ivar version: of the request; C{(1, 0)} at most if the handler says so.
    @ivar status: its status; 0 before there is one.
    @ivar close: whether the connection ends with it.
    @ivar is_followed: while the service stops, tells whether a further request has arrived; if not
        when the head leaves, that ends the connection.
    @ivar is_continued: whether the client has been asked for the body of the request, or has begun
        to send it.
    @ivar has_begun_body: tells whether a part of the request's body waits to be read, if its client
        may wait to be asked for that.
    @ivar sent: bytes of its body that have left, without their framing.
    @ivar reason: the limit for which the request is refused, by name; None when it is not.
    @ivar phases: the seconds of what its handler has measured, by name; None for nothing.
    @ivar has_open_head: whether its handler has begun a head and not ended it.
    @ivar started: whether there is a head, be it held back.
    @ivar corked: whether its body is held back, as long as there is not too much of it.
    """

    # What few responses have is of the class: it costs the others nothing.  What is asked of each
    # is not, as the interpreter is quicker to find it with the object.
    status = 0
    reason: str | None = None
    has_open_head = False
    is_continued = False
    has_begun_body: Callable[[], bool] | None = None
    #: The head that has not left yet, without its last lines, and what it says of the body.
    _head: str | None = None
    _length: int | None = None
    _coding: str | None = None

    def __init__(self, request: RequestHead, target: Any) -> None:
        """
        @param target: where it is sent.
        """
        self.request = request
        self.version = request.version
        self.close = not request.keep_alive
        self._target = target
        self.state = _AWAITED
        self.started = False
        self.corked = True
        self.sent = 0
        self.phases: dict[str, float] | None = None
        self.is_followed: Callable[[], bool] | None = None
        #: What of the body is held back, and its size in bytes.
        self._parts: list[bytes] = []
        self._size = 0

    # What the handler calls by way of its own methods

    def start(self, status: int, head: str, length: int | None, coding: str | None) -> None:
        """
        The head is complete but for what the server adds to it.

        @param head: status line and header fields, each with its CR LF.
        @param length: what its Content-Length says, if it has one.
        @param coding: what its Transfer-Encoding says, if it has one.
        @raise LocalProtocolError: this request has had its response.
        """
        if self.started:
            raise LocalProtocolError("a request has one response, and this one has begun")
        self.started = True
        self.status = status
        self._head = head
        self._length = length
        self._coding = coding

    def write(self, data: ReadableBuffer) -> int:
        """
        Send C{data} as a piece of the body, or hold it back.  After the connection of a coroutine
        broke it goes nowhere, and C{drain} says so.

        @return: the number of bytes in C{data}.
        @raise LocalProtocolError: there is no head yet, or the body is longer than its
            Content-Length.
        """
        if type(data) is not bytes:
            data = bytes_of(data)
        if not self.started:
            raise LocalProtocolError("a body comes after a head: call end_headers first")
        size = len(data)
        self._parts.append(data)
        self._size = held = self._size + size
        if self._length is not None and self.sent + held > self._length:
            self._check_excess(size)
        if held > HIGH_WATER_BYTES or not self.corked:
            self.flush()
        return size

    def flush(self) -> None:
        """Send what was held back; does not wait for a slow reader."""
        data = self._compose(False)
        if data:
            self._emit(data)

    def send_informational(self, head: str) -> None:
        """
        Send the whole head of an interim response (1xx), to whom understands it.

        @raise LocalProtocolError: the final response has begun.
        """
        if self.started:
            raise LocalProtocolError("an interim response comes before the final one")
        if self.version == (1, 1):
            self._emit(f"{head}\r\n".encode("latin-1"))

    # What the server calls

    @property
    def begun(self) -> bool:
        """Whether anything of it has left."""
        return self.state is not _AWAITED

    def awaits_continue(self) -> bool:
        """Whether the client may still wait to be asked for its body; not once it has begun."""
        if self.is_continued or not self.request.expects_continue:
            return False
        return self.has_begun_body is None or not self.has_begun_body()

    def reset(self) -> None:
        """Forget what is held back; nothing has left."""
        self.started = False
        self._head = None
        self._parts.clear()
        self._size = 0

    def finish(self) -> None:
        """
        The handler has come to its end: send all that is held back, and the end.

        @raise LocalProtocolError: the body is shorter than its Content-Length.
        """
        head, length, size = self._head, self._length, self._size
        if (
            head is not None
            and (length is None or length == size)
            and self._coding is None
            and self.is_followed is None
            and not self.close
            and (self.status == 200 or self.status not in _SPECIAL_STATUSES)
            and self.request.is_usual
            and self.version is HTTP_1_1
        ):
            # What _compose and end come to, for most of all responses.
            self._head = None
            self.state = _SENT
            parts = self._parts
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self.sent = size
            end = "\r\n" if length is not None else f"Content-Length: {size}\r\n\r\n"
            self._emit((head + end).encode("latin-1") + body)
            return
        if self.state is _SENT:
            return
        data = self._compose(True)
        try:
            data += self.end()
        finally:
            if data:
                self._emit(data)

    def record(
        self, connection: RequestRecord, handler_name: str, seconds: float, outcome: Outcome
    ) -> HTTPRequestRecord:
        """
        What is told of the request when it is over.

        @param connection: what is known of its connection.
        @param seconds: how long its handler took.
        """
        head, ended = self.request, connection.outcome
        return HTTPRequestRecord(
            connection.peer,
            handler_name,
            {**(self.phases or {}), "handle": seconds},
            head.length,
            self.sent,
            str(outcome) if ended == "ok" else ended,
            head.request_line,
            self.status,
            (head.field(b"referer") or b"-").decode("latin-1"),
            (head.field(b"user-agent") or b"-").decode("latin-1"),
            reason=self.reason,
        )

    # Inside

    def _emit(self, data: bytes) -> None:
        """Send C{data} now."""
        raise NotImplementedError

    def _check_excess(self, size: int) -> None:
        """
        Give back the last piece, of C{size} bytes, if the head has promised fewer.

        @raise LocalProtocolError: it has.
        """
        if self.request.method != "HEAD" and self.status not in (204, 304):
            del self._parts[-1]
            self._size -= size
            raise LocalProtocolError(f"the body is longer than its Content-Length, {self._length}")

    def _take_held(self) -> tuple[str | None, bytes]:
        """Take what is held back: the head, if that has not left, and a piece of the body."""
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._size = 0
        head, self._head = self._head, None
        return head, body

    def _compose(self, final: bool) -> bytes:
        """
        Make what leaves now of what is held back.

        @param final: whether that is all of the body.
        """
        head, body = self._take_held()
        if head is not None:
            if self.is_followed is not None and not self.is_followed():
                self.close = True
            leaving = self._completed(head, len(body) if final else None)
        elif self.state is _AWAITED:
            return b""
        else:
            leaving = b""
        if body:
            leaving += self.data(body)
            if self.state is not _BODILESS:
                self.sent += len(body)
        return leaving

    def _completed(self, head: str, size: int | None) -> bytes:
        """
        A head with what the server adds.

        @param size: of the whole body, if that is here.
        """
        status, method = self.status, self.request.method
        length = self._length
        if length is None and size is not None and self._coding is None:
            length = size
            if (
                status not in (204, 304)
                and (size or method != "HEAD")
                and not self.switches  # RFC 9110 section 8.6
            ):
                head = f"{head}Content-Length: {size}\r\n"
        elif status == 204:  # RFC 9110 section 8.6 and RFC 9112 section 6.1: it has neither
            head = _FRAMING_LINE.sub("", head)
        state = self.begin(method, self.version, status, length, self._coding)
        if state is _CHUNKED:
            head += "Transfer-Encoding: chunked\r\n"
        elif state is _UNTIL_CLOSE:
            self.close = True
            if self.version == (0, 9):
                return b""
            if self.switches:
                return f"{head}\r\n".encode("latin-1")
        if self.awaits_continue():
            # Its body has not been asked for: nobody can tell whether it follows.
            self.close = True
        if self.close:
            head += "Connection: close\r\n"
        elif self.version != (1, 1):
            head += "Connection: keep-alive\r\n"
        return f"{head}\r\n".encode("latin-1")

    @property
    def switches(self) -> bool:
        """Whether another protocol is spoken after its head (101, and 2xx to CONNECT)."""
        return self.status == 101 or (self.request.method == "CONNECT" and self.status // 100 == 2)


class CoroutineResponse(Response):
    """
    The C{wfile} of a coroutine handler, on the reactor thread; see
    L{sockserve.streams.writer.StreamWriter} for the names.  What the handler writes until it next
    waits leaves in one piece.
    """

    _target: StreamWriter

    def writelines(self, lines: Iterable[ReadableBuffer]) -> None:
        """C{write} each of C{lines}; no separators are added."""
        for line in lines:
            self.write(line)

    async def drain(self) -> None:
        """
        Wait while more than the high watermark is queued, until it is down to the low
        one.

        @raise ConnectionError: the connection broke.
        @raise DeadlineExpired: the C{write} deadline passed.
        """
        await self._target.drain()

    @property
    def queued_bytes(self) -> int:
        """How many bytes of the connection's wait to leave."""
        return self._target.queued_bytes

    def send_held(self) -> None:
        """Send what has been written, and has not left yet."""
        self._target.send_held()

    def uncork(self) -> None:
        """The handler waits: send what was held back."""
        self.corked = False
        if self._head is not None or self._parts:
            self.flush()

    @override
    def _emit(self, data: bytes) -> None:
        self._target.write_at_turn_end(data)


def _nowhere(data: bytes) -> None:
    raise ValueError("write to a response whose request is over")


class BlockingResponse(Response):
    """
    The response of a blocking handler, on its thread.  Its target sends all it is given, blocking;
    the body is held back as long as nobody knows its length, and nothing has left.

    @ivar is_mistaken: whether it was one that must not be sent, and is not.
    """

    is_mistaken = False
    _target: Callable[[bytes], object]

    @override
    def start(self, status: int, head: str, length: int | None, coding: str | None) -> None:
        Response.start(self, status, head, length, coding)  # super() takes twice that in 3.11
        self.corked = length is None

    @override
    def flush(self) -> None:
        Response.flush(self)
        self.corked = self.corked and self.state is _AWAITED

    def detach(self) -> None:
        """Let go of where it is sent: its request is over. (reactor thread)"""
        self._target = _nowhere

    @override
    def _emit(self, data: bytes) -> None:
        self._target(data)
