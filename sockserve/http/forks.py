"""
Forks of a handler's own: a child has its connection itself, as there is no reactor where it is.

This room owns which request each thread serves.  It must not know what a request is.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Protocol

__all__ = ["Served", "served"]


class Served(Protocol):
    """A request that a handler serves."""

    def acquire_connection(self) -> None:
        """
        Have the connection itself. (handler's thread)

        @raise BrokenPipeError: it has ended.
        """


class _Served(threading.local):
    """The request that a thread serves; None between two."""

    request: Served | None = None


served = _Served()


def _before_fork() -> None:
    if served.request is not None:
        with contextlib.suppress(BrokenPipeError):
            served.request.acquire_connection()


def _after_in_child() -> None:
    served.request = None  # it is the parent's to answer


os.register_at_fork(before=_before_fork, after_in_child=_after_in_child)
