"""
Unpacking: functions that make values from bytes, one for each type.

This room owns these functions' text.  Each is called with the bytes, the position in them and how
deep it is in others, and gives the value and the position behind it; nothing is made whose length
has not been compared with what is left.  It must not know where the bytes come from.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import starmap
from typing import Any, NoReturn

from typing_extensions import override

from sockserve.interfaces import ConfigurationError
from sockserve.sunrpc.xdr.errors import MAX_DEPTH, DecodeError
from sockserve.sunrpc.xdr.quad import Quad
from sockserve.sunrpc.xdr.source import Writer, following_field, is_inline, sized
from sockserve.sunrpc.xdr.types import (
    Array,
    BoolType,
    EnumType,
    FixedArray,
    FixedOpaque,
    Opaque,
    OptionalType,
    QuadType,
    Scalar,
    StringType,
    StructType,
    UnionType,
    VoidType,
    XDRType,
    is_recursive,
)

__all__ = ["make_unpack"]


def _too_many(count: int, most: int, label: str) -> NoReturn:
    if count > most:
        raise DecodeError(f"{label}: a length of {count} is more than {most}")
    raise DecodeError(f"{label}: a length of {count} is more than there is")


def _too_much(count: int, label: str) -> NoReturn:
    if count < 0:
        raise DecodeError(f"{label}: the bytes end too early")
    raise DecodeError(f"{label}: {count} bytes more than it has")


def _explained(error: Exception, label: str) -> DecodeError:
    if isinstance(error, struct.error):
        return DecodeError(f"{label}: the bytes end too early")
    return DecodeError(f"{label}: {error} stands for no value")


def _unpack_from(layout: struct.Struct) -> Callable[[bytes, int], tuple[Any, ...]]:
    return layout.unpack_from


def _more(count: str, most: int) -> str:
    """The question whether C{count} is more than allowed, if 32 bits can say so much."""
    return f"{count} > {most} or " if most < 2**32 - 1 else ""


def _has_numbers_only(type: StructType) -> bool:
    return bool(type.fields) and all(isinstance(each.type, Scalar) for each in type.fields)


#: What a function that unpacks raises besides L{DecodeError}.
_NOT_ONE = (struct.error, KeyError)


def _too_deep() -> NoReturn:
    raise DecodeError(f"values are nested more than {MAX_DEPTH} deep")


def make_unpack(
    type: XDRType,
) -> tuple[Callable[[bytes, int], tuple[Any, int]], Callable[[bytes], Any]]:
    """
    The function that unpacks a value of C{type} among others, from a position on, and gives where
    it ends; and the one for a value that is all of the bytes.  Both raise L{DecodeError}.
    """
    function, entry = _UnpackWriter(
        {
            "BOOLS": {0: False, 1: True},
            "MAX_DEPTH": MAX_DEPTH,
            "Quad": Quad,
            "too_deep": _too_deep,
            "explained": _explained,
            "NOT_ONE": _NOT_ONE,
            "starmap": starmap,
            "too_many": _too_many,
            "too_much": _too_much,
        }
    ).compile(type)
    label = type.label

    def unpack_from(data: bytes, start: int) -> tuple[Any, int]:
        try:
            found: tuple[Any, int] = function(data, start, 0)
        except _NOT_ONE as error:
            raise _explained(error, label) from None
        if found[1] > len(data):
            raise DecodeError(f"{label}: the bytes end too early")
        return found

    return unpack_from, entry


class _UnpackWriter(Writer):
    """The text of the functions that unpack."""

    @override
    def write_function(self, name: str, type: XDRType) -> None:
        self.head(f"def {name}(data, pos, depth):")
        if is_recursive(type):
            self.line("if depth > MAX_DEPTH: too_deep()")
        self.line("end = len(data)")
        following = following_field(type)
        if following is not None:
            assert isinstance(type, StructType)
            self._write_list(type, following)
            return
        value = self.new_name()
        self._value(type, value, is_own=True)
        self._flush()
        self.line(f"return {value}, pos")

    @override
    def write_entry(self, function: str, type: XDRType) -> None:
        self.head("def entry(data):")
        with self.block("try:"):
            value = self.new_name()
            if following_field(type) is not None:
                self.line(f"{value}, pos = {function}(data, 0, 0)")
                self.line("end = len(data)")
            else:
                self.line("pos = depth = 0")
                self.line("end = len(data)")
                self._value(type, value, is_own=True)
                self._flush()
            self.line(f"if pos == end: return {value}")
        self.line(f"except NOT_ONE as error: raise explained(error, {type.label!r}) from None")
        self.line(f"too_much(end - pos, {type.label!r})")

    def _write_list(self, type: StructType, following: str) -> None:
        """A list, one element after the other: Python would not follow it far."""
        self.line("first = last = None")
        with self.block("while True:"):
            values = self._fields(type, type.fields[:-1])
            more = self.new_name()
            self.fixed("I", more)
            self._flush()
            element = self._instance(type, [*values, "None"])
            self.line(f"this = {element}")
            self.line("if first is None: first = this")
            self.line(f"else: last.{following} = this")
            self.line("last = this")
            self.line(f"if not BOOLS[{more}]: return first, pos")

    def _flush(self) -> None:
        run = self.take_run()
        if run is None:
            return
        layout, values, after = run
        unpack = self.constant(layout.unpack_from)
        given = f"{', '.join(values)}, = " if values else ""
        self.line(f"{given}{unpack}(data, pos)")
        self.line(f"pos += {layout.size}")
        for text in after:
            self.line(text)

    def _value(self, type: XDRType, to: str, is_own: bool = False) -> None:
        """
        Write what makes C{to} a value of C{type}.

        @param is_own: whether it is in the function of this type.
        """
        if isinstance(type, Scalar):
            self.fixed(type.code, to)
        elif isinstance(type, BoolType):
            self.fixed("I", to)
            self.then(f"{to} = BOOLS[{to}]")
        elif isinstance(type, EnumType):
            members = self.constant({int(each): each for each in type.members})
            self.fixed("i", to)
            self.then(f"{to} = {members}[{to}]")
        elif isinstance(type, QuadType):
            low = self.new_name()
            self.fixed("QQ", to, low)
            self.then(f"{to} = Quad({to} << 64 | {low})")
        elif isinstance(type, VoidType):
            self.then(f"{to} = None")
        elif isinstance(type, FixedOpaque):
            self.fixed(f"{type.size}s{-type.size % 4}x", to)
        elif isinstance(type, Opaque):
            self._opaque(type, to)
        elif isinstance(type, (FixedArray, Array)):
            self._array(type, to)
        elif isinstance(type, OptionalType):
            self._optional(type, to)
        elif not is_own and not is_inline(type):
            self._flush()
            self.line(f"{to}, pos = {self.function(type)}(data, pos, depth + 1)")
        elif isinstance(type, StructType):
            self.then(f"{to} = {self._instance(type, self._fields(type, type.fields))}")
        else:
            assert isinstance(type, UnionType)
            self._union(type, to)

    def _fields(self, type: StructType, fields: Any) -> list[str]:
        names = []
        for field in fields:
            names.append(self.new_name())
            self._value(field.type, names[-1])
        return names

    def _instance(self, type: StructType | UnionType, values: list[str]) -> str:
        return f"{self.constant(type.cls)}({', '.join(values)})"

    def _opaque(self, type: Opaque, to: str) -> None:
        count = self.new_name()
        self.fixed("I", count)
        self._flush()
        self.line(
            f"if {_more(count, type.most)}{count} > end - pos:"
            f" too_many({count}, {type.most}, {type.label!r})"
        )
        found = f"data[pos:pos + {count}]"
        if isinstance(type, StringType):
            # Without its arguments it takes half the time.
            self.line(f"try: {to} = {found}.decode()")
            self.line(f"except ValueError: {to} = {found}.decode('utf-8', 'surrogateescape')")
        else:
            self.line(f"{to} = {found}")
        self.line(f"pos += {count} + (-{count} & 3)")
        # What fills the last four bytes up may be missing; that is looked at in the end.

    def _array(self, type: FixedArray | Array, to: str) -> None:
        element = type.element
        if self.fits_inline(type):
            assert isinstance(type, FixedArray)
            names = [self.new_name() for _ in range(type.size)]
            for name in names:
                self._value(element, name)
            self.then(f"{to} = [{', '.join(names)}]")
            return
        count = self.new_name()
        if isinstance(type, Array):
            most = type.most
            if not element.least():
                raise ConfigurationError(
                    f"array of {element.label}: its elements take no bytes, so nothing bounds it"
                )
            self.fixed("I", count)
            self._flush()
        else:
            most = type.size
            self._flush()
            self.line(f"{count} = {most}")
        self.line(
            f"if {_more(count, most)}{count} * {element.least()} > end - pos:"
            f" too_many({count}, {most}, {type.label!r})"
        )
        if isinstance(element, Scalar):
            unpack = self.constant(sized(_unpack_from, element.code))
            self.line(f"{to} = list({unpack}({count})(data, pos))")
            self.line(f"pos += {count} * {element.size}")
            return
        if isinstance(element, StructType) and _has_numbers_only(element):
            codes = [each.type.code for each in element.fields if isinstance(each.type, Scalar)]
            layout = struct.Struct(">" + "".join(codes))
            each, cls = self.constant(layout.iter_unpack), self.constant(element.cls)
            stop = f"pos + {count} * {layout.size}"
            self.line(f"{to} = list(starmap({cls}, {each}(data[pos:{stop}])))")
            self.line(f"pos = {stop}")
            return
        item = self.new_name()
        self.line(f"{to} = []")
        with self.block(f"for _ in range({count}):"):
            self._value(element, item)
            self._flush()
            self.line(f"{to}.append({item})")

    def _optional(self, type: OptionalType, to: str) -> None:
        flag = self.new_name()
        self.fixed("I", flag)
        self._flush()
        with self.block(f"if BOOLS[{flag}]:"):
            self._value(type.element, to)
            self._flush()
        self.line(f"else: {to} = None")

    def _union(self, type: UnionType, to: str) -> None:
        kind, arms, default = type.arms
        discriminant, value = self.new_name(), self.new_name()
        self._value(kind, discriminant)
        self._flush()
        word = "if"
        for arm in dict.fromkeys(arms.values()):
            numbers = [number for number, each in arms.items() if each is arm]
            among = f"== {numbers[0]}" if len(numbers) == 1 else f"in {self.constant(set(numbers))}"
            with self.block(f"{word} {discriminant} {among}:"):
                self._value(arm.type, value)
                self._flush()
            word = "elif"
        with self.block("else:" if arms else "if True:"):
            if default is None:
                self.line(f"raise KeyError({discriminant})")
            else:
                self._value(default.type, value)
                self._flush()
        self.line(f"{to} = {self._instance(type, [discriminant, value])}")
