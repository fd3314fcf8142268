"""
Coroutines that never suspend, run where nothing may be awaited: on a thread.

This room owns how one is run to its end.  It must not know what it does.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TypeVar

__all__ = ["run_unsuspended"]

_T = TypeVar("_T")


def run_unsuspended(coroutine: Coroutine[object, None, _T], fault: str) -> _T:
    """
    Run a coroutine to its end in one go.

    @param fault: what is wrong if it waits, in words.
    @raise TypeError: it waits. (handler's thread)
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: _T = end.value
        return result
    coroutine.close()
    raise TypeError(fault)
