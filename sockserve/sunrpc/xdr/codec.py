"""
Codecs: what packs and unpacks the values of one type, whatever they are or come from.

This room owns how failures are told: as a L{DecodeError} or L{EncodeError}, and no other way.  It
must not know how types are written down but by L{type_of}.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

from sockserve.sunrpc.xdr.declaring import type_of
from sockserve.sunrpc.xdr.errors import DecodeError, EncodeError, XDRError
from sockserve.sunrpc.xdr.packing import make_pack
from sockserve.sunrpc.xdr.types import XDRType
from sockserve.sunrpc.xdr.unpacking import make_unpack

__all__ = ["Codec", "pack", "unpack"]

#: What Python raises where a value is not of its type.
_NOT_OF_TYPE = (
    struct.error,
    AttributeError,
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)

#: What a function that unpacks raises besides L{DecodeError}.
_NOT_ONE = (struct.error, KeyError, RecursionError)


class Codec:
    """What packs and unpacks the values of one type."""

    def __init__(self, type: XDRType) -> None:
        self._label = type.label
        self._pack = make_pack(type)
        self._unpack = make_unpack(type)

    def pack(self, value: object) -> bytes:
        """
        The bytes of C{value}.

        @raise EncodeError: it is not of the type.
        """
        pieces: list[bytes] = []
        try:
            self._pack(value, pieces.append, 0)
            return b"".join(pieces)
        except XDRError:
            raise
        except _NOT_OF_TYPE as error:
            raise EncodeError(f"{self._label}: {_words(error)}") from error

    def unpack(self, data: bytes) -> Any:
        """
        The value that C{data} is.

        @raise DecodeError: it is none, or there is more.
        """
        try:
            value, end = self._unpack(data, 0, 0)
        except _NOT_ONE as error:
            raise self._explained(error) from None
        if end != len(data):
            raise DecodeError(f"{self._label}: {len(data) - end} bytes more than it has")
        return value

    def unpack_from(self, data: bytes, start: int) -> tuple[Any, int]:
        """
        The value that is in C{data} from C{start} on, and where it ends.

        @raise DecodeError: there is none.
        """
        try:
            return self._unpack(data, start, 0)
        except _NOT_ONE as error:
            raise self._explained(error) from None

    def _explained(self, error: Exception) -> DecodeError:
        if isinstance(error, struct.error):
            return DecodeError(f"{self._label}: the bytes end too early")
        if isinstance(error, KeyError):
            return DecodeError(f"{self._label}: {error} stands for no value")
        return DecodeError(f"{self._label}: it is nested too deep")


def _words(error: BaseException) -> str:
    return f"no value for {error}" if isinstance(error, KeyError) else " ".join(str(error).split())


@lru_cache(maxsize=1024)
def _codec(annotation: object) -> Codec:
    return Codec(type_of(annotation))


def pack(type: Any, value: object) -> bytes:
    """
    The bytes of a value.

    @param type: as an annotation: a structure, C{list[Int]}, C{Annotated[str, Max(80)]} ...
    @raise EncodeError: the value is not of the type.
    @raise ConfigurationError: C{type} means none of XDR's.
    """
    return _codec(type).pack(value)


def unpack(type: Any, data: bytes | bytearray | memoryview) -> Any:
    """
    The value that C{data} is.

    @param type: as L{pack}'s.
    @raise DecodeError: it is none of that type, or there is more.
    @raise ConfigurationError: C{type} means none of XDR's.
    """
    return _codec(type).unpack(data if data.__class__ is bytes else bytes(data))
