"""
Framing: what may follow what on an HTTP/1.x connection, and how a response's body is
delimited.

This room owns the one table of transitions (L{TRANSITIONS}), the two kinds of error, and
L{ResponseFraming}.  It must not know sockets, clocks, handlers or what a response says.
"""

from __future__ import annotations

from enum import StrEnum

from sockserve.interfaces import PeerError, SockserveError

__all__ = [
    "TRANSITIONS",
    "Event",
    "LocalProtocolError",
    "RemoteProtocolError",
    "ResponseFraming",
    "State",
    "unexpected_event",
]


class State(StrEnum):
    """Where one direction of a connection stands."""

    # Requests, as they arrive
    IDLE = "idle"
    HEAD = "head"
    COUNTED_BODY = "counted body"
    CHUNKED_BODY = "chunked body"
    COMPLETE = "complete"
    SWITCHED = "switched"
    ENDED = "ended"
    FAILED = "failed"
    # Responses, as they are made
    AWAITED = "awaited"
    COUNTED = "counted"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until close"
    BODILESS = "bodiless"
    SENT = "sent"


class Event(StrEnum):
    """What happens to it."""

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


#: What may follow what.  What is not here may not: from the peer it is the peer's error
#: (L{RemoteProtocolError}), from a handler the handler's (L{LocalProtocolError}).
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

#: Looked up once: reading a member of an enumeration costs ten times a global's time
#: (CPython 3.11), and these are read for every request.
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
    The peer broke the protocol.

    @ivar status: the status of the response it has earned.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class LocalProtocolError(SockserveError):
    """This side was about to break the protocol: a mistake of the handler's."""


def unexpected_event(event: Event, state: State) -> LocalProtocolError:
    """What is raised for what L{TRANSITIONS} has no place for, when this side does it."""
    return LocalProtocolError(f"{event} has no place here: it is {state}")


class ResponseFraming:
    """
    How the body of one response is delimited: the head's fields decide, then each piece
    of the body is framed.

    @ivar state: where it stands.
    """

    state: State = _AWAITED
    _remaining = 0

    def begin(
        self,
        method: str,
        version: tuple[int, int],
        status: int,
        length: int | None,
        coding: str | None,
    ) -> State:
        """
        The response's head is known.

        @param length: what its Content-Length says, if it has one.
        @param coding: what its Transfer-Encoding says, if it has one: the handler then
            frames the body by itself, and the end of the connection is its end.
        @return: the new L{state}.
        @raise LocalProtocolError: it has begun before.
        """
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
        A piece of the body as it is sent.

        @raise LocalProtocolError: it is more than the Content-Length said, or there is no
            head yet, or the response is over.
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
        The body is over.

        @return: what is sent for that.
        @raise LocalProtocolError: it is less than the Content-Length said: only closing
            the connection tells the client.  Or it has not begun, or is over already.
        """
        state = self.state
        try:
            self.state = TRANSITIONS[state][_END]
        except KeyError:
            raise unexpected_event(_END, state) from None
        if state is _COUNTED and self._remaining:
            raise LocalProtocolError(f"the body is {self._remaining} bytes too short")
        return b"0\r\n\r\n" if state is _CHUNKED else b""
