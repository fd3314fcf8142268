"""
Requests: what a coroutine handler sees of its HTTP connection and its request's body.

This room owns C{self.request} (L{RequestConnection}) and the body's stream (L{BodyReader})
with the deadline that guards it.  It must not know handlers, servers or where requests
come from. (reactor thread)
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import IPushProducer
from typing_extensions import override

from sockserve.core.addresses import Addresses
from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.deadlines import Deadlines
from sockserve.core.transports import IStreamTransport
from sockserve.http.h1.head import RequestHead
from sockserve.http.responses import CoroutineResponse
from sockserve.interfaces import Phase
from sockserve.streams.connection import StreamConnection
from sockserve.streams.departure import Departure
from sockserve.streams.reader import Patience, StreamReader
from sockserve.streams.writer import StreamWriter

if TYPE_CHECKING:
    from _typeshed import MaybeNone

__all__ = ["Answering", "BodyReader", "RequestConnection"]


class BodyReader(StreamReader):
    """
    A request's body: C{self.rfile} of a coroutine handler.

    The C{body} deadline counts the seconds in which a read waits for the client, not
    those the handler spends otherwise.

    @param asked: called when a read waits for the first time.
    """

    __slots__ = ("_asked", "_waited", "_waiting_since")

    def __init__(
        self,
        flow: IPushProducer,
        deadlines: Deadlines,
        timer: DeadlineTimer,
        asked: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(flow, deadlines, timer)
        self._asked = asked
        self._waited = 0.0
        self._waiting_since = 0.0

    @override
    def feed(self, data: bytes) -> None:
        if self._waiter is not None:
            self._waited += self._timer.seconds() - self._waiting_since
        super().feed(data)

    @override
    def deadline_applies(self, phase: Phase) -> bool:
        if phase is Phase.IDLE and self._patience is Patience.DEADLINE:
            return False  # it has run since before the request, which came just in time
        return super().deadline_applies(phase)

    @override
    def _arm_deadlines(self, phase: Phase | None) -> None:
        if self._asked is not None:
            asked, self._asked = self._asked, None
            asked()
        self._waiting_since = self._timer.seconds()
        self._phase = Phase.BODY
        if self._patience is Patience.DEADLINE:
            self._timer.arm(Phase.BODY, self._body_seconds(self._waited))
        else:
            self._timer.arm(Phase.IDLE, self.idle)


class Answering(Protocol):
    """The cycle under way, as its connection knows it."""

    def open_body(self) -> StreamReader:
        """The stream of the request's body, made when somebody asks for it."""


class RequestConnection(StreamConnection):
    """
    The connection of a coroutine HTTP handler, with the request it serves now.

    @ivar listener: the server that has taken it: for a server object, which handlers see, the
        factory of its connections.
    @ivar cycle: what has the request answered.
    @ivar response: what answers it, and C{wfile}.
    """

    __slots__ = ("_writer", "cycle", "listener", "response")

    cycle: Answering
    response: CoroutineResponse
    wfile: CoroutineResponse  # type: ignore[assignment]

    def __init__(
        self,
        transport: IStreamTransport,
        writer: StreamWriter,
        addresses: Addresses,
        close: Callable[[], None],
        departure: Departure,
        listener: object,
    ) -> None:
        # Not the parent's: both streams belong to a request, not to the connection.
        self.transport = transport
        self._writer = writer
        self._addresses = addresses
        self._close = close
        self._departure = departure
        self.listener = listener

    def __repr__(self) -> str:
        return f"<RequestConnection peer={self._addresses[0]!r}>"

    @property
    def head(self) -> RequestHead | MaybeNone:
        """The request's head; None when it is over, as are the others."""
        response: CoroutineResponse | MaybeNone = self.response
        return None if response is None else response.request

    @property
    def rfile(self) -> StreamReader:  # type: ignore[override]
        """The request's body."""
        return self.cycle.open_body()

    @override
    async def start_tls(self, context: Any) -> None:
        """
        Not over HTTP.

        @raise RuntimeError: always.
        """
        raise RuntimeError("start_tls: HTTP over TLS is listened for with tls: or ssl:")

    @override
    def shutdown(self, how: int) -> None:
        """End the connection's output once everything written has left."""
        if how != socket.SHUT_RD:
            self._flush()
            self._writer.close()

    @override
    def close(self) -> None:
        self._flush()
        self._close()

    def _flush(self) -> None:
        """Send what is held back of a response until its handler waits."""
        response = getattr(self, "response", None)
        if response is not None:
            response.flush()
