"""
Spools: the bytes of a buffered request, and the C{rfile} made of them.

This room owns where the bytes are kept (memory, then a temporary file), and how each kind of
handler reads them.  It must not know connections.
"""

from __future__ import annotations

import io
import socket
import sys
import tempfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from sockserve.core.logs import Topic, logger
from sockserve.http.h1.framing import RemoteProtocolError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Spool", "StockInput", "StockSwitchingFile", "SwitchingFile", "stock_file"]

#: The largest request that is kept in memory; a larger one goes to a temporary file.
#: 512 KiB: waitress' C{inbuf_overflow}.
SPOOL_BYTES = 512 * 1024

#: The size that C{http.server} passes to C{readline} where a request line or a header field is
#: due (C{_MAXLINE} + 1).
_HEAD_LINE_BYTES = 65537

#: The code of C{http.server}'s loop that reads a request's first line.
_LOOP = BaseHTTPRequestHandler.handle_one_request.__code__


_log = logger(Topic.HTTP)


class StockInput:
    """
    The C{rfile} of one of C{http.server}'s handlers: one request, from its first byte to
    its last. (handler's thread)

    @ivar wants_next: whether the handler has looked for another request.
    @ivar has_answered: whether it has begun to answer.
    @ivar head: the request's head, if C{seek} can skip it; else empty.
    """

    #: As of the file that C{socket.makefile} makes.
    mode = "rb"
    head = b""
    wants_next = False
    has_answered = False
    #: A socket that is held open, or None.
    _socket: Any = None
    #: The file of the connection itself, once it is asked for.
    _raw: socket.SocketIO | None = None

    def answered(self) -> None:
        """
        The handler has begun to answer: from now on a read as of a request's first line looks for
        another request, wherever in the body it is.  (C{http.client.parse_headers}, by which a
        handler may read the head of a part of the body in the same way, comes before.)
        """
        if not self.has_answered:
            self.has_answered = True
            self.wants_next = False

    def readline(self, size: int | None = -1) -> bytes:
        """Read a line; where another request would begin, give end of file."""
        if self.has_answered and size == _HEAD_LINE_BYTES:
            self.wants_next = True
            return b""
        line: bytes = super().readline(size)  # type: ignore[misc]
        self.wants_next |= not line and size == _HEAD_LINE_BYTES
        return line

    def hold_open(self, sock: Any) -> None:
        """Keep C{sock} open as long as this file is, as those of C{socket.makefile} do."""
        if self._socket is None:
            sock._io_refs += 1
            self._socket = sock

    def fileno(self) -> int:
        """
        The connection's descriptor, which is the handler's from now on.

        @raise ValueError: the file is closed.
        @raise OSError: it is not one of a connection.
        """
        return self.raw.fileno()

    @property
    def name(self) -> int:
        """The connection's descriptor."""
        return self.fileno()

    @property
    def raw(self) -> socket.SocketIO:
        """The file of the connection itself: what follows the request."""
        if self.closed:  # type: ignore[attr-defined]
            raise ValueError("I/O operation on closed file.")
        if self._socket is None:
            raise io.UnsupportedOperation("fileno")
        if self._raw is None:
            self._raw = socket.socket.makefile(self._socket, "rb", buffering=0)
        return self._raw

    def detach(self) -> socket.SocketIO:
        """Give L{raw} away, for the caller to close."""
        raw, self._raw = self.raw, None
        return raw

    def seekable(self) -> bool:
        """No, as a connection is not.  (C{seek} is for the reader of heads.)"""
        return False

    def writable(self) -> bool:
        """No, as it is for reading."""
        return False

    def write(self, data: ReadableBuffer) -> int:
        """Refuse, as it is for reading."""
        raise io.UnsupportedOperation("write")

    def close(self) -> None:
        """Close the file, and let go of the socket."""
        sock, self._socket = self._socket, None
        if self._raw is not None:
            self._raw.close()
        super().close()  # type: ignore[misc]
        if sock is not None:
            sock._decref_socketios()


class _StockBytes(StockInput, io.BytesIO):
    """The C{rfile} of a request in memory, for one of C{http.server}'s handlers."""

    def peek(self, size: int = 0) -> bytes:
        """Give bytes without reading them, as C{io.BufferedReader} does."""
        start = self.tell()
        return bytes(self.getbuffer()[start : start + max(size, io.DEFAULT_BUFFER_SIZE)])


class _StockFile(StockInput, io.BufferedReader):  # type: ignore[misc]  # its raw is an attribute
    """The C{rfile} of a request in a temporary file, for one of C{http.server}'s handlers."""


def stock_file(head: bytes) -> StockInput:
    """Make the C{rfile} of a request without a body, for one of C{http.server}'s handlers."""
    file = _StockBytes(head)
    file.head = head
    return file


class Spool:
    """
    The bytes of one request, as they arrive. (reactor thread)

    @ivar size: how many they are.
    """

    def __init__(self) -> None:
        self.size = 0
        self._kept = bytearray()
        self._file: io.FileIO | None = None

    def write(self, piece: bytes) -> None:
        """
        Add C{piece}.

        @raise RemoteProtocolError: there is no room for it.
        """
        try:
            self._write(piece)
        except OSError as error:  # no descriptor, or no room on the disk
            _log.error("a request's body cannot be kept: {error}", error=error)
            raise RemoteProtocolError(503, "the server has no room for it") from None

    def _write(self, piece: bytes) -> None:
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

    def open(self) -> io.BytesIO | io.BufferedReader:
        """Make a file of all bytes, from the first."""
        if self._file is None:
            return io.BytesIO(self._kept)
        self._file.seek(0)
        return io.BufferedReader(self._file)

    def open_for_stock(self, head: bytes) -> StockInput:
        """The same for one of C{http.server}'s handlers, whose request begins with C{head}."""
        file: StockInput
        if self._file is None:
            file = _StockBytes(self._kept)
        else:
            self._file.seek(0)
            file = _StockFile(self._file)
        file.head = head
        return file

    def close(self) -> None:
        """Drop the bytes, which are needed no more."""
        self._kept.clear()
        if self._file is not None:
            self._file.close()


class SwitchingFile(io.RawIOBase):
    """
    A file of a request after which another protocol may be spoken: first the request's
    bytes; then end of file, until the connection itself can be read; then its bytes.

    (handler's thread)
    """

    def __init__(self, data: bytes, follow: Callable[[], tuple[bytes, Any] | None]) -> None:
        """
        @param data: the request's bytes.
        @param follow: called at their end; gives None, or the first bytes that follow and
            the file that the others come from.
        """
        self._data = data
        self._follow: Callable[[], tuple[bytes, Any] | None] | None = follow
        self._file: Any = None

    @override
    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read into C{buffer}, as C{io.RawIOBase} does."""
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


class StockSwitchingFile(StockInput, io.BufferedReader):  # type: ignore[misc]  # likewise
    """
    A L{SwitchingFile} for one of C{http.server}'s handlers.

    What follows the request is for the handler's own methods, however they read it.  The loop
    that they are called from finds no further request there: it would hold the thread for as
    long as the client likes.
    """

    def __init__(self, raw: SwitchingFile) -> None:
        super().__init__(raw)
        self._has_request_line = False

    @override
    def readline(self, size: int | None = -1) -> bytes:
        if size == _HEAD_LINE_BYTES and sys._getframe(1).f_code is _LOOP:
            if self._has_request_line:
                self.wants_next = True
                return b""
            self._has_request_line = True
        line = io.BufferedReader.readline(self, size)
        self.wants_next |= not line and size == _HEAD_LINE_BYTES
        return line
