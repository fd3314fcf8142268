"""
Framing: the order of events on an HTTP/1.x connection, and the delimiting of a response's body.

This room owns the one table of transitions (L{TRANSITIONS}), the two kinds of error, and
L{ResponseFraming}.  It must not know sockets, clocks, handlers or what a response says.
"""

from __future__ import annotations

import re
from enum import StrEnum

from sockserve.interfaces import PeerError, SockserveError

__all__ = [
    "TRANSITIONS",
    "Event",
    "LocalProtocolError",
    "RemoteProtocolError",
    "ResponseFraming",
    "State",
    "response_fault",
    "unexpected_event",
]


class State(StrEnum):
    """The state of one direction of a connection: of requests, or of responses."""

    # Requests, as they arrive

    #: No byte of a request has come.
    IDLE = "idle"
    #: A part of its head has come.
    HEAD = "head"
    #: Its head has; the body has a Content-Length.
    COUNTED_BODY = "counted body"
    #: The body comes in chunks.
    CHUNKED_BODY = "chunked body"
    #: All of it has come.
    COMPLETE = "complete"
    #: What follows it is another protocol.
    SWITCHED = "switched"
    #: The peer has ended its side between requests.
    ENDED = "ended"
    #: The peer has broken the protocol.
    FAILED = "failed"

    # Responses, as they are made

    #: It has no head yet.
    AWAITED = "awaited"
    #: Its body has a Content-Length.
    COUNTED = "counted"
    #: Its body is sent in chunks.
    CHUNKED = "chunked"
    #: Its body ends with the connection.
    UNTIL_CLOSE = "until close"
    #: It has no body.
    BODILESS = "bodiless"
    #: It is complete.
    SENT = "sent"


class Event(StrEnum):
    """An event in one direction of a connection."""

    BEGUN = "begun"
    BODILESS = "head without a body"
    COUNTED = "head with a length"
    CHUNKED = "head of chunks"
    UNTIL_CLOSE = "head of all that follows"
    END = "end"
    NEXT = "next request"
    SWITCH = "switch of protocols"
    EOF = "end of file"
    ERROR = "error"


#: The next state, by state and event.  An event that is not here is an error: of the peer's
#: (L{RemoteProtocolError}) or of a handler's (L{LocalProtocolError}).
TRANSITIONS: dict[State, dict[Event, State]] = {
    State.IDLE: {
        Event.BEGUN: State.HEAD,
        Event.BODILESS: State.COMPLETE,
        Event.COUNTED: State.COUNTED_BODY,
        Event.CHUNKED: State.CHUNKED_BODY,
        Event.EOF: State.ENDED,
        Event.ERROR: State.FAILED,
    },
    State.HEAD: {
        Event.BODILESS: State.COMPLETE,
        Event.COUNTED: State.COUNTED_BODY,
        Event.CHUNKED: State.CHUNKED_BODY,
        Event.EOF: State.FAILED,
        Event.ERROR: State.FAILED,
    },
    State.COUNTED_BODY: {
        Event.END: State.COMPLETE,
        Event.EOF: State.FAILED,
    },
    State.CHUNKED_BODY: {
        Event.END: State.COMPLETE,
        Event.EOF: State.FAILED,
        Event.ERROR: State.FAILED,
    },
    State.COMPLETE: {
        Event.NEXT: State.IDLE,
        Event.SWITCH: State.SWITCHED,
    },
    State.SWITCHED: {},
    State.ENDED: {},
    State.FAILED: {},
    State.AWAITED: {
        Event.BODILESS: State.BODILESS,
        Event.COUNTED: State.COUNTED,
        Event.CHUNKED: State.CHUNKED,
        Event.UNTIL_CLOSE: State.UNTIL_CLOSE,
    },
    State.BODILESS: {Event.END: State.SENT},
    State.COUNTED: {Event.END: State.SENT},
    State.CHUNKED: {Event.END: State.SENT},
    State.UNTIL_CLOSE: {Event.END: State.SENT},
    State.SENT: {},
}

#: The fields that tell the end of a response: the length's value, or the coding's name.
_FRAMING_FIELD = re.compile(
    rb"(?m)\n(?i:content-length[ \t]*:[ \t]*([^\r\n]*)\r?$|(transfer-encoding)[ \t]*:)"
)

# Looked up once (see L{sockserve.core.lifecycle}).
_AWAITED = State.AWAITED
_BODILESS = State.BODILESS
_CHUNKED = State.CHUNKED
_COUNTED = State.COUNTED
_UNTIL_CLOSE = State.UNTIL_CLOSE
_BODILESS_HEAD = Event.BODILESS
_CHUNKED_HEAD = Event.CHUNKED
_COUNTED_HEAD = Event.COUNTED
_UNTIL_CLOSE_HEAD = Event.UNTIL_CLOSE
_END = Event.END


class RemoteProtocolError(PeerError):
    """
    An error of the peer's: it broke the protocol.

    @ivar status: the status to answer with.
    @ivar limit: the name of the limit that it has gone over; None when it is another error.
    @ivar received: what has come of a head that is no good.
    """

    received = b""

    def __init__(self, status: int, message: str, limit: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.limit = limit


class LocalProtocolError(SockserveError):
    """A mistake of the handler's: it was about to break the protocol."""


def unexpected_event(event: Event, state: State) -> LocalProtocolError:
    """Make the error for an event of this side's that L{TRANSITIONS} does not have."""
    return LocalProtocolError(f"{event} has no place here: it is {state}")


def response_fault(head: bytes) -> str | None:
    """
    The reason why the end of a response must not be told by its head, which a handler has made
    alone: two readers of it would find two ends (RFC 9112 sections 6.2 and 6.3).

    @param head: status line and header fields.
    @return: None when there is none.
    """
    fields = _FRAMING_FIELD.findall(head)
    if len(fields) == 1 and fields[0][0].isdigit():  # as nearly all have it
        return None
    lengths = {length.rstrip(b" \t") for length, coding in fields if not coding}
    if lengths and any(coding for _, coding in fields):
        return "a response has a Content-Length or a Transfer-Encoding, not both"
    if len(lengths) > 1 or not all(map(bytes.isdigit, lengths)):
        return f"the Content-Length is not one number: {b', '.join(sorted(lengths))!r}"
    return None


class ResponseFraming:
    """
    The framing of one response: the head decides how the body is delimited, then each piece
    of the body is framed.

    @ivar state: the response's state.
    """

    #: How many bytes of a counted body are to come.
    _remaining = 0

    def __init__(self) -> None:
        self.state = _AWAITED

    def begin(
        self,
        method: str,
        version: tuple[int, int],
        status: int,
        length: int | None,
        coding: str | None,
    ) -> State:
        """
        Begin with the response's head.

        @param method: the request's.
        @param version: the HTTP version to answer in.
        @param status: the response's.
        @param length: its Content-Length in bytes; None without one.
        @param coding: its Transfer-Encoding; None without one.  With one the handler
            frames the body itself, and the body ends with the connection.
        @return: the new L{state}.
        @raise LocalProtocolError: the response has begun before.
        """
        # How the body ends (RFC 9112 section 6.3):
        # 1. it has none, whatever the fields say;
        # 2. with the connection: the handler frames it, it is another protocol's, or the
        #    version has no framing;
        # 3. after its length;
        # 4. with the last chunk, if the version has chunks;
        # 5. with the connection.
        if method == "HEAD" or status in (204, 304):
            event = _BODILESS_HEAD
        elif (
            coding is not None
            or status == 101
            or version == (0, 9)
            or (method == "CONNECT" and 200 <= status < 300)  # RFC 9110 section 9.3.6
        ):
            event = _UNTIL_CLOSE_HEAD
        elif length is not None:
            event = _COUNTED_HEAD
            self._remaining = length
        elif version == (1, 1):
            event = _CHUNKED_HEAD
        else:
            event = _UNTIL_CLOSE_HEAD
        try:
            self.state = state = TRANSITIONS[self.state][event]
        except KeyError:
            raise unexpected_event(event, self.state) from None
        return state

    def data(self, data: bytes) -> bytes:
        """
        Frame a piece of the body.

        @return: the bytes to send for it.
        @raise LocalProtocolError: the body is longer than its Content-Length; or the
            response has not begun, or has ended.
        """
        state = self.state
        if state is _COUNTED:
            remaining = self._remaining - len(data)
            if remaining < 0:
                raise LocalProtocolError(f"the body is {-remaining} bytes too long")
            self._remaining = remaining
            return data
        if state is _CHUNKED:
            return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        if state is _UNTIL_CLOSE:
            return data
        if state is _BODILESS:
            return b""
        raise LocalProtocolError(f"a body has no place here: the response is {state}")

    def end(self) -> bytes:
        """
        End the body.

        @return: the bytes to send for that.
        @raise LocalProtocolError: the body is shorter than its Content-Length, which only
            the end of the connection can tell the client; or the response has not begun,
            or has ended before.
        """
        state = self.state
        try:
            self.state = TRANSITIONS[state][_END]
        except KeyError:
            raise unexpected_event(_END, state) from None
        if state is _COUNTED and self._remaining:
            raise LocalProtocolError(f"the body is {self._remaining} bytes too short")
        return b"0\r\n\r\n" if state is _CHUNKED else b""
