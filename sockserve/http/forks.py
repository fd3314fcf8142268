"""
Forks of a handler's own: a child has its connection itself, as there is no reactor where it is.

This room owns which request each thread serves.  It must not know what a request is.
"""

from __future__ import annotations

import contextlib
import os
from threading import get_ident
from typing import Protocol

__all__ = ["Served", "served"]


class Served(Protocol):
    """A request that a handler serves."""

    def acquire_connection(self) -> None:
        """
        Have the connection itself. (handler's thread)

        @raise BrokenPipeError: it has ended.
        """


#: The request that each thread serves, by the thread's C{get_ident}.  (A C{threading.local} takes
#: five times as long.)
served: dict[int, Served] = {}


def _before_fork() -> None:
    request = served.get(get_ident())
    if request is not None:
        with contextlib.suppress(BrokenPipeError):
            request.acquire_connection()


def _after_in_child() -> None:
    served.clear()  # they are the parent's to answer


os.register_at_fork(before=_before_fork, after_in_child=_after_in_child)
