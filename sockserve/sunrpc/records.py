"""
Records: messages on a stream, which come in fragments (RFC 5531, section 11).

This room owns the marks before fragments, and the bounds of a record.  It must not know what is in
one, nor where the bytes come from.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from sockserve.interfaces import PeerError

__all__ = [
    "LONGEST_FRAGMENT",
    "MARK_BYTES",
    "MAX_FRAGMENTS",
    "Record",
    "RecordTooLong",
    "fragments",
]

_MARK = struct.Struct(">I")
MARK_BYTES = _MARK.size
_LAST = 1 << 31

#: The most fragments of a record.  libtirpc fills each, so of the least size it takes (100 bytes)
#: this is 1.6 MB; a client that sends empty ones for ever is ended.
MAX_FRAGMENTS = 16_384

#: The longest fragment that is sent: what 31 bits can say.
LONGEST_FRAGMENT = _LAST - 1


class RecordTooLong(PeerError):
    """The error of a record, or of a number of fragments, that is more than is allowed."""


class Record:
    """
    A record while it comes.

    @ivar is_whole: whether its last fragment has been added.
    """

    def __init__(self, most: int) -> None:
        """
        @param most: how many bytes it may have.
        """
        self._most = most
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_last = False
        self.is_whole = False

    def has_begun(self) -> bool:
        """Whether a fragment has come."""
        return bool(self._pieces)

    def begin_fragment(self, mark: bytes) -> int:
        """
        Begin the fragment behind C{mark}.

        @return: how many bytes it has; they are L{add}'s next.
        @raise RecordTooLong: the record would have too many with them.
        """
        (word,) = _MARK.unpack(mark)
        size: int = word & ~_LAST
        self._is_last = word >= _LAST
        self._size += size
        if self._size > self._most:
            raise RecordTooLong(f"a record of more than {self._most} bytes, max_record_bytes")
        if len(self._pieces) >= MAX_FRAGMENTS:
            raise RecordTooLong(f"a record of more than {MAX_FRAGMENTS} fragments")
        return size

    def add(self, data: bytes) -> None:
        """Add a fragment."""
        self._pieces.append(data)
        self.is_whole = self._is_last

    def data(self) -> bytes:
        """All bytes of it."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)


def fragments(data: bytes, longest: int = LONGEST_FRAGMENT) -> Iterator[bytes]:
    """
    The pieces that are sent for the record C{data}: almost always one.

    @param longest: how many bytes a fragment may have.
    """
    while len(data) > longest:
        yield _MARK.pack(longest)
        yield data[:longest]
        data = data[longest:]
    yield _MARK.pack(_LAST | len(data)) + data
