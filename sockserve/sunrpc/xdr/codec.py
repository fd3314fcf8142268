"""
Codecs: the functions that pack and unpack the values of one type.

This room owns how failures are told: as a L{DecodeError} or L{EncodeError}, and no other way.  It
must not know how types are written down but by L{type_of}.
"""

from __future__ import annotations

from typing import Any

from sockserve.sunrpc.xdr.declaring import type_of
from sockserve.sunrpc.xdr.kept import Kept
from sockserve.sunrpc.xdr.packing import make_pack
from sockserve.sunrpc.xdr.types import XDRType
from sockserve.sunrpc.xdr.unpacking import make_unpack

__all__ = ["Codec", "pack", "unpack"]


class Codec:
    """
    A codec of one type: the functions that pack and unpack its values.

    @ivar pack: gives the bytes of a value; raises L{EncodeError
        <sockserve.sunrpc.xdr.errors.EncodeError>} if it is not of the type.
    @ivar unpack: gives the value that bytes are; raises L{DecodeError
        <sockserve.sunrpc.xdr.errors.DecodeError>} if they are none, or more.
    @ivar unpack_from: gives the value that is in bytes from a position on, and where it ends.
    """

    __slots__ = ("pack", "unpack", "unpack_from")

    def __init__(self, type: XDRType) -> None:
        self.pack = make_pack(type)
        self.unpack_from, self.unpack = make_unpack(type)


#: By annotation.  1024: more than a program writes down; those that it makes as it runs go.
_codecs = Kept[object, Codec](lambda annotation: Codec(type_of(annotation)), 1024)


def pack(type: object, value: object) -> bytes:
    """
    The bytes of a value.

    @param type: as an annotation: a structure, C{list[Int]}, C{Annotated[str, Max(80)]} ...
    @raise EncodeError: the value is not of the type.
    @raise ConfigurationError: C{type} means none of XDR's.
    """
    return _codecs[type].pack(value)


def unpack(type: object, data: bytes | bytearray | memoryview) -> Any:
    """
    The value that C{data} is.

    @param type: as L{pack}'s.
    @raise DecodeError: it is none of that type, or there is more.
    @raise ConfigurationError: C{type} means none of XDR's.
    """
    return _codecs[type].unpack(data if data.__class__ is bytes else bytes(data))
