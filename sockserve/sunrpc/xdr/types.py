"""
Types of XDR (RFC 4506, section 4), as a tree: what there is between its notation and the bytes.

This room owns the types, how many bytes a value of each takes at least, and which contain
themselves.  It must not know how values are packed, nor how types are written down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from functools import cached_property

__all__ = [
    "BOOL",
    "DOUBLE",
    "FLOAT",
    "HYPER",
    "INT",
    "QUAD",
    "UNSIGNED_HYPER",
    "UNSIGNED_INT",
    "VOID",
    "Array",
    "BoolType",
    "EnumType",
    "Field",
    "FixedArray",
    "FixedOpaque",
    "NamedType",
    "Opaque",
    "OptionalType",
    "QuadType",
    "Scalar",
    "StringType",
    "StructType",
    "TupleType",
    "UnionType",
    "VoidType",
    "XDRType",
    "is_endless",
    "is_recursive",
]

#: The largest length there is: that of RFC 4506's notation without one.
_ANY = 2**32 - 1


class XDRType:
    """
    A type of XDR.

    @ivar label: what it is called in messages.
    @ivar weight: how many values there are in one, as far as that is fixed.
    """

    label: str = "value"
    weight: int = 1

    def least(self) -> int:
        """How many bytes a value takes at least."""
        return 4

    def parts(self) -> Iterator[XDRType]:
        """The types that it is made of."""
        yield from ()

    def __repr__(self) -> str:
        return f"<XDR {self.label}>"


class Scalar(XDRType):
    """
    A number.

    @ivar code: C{struct}'s letter for it.
    """

    def __init__(self, label: str, code: str, size: int) -> None:
        self.label = label
        self.code = code
        self.size = size

    def least(self) -> int:
        """Its size."""
        return self.size


class BoolType(XDRType):
    """A truth value: 0 or 1."""

    label = "bool"


class QuadType(XDRType):
    """A floating-point number of 128 bits."""

    label = "quadruple"

    def least(self) -> int:
        """16."""
        return 16


class VoidType(XDRType):
    """Nothing."""

    label = "void"

    def least(self) -> int:
        """None at all."""
        return 0


INT = Scalar("int", "i", 4)
UNSIGNED_INT = Scalar("unsigned int", "I", 4)
HYPER = Scalar("hyper", "q", 8)
UNSIGNED_HYPER = Scalar("unsigned hyper", "Q", 8)
FLOAT = Scalar("float", "f", 4)
DOUBLE = Scalar("double", "d", 8)
BOOL = BoolType()
QUAD = QuadType()
VOID = VoidType()


class EnumType(XDRType):
    """
    An enumeration.

    @ivar members: its class.
    """

    def __init__(self, members: type[IntEnum]) -> None:
        self.label = members.__name__
        self.members = members


class FixedOpaque(XDRType):
    """Bytes, always as many."""

    label = "opaque"

    def __init__(self, size: int) -> None:
        self.size = size

    def least(self) -> int:
        """Its size, and what fills that up to a multiple of four."""
        return self.size + -self.size % 4


class Opaque(XDRType):
    """
    Bytes, as many as a value has.

    @ivar most: how many at most.
    """

    label = "opaque"

    def __init__(self, most: int | None = None) -> None:
        self.most = _ANY if most is None else most


class StringType(Opaque):
    """Text, as UTF-8; bytes that are not are kept as C{surrogateescape} does."""

    label = "string"


class FixedArray(XDRType):
    """Values of one type, always as many."""

    label = "array"

    def __init__(self, element: XDRType, size: int) -> None:
        self.element = element
        self.size = size

    def least(self) -> int:
        """Those of all elements."""
        return self.size * self.element.least()

    def parts(self) -> Iterator[XDRType]:
        """The element's."""
        yield self.element

    @property
    def weight(self) -> int:  # type: ignore[override]
        """Of all elements."""
        return self.size * self.element.weight


class Array(XDRType):
    """
    Values of one type, as many as a value has.

    @ivar most: how many at most.
    """

    label = "array"

    def __init__(self, element: XDRType, most: int | None = None) -> None:
        self.element = element
        self.most = _ANY if most is None else most

    def parts(self) -> Iterator[XDRType]:
        """The element's."""
        yield self.element


class OptionalType(XDRType):
    """A value, or none."""

    label = "optional"

    def __init__(self, element: XDRType) -> None:
        self.element = element

    def parts(self) -> Iterator[XDRType]:
        """The element's."""
        yield self.element


class Field:
    """
    A field of a structure, or an arm of a union.

    @ivar name: of the attribute that holds it.
    """

    def __init__(self, name: str, type: XDRType) -> None:
        self.name = name
        self.type = type


class NamedType(XDRType):
    """
    A type with a class of its own for its values.

    @ivar cls: this class; called with the values.
    """

    def __init__(self, cls: type) -> None:
        self.label = cls.__name__
        self.cls = cls


class StructType(NamedType):
    """A structure."""

    def __init__(
        self,
        cls: type,
        find_fields: Callable[[], Sequence[Field]],
        init: Callable[..., None] | None = None,
    ) -> None:
        """
        @param find_fields: called once, when the fields are first needed: by then all classes
            are there that their annotations name.
        @param init: an C{__init__} that sets the fields to its arguments, and does no more.
        """
        super().__init__(cls)
        self._find_fields = find_fields
        self._init = init

    @cached_property
    def fields(self) -> Sequence[Field]:
        """Its fields, in order."""
        return self._find_fields()

    def sets_fields_only(self) -> bool:
        """Whether to make an instance is no more than to set its fields."""
        if self._init is None or hasattr(self.cls, "__post_init__"):
            return False
        plain = {"__init__": self._init, "__new__": object.__new__}
        plain["__setattr__"] = object.__setattr__
        return all(getattr(self.cls, name) is method for name, method in plain.items())

    def least(self) -> int:
        """Those of all fields."""
        return sum(field.type.least() for field in self.fields)

    def parts(self) -> Iterator[XDRType]:
        """Those of the fields."""
        for field in self.fields:
            yield field.type

    @cached_property
    def weight(self) -> int:  # type: ignore[override]
        """Of all fields."""
        return sum(field.type.weight for field in self.fields)


class TupleType(XDRType):
    """Values one after the other, which are one tuple in Python."""

    def __init__(self, label: str, elements: Sequence[XDRType]) -> None:
        self.label = label
        self.elements = elements

    def parts(self) -> Iterator[XDRType]:
        """All of them."""
        yield from self.elements


class UnionType(NamedType):
    """A union with a discriminant."""

    def __init__(
        self,
        cls: type,
        find_arms: Callable[[], tuple[XDRType, Mapping[int, Field], Field | None]],
    ) -> None:
        """
        @param find_arms: as L{StructType}'s C{find_fields}: gives the discriminant's type, the
            arms by its value, and the one for all others.
        """
        super().__init__(cls)
        self._find_arms = find_arms

    @cached_property
    def arms(self) -> tuple[XDRType, Mapping[int, Field], Field | None]:
        """The discriminant's type, the arms by its value, and the arm for all other values."""
        return self._find_arms()

    def parts(self) -> Iterator[XDRType]:
        """Those of the arms."""
        _, arms, default = self.arms
        for arm in arms.values():
            yield arm.type
        if default is not None:
            yield default.type


def is_recursive(type: XDRType) -> bool:
    """Whether a value of the type may have others of it inside."""
    seen: set[int] = set()
    waiting = list(type.parts())
    while waiting:
        each = waiting.pop()
        if each is type:
            return True
        if id(each) not in seen:
            seen.add(id(each))
            waiting.extend(each.parts())
    return False


def is_endless(type: XDRType) -> bool:
    """Whether each value of the type has another of it inside, so that there is none."""
    seen: set[int] = set()
    waiting: list[XDRType] = [type]
    while waiting:
        each = waiting.pop()
        if isinstance(each, (StructType, FixedArray)):
            for part in each.parts():
                if part is type:
                    return True
                if id(part) not in seen:
                    seen.add(id(part))
                    waiting.append(part)
    return False
