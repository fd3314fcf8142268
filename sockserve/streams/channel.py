"""
Channels: what serves one stream connection while it is served.

This room owns what all channels have in common.  It must not know how a connection came about, or
what its handler speaks. (reactor thread, but where a method says otherwise)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.abstract import FileDescriptor
from twisted.python.failure import Failure

from sockserve.core.addresses import Addresses
from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.deadlines import Deadlines
from sockserve.core.in_progress import UnderWay
from sockserve.core.statistics import RequestRecord
from sockserve.core.transports import IStreamTransport
from sockserve.interfaces import IStreamServer, Outcome, Phase

if TYPE_CHECKING:
    from _typeshed import MaybeNone

__all__ = [
    "ARRIVAL_SECONDS",
    "Addresses",
    "Channel",
    "ChannelOwner",
    "MakeChannel",
    "Pending",
    "transport_descriptors",
]


#: How long the reactor has to read what has arrived.  0.01: a turn takes less, mostly.
ARRIVAL_SECONDS = 0.01


def transport_descriptors(transport: object) -> Iterator[int]:
    """The descriptors of a transport and those below it."""
    while transport is not None:
        if isinstance(transport, FileDescriptor):
            yield transport.fileno()
        transport = getattr(transport, "transport", None)


class Pending:
    """
    The parts of a request in service that have not ended, as bits; its channel is finished
    when no part is left.

    (Plain numbers: an operation on members of C{enum.Flag} takes a microsecond.)
    """

    CONNECTION = 1
    HANDLER = 2


class ChannelOwner(Protocol):
    """The connection, to its channel: what it is made from, and what is told of its end."""

    @property
    def factory(self) -> IStreamServer:
        """The server object that it has come to."""

    #: None once it has been given up, after which nothing is asked of it.
    transport: IStreamTransport | MaybeNone
    timer: DeadlineTimer
    record: RequestRecord
    client_address: object
    is_finished: bool

    def set_receiver(self, receive: Callable[[bytes], object]) -> None:
        """Give what arrives from now on to C{receive}."""

    def handler_finished(self, seconds: float, outcome: Outcome) -> None:
        """The handler has finished."""

    def finish(self) -> None:
        """Account for the connection: the channel is finished."""

    def is_gone(self) -> bool:
        """Whether the client, or a deadline, has ended the connection."""

    def has_been_ended(self) -> bool:
        """Whether the server has ended the connection: it has expired, or was aborted."""


#: Makes the channel of a connection, given the client's and the server's address; raises
#: C{OSError} if there is no descriptor to be had.
MakeChannel = Callable[[ChannelOwner, Addresses], "Channel"]


class Channel:
    """
    The service of one stream connection, whatever its handler is: the common part.

    @ivar request: C{self.request} of the handler.
    @ivar parts: what has not ended, of L{Pending}.
    """

    __slots__ = (
        "_began",
        "deadlines",
        "factory",
        "parts",
        "protocol",
        "request",
        "timer",
        "transport",
    )

    request: Any
    #: Whether it accounts for each of several requests by itself.
    has_requests = False

    @classmethod
    def maker(cls, server: IStreamServer) -> MakeChannel:
        """Decide what can be decided once for a server, and give what makes its channels."""
        raise NotImplementedError

    def __init__(self, protocol: ChannelOwner) -> None:
        self.protocol = protocol
        self.factory = protocol.factory
        self.timer = protocol.timer
        self.deadlines: Deadlines = protocol.factory.deadlines
        self.transport = protocol.transport
        self.parts = Pending.CONNECTION
        self._began: float | None = None

    # What the protocol calls

    def start(self) -> None:
        """Start serving: C{process_request}, unless that is overridden."""
        raise NotImplementedError

    def handshake_completed(self) -> None:
        """A TLS handshake that the handler has asked for is done."""

    def eof_received(self) -> None:
        """The client has ended its side."""
        raise NotImplementedError

    def output_ended(self) -> None:
        """All that was written before this side ended its output has left."""

    def connection_lost(self, reason: Failure) -> None:
        """The transport is gone."""
        self._part_ended(Pending.CONNECTION)

    def deadline_applies(self, phase: Phase) -> bool:
        """Whether a deadline the timer says has passed really has."""
        return True

    def is_broken(self) -> bool:
        """Whether writing has shown that the client is gone. (any thread)"""
        return False

    def deadline_passed(self, phase: Phase) -> None:
        """A deadline has passed: bring the request to an end."""
        raise NotImplementedError

    def drain(self) -> None:
        """The service stops: end at the next pause between messages."""
        raise NotImplementedError

    def abort(self) -> None:
        """End the request now, whatever is under way."""
        raise NotImplementedError

    def request_closing(self) -> None:
        """The server is about to close the request. (any thread)"""

    def under_way(self) -> UnderWay:
        """The stand of the request."""
        if self.parts & Pending.HANDLER:
            return UnderWay("handle")
        return UnderWay("queue" if self._began is None else "write")

    def traffic(self) -> tuple[int | None, int | None]:
        """How many bytes have come and gone; None where that cannot be told."""
        record = self.protocol.record
        return record.received, record.sent

    def owned_descriptors(self) -> Iterator[int]:
        """The descriptors open for the connection in this process; -1 for one that is not."""
        return transport_descriptors(self.transport)

    def abandon(self) -> None:
        """
        A deadline passed some time ago and the handler still runs: no longer wait for
        it.
        """
        self.abort()
        if self.parts & Pending.HANDLER:
            self.factory.statistics.abandoned += 1
            self.protocol.finish()

    # Inside

    def _handler_began(self) -> None:
        self.parts |= Pending.HANDLER
        self._began = self.timer.seconds()
        if self.deadlines.handle is not None:
            self.timer.arm(Phase.HANDLE, self.deadlines.handle)

    def _handler_finished(self, outcome: Outcome) -> None:
        now = self.timer.seconds()
        if self.deadlines.handle is not None:
            self.timer.disarm(Phase.HANDLE)
        self.protocol.handler_finished(now - (now if self._began is None else self._began), outcome)
        if self.protocol.is_finished:
            self.factory.statistics.abandoned -= 1

    def _part_ended(self, part: int) -> None:
        self.parts &= ~part
        if not self.parts:
            self.protocol.finish()
