"""
Programs: numbers, versions and procedures, with the types of what each takes and gives.

This room owns what a program is, as a file in RPC's language or a handler's methods say it.  It
must not know how calls come, nor what serves them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from sockserve.interfaces import ConfigurationError
from sockserve.sunrpc.xdr.packing import make_pack
from sockserve.sunrpc.xdr.types import TupleType, XDRType
from sockserve.sunrpc.xdr.unpacking import make_unpack_from

__all__ = ["Procedure", "Program", "Version", "check_number"]


def check_number(what: str, number: object) -> int:
    """
    A number of a program, version or procedure.

    @raise ConfigurationError: it is not of 32 bits, unsigned.
    """
    if not isinstance(number, int) or isinstance(number, bool):
        raise ConfigurationError(f"{what}: {number!r} is not a number")
    if not 0 <= number < 2**32:
        raise ConfigurationError(f"{what}: {number} is out of range; 0 to 4294967295 are in it")
    return number


class Procedure:
    """
    A procedure.

    @ivar arguments: the types of what it takes.
    @ivar result: the type of what it gives.
    """

    def __init__(
        self, number: int, name: str, arguments: Sequence[XDRType], result: XDRType
    ) -> None:
        self.number = check_number(f"procedure {name}", number)
        self.name = name
        self.arguments = arguments
        self.result = result

    @cached_property
    def unpack_arguments(self) -> Callable[[bytes, int], tuple[tuple[Any, ...], int]]:
        """
        A function of a call's bytes and of the position where its arguments begin: gives them, and
        where they end.  It raises L{DecodeError <sockserve.sunrpc.xdr.errors.DecodeError>}.
        """
        return make_unpack_from(TupleType(f"arguments of {self.name}", self.arguments))

    @cached_property
    def pack_result(self) -> Callable[[Any], bytes]:
        """
        A function of what the procedure has given: gives its bytes.  It raises L{EncodeError
        <sockserve.sunrpc.xdr.errors.EncodeError>}.
        """
        return make_pack(self.result)


class Version:
    """
    A version of a program.

    @ivar procedures: by their numbers.
    """

    def __init__(self, number: int, name: str, procedures: Mapping[int, Procedure]) -> None:
        self.number = check_number(f"version {name}", number)
        self.name = name
        self.procedures = procedures


class Program:
    """
    A program: what clients find under one number.

    @ivar versions: by their numbers.
    """

    def __init__(self, number: int, name: str, versions: Mapping[int, Version]) -> None:
        self.number = check_number(f"program {name}", number)
        self.name = name
        self.versions = versions

    def __repr__(self) -> str:
        return f"<Program {self.name} = {self.number:#x}>"
