"""
The channel of a connection that the reactor itself reads and writes: the part that does not know
what is spoken on it.

This room owns how such a connection is paused, how its handler hears that the client has gone, and
how it ends.  It must not know how a connection came about, or what its handler speaks.
(reactor thread)
"""

from __future__ import annotations

import socket
from enum import Enum
from typing import ClassVar

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from sockserve.interfaces import ClientGone, Phase
from sockserve.sockets.hangups import Hangup, connection_below, hangup_of, socket_below
from sockserve.sockets.lending import has_unread, is_lendable, own_socket
from sockserve.sockets.output_watch import OutputWatch
from sockserve.streams.channel import Channel, ChannelOwner, Pending
from sockserve.streams.departure import Answerer, Departure
from sockserve.streams.parting import Parting, lose_connection
from sockserve.streams.writer import StreamWriter

__all__ = ["TransportChannel"]


class _End(Enum):
    """How far a connection has come with its end."""

    OPEN = "open"
    #: No more is written, but not all has left.
    FLUSHING = "flushing"
    #: All has left; what the client still sends is thrown away.
    LINGERING = "lingering"
    CLOSING = "closing"


@implementer(IPushProducer)
class TransportChannel(Channel):
    """
    A connection that the reactor itself reads and writes: how it is paused, how its handler hears
    that the client has gone, and how it ends.

    @ivar writer: where its output goes.
    @ivar departure: the client's going away.
    @ivar is_lendable: whether the transport is nothing but a socket.
    @ivar is_paused: whether the client is not read from.
    """

    __slots__ = (
        "_below",
        "_end",
        "_output_watch",
        "_parting",
        "_reads_on",
        "_watched",
        "departure",
        "is_lendable",
        "is_paused",
        "writer",
    )

    make_writer: ClassVar[type[StreamWriter]] = StreamWriter

    def __init__(self, protocol: ChannelOwner) -> None:
        super().__init__(protocol)
        transport = self.transport
        # For the connection
        self.is_lendable = is_lendable(transport)
        self.writer = self.make_writer(transport, self.is_lendable, self.deadlines, self.timer)
        self.departure = Departure(self.timer, self.deadlines, self.factory.handler_cancellation)
        #: The socket's own transport, below all wrapping; None where there is no socket.
        self._below = connection_below(transport)
        self._output_watch: OutputWatch | None = None
        # Until it ends
        self._end = _End.OPEN
        #: Over TLS, from when it is closing.
        self._parting: Parting | None = None
        self.is_paused = False
        #: Whether its handler read on when it was lost in good order.
        self._reads_on = False
        #: Its descriptor, while the kernel tells of it by L{HangupWatch}.
        self._watched = -1
        if self._below is not None and self.deadlines.write is not None:
            self._output_watch = OutputWatch(self.deadlines, self.timer)

    @override
    def connection_lost(self, reason: Failure) -> None:
        self._reads_on = isinstance(reason.value, ConnectionDone) and self._reads_input()
        # A client that is gone takes and says nothing, for which its handler is not ended.
        self.timer.disarm(Phase.WRITE)
        self.timer.disarm(Phase.IDLE)
        self.record_traffic()
        self.forget_hangups()
        # A handler may go on at what follows, and end: by then there must be nothing left
        # to close.
        self.parts &= ~Pending.CONNECTION
        self.writer.discard(BrokenPipeError("the connection is gone"))

    @override
    def deadline_applies(self, phase: Phase) -> bool:
        if phase is Phase.WRITE:
            if self._parting is not None:
                return self._parting.write_applies()
            if self._end is _End.LINGERING:
                self._lose_connection()
                return False
            return self._end is not _End.OPEN or not self._takes_output()
        if phase is Phase.LIFETIME:
            is_over = self.departure.patience_passed(self._input_taken())
            if is_over:
                self.abandon()
            return is_over is None
        return True

    def _takes_output(self) -> bool:
        """Whether the client has taken something of what was sent to it, or has all, as far as
        can be told; then it is looked at again later."""
        self.writer.flush()  # what waits for the end of the turn it was not offered yet
        if not self.writer.is_empty():
            return False
        watch = self._output_watch
        return watch is None or watch.takes_output(socket_below(self._below))

    def has_unread_input(self) -> bool:
        """Whether bytes of the client's have arrived that the reactor has not read. (any thread)"""
        sock = socket_below(self._below)
        return sock is not None and has_unread(sock)

    # The client goes

    def answerer(self) -> Answerer | None:
        """The answerer of the client just now; None for nothing."""
        raise NotImplementedError

    def _reads_input(self) -> bool:
        answerer = self.answerer()
        return answerer is not None and answerer.reads_on()

    def _input_taken(self) -> int | None:
        answerer = self.answerer()
        return None if answerer is None else answerer.input_taken()

    def client_lost(self, reason: Failure) -> None:
        """The transport is gone, and who reads or writes has heard of that."""
        in_order = isinstance(reason.value, ConnectionDone)
        words = "it has closed the connection" if in_order else reason.getErrorMessage()
        self.client_gone(ClientGone(words), reads_on=self._reads_on)

    def client_gone(self, error: ClientGone, *, reads_on: bool = False) -> None:
        """
        Nothing can reach the client any more: tell the coroutine that answers it.

        @param reads_on: whether it is about to hear of it by what it reads.
        """
        if not self.is_writable():
            self.departure.excuse()
        answerer = self.answerer()
        task = None if answerer is None else answerer.running_task()
        taken = self._input_taken()
        self.departure.happened(error, task, reads_on=reads_on, taken=taken)

    def has_left(self) -> bool:
        """Whether the kernel says that the client has gone, of a handler that may be cancelled."""
        sock = socket_below(self._below)
        return sock is not None and hangup_of(sock).is_final and self.departure.cancels()

    def client_left(self) -> None:
        """The client has gone before its request was given to a handler."""
        self._end_for_client("it has closed the connection")

    def is_writable(self) -> bool:
        """Whether this side has not ended, or is not ending, its output."""
        return self._end is _End.OPEN and not self.writer.is_closed()

    def watch_hangups(self) -> None:
        """Have the kernel tell of the end of the connection, which is not read from."""
        if self._below is not None and self.parts & Pending.CONNECTION:
            below, ended = self._below, not self.factory.allow_half_close
            watch = self.factory.hangups.watch
            self._watched = watch(
                below.reactor,
                below.socket,
                self._hung_up,
                ended=ended,
                urgent=self.waits_for_urgent(),
            )

    def waits_for_urgent(self) -> bool:
        """Whether the kernel is to tell of an urgent byte, too, by L{_hung_up}."""
        return False

    def forget_hangups(self) -> None:
        """The descriptor is closed, or another's."""
        if self._watched >= 0:
            self.factory.hangups.forget(self._watched)
            self._watched = -1

    def own_socket(self) -> socket.socket:
        """
        The connection's socket, whose descriptor others may use from now on.

        @raise OSError: there is no descriptor to be had.
        """
        is_watched = self._watched >= 0
        self.forget_hangups()  # the descriptor may become another
        sock = own_socket(self.transport)
        if is_watched:
            self.watch_hangups()
        return sock

    def _hung_up(self) -> None:
        """The kernel has told something of the connection, or of one before it."""
        answerer = self.answerer()
        has_connection = answerer is not None and answerer.has_connection()
        if self._below is None or has_connection or not self.parts & Pending.CONNECTION:
            return
        hangup = hangup_of(self._below.socket)
        if hangup is Hangup.BROKEN:
            self._end_for_client("it has broken the connection")
        elif hangup is Hangup.HUNG_UP:
            self._end_for_client("it has closed the connection", reads_on=self._reads_input())
        elif hangup is Hangup.ENDED and not self.factory.allow_half_close:
            self._end_for_client("it has ended its side")

    def _end_for_client(self, words: str, *, reads_on: bool = False) -> None:
        """The client has gone, and the transport does not know."""
        # Where this side has ended its output, the end of the other is no more than that: what
        # was sent may be on its way.
        if self.is_writable() and not reads_on and self.departure.cancels():
            self.writer.discard(BrokenPipeError("the client is gone"))
            self.abort_transport()
        self.client_gone(ClientGone(words), reads_on=reads_on)

    # What readers pause: of streams, and of bodies

    @property
    def flow(self) -> IPushProducer:
        """The producer that a reader pauses."""
        return self

    def pauseProducing(self) -> None:
        """Read no more from the client."""
        self.transport.pauseProducing()
        self.watch_hangups()

    def resumeProducing(self) -> None:
        """Read from the client again."""
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """Read from the client no more, for good."""
        self.abort_transport()

    @override
    def eof_received(self) -> None:
        if self._end is _End.LINGERING:
            self._lose_connection()
        elif self._end is _End.OPEN and (answerer := self.answerer()) is not None:
            if self.factory.allow_half_close:
                self.watch_hangups()
            elif answerer.running_task() is not None:
                self._end_for_client("it has ended its side")

    @override
    def is_broken(self) -> bool:
        return self.writer.is_broken()

    @override
    def abort(self) -> None:
        self.abort_transport()

    def abort_transport(self) -> None:
        """End the connection now, and forget what has not left."""
        if self.parts & Pending.CONNECTION:  # Twisted's TLS cannot stand it afterwards
            self.transport.abortConnection()

    def record_traffic(self) -> None:
        """Note how many bytes have come and gone."""
        self.protocol.record.received, self.protocol.record.sent = self.traffic()

    @override
    def traffic(self) -> tuple[int | None, int | None]:
        return self.protocol.record.received, self.writer.sent

    def pause(self) -> None:
        """Read no more from the client."""
        self.is_paused = True
        self.pauseProducing()

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
        if self._end is not _End.OPEN or not self.parts & Pending.CONNECTION:
            return
        self._end = _End.FLUSHING
        lingers = self.discard_input() and self.is_lendable
        self.writer.close_then(self._linger if lingers else self._lose_connection)
        if self._end is _End.FLUSHING:  # not all has left at once
            self.timer.arm(Phase.WRITE, self.deadlines.write)

    def _linger(self) -> None:
        if self.input_ended():
            self._lose_connection()
        else:
            self._end = _End.LINGERING
            self.timer.arm(Phase.WRITE, self.deadlines.linger)

    def _lose_connection(self) -> None:
        # Not before all is written: TLS would forget what it has gathered.
        self._end = _End.CLOSING
        self._parting = lose_connection(self.transport, self.deadlines, self.timer)
