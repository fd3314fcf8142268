"""
Python's C{logging} and Twisted's log, joined: what is written to one is in the other, too.

This room owns which level is which, and that nothing goes round.  It must not know who logs, or
where lines end up.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEvent
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from sockserve.core.logs import LEGACY_NAMESPACE, is_twisteds
from sockserve.core.tracebacks import HandlerFailure, folded_traceback

__all__ = ["RecordsToTwisted", "TwistedToRecords", "join_logs"]

#: Twisted's levels, each for C{logging}'s of this number or more; the highest first.
_LEVELS = (
    (logging.CRITICAL, LogLevel.critical),
    (logging.ERROR, LogLevel.error),
    (logging.WARNING, LogLevel.warn),
    (logging.INFO, LogLevel.info),
)

#: By thread: whether a line is on its way from one log to the other.
_passing = threading.local()


class RecordsToTwisted(logging.Handler):
    """
    A handler of C{logging} that writes records to Twisted's log: the logger's name is the
    namespace, and an exception's traceback comes with it. (any thread)
    """

    def __init__(self, observer: ILogObserver | None = None) -> None:
        """@param observer: gets the lines instead of all who observe the log."""
        super().__init__()
        self._observer = observer

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless it has come from there."""
        if getattr(_passing, "is_busy", False):
            return
        levels = (level for number, level in _LEVELS if record.levelno >= number)
        level = next(levels, LogLevel.debug)
        error = record.exc_info[1] if record.exc_info else None
        more = {} if error is None else {"log_failure": Failure(error)}
        _passing.is_busy = True
        try:
            Logger(namespace=record.name, observer=self._observer).emit(
                level, "{text}", text=record.getMessage(), **more
            )
        except Exception:  # a record whose arguments do not fit, for one
            self.handleError(record)
        finally:
            _passing.is_busy = False


@implementer(ILogObserver)
class TwistedToRecords:
    """
    An observer of Twisted's log that writes lines to C{logging}: the namespace is the logger's
    name, and an error comes with its line.  What a handler raises is no more than an error there,
    and its traceback begins with the handler's own code.  What Twisted says of itself, of each port
    that it opens, is for debugging.
    (any thread)
    """

    def __call__(self, event: LogEvent) -> None:
        """Write a line, unless it has come from there."""
        if getattr(_passing, "is_busy", False):
            return
        level = event.get("log_level", LogLevel.info)
        number = next((number for number, each in _LEVELS if each is level), logging.DEBUG)
        if number == logging.INFO and is_twisteds(event):
            number = logging.DEBUG
        elif isinstance(event.get("log_failure"), HandlerFailure):
            number = logging.ERROR
        name = event.get("log_namespace") or LEGACY_NAMESPACE
        logger = logging.getLogger("twisted" if name == LEGACY_NAMESPACE else name)
        _passing.is_busy = True
        try:
            logger.log(number, "%s", formatEvent(event), exc_info=_exc_info(event))
        finally:
            _passing.is_busy = False


def _exc_info(
    event: LogEvent,
) -> tuple[type[BaseException], BaseException, TracebackType | None] | None:
    """The error of a line, as C{logging} has it."""
    failure: Failure | None = event.get("log_failure")
    error = failure.value if failure is not None else None
    if not isinstance(error, BaseException):
        return None
    is_folded = isinstance(failure, HandlerFailure)
    return type(error), error, folded_traceback(error) if is_folded else error.__traceback__


def join_logs(begin: Callable[[ILogObserver], object], root: logging.Logger = logging.root) -> None:
    """
    Have one log: the program's own, if it has set up C{logging}, or else Twisted's.

    @param begin: makes an observer that of Twisted's log; called if the program has set up
        C{logging}.
    @param root: the root of C{logging}'s loggers.
    """
    if root.handlers:
        begin(TwistedToRecords())
    else:
        root.addHandler(RecordsToTwisted())
