"""
Declarations: types of XDR as a program writes them, by annotations.

This room owns what annotations mean, and the base classes of structures and unions.  It must not
know how values are packed.

    >>> class Point(Struct):
    ...     x: Int
    ...     y: Int
    ...     label: Annotated[str, Max(20)]
    >>> pack(Point, Point(1, 2, "here"))[:8]
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from enum import IntEnum
from types import NoneType
from types import UnionType as UnionAnnotation
from typing import Annotated, Any, ClassVar, get_args, get_origin

from typing_extensions import dataclass_transform

from sockserve.interfaces import ConfigurationError
from sockserve.sunrpc.xdr import types
from sockserve.sunrpc.xdr.quad import Quad
from sockserve.sunrpc.xdr.types import Field, XDRType

__all__ = [
    "Case",
    "Double",
    "Fixed",
    "Float",
    "Hyper",
    "Int",
    "Max",
    "Otherwise",
    "Struct",
    "Union",
    "UnsignedHyper",
    "UnsignedInt",
    "hints_of",
    "type_of",
]

#: C{int} of 32 bits, with a sign.
Int = Annotated[int, types.INT]
#: C{unsigned int} of 32 bits.
UnsignedInt = Annotated[int, types.UNSIGNED_INT]
#: C{hyper}: 64 bits, with a sign.
Hyper = Annotated[int, types.HYPER]
#: C{unsigned hyper}: 64 bits.
UnsignedHyper = Annotated[int, types.UNSIGNED_HYPER]
#: C{float}: 32 bits.
Float = Annotated[float, types.FLOAT]
#: C{double}: 64 bits.
Double = Annotated[float, types.DOUBLE]

#: What Python's own types mean.
_PLAIN: dict[object, XDRType] = {
    int: types.INT,
    bool: types.BOOL,
    float: types.DOUBLE,
    str: types.StringType(),
    bytes: types.Opaque(),
    Quad: types.QUAD,
    None: types.VOID,
    NoneType: types.VOID,
}


class Max:
    """The most that is in a C{list}, C{str} or C{bytes}: C{Annotated[str, Max(255)]}."""

    def __init__(self, size: int) -> None:
        self.size = size


class Fixed:
    """The only length of a C{list} or C{bytes}: C{Annotated[bytes, Fixed(16)]}."""

    def __init__(self, size: int) -> None:
        self.size = size


class Case:
    """The discriminants for which a union has this arm: C{Annotated[Int, Case(Status.OK)]}."""

    def __init__(self, *values: int) -> None:
        self.values = values


class Otherwise:
    """A mark: the union has this arm for all other discriminants."""


class _StructClass(type):
    """
    The class of structures' classes.  It gives them C{__slots__}: instances then take half the time
    to be made, and little more than half the memory.
    """

    def __new__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any
    ) -> _StructClass:
        """
        A class with a slot for each field, unless one has a default or a name that is there
        already: a slot would hide these.
        """
        fields = list(namespace.get("__annotations__", ()))
        taken = {"xdr_type", *namespace, *(each for base in bases for each in dir(base))}
        if fields and taken.isdisjoint(fields):
            namespace = {"__slots__": fields, **namespace}
        return super().__new__(cls, name, bases, namespace, **options)


@dataclass_transform()
class Struct(metaclass=_StructClass):
    """
    The base class of structures: a dataclass whose fields are in the order of their annotations.
    An instance has these attributes only, unless one has a default or the class its own
    C{__slots__}.

    The last field may be C{Node | None} of C{class Node(Struct)}: a list of any length.
    """

    __slots__ = ()
    xdr_type: ClassVar[types.StructType]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        has_own_init = "__init__" in vars(cls)
        dataclasses.dataclass(cls)
        init = None if has_own_init else cls.__init__
        cls.xdr_type = types.StructType(cls, lambda: _fields_of(cls), init)


class Union:
    """
    The base class of unions: a discriminant, and a value of the arm that it chooses::

        class Answer(Union, switch=Status):
            number: Annotated[Int, Case(Status.OK)]
            reason: Annotated[str, Case(Status.FAILED, Status.DENIED)]
            nothing: Annotated[None, Otherwise]

    C{Answer(Status.OK, 7)} has C{discriminant} and C{value}.

    @ivar discriminant: an C{int}, C{bool} or member of an enumeration.
    @ivar value: of the arm's type.
    """

    xdr_type: ClassVar[types.UnionType]
    __slots__ = ("discriminant", "value")

    def __init_subclass__(cls, switch: object = int) -> None:
        """
        @param switch: the type of the discriminant.
        """
        super().__init_subclass__()
        cls.xdr_type = types.UnionType(cls, lambda: _arms_of(cls, switch))

    def __init__(self, discriminant: int, value: Any = None) -> None:
        self.discriminant = discriminant
        self.value = value

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        assert isinstance(other, Union)
        return (self.discriminant, self.value) == (other.discriminant, other.value)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.discriminant!r}, {self.value!r})"


def hints_of(owner: Any, where: str) -> dict[str, Any]:
    """
    The annotations of a class or function.

    @param where: what it is called in messages.
    @raise ConfigurationError: one names what is not there.
    """
    own = {owner.__name__: owner} if isinstance(owner, type) else None
    try:
        return typing.get_type_hints(owner, localns=own, include_extras=True)
    except Exception as error:
        why = " ".join(str(error).split())
        raise ConfigurationError(f"{where}: an annotation: {why}") from error


def _fields_of(cls: type) -> Sequence[Field]:
    hints = hints_of(cls, cls.__name__)
    return [
        Field(each.name, type_of(hints[each.name], f"{cls.__name__}.{each.name}"))
        for each in dataclasses.fields(cls)
    ]


def _arms_of(cls: type, switch: object) -> tuple[XDRType, Mapping[int, Field], Field | None]:
    kind = type_of(switch, f"{cls.__name__}'s discriminant")
    if kind not in (types.INT, types.UNSIGNED_INT, types.BOOL) and not isinstance(
        kind, types.EnumType
    ):
        raise ConfigurationError(
            f"{cls.__name__}: {kind.label} chooses no arm; int, unsigned int, bool and"
            " enumerations do"
        )
    arms: dict[int, Field] = {}
    default = None
    for name, annotation in hints_of(cls, cls.__name__).items():
        if name in ("xdr_type", "discriminant", "value") and get_origin(annotation) is ClassVar:
            continue
        marks = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
        cases = [number for mark in marks if isinstance(mark, Case) for number in mark.values]
        arm = Field(name, type_of(annotation, f"{cls.__name__}.{name}"))
        if Otherwise in marks:
            default = arm
        elif not cases:
            raise ConfigurationError(
                f"{cls.__name__}.{name}: write Annotated[..., Case(NUMBER)] or Otherwise"
            )
        for number in cases:
            if number in arms:
                raise ConfigurationError(f"{cls.__name__}: two arms for {number!r}")
            arms[number] = arm
    return kind, arms, default


def type_of(annotation: Any, where: str = "type") -> XDRType:
    """
    The type of XDR that an annotation means.

    @param where: what it belongs to, for messages.
    @raise ConfigurationError: it means none.
    """
    if isinstance(annotation, XDRType):
        return annotation
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _annotated(arguments[0], arguments[1:], where)
    if origin is list:
        return types.Array(type_of(arguments[0], where))
    if origin in (typing.Union, UnionAnnotation) and len(arguments) == 2:
        if NoneType in arguments:
            (given,) = (each for each in arguments if each is not NoneType)
            return types.OptionalType(type_of(given, where))
    elif isinstance(annotation, type):
        if issubclass(annotation, (Struct, Union)):
            return annotation.xdr_type
        if issubclass(annotation, IntEnum):
            return types.EnumType(annotation)
    try:
        return _PLAIN[annotation]
    except (KeyError, TypeError):
        raise ConfigurationError(f"{where}: {annotation!r} is no type of XDR") from None


def _annotated(annotation: Any, marks: Sequence[object], where: str) -> XDRType:
    """What an annotation means with what stands behind it."""
    for mark in marks:
        if isinstance(mark, XDRType):
            return mark
    found = type_of(annotation, where)
    for mark in marks:
        if not isinstance(mark, (Max, Fixed)):
            continue
        if not 0 <= mark.size < 2**32:
            raise ConfigurationError(f"{where}: {mark.size} is no length of XDR")
        is_fixed = isinstance(mark, Fixed)
        if type(found) is types.Array:
            make = types.FixedArray if is_fixed else types.Array
            found = make(found.element, mark.size)
        elif type(found) is types.Opaque:
            found = types.FixedOpaque(mark.size) if is_fixed else types.Opaque(mark.size)
        elif type(found) is types.StringType and not is_fixed:
            found = types.StringType(mark.size)
        else:
            word = type(mark).__name__
            raise ConfigurationError(f"{where}: {word} does not go with {found.label}")
    return found
