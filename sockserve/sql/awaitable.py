"""
Awaitable connections: a row's transaction, for a coroutine.

This room owns the way of a statement to a thread, and of its rows back.  It must not know rows of
the table, or when a transaction begins and ends. (reactor thread, but where a method says
otherwise)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from sockserve.executors.threads import ThreadExecutor
from sockserve.sql.store import SQLConnection

__all__ = ["AwaitableConnection"]

_T = TypeVar("_T")


class AwaitableConnection:
    """
    A connection whose statements run on a thread, one after the other.

    @ivar raw: the database's own connection, for L{call}.
    """

    def __init__(self, threads: ThreadExecutor, raw: SQLConnection) -> None:
        self.raw = raw
        self._threads = threads

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> Deferred[list[Any]]:
        """
        Execute a statement.  C{await} it before the next.

        @return: a Deferred that fires with its rows, if it has any.
        """
        return self.call(_execute, self.raw, statement, parameters)

    def call(self, function: Callable[..., _T], *arguments: object) -> Deferred[_T]:
        """
        Call a function that may block, as one that uses L{raw} does.

        @return: a Deferred that fires with what it returns or raises.
        """
        return self._threads.call(function, *arguments)


def _execute(raw: SQLConnection, statement: str, parameters: Sequence[object]) -> list[Any]:
    """Execute a statement, and fetch its rows. (worker thread)"""
    cursor = raw.execute(statement, parameters)
    return [] if cursor.description is None else list(cursor.fetchall())
