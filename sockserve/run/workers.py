"""
Workers: the settings of where a handler runs, and the executor they come to.

This room owns how they go together, with each other and with the handler.  It must not know whence
requests come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from sockserve.core.handler_kinds import handler_kind, handler_name
from sockserve.core.messages import about
from sockserve.executors import make_executor
from sockserve.interfaces import ConfigurationError, IExecutor

__all__ = ["WORKERS", "WorkerSettings", "check_workers", "make_workers", "place_of"]

#: Where blocking handlers run if nobody says.
DEFAULT_WORKERS = "threads"

#: The values of C{concurrency}, and how a summary says what blocking handlers run on.
WORKERS = {"serial": "one thread", "threads": "threads", "fork": "child processes"}


class WorkerSettings(Protocol):
    """
    The settings of a server's or a source's workers, and of the handler they are for.

    @ivar handler: a handler class, or any callable that makes a handler.
    @ivar concurrency: C{serial}, C{threads} or C{fork}; None for the handler's default.
    @ivar threads: the most threads; None for the default.
    @ivar max_children: the most children at once; None for the default.
    """

    @property
    def handler(self) -> Callable[..., Any]: ...  # noqa: D102 (an ivar)
    @property
    def concurrency(self) -> str | None: ...  # noqa: D102
    @property
    def threads(self) -> int | None: ...  # noqa: D102
    @property
    def max_children(self) -> int | None: ...  # noqa: D102


def place_of(config: WorkerSettings) -> str:
    """The place where the handler runs, in words for a summary."""
    if handler_kind(config.handler).is_coroutine:
        return "the reactor"
    return WORKERS[config.concurrency or DEFAULT_WORKERS]


def make_workers(reactor: IReactorTime, config: WorkerSettings) -> IExecutor | None:
    """
    Make the executor of a handler that blocks.

    @return: None for a coroutine, which needs none.
    @raise ConfigurationError: the system cannot fork safely.
    """
    if handler_kind(config.handler).is_coroutine:
        return None
    with about("concurrency"):
        return make_executor(
            reactor,
            config.concurrency or DEFAULT_WORKERS,
            threads=config.threads,
            max_children=config.max_children,
        )


def check_workers(config: WorkerSettings) -> None:
    """
    Check the settings of workers against one another and the handler.

    @raise ConfigurationError: two of them do not go together.
    """
    kind = handler_kind(config.handler)
    if kind.is_coroutine:
        methods = "its methods" if kind.is_http else "handle"
        for word, value in (
            ("concurrency", config.concurrency),
            ("threads", config.threads),
            ("max-children", config.max_children),
        ):
            if value is not None:
                raise ConfigurationError(
                    f"{word}: handler {handler_name(config.handler)} is async def and runs on the"
                    f" reactor; leave {word} out, or write {methods} without async",
                    word,
                )
    if config.threads is not None and (config.concurrency or DEFAULT_WORKERS) != "threads":
        raise ConfigurationError(
            f"threads: goes with concurrency threads, not {config.concurrency}", "threads"
        )
    if config.max_children is not None and config.concurrency != "fork":
        raise ConfigurationError("max-children: goes with concurrency fork", "max-children")
