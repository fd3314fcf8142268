"""
The module C{xdrlib} that Python had until 3.12: C{Packer} and C{Unpacker}.

This room owns these two classes, with the names and errors that they had.  It must not know types:
new programs declare theirs, which is several times as fast.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from sockserve.interfaces import SockserveError

__all__ = ["ConversionError", "Error", "Packer", "Unpacker"]

_T = TypeVar("_T")

_INT, _UINT, _HALVES = struct.Struct(">l"), struct.Struct(">L"), struct.Struct(">LL")
_FLOAT, _DOUBLE = struct.Struct(">f"), struct.Struct(">d")
#: By the length modulo four: what fills up.
_PADS = (b"", bytes(3), bytes(2), bytes(1))


class Error(SockserveError):
    """
    The error of this module.

    @ivar msg: what is wrong.
    """

    def __init__(self, msg: object) -> None:
        super().__init__(msg)
        self.msg = msg

    def __repr__(self) -> str:
        return repr(self.msg)

    def __str__(self) -> str:
        return str(self.msg)


class ConversionError(Error):
    """The error of a value that cannot be packed."""


class Packer:
    """A packer of values, one after the other."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what was packed."""
        self._pieces: list[bytes] = []

    def get_buffer(self) -> bytes:
        """All that was packed."""
        joined = b"".join(self._pieces)
        self._pieces = [joined]
        return joined

    get_buf = get_buffer

    def _add(self, layout: struct.Struct, value: Any) -> None:
        try:
            self._pieces.append(layout.pack(value))
        except struct.error as error:
            raise ConversionError(error.args[0]) from None

    def pack_uint(self, x: int) -> None:
        """Pack an unsigned number of 32 bits."""
        self._add(_UINT, x)

    def pack_int(self, x: int) -> None:
        """Pack a number of 32 bits."""
        self._add(_INT, x)

    pack_enum = pack_int

    def pack_bool(self, x: object) -> None:
        """Pack a truth value."""
        self._pieces.append(b"\0\0\0\1" if x else b"\0\0\0\0")

    def pack_uhyper(self, x: int) -> None:
        """Pack a number of 64 bits."""
        try:
            self._pieces.append(_HALVES.pack(x >> 32 & 0xFFFFFFFF, x & 0xFFFFFFFF))
        except (TypeError, struct.error) as error:
            raise ConversionError(error.args[0]) from None

    pack_hyper = pack_uhyper

    def pack_float(self, x: float) -> None:
        """Pack a floating-point number of 32 bits."""
        self._add(_FLOAT, x)

    def pack_double(self, x: float) -> None:
        """Pack a floating-point number of 64 bits."""
        self._add(_DOUBLE, x)

    def pack_fstring(self, n: int, s: bytes) -> None:
        """Pack the first C{n} bytes of C{s}, filled up to a multiple of four."""
        if n < 0:
            raise ValueError("fstring size must be nonnegative")
        size = (n + 3) // 4 * 4
        self._pieces.append(bytes(s[:n]).ljust(size, b"\0") if len(s) < n else s[:n] + _PADS[n & 3])

    pack_fopaque = pack_fstring

    def pack_string(self, s: bytes) -> None:
        """Pack the length of C{s}, and C{s}."""
        n = len(s)
        self.pack_uint(n)
        self.pack_fstring(n, s)

    pack_opaque = pack_string
    pack_bytes = pack_string

    def pack_list(self, list: Iterable[_T], pack_item: Callable[[_T], object]) -> None:
        """Pack a list, with a 1 before each item and a 0 at the end."""
        for item in list:
            self.pack_uint(1)
            pack_item(item)
        self.pack_uint(0)

    def pack_farray(self, n: int, list: Any, pack_item: Callable[[Any], object]) -> None:
        """Pack an array of C{n} items."""
        if len(list) != n:
            raise ValueError("wrong array size")
        for item in list:
            pack_item(item)

    def pack_array(self, list: Any, pack_item: Callable[[Any], object]) -> None:
        """Pack the number of items, and these."""
        n = len(list)
        self.pack_uint(n)
        self.pack_farray(n, list, pack_item)


class Unpacker:
    """
    An unpacker of values, one after the other.  Where the bytes end too early, it raises
    C{EOFError}.
    """

    def __init__(self, data: bytes) -> None:
        self.reset(data)

    def reset(self, data: bytes) -> None:
        """Begin anew, with other bytes."""
        self._data = data
        self._position = 0

    def get_position(self) -> int:
        """How many bytes were unpacked."""
        return self._position

    def set_position(self, position: int) -> None:
        """Go on from there."""
        self._position = position

    def get_buffer(self) -> bytes:
        """All bytes, unpacked and not."""
        return self._data

    def done(self) -> None:
        """
        Check that nothing is left.

        @raise Error: something is.
        """
        if self._position < len(self._data):
            raise Error("unextracted data remains")

    def _take(self, layout: struct.Struct) -> Any:
        start = self._position
        data = self._data[start : start + layout.size]
        self._position = start + layout.size
        if len(data) < layout.size:
            raise EOFError
        return layout.unpack(data)[0]

    def unpack_uint(self) -> int:
        """Unpack an unsigned number of 32 bits."""
        found: int = self._take(_UINT)
        return found

    def unpack_int(self) -> int:
        """Unpack a number of 32 bits."""
        found: int = self._take(_INT)
        return found

    unpack_enum = unpack_int

    def unpack_bool(self) -> bool:
        """Unpack a truth value."""
        return bool(self.unpack_int())

    def unpack_uhyper(self) -> int:
        """Unpack an unsigned number of 64 bits."""
        high = self.unpack_uint()
        return high << 32 | self.unpack_uint()

    def unpack_hyper(self) -> int:
        """Unpack a number of 64 bits."""
        found = self.unpack_uhyper()
        return found - 2**64 if found >= 2**63 else found

    def unpack_float(self) -> float:
        """Unpack a floating-point number of 32 bits."""
        found: float = self._take(_FLOAT)
        return found

    def unpack_double(self) -> float:
        """Unpack a floating-point number of 64 bits."""
        found: float = self._take(_DOUBLE)
        return found

    def unpack_fstring(self, n: int) -> bytes:
        """Unpack C{n} bytes, and what fills them up to a multiple of four."""
        if n < 0:
            raise ValueError("fstring size must be nonnegative")
        start = self._position
        end = start + (n + 3) // 4 * 4
        if end > len(self._data):
            raise EOFError
        self._position = end
        return self._data[start : start + n]

    unpack_fopaque = unpack_fstring

    def unpack_string(self) -> bytes:
        """Unpack a length, and as many bytes."""
        return self.unpack_fstring(self.unpack_uint())

    unpack_opaque = unpack_string
    unpack_bytes = unpack_string

    def unpack_list(self, unpack_item: Callable[[], _T]) -> list[_T]:
        """Unpack a list, with a 1 before each item and a 0 at the end."""
        found = []
        while (more := self.unpack_uint()) != 0:
            if more != 1:
                raise ConversionError(f"0 or 1 expected, got {more!r}")
            found.append(unpack_item())
        return found

    def unpack_farray(self, n: int, unpack_item: Callable[[], _T]) -> list[_T]:
        """Unpack an array of C{n} items."""
        return [unpack_item() for _ in range(n)]

    def unpack_array(self, unpack_item: Callable[[], _T]) -> list[_T]:
        """Unpack the number of items, and these."""
        return self.unpack_farray(self.unpack_uint(), unpack_item)
