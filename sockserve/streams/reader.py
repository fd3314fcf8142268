"""
Reading: the awaitable C{rfile} of a coroutine handler.

This room owns the input buffer, its watermarks, the meaning of each read, and which
deadline guards it.  It must not know handlers, servers or how a connection came about.
(reactor thread)
"""

from __future__ import annotations

from asyncio import IncompleteReadError, LimitOverrunError
from collections.abc import Awaitable
from enum import Enum
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer

from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.deadlines import Deadlines
from sockserve.core.tasks import Wakeup
from sockserve.interfaces import DeadlineExpired, Phase

if TYPE_CHECKING:
    from typing import Self

__all__ = ["HIGH_WATER_BYTES", "LOW_WATER_BYTES", "Patience", "StreamReader"]

#: Above this many buffered bytes the other side is made to wait.  64 KiB: asyncio's
#: and Twisted's (C{FileDescriptor.bufferSize}) default.
HIGH_WATER_BYTES = 64 * 1024

#: At or below this many it may go on.  A quarter of the high one, as asyncio's.
LOW_WATER_BYTES = 16 * 1024


class _Input(Enum):
    """The stand of a reader's input; each state can only be followed by a later one."""

    OPEN = "open"
    #: It ends as soon as a handler waits for a message of which nothing has come.
    DRAINING = "draining"
    #: Nothing more will come; what is buffered can be read.
    ENDED = "ended"


class Patience(Enum):
    """How long a handler waits for a byte."""

    #: As long as the C{idle} deadline lets it, which ends the connection.
    DEADLINE = "deadline"
    #: A time of its own, after which its read fails and the connection goes on.
    OWN = "own"
    #: Likewise, and that time has passed: the read that waits is about to fail.
    OWN_PASSED = "own, passed"


# Looked up once (see L{sockserve.core.lifecycle}).
_IDLE = Phase.IDLE
_HEADER = Phase.HEADER
_BODY = Phase.BODY
_OPEN = _Input.OPEN
_DRAINING = _Input.DRAINING
_ENDED = _Input.ENDED
_DEADLINE = Patience.DEADLINE
_OWN_PASSED = Patience.OWN_PASSED


class _Sink(bytearray):
    """A buffer that keeps nothing."""

    def __iadd__(self, data: object) -> Self:
        return self


class _Now:
    """An awaitable that does not wait."""

    def __await__(self) -> Any:
        return iter(())


_NOW = _Now()


class StreamReader:
    """
    The input of a coroutine handler's connection: C{self.rfile}.

    The names and results are those of C{asyncio.StreamReader} and of the file
    objects C{socket.makefile} makes; end of file is C{b""}.  One read at a time.

    Every method that waits raises L{DeadlineExpired} when a deadline of the connection
    passes and C{ConnectionError} when the connection broke, once; after that there is
    only end of file.  (Not after a timeout the handler itself has set.)

    @ivar limit: the longest line or separated piece in bytes that is gathered when
        the caller names no limit.
    @ivar idle: seconds that a wait for a byte lasts, None for ever.
    @ivar received: how many bytes have come.
    """

    __slots__ = (
        "_base",
        "_began",
        "_buffer",
        "_deadlines",
        "_error",
        "_input",
        "_patience",
        "_paused",
        "_phase",
        "_timer",
        "_transport",
        "_waiter",
        "_wakeup",
        "idle",
        "limit",
        "received",
    )

    def __init__(
        self, transport: IPushProducer, deadlines: Deadlines, timer: DeadlineTimer
    ) -> None:
        # For the connection
        self._transport = transport
        self._deadlines = deadlines
        self._timer = timer
        self.limit = HIGH_WATER_BYTES
        self.idle = deadlines.idle
        #: Whose seconds these are.
        self._patience = _DEADLINE
        self.received = 0
        self._input = _OPEN
        #: What the next read that waits raises.
        self._error: BaseException | None = None
        # Until it is read
        self._buffer = bytearray()
        #: Whether the transport was told to pause.
        self._paused = False
        # For the wait under way: what is awaited; and what will be next time
        self._waiter: Wakeup | None = None
        self._wakeup = Wakeup()
        # For the message being read, once it has begun: the deadline that guards it; when it
        # began; how much had come before it
        self._phase: Phase | None = None
        self._began = 0.0
        self._base = 0

    def __repr__(self) -> str:
        return f"<StreamReader buffered={len(self._buffer)} eof={self._input is _ENDED}>"

    # What handlers call

    async def read(self, n: int = -1) -> bytes:
        """
        Up to C{n} bytes, as soon as there are any; with C{n} negative everything up
        to end of file.
        """
        if n < 0:
            parts = []
            while part := await self.read(HIGH_WATER_BYTES):
                parts.append(part)
            return b"".join(parts)
        if n == 0:
            return b""
        while not self._buffer and self._input is not _ENDED:
            await self._wait_for_data(None)
        return self._take(min(n, len(self._buffer)))

    async def readline(self, limit: int = -1) -> bytes:
        """
        A line with its newline, or what there is before end of file.

        @param limit: as C{io.IOBase.readline}'s C{size}: return at most so many
            bytes.
        @raise LimitOverrunError: no C{limit} was named and the line is longer than
            L{limit}.
        """
        if limit == 0:
            return b""
        buffer = self._buffer
        searched = 0
        while True:
            end = buffer.find(b"\n", searched) + 1
            if limit > 0 and (end > limit or (not end and len(buffer) >= limit)):
                end = limit
            if end:
                if end > self.limit and limit < 0:
                    raise self._overrun(end - 1)
                return self._take(end)
            searched = len(buffer)
            if searched > self.limit and limit < 0:
                raise self._overrun(searched)
            if self._input is _ENDED:
                return self._take(searched)
            await self._wait_for_data(_HEADER)

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """
        Everything up to and with C{separator}.

        @raise IncompleteReadError: end of file came first; C{partial} has the rest.
        @raise LimitOverrunError: more than L{limit} bytes came without it.
        """
        if not separator:
            raise ValueError("the separator is at least one byte long")
        buffer = self._buffer
        searched = 0
        while True:
            start = buffer.find(separator, searched)
            end = len(buffer) if start < 0 else start + len(separator)
            if end > self.limit:
                consumed = end - len(separator) + (start < 0)
                raise LimitOverrunError(f"no {separator!r} within {self.limit} bytes", consumed)
            if start >= 0:
                return self._take(end)
            searched = max(0, end + 1 - len(separator))
            if self._input is _ENDED:
                raise IncompleteReadError(self._take(end), None)
            await self._wait_for_data(_HEADER)

    async def readexactly(self, n: int) -> bytes:
        """
        Exactly C{n} bytes.

        @raise IncompleteReadError: end of file came first; C{partial} has what came.
        """
        if n < 0:
            raise ValueError("readexactly needs a number of bytes of 0 or more")
        while len(self._buffer) < n:
            if self._input is _ENDED:
                raise IncompleteReadError(self._take(len(self._buffer)), n)
            await self._wait_for_data(_BODY)
        return self._take(n)

    def at_eof(self) -> bool:
        """Whether everything that will ever come has been read."""
        return self._input is _ENDED and not self._buffer

    def __aiter__(self) -> StreamReader:
        return self

    async def __anext__(self) -> bytes:
        # readline(), with one coroutine less for what most handlers spend their life in.
        buffer = self._buffer
        searched = 0
        while True:
            if buffer:
                end = buffer.find(b"\n", searched) + 1
                if end:
                    if end > self.limit:
                        raise self._overrun(end - 1)
                    return self._take(end)
            searched = len(buffer)
            if searched > self.limit:
                raise self._overrun(searched)
            if self._input is _ENDED:
                if searched:
                    return self._take(searched)
                raise StopAsyncIteration
            await self._wait_for_data(_HEADER)

    # What the connection calls

    def feed(self, data: bytes) -> None:
        """Take bytes that have arrived."""
        buffer = self._buffer
        buffer += data
        self.received += len(data)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            waiter.wake()
        if len(self._buffer) > HIGH_WATER_BYTES and self._waiter is None and not self._paused:
            self._paused = True
            self._transport.pauseProducing()

    def feed_eof(self) -> None:
        """End the input: no more bytes will come."""
        self._input = _ENDED
        self._wake()

    def fail(self, error: BaseException) -> None:
        """Let the read that waits, or the next that would, raise C{error}."""
        if self._error is None:
            self._error = error
        self._wake()

    def waiting(self) -> bool:
        """Whether a handler waits for this stream."""
        return self._waiter is not None and not self._waiter.called

    def between_messages(self) -> bool:
        """Whether a handler waits for a message of which nothing has come."""
        return self.waiting() and not self._buffer

    def settimeout(self, seconds: float | None) -> None:
        """Let each wait for a byte last so long, instead of the C{idle} deadline."""
        self.idle = seconds
        if self._patience is _DEADLINE:
            self._patience = Patience.OWN

    def deadline_applies(self, phase: Phase) -> bool:
        """
        The timer says that a deadline has passed.  A handler's own timeout ends nothing
        but its read.

        @return: whether it really has, and ends the connection.
        """
        if phase is _HEADER or phase is _BODY:
            if not self.waiting():  # the read was given up
                self._phase = None
            return self.waiting()
        if phase is not _IDLE:
            return True
        if self._patience is not _DEADLINE and self.waiting():
            self._patience = _OWN_PASSED
            self.fail(DeadlineExpired(_IDLE))
            return False
        return self.between_messages()

    def unread(self) -> bool:
        """Whether bytes have arrived that nobody took."""
        return bool(self._buffer) or self._paused

    @property
    def taken(self) -> int:
        """How many bytes somebody took."""
        return self.received - len(self._buffer)

    def discard(self) -> bool:
        """
        Forget what is buffered and what comes: nobody reads any more.

        @return: whether there was or may be anything to forget, before end of file.
        """
        unread = self.unread() and self._input is not _ENDED
        self._buffer = _Sink()
        if self._paused:
            self._paused = False
            self._transport.resumeProducing()
        return unread

    def end_between_messages(self) -> None:
        """End the input for a handler that waits, now or later, for a message of which
        nothing has come."""
        if self._input is _OPEN:
            self._input = _DRAINING
        if self.between_messages():
            self.feed_eof()

    # Inside

    def _take_error(self) -> BaseException:
        """
        The error, which whoever reads now gets.  Further reads find an end of file, as on
        a socket: a loop that goes on after errors would otherwise never leave the reactor
        to others.
        """
        assert self._error is not None
        error, self._error = self._error, None
        if self._patience is _OWN_PASSED:
            self._patience = Patience.OWN
        else:
            self._input = _ENDED
            self._buffer.clear()
        return error

    def _overrun(self, size: int) -> LimitOverrunError:
        return LimitOverrunError(f"a line is longer than {self.limit} bytes", size)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.wake()

    def _take(self, n: int) -> bytes:
        buffer = self._buffer
        if n == len(buffer):
            data = bytes(buffer)
            buffer.clear()
        else:
            data = bytes(buffer[:n])
            del buffer[:n]
        if self._phase is not None:
            self._timer.disarm(self._phase)
            self._phase = None
        if self._paused and len(buffer) <= LOW_WATER_BYTES:
            self._paused = False
            self._transport.resumeProducing()
        return data

    def _wait_for_data(self, phase: Phase | None) -> Awaitable[None]:
        """
        What to await for more bytes, end of file or an error; call again to see which.

        @param phase: the deadline for the rest of a message that has begun.
        """
        if self._error is not None:
            raise self._take_error()
        waiter = self._waiter
        if waiter is not None and not waiter.called:  # L{waiting}, without the call
            raise RuntimeError("another read is already waiting on this stream")
        if self._input is _DRAINING and not self._buffer:
            self._input = _ENDED
            return _NOW
        if self._paused:  # the message is larger than the watermark
            self._paused = False
            self._transport.resumeProducing()
        self._arm_deadlines(phase)
        waiter = self._wakeup
        if waiter.called or waiter._callbacks:  # it is done with
            waiter = self._wakeup = Wakeup()
        self._waiter = waiter
        return waiter

    def _arm_deadlines(self, phase: Phase | None) -> None:
        """Arm what guards a wait: C{idle}, and the deadline of a message that has begun."""
        timer = self._timer
        if phase is None or not self._buffer:
            timer.arm(_IDLE, self.idle)
            return
        if self._patience is not _DEADLINE:
            timer.arm(_IDLE, self.idle)
        if self._phase is not phase:
            if self._phase is not None:  # a read of the other kind was given up
                timer.disarm(self._phase)
            self._phase = phase
            self._began = timer.seconds()
            self._base = self.received - len(self._buffer)
            if phase is _HEADER:
                timer.arm(phase, self._deadlines.header)
        if phase is _BODY:
            timer.arm(phase, self._body_seconds(timer.seconds() - self._began))

    def _body_seconds(self, elapsed: float) -> float | None:
        """How long from now a counted read may go on without another byte."""
        idle = self.idle if self._patience is _DEADLINE else None
        return self._deadlines.body_seconds(elapsed, self.received - self._base, idle)
