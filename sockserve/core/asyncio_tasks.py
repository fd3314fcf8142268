"""
Tasks of asyncio's: a handler's coroutine, as asyncio's code sees it.

This room owns what a coroutine may await where the reactor runs on an event loop of asyncio's
beside Deferreds and streams: asyncio's futures, its tasks, and C{None}; and how such a wait is
ended.  It must not know what the coroutine does. (reactor thread)

The coroutine is driven by a L{sockserve.core.tasks.Task}, as it is without asyncio, so streams and
Deferreds resume it at once and not in the loop's next turn.  An L{AsyncioTask} is put between the
two: the driver takes it for the coroutine, and gets a L{Wakeup} to wait for in place of what is
asyncio's; asyncio's code takes it for the current task.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import (
    AbstractEventLoop,
    CancelledError,
    _enter_task,
    _get_running_loop,
    _leave_task,
)
from collections.abc import Coroutine
from contextvars import Context, copy_context
from traceback import walk_tb
from types import CoroutineType
from typing import Any, Final

from twisted.internet.defer import Deferred
from typing_extensions import override

from sockserve.core.reactors import NEEDS_LOOP
from sockserve.core.tasks import Wakeup, drop
from sockserve.interfaces import DeadlineExpired

__all__ = [
    "AsyncioTask",
    "DeadlineCancelled",
    "current_task",
    "explain",
    "reason_of",
]

#: What a coroutine awaits that gives way for one turn of the loop: C{asyncio.sleep(0)}.
_TURN: Final = object()

#: The modules of asyncio whose coroutines catch no error but C{CancelledError}.
_PLAIN_MODULES = frozenset(
    f"asyncio.{name}" for name in ("locks", "queues", "taskgroups", "tasks", "threads", "timeouts")
)

_OURS = __name__.partition(".")[0]


class DeadlineCancelled(CancelledError, DeadlineExpired):
    """
    A deadline, as it is raised in a handler that waits for something of asyncio's: the
    C{CancelledError} that asyncio's code expects.
    """


def reason_of(error: CancelledError) -> Exception:
    """
    The reason for which a coroutine was cancelled that has just let C{error} pass: a deadline, or
    that its client has gone; else an error that says no more than that it was.
    """
    task = current_task()
    if task is not None and task.reason is not None:
        return task.reason
    return RuntimeError(f"the handler was cancelled by asyncio's means: {error!r}")


def explain(error: Exception) -> None:
    """Add what to do to an error that code of asyncio's has raised: for want of an event loop, or
    for a Deferred."""
    if isinstance(error, ExceptionGroup):
        for each in error.exceptions:
            explain(each)
        return
    text, where = str(error), ""
    for frame, _ in walk_tb(error.__traceback__):
        where = frame.f_globals.get("__name__", "")
    if _get_running_loop() is not None:
        if text.startswith("Task got bad yield: <Deferred"):
            error.add_note("In a task, await deferred.asFuture(asyncio.get_running_loop())")
    elif (where.startswith("asyncio.") or "event loop" in text) and NEEDS_LOOP not in text:
        error.add_note(f"This is asyncio's; {NEEDS_LOOP}")


def current_task() -> AsyncioTask | None:
    """The task of ours that runs; None if none does."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs
        return None
    return task if isinstance(task, AsyncioTask) else None


_exception_of_future = vars(asyncio.Future)["_exception"].__get__


class AsyncioTask(asyncio.Task[Any]):
    """
    One coroutine, to be driven by a L{sockserve.core.tasks.Task}, and a task to asyncio's code.

    C{asyncio.Task.__init__}, which would have the loop drive it, is not called; that of a future
    only when somebody asks for something that needs it (C{_as_future}).  Most handlers never do.

    @ivar coroutine: the coroutine.
    @ivar is_used: whether it is more than that by now: a future, or with a name of its own, or
        cancelled.
    @ivar reason: the last reason for which the driver has ended a wait for something of asyncio's.
    """

    __slots__ = (
        "_awaited", "_error", "_event_loop", "_is_future", "_outside", "_wakeup", "coroutine",
        "is_used", "reason",
    )  # fmt: skip

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any] | None, loop: AbstractEventLoop, outside: Context
    ) -> None:
        """
        @param coroutine: of an C{async def}; None if it is yet to come.
        @param outside: the context in which the loop resumes the driver, which has one of its own
            for the coroutine.
        """
        self.coroutine: Any = coroutine
        self._event_loop = loop
        self._outside = outside
        self.is_used = False
        self._is_future = False
        self.reason: Exception | None = None
        #: What the coroutine awaits; None while it runs.
        self._awaited: Any = None
        #: What the driver waits for, while that is something of asyncio's.
        self._wakeup: Wakeup | None = None
        #: What to raise in the coroutine when it is resumed, or if it runs, when it waits.
        self._error: CancelledError | None = None

    # What the driver calls, as of a coroutine

    def send(self, value: None, error: BaseException | None = None) -> object:
        """
        Run the coroutine until it waits: what it has awaited has happened.

        @param error: what to raise in it there.
        @return: what the driver is to wait for.
        """
        self._awaited = None
        if self._error is not None:
            error, self._error = self._error, None
        loop = self._event_loop
        try:
            _enter_task(loop, self)
        except RuntimeError:  # it is resumed by another task
            return self._send_within(error)
        try:
            coroutine = self.coroutine
            awaited = coroutine.send(value) if error is None else coroutine.throw(error)
        finally:
            _leave_task(loop, self)
            if self._is_future:
                self.settle(sys.exception())
        if type(awaited) is Wakeup and self._error is None:  # as L{wait}
            self._awaited = awaited
            return awaited
        return self.wait(awaited)

    def throw(self, error: BaseException) -> object:
        """
        Raise an error: what is awaited has failed, or is no longer to be waited for; or, if it is
        C{GeneratorExit}, the coroutine is given up.
        """
        if isinstance(error, GeneratorExit):
            self._wakeup = self._error = None
        return self.send(None, error) if self._wakeup is None else self._cancel_wait(error)

    # (There is no close: whatever has that besides is a coroutine to asyncio's code, and no task.)

    # What asyncio's code calls

    @override
    def set_name(self, value: object, /) -> None:
        self.is_used = True
        super().set_name(value)

    @override
    def cancel(self, msg: Any | None = None) -> bool:
        if self.done():
            return False
        self.is_used = True
        super().cancel()  # which does no more than count it
        awaited = self._awaited
        if self._wakeup is not None and awaited is not _TURN and awaited.cancel(msg):
            return True
        if self._error is None:
            self._error = CancelledError() if msg is None else CancelledError(msg)
        if isinstance(awaited, Deferred):
            # As everywhere in asyncio, it is raised when the caller has returned.
            self._event_loop.call_soon(self._cancel_deferred, awaited, context=self._outside)
        return True

    @override
    def uncancel(self) -> int:
        left = super().uncancel()
        if not left:  # as from Python 3.13 on
            self._error = None
        return left

    @override
    def done(self) -> bool:
        return self.coroutine.cr_frame is None

    @override
    def get_loop(self) -> AbstractEventLoop:
        return self._event_loop

    @override
    def get_coro(self) -> Any:
        return self.coroutine

    @override
    def get_name(self) -> str:
        return super().get_name() or self.coroutine.__qualname__

    def get_context(self) -> Context:
        """A copy of the coroutine's context, while it runs; else what it is resumed in."""
        return copy_context() if current_task() is self else self._outside

    @override
    def add_done_callback(self, fn: Any, /, *, context: Context | None = None) -> None:
        self._as_future()
        super().add_done_callback(fn, context=context)

    @override
    def remove_done_callback(self, fn: Any, /) -> int:
        self._as_future()
        return super().remove_done_callback(fn)

    @override
    def result(self) -> Any:
        self._as_future()
        return super().result()

    @override
    def exception(self) -> BaseException | None:
        self._as_future()
        return super().exception()

    @override
    def __await__(self) -> Any:
        self._as_future()
        return super().__await__()

    __iter__ = __await__

    @override
    def __repr__(self) -> str:
        return f"<AsyncioTask {self.coroutine!r}>"

    # Of asyncio.Task, for those that look deeper: anyio, and asyncio's own tools for debugging.
    _loop = property(get_loop)
    _coro = property(get_coro)
    _exception = property(lambda self: _exception_of_future(self) if self._is_future else None)
    _must_cancel = property(lambda self: self._error is not None)
    _fut_waiter = property(
        lambda self: None if self._awaited is _TURN or self._wakeup is None else self._awaited
    )

    # Inside

    def _send_within(self, error: BaseException | None) -> object:
        """L{send}, within a step of another task, which fires what is awaited."""
        other = asyncio.current_task(self._event_loop)
        assert other is not None
        _leave_task(self._event_loop, other)
        try:
            return self.send(None, error)
        finally:
            _enter_task(self._event_loop, other)

    def wait(self, awaited: Any) -> object:
        """
        The coroutine waits: give what the driver is to wait for.  One that cannot wait, or was
        cancelled meanwhile, goes on at once; what it raises then is raised, C{StopIteration} with
        what it returns too.
        """
        if type(awaited) is Wakeup and self._error is None:
            self._awaited = awaited
            return awaited
        if isinstance(awaited, Deferred):
            if self._error is not None:
                awaited.addErrback(drop)
                awaited.cancel()
                return self.send(None)
            self._awaited = awaited
            return awaited
        if awaited is None:
            self._awaited = _TURN
            self._event_loop.call_soon(self._wake, None, context=self._outside)
        elif hasattr(awaited, "_asyncio_future_blocking"):
            if (fault := self._fault_of(awaited)) is not None:
                return self.send(None, RuntimeError(fault))
            self._awaited = awaited
            awaited._asyncio_future_blocking = False
            awaited.add_done_callback(self._wake, context=self._outside)
            if self._error is not None and awaited.cancel(*self._error.args[:1]):
                self._error = None
        else:
            return awaited  # which the driver refuses
        self._wakeup = Wakeup()
        return self._wakeup

    def _fault_of(self, awaited: Any) -> str | None:
        """Why a future cannot be awaited here; None if it can."""
        if awaited is self:
            return f"a task cannot await itself: {self!r}"
        if awaited.get_loop() is not self._event_loop:
            return f"{self!r} awaits {awaited!r}, which is of another event loop"
        return None

    def _wake(self, awaited: asyncio.Future[Any] | None) -> None:
        """Called by the loop: what is awaited has happened."""
        wakeup, self._wakeup = self._wakeup, None
        if wakeup is None:  # it was given up
            return
        if self._error is not None and awaited is not None and not awaited.cancelled():
            # The coroutine is resumed by another error, and will not ask for this future's, which
            # it would log for that; gather's has one when it is cancelled.
            awaited.exception()
        wakeup.wake()

    def _cancel_wait(self, reason: BaseException) -> Wakeup:
        """
        The driver has a reason to end a wait for something of asyncio's, whose code is told of
        that as it is of everything: by a C{CancelledError}, once what it awaits is cancelled.
        """
        assert isinstance(reason, Exception)
        self.reason = reason
        super().cancel()  # which does no more than count it
        if isinstance(reason, DeadlineExpired) and self._awaits_by_itself():
            self._error = DeadlineCancelled(reason.phase)
        else:
            self._error = CancelledError(*reason.args)
        if self._awaited is not _TURN:
            self._awaited.cancel(*self._error.args[:1])
        self._wakeup = Wakeup()
        return self._wakeup

    def _awaits_by_itself(self) -> bool:
        """
        Whether the code that awaits is the handler's own, with nothing in between but asyncio's.

        A library in between is to see nothing but a C{CancelledError}: a C{TimeoutError} it may
        take for one of its own, and try again.
        """
        own = ""
        waiting: object = self.coroutine
        while isinstance(waiting, CoroutineType):
            assert waiting.cr_frame is not None
            module = waiting.cr_frame.f_globals["__name__"]
            package = module.partition(".")[0]
            if package not in (_OURS, own) and module not in _PLAIN_MODULES:
                if own:
                    return False
                own = package
            waiting = waiting.cr_await
        return self._awaited is not _TURN and type(waiting) is type(iter(self._awaited))

    def _cancel_deferred(self, awaited: Deferred[Any]) -> None:
        """Called by the loop: what is awaited is not to be waited for, if it still is."""
        if self._awaited is not awaited or self._error is None:
            return
        if type(awaited) is Wakeup and awaited.task is not None:
            awaited.task.cancel(self._error)
        else:
            awaited.cancel()

    def settle(self, error: BaseException | None) -> None:
        """If the coroutine has ended, by this error, tell those who wait for the task."""
        if not (self._is_future and self.done()):
            return
        if isinstance(error, StopIteration):
            asyncio.Future.set_result(self, error.value)
        elif isinstance(error, CancelledError | GeneratorExit):
            asyncio.Future.cancel(self)
        else:
            assert error is not None
            asyncio.Future.set_exception(self, error)
            self._log_traceback = False  # the driver tells of it

    def _as_future(self) -> None:
        """
        Be a future in earnest, from now on.  How a task has ended is known to itself only if it
        was one by then; else it has returned None.
        """
        if not self._is_future:
            self._is_future = self.is_used = True
            asyncio.Future.__init__(self, loop=self._event_loop)
            self.settle(StopIteration())
