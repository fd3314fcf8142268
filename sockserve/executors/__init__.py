"""
Executors: the places where blocking handlers run: threads, and child processes.

This page owns the choice between them, by the name that users write.  It must not know what a
job serves.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from sockserve.core.reactors import as_reactor
from sockserve.executors.fork import DEFAULT_MAX_CHILDREN, ForkExecutor
from sockserve.executors.threads import DEFAULT_THREADS, ThreadExecutor
from sockserve.interfaces import ConfigurationError, IExecutor

__all__ = ["make_executor"]


def make_executor(
    reactor: IReactorTime, name: str, *, threads: int | None = None, max_children: int | None = None
) -> IExecutor:
    """
    Make the executor called C{name}.

    @param reactor: the reactor that jobs come from.
    @param name: C{serial}, C{threads} or C{fork}.
    @param threads: the most threads, for C{threads}; None for the default.
    @param max_children: the most children at once, for C{fork}; None for the default.
    @raise ConfigurationError: there is none of that name, or the system cannot fork safely
        (Linux before 5.3).
    """
    where = as_reactor(reactor)
    if name == "serial":
        return ThreadExecutor(where, 1)
    if name == "threads":
        return ThreadExecutor(where, DEFAULT_THREADS if threads is None else threads)
    if name == "fork":
        return ForkExecutor(where, DEFAULT_MAX_CHILDREN if max_children is None else max_children)
    raise ConfigurationError(f"concurrency {name!r}: choose serial, threads or fork")
