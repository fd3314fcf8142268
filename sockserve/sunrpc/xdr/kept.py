"""
Kept values: made from a key when they are first asked for, and there from then on.

This room owns how many are kept, and that threads may ask at once.  It must not know what they are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Kept"]

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Kept(Generic[_Key, _Value]):
    """
    Values by the keys that they are made from.  Of more than are kept, the oldest is forgotten.

    @ivar values: those that are kept; to be read only. (any thread)
    """

    __slots__ = ("_make", "_most", "_writing", "values")

    def __init__(self, make: Callable[[_Key], _Value], most: int) -> None:
        """
        @param make: makes a value from its key.
        @param most: how many are kept.
        """
        self.values: dict[_Key, _Value] = {}
        self._make = make
        self._most = most
        self._writing = threading.Lock()

    def make(self, key: _Key) -> _Value:
        """The value of a key that C{values} does not have; it has it then. (any thread)"""
        made = self._make(key)
        with self._writing:
            if len(self.values) >= self._most:
                del self.values[next(iter(self.values))]
            self.values[key] = made
        return made
