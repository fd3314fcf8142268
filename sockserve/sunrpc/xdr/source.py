"""
Source texts: Python functions that are written for a type, and compiled once.

This room owns the lines of such a function, the names in it, and its run: the values that are next,
for which one C{struct.Struct} does.  It must not know types' bytes.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sockserve.interfaces import ConfigurationError
from sockserve.sunrpc.xdr.errors import MAX_DEPTH, XDRError
from sockserve.sunrpc.xdr.kept import Kept
from sockserve.sunrpc.xdr.types import (
    BoolType,
    EnumType,
    FixedArray,
    FixedOpaque,
    NamedType,
    OptionalType,
    QuadType,
    Scalar,
    StructType,
    UnionType,
    XDRType,
    is_endless,
    is_recursive,
)

__all__ = ["Run", "Writer", "fits_inline", "following_field", "is_fixed", "is_inline"]

#: How many values of a structure inside another are handled by the other's function.  64: as many
#: C{struct} calls are saved, and no function becomes endless.
INLINE_VALUES = 64

#: How many layouts of a run are kept, if there is a size in it.  512: all of a string of usual
#: length, in some 100 KB.
MOST_LAYOUTS = 512


def is_inline(type: XDRType) -> bool:
    """Whether values of C{type} inside others have no function of their own."""
    return not isinstance(type, NamedType) or (
        not is_recursive(type) and type.weight <= INLINE_VALUES
    )


def fits_inline(type: XDRType) -> bool:
    """Whether C{type} is an array whose elements are few, and have a place in the run."""
    return isinstance(type, FixedArray) and type.weight <= INLINE_VALUES and is_inline(type.element)


def is_fixed(type: XDRType) -> bool:
    """Whether all values of C{type} have the same size, and all of each is in one run."""
    if isinstance(type, (FixedArray, StructType)):
        has_place = fits_inline(type) if isinstance(type, FixedArray) else is_inline(type)
        return has_place and all(is_fixed(each) for each in type.parts())
    return isinstance(type, (Scalar, BoolType, EnumType, QuadType, FixedOpaque))


def following_field(type: XDRType) -> str | None:
    """The name of the last field, if C{type} is an element of a list that ends with the next."""
    if isinstance(type, StructType) and type.fields:
        last = type.fields[-1]
        if isinstance(last.type, OptionalType) and last.type.element is type:
            return last.name
    return None


class Run(NamedTuple):
    """
    Values that one C{struct.Struct} packs or unpacks.

    @ivar template: its format, in which C{{0}} stands for a size, and C{{1}} for what fills that up
        to a multiple of four.
    @ivar size: the expression of this size, which is known when the function runs; None without.
    @ivar check: a statement that raises what is wrong with it, if something is; executed before a
        layout is made for it, and after one has not fitted, so that most values take none.
    @ivar values: the expressions of the values.
    @ivar after: the lines that need these.
    """

    template: str
    size: str | None
    check: str
    values: list[str]
    after: list[str]

    def layout(self, size: int = 0) -> struct.Struct:
        """The layout that packs and unpacks the values."""
        return struct.Struct(self.template.format(size, -size & 3))


class Writer(ABC):
    """
    A text of functions, one for each type that needs its own: the part that both ways share.

    @ivar names: the values of the names that the text does not set.
    """

    def __init__(self, names: dict[str, Any], error: type[XDRError]) -> None:
        """
        @param error: what the functions raise.
        """
        self.names = {**names, "Error": error}
        # For the text
        self._functions: dict[int, str] = {}
        self._unwritten: list[tuple[str, XDRType]] = []
        self._count = 0
        self._text: list[str] = []
        # For the function being written
        self._depth = 1
        # For the run, as its parts are called there
        self._codes: list[str] = []
        self._size: str | None = None
        self._check = "pass"
        self._values: list[str] = []
        self._after: list[str] = []

    def compile(self, type: XDRType) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The function for C{type}, and the one for those that have nothing else to handle."""
        if is_endless(type):
            raise ConfigurationError(f"{type.label}: it contains itself, so it has no end")
        first = self.function(type)
        while self._unwritten:
            name, each = self._unwritten.pop()
            self._depth = 1
            self.write_function(name, each)
        self._depth = 1
        self.write_entry(first, type)
        text = "\n".join(self._text)
        exec(compile(text, f"<XDR {type.label}>", "exec"), self.names)
        return self.names[first], self.names["entry"]

    def function(self, type: XDRType) -> str:
        """The name of the function of C{type}, which is written if it is not yet."""
        name = self._functions.get(id(type))
        if name is None:
            name = self._functions[id(type)] = self.new_name()
            self._unwritten.append((name, type))
        return name

    @abstractmethod
    def write_function(self, name: str, type: XDRType) -> None:
        """Write the function called C{name}."""

    @abstractmethod
    def flush(self) -> None:
        """Write what handles the run, if there is one."""

    @abstractmethod
    def write_entry(self, function: str, type: XDRType) -> None:
        """
        Write the function C{entry}: of the value or the bytes alone, and with errors as users see
        them.

        @param function: that of C{type}.
        """

    def new_name(self) -> str:
        """A name that nothing has yet."""
        self._count += 1
        return f"v{self._count}"

    def constant(self, value: object) -> str:
        """A name for C{value}."""
        name = self.new_name()
        self.names[name] = value
        return name

    def line(self, text: str) -> None:
        """Write a line."""
        self._text.append("    " * self._depth + text)

    def head(self, text: str) -> None:
        """Write the first line of a function."""
        self._text.append(text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Write what is below C{head}; what is in a run must be flushed in it."""
        self.line(head)
        self._depth += 1
        yield
        self.line("pass")  # for a block that has nothing to do
        self._depth -= 1

    def check_depth(self, type: XDRType) -> None:
        """Write what bounds how deep a value of C{type} is in others."""
        if is_recursive(type):
            words = f"values are nested more than {MAX_DEPTH} deep"
            self.line(f"if depth > {MAX_DEPTH}: raise Error({words!r})")

    def arms(self, type: UnionType, discriminant: str) -> Iterator[XDRType]:
        """Write a branch for each arm: what is written after its type has come is in that."""
        _, arms, default = type.arms
        word = "if"
        for arm in dict.fromkeys(arms.values()):
            numbers = [number for number, each in arms.items() if each is arm]
            among = f"== {numbers[0]}" if len(numbers) == 1 else f"in {self.constant(set(numbers))}"
            with self.block(f"{word} {discriminant} {among}:"):
                yield arm.type
                self.flush()
            word = "elif"
        with self.block("else:" if arms else "if True:"):
            if default is None:
                self.line(f"raise KeyError({discriminant})")
            else:
                yield default.type
                self.flush()

    def fixed(self, code: str, *values: str) -> None:
        """Add values of fixed size to the run."""
        self._codes.append(code)
        self._values.extend(values)

    def sized(self, code: str, size: str, value: str, check: str = "pass") -> None:
        """
        Add values to the run whose number is known when the function runs: one size in each run,
        so that few layouts are met again and again.

        @param code: as of L{Run}.
        @param size: an expression.
        @param check: as of L{Run}.
        """
        if self._size is not None:
            self.flush()
        self._codes.append(code)
        self._size, self._check = size, check
        self._values.append(value)

    def then(self, text: str) -> None:
        """Write a line that needs what is in the run."""
        if self._codes:
            self._after.append(text)
        else:
            self.line(text)

    def take_run(self) -> Run | None:
        """Take the run, if there is one."""
        if not self._codes:
            return None
        template = ">" + "".join(self._codes)
        run = Run(template, self._size, self._check, self._values, self._after)
        self._codes, self._size, self._values, self._after = [], None, [], []
        return run

    def layout(self, run: Run, to: str, use: Callable[[struct.Struct], object]) -> str:
        """
        The expression of what handles a run: if it has a size, C{to}, after the lines that set it.

        @param to: a name, or several.
        @param use: gives what handles the run, of its layout.
        """
        if run.size is None:
            return self.constant(use(run.layout()))
        kept = Kept[int, object](lambda size: use(run.layout(size)), MOST_LAYOUTS)
        values, make, size = self.constant(kept.values), self.constant(kept.make), run.size
        if not size.isidentifier():
            size = self.new_name()
            self.line(f"{size} = {run.size}")
        self.line(f"try: {to} = {values}[{size}]")
        self.line(f"except KeyError: {run.check}; {to} = {make}({size})")
        return to
