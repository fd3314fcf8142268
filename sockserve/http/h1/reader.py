"""
The parser of a connection's bytes into HTTP/1.x requests.

This room owns the division of the bytes into heads, bodies and requests
(L{RequestParser}); the order of events is in L{sockserve.http.h1.framing}'s table.  It must
not know sockets, clocks, handlers or responses.

Requests are taken one at a time: a pipelined request waits unparsed until the one before it
is answered.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sockserve.http.h1.chunks import ChunkReader
from sockserve.http.h1.framing import (
    TRANSITIONS,
    Event,
    RemoteProtocolError,
    State,
    unexpected_event,
)
from sockserve.http.h1.head import HeadParser, RequestHead
from sockserve.http.h1.request_line import TOKEN, parse_request_line

__all__ = ["MAX_SKIP_BYTES", "RequestParser"]

# Looked up once (see L{sockserve.core.lifecycle}).
_IDLE = State.IDLE
_COMPLETE = State.COMPLETE
_END = Event.END
#: The state after the head of a request without a body, and after a request.
_AFTER_HEAD = TRANSITIONS[State.HEAD][Event.BODILESS]
_AFTER_REQUEST = TRANSITIONS[State.COMPLETE][Event.NEXT]

#: How much of a body that its handler left unread is read and thrown away so that the
#: connection can be used again.  256 KiB: Go's C{maxPostHandlerReadBytes}.
MAX_SKIP_BYTES = 256 * 1024

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_BARE_LF = re.compile(rb"(?<!\r)\n")
#: CR, which comes after LF.
_LAST_LINE_BREAK = 13


class RequestParser:
    """
    A parser of the requests of one connection: bytes go in by L{feed}, events come out by
    L{next_event}, or both at once by L{receive}.

    The events of a request are its L{RequestHead} and, if it has a body, the pieces of
    that as C{bytes}, then C{Event.END}.  The bytes that follow wait, unparsed, until
    L{next_request}.

    @ivar state: the state of the connection's requests.
    """

    __slots__ = (
        "_buffer",
        "_chunks",
        "_eof",
        "_heads",
        "_recall",
        "_remaining",
        "_searched",
        "_skipped",
        "state",
    )

    def __init__(self, heads: HeadParser) -> None:
        """
        @param heads: what parses the heads of this and of other connections.
        """
        # For the connection
        self.state = _IDLE
        self._heads = heads
        self._recall = heads.recall
        #: The bytes that have not been taken.
        self._buffer: bytes | bytearray = b""
        self._eof = False

        # For the request being read
        #: How many bytes of an incomplete head have been searched for its end.
        self._searched = 0
        #: How many bytes of a counted body are to come.
        self._remaining = 0
        #: The reader of a chunked body.
        self._chunks: ChunkReader | None = None
        #: How many bytes of it have been thrown away.
        self._skipped = 0

    def feed(self, data: bytes) -> None:
        """Add bytes that have arrived."""
        if not self._buffer:
            self._buffer = data
        else:
            if type(self._buffer) is bytes:
                self._buffer = bytearray(self._buffer)
            self._buffer += data

    def receive(self, data: bytes) -> RequestHead | bytes | Event | None:
        """L{feed}, and L{next_event}: of most requests at once, as they repeat others."""
        if self.state is _IDLE and not self._buffer:
            recall = self._recall  # two steps: CPython 3.11 looks for a method, otherwise
            head = recall(data)
            if head is not None:
                self.state = _AFTER_HEAD
                return head
        self.feed(data)
        return self.next_event()

    def feed_eof(self) -> None:
        """Note that the peer has ended its side: no more bytes will come."""
        self._eof = True

    def is_empty(self) -> bool:
        """Whether no byte waits and more may come."""
        return not self._buffer and not self._eof

    @property
    def buffered(self) -> int:
        """How many bytes wait."""
        return len(self._buffer)

    @property
    def eof(self) -> bool:
        """Whether the peer has ended its side."""
        return self._eof

    def next_event(self) -> RequestHead | bytes | Event | None:
        """
        Take the next event.

        @return: None when more must be fed first, or L{state} is one without events.
        @raise RemoteProtocolError: the peer has broken the protocol; nothing follows.
        """
        read = _READERS.get(self.state)
        if read is None:
            return None
        try:
            event = read(self)
            if event is None and self._eof:
                self.state = TRANSITIONS[self.state][Event.EOF]
                if self.state is State.FAILED:
                    raise RemoteProtocolError(400, "the request ends before its end")
            return event
        except RemoteProtocolError as error:
            error.received = error.received or bytes(self._buffer)
            self.state = State.FAILED
            self._buffer = b""
            raise

    def has_whole_body(self) -> bool:
        """Whether the body has been taken to its end."""
        return self.state is State.COMPLETE

    def has_begun_body(self) -> bool:
        """Whether, of a request with a body, a part of that has arrived and not been taken."""
        return bool(self._buffer)

    def has_next_request(self) -> bool:
        """
        Whether bytes wait behind this request.  (Not even a part of a chunked body is told from
        what is behind it, before it is read.) (any thread)
        """
        behind = {State.COMPLETE: 0, State.COUNTED_BODY: self._remaining}.get(self.state)
        return behind is not None and len(self._buffer) > behind

    def can_skip_body(self) -> bool:
        """Whether what is left of the body is known to be good, and not to be too much to skip."""
        return self.state is not State.FAILED and self._remaining + self._skipped <= MAX_SKIP_BYTES

    def skip_body(self) -> None:
        """Throw away what has come of the body; L{state} says then how it stands with it."""
        try:
            while (event := self.next_event()) is not None and event is not _END:
                self._skipped += len(event)  # type: ignore[arg-type]
        except RemoteProtocolError:
            pass  # nothing follows, as L{state} says

    def next_request(self) -> bool:
        """
        Begin with the next request, as this one is answered.

        @return: whether a byte of it waits, or the peer has ended its side.
        @raise LocalProtocolError: this one has not been read to its end.
        """
        if self.state is not _COMPLETE:
            raise unexpected_event(Event.NEXT, self.state)
        self.state = _AFTER_REQUEST
        return self._eof or self._buffer != b""

    def switch(self) -> bytes:
        """
        End the requests: after this one the connection speaks another protocol.

        @return: the bytes in that protocol that have arrived.
        @raise LocalProtocolError: the request has not been read to its end.
        """
        if self.state is not State.COMPLETE:
            raise unexpected_event(Event.SWITCH, self.state)
        self._move(Event.SWITCH)
        return self._take(len(self._buffer))

    # Inside

    def _take(self, size: int) -> bytes:
        """Remove the first bytes from the buffer, at most C{size}."""
        buffer = self._buffer
        if size >= len(buffer):
            self._buffer = b""
            return bytes(buffer)  # the same object, when it is bytes
        self._buffer = bytes(buffer[size:])
        return bytes(buffer[:size])

    def _move(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state][event]

    def _read_head(self) -> RequestHead | None:
        buffer, heads = self._buffer, self._heads
        if not buffer:
            return None
        if buffer[0] <= _LAST_LINE_BREAK:
            # RFC 9112 section 2.2: an empty line or more before a request is ignored.
            buffer = self._buffer = _without_empty_lines(buffer, heads.lenient)
            if not buffer or buffer == b"\r":
                return None
        if heads.lenient:
            found = _HEAD_END.search(buffer, self._searched)
            end = found.end() if found else 3
        else:
            end = buffer.find(b"\r\n\r\n", self._searched) + 4
        if end > 3:
            return self._head(end)
        if self.state is _IDLE:
            self._move(Event.BEGUN)
        line_end = buffer.find(b"\n") + 1
        size = len(buffer)
        heads.limits.check_line(line_end or size)
        if not line_end:
            if not TOKEN.match(buffer, 0, 1):  # one byte: all of it may come one by one
                raise RemoteProtocolError(400, "a request does not begin so")
        else:
            if line_end > self._searched:  # it was not whole the last time
                line = bytes(buffer[:line_end])
                _, _, version = parse_request_line(line, heads.lenient, heads.simple)
                if version == (0, 9):
                    return self._head(size)
            heads.limits.check_section(size - line_end)
            if not heads.lenient and _BARE_LF.search(buffer, max(0, self._searched - 1)):
                raise RemoteProtocolError(400, "a line ends with CR and LF")
        self._searched = max(0, size - 3)
        return None

    def _head(self, end: int) -> RequestHead:
        self._searched = 0
        raw = self._buffer
        if type(raw) is bytes and len(raw) == end:
            self._buffer = b""
        else:
            raw = self._take(end)
        try:
            head = self._heads.parse(raw)
        except RemoteProtocolError as error:
            error.received = raw
            raise
        length = head.length
        if length == 0:
            self._heads.remember(raw, head)
            self.state = _AFTER_HEAD
            return head
        self._skipped = 0
        if length is None:
            self._chunks = ChunkReader()
            self._move(Event.CHUNKED)
        else:
            self._remaining = length
            self._move(Event.COUNTED)
        return head

    def _read_counted(self) -> bytes | Event | None:
        if not self._remaining:
            self._move(_END)
            return _END
        if not self._buffer:
            return None
        data = self._take(self._remaining)
        self._remaining -= len(data)
        return data

    def _read_chunks(self) -> bytes | Event | None:
        chunks = self._chunks
        assert chunks is not None
        if self._buffer and not chunks.complete:
            body, taken = chunks.read(self._buffer)
            if taken:
                self._take(taken)
            if body:
                return body
        if chunks.complete:
            self._chunks = None
            self._move(_END)
            return _END
        return None


#: The method that reads, by state.
_READERS: dict[State, Callable[[RequestParser], RequestHead | bytes | Event | None]] = {
    State.IDLE: RequestParser._read_head,
    State.HEAD: RequestParser._read_head,
    State.COUNTED_BODY: RequestParser._read_counted,
    State.CHUNKED_BODY: RequestParser._read_chunks,
}


def _without_empty_lines(buffer: bytes | bytearray, lenient: bool) -> bytes | bytearray:
    start = 0
    while buffer.startswith(b"\r\n", start) or (lenient and buffer.startswith(b"\n", start)):
        start += 2 if buffer[start] == 13 else 1
    return buffer[start:] if start else buffer
