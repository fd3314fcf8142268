"""The beginning of coroutines: what they are to asyncio's code, and to the next ones."""

import asyncio
import weakref
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from sockserve.core.beginnings import Begin, Waiting, begin_on
from sockserve.core.tasks import Wakeup

Current = Callable[[], asyncio.Task[Any]]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """It does not run, so it is asked for its current task by name."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def begin(loop: asyncio.AbstractEventLoop) -> Begin:
    reactor: Any = SimpleNamespace(_asyncioEventloop=loop)
    return begin_on(reactor)


@pytest.fixture
def current(loop: asyncio.AbstractEventLoop) -> Current:
    def current() -> asyncio.Task[Any]:
        task = asyncio.current_task(loop)
        assert task is not None
        return task

    return current


async def tells(told: list[object], what: object) -> None:
    told.append(what)


async def raises(error: BaseException) -> None:
    raise error


def expect_end(begin: Begin, coroutine: Coroutine[Any, Any, None], end: str) -> None:
    """It goes on, and ends or raises; then another one can begin."""
    if end == "raises":
        with pytest.raises(LookupError):
            begin(coroutine)
    else:
        assert begin(coroutine) is None
    told: list[object] = []
    assert begin(tells(told, "the next")) is None
    assert told == ["the next"]


def test_without_a_loop_a_coroutine_runs_until_it_waits_or_ends() -> None:
    begin, wakeup = begin_on(SimpleNamespace()), Wakeup()  # type: ignore[arg-type]
    told: list[object] = []

    async def waits() -> None:
        await wakeup
        told.append("resumed")

    assert begin(tells(told, "begun")) is None
    begun = begin(waits())
    assert begun == Waiting(begun.coroutine, wakeup)
    with pytest.raises(StopIteration):
        begun.coroutine.send(None)
    assert told == ["begun", "resumed"]
    with pytest.raises(LookupError):
        begin(raises(LookupError()))


def test_one_that_ends_is_the_current_task_until_then(
    begin: Begin, current: Current, loop: asyncio.AbstractEventLoop
) -> None:
    told: list[str] = []

    async def handler() -> None:
        told.append(repr(current()))

    for _ in range(2):
        begin(handler())
        assert "handler" in told.pop()
    assert asyncio.current_task(loop) is None


def test_those_that_end_at_once_and_keep_nothing_are_one_task(
    begin: Begin, current: Current
) -> None:
    known: set[int] = set()

    async def handler() -> None:
        known.add(id(current()))

    # More than two: a task that is made while there is the one before could have the place of the
    # one before that.
    for _ in range(5):
        begin(handler())
    assert len(known) == 1


def test_one_that_raises_is_no_longer_the_current_task(
    begin: Begin, loop: asyncio.AbstractEventLoop
) -> None:
    expect_end(begin, raises(LookupError()), "raises")
    assert asyncio.current_task(loop) is None


def test_one_that_waits_stays_the_same_task(begin: Begin, current: Current) -> None:
    wakeup = Wakeup()
    tasks = []

    async def waits() -> None:
        tasks.append(current())
        await wakeup
        tasks.append(current())

    begun = begin(waits())
    assert begun.awaited is wakeup
    assert begin(tells([], "another")) is None
    with pytest.raises(StopIteration):
        begun.coroutine.send(None)
    assert tasks == [begun.coroutine, begun.coroutine]


def test_what_somebody_keeps_of_a_task_is_not_of_the_next(begin: Begin, current: Current) -> None:
    """A reference, a weak one, its name, an attribute, or that it was cancelled."""
    kept: list[Any] = []

    def remember(task: asyncio.Task[Any]) -> None:
        kept.append(task)

    def remember_weakly(task: asyncio.Task[Any]) -> None:
        kept.append(weakref.ref(task))

    def name(task: asyncio.Task[Any]) -> None:
        task.set_name("mine")

    def cancel(task: asyncio.Task[Any]) -> None:
        task.cancel()

    def give(task: Any) -> None:
        task.user = "alice"

    async def first(do: Callable[[asyncio.Task[Any]], None]) -> None:
        do(current())

    async def second() -> None:
        task = current()
        assert task.get_name().endswith("second")
        assert task.cancelling() == 0
        assert not hasattr(task, "user")
        for known in kept:
            assert known is not task
            assert not isinstance(known, weakref.ref) or known() is not task

    for do in (remember, remember_weakly, name, cancel, give):
        begin(first(do))
        begin(second())


@pytest.mark.parametrize("end", ["returns", "raises"])
def test_others_that_wait_for_a_task_hear_of_its_end(
    begin: Begin, current: Current, loop: asyncio.AbstractEventLoop, end: str
) -> None:
    tasks: list[asyncio.Task[Any]] = []
    ends: list[asyncio.Task[Any]] = []

    async def handler() -> None:
        task = current()
        tasks.append(task)
        task.add_done_callback(ends.append)
        if end == "raises":
            raise LookupError

    expect_end(begin, handler(), end)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ends == tasks
    assert tasks[0].done()
    if end == "raises":
        assert isinstance(tasks[0].exception(), LookupError)
    else:
        assert tasks[0].result() is None


def test_one_begins_within_another(begin: Begin, current: Current) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def inner() -> None:
        tasks.append(current())

    async def outer() -> None:
        tasks.append(current())
        begin(inner())
        tasks.append(current())

    begin(outer())
    assert tasks[0] is tasks[2]
    assert tasks[0] is not tasks[1]


def test_a_task_of_the_loops_own_begins_one(begin: Begin, loop: asyncio.AbstractEventLoop) -> None:

    told: list[object] = []

    async def own() -> bool:
        task = asyncio.current_task()
        begin(tells(told, "within"))
        return asyncio.current_task() is task

    assert loop.run_until_complete(own())
    assert told == ["within"]


@pytest.mark.parametrize("end", ["returns", "raises"])
@pytest.mark.parametrize("wait", [Deferred, Wakeup])
def test_one_that_was_cancelled_goes_on_where_it_would_wait(
    begin: Begin, current: Current, wait: Callable[[], Any], end: str
) -> None:
    async def handler() -> None:
        current().cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait()
        if end == "raises":
            raise LookupError

    expect_end(begin, handler(), end)


@pytest.mark.parametrize("end", ["returns", "raises"])
def test_one_that_awaits_what_is_of_another_loop_goes_on(begin: Begin, end: str) -> None:
    other = asyncio.new_event_loop()

    async def handler() -> None:
        with pytest.raises(RuntimeError, match="of another event loop"):
            await other.create_future()
        if end == "raises":
            raise LookupError

    expect_end(begin, handler(), end)
    other.close()


def test_one_that_begins_within_another_may_wait(begin: Begin) -> None:
    wakeup = Wakeup()

    waiting: list[Waiting | None] = []
    told: list[object] = []

    async def inner() -> None:
        await wakeup
        told.append("resumed")

    async def outer() -> None:
        waiting.append(begin(inner()))

    assert begin(outer()) is None
    (begun,) = waiting
    assert begun is not None
    assert begun.awaited is wakeup
    with pytest.raises(StopIteration):
        begun.coroutine.send(None)
    assert told == ["resumed"]
