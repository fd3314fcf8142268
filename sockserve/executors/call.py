"""
Calls: functions that may block, as jobs of an executor.

This room owns the way of a function's result back to the reactor.  It must not know where jobs
run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from sockserve.interfaces import IJob, Outcome

__all__ = ["Call"]

_T = TypeVar("_T")


@implementer(IJob)
class Call(Generic[_T]):
    """
    A function to be called on a worker thread.

    @ivar result: a Deferred that fires with what the function returns or raises, or with an
        C{OSError} when there is no thread for it.
    """

    __slots__ = ("_arguments", "_function", "_outcome", "result")

    def __init__(self, function: Callable[..., _T], arguments: tuple[Any, ...]) -> None:
        self._function = function
        self._arguments = arguments
        self._outcome: _T | Failure | None = None
        self.result: Deferred[_T] = Deferred()

    def serve(self) -> Outcome:
        """Call the function. (worker thread)"""
        try:
            self._outcome = self._function(*self._arguments)
        except BaseException:
            self._outcome = Failure()
        return Outcome.OK

    def started(self) -> None:
        """Ignored: no caller waits for the beginning. (reactor thread)"""

    def runs_long(self) -> None:
        """Ignored: a caller waits for the result, however long that takes. (reactor thread)"""

    def forked(self) -> None:
        """Never called: a child could not hand the result back. (reactor thread)"""

    def ended(self, outcome: Outcome) -> None:
        """Hand over what the function returned or raised. (reactor thread)"""
        self.result.callback(self._outcome)  # type: ignore[arg-type]  # a Failure is raised

    def failed(self, error: OSError) -> None:
        """Tell that there is no thread to be had. (reactor thread)"""
        self.result.errback(Failure(error))
