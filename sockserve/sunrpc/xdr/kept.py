"""
Kept values: made from a key when they are first asked for, and there from then on.

This room owns how many are kept.  It must not know what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["Kept"]

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Kept(dict[_Key, _Value]):
    """
    Values by the keys that they are made from; an index gives the value of any key.  Of more than
    are kept, the oldest is forgotten. (any thread)
    """

    def __init__(self, make: Callable[[_Key], _Value], most: int) -> None:
        """
        @param make: makes a value from its key.
        @param most: how many are kept.
        """
        super().__init__()
        self._make = make
        self._most = most

    def __missing__(self, key: _Key) -> _Value:
        if len(self) >= self._most:
            self.pop(next(iter(self)), None)
        made = self[key] = self._make(key)
        return made
