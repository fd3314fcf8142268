"""
Programs: numbers, versions and procedures, with the types of what each takes and gives.

This room owns what a program is, as a file in RPC's language or a handler's methods say it.  It
must not know how calls come, nor what serves them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from sockserve.interfaces import ConfigurationError
from sockserve.sunrpc.xdr.codec import Codec
from sockserve.sunrpc.xdr.types import Field, StructType, XDRType

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


def _arguments(*values: Any) -> tuple[Any, ...]:
    """The arguments of a call, as they are unpacked."""
    return values


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
    def arguments_codec(self) -> Codec:
        """What unpacks its arguments, as one tuple."""
        fields = [Field(f"argument_{n}", each) for n, each in enumerate(self.arguments)]
        type = StructType(_arguments, lambda: fields)  # type: ignore[arg-type]  # a callable will do
        type.label = f"arguments of {self.name}"
        return Codec(type)

    @cached_property
    def result_codec(self) -> Codec:
        """What packs its result."""
        return Codec(self.result)


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
