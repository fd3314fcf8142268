"""
Source texts: Python functions that are written for a type, and compiled once.

This room owns the lines of such a function, the names in it, and its run: the values of fixed size
that are next, for which one C{struct.Struct} does.  It must not know types' bytes.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sockserve.interfaces import ConfigurationError
from sockserve.sunrpc.xdr.types import (
    Array,
    FixedArray,
    NamedType,
    OptionalType,
    StructType,
    XDRType,
    is_endless,
    is_recursive,
)

__all__ = ["INLINE_VALUES", "MOST_KEPT", "Writer", "following_field", "is_inline", "sized"]

#: How many values of a structure inside another are handled by the other's function.  64: as many
#: C{struct} calls are saved, and no function becomes endless.
INLINE_VALUES = 64


#: Up to which count of numbers what packs them is kept.  512: some 100 KB for each array type.
MOST_KEPT = 512


def is_inline(type: XDRType) -> bool:
    """Whether values of C{type} inside others have no function of their own."""
    return not isinstance(type, NamedType) or (
        not is_recursive(type) and type.weight <= INLINE_VALUES
    )


def sized(make: Callable[[struct.Struct], Any], code: str) -> Callable[[int], Any]:
    """What packs or unpacks so many numbers: of each usual count it is made once."""
    made: dict[int, Any] = {}

    def get(count: int) -> Any:
        found = made.get(count)
        if found is None:
            found = make(struct.Struct(f">{count}{code}"))
            if count <= MOST_KEPT:
                made[count] = found
        return found

    return get


def following_field(type: XDRType) -> str | None:
    """The name of the last field, if C{type} is an element of a list that ends with the next."""
    if isinstance(type, StructType) and type.fields:
        last = type.fields[-1]
        if isinstance(last.type, OptionalType) and last.type.element is type:
            return last.name
    return None


class Writer(ABC):
    """
    A text of functions, one for each type that needs its own: the part that both ways share.

    @ivar names: what the text refers to.
    """

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names
        # For the text
        self._functions: dict[int, str] = {}
        self._unwritten: list[tuple[str, XDRType]] = []
        self._count = 0
        self._text: list[str] = []
        # For the function being written
        self._depth = 1
        # For the run: its letters, what stands for its values, and what comes after them
        self._codes: list[str] = []
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

    def fixed(self, code: str, *values: str) -> None:
        """Add values of fixed size to the run."""
        self._codes.append(code)
        self._values.extend(values)

    def then(self, text: str) -> None:
        """Write a line that needs what is in the run."""
        if self._codes:
            self._after.append(text)
        else:
            self.line(text)

    def take_run(self) -> tuple[struct.Struct, list[str], list[str]] | None:
        """Take the run, if there is one: what packs it, its values and the lines after it."""
        if not self._codes:
            return None
        layout = ">" + "".join(self._codes)
        run = struct.Struct(layout), self._values, self._after
        self._codes, self._values, self._after = [], [], []
        return run

    def fits_inline(self, type: FixedArray | Array) -> bool:
        """Whether an array's elements are few, and have a place in the run."""
        return (
            isinstance(type, FixedArray)
            and type.weight <= INLINE_VALUES
            and is_inline(type.element)
        )
