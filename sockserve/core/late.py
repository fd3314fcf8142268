"""
Late imports: modules, and names of a page, that are imported when they are first asked for.

This room owns that this is safe for threads and for children that are forked meanwhile.  It must
not know which modules these are.
"""

from __future__ import annotations

import importlib
import logging  # noqa: F401  so that its fork handlers are registered first
import os
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from types import ModuleType
from typing import Any

__all__ = ["LateModule", "show_late"]

#: How long a fork waits at most, until there is a moment without late imports of other threads: a
#: module that forks while it is imported may be what a late import waits for.
FORK_WAIT_SECONDS = 5

#: How many late imports each thread has under way.  No lock is held while it imports: it may have
#: to wait for another thread's import, which Python resolves unless that waits for our lock.
_under_way: Counter[int] = Counter()
_changed = threading.Condition()


def _import(name: str) -> ModuleType:
    thread = threading.get_ident()
    try:
        with _changed:
            _under_way[thread] += 1
        return importlib.import_module(name)
    finally:
        with _changed:
            _under_way[thread] -= 1
            if _under_way[thread] <= 0:
                del _under_way[thread]
                _changed.notify_all()


def _before_fork() -> None:
    _changed.acquire()
    # Of two threads that import and fork, neither waits for the other.
    if threading.get_ident() not in _under_way:
        _changed.wait_for(lambda: not _under_way, FORK_WAIT_SECONDS)


def _after_fork() -> None:
    _changed.release()


def _after_fork_in_child() -> None:
    for thread in _under_way.keys() - {threading.get_ident()}:  # they are not here
        del _under_way[thread]
    _changed.release()


# A fork waits for the late imports of other threads, for which its child would wait for ever.  What
# is imported asks for loggers, so a fork has to wait before it takes C{logging}'s lock: what was
# registered last is called first, and that is why C{logging} is imported above.
os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
)


class LateModule:
    """
    A module that is imported as soon as something of it is asked for, as by the C{lazy import} of
    Python 3.15.  A type checker is to be shown the module itself.

    @param name: the module's, dotted.
    """

    def __init__(self, name: str) -> None:
        self.__name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # who looks at all that a module has is not to import it
            raise AttributeError(name)
        value = getattr(_import(self.__name), name)
        setattr(self, name, value)  # the next time it is found at once
        return value


def show_late(page: str, rooms: Mapping[str, str]) -> None:
    """
    Have a module show names that are imported from their rooms late.

    @param page: the name of the module, which calls this.
    @param rooms: the module of each name.  (One that a module of the page's own package has as well
        is that module's as soon as it is imported, so it cannot be shown late.)
    """
    shown = vars(sys.modules[page])

    def find(name: str) -> Any:
        if name not in rooms:
            raise AttributeError(f"module {page!r} has no attribute {name!r}")
        shown[name] = value = getattr(_import(rooms[name]), name)
        return value  # the next time it is found at once

    def names() -> list[str]:
        return sorted({*shown, *rooms})

    shown.update(__getattr__=find, __dir__=names)
