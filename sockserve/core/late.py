"""
Late imports: modules, and names of a page, that are imported when they are first asked for.

This room owns that this is safe for threads and for children that are forked meanwhile.  It must
not know which modules these are.
"""

from __future__ import annotations

import importlib
import logging  # noqa: F401  see L{_lock}
import os
import sys
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Any

__all__ = ["LateModule", "show_late"]

#: Held while something is imported, and while a child is forked, as C{logging} does with its own: a
#: child would wait for ever for an import that a thread of its parent had begun.  What is imported
#: asks for loggers, so a fork has to take this lock before C{logging}'s: what was registered last
#: is called first, and that is why C{logging} is imported above.  Reentrant, as what is imported
#: may import late itself.
_lock = threading.RLock()
os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
)


def _import(name: str) -> ModuleType:
    with _lock:
        return importlib.import_module(name)


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
