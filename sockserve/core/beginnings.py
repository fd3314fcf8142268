"""
The beginning of coroutines: what they are to asyncio's code, if the reactor runs on an event loop
of asyncio's.

This room owns the choice, made once for a server, and what a coroutine costs that ends without
waiting.  It must not know what a coroutine does, or how one that waits is driven.
(reactor thread)
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, _enter_task, _leave_task
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from sys import getrefcount
from typing import Any, NamedTuple, TypeAlias
from weakref import getweakrefcount

from twisted.internet.interfaces import IReactorTime
from typing_extensions import override

from sockserve.core.asyncio_tasks import AsyncioTask
from sockserve.core.reactors import event_loop_of
from sockserve.core.tasks import Resumable

__all__ = ["Begin", "Serve", "Waiting", "begin_on", "served_on"]

#: Serves one request: given the server object, the request, and the client's address.
Serve = Callable[[Any, object, object], Resumable]


class Waiting(NamedTuple):
    """
    A coroutine that has begun, and waits.

    @ivar coroutine: what resumes it.
    @ivar awaited: what it awaits.
    """

    coroutine: Resumable
    awaited: object


#: Runs a coroutine until it first waits, and gives it as L{Waiting}; gives None if it ends before,
#: and raises what it raises.  It is to return nothing: what it returns is not told, as that takes
#: an exception (C{StopIteration}), the fiftieth part of a small request.
Begin: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Waiting | None]

#: What the iterator of a coroutine gives that has ended.
_ENDED = object()


def served_on(reactor: IReactorTime, serve: Callable[..., Coroutine[Any, Any, Any]]) -> Serve:
    """
    What serves a server's requests, decided once: C{serve} itself, or where the reactor runs on an
    event loop of asyncio's, C{serve} with each request as a task of it.
    """
    loop = event_loop_of(reactor)
    if loop is None:
        return serve
    outside = copy_context()

    def serve_as_task(server: Any, request: object, client_address: object) -> AsyncioTask:
        return AsyncioTask(serve(server, request, client_address), loop, outside)

    return serve_as_task


def begin_on(reactor: IReactorTime) -> Begin:
    """
    What begins a server's requests, decided once: L{served_on} for those that mostly end without
    waiting.
    """
    loop = event_loop_of(reactor)
    return _begin if loop is None else _TaskBeginner(loop).begin


def _begin(coroutine: Coroutine[Any, Any, Any]) -> Waiting | None:
    awaited = next(coroutine.__await__(), _ENDED)
    return None if awaited is _ENDED else Waiting(coroutine, awaited)


def _begin_within(task: AsyncioTask) -> Waiting | None:
    try:
        return Waiting(task, task.send(None))
    except StopIteration:
        return None


class _FreshTask(AsyncioTask):
    """
    A task whose coroutine has not waited yet: it notes that it is given something to keep.  (Not
    what goes round its own methods, as C{asyncio.Task.set_name(task, name)}.)
    """

    __slots__ = ()

    @override
    def __setattr__(self, name: str, value: object) -> None:
        _set_used(self, True)
        super().__setattr__(name, value)


_set_coroutine = vars(AsyncioTask)["coroutine"].__set__
_set_used = vars(AsyncioTask)["is_used"].__set__


class _TaskBeginner:
    """
    What begins coroutines as tasks of an event loop, each as an L{AsyncioTask}.

    Most end without waiting, and nobody keeps the task, or has given it something to keep.  Then it
    is the next one's task as well: making one takes longer than all else that asyncio costs a
    request.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._outside = copy_context()
        self._task = task = self._make_task()
        #: How many references there are to a task that nobody knows.
        self._references = getrefcount(task)

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> Waiting | None:
        """As L{Begin}."""
        loop, task = self._loop, self._task
        try:
            _enter_task(loop, task)
        except RuntimeError:  # it begins within a step of another task
            return _begin_within(AsyncioTask(coroutine, loop, self._outside))
        _set_coroutine(task, coroutine)
        try:
            awaited = next(coroutine.__await__(), _ENDED)
        except BaseException as error:
            _leave_task(loop, task)
            self._replace(task).settle(error)
            raise
        _leave_task(loop, task)
        if awaited is _ENDED:
            if task.is_used or getrefcount(task) != self._references or getweakrefcount(task):
                self._replace(task).settle(StopIteration())
            return None
        try:
            return Waiting(task, self._replace(task).wait(awaited))
        except StopIteration:  # it could not wait, and has made do
            return None

    def _replace(self, task: AsyncioTask) -> AsyncioTask:
        """Make another task for the next coroutine, and give back this one, which is not for it."""
        self._task = self._make_task()
        task.__class__ = AsyncioTask
        return task

    def _make_task(self) -> AsyncioTask:
        task = _FreshTask(None, self._loop, self._outside)
        _set_used(task, False)
        return task
