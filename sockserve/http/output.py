"""
The output of a blocking handler while the reactor sends it.

This room owns where bytes are kept that a thread has sent and a client has not taken (memory,
then a temporary file, within what the server allows), and when the thread waits for that client.
It must not know requests or connections.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
import weakref
from collections.abc import Callable
from enum import Enum
from io import FileIO
from tempfile import TemporaryFile

__all__ = ["OutputQueue", "SpoolAllowance"]

#: How much is kept in memory for one client.  1 MiB: as much as a connection sends at once
#: (L{sockserve.streams.writer.TURN_BYTES}), so that a fast client is sent that for each time that
#: the reactor is woken.
MEMORY_BYTES = 1024 * 1024

#: L{OutputQueue}'s C{room_seconds} where nothing else is said.  A client that takes what it is
#: sent makes room in less; the thread of another can go on to other requests.
ROOM_SECONDS = 0.1

#: How much is written to the file at once, while the reactor may wait to take it.
_PIECE_BYTES = 64 * 1024

#: The part of its server's allowance that one response may take.
_SHARE = 16


class SpoolAllowance:
    """
    The bytes that a server may keep in temporary files, for clients that are slow to take their
    responses. (any thread)

    @ivar share: the most that one response may take of them.
    """

    def __init__(self, limit: int) -> None:
        self.share = limit // _SHARE
        self._left = limit
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Take C{size} bytes, if there are so many."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self._left += size


class _Reader(Enum):
    """The stand of the reactor with a queue."""

    #: It has taken all there was, and is to be woken when there is more.
    WAITS = "waits"
    #: It has been woken, or sends what it has taken: it will come for more by itself.
    COMES = "comes"
    #: It has come for the last time.
    GONE = "gone"


class OutputQueue:
    """
    What a blocking handler has sent, until the reactor takes it.

    A thread that has more to send than memory takes waits for its client for a moment.  Then the
    rest goes to a file, and the thread can finish, however slow the client is.  Only when that
    has no room either, the thread waits until the client has taken what is before it.
    """

    def __init__(
        self,
        pieces: list[bytes],
        allowance: SpoolAllowance,
        wake: Callable[[], object],
        room_seconds: float = ROOM_SECONDS,
    ) -> None:
        """
        @param pieces: what has been sent already.
        @param wake: called on the handler's thread when the reactor is to L{take} something.
        @param room_seconds: how long a thread waits for room in memory before it writes to a
            file.
        """
        self._allowance = allowance
        self._wake = wake
        self._room_seconds = room_seconds
        self._changed = threading.Condition(threading.Lock())
        # Under that lock
        self._reader = _Reader.WAITS
        self._pieces = pieces
        self._size = sum(map(len, pieces))
        self._file: FileIO | None = None
        self._file_size = 0

    def write(self, data: bytes, timeout: float | None) -> None:
        """
        Add C{data}, in order. (handler's thread)

        @param timeout: how many seconds to wait for room at most; None for ever.
        @raise BrokenPipeError: nothing is sent any more.
        @raise TimeoutError: there was no room in time.
        """
        rest = memoryview(data)
        while rest:
            with self._changed:
                size = self._keep(rest, timeout)
                wakes, self._reader = self._reader is _Reader.WAITS, _Reader.COMES
            if wakes:
                self._wake()
            rest = rest[size:]

    def take(self) -> list[bytes | memoryview]:
        """
        Take all there is.  If that is nothing, the reactor is woken for the next.

        @raise OSError: some cannot be had any more, so there is nothing left. (reactor thread)
        """
        with self._changed:
            return self._take(_Reader.COMES)

    def close(self) -> list[bytes | memoryview]:
        """
        L{take} for the last time: a thread that writes from now on is told so. (reactor thread)
        """
        with self._changed:
            return self._take(_Reader.GONE)

    def discard(self) -> None:
        """Drop all there is, for the last time likewise. (reactor thread)"""
        with self._changed:
            self._reader = _Reader.GONE
            self._pieces.clear()
            self._size = 0
            if self._file is not None:
                self._drop_file(self._file)
            self._changed.notify_all()

    # Inside, under the lock

    def _take(self, reader: _Reader) -> list[bytes | memoryview]:
        if self._reader is _Reader.GONE:
            return []
        taken: list[bytes | memoryview] = [*self._pieces]
        self._pieces.clear()
        self._size = 0
        self._reader = _Reader.GONE  # unless the file can be had, too
        try:
            if self._file is not None:
                taken.append(self._map(self._file))
            self._reader = _Reader.WAITS if not taken and reader is _Reader.COMES else reader
        finally:
            self._changed.notify_all()
        return taken

    def _map(self, file: FileIO) -> memoryview:
        """The bytes of the file, which gives its room back when nobody has them any more."""
        try:
            mapped = mmap.mmap(file.fileno(), self._file_size, access=mmap.ACCESS_READ)
        except BaseException:  # no descriptor for the copy it makes, or no memory
            self._drop_file(file)
            raise
        weakref.finalize(mapped, self._allowance.give_back, self._file_size).atexit = False
        self._file_size = 0
        self._drop_file(file)
        return memoryview(mapped)

    def _drop_file(self, file: FileIO) -> None:
        """Let go of the file, and of its room."""
        size, self._file_size = self._file_size, 0
        self._file = None
        self._allowance.give_back(size)
        with contextlib.suppress(OSError):  # it is closed even so
            file.close()

    def _keep(self, data: memoryview, timeout: float | None) -> int:
        """
        Keep as much of C{data} as there is room for, and wait until there is some.

        @return: how many bytes.
        """
        if not self._changed.wait_for(self._has_room, 0 if self._file else self._room_seconds):
            size = self._keep_in_file(data)
            if size:
                return size
            if not self._changed.wait_for(self._has_room, timeout):
                raise TimeoutError("timed out")
        if self._reader is _Reader.GONE:
            raise BrokenPipeError("the connection has ended")
        piece = bytes(data[: MEMORY_BYTES - self._size])
        self._pieces.append(piece)
        self._size += len(piece)
        return len(piece)

    def _has_room(self) -> bool:
        """Whether there is room in memory, or will never be any."""
        return (self._file is None and self._size < MEMORY_BYTES) or self._reader is _Reader.GONE

    def _keep_in_file(self, data: memoryview) -> int:
        allowance = self._allowance
        wanted = min(len(data), allowance.share - self._file_size, _PIECE_BYTES)
        if wanted <= 0 or not allowance.take(wanted):
            return 0
        size = 0
        try:
            if self._file is None:
                self._file = TemporaryFile(buffering=0)  # noqa: SIM115 -- kept
            size = self._file.write(data[:wanted])
        except OSError:  # no descriptor, or no room on the disk: the client is waited for
            pass
        finally:
            allowance.give_back(wanted - size)
            self._file_size += size
            if self._file is not None and not self._file_size:
                self._drop_file(self._file)
        return size
