"""
Executors: the threads and child processes that blocking handlers run on.

This page owns the choice between them by the name that users write.  It must not know jobs.
"""

from __future__ import annotations

from typing import Any

from sockserve.executors.fork import DEFAULT_MAX_CHILDREN, ForkExecutor
from sockserve.executors.threads import DEFAULT_THREADS, ThreadExecutor
from sockserve.interfaces import ConfigurationError, IExecutor

__all__ = ["make_executor"]


def make_executor(
    reactor: Any, name: str, *, threads: int | None = None, max_children: int | None = None
) -> IExecutor:
    """
    Make the executor called C{name}.

    @param reactor: the reactor that jobs come from.
    @param name: C{serial}, C{threads} or C{fork}.
    @param threads: the most threads, for C{threads}; None for the default.
    @param max_children: the most children at once, for C{fork}; None for the default.
    @raise ConfigurationError: there is none of that name, or a number is less than 1.
    """
    if name == "serial":
        return ThreadExecutor(reactor, 1)
    if name == "threads":
        return ThreadExecutor(reactor, DEFAULT_THREADS if threads is None else threads)
    if name == "fork":
        return ForkExecutor(reactor, DEFAULT_MAX_CHILDREN if max_children is None else max_children)
    raise ConfigurationError(f"concurrency {name!r}: choose serial, threads or fork")
