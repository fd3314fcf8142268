"""
Urgent data: the channel of a coroutine handler that takes TCP's out-of-band bytes.

This room owns how an urgent byte keeps its place in the stream, on its way in and on its way out.
It must not know how a connection came about, or what such a byte means to a handler.
(reactor thread)

The kernel keeps one mark for a connection, at its latest urgent byte, and no C{recv} crosses it.
So whether a byte is that one is to be asked before it is read, and when it is known to be there:
later it could have become another's turn.
"""

from __future__ import annotations

import fcntl
import select
import socket
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from twisted.internet.main import CONNECTION_LOST
from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.addresses import Addresses
from sockserve.core.beginnings import Serve
from sockserve.core.buffers import bytes_of
from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.deadlines import Deadlines
from sockserve.core.lifecycle import run_handler_coroutine, serve_coroutine
from sockserve.core.logs import Topic, log_raised, logger
from sockserve.core.transports import IStreamTransport
from sockserve.interfaces import Outcome, Phase
from sockserve.sockets.lending import own_socket
from sockserve.streams.channel import ChannelOwner
from sockserve.streams.connection import StreamConnection
from sockserve.streams.coroutine import CoroutineChannel
from sockserve.streams.outbox import Outbox
from sockserve.streams.reader import StreamReader
from sockserve.streams.writer import StreamWriter

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from twisted.internet.interfaces import IPushProducer

__all__ = [
    "READ_AHEAD_BYTES",
    "UrgentChannel",
    "UrgentConnection",
    "UrgentReader",
    "UrgentWriter",
    "make_and_run_urgent",
]

_log = logger(Topic.HANDLERS)

#: How much is read at most, and kept, of a client whose handler does not read, to come to an
#: urgent byte.  1 MiB: more than Linux keeps of one that is not read from, mostly (C{tcp_rmem}).
READ_AHEAD_BYTES = 1024 * 1024

_FAMILIES = (socket.AF_INET, socket.AF_INET6)

#: From C{asm-generic/sockios.h}, and of the BSDs C{sys/sockio.h}.  (Python does not name it.)
_SIOCATMARK = 0x8905 if sys.platform == "linux" else 0x40047307


def _has_urgent_data(sock: socket.socket) -> bool:
    """Whether a socket is one of TCP's, and no more."""
    return sock.family in _FAMILIES and not isinstance(sock, ssl.SSLSocket)


def _is_at_mark(sock: socket.socket) -> bool:
    """Whether the next byte is the urgent one."""
    return bool(struct.unpack("i", fcntl.ioctl(sock, _SIOCATMARK, b"\0\0\0\0"))[0])


def _has_urgent_byte(sock: socket.socket) -> bool:
    """Whether an urgent byte has come that was not read."""
    poll = select.poll()
    poll.register(sock, select.POLLPRI)
    return any(events & select.POLLPRI for _, events in poll.poll(0))


class UrgentReader(StreamReader):
    """The C{self.rfile} of a handler that takes urgent data, which is no part of what it reads."""

    __slots__ = ("_mark",)

    def __init__(
        self, transport: IPushProducer, deadlines: Deadlines, timer: DeadlineTimer
    ) -> None:
        super().__init__(transport, deadlines, timer)
        #: How many bytes came before the latest urgent one; None when there was none.
        self._mark: int | None = None

    # What handlers call

    @override
    async def read(self, n: int = -1) -> bytes:
        """
        As L{StreamReader.read}; with C{n} not negative, what it gives came before the latest urgent
        byte, or after it.
        """
        if n > 0 and self._mark is not None and self._mark > self.taken:
            n = min(n, self._mark - self.taken)
        return await super().read(n)

    def at_mark(self) -> bool:
        """
        Whether all that came before the latest urgent byte has been read, and nothing of what came
        after it: C{sockatmark}, for what the handler has read.  (So a loop that reads until then
        does not end, if other reads have passed the mark: L{skip_to_mark} does.)
        """
        return self._mark == self.taken

    def skip_to_mark(self) -> int:
        """
        Forget what came before the latest urgent byte and was not read: all of it has come.  A read
        that waits goes on with what comes after.

        @return: how many bytes that was.
        """
        size = 0 if self._mark is None else max(0, self._mark - self.taken)
        if size:
            self._take(size)
            self._wake()  # it has looked at these, and is not to count on them
        return size

    # What the connection calls

    def set_mark(self) -> None:
        """An urgent byte has come."""
        self._mark = self.received

    def is_full(self) -> bool:
        """Whether no more is read from the client, until the handler has read some."""
        return self._paused

    @property
    def buffered_bytes(self) -> int:
        """The number of bytes that have come and were not read."""
        return len(self._buffer)


class _UrgentByte(bytes):
    """A piece of output that is urgent."""


class UrgentWriter(StreamWriter):
    """The C{self.wfile} of a handler that takes urgent data, and sends some."""

    __slots__ = ("_urgent_count",)

    def __init__(
        self, transport: IStreamTransport, direct: bool, deadlines: Deadlines, timer: DeadlineTimer
    ) -> None:
        super().__init__(transport, direct, deadlines, timer)
        #: How many of the pieces that wait are urgent.
        self._urgent_count = 0

    # What handlers call

    def write_urgent(self, data: ReadableBuffer) -> int:
        """
        Send one byte as TCP urgent data, after what was written before, and all of that now, as
        far as the client takes it.

        @return: 1.
        @raise ValueError: C{data} is not one byte, or the writer was closed by this side.
        @raise RuntimeError: the connection is not plain TCP, as after C{start_tls}.
        """
        byte = _UrgentByte(bytes_of(data))
        if len(byte) != 1:
            raise ValueError(f"write_urgent takes one byte, not {len(byte)}")
        if self.is_closed():
            raise ValueError("write to a closed stream")
        if self._error is None:
            if not self._direct or not _has_urgent_data(self._socket):
                raise RuntimeError(
                    "write_urgent: there is no urgent data but on a plain TCP connection, without"
                    " TLS"
                )
            self._pending.append(byte)
            self.queued_bytes += 1
            self._urgent_count += 1
            self.flush()
        return 1

    # What the outbox calls

    @override
    def send_held(self) -> None:
        self.flush()  # which knows an urgent byte

    # What the transport calls

    @override
    def resumeProducing(self) -> None:
        if not self._direct or not self._urgent_count:
            super().resumeProducing()
            return
        if self._congested:
            self._send_queue()
            self._congested = False  # it is sent: L{StreamWriter} need not try again
        if self._pending and type(self._pending[0]) is _UrgentByte:
            # The transport knows of no flags.  With nothing to write it asks again when it can.
            self._congested = True
            self._timer.arm(Phase.WRITE, self._deadlines.write)
            self._transport.startWriting()
        else:
            super().resumeProducing()

    # Inside

    @override
    def _batch(self) -> bytes:
        if not self._urgent_count:
            return super()._batch()
        pending = self._pending
        first = pending[0]
        if type(first) is _UrgentByte:
            del pending[0]
            self._urgent_count -= 1
            self.queued_bytes -= 1
            self.sent += 1
            return first
        count = next(n for n, piece in enumerate(pending) if type(piece) is _UrgentByte)
        behind = pending[count:]
        del pending[count:]
        batch = super()._batch()
        pending += behind
        return batch

    @override
    def _send_piece(self, data: bytes | memoryview) -> bool:
        if type(data) is not _UrgentByte:
            return super()._send_piece(data)
        try:
            self._socket.send(data, socket.MSG_OOB)
        except BlockingIOError:
            self._pending.insert(0, data)
            self._urgent_count += 1
            self.queued_bytes += 1
            self.sent -= 1
            return False
        except OSError:
            self.sent -= 1
            self.discard(BrokenPipeError("the peer has closed the connection"))
            self._transport.abortConnection()
            return False
        return True


class UrgentConnection(StreamConnection):
    """
    The C{self.request} of a handler that takes urgent data.

    @ivar urgent_received: the handler's method, once it is made and until it has finished.
    """

    __slots__ = ("urgent_received",)

    urgent_received: Callable[[bytes], object] | None


class _Reading(Enum):
    """The extent to which a connection is read."""

    #: As the transport does by itself, which knows of no marks.
    UNMARKED = "unmarked"
    #: As far as the reader asks, and never across a mark.
    ASKED_FOR = "asked for"
    #: Farther than that, up to an urgent byte that has come.
    AHEAD = "ahead"


class UrgentChannel(CoroutineChannel):
    """
    The channel of a coroutine that takes urgent data.

    Where the transport is no plain TCP connection, none comes.
    """

    make_reader = UrgentReader
    make_writer = UrgentWriter
    make_request = UrgentConnection

    request: UrgentConnection
    _reader: UrgentReader

    def __init__(
        self,
        protocol: ChannelOwner,
        addresses: Addresses,
        serve: Serve = serve_coroutine,
        outbox: Outbox | None = None,
    ) -> None:
        super().__init__(protocol, addresses, serve, outbox)
        self.request.urgent_received = None
        #: Whether the handler runs, or has finished.
        self._has_begun = False
        self._reading = _Reading.UNMARKED
        below = self._below
        if below is not None and self.is_lendable and _has_urgent_data(own_socket(below)):
            self._reading = _Reading.ASKED_FOR
            below.socket.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
            # What the reactor calls when there is something to read: the transport's own knows of
            # no marks.
            below.doRead = self._read  # type: ignore[method-assign, assignment]

    @override
    def start(self) -> None:
        self._has_begun = True
        super().start()
        self.resume()

    @override
    def connection_lost(self, reason: Failure) -> None:
        self._stop_reading_marks()
        super().connection_lost(reason)

    @override
    def discard_input(self) -> bool:
        self.resume()
        return super().discard_input()

    @override
    def _ended(self, result: Outcome | None, error: BaseException | None) -> None:
        self.request.urgent_received = None
        super()._ended(result, error)

    # Reading

    def _read(self) -> Exception | None:
        """C{doRead} of the transport, which does not read across the mark."""
        below = self._below
        assert below is not None
        if not self.is_lendable:  # it is TLS by now, where an urgent byte is no part of the stream
            below.socket.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 0)
            self._stop_reading_marks()
            return below.doRead()
        sock = below.socket
        try:
            # Whether it is urgent is known from when it has come, and so is to be asked then.
            is_urgent = bool(sock.recv(1, socket.MSG_PEEK)) and _is_at_mark(sock)
            if is_urgent and not self._has_begun and self.is_writable():
                self.pause()  # it stays where it is until there is a handler
                return None
            data = sock.recv(1) if is_urgent else b""
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if is_urgent:
            self.urgent_arrived(data)
            return None
        why = type(below).doRead(below)
        if self._reader.buffered_bytes > READ_AHEAD_BYTES:
            self._stop_reading_ahead()
        return why

    def urgent_arrived(self, data: bytes) -> None:
        """An urgent byte has come, after all that the reader has been fed."""
        self._reader.set_mark()
        self._stop_reading_ahead()
        task, received = self._task, self.request.urgent_received
        if task is None or received is None:
            return
        try:
            received(data)
        except BaseException as error:
            if task.has_ended:
                log_raised(_log, "urgent_received raised, when its handler had finished")
            else:
                task.cancel(error)

    def _stop_reading_marks(self) -> None:
        """Have the transport read by itself again."""
        if self._reading is not _Reading.UNMARKED:
            self._reading = _Reading.UNMARKED
            del self._below.doRead  # type: ignore[union-attr]

    # While the reader is full

    @override
    def resumeProducing(self) -> None:
        if self._reading is _Reading.AHEAD:
            self._reading = _Reading.ASKED_FOR
        super().resumeProducing()

    @override
    def waits_for_urgent(self) -> bool:
        reads_marks = self._reading is not _Reading.UNMARKED
        return reads_marks and self._reader.buffered_bytes <= READ_AHEAD_BYTES

    @override
    def _hung_up(self) -> None:
        below = self._below
        if below is not None and self._must_read_ahead(below.socket):
            self._reading = _Reading.AHEAD
            self.transport.resumeProducing()
        super()._hung_up()

    def _must_read_ahead(self, sock: socket.socket) -> bool:
        """Whether an urgent byte has come behind more than the reader asks for."""
        return self.waits_for_urgent() and self._reader.is_full() and _has_urgent_byte(sock)

    def _stop_reading_ahead(self) -> None:
        """Read no more than is asked for from now on."""
        if self._reading is _Reading.AHEAD:
            self._reading = _Reading.ASKED_FOR
            if self._reader.is_full():
                self.pauseProducing()


def make_and_run_urgent(
    make: Callable[..., Any], request: object, client_address: object, server: object
) -> Awaitable[None]:
    """L{make_and_run_coroutine} for handlers that take urgent data. (reactor thread)"""
    handler = make(request, client_address, server)
    if isinstance(request, UrgentConnection):
        request.urgent_received = handler.urgent_received
    return run_handler_coroutine(handler, request)
