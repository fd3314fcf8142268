"""
Packing: functions that make bytes from values, one for each type.

This room owns these functions' text.  Each is called with the value, with the list that takes its
pieces, and how deep it is in others.  It must not know where the bytes go.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NoReturn

from typing_extensions import override

from sockserve.sunrpc.xdr import types
from sockserve.sunrpc.xdr.errors import EncodeError, XDRError
from sockserve.sunrpc.xdr.source import Writer, fits_inline, following_field, is_inline
from sockserve.sunrpc.xdr.types import XDRType

__all__ = ["make_pack"]

#: How many numbers an element of an array has at most that is packed with all others by one call.
#: 4: with more, a call for each element is faster than a list of all numbers.
FEW_NUMBERS = 4

#: How many pieces are added, and not joined.  2: with more, bytes would be copied again and again.
FEW_PIECES = 2


def _wrong_length(count: int, most: int, label: str) -> NoReturn:
    raise EncodeError(f"{label}: a length of {count} where {most} is what its type allows")


def _not_void(value: object) -> NoReturn:
    raise EncodeError(f"void: {value!r} is not None")


def _as_bytes(value: Any) -> bytes:
    return bytes(memoryview(value))


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


def _number_code(type: XDRType) -> str | None:
    """C{struct}'s letter for a value of C{type}, if that is packed as one number."""
    if isinstance(type, types.Scalar):
        return type.code
    if isinstance(type, types.BoolType):
        return "I"
    return "i" if isinstance(type, types.EnumType) else None


def _common_code(type: XDRType) -> str | None:
    """The letter for each value in C{type}, if these are a few numbers that have the same."""
    if not isinstance(type, types.StructType):
        return None
    codes = [_number_code(each.type) for each in type.fields]
    return codes[0] if 0 < len(codes) <= FEW_NUMBERS and len(set(codes)) == 1 else None


def _is_straight(type: XDRType) -> bool:
    """Whether all values of C{type} are packed as the same pieces, without a choice."""
    if isinstance(type, (types.FixedArray, types.Array)):
        return isinstance(type.element, types.Scalar) or _common_code(type.element) is not None
    if isinstance(type, types.StructType):
        return is_inline(type) and all(_is_straight(each.type) for each in type.fields)
    return not isinstance(type, (types.OptionalType, types.UnionType))


def make_pack(type: XDRType) -> Callable[[Any], bytes]:
    """The function that packs values of C{type}; it raises L{EncodeError}."""
    names = {
        "BITS": {False: 0, True: 1},
        "LOW": 2**64 - 1,
        "NOT_OF_TYPE": _NOT_OF_TYPE,
        "as_bytes": _as_bytes,
        "explained": _explained,
        "not_void": _not_void,
        "wrong_length": _wrong_length,
    }
    return _PackWriter(names, EncodeError).compile(type)[1]


class _PackWriter(Writer):
    """The text of the functions that pack."""

    #: The pieces of a value that has the same ones always; None where they are added one by one.
    _pieces: list[str] | None = None

    @override
    def write_function(self, name: str, type: XDRType) -> None:
        self.head(f"def {name}(value, pieces, depth):")
        self.check_depth(type)
        self.line("pass")  # for what has nothing in it
        following = following_field(type)
        if following is None:
            self._value(type, "value", is_own=True)
            self.flush()
            return
        # A list, one element after the other: Python would not follow it far.
        assert isinstance(type, types.StructType)
        with self.block("while True:"):
            for field in type.fields[:-1]:
                self._value(field.type, f"value.{field.name}")
            self.line(f"following = value.{following}")
            self.fixed("I", "0 if following is None else 1")
            self.flush()
            self.line("if following is None: return")
            self.line("value = following")

    @override
    def write_entry(self, function: str, type: XDRType) -> None:
        self.head("def entry(value):")
        with self.block("try:"):
            if _is_straight(type):
                self._pieces = []
                self._value(type, "value", is_own=True)
                self.flush()
                pieces, self._pieces = self._pieces, None
                if 1 <= len(pieces) <= FEW_PIECES:
                    self.line(f"return {' + '.join(pieces)}")
                else:
                    self.line(f"return b''.join(({''.join(f'{each}, ' for each in pieces)}))")
            else:
                self.line("pieces = []")
                self.line(f"{function}(value, pieces, 0)")
                self.line("return b''.join(pieces)")
        self.line(f"except NOT_OF_TYPE as error: raise explained(error, {type.label!r}) from error")

    @override
    def flush(self) -> None:
        run = self.take_run()
        if run is None:
            return
        pack = self.layout(run, self.new_name(), lambda layout: layout.pack)
        piece = f"{pack}({', '.join(run.values)})"
        if self._pieces is None:
            self.line(f"pieces.append({piece})")
        else:
            self._pieces.append(piece)

    def _value(self, type: XDRType, value: str, is_own: bool = False) -> None:
        """
        Write what packs C{value}.

        @param is_own: whether it is in the function of this type.
        """
        code = _number_code(type)
        if code is not None:
            self.fixed(code, self._number(type, value))
        elif isinstance(type, types.QuadType):
            self.fixed("QQ", f"{value}.bits >> 64", f"{value}.bits & LOW")
        elif isinstance(type, types.VoidType):
            self.line(f"if {value} is not None: not_void({value})")
        elif isinstance(type, types.FixedOpaque):
            kept, count = self._keep_bytes(value)
            self.line(f"if {count} != {type.size}: wrong_length({count}, {type.size}, 'opaque')")
            self.fixed(f"{type.size}s{-type.size % 4}x", kept)
        elif isinstance(type, types.Opaque):
            self._opaque(type, value)
        elif isinstance(type, (types.FixedArray, types.Array)):
            self._array(type, value)
        elif isinstance(type, types.OptionalType):
            kept = self._keep(value)
            self.flush()
            with self.block(f"if {kept} is None:"):
                self.fixed("I", "0")
                self.flush()
            with self.block("else:"):
                self.fixed("I", "1")
                self._value(type.element, kept)
                self.flush()
        elif not is_own and not is_inline(type):
            self.flush()
            self.line(f"{self.function(type)}({value}, pieces, depth + 1)")
        elif isinstance(type, types.StructType):
            kept = value if value.isidentifier() else self._keep(value)
            for field in type.fields:
                self._value(field.type, f"{kept}.{field.name}")
        else:
            assert isinstance(type, types.UnionType)
            self._union(type, value)

    def _number(self, type: XDRType, value: str) -> str:
        """The expression of the number that a value is packed as, if it is one."""
        if isinstance(type, types.BoolType):
            return f"BITS[{value}]"
        if isinstance(type, types.EnumType):
            return f"{self.constant({int(each): int(each) for each in type.members})}[{value}]"
        return value

    def _keep(self, value: str) -> str:
        """A name for what an expression gives now."""
        name = self.new_name()
        self.line(f"{name} = {value}")
        return name

    def _keep_bytes(self, value: str) -> tuple[str, str]:
        """Names for the bytes that an expression gives now, and for their number."""
        kept = self._keep(value)
        self.line(f"if type({kept}) is not bytes: {kept} = as_bytes({kept})")
        return kept, self._keep(f"len({kept})")

    def _opaque(self, type: types.Opaque, value: str) -> None:
        if isinstance(type, types.StringType):
            kept = self._keep(value)
            # Without its arguments it takes half the time.
            self.line(f"try: {kept} = {kept}.encode()")
            self.line(f"except ValueError: {kept} = {kept}.encode('utf-8', 'surrogateescape')")
            count = self._keep(f"len({kept})")
        else:
            kept, count = self._keep_bytes(value)
        self.line(f"if {count} > {type.most}: wrong_length({count}, {type.most}, {type.label!r})")
        self.fixed("I", count)
        # C{struct} fills up what is shorter than it is to be.
        self.sized("{0}s", f"{count} + 3 & -4", kept)

    def _array(self, type: types.FixedArray | types.Array, value: str) -> None:
        element = type.element
        kept = self._keep(value)
        count = self._keep(f"len({kept})")
        if isinstance(type, types.FixedArray):
            wrong, most = "!=", type.size
        else:
            wrong, most = ">", type.most
        self.line(f"if {count} {wrong} {most}: wrong_length({count}, {most}, {type.label!r})")
        if fits_inline(type):
            assert isinstance(type, types.FixedArray)
            names = [self.new_name() for _ in range(type.size)]
            if names:
                self.line(f"{', '.join(names)}, = {kept}")
            for name in names:
                self._value(element, name)
            return
        if isinstance(type, types.Array):
            self.fixed("I", count)
        if isinstance(element, types.Scalar):
            self.sized(f"{{0}}{element.code}", count, f"*{kept}")
            return
        code = _common_code(element)
        if code is not None:
            assert isinstance(element, types.StructType)
            self._numbers(element, code, kept, count)
            return
        self.flush()
        item = self.new_name()
        with self.block(f"for {item} in {kept}:"):
            self._value(element, item)
            self.flush()

    def _numbers(self, element: types.StructType, code: str, kept: str, count: str) -> None:
        """An array of structures of a few numbers: as one of all these."""
        numbers, item = self._keep("[]"), self.new_name()
        with self.block(f"for {item} in {kept}:"):
            for field in element.fields:
                self.line(f"{numbers}.append({self._number(field.type, f'{item}.{field.name}')})")
        self.sized(f"{{0}}{code}", f"{count} * {len(element.fields)}", f"*{numbers}")

    def _union(self, type: types.UnionType, value: str) -> None:
        kept = self._keep(value)
        discriminant = self._keep(f"{kept}.discriminant")
        self._value(type.arms[0], discriminant)
        self.flush()
        for arm in self.arms(type, discriminant):
            self._value(arm, f"{kept}.value")
