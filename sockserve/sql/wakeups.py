"""
Wake-ups: the calls by which sources of SQLite's databases hear of rows that their own process adds.

This room owns the list of these calls.  It must not know what they lead to. (any thread)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

__all__ = ["forget_waiter", "wait_for_rows", "wake_waiters"]

_lock = threading.Lock()
_waiters: dict[str, list[Callable[[], None]]] = {}


def wait_for_rows(path: str, woken: Callable[[], None]) -> None:
    """Have C{woken} called, on whichever thread that is, when this process adds rows."""
    with _lock:
        _waiters.setdefault(os.path.realpath(path), []).append(woken)


def forget_waiter(path: str, woken: Callable[[], None]) -> None:
    """Have C{woken} called no more."""
    real = os.path.realpath(path)
    with _lock:
        left = [each for each in _waiters.get(real, []) if each != woken]
        if left:
            _waiters[real] = left
        else:
            _waiters.pop(real, None)


def wake_waiters(path: str) -> None:
    """Call those who wait: rows were added, and will be there once that is committed."""
    if not _waiters:
        return
    with _lock:
        waiters = list(_waiters.get(os.path.realpath(path), []))
    for woken in waiters:
        woken()
