"""
Connections: Django's to its databases, looked after between requests.

This room owns when those of a thread are closed, as Django does around the requests of its own
servers.  It must not know what is served.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from django.db import close_old_connections, connections, reset_queries

__all__ = ["close_idle_connections", "with_connections"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


def with_connections(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """
    Have a function find no connection that is broken, or older than C{CONN_MAX_AGE}, and leave
    none.

    Blocking handlers are called like that by themselves.  It is for what a coroutine has called on
    a thread, C{await deferToThread(with_connections(store), data)}, and for threads of one's own.
    Within a transaction it changes nothing.

    @return: a function like the one given. (any thread)
    """

    @wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        reset_queries()
        close_old_connections()
        try:
            return function(*args, **kwargs)
        finally:
            close_old_connections()

    return called


def close_idle_connections() -> None:
    """Close those of this thread, which has no use for them for long: all that are in no
    transaction. (any thread)"""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
