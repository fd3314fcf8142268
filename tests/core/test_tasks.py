"""Tasks: how a handler's coroutine is driven, and what it may wait for."""

import asyncio
import sys
from collections.abc import Awaitable
from contextvars import ContextVar
from typing import Any

import pytest
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    TimeoutError,
    ensureDeferred,
    fail,
    gatherResults,
    inlineCallbacks,
    succeed,
)
from twisted.internet.task import Clock, deferLater

from sockserve.core.tasks import Task, Wakeup
from tests.transports import Call, Connection


class Gone(Exception):
    """Why a task is cancelled."""


async def waits_for(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


async def waits_for_two(first: Awaitable[Any], second: Awaitable[Any]) -> None:
    await first
    await second


# To the end


def test_a_coroutine_that_does_not_wait_is_over_when_start_returns() -> None:
    async def answer() -> int:
        return 42

    assert Call(answer()).result() == 42


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_what_it_raises_is_told_and_does_not_escape(error: BaseException) -> None:
    async def fails() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        Call(fails()).result()
    assert raised.value is error


# What it may wait for


def test_a_wakeup_resumes_at_once() -> None:
    wakeups = [Wakeup(), Wakeup(), Wakeup()]
    seen = []

    async def waits() -> str:
        for number, wakeup in enumerate(wakeups):
            await wakeup
            seen.append(number)
        return "done"

    call = Call(waits())
    for number, wakeup in enumerate(wakeups):
        assert call.waiting
        wakeup.wake()
        assert seen == list(range(number + 1))
    assert call.result() == "done"


def test_a_deferred_gives_its_result() -> None:
    assert Call(waits_for(succeed("at once"))).result() == "at once"

    deferred: Deferred[str] = Deferred()
    call = Call(waits_for(deferred))
    assert call.waiting
    deferred.callback("later")
    assert call.result() == "later"


def test_a_deferred_that_waits_for_another_gives_the_others_result() -> None:
    inner: Deferred[str] = Deferred()
    call = Call(waits_for(succeed(None).addCallback(lambda _: inner)))
    assert call.waiting
    inner.callback("inner")
    assert call.result() == "inner"


@pytest.mark.parametrize("when", ["before", "later"])
def test_a_failing_deferred_raises_where_it_is_awaited(when: str) -> None:
    error = ValueError("no")
    deferred = fail(error) if when == "before" else Deferred()

    async def catches() -> ValueError:
        try:
            await deferred
        except ValueError as caught:
            return caught
        raise AssertionError("nothing was raised")

    call = Call(catches())
    if when == "later":
        assert call.waiting
        deferred.errback(error)
    assert call.result() is error


def test_a_failure_nobody_catches_is_how_the_task_ends() -> None:
    deferred: Deferred[None] = Deferred()
    call = Call(waits_for(deferred))
    deferred.errback(LookupError("no"))
    with pytest.raises(LookupError, match="no"):
        call.result()


def test_waiting_on_a_clock() -> None:
    clock = Clock()
    call = Call(waits_for(deferLater(clock, 3, lambda: "three seconds")))
    clock.advance(2)
    assert call.waiting
    clock.advance(1)  # 2 + 1 = 3
    assert call.result() == "three seconds"


def test_ten_thousand_waits_do_not_nest() -> None:
    """Each wait is over before the next begins: nothing may recurse."""
    wakeups = [Wakeup() for _ in range(10_000)]

    async def waits() -> int:
        for wakeup in wakeups:
            await wakeup
            await succeed(None)
        return len(wakeups)

    call = Call(waits())
    for wakeup in wakeups:
        wakeup.wake()
    assert call.result() == 10_000


class _Yields:
    """Awaitable of some other framework's."""

    def __await__(self):
        yield "a trap of trio's"


def test_awaiting_an_asyncio_future_is_a_clear_type_error() -> None:
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(TypeError, match=r"not <Future pending>.*--reactor=asyncio"):
            Call(waits_for(loop.create_future())).result()
    finally:
        loop.close()


@pytest.mark.parametrize(
    ("foreign", "named"), [(asyncio.sleep(0), "None"), (_Yields(), "a trap of trio's")]
)
def test_awaiting_what_nobody_here_drives_is_a_clear_type_error(foreign: Any, named: str) -> None:
    with pytest.raises(TypeError, match=f"Deferreds and coroutines, not .*{named}"):
        Call(waits_for(foreign)).result()


def test_the_type_error_can_be_caught_and_the_task_goes_on() -> None:
    deferred: Deferred[str] = Deferred()

    async def tries() -> str:
        with pytest.raises(TypeError):
            await _Yields()
        return await deferred

    call = Call(tries())
    assert call.waiting
    deferred.callback("went on")
    assert call.result() == "went on"


# Cancelling


def test_cancel_raises_where_a_wakeup_is_awaited() -> None:
    wakeup = Wakeup()
    call = Call(waits_for(wakeup))
    reason = Gone()
    call.task.cancel(reason)
    with pytest.raises(Gone) as raised:
        call.result()
    assert raised.value is reason
    wakeup.wake()  # too late, and no harm


def test_cancel_raises_its_reason_where_a_deferred_is_awaited() -> None:
    """Not the C{CancelledError} that cancelling a Deferred makes."""
    cancelled: list[Deferred[None]] = []
    deferred: Deferred[None] = Deferred(cancelled.append)
    call = Call(waits_for(deferred))
    call.task.cancel(Gone())
    assert cancelled == [deferred]
    with pytest.raises(Gone):
        call.result()


def test_cancel_reaches_a_deferred_behind_a_deferred() -> None:
    cancelled: list[Deferred[None]] = []
    inner: Deferred[None] = Deferred(cancelled.append)
    call = Call(waits_for(succeed(None).addCallback(lambda _: inner)))
    call.task.cancel(Gone())
    assert cancelled == [inner]
    with pytest.raises(Gone):
        call.result()


def test_a_deferred_that_gives_a_result_when_it_is_cancelled_only_delays_it() -> None:
    seen = []

    async def waits() -> None:
        seen.append(await Deferred(lambda deferred: deferred.callback("a result")))
        await Deferred()

    call = Call(waits())
    call.task.cancel(Gone())
    assert seen == ["a result"]
    with pytest.raises(Gone):
        call.result()


def test_cancel_raises_its_reason_whatever_the_deferred_says_to_that() -> None:
    """Clients of Twisted's have errors of their own for a request that was cancelled."""
    call = Call(waits_for(Deferred(lambda deferred: deferred.errback(LookupError("cut off")))))
    call.task.cancel(Gone())
    with pytest.raises(Gone) as raised:
        call.result()
    assert isinstance(raised.value.__cause__, LookupError)


@pytest.mark.parametrize("kind", [Wakeup, Deferred])
def test_cancel_while_it_runs_raises_at_its_next_wait(kind: type[Deferred[None]]) -> None:
    next_wait = kind()
    seen = []
    begin = Wakeup()

    async def runs() -> None:
        await begin
        call.task.cancel(Gone())
        seen.append("still running")
        await next_wait
        seen.append("not reached")

    call = Call(runs())
    begin.wake()
    assert seen == ["still running"]
    with pytest.raises(Gone):
        call.result()
    # Nobody waits for it any more: it was cancelled, and nothing of that is logged.
    assert next_wait.called


def test_cancel_while_it_runs_comes_to_nothing_if_it_never_waits_again() -> None:
    begin = Wakeup()

    async def runs() -> str:
        await begin
        call.task.cancel(Gone())
        return "done"

    call = Call(runs())
    begin.wake()
    assert call.result() == "done"


def test_cancel_before_start_raises_at_the_first_wait() -> None:
    ended: list[Any] = []
    task = Task(waits_for(Deferred()), lambda result, error: ended.append((result, error)))
    reason = Gone()
    task.cancel(reason)
    task.start()
    assert ended == [(None, reason)]


def test_cancel_after_the_end_does_nothing() -> None:
    call = Call(waits_for(succeed("done")))
    call.task.cancel(Gone())
    assert call.result() == "done"


@pytest.mark.parametrize("kind", [Wakeup, Deferred])
def test_a_coroutine_may_clean_up_and_wait_while_it_is_cancelled(kind: Any) -> None:
    cleanup: Deferred[None] = Deferred()
    seen = []

    async def waits() -> None:
        try:
            await kind()
        finally:
            await cleanup
            seen.append("cleaned up")

    call = Call(waits())
    call.task.cancel(Gone())
    assert call.waiting
    cleanup.callback(None)
    assert seen == ["cleaned up"]
    with pytest.raises(Gone):
        call.result()


def test_a_coroutine_may_be_cancelled_again_and_again() -> None:
    seen = []

    async def stubborn() -> str:
        for kind in (Wakeup, Deferred, Wakeup):
            try:
                await kind()
            except Gone as reason:
                seen.append(reason)
        return "done"

    call = Call(stubborn())
    reasons = [Gone(), Gone(), Gone()]
    for reason in reasons:
        call.task.cancel(reason)
    assert seen == reasons
    assert call.result() == "done"


def test_somebody_elses_cancelling_stays_a_cancelled_error() -> None:
    deferred: Deferred[None] = Deferred()
    call = Call(waits_for(deferred))
    deferred.cancel()
    with pytest.raises(CancelledError):
        call.result()


# Abandoning


@pytest.mark.parametrize("kind", [Wakeup, Deferred])
def test_an_abandoned_coroutine_is_closed_and_never_ends(kind: type[Deferred[None]]) -> None:
    waited = kind()
    seen = []

    async def waits() -> None:
        try:
            await waited
            seen.append("not reached")
        finally:
            seen.append("closed")

    call = Call(waits())
    call.task.abandon()
    assert seen == ["closed"]
    # What it waited for happens after all.
    if isinstance(waited, Wakeup):
        waited.wake()
    else:
        waited.callback(None)
    assert seen == ["closed"]
    assert call.waiting


def test_a_failure_for_an_abandoned_coroutine_is_dropped() -> None:
    deferred: Deferred[None] = Deferred()
    call = Call(waits_for(deferred))
    call.task.abandon()
    deferred.errback(ValueError())
    assert deferred.result is None, "it would be logged as an unhandled error"


def test_a_coroutine_that_waits_while_it_is_abandoned_is_left_alone() -> None:
    again = Wakeup()

    async def waits() -> None:
        try:
            await Wakeup()
        finally:
            await again

    call = Call(waits())
    call.task.abandon()
    again.wake()
    assert call.waiting


# The context


def test_each_task_has_a_context_of_its_own() -> None:
    """Context variables: what a handler sets, only that handler sees, across its waits."""
    client: ContextVar[str] = ContextVar("client", default="nobody")
    wakeups = {name: Wakeup() for name in ("ann", "bob")}

    async def serves(name: str) -> tuple[str, str]:
        before = client.get()
        client.set(name)
        await wakeups[name]
        await succeed(None)
        return before, client.get()

    calls = {name: Call(serves(name)) for name in wakeups}
    assert client.get() == "nobody"
    for name in reversed(wakeups):
        wakeups[name].wake()
        assert calls[name].result() == ("nobody", name)
    assert client.get() == "nobody"


def test_a_task_sees_the_context_it_was_made_in() -> None:
    listener: ContextVar[str] = ContextVar("listener")
    token = listener.set("tcp:7000")
    wakeup = Wakeup()

    async def serves() -> str:
        await wakeup
        return listener.get()

    call = Call(serves())
    listener.reset(token)
    wakeup.wake()
    assert call.result() == "tcp:7000"


# The cork


class Log:
    """A cork that notes what is done to it."""

    queued_bytes = 0

    def __init__(self) -> None:
        self.events: list[Any] = []

    @property
    def corked(self) -> bool:
        return bool(self.events) and self.events[-1] != "uncorked"

    @corked.setter
    def corked(self, corked: bool) -> None:
        assert corked
        self.events.append("corked")

    def uncork(self) -> None:
        self.events.append("uncorked")

    def send_held(self) -> None:
        self.events.append("sent")


@pytest.mark.parametrize("kind", [Wakeup, Deferred])
@pytest.mark.parametrize("end", ["returns", "raises"])
def test_output_is_corked_while_the_task_runs(kind: type[Deferred[None]], end: str) -> None:
    log = Log()
    waited = kind()

    async def serves() -> None:
        log.events.append("begins")
        await succeed(None)  # no wait
        await waited
        log.events.append("ends")
        if end == "raises":
            raise Gone

    Task(serves(), lambda result, error: log.events.append("told"), log).start()
    assert log.events == ["corked", "begins", "uncorked"]
    waited.wake() if isinstance(waited, Wakeup) else waited.callback(None)
    assert log.events[3:] == ["corked", "ends", "uncorked", "told"]


@pytest.mark.parametrize("kind", [Wakeup, Deferred])
def test_a_cancelled_task_is_corked_while_it_cleans_up(kind: Any) -> None:
    log = Log()

    async def serves() -> None:
        try:
            await kind()
        except Gone:
            log.events.append("says good-bye")

    call = Call(serves(), log)
    call.task.cancel(Gone())
    assert log.events == ["corked", "uncorked", "corked", "says good-bye", "uncorked"]


def test_what_has_not_left_yet_is_sent_before_the_task_goes_on() -> None:
    log = Log()
    wakeup = Wakeup()

    async def serves() -> None:
        await wakeup
        log.events.append("goes on")

    Call(serves(), log)
    log.queued_bytes = 7
    wakeup.wake()
    assert log.events == ["corked", "uncorked", "sent", "corked", "goes on", "uncorked"]


# Streams, awaited by others


async def _two_lines(connection: Connection) -> tuple[bytes, bytes]:
    first = await ensureDeferred(connection.reader.readline())
    return first, await connection.reader.readline()


@inlineCallbacks
def _two_lines_by_generator(connection: Connection) -> Any:
    first = yield Deferred.fromCoroutine(connection.reader.readline())
    second = yield Deferred.fromCoroutine(connection.reader.readline())
    return first, second


@pytest.mark.parametrize(
    "read",
    [
        _two_lines,
        lambda connection: waits_for(ensureDeferred(_two_lines(connection))),
        lambda connection: waits_for(_two_lines_by_generator(connection)),
    ],
    ids=["in turns", "within a Deferred", "inlineCallbacks"],
)
def test_streams_can_be_read_by_whatever_twisted_drives(read: Any) -> None:
    connection = Connection()
    call = Call(read(connection))
    for data in (b"on", b"e\ntw", b"o\n"):
        assert call.waiting
        connection.reader.feed(data)
    assert call.result() == (b"one\n", b"two\n")


def test_reading_and_draining_at_once() -> None:
    connection = Connection(room=0)

    async def both() -> list[Any]:
        connection.writer.write(bytes(200_000))
        return await gatherResults(
            [
                ensureDeferred(connection.reader.readline()),
                ensureDeferred(connection.writer.drain()),
            ]
        )

    call = Call(both(), connection.writer)
    connection.reader.feed(b"line\n")
    assert call.waiting
    connection.transport.make_room()
    assert call.result() == [b"line\n", None]
    assert len(connection.transport.sent) == 200_000


def test_several_may_drain_at_once() -> None:
    connection = Connection(room=0)
    connection.writer.write(bytes(200_000))
    calls = [Call(connection.writer.drain()) for _ in range(3)]
    connection.transport.make_room()
    assert [call.result() for call in calls] == [None] * 3


def test_a_cancelled_read_leaves_the_stream_usable() -> None:
    """A handler's own time limit: C{ensureDeferred(rfile.readline()).addTimeout(…)}."""
    connection = Connection()
    clock = connection.clock

    async def asks() -> list[Any]:
        seen: list[Any] = []
        try:
            await ensureDeferred(connection.reader.readline()).addTimeout(5, clock)
        except TimeoutError:
            seen.append(clock.seconds())
        seen.append(await connection.reader.readline())
        return seen

    call = Call(asks())
    connection.reader.feed(b"half ")
    connection.advance(10)
    assert call.waiting
    connection.reader.feed(b"a line\n")
    # 0 + 5; what had come is not lost.
    assert call.result() == [5, b"half a line\n"]


def test_a_cancel_that_was_not_raised_yet_can_be_taken_back() -> None:
    wakeup = Wakeup()
    call = Call(waits_for_two(Deferred(lambda deferred: deferred.callback(None)), wakeup))
    call.task.cancel(Gone())
    assert not call.waiting, "it is raised at the second wait"

    deferred: Deferred[None] = Deferred(lambda deferred: deferred.callback(None))
    deferred.addCallback(lambda _: call.task.take_back())
    call = Call(waits_for_two(deferred, wakeup := Wakeup()))
    call.task.cancel(Gone())
    assert call.waiting
    wakeup.wake()
    call.result()


@pytest.mark.parametrize("is_late", [False, True])
def test_what_follows_the_end_is_not_told_of_as_if_it_came_of_that(is_late: bool) -> None:
    """An error of the next request, say, that is raised in the course of it."""
    handled = []
    wakeup = Wakeup()

    async def ends() -> None:
        if is_late:
            await wakeup

    Task(ends(), lambda *_: handled.append(sys.exception())).start()
    wakeup.wake()
    assert handled == [None]
