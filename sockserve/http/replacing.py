"""
Methods of a program's own objects, replaced for a while.

This room owns which objects can have that, and how it is undone.  It must not know what is
replaced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

__all__ = ["free_attributes", "replaced"]


def free_attributes(owner: object, name: str) -> dict[str, Any] | None:
    """
    The attributes of C{owner} itself, for one that is to be called C{name}; None if it cannot have
    that, or has one already.
    """
    try:
        attributes: dict[str, Any] = object.__getattribute__(owner, "__dict__")
    except AttributeError:  # also where what it wraps has them
        return None
    return None if name in attributes else attributes


@contextlib.contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Have a method of C{owner} replaced, if that is possible."""
    attributes = free_attributes(owner, name)
    if attributes is not None:
        attributes[name] = value
    try:
        yield
    finally:
        if attributes is not None:
            attributes.pop(name, None)
