"""
Unpacking: functions that make values from bytes, one for each type.

This room owns these functions' text.  Each is called with the bytes, the position in them and how
deep it is in others, and gives the value and the position behind it; nothing is made whose length
has not been compared with what is left, by C{struct} or before.  It must not know where the bytes
come from.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from typing_extensions import override

from sockserve.interfaces import ConfigurationError
from sockserve.sunrpc.xdr import types
from sockserve.sunrpc.xdr.errors import DecodeError
from sockserve.sunrpc.xdr.quad import Quad
from sockserve.sunrpc.xdr.source import (
    Run,
    Writer,
    fits_inline,
    following_field,
    is_fixed,
    is_inline,
)
from sockserve.sunrpc.xdr.types import XDRType

__all__ = ["make_unpack", "make_unpack_from"]


# These are called while an error of C{struct}'s or of a look-up is handled, which says nothing.


def _check_count(count: int, most: int, size: int, left: int, label: str) -> None:
    if count > most:
        raise DecodeError(f"{label}: a length of {count} is more than {most}") from None
    if size > left:
        raise DecodeError(f"{label}: a length of {count} is more than there is") from None


def _too_much(count: int, label: str) -> NoReturn:
    if count < 0:
        raise DecodeError(f"{label}: the bytes end too early") from None
    raise DecodeError(f"{label}: {count} bytes more than it has") from None


def _explained(error: Exception, label: str) -> DecodeError:
    if isinstance(error, struct.error):
        return DecodeError(f"{label}: the bytes end too early")
    return DecodeError(f"{label}: {error} stands for no value")


#: What a function that unpacks raises besides L{DecodeError}.
_NOT_ONE = (struct.error, KeyError)


def make_unpack(type: XDRType) -> Callable[[bytes | bytearray | memoryview], Any]:
    """The function that unpacks a value of C{type}, alone; it raises L{DecodeError}."""
    return _compile(type)[1]


def make_unpack_from(type: XDRType) -> Callable[[bytes, int], tuple[Any, int]]:
    """
    The function that unpacks a value of C{type} among other bytes, from a position on, and gives
    where it ends; it raises L{DecodeError}.
    """
    function, label = _compile(type)[0], type.label

    def unpack_from(data: bytes, start: int) -> tuple[Any, int]:
        try:
            found: tuple[Any, int] = function(data, start, 0)
        except _NOT_ONE as error:
            raise _explained(error, label) from None
        return found

    return unpack_from


def _compile(type: XDRType) -> tuple[Callable[..., Any], Callable[..., Any]]:
    names = {
        "BOOLS": {0: False, 1: True},
        "NOT_ONE": _NOT_ONE,
        "Quad": Quad,
        "WrongSize": struct.error,
        "check_count": _check_count,
        "explained": _explained,
        "new": object.__new__,
        "too_much": _too_much,
    }
    return _UnpackWriter(names, DecodeError).compile(type)


class _UnpackWriter(Writer):
    """The text of the functions that unpack."""

    @override
    def write_function(self, name: str, type: XDRType) -> None:
        self.head(f"def {name}(data, pos, depth):")
        self.check_depth(type)
        self.line("end = len(data)")
        following = following_field(type)
        if following is not None:
            assert isinstance(type, types.StructType)
            self._write_list(type, following)
            return
        value = self.new_name()
        self._value(type, value, is_own=True)
        self.flush()
        self.line(f"return {value}, pos")

    @override
    def write_entry(self, function: str, type: XDRType) -> None:
        self.head("def entry(data):")
        value = self.new_name()
        if is_fixed(type) and type.least():
            self._write_fixed_entry(type, value)
            return
        self.line("if type(data) is not bytes: data = bytes(data)")
        with self.block("try:"):
            if following_field(type) is not None:
                self.line(f"{value}, pos = {function}(data, 0, 0)")
                self.line("end = len(data)")
            else:
                self.line("pos = depth = 0")
                self.line("end = len(data)")
                self._value(type, value, is_own=True)
                self.flush()
            self.line(f"if pos == end: return {value}")
        self.line(f"except NOT_ONE as error: raise explained(error, {type.label!r}) from None")
        self.line(f"too_much(end - pos, {type.label!r})")

    def _write_fixed_entry(self, type: XDRType, value: str) -> None:
        with self.block("try:"):
            self._value(type, value, is_own=True)
            run = self.take_run()
            assert run is not None
            unpack = self.layout(run, "unpack", lambda layout: layout.unpack)
            self._write_run(run, f"{unpack}(data)")
            self.line(f"return {value}")
        # C{struct} takes any bytes that lie side by side.
        self.line("except BufferError: return entry(bytes(data))")
        self.line(f"except WrongSize: too_much(len(bytes(data)) - {type.least()}, {type.label!r})")
        self.line(f"except KeyError as error: raise explained(error, {type.label!r}) from None")

    def _write_list(self, type: types.StructType, following: str) -> None:
        """A list, one element after the other: Python would not follow it far."""
        self.line("first = last = None")
        with self.block("while True:"):
            more = self.new_name()
            self._struct(type, "this", last=more)
            self.flush()
            self.line("if first is None: first = this")
            self.line(f"else: last.{following} = this")
            self.line("last = this")
            self.line(f"if not BOOLS[{more}]: return first, pos")

    @override
    def flush(self) -> None:
        run = self.take_run()
        if run is None:
            return
        if run.size is not None:
            self.layout(run, "unpack, size", lambda layout: (layout.unpack_from, layout.size))
            self.line(f"try: {', '.join(run.values)}, = unpack(data, pos)")
            self.line(f"except WrongSize: {run.check}; raise")
            self._write_after(run)
            self.line("pos += size")
        else:
            unpack = self.layout(run, "unpack", lambda layout: layout.unpack_from)
            self._write_run(run, f"{unpack}(data, pos)")
            self.line(f"pos += {run.layout().size}")

    def _write_run(self, run: Run, call: str) -> None:
        values = f"{', '.join(run.values)}, = " if run.values else ""
        self.line(f"{values}{call}")
        self._write_after(run)

    def _write_after(self, run: Run) -> None:
        for text in run.after:
            self.line(text)

    def _value(self, type: XDRType, to: str, is_own: bool = False) -> None:
        """
        Write what makes C{to} a value of C{type}.

        @param to: a name, or an attribute of one.
        @param is_own: whether it is in the function of this type.
        """
        if isinstance(type, types.Scalar):
            self.fixed(type.code, to)
        elif isinstance(type, types.BoolType):
            number = self.new_name()
            self.fixed("I", number)
            self.then(f"{to} = BOOLS[{number}]")
        elif isinstance(type, types.EnumType):
            members = self.constant({int(each): each for each in type.members})
            number = self.new_name()
            self.fixed("i", number)
            self.then(f"{to} = {members}[{number}]")
        elif isinstance(type, types.QuadType):
            high, low = self.new_name(), self.new_name()
            self.fixed("QQ", high, low)
            self.then(f"{to} = Quad({high} << 64 | {low})")
        elif isinstance(type, types.VoidType):
            self.then(f"{to} = None")
        elif isinstance(type, types.FixedOpaque):
            self.fixed(f"{type.size}s{-type.size % 4}x", to)
        elif isinstance(type, types.Opaque):
            self._opaque(type, to)
        elif isinstance(type, (types.FixedArray, types.Array)):
            self._array(type, to)
        elif isinstance(type, types.OptionalType):
            self._optional(type, to)
        elif isinstance(type, types.TupleType):
            names = self._each(type.elements)
            self.then(f"{to} = ({''.join(f'{name}, ' for name in names)})")
        elif not is_own and not is_inline(type):
            self.flush()
            self.line(f"{to}, pos = {self.function(type)}(data, pos, depth + 1)")
        elif isinstance(type, types.StructType):
            self._struct(type, to)
        else:
            assert isinstance(type, types.UnionType)
            self._union(type, to)

    def _each(self, elements: Iterable[XDRType]) -> list[str]:
        """Names of values of these types."""
        names = []
        for each in elements:
            names.append(self.new_name())
            self._value(each, names[-1])
        return names

    def _struct(self, type: types.StructType, to: str, last: str | None = None) -> None:
        """
        Write what makes C{to} a structure.

        @param last: a name for whether there is a value in the last field, which is None until it
            has one.
        """
        fields = type.fields if last is None else type.fields[:-1]
        if type.sets_fields_only():
            name = to if to.isidentifier() else self.new_name()
            # A tuple that is there already takes a fifth less time than a call that makes one.
            made = f"new(*{self.constant((type.cls,))})"
            self.line(f"{name} = {made}" if name == to else f"{to} = {name} = {made}")
            for each in fields:
                self._value(each.type, f"{name}.{each.name}")
            if last is not None:
                self.line(f"{name}.{type.fields[-1].name} = None")
                self.fixed("I", last)
            return
        names = self._each(each.type for each in fields)
        if last is not None:
            names.append("None")
            self.fixed("I", last)
        self.then(f"{to} = {self.constant(type.cls)}({', '.join(names)})")

    def _opaque(self, type: types.Opaque, to: str) -> None:
        count = self.new_name()
        self.fixed("I", count)
        self.flush()
        check = self._count_check(count, 1, type)
        if not isinstance(type, types.StringType):
            self.sized("{0}s{1}x", count, to, check)
            return
        text = self.new_name()
        self.sized("{0}s{1}x", count, text, check)
        # Without its arguments it takes half the time.
        self.then(f"try: {to} = {text}.decode()")
        self.then(f"except ValueError: {to} = {text}.decode('utf-8', 'surrogateescape')")

    def _count_check(self, count: str, least: int, type: types.Opaque | types.Array) -> str:
        """
        The statement that compares a count with what is allowed, and with what is left.

        @param least: how many bytes there are at least for each.
        """
        return f"check_count({count}, {type.most}, {count} * {least}, end - pos, {type.label!r})"

    def _array(self, type: types.FixedArray | types.Array, to: str) -> None:
        element = type.element
        if fits_inline(type):
            assert isinstance(type, types.FixedArray)
            names = self._each([element] * type.size)
            self.then(f"{to} = [{', '.join(names)}]")
            return
        count, least = self.new_name(), element.least()
        check = "pass"
        if isinstance(type, types.Array):
            if not least:
                raise ConfigurationError(
                    f"array of {element.label}: its elements take no bytes, so nothing bounds it"
                )
            self.fixed("I", count)
            self.flush()
            check = self._count_check(count, least, type)
            if not isinstance(element, types.Scalar):
                self.line(f"if {count} > {type.most} or {count} * {least} > end - pos: {check}")
        else:
            self.flush()
            self.line(f"{count} = {type.size}")
            missing = f"end - pos - {type.least()}"
            self.line(f"if {missing} < 0: too_much({missing}, {type.label!r})")
        if isinstance(element, types.Scalar):
            self.sized(f"{{0}}{element.code}", count, f"*{to}", check)
            return
        if is_fixed(element) and least:
            self._fixed_elements(element, count, to)
            return
        item = self.new_name()
        self.line(f"{to} = []")
        with self.block(f"for _ in range({count}):"):
            self._value(element, item)
            self.flush()
            self.line(f"{to}.append({item})")

    def _fixed_elements(self, element: XDRType, count: str, to: str) -> None:
        """Write what makes C{to} the list of so many elements of one size."""
        items, item, rows, row, stop = (self.new_name() for _ in range(5))
        self.line(f"{to} = {items} = []")
        self.line(f"{stop} = pos + {count} * {element.least()}")
        with self.block(f"for {row} in {rows}(data[pos:{stop}]):"):
            self._value(element, item)
            run = self.take_run()
            assert run is not None
            self.names[rows] = run.layout().iter_unpack
            self._write_run(run, row)
            self.line(f"{items}.append({item})")
        self.line(f"pos = {stop}")

    def _optional(self, type: types.OptionalType, to: str) -> None:
        flag = self.new_name()
        self.fixed("I", flag)
        self.flush()
        with self.block(f"if BOOLS[{flag}]:"):
            self._value(type.element, to)
            self.flush()
        self.line(f"else: {to} = None")

    def _union(self, type: types.UnionType, to: str) -> None:
        discriminant, value = self.new_name(), self.new_name()
        self._value(type.arms[0], discriminant)
        self.flush()
        for arm in self.arms(type, discriminant):
            self._value(arm, value)
        self.line(f"{to} = {self.constant(type.cls)}({discriminant}, {value})")
