"""
asyncio beside Twisted: its libraries in coroutines that Twisted's programs have anyway.

Handlers need nothing of this to await what is asyncio's.  It is for other coroutines, such as those
of C{twisted.web}'s resources and Klein's routes, and for handlers that catch a deadline.  It must
not know servers.  (reactor thread)
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import AbstractEventLoop, CancelledError
from collections.abc import Awaitable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from types import CoroutineType
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError as DeferredCancelled
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from sockserve.core.asyncio_tasks import AsyncioTask, DeadlineCancelled, current_task
from sockserve.core.logs import Topic, log_raised, logger
from sockserve.core.reactors import event_loop_of
from sockserve.core.tasks import Resumable, Task

__all__ = ["DeadlineCancelled", "raising_reason", "run"]

_T = TypeVar("_T")

_log = logger(Topic.HANDLERS)


def run(awaitable: Awaitable[_T]) -> Deferred[_T]:
    """
    Run a coroutine as a handler's is run: it may await Deferreds, and where the reactor runs on an
    event loop of asyncio's, what is asyncio's too.  It begins at once; or, if the reactor does not
    run yet and has such a loop, with that.

    @return: a Deferred of what the coroutine returns or raises.  To cancel it raises
        C{CancelledError} where the coroutine waits: Twisted's, or asyncio's if it waits for that.
    """
    coroutine = awaitable if isinstance(awaitable, CoroutineType) else _result_of(awaitable)
    result: Deferred[_T] = Deferred(lambda _: task.cancel(DeferredCancelled()))

    def ended(value: Any, error: BaseException | None) -> None:
        if not result.called:
            if error is None:
                result.callback(value)
            else:
                result.errback(Failure(error))
        elif error is not None and not isinstance(error, CancelledError | DeferredCancelled):
            log_raised(_log, "a coroutine that was cancelled raised", error)

    loop, is_running = _event_loop()
    task = Task(_driven(coroutine, loop), ended)
    if loop is None or is_running:
        task.start()
    else:
        loop.call_soon(task.start)
    return result


@contextmanager
def raising_reason() -> Iterator[None]:
    """
    Raise the reason itself where asyncio's code in this section has been cancelled by sockserve: a
    deadline, which is a C{TimeoutError}, or that the client has gone, which is a
    C{ConnectionError}.  Any other C{CancelledError} passes.
    """
    try:
        yield
    except (CancelledError, ExceptionGroup) as error:
        task = current_task()
        reason = None if task is None else task.reason
        if task is None or reason is None or not _is_cancellation(error):
            raise
        task.reason = None
        task.uncancel()
        raise reason from error


def _is_cancellation(error: BaseException) -> bool:
    """Whether C{error} is no more than that something was cancelled.  (Of a deadline in its body a
    C{TaskGroup} makes a group before Python 3.13.)"""
    return not isinstance(error, ExceptionGroup) or error.split(DeadlineCancelled)[1] is None


async def _result_of(awaitable: Awaitable[_T]) -> _T:
    return await awaitable


def _driven(coroutine: Coroutine[Any, Any, Any], loop: AbstractEventLoop | None) -> Resumable:
    return coroutine if loop is None else AsyncioTask(coroutine, loop, copy_context())


def _event_loop() -> tuple[AbstractEventLoop | None, bool]:
    """asyncio's event loop, and whether it runs."""
    try:
        return asyncio.get_running_loop(), True
    except RuntimeError:
        return event_loop_of(sys.modules.get("twisted.internet.reactor")), False
