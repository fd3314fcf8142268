"""
The codec of values: C{pack} and C{unpack}, for any type that an annotation means.

This room owns the functions that have been made for annotations.  It must not know how types are
written down but by L{type_of}, nor how they are packed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sockserve.sunrpc.xdr.declaring import type_of
from sockserve.sunrpc.xdr.kept import Kept
from sockserve.sunrpc.xdr.packing import make_pack
from sockserve.sunrpc.xdr.unpacking import make_unpack

__all__ = ["pack", "unpack"]

#: How many functions are kept.  1024: for more types than a program writes down; those of types
#: that it makes as it runs go.
MOST_FUNCTIONS = 1024

_packs = Kept[object, Callable[[object], bytes]](
    lambda annotation: make_pack(type_of(annotation)), MOST_FUNCTIONS
)
_unpacks = Kept[object, Callable[[bytes], Any]](
    lambda annotation: make_unpack(type_of(annotation)), MOST_FUNCTIONS
)


def pack(type: object, value: object) -> bytes:
    """
    The bytes of a value.

    @param type: as an annotation: a structure, C{list[Int]}, C{Annotated[str, Max(80)]} ...
    @raise EncodeError: the value is not of the type.
    @raise ConfigurationError: C{type} means none of XDR's.
    """
    return _packs[type](value)


def unpack(type: object, data: bytes | bytearray | memoryview) -> Any:
    """
    The value that C{data} is.

    @param type: as L{pack}'s.
    @raise DecodeError: it is none of that type, or there is more.
    @raise ConfigurationError: C{type} means none of XDR's.
    """
    return _unpacks[type](data if data.__class__ is bytes else bytes(data))
