"""
Loggers: one for each topic a reader of the log may pick out.

This room owns the namespaces that lines of the log carry.  They are named after what the lines
are about, so that a filter outlives a move of the code.  It must not know who logs.
"""

from __future__ import annotations

import logging
from enum import StrEnum

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel

from sockserve.core.tracebacks import HandlerFailure

__all__ = ["LEGACY_NAMESPACE", "Topic", "is_twisteds", "log_raised", "logger", "standard_logger"]

#: The namespace of lines that were written as Twisted did before it had namespaces.
LEGACY_NAMESPACE = "log_legacy"


class Topic(StrEnum):
    """The namespace of a line of the log: what it is about."""

    #: Starting and stopping: what is served where, and what could not be ended; and a reactor that
    #: does not turn.
    SERVICE = "sockserve"
    #: Accepting connections, and being unable to.
    LISTENERS = "sockserve.listeners"
    #: Clients that went away, were too slow or failed in a handshake.
    CONNECTIONS = "sockserve.connections"
    #: What handlers raise, and the methods and observers that are called for their requests.
    HANDLERS = "sockserve.handlers"
    #: HTTP requests left without a response, and what handlers write by C{log_message}.
    HTTP = "sockserve.http"
    #: The threads and child processes in which blocking handlers run.
    WORKERS = "sockserve.workers"
    #: What calls that the reactor makes raise, where it is one of ours.
    REACTOR = "sockserve.reactor"
    #: The access log, whose lines go to its file alone, and what keeps it from being written.
    ACCESS = "sockserve.access"


def logger(topic: Topic, observer: ILogObserver | None = None) -> Logger:
    """
    The logger of a topic.

    @param observer: gets its lines instead of all who observe the log.
    """
    return Logger(namespace=topic.value, observer=observer)


def standard_logger(topic: Topic) -> logging.Logger:
    """The same of C{logging}, for programs that have not set up Twisted's log."""
    return logging.getLogger(topic.value)


def log_raised(
    log: Logger, text: str, error: BaseException | None = None, **fields: object
) -> None:
    """
    Log what code of a user's has raised: as critical, like every failure in Twisted's log, which is
    all that a program sees that has not begun a log.

    @param text: the line's format.
    @param error: by default the exception being handled.
    """
    log.failure(text, HandlerFailure(error), LogLevel.critical, **fields)


def is_twisteds(event: LogEvent) -> bool:
    """Whether a line is Twisted's own: by its namespace, or by having none."""
    name = event.get("log_namespace") or LEGACY_NAMESPACE
    return str(name).partition(".")[0] in ("twisted", LEGACY_NAMESPACE)
