"""
Channels: what serves one stream connection while it is served.

This room owns what all channels have in common (L{Channel}), and how a connection ends that the
reactor itself reads and writes (L{TransportChannel}).  It must not know how a connection came
about, or what its handler speaks. (reactor thread, but where a method says otherwise)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.abstract import FileDescriptor
from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.addresses import Addresses
from sockserve.core.deadlines import Deadlines, DeadlineTimer
from sockserve.core.statistics import RequestRecord
from sockserve.core.transports import IStreamTransport
from sockserve.interfaces import IStreamServer, Outcome, Phase
from sockserve.sockets.lending import is_lendable
from sockserve.streams.writer import StreamWriter

if TYPE_CHECKING:
    from _typeshed import MaybeNone

__all__ = [
    "Addresses",
    "Channel",
    "ChannelOwner",
    "MakeChannel",
    "Pending",
    "TransportChannel",
    "transport_descriptors",
]


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


class _Output(Enum):
    """The stand of a connection with its end."""

    OPEN = "open"
    #: No more is written, but not all has left.
    ENDING = "ending"
    #: All has left; what the client still sends is thrown away.
    LINGERING = "lingering"
    CLOSING = "closing"


class TransportChannel(Channel):
    """
    A connection that the reactor itself reads and writes: how it is paused, and how it ends.

    @ivar writer: where its output goes.
    @ivar is_lendable: whether the transport is nothing but a socket.
    @ivar is_paused: whether the client is not read from.
    """

    def __init__(self, protocol: ChannelOwner) -> None:
        super().__init__(protocol)
        transport = self.transport
        self.is_lendable = is_lendable(transport)
        self.writer = StreamWriter(transport, self.is_lendable, self.deadlines, self.timer)
        self._output = _Output.OPEN
        self.is_paused = False

    @override
    def connection_lost(self, reason: Failure) -> None:
        self.record_traffic()
        # A handler may go on at what follows, and end: by then there must be nothing left
        # to close.
        self.parts &= ~Pending.CONNECTION
        self.writer.discard(BrokenPipeError("the connection is gone"))

    @override
    def deadline_applies(self, phase: Phase) -> bool:
        if phase is Phase.WRITE and self._output is _Output.LINGERING:
            self._lose_connection()
            return False
        return True

    @override
    def eof_received(self) -> None:
        if self._output is _Output.LINGERING:
            self._lose_connection()

    @override
    def is_broken(self) -> bool:
        return self.writer.is_broken()

    @override
    def abort(self) -> None:
        self.abort_transport()

    def abort_transport(self) -> None:
        """End the connection now, and forget what has not left."""
        if self.transport is not None:
            self.transport.abortConnection()

    def record_traffic(self) -> None:
        """Note how many bytes have come and gone."""
        self.protocol.record.sent = self.writer.sent

    def pause(self) -> None:
        """Read no more from the client."""
        self.is_paused = True
        self.transport.pauseProducing()

    def resume(self) -> None:
        """Undo L{pause}."""
        if self.is_paused:
            self.is_paused = False
            self.transport.resumeProducing()

    def discard_input(self) -> bool:
        """
        Nobody reads any more: forget what has come and what comes.

        @return: whether the client may have sent, or be sending, what nobody has read.
        """
        raise NotImplementedError

    def input_ended(self) -> bool:
        """Whether the client has ended its side."""
        raise NotImplementedError

    def _close(self) -> None:
        if self._output is not _Output.OPEN or not self.parts & Pending.CONNECTION:
            return
        self._output = _Output.ENDING
        lingers = self.discard_input() and self.is_lendable
        self.writer.close_then(self._linger if lingers else self._lose_connection)
        if self._output is _Output.ENDING:  # not all has left at once
            self.timer.arm(Phase.WRITE, self.deadlines.write)

    def _linger(self) -> None:
        if self.input_ended():
            self._lose_connection()
        else:
            self._output = _Output.LINGERING
            self.timer.arm(Phase.WRITE, self.deadlines.linger)

    def _lose_connection(self) -> None:
        # Not before all is written: TLS would forget what it has gathered.
        self._output = _Output.CLOSING
        self.timer.arm(Phase.WRITE, self.deadlines.write)
        self.transport.loseConnection()
