"""
Chunks: the reading of a request's body that comes in chunks (RFC 9112 section 7.1).

This room owns the grammar of chunks, their extensions and trailers, and how much of these a
peer may send beside the body.  It must not know where bytes come from.

httptools is not used here: it refuses white space that the grammar allows
(C{5 ;name=value}), and cannot be stopped where the message ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sockserve.http.h1.framing import RemoteProtocolError
from sockserve.http.h1.request_line import TOKEN
from sockserve.http.h1.sizes import MAX_HEADER_BYTES, MAX_HEADER_FIELDS

__all__ = ["ChunkReader"]

#: The longest line that begins a chunk.  Longer: 431.  4 KiB: Go's C{maxLineLength}
#: (net/http/internal/chunked.go).
MAX_CHUNK_LINE_BYTES = 4096

#: The most that chunked framing may add to a body: so many bytes, and so many more for each
#: chunk, and so many for each byte of it.  More: 431.  All three are Go's, against
#: CVE-2023-39326.
MAX_CHUNK_OVERHEAD_BYTES = 16384
CHUNK_OVERHEAD_BYTES = 16
CHUNK_OVERHEAD_RATIO = 2

#: A chunk's size: as many digits as Go and llhttp can count with.
_SIZE = rb"([0-9A-Fa-f]{1,16})"
# What is matched once is not tried in another way (*+, ?+): the time is linear.
_VALUE = rb'(?:%b|"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+")'
_EXTENSION = rb"[ \t]*+;[ \t]*+%b(?:[ \t]*+=[ \t]*+" + _VALUE + rb")?+"
_EXTENSION %= (TOKEN.pattern, TOKEN.pattern)
_SIZE_LINE = re.compile(_SIZE + rb"(?:" + _EXTENSION + rb")*+\r\n")
_TRAILER_LINE = re.compile(TOKEN.pattern + rb":[\t\x20-\x7e\x80-\xff]*+\r\n|\r\n")
#: The beginnings of such lines, so that one that can never be right is refused at once.
_SIZE_LINE_BEGUN = re.compile(_SIZE + rb"(?![^ \t;\r])")
_TRAILER_LINE_BEGUN = re.compile(rb"[^\0-\x0c\x0e-\x20:\x7f-\xff]")


class ChunkReader:
    """A reader of one request's body."""

    __slots__ = ("_overhead", "_read", "_remaining", "_trailer_bytes", "_trailers")

    def __init__(self) -> None:
        #: The method that reads the next bytes; None after the last.
        self._read: _Read | None = ChunkReader._read_size
        #: How many bytes of the chunk are to come.
        self._remaining = 0
        #: How many bytes there have been beside the body, less those that each chunk may add.
        self._overhead = 0
        #: How many trailers have been read, and how many bytes they are.
        self._trailers = 0
        self._trailer_bytes = 0

    @property
    def complete(self) -> bool:
        """Whether the last chunk and the trailers have been read."""
        return self._read is None

    def read(self, data: bytes | bytearray) -> tuple[bytes, int]:
        """
        Read what has arrived.

        @return: the part of the body that is in C{data}, and how many bytes of C{data} have
            been read.  Unless the body is complete, pass the others again, with more after
            them.
        @raise RemoteProtocolError: the framing is malformed.
        """
        body: _Pieces = []
        start = 0
        try:
            while self._read is not None and start < len(data):
                end = self._read(self, data, start, body)
                if end == start:
                    break
                start = end
        except RemoteProtocolError:
            if not body:  # else give that first; the next call fails in the same place
                raise
        return b"".join(body), start

    # The methods that read: each returns where the part that it has read ends.  That is
    # C{start} when the part has not all arrived.

    def _read_size(self, data: bytes | bytearray, start: int, body: _Pieces) -> int:
        end = data.find(b"\n", start) + 1
        size = (end or len(data)) - start
        if size > MAX_CHUNK_LINE_BYTES:
            raise RemoteProtocolError(431, "the extensions of a chunk are too long")
        found = (_SIZE_LINE if end else _SIZE_LINE_BEGUN).match(data, start)
        if found is None:
            raise RemoteProtocolError(400, "a chunk does not begin so")
        if not end:
            return start
        self._remaining = remaining = int(found[1], 16)
        overhead = self._overhead + size + 2
        overhead -= CHUNK_OVERHEAD_BYTES + CHUNK_OVERHEAD_RATIO * remaining
        if overhead > MAX_CHUNK_OVERHEAD_BYTES:
            raise RemoteProtocolError(431, "there is too much beside the body")
        self._overhead = max(overhead, 0)
        self._read = ChunkReader._read_data if remaining else ChunkReader._read_trailer
        return end

    def _read_data(self, data: bytes | bytearray, start: int, body: _Pieces) -> int:
        piece = data[start : start + self._remaining]
        body.append(piece)
        self._remaining -= len(piece)
        if not self._remaining:
            self._read = ChunkReader._read_end
        return start + len(piece)

    def _read_end(self, data: bytes | bytearray, start: int, body: _Pieces) -> int:
        ending = data[start : start + 2]
        if ending == b"\r\n":
            self._read = ChunkReader._read_size
            return start + 2
        if ending != b"\r":
            raise RemoteProtocolError(400, "a chunk is longer than it said")
        return start

    def _read_trailer(self, data: bytes | bytearray, start: int, body: _Pieces) -> int:
        """Read a trailer, which is dropped, or the empty line after the last."""
        end = data.find(b"\n", start) + 1
        size = (end or len(data)) - start
        if self._trailer_bytes + size > MAX_HEADER_BYTES:
            raise RemoteProtocolError(431, "the trailer section is too long")
        if not (_TRAILER_LINE if end else _TRAILER_LINE_BEGUN).match(data, start):
            raise RemoteProtocolError(400, "a trailer is malformed")
        if not end:
            return start
        if size == 2:
            self._read = None
            return end
        self._trailer_bytes += size
        self._trailers += 1
        if self._trailers > MAX_HEADER_FIELDS:
            raise RemoteProtocolError(431, "there are too many trailers")
        return end


_Pieces = list[bytes | bytearray]
_Read = Callable[[ChunkReader, bytes | bytearray, int, _Pieces], int]
