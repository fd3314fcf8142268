"""
Output: Twisted's log, as the messages of a command of Django's.

This room owns which lines are shown, and where.  It must not know who logs. (any thread)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, cast

from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    globalLogBeginner,
    globalLogPublisher,
)
from zope.interface import provider

from sockserve.core.logs import Topic

__all__ = ["Stream", "log_shown"]


class Stream(Protocol):
    """C{stdout} or C{stderr} of a command."""

    def write(self, msg: str) -> object:
        """Write a line, or several."""

    def flush(self) -> object:
        """Have them out, be it into a file or a pipe."""


@contextmanager
def log_shown(stdout: Stream, stderr: Stream, verbosity: int) -> Iterator[None]:
    """
    Show the log while a block runs: warnings, errors and tracebacks on C{stderr}, the rest on
    C{stdout}.

    @param verbosity: Django's.  0: warnings and errors; 1: what sockserve says, too; 2: and all
        others; 3: and what is for debugging.
    """
    observer = _observer(stdout, stderr, verbosity)
    if globalLogBeginner._temporaryObserver is not None:  # nobody has set up the log
        globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    else:
        globalLogPublisher.addObserver(observer)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(observer)


def _observer(stdout: Stream, stderr: Stream, verbosity: int) -> ILogObserver:
    """The observer that L{log_shown} adds."""
    least = {0: LogLevel.warn, 3: LogLevel.debug}.get(verbosity, LogLevel.info)

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        if level >= LogLevel.warn:
            failure = event.get("log_failure")
            told = formatEvent(event)
            stderr.write(told if failure is None else f"{told}\n{failure.getTraceback()}")
        elif level >= least and (verbosity > 1 or _is_ours(event)):
            stdout.write(formatEvent(event))
            stdout.flush()

    return cast(ILogObserver, observe)


def _is_ours(event: LogEvent) -> bool:
    """Whether it is of one of our topics."""
    name = event.get("log_namespace")
    return isinstance(name, str) and name.partition(".")[0] == str(Topic.SERVICE)
