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

__all__ = ["Codec", "pack", "unpack"]

#: How many functions are kept.  1024: for more types than a program writes down; those of types
#: that it makes as it runs go.
MOST_FUNCTIONS = 1024

_packs = Kept[object, Callable[[object], bytes]](
    lambda annotation: make_pack(type_of(annotation)), MOST_FUNCTIONS
)
_unpacks = Kept[object, Callable[[bytes | bytearray | memoryview], Any]](
    lambda annotation: make_unpack(type_of(annotation)), MOST_FUNCTIONS
)


class Codec:
    """
    The functions C{pack} and C{unpack} of one type, for a program that calls them often: nothing is
    looked up then.

        >>> points = Codec(list[Point])
        >>> points.unpack(points.pack([Point(1, 2, "here")]))

    @ivar pack: the function that gives the bytes of a value; L{pack}.
    @ivar unpack: the function that gives the value that bytes are; L{unpack}.
    """

    __slots__ = ("pack", "unpack")

    def __init__(self, type: object) -> None:
        """
        @param type: as L{pack}'s.
        @raise ConfigurationError: C{type} means none of XDR's.
        """
        meant = type_of(type)
        self.pack = make_pack(meant)
        self.unpack = make_unpack(meant)


def pack(type: object, value: object) -> bytes:
    """
    The bytes of a value.

    @param type: as an annotation: a structure, C{list[Int]}, C{Annotated[str, Max(80)]} ...
    @raise EncodeError: the value is not of the type.
    @raise ConfigurationError: C{type} means none of XDR's.
    """
    try:
        function = _packs.values[type]
    except KeyError:
        function = None
    return (function or _packs.make(type))(value)


def unpack(type: object, data: bytes | bytearray | memoryview) -> Any:
    """
    The value that C{data} is.

    @param type: as L{pack}'s.
    @raise DecodeError: it is none of that type, or there is more.
    @raise ConfigurationError: C{type} means none of XDR's.
    """
    try:
        function = _unpacks.values[type]
    except KeyError:
        function = None
    return (function or _unpacks.make(type))(data)
