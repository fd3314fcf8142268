"""
Writing: the C{wfile} of a coroutine handler.

This room owns the output queue, its watermarks, and when bytes leave.  It must not know
handlers, servers or how a connection came about. (reactor thread)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IPullProducer, IPushProducer, ISSLTransport
from zope.interface import implementer

from sockserve.core.buffers import bytes_of
from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.deadlines import Deadlines
from sockserve.core.tasks import Wakeup
from sockserve.core.transports import IStreamTransport
from sockserve.interfaces import Phase
from sockserve.streams.outbox import Outbox
from sockserve.streams.reader import HIGH_WATER_BYTES, LOW_WATER_BYTES

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["StreamWriter"]

#: How much of its queue a connection sends at once, before others have their turn.  1 MiB: a
#: quarter of what Linux keeps for one at most (C{tcp_wmem}).
TURN_BYTES = 1024 * 1024


class _Output(Enum):
    """The stand of a writer's output; each state can only be followed by the next."""

    OPEN = "open"
    #: No more is taken, and not all has left.  A connection that breaks stays at that.
    CLOSING = "closing"
    #: All has been handed to the transport, which was told of the end.
    ENDED = "ended"


# Looked up once (see L{sockserve.core.lifecycle}).
_OPEN = _Output.OPEN
_CLOSING = _Output.CLOSING
_ENDED = _Output.ENDED
_WRITE = Phase.WRITE


@implementer(IPushProducer, IPullProducer)
class StreamWriter:
    """
    The output of a coroutine handler's connection: C{self.wfile}.

    C{write} never waits.  What a handler writes until it next waits leaves in one piece then,
    at the latest, when the reactor has heard all that it can hear in this turn; L{flush} sends it
    now, and L{drain} is where a handler lets a slow reader slow it down.

    On a plain transport with nothing queued, bytes go to the kernel at once, and
    only what it did not take is queued (with the reactor asking for more when there
    is room: C{IPullProducer}).  That saves two C{epoll_ctl} and a turn of the loop
    for almost every write.  A wrapped transport (TLS, PROXY) buffers by itself and
    says when to pause (C{IPushProducer}).

    @ivar corked: whether output is held back: the handler runs just now, or a connection is read
        on which many are answered.
    @ivar outbox: for what leaves at the end of a turn; set by the channel.
    @ivar is_open: whether what is written now may still reach the client.
    @ivar queued_bytes: how many bytes wait here for the client to take those before them.
    @ivar sent: how many bytes have left the queue.
    """

    __slots__ = (
        "_congested",
        "_deadlines",
        "_direct",
        "_error",
        "_finished",
        "_output",
        "_pending",
        "_socket",
        "_timer",
        "_transport",
        "_waiters",
        "corked",
        "is_open",
        "outbox",
        "queued_bytes",
        "sent",
    )

    outbox: Outbox

    def __init__(
        self, transport: IStreamTransport, direct: bool, deadlines: Deadlines, timer: DeadlineTimer
    ) -> None:
        """
        @param direct: whether the transport is nothing but a socket, which can be sent to.
        """
        # For the connection.  It is direct until it turns to TLS (L{wrapped}).
        self._transport = transport
        self._direct = direct
        self._deadlines = deadlines
        self._timer = timer
        # Until the handler waits
        self.corked = False
        # Until the peer takes it
        self._pending: list[bytes | memoryview] = []
        self.queued_bytes = 0
        #: Whether the transport has no room, and will say when it has.
        self._congested = False
        self._waiters: list[Wakeup] = []
        self.sent = 0
        # Its end: by this side, and by what else befell it
        self.is_open = True
        self._output = _OPEN
        #: To be called when the output has ended.
        self._finished: Callable[[], object] | None = None
        self._error: BaseException | None = None
        if direct:
            self._socket = transport.getHandle()
        else:
            transport.registerProducer(self, True)

    def __repr__(self) -> str:
        return f"<StreamWriter waiting={self.queued_bytes} closed={self.is_closed()}>"

    # What handlers call

    def write(self, data: ReadableBuffer) -> int:
        """
        Send C{data}, in order.  After the connection broke it goes nowhere, and
        L{drain} says so.

        @return: the number of bytes in C{data}.
        @raise ValueError: the writer was closed by this side.
        @raise TypeError: C{data} is no bytes-like object.
        """
        if self._output is not _OPEN:
            raise ValueError("write to a closed stream")
        if type(data) is not bytes:
            data = bytes_of(data)
        size = len(data)
        if size and self._error is None:
            self._pending.append(data)
            self.queued_bytes += size
            if not self.corked or self.queued_bytes > HIGH_WATER_BYTES:
                self.flush()
        return size

    def write_at_turn_end(self, data: bytes | memoryview) -> None:
        """
        L{write}, to leave with what other connections send in this turn of the reactor; where the
        output is held back, whoever does that sees to it (L{Outbox.send}).
        """
        if not self.is_open:
            return
        if not (self.corked or self._pending or self._congested):
            self.outbox.add(self)
        self._pending.append(data)
        self.queued_bytes = queued = self.queued_bytes + len(data)
        if queued > HIGH_WATER_BYTES:
            self.flush()

    def writelines(self, lines: Iterable[ReadableBuffer]) -> None:
        """L{write} each of C{lines}; no separators are added."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Send what was held back; does not wait for a slow reader."""
        if self._congested or not self._pending:
            return
        if not self._direct:
            self._hand_over()
            return
        self._send_queue()
        if self._pending:
            # Asks for more at once, and again whenever the transport is empty.
            self._transport.registerProducer(self, False)

    async def drain(self) -> None:
        """
        Wait while more than the high watermark is queued, until it is down to the
        low one.

        @raise ConnectionError: the connection broke.
        @raise DeadlineExpired: the C{write} deadline passed.
        """
        if self.queued_bytes > HIGH_WATER_BYTES:
            self.flush()
            if self.queued_bytes > HIGH_WATER_BYTES:
                while self.queued_bytes > LOW_WATER_BYTES and self._error is None:
                    waiter = Wakeup()
                    self._waiters.append(waiter)
                    await waiter
        if self._error is not None:
            raise self._error

    # What the task that writes calls

    def uncork(self) -> None:
        """The handler waits: let what was held back leave with what others send in this turn."""
        self.corked = False
        if self._pending:
            self.outbox.send(self)

    # What the outbox calls

    def send_held(self) -> None:
        """L{flush}, with fewer steps for most of all that is sent."""
        pending = self._pending
        if self._congested or not pending:
            return
        size = self.queued_bytes
        if self._direct and len(pending) == 1 and size <= HIGH_WATER_BYTES:
            try:
                taken = self._socket.send(pending[0])
            except OSError:  # the next try tells, if it is for long
                taken = 0
            self.sent += taken
            if taken == size:
                pending.clear()
                self.queued_bytes = 0
                return
            pending[0] = memoryview(pending[0])[taken:]
            self.queued_bytes = size - taken
        self.flush()

    def forget_held(self) -> None:
        """Forget what was held back, in a child: its parent sends it."""
        self._pending.clear()
        self.queued_bytes = 0

    # What the connection calls

    def close(self) -> None:
        """Take no more, and end the output once everything has left."""
        if self._output is _OPEN:
            self.is_open = False
            self._output = _CLOSING
            self.flush()
            if not self._pending and not (self._direct and self._congested):
                self._end()

    def close_then(self, finished: Callable[[], object]) -> None:
        """
        L{close}, and call C{finished} once everything has been handed to the transport
        and the output has ended; never, if the connection breaks before.
        """
        self.close()
        if self._output is _ENDED:
            finished()
        else:
            self._finished = finished

    def is_broken(self) -> bool:
        """Whether the connection is of no more use."""
        return self._error is not None

    def is_closed(self) -> bool:
        """Whether this side has ended, or is ending, its output."""
        return self._output is not _OPEN

    def is_empty(self) -> bool:
        """Whether all that was written has been handed to the transport, or the kernel."""
        return not self._pending and not self._congested

    def discard(self, error: BaseException) -> None:
        """Forget what is queued and what comes: the connection is of no more use."""
        if self._error is None:
            self._error = error
        self.is_open = False
        self._pending.clear()
        self.queued_bytes = 0
        self._wake()

    async def emptied(self) -> None:
        """
        L{flush}, and wait until nothing is queued here.

        @raise ConnectionError: the connection broke.
        @raise DeadlineExpired: the C{write} deadline passed.
        """
        self.flush()
        while (self._pending or self._congested) and self._error is None:
            waiter = Wakeup()
            self._waiters.append(waiter)
            await waiter
        if self._error is not None:
            raise self._error

    def detach(self) -> None:
        """Let go of the transport, which is about to become another one; L{wrapped} follows."""
        if not self._direct:
            self._transport.unregisterProducer()

    def wrapped(self) -> None:
        """Go on with a transport that buffers by itself: it has become TLS."""
        self._direct = False
        self._transport.registerProducer(self, True)

    # What the transport calls

    def resumeProducing(self) -> None:
        """The transport has room."""
        if self._direct:
            if self._congested:
                self._send_queue()
            if self._pending:
                self._congested = True
                self._timer.arm(_WRITE, self._deadlines.write)
                self._transport.write(self._batch())
            elif self._error is None:
                self._congested = False
                self._timer.arm(_WRITE, self._deadlines.write)
                self._transport.unregisterProducer()
                if self._output is not _OPEN:
                    self._end()
        else:
            self._congested = False
            self._timer.arm(_WRITE, self._deadlines.write)
            self._hand_over()
            if self._output is not _OPEN and not self._pending:
                self._end()
        if self._waiters and self.queued_bytes <= LOW_WATER_BYTES:
            self._wake()

    def pauseProducing(self) -> None:
        """The transport is full (push producers only)."""
        if not self._direct:
            self._congested = True
            self._timer.arm(_WRITE, self._deadlines.write)

    def stopProducing(self) -> None:
        """The transport is gone: L{discard} follows, from its C{connectionLost}."""

    # Inside

    def _send_queue(self) -> None:
        """Straight to the kernel, as much as it takes, and as one connection may send in a turn."""
        end = self.sent + TURN_BYTES
        while self._pending and self.sent < end:
            first = self._pending[0]
            if len(first) < HIGH_WATER_BYTES:
                data: bytes | memoryview = self._batch()
            else:  # there is no need to copy it
                data = memoryview(first)[: end - self.sent]
                if len(data) == len(first):
                    del self._pending[0]
                else:
                    self._pending[0] = memoryview(first)[len(data) :]
                self.queued_bytes -= len(data)
                self.sent += len(data)
            if not self._send_piece(data):
                return

    def _send_piece(self, data: bytes | memoryview) -> bool:
        """
        Send what has been taken from the queue, and put back what does not leave.

        @return: whether all has left.
        """
        size = len(data)
        try:
            # What transport.writeSomeData does, without its memoryview and its retry on
            # EINTR (PEP 475 has that): a twentieth of a small request.
            taken = self._socket.send(data)
        except BlockingIOError:
            taken = 0
        except OSError:
            self.sent -= size
            self.discard(BrokenPipeError("the peer has closed the connection"))
            self._transport.abortConnection()
            return False
        if taken == size:
            return True
        self.sent -= size - taken
        self.queued_bytes += size - taken
        self._pending.insert(0, memoryview(data)[taken:])
        return False

    def _hand_over(self) -> None:
        """To a transport that buffers by itself, until it says that it is full."""
        while self._pending and not self._congested:
            self._transport.write(self._batch())

    def _end(self) -> None:
        """End the output: all has been handed over.  Not of a connection that broke."""
        if self._error is not None:
            return
        self._output = _ENDED
        if not self._direct:
            self._transport.unregisterProducer()
        # Below TLS a half-close would cut off what TLS has yet to send.
        if not ISSLTransport.providedBy(self._transport):
            self._transport.loseWriteConnection()
        finished, self._finished = self._finished, None
        if finished is not None:
            finished()

    def _batch(self) -> bytes:
        """Take what leaves next, at most about the high watermark."""
        pending = self._pending
        first = pending[0]
        if len(first) > HIGH_WATER_BYTES:
            view = memoryview(first)
            pending[0] = view[HIGH_WATER_BYTES:]
            batch = bytes(view[:HIGH_WATER_BYTES])
        else:
            size = count = 0
            for part in pending:
                size += len(part)
                if size > HIGH_WATER_BYTES:
                    break
                count += 1
            batch = b"".join(pending[:count])
            del pending[:count]  # at once: a list gives up its first items slowly
        self.queued_bytes -= len(batch)
        self.sent += len(batch)
        return batch

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.wake()
