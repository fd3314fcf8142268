"""
The cycle: one request of an HTTP channel, from its head to the end of its response.

This room owns the seam between a connection that brings requests (L{CycleOwner}) and what answers
one of them (L{RequestCycle}).  A further way to answer, a protocol that a request switches to, is
a further cycle; a further version of HTTP is a further owner.  It must not know which there are.
(reactor thread)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.python.failure import Failure

from sockserve.core.deadlines import Deadlines, DeadlineTimer
from sockserve.http.h1.framing import RemoteProtocolError
from sockserve.http.h1.head import RequestHead
from sockserve.http.h1.reader import RequestParser
from sockserve.http.lease import ConnectionLease
from sockserve.http.requests import RequestConnection
from sockserve.http.responses import Response
from sockserve.http.settings import HTTPSettings
from sockserve.interfaces import IStreamServer, Outcome, Phase
from sockserve.streams.channel import ChannelOwner
from sockserve.streams.writer import StreamWriter

__all__ = ["CycleOwner", "RequestCycle"]


class CycleOwner(Protocol):
    """
    The connection that a request came on, as its cycle knows it.

    @ivar protocol: the connection itself, from accept to its end.
    @ivar parser: where the request comes from.
    @ivar writer: where the response goes.
    @ivar request: what a coroutine sees as C{self.request}.
    @ivar addresses: the client's and the server's, as a socket gives them.
    @ivar parts: what is not over yet, see L{sockserve.streams.channel.Pending}.
    @ivar is_draining: whether the service stops.
    @ivar is_paused: whether the client is not read from.
    @ivar is_lendable: whether the transport is nothing but a socket.
    @ivar lease: how blocking handlers get the connection; made for the first.
    @ivar cycle: the one under way, which sets this to None if nobody will answer its request.
    """

    protocol: ChannelOwner
    factory: IStreamServer
    settings: HTTPSettings
    deadlines: Deadlines
    timer: DeadlineTimer
    transport: Any
    parser: RequestParser
    writer: StreamWriter
    request: RequestConnection
    addresses: tuple[Any, Any]
    parts: int
    is_draining: bool
    is_paused: bool
    is_lendable: bool
    lease: ConnectionLease | None
    cycle: RequestCycle | None

    def is_closing(self) -> bool:
        """Whether there will be no further request."""

    def read_body(self) -> None:
        """Give the cycle what has come of its body."""

    def pause(self) -> None:
        """Read no more from the client."""

    def resume(self) -> None:
        """Undo L{pause}."""

    def switch(self, receive: Callable[[bytes], object]) -> None:
        """Give C{receive} what arrives from now on, which is no HTTP."""

    def refuse(self, error: RemoteProtocolError, head: RequestHead | None, began: float) -> None:
        """Answer with an error instead of the cycle, and end the connection."""

    def account(self, response: Response, outcome: Outcome, began: float) -> None:
        """Count a request that the connection ends with, and tell of it."""

    def request_finished(
        self, response: Response, outcome: Outcome, began: float, breaks: bool = False
    ) -> None:
        """
        The handler has come to its end: go on to the next request, or end the connection.

        @param breaks: whether the client must see the connection break.
        """

    def read_next(self) -> None:
        """A request that was not answered at once is now: go on with what has come meanwhile."""

    def shut_down(self) -> None:
        """End the connection; there will be no further request."""

    def abort_transport(self) -> None:
        """End the connection now, and forget what has not left."""

    def give_up_transport(self) -> None:
        """The descriptor is another's business now: let go of it."""

    def handler_sent(self, size: int) -> None:
        """A handler has sent so many bytes by itself."""


class RequestCycle(Protocol):
    """One request that is being answered."""

    @property
    def response(self) -> Response:
        """The response to the request."""

    @property
    def wants_body(self) -> bool:
        """Whether to be given the request's body."""

    def start(self) -> None:
        """The head has come: begin to answer."""

    def body_received(self, data: bytes) -> None:
        """
        A piece of the body has come.

        @raise RemoteProtocolError: it is too large, or cannot be kept.
        """

    def body_ended(self) -> None:
        """The body is complete."""

    def body_failed(self, error: Exception) -> None:
        """The rest of the body will not come."""

    def eof_received(self) -> bool:
        """
        The client has ended its side.

        @return: whether that is said in another protocol than HTTP, and so all.
        """

    def connection_lost(self, reason: Failure) -> bool:
        """
        The transport is gone.

        @return: whether nobody has begun to answer, and nobody will.
        """

    def deadline_applies(self, phase: Phase) -> bool | None:
        """Whether a deadline has really passed; None if that is the connection's to say."""

    def deadline_passed(self, phase: Phase) -> None:
        """A deadline has passed: bring the request to an end."""

    def abort(self) -> None:
        """End the request now, whatever is under way."""

    def abandon(self) -> None:
        """The handler has not come to its end in time: no longer wait for it."""
