"""Tasks of asyncio's: what a handler may await on an event loop, and how that is ended."""

import asyncio
import gc
import io
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar, copy_context
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.defer import fail as failed

from sockserve.core.asyncio_tasks import AsyncioTask, explain
from sockserve.core.tasks import Task, Wakeup
from sockserve.interfaces import ClientGone, DeadlineExpired, Phase
from tests.transports import Connection

LATE = DeadlineExpired(Phase.HANDLE)


class Served:
    """A coroutine, driven as a handler's is on an event loop of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.ended = loop.create_future()
        self.driver: Any = None

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> AsyncioTask:
        task = AsyncioTask(coroutine, self.loop, copy_context())
        self.driver = Task(task, lambda *outcome: self.ended.set_result(outcome))
        self.loop.call_soon(self.driver.start)
        return task

    def __call__(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end; gives its result."""
        self.begin(coroutine)
        return self.result()

    def result(self) -> Any:
        result, error = self.loop.run_until_complete(asyncio.wait_for(self.ended, 30))
        if error is not None:
            raise error
        return result

    def turn(self, *calls: Callable[[], object], turns: int = 3) -> None:
        """Let the loop go on, and first do this on it."""
        for call in calls:
            self.loop.call_soon(call)
        for _ in range(turns):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()


@pytest.fixture
def served() -> Iterator[Served]:
    loop = asyncio.new_event_loop()
    yield Served(loop)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


async def waits(awaitable: Any) -> Any:
    return await awaitable


def _library() -> Callable[[Any], Coroutine[Any, Any, Any]]:
    """A coroutine function of somebody else's, which takes timeouts for its own."""
    namespace: dict[str, Any] = {"__name__": "library.client"}
    exec(
        "async def fetch(awaitable):\n"
        "    try:\n"
        "        return await awaitable\n"
        "    except TimeoutError:\n"
        "        return 'tried again'\n",
        namespace,
    )
    fetch: Callable[[Any], Coroutine[Any, Any, Any]] = namespace["fetch"]
    return fetch


fetch = _library()


# What it may await


async def _future() -> Any:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, "a future")
    return await future


async def _task() -> Any:
    return await asyncio.create_task(asyncio.sleep(0, "a task"))


async def _turn() -> Any:
    return await asyncio.sleep(0, "a turn")


async def _thread() -> Any:
    return await asyncio.to_thread(lambda: "a thread")


async def _gather() -> Any:
    return (await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0.001, "gathered")))[1]


async def _wait_for() -> Any:
    return await asyncio.wait_for(asyncio.sleep(0.001, "in time"), 30)


async def _event() -> Any:
    event = asyncio.Event()
    asyncio.get_running_loop().call_soon(event.set)
    return await event.wait() and "an event"


async def _queue() -> Any:
    queue: asyncio.Queue[str] = asyncio.Queue()
    asyncio.get_running_loop().call_soon(queue.put_nowait, "a queue")
    return await queue.get()


async def _group() -> Any:
    async with asyncio.TaskGroup() as group:
        child = group.create_task(asyncio.sleep(0, "a group"))
    return child.result()


async def _deferred() -> Any:
    deferred: Deferred[str] = Deferred()
    asyncio.get_running_loop().call_soon(deferred.callback, "a Deferred")
    return await deferred


async def _wakeup() -> Any:
    wakeup = Wakeup()
    asyncio.get_running_loop().call_soon(wakeup.wake)
    await wakeup
    return "a stream"


AWAITED = {
    "a future": _future,
    "a task": _task,
    "a turn": _turn,
    "a thread": _thread,
    "gathered": _gather,
    "in time": _wait_for,
    "an event": _event,
    "a queue": _queue,
    "a group": _group,
    "a Deferred": _deferred,
    "a stream": _wakeup,
}


@pytest.mark.parametrize("what", AWAITED)
def test_a_handler_may_await(served: Served, what: str) -> None:
    assert served(AWAITED[what]()) == what


def test_all_of_that_mixes(served: Served) -> None:
    async def handler() -> list[str]:
        return [await each() for _ in range(2) for each in (*AWAITED.values(), _turn)]

    assert served(handler()) == 2 * [*AWAITED, "a turn"]


@pytest.mark.parametrize("how", ["future", "task", "Deferred"])
def test_what_fails_raises_where_it_is_awaited(served: Served, how: str) -> None:
    async def fails() -> None:
        raise LookupError("no")

    async def handler() -> str:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(LookupError("no"))
        awaited: Any = {
            "future": future,
            "task": asyncio.create_task(fails()),
            "Deferred": failed(LookupError("no")),
        }
        with pytest.raises(LookupError, match="no"):
            await awaited[how]
        await asyncio.gather(future, awaited["task"], return_exceptions=True)
        awaited["Deferred"].addErrback(lambda _: None)
        return "went on"

    assert served(handler()) == "went on"


def test_a_stream_and_a_deferred_resume_it_at_once(served: Served) -> None:
    """And not in the loop's next turn, as a task of asyncio's would go on."""
    seen = []
    wakeup, deferred = Wakeup(), Deferred[None]()

    async def handler() -> None:
        await asyncio.sleep(0)
        await wakeup
        seen.append("woken")
        await deferred
        seen.append("fired")

    served.begin(handler())
    served.turn()
    wakeup.wake()
    assert seen == ["woken"]
    deferred.callback(None)
    assert seen == ["woken", "fired"]
    served.result()


def test_a_future_of_another_loop_is_a_clear_error(served: Served) -> None:
    other = asyncio.new_event_loop()
    try:
        with pytest.raises(RuntimeError, match="of another event loop"):
            served(waits(other.create_future()))
    finally:
        other.close()


def test_what_nobody_drives_is_a_clear_error(served: Served) -> None:
    class Trap:
        def __await__(self) -> Any:
            yield "a trap"

    with pytest.raises(TypeError, match=r"not 'a trap'$"):
        served(waits(Trap()))


# The current task


def test_the_current_task_stays_the_same_across_waits(served: Served) -> None:
    async def handler() -> bool:
        tasks = {asyncio.current_task()}
        for each in (_turn, _thread, _deferred, _wakeup):
            await each()
            tasks.add(asyncio.current_task())
        return len(tasks) == 1 and isinstance(tasks.pop(), asyncio.Task)

    assert served(handler())


def test_a_task_that_resumes_a_handler_is_the_current_one_again_after_that(served: Served) -> None:
    wakeup = Wakeup()
    current: dict[str, object] = {}

    async def handler() -> None:
        await wakeup
        current["handler"] = asyncio.current_task()

    async def other() -> bool:
        wakeup.wake()
        assert "handler" in current, "it was resumed at once"
        return asyncio.current_task() is child and current["handler"] is task

    task = served.begin(handler())
    served.turn()
    child = served.loop.create_task(other())
    assert served.loop.run_until_complete(child)


def test_others_wait_for_a_handlers_task(served: Served) -> None:
    called = []

    async def handler() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(called.append)
        assert not task.done()
        await asyncio.sleep(0)
        return "done"

    task = served.begin(handler())
    assert served.result() == "done"
    assert served.loop.run_until_complete(waits(task)) == "done"
    assert called == [task]
    assert (task.done(), task.cancelled(), task.result()) == (True, False, "done")
    assert not task.cancel()


def test_a_task_of_a_handler_that_was_given_up_is_cancelled(served: Served) -> None:
    seen = []

    async def handler() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            seen.append(asyncio.current_task())

    task = served.begin(handler())
    task.add_done_callback(seen.append)
    served.turn()
    served.turn(served.driver.abandon)
    assert seen == [task, task]
    assert task.cancelled()


def test_of_a_task_that_nobody_asked_while_it_ran_it_is_known_that_it_has_ended(
    served: Served,
) -> None:
    task = served.begin(_turn())
    served.result()
    assert task.done()
    assert task.result() is None


def test_what_a_given_up_handler_awaited_wakes_nobody(served: Served) -> None:
    future = served.loop.create_future()
    task = served.begin(waits(future))
    served.turn()
    served.driver.abandon()
    future.set_result(None)
    served.turn()
    assert task.done()
    assert not served.ended.done()


def test_what_tools_look_at_is_there(served: Served) -> None:
    async def handler() -> None:
        await future

    future = served.loop.create_future()
    task = served.begin(handler())
    served.turn()
    assert task.get_coro() is task._coro
    assert task.get_name().endswith("handler")
    task.set_name("mine")
    assert task.get_name() == "mine"
    assert task.get_loop() is task._loop is served.loop
    assert task._fut_waiter is future
    assert not task._must_cancel
    assert len(task.get_stack()) == 1
    assert "handler" in repr(task)
    stack = io.StringIO()
    task.print_stack(file=stack)
    assert "await future" in stack.getvalue()
    future.set_result(None)
    served.result()


def test_the_stack_of_one_that_has_failed_is_that_of_its_error(served: Served) -> None:
    async def handler() -> None:
        await asyncio.sleep(0)
        raise ValueError("mine")

    task = served.begin(handler())
    task.add_done_callback(lambda _: None)
    with pytest.raises(ValueError, match="mine"):
        served.result()
    stack = io.StringIO()
    task.print_stack(file=stack)
    assert "ValueError: mine" in stack.getvalue()


def test_it_is_a_task_and_no_coroutine_to_asyncio(served: Served) -> None:
    task = served.begin(_turn())
    assert not asyncio.iscoroutine(task)
    done, waiting = served.loop.run_until_complete(asyncio.wait([task]))
    assert (done, waiting) == ({task}, set())


# Context variables


def test_context_variables_are_the_handlers_own(served: Served) -> None:
    client: ContextVar[str] = ContextVar("client", default="nobody")

    async def handler() -> list[str]:
        client.set("ann")
        seen = []
        for each in (_turn, _thread, _deferred, _future):
            await each()
            seen.append(client.get())
        seen.append(await asyncio.to_thread(client.get))
        seen.append(await asyncio.create_task(waits(asyncio.sleep(0, client.get()))))
        return seen

    assert served(handler()) == ["ann"] * 6
    assert client.get() == "nobody"


def test_what_comes_after_a_handler_has_none_of_its_context_variables(served: Served) -> None:
    """Such as the next request on its connection, which its end begins."""
    client: ContextVar[str] = ContextVar("client", default="nobody")
    after = []

    async def handler() -> None:
        client.set("ann")
        await asyncio.sleep(0)

    task = AsyncioTask(handler(), served.loop, copy_context())
    Task(task, lambda *_: after.append(client.get())).start()
    served.turn()
    assert after == ["nobody"]


# Timeouts and cancelling, by asyncio's means


FOREVER = {
    "future": lambda: asyncio.get_running_loop().create_future(),
    "sleep": lambda: asyncio.sleep(30),
    "library": lambda: fetch(asyncio.sleep(30)),
    "Deferred": Deferred,
    "stream": Wakeup,
}
forever = pytest.mark.parametrize("wait", FOREVER)


@forever
def test_asyncios_timeout_ends_any_wait(served: Served, wait: str) -> None:
    async def limited() -> None:
        async with asyncio.timeout(0.001):
            await FOREVER[wait]()

    async def handler() -> str:
        with pytest.raises(TimeoutError):
            await limited()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        return await _turn()

    assert served(handler()) == "a turn"


@forever
def test_a_failing_child_of_a_group_ends_any_wait_in_the_group(served: Served, wait: str) -> None:
    async def fails() -> None:
        raise LookupError("no")

    async def handler() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            await FOREVER[wait]()

    async def outer() -> str:
        with pytest.raises(ExceptionGroup) as raised:
            await handler()
        assert isinstance(raised.value.exceptions[0], LookupError)
        return await _deferred()

    assert served(outer()) == "a Deferred"


@forever
@pytest.mark.parametrize("when", ["before", "while"])
def test_a_handler_that_is_cancelled_gets_the_error_where_it_waits(
    served: Served, wait: str, when: str
) -> None:
    async def handler() -> str:
        task = asyncio.current_task()
        assert task is not None
        if when == "before":
            task.cancel("enough")
        else:
            asyncio.get_running_loop().call_soon(task.cancel, "enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await FOREVER[wait]()
        assert task.uncancel() == 0
        return await _wakeup()

    assert served(handler()) == "a stream"


def test_a_cancel_that_is_taken_back_is_not_raised(served: Served) -> None:
    async def handler() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        task.uncancel()
        return await _turn()

    assert served(handler()) == "a turn"


def test_a_cancel_and_what_was_awaited_at_once(served: Served) -> None:
    """The error wins, as it does in asyncio, and is raised once."""
    wakeup = Wakeup()

    async def handler() -> str:
        with pytest.raises(asyncio.CancelledError):
            await wakeup
        return await _deferred()

    task = served.begin(handler())
    served.turn()
    served.turn(lambda: [task.cancel(), wakeup.wake()])
    assert served.result() == "a Deferred"


def test_a_deferred_that_gives_a_result_when_it_is_cancelled_does_not_hide_that(
    served: Served,
) -> None:
    async def handler() -> None:
        async with asyncio.timeout(0.001):
            await Deferred(lambda deferred: deferred.callback("a result"))

    with pytest.raises(TimeoutError):
        served(handler())


# Deadlines, and other reasons to end a handler


@pytest.mark.parametrize("wait", ["future", "sleep"])
def test_a_deadline_is_both_errors_where_the_handlers_own_code_awaits(
    served: Served, wait: str
) -> None:
    async def handler() -> str:
        with pytest.raises(TimeoutError) as raised:
            await FOREVER[wait]()
        assert isinstance(raised.value, asyncio.CancelledError)
        assert isinstance(raised.value, DeadlineExpired)
        assert raised.value.phase is Phase.HANDLE
        return await _turn()

    served.begin(handler())
    served.turn()
    served.driver.cancel(LATE)
    assert served.result() == "a turn"


@pytest.mark.parametrize("wait", ["Deferred", "stream"])
def test_a_deadline_is_itself_where_nothing_of_asyncios_is_awaited(
    served: Served, wait: str
) -> None:
    served.begin(waits(FOREVER[wait]()))
    served.turn()
    served.driver.cancel(LATE)
    with pytest.raises(DeadlineExpired) as raised:
        served.result()
    assert raised.value is LATE


async def _in_a_generator() -> Any:
    async def numbers() -> Any:
        yield await asyncio.sleep(30)

    async for number in numbers():
        return number


HIDDEN = {
    "library": lambda: fetch(asyncio.sleep(30)),
    "library in between": lambda: fetch(waits(asyncio.sleep(30))),
    "connecting": lambda: asyncio.open_connection("192.0.2.1", 9),
    "generator": _in_a_generator,
}


@pytest.mark.parametrize("wait", ["library", "library in between", "generator"])
def test_a_deadline_is_only_a_cancelled_error_where_a_library_may_see_it(
    served: Served, wait: str
) -> None:
    served.begin(waits(HIDDEN[wait]()))
    served.turn()
    served.driver.cancel(LATE)
    with pytest.raises(asyncio.CancelledError, match="the handle deadline expired") as raised:
        served.result()
    assert not isinstance(raised.value, TimeoutError)


@pytest.mark.parametrize("return_exceptions", [False, True])
def test_nothing_is_logged_of_what_is_gathered_when_a_deadline_ends_that(
    served: Served, return_exceptions: bool
) -> None:
    logged = []
    served.loop.set_exception_handler(lambda loop, context: logged.append(context))

    async def gathers() -> None:
        await asyncio.gather(
            asyncio.sleep(60), asyncio.sleep(60), return_exceptions=return_exceptions
        )

    served.begin(gathers())
    served.turn()
    served.turn(lambda: served.driver.cancel(LATE))
    with pytest.raises(DeadlineExpired):
        served.result()
    del served.ended, served.driver  # the error has the frames of those that waited
    gc.collect()
    assert logged == []


def test_a_clients_departure_is_a_cancelled_error(served: Served) -> None:
    task = served.begin(waits(asyncio.sleep(30)))
    served.turn()
    served.driver.cancel(ClientGone("the client has gone"))
    with pytest.raises(asyncio.CancelledError, match="the client has gone"):
        served.result()
    assert isinstance(task.reason, ClientGone)


def test_a_deadline_ends_what_is_awaited(served: Served) -> None:
    ended = []

    async def child() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("child")

    async def handler() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            group.create_task(child())

    served.begin(handler())
    served.turn()
    served.driver.cancel(LATE)
    with pytest.raises(TimeoutError):
        served.result()
    assert ended == ["child", "child"]


@pytest.mark.parametrize("wait", ["future", "stream"])
def test_a_deadline_that_passes_while_the_handler_runs_is_raised_when_it_waits(
    served: Served, wait: str
) -> None:
    async def handler() -> None:
        served.driver.cancel(LATE)
        await FOREVER[wait]()

    with pytest.raises(DeadlineExpired):
        served(handler())


def test_a_deadline_stays_one_though_asyncio_cancels_what_it_ends(served: Served) -> None:
    async def handler() -> None:
        await asyncio.sleep(30)

    task = served.begin(handler())
    served.turn()
    served.turn(lambda: [served.driver.cancel(LATE), task.cancel()], turns=1)
    with pytest.raises(DeadlineExpired):
        served.result()


def test_a_deadline_in_a_turn_of_the_loop(served: Served) -> None:
    """What is awaited then cannot be cancelled; the error is raised when the turn is over."""

    async def handler() -> None:
        asyncio.get_running_loop().call_soon(served.driver.cancel, LATE)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        served(handler())


# Streams in asyncio's own tasks


def test_streams_are_awaited_in_tasks_of_asyncios_too(served: Served) -> None:
    connection = Connection(room=0)

    async def handler() -> Any:
        connection.writer.write(bytes(200_000))
        async with asyncio.timeout(30):
            return await asyncio.gather(
                connection.reader.readline(), connection.writer.drain(), asyncio.sleep(0, 3)
            )

    served.begin(handler())
    served.turn()
    connection.reader.feed(b"half a ")
    served.turn()
    connection.reader.feed(b"line\n")
    connection.transport.make_room()
    assert served.result() == [b"half a line\n", None, 3]


def test_a_read_that_asyncio_gives_up_leaves_the_stream_usable(served: Served) -> None:
    connection = Connection()

    async def handler() -> list[bytes]:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.reader.readline(), 0.001)
        connection.reader.feed(b"one\ntwo\n")
        async with asyncio.TaskGroup() as group:
            line = group.create_task(connection.reader.readline())
        return [line.result(), await connection.reader.readline()]

    assert served(handler()) == [b"one\n", b"two\n"]


def test_a_stream_that_breaks_raises_in_the_task_that_reads_it(served: Served) -> None:
    connection = Connection()

    async def handler() -> None:
        await asyncio.gather(connection.reader.readline())

    served.begin(handler())
    served.turn()
    connection.reader.fail(ConnectionResetError("gone"))
    with pytest.raises(ConnectionResetError, match="gone"):
        served.result()


def test_what_is_there_already_is_not_waited_for(served: Served) -> None:
    async def handler() -> Any:
        return await asyncio.gather(waits(succeed("a result")), asyncio.sleep(0, 1))

    assert served(handler()) == ["a result", 1]


def test_without_an_event_loop_it_is_said_once_what_to_do() -> None:
    ended: list[Any] = []
    Task(asyncio.sleep(0), lambda *outcome: ended.append(outcome)).start()
    ((_, error),) = ended
    explain(error)
    assert f"{error}".count("--reactor=asyncio") == 1
    assert not hasattr(error, "__notes__")
