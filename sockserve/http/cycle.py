"""
The cycle: one request of an HTTP channel, from its head to the end of its response.

This room owns the seam between what brings a request (L{CycleOwner}) and what answers it
(L{RequestCycle}).  A further way to answer, a protocol that a request switches to, is a further
cycle; a further version of HTTP is a further owner.  It must not know which there are.
(reactor thread)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure

from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.deadlines import Deadlines
from sockserve.http.h1.framing import RemoteProtocolError
from sockserve.http.h1.head import RequestHead
from sockserve.http.lease import ConnectionLease
from sockserve.http.requests import RequestConnection
from sockserve.http.responses import BlockingResponse, CoroutineResponse, Response
from sockserve.http.settings import HTTPSettings
from sockserve.interfaces import IStreamServer, Outcome, Phase
from sockserve.streams.departure import Answerer, Departure
from sockserve.streams.writer import StreamWriter

__all__ = ["CycleOwner", "RequestCycle", "RequestInput"]


class RequestInput(Protocol):
    """The source of a request's body, and of what comes after it."""

    @property
    def eof(self) -> bool:
        """Whether the client has ended its side."""

    def has_whole_body(self) -> bool:
        """Whether the body has been taken to its end."""

    def has_begun_body(self) -> bool:
        """Whether, of a request with a body, a part of that has arrived and not been taken."""

    def can_skip_body(self) -> bool:
        """Whether what is left of the body may come unread, so that requests go on."""


class CycleOwner(Protocol):
    """
    The bearer of a request, as its cycle knows it: an HTTP/1 connection, which bears one after
    another, or one stream of a connection that bears many at once.  All that is said here is of
    that: of a stream, its end is not the end of its connection.

    It is a L{sockserve.http.lease.Lessor} too, for blocking handlers.  At a loss it calls, in this
    order, C{descriptor_lost} of the lease, L{RequestCycle.connection_lost}, C{connection_lost} of
    the lease, and L{RequestCycle.body_failed}.

    @ivar timer: of this request, and of none under way beside it.
    @ivar departure: the client's going away.
    @ivar writer: where the response goes.
    @ivar request: what a coroutine sees as C{self.request}.
    @ivar client_address: C{self.client_address}.
    @ivar makes_handlers: whether its server made handlers as usual when the connection began.
    @ivar parts: what is not over yet, see L{sockserve.streams.channel.Pending}; without any, it is
        finished.
    @ivar is_draining: whether the service stops.
    @ivar cycle: the one under way, which sets this to None if nobody will answer its request.
    """

    factory: IStreamServer
    settings: HTTPSettings
    deadlines: Deadlines
    timer: DeadlineTimer
    writer: StreamWriter
    departure: Departure
    request: RequestConnection
    client_address: object
    makes_handlers: bool
    parts: int
    is_draining: bool
    cycle: RequestCycle | None

    # The request

    @property
    def input(self) -> RequestInput:
        """Where the request comes from."""

    @property
    def flow(self) -> IPushProducer:
        """The producer that a reader of the body pauses."""

    def ask_for_body(self) -> None:
        """Let a client send the body that waits to be asked (C{100 Continue})."""

    def read_body(self) -> None:
        """Give the cycle what has come of its body."""

    def pause(self) -> None:
        """Read no more from the client."""

    def resume(self) -> None:
        """Undo L{pause}."""

    def switch(self, receive: Callable[[bytes], object]) -> bytes:
        """
        Give C{receive} what arrives from now on, which is no HTTP.

        @return: what of it has arrived.
        """

    # The response

    def make_response(self, head: RequestHead, writer: StreamWriter, /) -> CoroutineResponse:
        """The response of a coroutine, in the framing of this version of HTTP."""

    def make_blocking_response(
        self, head: RequestHead, send: Callable[[bytes], object], /
    ) -> BlockingResponse:
        """The same of a blocking handler; C{send} takes all it is given."""

    def lease_connection(self) -> ConnectionLease:
        """How a blocking handler gets what the request came on for itself."""

    # The end

    def has_next_request(self) -> bool:
        """Whether a further request has begun to arrive. (any thread)"""

    def is_closing(self) -> bool:
        """Whether there will be no further request."""

    def refuse(self, error: RemoteProtocolError, head: RequestHead | None, began: float) -> None:
        """Answer with an error instead of the cycle, and shut down."""

    def account(self, response: Response, outcome: Outcome, began: float) -> None:
        """
        Count a request that nothing follows: it was refused, or given up.  Of one whose handler
        was abandoned this is all that is heard when that comes to its end.
        """

    def request_finished(
        self, response: Response, outcome: Outcome, began: float, breaks: bool = False
    ) -> None:
        """
        The handler has finished: go on to the next request, or shut down.

        @param breaks: whether the client must see that the response is cut off.
        """

    def read_next(self) -> None:
        """
        A request that was not answered at once is now: go on with what has come meanwhile, and
        finish if no part is left.
        """

    def shut_down(self) -> None:
        """There will be no further request: end when all that was written has left."""

    def has_left(self) -> bool:
        """Whether the client has gone, and the handler may be cancelled for that."""

    def client_left(self) -> None:
        """The client has gone before its request was given to a handler: end now."""

    def abort_transport(self) -> None:
        """End now, and forget what has not left."""


class RequestCycle(Answerer, Protocol):
    """
    One request that is being answered.

    @ivar began: when its head came.
    """

    began: float

    @property
    def response(self) -> Response:
        """The response to the request."""

    @property
    def wants_body(self) -> bool:
        """Whether to be given the request's body."""

    def stage(self) -> str:
        """What is under way, in a word of L{RequestStatus
        <sockserve.core.in_progress.RequestStatus>}."""

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

    def eof_received(self) -> None:
        """The client has ended its side of what is no HTTP any more (L{CycleOwner.switch})."""

    def connection_lost(self, reason: Failure) -> bool:
        """
        The transport is gone.

        @return: whether nobody has begun to answer, and nobody will.
        """

    def deadline_applies(self, phase: Phase) -> bool | None:
        """Whether a deadline has really passed; None if that is the connection's to say."""

    def deadline_passed(self, phase: Phase) -> None:
        """A deadline has passed: bring the request to an end."""

    def drain(self) -> None:
        """The service stops: let the response be the last, unless a request has come after it."""

    def abort(self) -> None:
        """End the request now, whatever is under way."""

    def abandon(self) -> bool:
        """
        The handler has not come to its end in time: no longer wait for it.

        @return: whether there is one, so that its owner is finished.
        """
