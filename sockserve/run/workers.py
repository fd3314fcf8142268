"""
Workers: the settings of where a handler runs.

This room owns how they go together, with each other and with the handler.  It must not know whence
requests come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from sockserve.core.handler_kinds import handler_kind, unwrap
from sockserve.interfaces import ConfigurationError

__all__ = ["WORKERS", "WorkerSettings", "check_workers", "place_of"]

#: The values of C{concurrency}, and how a summary says what blocking handlers run on.
WORKERS = {"serial": "one thread", "threads": "threads", "fork": "child processes"}


class WorkerSettings(Protocol):
    """The settings of a server's or a source's workers, and of the handler they are for."""

    @property
    def handler(self) -> Callable[..., Any]: ...  # noqa: D102 (as ServerConfig's)
    @property
    def concurrency(self) -> str | None: ...  # noqa: D102
    @property
    def threads(self) -> int | None: ...  # noqa: D102
    @property
    def max_children(self) -> int | None: ...  # noqa: D102


def place_of(handler: Callable[..., Any], concurrency: str | None) -> str:
    """What a handler runs on, in words for a summary."""
    if handler_kind(handler).is_coroutine:
        return "the reactor"
    return WORKERS[concurrency or "threads"]


def check_workers(config: WorkerSettings) -> None:
    """
    Check the settings of workers against one another and the handler.

    @raise ConfigurationError: two of them do not go together.
    """
    cls = unwrap(config.handler)
    name = getattr(cls, "__qualname__", repr(cls))
    if handler_kind(config.handler).is_coroutine:
        for word, value in (
            ("concurrency", config.concurrency),
            ("threads", config.threads),
            ("max-children", config.max_children),
        ):
            if value is not None:
                raise ConfigurationError(
                    f"{word}: handler {name} is async def and runs on the reactor; leave"
                    f" {word} out, or write handle without async"
                )
    if config.threads is not None and config.concurrency not in (None, "threads"):
        raise ConfigurationError(
            f"threads: goes with concurrency threads, not {config.concurrency}"
        )
    if config.max_children is not None and config.concurrency != "fork":
        raise ConfigurationError("max-children: goes with concurrency fork")
