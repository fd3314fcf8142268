"""
Packing: functions that make bytes from values, one for each type.

This room owns these functions' text.  Each is called with the value, with what adds a piece of
bytes, and how deep it is in others.  It must not know where the bytes go.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NoReturn

from typing_extensions import override

from sockserve.sunrpc.xdr.errors import MAX_DEPTH, EncodeError, XDRError
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

__all__ = ["make_pack"]


def _wrong_length(count: int, most: int, label: str) -> NoReturn:
    raise EncodeError(f"{label}: a length of {count} where {most} is what its type allows")


def _too_deep() -> NoReturn:
    raise EncodeError(f"values are nested more than {MAX_DEPTH} deep")


def _not_void(value: object) -> NoReturn:
    raise EncodeError(f"void: {value!r} is not None")


def _pack(layout: struct.Struct) -> Callable[..., bytes]:
    return layout.pack


def _explained(error: Exception, label: str) -> XDRError:
    if isinstance(error, XDRError):
        return error
    why = f"no value for {error}" if isinstance(error, KeyError) else str(error)
    return EncodeError(f"{label}: {' '.join(why.split())}")


#: What Python raises where a value is not of its type; and L{XDRError}, which is a C{ValueError}.
_NOT_OF_TYPE = (
    struct.error,
    AttributeError,
    KeyError,
    OverflowError,
    TypeError,
    ValueError,
)


def _is_straight(type: XDRType) -> bool:
    """Whether all values of C{type} are packed by the same steps, without a choice or a loop."""
    if isinstance(type, (FixedArray, Array)):
        return isinstance(type.element, Scalar)
    if isinstance(type, StructType):
        return is_inline(type) and all(_is_straight(each.type) for each in type.fields)
    return not isinstance(type, (OptionalType, UnionType))


def make_pack(type: XDRType) -> Callable[[Any], bytes]:
    """The function that packs values of C{type}; it raises L{EncodeError}."""
    return _PackWriter(
        {
            "BITS": {False: 0, True: 1},
            "MAX_DEPTH": MAX_DEPTH,
            "PADS": (b"", bytes(3), bytes(2), bytes(1)),
            "LOW": 2**64 - 1,
            "not_void": _not_void,
            "explained": _explained,
            "NOT_OF_TYPE": _NOT_OF_TYPE,
            "too_deep": _too_deep,
            "wrong_length": _wrong_length,
        }
    ).compile(type)[1]


class _PackWriter(Writer):
    """The text of the functions that pack."""

    #: The pieces of a value that has the same ones always; None where they are added one by one.
    _pieces: list[str] | None = None

    @override
    def write_function(self, name: str, type: XDRType) -> None:
        self.head(f"def {name}(value, add, depth):")
        if is_recursive(type):
            self.line("if depth > MAX_DEPTH: too_deep()")
        self.line("pass")  # for what has nothing in it
        following = following_field(type)
        if following is None:
            self._value(type, "value", is_own=True)
            self._flush()
            return
        # A list, one element after the other: Python would not follow it far.
        assert isinstance(type, StructType)
        with self.block("while True:"):
            for field in type.fields[:-1]:
                self._value(field.type, f"value.{field.name}")
            self.line(f"following = value.{following}")
            self.fixed("I", "0 if following is None else 1")
            self._flush()
            self.line("if following is None: return")
            self.line("value = following")

    @override
    def write_entry(self, function: str, type: XDRType) -> None:
        self.head("def entry(value):")
        with self.block("try:"):
            if _is_straight(type):
                self._pieces = []
                self._value(type, "value", is_own=True)
                self._flush()
                pieces, self._pieces = self._pieces, None
                if len(pieces) == 1:
                    self.line(f"return {pieces[0]}")
                else:
                    self.line(f"return b''.join(({''.join(f'{each}, ' for each in pieces)}))")
            else:
                self.line("pieces = []")
                self.line(f"{function}(value, pieces.append, 0)")
                self.line("return b''.join(pieces)")
        self.line(f"except NOT_OF_TYPE as error: raise explained(error, {type.label!r}) from error")

    def _add(self, piece: str) -> None:
        """Add a piece: by a call, or with all others in the end."""
        if self._pieces is None:
            self.line(f"add({piece})")
        else:
            self._pieces.append(piece)

    def _flush(self) -> None:
        run = self.take_run()
        if run is not None:
            layout, values, _ = run
            self._add(f"{self.constant(layout.pack)}({', '.join(values)})")

    def _value(self, type: XDRType, value: str, is_own: bool = False) -> None:
        """
        Write what packs C{value}.

        @param is_own: whether it is in the function of this type.
        """
        if isinstance(type, Scalar):
            self.fixed(type.code, value)
        elif isinstance(type, BoolType):
            self.fixed("I", f"BITS[{value}]")
        elif isinstance(type, EnumType):
            numbers = self.constant({int(each): int(each) for each in type.members})
            self.fixed("i", f"{numbers}[{value}]")
        elif isinstance(type, QuadType):
            self.fixed("QQ", f"{value}.bits >> 64", f"{value}.bits & LOW")
        elif isinstance(type, VoidType):
            self.line(f"if {value} is not None: not_void({value})")
        elif isinstance(type, FixedOpaque):
            kept = self._keep(value)
            count = f"len({kept})"
            self.line(f"if {count} != {type.size}: wrong_length({count}, {type.size}, 'opaque')")
            self.fixed(f"{type.size}s{-type.size % 4}x", kept)
        elif isinstance(type, Opaque):
            self._opaque(type, value)
        elif isinstance(type, (FixedArray, Array)):
            self._array(type, value)
        elif isinstance(type, OptionalType):
            kept = self._keep(value)
            self._flush()
            self.line(f"if {kept} is None: add(bytes(4))")
            with self.block("else:"):
                self.fixed("I", "1")
                self._value(type.element, kept)
                self._flush()
        elif not is_own and not is_inline(type):
            self._flush()
            self.line(f"{self.function(type)}({value}, add, depth + 1)")
        elif isinstance(type, StructType):
            kept = value if value.isidentifier() else self._keep(value)
            for field in type.fields:
                self._value(field.type, f"{kept}.{field.name}")
        else:
            assert isinstance(type, UnionType)
            self._union(type, value)

    def _keep(self, value: str) -> str:
        """A name for what an expression gives now."""
        name = self.new_name()
        self.line(f"{name} = {value}")
        return name

    def _opaque(self, type: Opaque, value: str) -> None:
        kept, count = self._keep(value), self.new_name()
        if isinstance(type, StringType):
            # Without its arguments it takes half the time.
            self.line(f"try: {kept} = {kept}.encode()")
            self.line(f"except ValueError: {kept} = {kept}.encode('utf-8', 'surrogateescape')")
        self.line(f"{count} = len({kept})")
        self.line(f"if {count} > {type.most}: wrong_length({count}, {type.most}, {type.label!r})")
        self.fixed("I", count)
        self._flush()
        self._add(kept)
        if self._pieces is None:
            self.line(f"if {count} & 3: add(PADS[{count} & 3])")
        else:
            self._add(f"PADS[{count} & 3]")

    def _array(self, type: FixedArray | Array, value: str) -> None:
        element = type.element
        kept, count = self._keep(value), self.new_name()
        self.line(f"{count} = len({kept})")
        if isinstance(type, FixedArray):
            wrong, most = "!=", type.size
        else:
            wrong, most = ">", type.most
        self.line(f"if {count} {wrong} {most}: wrong_length({count}, {most}, {type.label!r})")
        if self.fits_inline(type):
            names = [self.new_name() for _ in range(most)]
            if names:
                self.line(f"{', '.join(names)}, = {kept}")
            for name in names:
                self._value(element, name)
            return
        if isinstance(type, Array):
            self.fixed("I", count)
        self._flush()
        if isinstance(element, Scalar):
            pack = self.constant(sized(_pack, element.code))
            self._add(f"{pack}({count})(*{kept})")
            return
        item = self.new_name()
        with self.block(f"for {item} in {kept}:"):
            self._value(element, item)
            self._flush()

    def _union(self, type: UnionType, value: str) -> None:
        kind, arms, default = type.arms
        kept = self._keep(value)
        discriminant = self._keep(f"{kept}.discriminant")
        self._value(kind, discriminant)
        self._flush()
        word = "if"
        for arm in dict.fromkeys(arms.values()):
            numbers = self.constant({number for number, each in arms.items() if each is arm})
            with self.block(f"{word} {discriminant} in {numbers}:"):
                self._value(arm.type, f"{kept}.value")
                self._flush()
            word = "elif"
        with self.block("else:" if arms else "if True:"):
            if default is None:
                self.line(f"raise KeyError({discriminant})")
            else:
                self._value(default.type, f"{kept}.value")
                self._flush()
