"""
Pumping: the traffic of a blocking handler whose connection is more than a socket: TLS, PROXY, or
any other wrapped transport.

This room owns the reactor's end of a socketpair, whose other end the handler has, and the traffic
between it and the transport, each side slowing the other down.  It must not know handlers or
servers.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from enum import Enum
from errno import EAGAIN, EWOULDBLOCK

from twisted.internet import abstract
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.clock import clock_of
from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.deadlines import Deadlines
from sockserve.core.reactors import IReactor
from sockserve.core.transports import IStreamTransport
from sockserve.interfaces import Phase
from sockserve.sockets.pumped_socket import PumpedSocket

__all__ = ["Pump", "PumpState"]


class PumpState(Enum):
    """
    The stand of a pump between a handler and its connection::

        LEFT_OPEN <--handler finished-- OPEN --output ended (1)--> OUTPUT_ENDED
         |     |                         |                          |       |
         |     +--connection lost--+     | connection lost          |       | connection lost
         |                         v     v                          |       v
         |                          LOST                            |   LOST_ENDED
         | output ended             | output ended;                 |       | handler finished;
         |                          | all is taken (2)              |       | all is taken (2)
         v                          v                               v       v
        CLOSED                    CLOSED           handler finished CLOSED  CLOSED

    I{Output ended}: the handler has ended its output, by C{shutdown} or by closing, and all of
    it was moved.  (1) A transport that cannot end one side alone (TLS) is closed at that, and
    so is the pump.  (2) The handler has taken all that came before.

    L{Pump.release}, and the loss of this end of the socketpair, lead from any state to CLOSED.
    """

    #: Bytes move both ways.
    OPEN = "open"
    #: The handler runs, and only reads: so does the connection's peer only write.
    OUTPUT_ENDED = "output ended"
    #: The handler has finished, and a descriptor it kept (C{detach}) is open.
    LEFT_OPEN = "left open"
    #: The connection is lost, and what came before is the handler's to read.
    LOST = "lost"
    #: Likewise, and the handler had ended its output by itself.
    LOST_ENDED = "lost, ended"
    #: This end of the socketpair is closed.
    CLOSED = "closed"


# Looked up once (see L{sockserve.core.lifecycle}).
_OPEN = PumpState.OPEN
_OUTPUT_ENDED = PumpState.OUTPUT_ENDED
_LEFT_OPEN = PumpState.LEFT_OPEN
_LOST = PumpState.LOST
_LOST_ENDED = PumpState.LOST_ENDED
_CLOSED = PumpState.CLOSED


class Pump(abstract.FileDescriptor):
    """
    The reactor's end of a socketpair, and the traffic between it and a transport.
    (reactor thread)

    @ivar request: the handler's end.
    @ivar received: bytes moved to the handler.
    @ivar sent: bytes moved from the handler.
    @ivar state: where it stands.
    """

    #: How much one C{recv} takes: as C{tcp.Connection.bufferSize}.
    bufferSize = 2**16
    reactor: IReactor

    def __init__(
        self,
        reactor: IReactor,
        transport: IStreamTransport,
        request: PumpedSocket,
        outer: socket.socket,
        deadlines: Deadlines,
        timer: DeadlineTimer,
        end_connection: Callable[[bool], object] | None = None,
    ) -> None:
        """
        @param request: the handler's end of a socketpair.
        @param outer: the other end, which is the pump's from now on.
        @param timer: C{idle} is kept re-armed by traffic either way, C{write} is armed anew
            when the peer does not take what waits for it, and when it does: it has passed unless
            L{has_written_all}.
        @param end_connection: called when the handler's end is gone, to end the connection
            after what is on its way, with whether the handler has left anything unread; by
            default, C{transport.loseConnection} is.
        """
        super().__init__(reactor)
        # The two ends
        self.request = request
        self._socket = outer
        self._socket.setblocking(False)
        self._transport = transport
        # The deadlines of the connection
        self._deadlines = deadlines
        self._timer = timer
        #: How long nothing may move, in seconds.
        self.idle = deadlines.idle
        self._end_connection = end_connection or (lambda unread: transport.loseConnection())
        # The stand of things
        self.state = _OPEN
        #: Whether the kernel has said that the handler left what it had yet to read.
        self._left_unread = False
        #: Whether the transport is full, and will say when it is not.
        self._is_congested = False
        self.received = 0
        self.sent = 0
        self.connected = 1
        transport.registerProducer(self, True)
        self.registerProducer(transport, True)
        self.startReading()
        self._moved()

    @override
    def fileno(self) -> int:
        return self._socket.fileno()

    # From the peer to the handler

    def feed(self, data: bytes) -> None:
        """Pass on bytes that came from the peer."""
        self.received += len(data)
        self._moved()
        self.write(data)

    def feed_eof(self) -> None:
        """End the handler's input after what is queued: the peer has ended its side."""
        self.unregisterProducer()
        if self.state is not _CLOSED:
            self.loseWriteConnection()

    @override
    def writeSomeData(self, data: bytes) -> int | BaseException:
        try:
            return self._socket.send(data)
        except OSError as error:
            if error.errno in (EAGAIN, EWOULDBLOCK):
                return 0
            # The handler reads no more, but what it wrote may still be on its way to
            # us: what the peer sends is dropped, and reading goes on to its end.
            if self.state in (_OUTPUT_ENDED, _LOST_ENDED):
                return CONNECTION_DONE
            return len(data)

    @override
    def _closeWriteConnection(self) -> None:
        self._shutdown(socket.SHUT_WR)

    # From the handler to the peer

    @override
    def doRead(self) -> BaseException | None:
        try:
            data = self._socket.recv(self.bufferSize)
        except OSError as error:
            if error.errno in (EAGAIN, EWOULDBLOCK):
                return None
            # Linux: the handler closed its end without reading all that was queued.
            self._left_unread = True
            return CONNECTION_DONE
        if not data:
            return CONNECTION_DONE
        self.sent += len(data)
        self._moved()
        self._transport.write(data)
        return None

    def readConnectionLost(self, reason: Failure) -> None:
        """
        The handler ended its output, by C{shutdown} or by closing: so does the
        connection's, if it can end one side.

        Or somebody else's descriptor had the same number until just now, and this is the
        last the reactor has heard of that: it asks once for the events of a whole turn.
        """
        if self.state is _CLOSED:
            return
        if not self._is_ended():
            self.startReading()
            return
        if self.state in (_LOST, _LOST_ENDED):
            self.connectionLost(reason)
            return
        self._transport.unregisterProducer()
        left = self.state is _LEFT_OPEN
        self.state = _OUTPUT_ENDED
        if left or ISSLTransport.providedBy(self._transport):
            self.connectionLost(reason)
        else:
            self._transport.loseWriteConnection()

    def pauseProducing(self) -> None:
        """The transport is full."""
        self._is_congested = True
        self._timer.arm(Phase.WRITE, self._deadlines.write)
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """The transport has room again."""
        self._is_congested = False
        self._timer.arm(Phase.WRITE, self._deadlines.write)
        super().resumeProducing()

    def has_written_all(self) -> bool:
        """Whether the transport has all that a handler, which still runs, has written so far."""
        return self.state in (_OPEN, _OUTPUT_ENDED) and not self._is_congested

    def quiet(self) -> float:
        """Seconds since a byte last moved, either way."""
        return self._timer.seconds() - self._moved_at

    def _moved(self) -> None:
        self._moved_at = self._timer.seconds()
        self._timer.arm(Phase.IDLE, self.idle)

    # Ends

    @override
    def connectionLost(self, reason: Failure) -> None:
        """The handler's end is gone: close the connection after what is on its way."""
        if self.state is _CLOSED:
            return
        if self.state in (_OPEN, _LEFT_OPEN, _OUTPUT_ENDED):
            self._read_rest()  # after its end, the kernel still says what was left unread
        lost = self.state in (_LOST, _LOST_ENDED)
        self.state = _CLOSED
        paused = self.producer is not None and self.producerPaused
        unread = paused or self._left_unread or bool(self.dataBuffer or self._tempDataBuffer)
        self.unregisterProducer()
        super().connectionLost(reason)
        # A child that was forked for another request may hold a copy, too.
        self._shutdown(socket.SHUT_RDWR)
        # After this turn: what the reactor has yet to say of this descriptor must not hit
        # another of the same number.
        clock_of(self.reactor).callLater(0, self._socket.close)
        self._timer.disarm(Phase.IDLE)
        if not lost:  # Twisted's TLS cannot stand it then
            self._timer.arm(Phase.WRITE, self._deadlines.write)
            if paused:  # TLS waits for the peer's end, which it would not hear of
                self._transport.resumeProducing()
            self._transport.unregisterProducer()
            self._end_connection(unread)

    def _is_ended(self) -> bool:
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            self._left_unread = True
            return True

    def _read_rest(self) -> bool:
        """
        Move what the handler wrote before it closed, or left, where that is noticed in another
        way than by reading to its end; no more than a socketpair holds.

        @return: whether that was all: the handler's output has ended.
        """
        try:
            while data := self._socket.recv(self.bufferSize):
                self.sent += len(data)
                self._transport.write(data)
        except BlockingIOError:
            return False
        except OSError:
            self._left_unread = True
        return True

    def handler_finished(self) -> None:
        """
        The handler has returned.  A descriptor it kept open (C{detach}) is pumped on
        until it is closed.
        """
        if self.state is _OPEN:
            self.state = _LEFT_OPEN
        elif self.state in (_OUTPUT_ENDED, _LOST_ENDED):
            self.connectionLost(_DONE)

    def release(self) -> bool:
        """
        Pass on what the handler wrote, which has returned, and end the pump alone: the
        connection goes on without it.

        @return: whether the handler has left its output open.
        """
        state = self.state
        if state is _CLOSED:
            return False
        ended = state in (_OUTPUT_ENDED, _LOST_ENDED)
        if state not in (_LOST, _LOST_ENDED):
            ended = self._read_rest() or ended
            if self.producer is not None and self.producerPaused:
                self._transport.resumeProducing()
            self._transport.unregisterProducer()
        self.state = _LOST_ENDED if ended else _LOST  # to the pump, it is
        self.unregisterProducer()
        self.connectionLost(_DONE)
        return not ended

    def transport_lost(self) -> None:
        """
        The connection is lost: what came is still the handler's to read, but what it
        writes goes nowhere, which it is told even where it is blocked in it.
        """
        if self.state is not _CLOSED:
            self.state = _LOST_ENDED if self.state in (_OUTPUT_ENDED, _LOST_ENDED) else _LOST
            # Else a pause it was asked for would keep this end from being closed.
            self.unregisterProducer()
            # Both ways at once, if no more is to come: a child that is told so by an error asks its
            # own end whether the client has gone.
            is_queued = bool(self.dataBuffer or self._tempDataBuffer)
            self._shutdown(socket.SHUT_RD if is_queued else socket.SHUT_RDWR)
            self.loseConnection()

    def interrupt(self) -> None:
        """End both directions of the handler's socket, which wakes it wherever it is blocked."""
        if self.state is not _CLOSED:
            self._shutdown(socket.SHUT_RDWR)

    def _shutdown(self, how: int) -> None:
        try:
            self._socket.shutdown(how)
        except OSError:
            pass


_DONE = Failure(CONNECTION_DONE)
