"""
Spools: a request's bytes while they gather, and the C{rfile} they become.

This room owns where the bytes are (memory, then a temporary file) and what reading them is
like for each kind of handler.  It must not know connections.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from typing import Any

from typing_extensions import override

__all__ = ["Spool", "StockInput", "StockSwitchingFile", "SwitchingFile", "stock_file"]

#: What is larger than this waits in a temporary file.  512 KiB: waitress'
#: C{inbuf_overflow}.
SPOOL_BYTES = 512 * 1024

#: What C{http.server} asks of C{readline} where a request line or a header field is due
#: (C{_MAXLINE} + 1).
_HEAD_LINE_BYTES = 65537


class StockInput:
    """
    The C{rfile} of one of C{http.server}'s handlers: one request, from its first byte to
    its last.  Runs on the handler's thread.

    @ivar wants_next: whether the handler has looked for another request.
    @ivar head: its first bytes, if they are its head and can be passed over by C{seek}.
    """

    readline: Any
    head = b""
    wants_next = False
    _socket: Any = None
    _answered = False

    def head_is_read(self) -> None:
        """
        The handler has read the head, by C{readline} in C until now: what it looks for in the
        same way at the end of the body is another request.
        """
        self.readline = self._readline_or_next

    def answered(self) -> None:
        """
        The handler has begun to answer: it may look for another request from now on, wherever
        it is.  (C{http.client.parse_headers}, which reads the head of a part of the body in
        the same way, comes before.)
        """
        if not self._answered:
            self._answered = True
            self.wants_next = False
            self.head_is_read()

    def _readline_or_next(self, size: int | None = -1) -> bytes:
        """A line; where another request would begin, end of file."""
        if self._answered and size == _HEAD_LINE_BYTES:
            self.wants_next = True
            return b""
        line: bytes = super().readline(size)  # type: ignore[misc]
        self.wants_next |= not line and size == _HEAD_LINE_BYTES
        return line

    def hold_open(self, sock: Any) -> None:
        """Keep C{sock} open as long as this is, as what C{socket.makefile} makes does."""
        if self._socket is None:
            sock._io_refs += 1
            self._socket = sock

    def close(self) -> None:
        """Also let go of the socket."""
        sock, self._socket = self._socket, None
        self.__dict__.pop("readline", None)  # a cycle, otherwise
        super().close()  # type: ignore[misc]
        if sock is not None:
            sock._decref_socketios()


class _StockBytes(StockInput, io.BytesIO):
    def peek(self, size: int = 0) -> bytes:
        """As C{io.BufferedReader}'s."""
        start = self.tell()
        return bytes(self.getbuffer()[start : start + max(size, io.DEFAULT_BUFFER_SIZE)])


class _StockFile(StockInput, io.BufferedReader):
    pass


def stock_file(head: bytes) -> Any:
    """What one of C{http.server}'s handlers reads of a request without a body."""
    file = _StockBytes(head)
    file.head = head
    return file


class Spool:
    """
    A request's bytes.  Runs on the reactor thread.

    @ivar size: how many there are.
    """

    def __init__(self) -> None:
        self.size = 0
        self._kept = bytearray()
        self._file: io.FileIO | None = None

    def write(self, piece: bytes) -> None:
        """Add some."""
        self.size += len(piece)
        if self._file is None and self.size > SPOOL_BYTES:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it outlives this call
            piece = bytes(self._kept) + piece
            self._kept.clear()
        if self._file is None:
            self._kept += piece
        else:
            view = memoryview(piece)
            while view:
                view = view[self._file.write(view) :]

    def open(self) -> Any:
        """All of it, as a file."""
        if self._file is None:
            return io.BytesIO(self._kept)
        self._file.seek(0)
        return io.BufferedReader(self._file)

    def open_for_stock(self, head: bytes) -> Any:
        """The same for one of C{http.server}'s handlers: the first bytes are C{head}."""
        file: Any
        if self._file is None:
            file = _StockBytes(self._kept)
        else:
            self._file.seek(0)
            file = _StockFile(self._file)
        file.head = head
        return file

    def close(self) -> None:
        """Nobody needs it any more."""
        self._kept.clear()
        if self._file is not None:
            self._file.close()


class SwitchingFile(io.RawIOBase):
    """
    A request after which another protocol may be spoken: its bytes, then end of file until
    there is something that follows, then that.  Runs on the handler's thread.

    @param data: the request's bytes, then what follows.
    @param follow: gives the bytes that were read too early and the file they belong to,
        once there is such a file.
    """

    def __init__(self, data: bytes, follow: Callable[[], tuple[bytes, Any] | None]) -> None:
        self._data = data
        self._follow: Callable[[], tuple[bytes, Any] | None] | None = follow
        self._file: Any = None

    @override
    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        """As C{io.RawIOBase}'s."""
        if not self._data and self._file is None:
            following = self._follow and self._follow()
            if following is None:
                return 0
            self._data, self._file = following
        if not self._data:
            count: int | None = self._file.readinto(buffer)
            return count
        size = min(len(buffer), len(self._data))
        buffer[:size] = self._data[:size]
        self._data = self._data[size:]
        return size

    @override
    def close(self) -> None:
        super().close()
        self._follow = None  # a cycle, otherwise
        if self._file is not None:
            self._file.close()


class StockSwitchingFile(StockInput, io.BufferedReader):
    """A L{SwitchingFile} for one of C{http.server}'s handlers."""

    @override
    def _readline_or_next(self, size: int | None = -1) -> bytes:
        line = io.BufferedReader.readline(self, size)
        self.wants_next |= not line and size == _HEAD_LINE_BYTES
        return line
