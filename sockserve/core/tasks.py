"""
Tasks: one coroutine driven on the reactor, cheaply.

This room owns the driving: resuming, cancelling, and telling when it has ended.  It
must not know what the coroutine does or what a connection is. (reactor thread)

Why not C{twisted.internet.defer.ensureDeferred}: a coroutine that waits for the
next line does so tens of thousands of times a second, and there each time makes, chains
and unwinds a Deferred.  Here a stream hands out a L{Wakeup}, which the driver resumes
directly: a third of the time.  To anyone else a L{Wakeup} is an ordinary Deferred, so
stream methods can be awaited from any coroutine that Twisted drives.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, get_running_loop
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.forking import end_child, is_child, last_fork
from sockserve.core.logs import Topic, log_raised, logger
from sockserve.core.reactors import NEEDS_LOOP

__all__ = ["Cork", "Resumable", "Task", "Wakeup", "drop"]

_log = logger(Topic.HANDLERS)


def drop(failure: Failure) -> None:
    """Ignore the outcome of a Deferred that nothing waits for any more."""


def _not_awaitable(awaited: object) -> TypeError:
    fault = f"a handler can await Deferreds and coroutines, not {awaited!r}"
    if awaited is None or hasattr(awaited, "_asyncio_future_blocking"):
        fault += f", which is asyncio's; {NEEDS_LOOP}"
    return TypeError(fault)


class Wakeup(Deferred[None]):
    """
    The Deferred that a stream method awaits.  A task leaves it as it found it, so that the
    next wait can use it again; until something else has waited for it as for a Deferred, or it was
    given up: then it was called, or has callbacks.

    A task of asyncio's takes it for a future, so that streams can be awaited in those too.
    """

    # For all else there is a dictionary.  These two are asked for at each wait, and a slot is found
    # at once, other than what the class has as well.
    __slots__ = ("called", "task")

    def __init__(self) -> None:
        # As Deferred's, which has no canceller and no debugging to set up here.
        self._callbacks = []
        self.called = False
        #: The task that waits, when it is a L{Task} and not some other driver.
        self.task: Task | None = None

    _canceller = None

    def wake(self) -> None:
        """Resume the one that waits: something has happened; the stream's state says what."""
        task = self.task
        if task is not None:
            self.task = None
            task.step(task.coroutine.send, None)
        elif not self.called:
            self.callback(None)

    def __await__(self) -> Any:
        # One suspension and no result; whoever drives resumes with send or throw.  A
        # tuple's iterator is a generator's equal here and costs half.
        return iter((self,))

    __iter__ = __await__

    # What a task of asyncio's calls, as of a future

    #: Always true, though it be set: it is awaited, and not merely yielded.
    _asyncio_future_blocking = property(lambda self: True, lambda self, value: None)

    #: The future in whose name that task is told, once it waits.
    _future: Future[None] | None = None

    def get_loop(self) -> AbstractEventLoop:
        """The event loop of the task that asks."""
        return get_running_loop()

    def add_done_callback(
        self, callback: Callable[[Future[None]], object], *, context: Context
    ) -> None:
        """Have the loop call C{callback} when this has happened, with a future that says how."""
        self._future = get_running_loop().create_future()
        self._future.add_done_callback(callback, context=context)
        self.addBoth(self._tell_future)

    @override
    def cancel(self, msg: object = None) -> bool:  # type: ignore[override]
        """Wait no more."""
        is_cancelled = self._future is not None and self._future.cancel(msg)
        super().cancel()
        return is_cancelled

    def _tell_future(self, _: object) -> None:
        assert self._future is not None
        if not self._future.done():
            self._future.set_result(None)


class Resumable(Protocol):
    """The part of a coroutine that a task needs."""

    def send(self, value: Any, /) -> object:
        """Go on until it waits; give what it awaits."""

    def throw(self, error: BaseException, /) -> object:
        """Likewise, with C{error} raised where it has waited; C{GeneratorExit} to give it up."""


class Cork(Protocol):
    """
    Output that is held back while a task runs, so that one turn is one write.

    @ivar corked: whether it is held back; set by the task.
    """

    corked: bool

    @property
    def queued_bytes(self) -> int:
        """How many bytes have not left yet that the task has written before."""

    def send_held(self) -> None:
        """Send what was held back, as far as the client takes it."""

    def uncork(self) -> None:
        """Hold nothing back any more: the task waits or has ended.  What was held back leaves now,
        or at the end of the turn."""


class Task:
    """
    The drive of one coroutine, from wait to wait.

    @param coroutine: L{start} runs it until it first waits.
    @param done: called once with what the coroutine returned and what it raised; one of
        them is None.
    @param cork: corked while the coroutine runs, uncorked whenever it waits.
    @param context: what the coroutine's context variables live in; by default a copy of
        the current one.
    @ivar coroutine: the coroutine.
    @ivar waiting: what the coroutine awaits; None while it runs and when it has ended.
    @ivar has_ended: whether it has returned or raised.
    """

    __slots__ = ("_context", "_cork", "_done", "_interrupt", "coroutine", "has_ended", "waiting")

    def __init__(
        self,
        coroutine: Resumable,
        done: Callable[[Any, BaseException | None], object],
        cork: Cork | None = None,
        context: Context | None = None,
    ) -> None:
        # For good
        self.coroutine = coroutine
        self.has_ended = False
        self._done = done
        self._cork = cork
        self._context = copy_context() if context is None else context
        # For one wait
        self.waiting: Deferred[Any] | None = None
        #: What to throw into the coroutine as soon as it waits.
        self._interrupt: BaseException | None = None

    def attach(self, awaited: object) -> None:
        """Drive a coroutine, not L{start}ed here, that already waits for C{awaited}."""
        if type(awaited) is Wakeup or isinstance(awaited, Deferred):
            self._wait(awaited)
        else:
            self.step(self.coroutine.throw, _not_awaitable(awaited))

    def start(self) -> None:
        """Run the coroutine until it waits for the first time, or to its end."""
        self.step(self.coroutine.send, None)

    def cancel(self, reason: BaseException) -> None:
        """
        Raise C{reason} in the coroutine where it waits: at once, or as soon as it
        waits if it runs just now.  A Deferred it awaits is cancelled.
        """
        waiting = self.waiting
        if waiting is None:
            self._interrupt = reason
        elif type(waiting) is Wakeup:
            waiting.task = None
            waiting.called = True
            self.step(self.coroutine.throw, reason)
        else:
            self._interrupt = reason
            waiting.cancel()

    def is_cancelling(self) -> bool:
        """Whether there is a L{cancel} that has not been raised yet."""
        return self._interrupt is not None

    def take_back(self) -> None:
        """Forget a L{cancel} that has not been raised yet: whoever waited has made do."""
        self._interrupt = None

    def abandon(self) -> None:
        """
        Stop driving: close the coroutine.  What it raises at that is logged, as is that it waits
        even so; then it is left to the garbage collector.
        """
        waiting, self.waiting = self.waiting, None
        if type(waiting) is Wakeup:
            waiting.task = None
            waiting.called = True
        try:
            self.coroutine.throw(GeneratorExit())
            raise RuntimeError("the coroutine waits though it is given up")
        except (GeneratorExit, StopIteration):
            pass
        except Exception:
            log_raised(_log, "a coroutine that was given up raised")

    def _fired(self, result: object) -> None:
        if self.waiting is None:  # abandoned
            return
        if not isinstance(result, Failure):
            self.step(self.coroutine.send, None)
        elif self._interrupt is not None:
            # Whatever a Deferred that is cancelled says to that.
            reason, self._interrupt = self._interrupt, None
            if not result.check(CancelledError):
                reason.__cause__ = result.value
            self.step(self.coroutine.throw, reason)
        else:
            self.step(result.throwExceptionIntoGenerator, self.coroutine)

    def step(self, advance: Callable[[Any], object], argument: object) -> None:
        """
        Run the coroutine until it waits again, or to its end.

        @param advance: what has it go on: one of its methods, mostly.
        @param argument: what that is given.
        """
        self.waiting = None
        cork = self._cork
        if cork is not None:
            if cork.queued_bytes:  # it goes on in the turn in which it has written that
                cork.send_held()
            cork.corked = True
        try:
            awaited = self._context.run(advance, argument)
            while type(awaited) is not Wakeup or self._interrupt is not None:
                if self._interrupt is not None:
                    reason, self._interrupt = self._interrupt, None
                    if isinstance(awaited, Deferred):
                        awaited.addErrback(drop)
                        awaited.cancel()
                elif isinstance(awaited, Deferred):
                    break
                else:
                    reason = _not_awaitable(awaited)
                awaited = self._context.run(self.coroutine.throw, reason)
        except StopIteration as end:
            result = end.value
        except BaseException as error:
            self._end(None, error)
            return
        else:
            if type(awaited) is Wakeup and last_fork.thread is None:  # as L{_wait}
                self.waiting = awaited
                awaited.task = self
            else:
                self._wait(awaited)
            if cork is not None:  # last: sending may be what is waited for
                cork.uncork()
            return
        # Not from within: the next request may be served by it, whose errors are not this one's.
        self._end(result, None)
        del result  # an error's traceback leads to this frame: a circle, otherwise

    def _wait(self, awaited: Deferred[Any]) -> None:
        if last_fork.thread is not None and is_child():  # there is no reactor to wait for
            end_child()
        self.waiting = awaited
        if type(awaited) is Wakeup:
            awaited.task = self
        else:
            awaited.addBoth(self._fired)

    def _end(self, result: Any, error: BaseException | None) -> None:
        self.has_ended = True
        if self._cork is not None:
            self._cork.uncork()
        self._done(result, error)
