"""
Tasks: one coroutine driven on the reactor, cheaply.

This room owns the driving: resuming, cancelling, and telling when it is over.  It
must not know what the coroutine does or what a connection is.

Why not L{twisted.internet.defer.ensureDeferred}: a coroutine that waits for the
next line does so tens of thousands of times a second, and two thirds of what that
costs there is making, chaining and unwinding a Deferred with its Failure handling.
Here a stream hands out a L{Wakeup}, which the driver resumes directly.  To anyone
else a L{Wakeup} is an ordinary Deferred, so stream methods can be awaited from any
coroutine that Twisted drives.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

__all__ = ["Cork", "Task", "Wakeup"]


def _drop(failure: Failure) -> None:
    """The outcome of what nobody waits for any more."""


class Wakeup(Deferred[None]):
    """What a stream method awaits.  Fired at most once, by the stream."""

    #: The task that waits, when it is a L{Task} and not some other driver.
    task: Task | None = None

    def wake(self) -> None:
        """What was waited for has happened; the stream's state says what."""
        task = self.task
        if task is not None:
            self.task = None
            task.resume(None)
        elif not self.called:
            self.callback(None)

    def __await__(self) -> Generator[Deferred[None], None, None]:
        # One suspension and no result.  Whoever drives resumes with send or throw.
        yield self

    __iter__ = __await__


class Cork(Protocol):
    """What holds output back while a task runs, so that one turn is one write."""

    corked: bool

    def uncork(self) -> None:
        """The task waits or is over: send what was held back."""


class Task:
    """
    Drives one coroutine.  Everything runs on the reactor thread.

    @param coroutine: what to drive; L{start} runs it until it first waits.
    @param done: called once with what the coroutine returned and what it raised; one of
        them is None.
    @param cork: corked while the coroutine runs, uncorked whenever it waits.
    """

    __slots__ = ("_context", "_cork", "_coroutine", "_done", "_interrupt", "_waiting")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        done: Callable[[Any, BaseException | None], object],
        cork: Cork | None = None,
    ) -> None:
        self._coroutine = coroutine
        self._done = done
        self._cork = cork
        self._context = copy_context()
        #: What the coroutine awaits; None while it runs and when it is over.
        self._waiting: Deferred[Any] | None = None
        #: What to throw into the coroutine as soon as it waits.
        self._interrupt: BaseException | None = None

    def start(self) -> None:
        """Run the coroutine until it waits for the first time, or to its end."""
        self._step(self._coroutine.send, None)

    def resume(self, result: None) -> None:
        """The L{Wakeup} that is awaited has happened."""
        self._waiting = None
        self._step(self._coroutine.send, result)

    def cancel(self, reason: BaseException) -> None:
        """
        Raise C{reason} in the coroutine where it waits: at once, or as soon as it
        waits if it runs just now.  A Deferred it awaits is cancelled.
        """
        waiting = self._waiting
        if waiting is None:
            self._interrupt = reason
        elif type(waiting) is Wakeup:
            waiting.task = self._waiting = None
            self._step(self._coroutine.throw, reason)
        else:
            self._interrupt = reason
            waiting.cancel()

    def abandon(self) -> None:
        """
        Stop driving: close the coroutine.  One that awaits even so is left to the
        garbage collector.
        """
        waiting, self._waiting = self._waiting, None
        if type(waiting) is Wakeup:
            waiting.task = None
        try:
            self._coroutine.close()
        except RuntimeError:
            pass

    def _fired(self, result: Any) -> None:
        if self._waiting is None:  # abandoned
            return
        self._waiting = None
        if not isinstance(result, Failure):
            self._step(self._coroutine.send, None)
        elif self._interrupt is not None and result.check(CancelledError):
            reason, self._interrupt = self._interrupt, None
            self._step(self._coroutine.throw, reason)
        else:
            self._step(result.throwExceptionIntoGenerator, self._coroutine)

    def _step(self, advance: Callable[[Any], Any], argument: Any) -> None:
        cork = self._cork
        if cork is not None:
            cork.corked = True
        try:
            awaited = self._context.run(advance, argument)
            while type(awaited) is not Wakeup or self._interrupt is not None:
                if self._interrupt is not None:
                    reason, self._interrupt = self._interrupt, None
                    if isinstance(awaited, Deferred):
                        awaited.addErrback(_drop)
                        awaited.cancel()
                elif isinstance(awaited, Deferred):
                    break
                else:
                    reason = TypeError(
                        f"a handler can await Deferreds and coroutines, not {awaited!r}"
                        " (for an asyncio future: Deferred.fromFuture)"
                    )
                awaited = self._context.run(self._coroutine.throw, reason)
        except StopIteration as end:
            self._end(end.value, None)
        except BaseException as error:
            self._end(None, error)
        else:
            self._waiting = awaited
            if type(awaited) is Wakeup:
                awaited.task = self
            else:
                awaited.addBoth(self._fired)
            if cork is not None:  # last: sending may be what is waited for
                cork.uncork()

    def _end(self, result: Any, error: BaseException | None) -> None:
        if self._cork is not None:
            self._cork.uncork()
        self._done(result, error)
