"""asyncio beside Twisted: coroutines of its kind in Twisted's programs, and in handlers."""

import asyncio
import sys
from collections.abc import Coroutine, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from sockserve import (
    ClientGone,
    DatagramRequestHandler,
    Deadlines,
    StreamRequestHandler,
    aio,
)
from sockserve.http import Environment, GatewayRequestHandler, HTTPRequestHandler, WebHandler
from sockserve.listeners.datagrams import DatagramServer
from sockserve.testing import HTTPExchange, StreamExchange, run_http
from tests.core.test_asyncio_tasks import fetch
from tests.listeners.test_datagrams import Listener


class Loop:
    """An event loop of asyncio's, for tests that run on it for a while."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def run(self, scenario: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(scenario, 30))


@pytest.fixture
def on_loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.loop.close()


# run()


def test_run_gives_a_deferred_of_what_a_coroutine_returns(on_loop: Loop) -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    async def scenario() -> int:
        return await aio.run(answer()).asFuture(asyncio.get_running_loop())

    assert on_loop.run(scenario()) == 42


def test_run_gives_a_deferred_of_what_it_raises(on_loop: Loop) -> None:
    async def answer() -> None:
        async with asyncio.timeout(0.001):
            await Deferred()

    async def scenario() -> None:
        await aio.run(answer()).asFuture(asyncio.get_running_loop())

    with pytest.raises(TimeoutError):
        on_loop.run(scenario())


def test_run_begins_at_once() -> None:
    """Also where there is no event loop; then, what is asyncio's is a clear error."""
    deferred: Deferred[str] = Deferred()

    async def answer() -> str:
        first = await deferred
        with pytest.raises(TypeError, match="--reactor=asyncio"):
            await asyncio.sleep(0)
        return first

    result = aio.run(answer())
    deferred.callback("fired")
    assert result.result == "fired"


def test_run_takes_any_awaitable() -> None:
    assert aio.run(defer.succeed(3)).result == 3


def test_run_waits_for_a_reactor_whose_loop_does_not_run_yet(
    on_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    reactor = SimpleNamespace(_asyncioEventloop=on_loop.loop)
    monkeypatch.setitem(sys.modules, "twisted.internet.reactor", reactor)

    async def answer() -> str:
        await asyncio.sleep(0)
        return "it runs"

    result = aio.run(answer())
    assert not result.called
    assert on_loop.run(_of(result)) == "it runs"


async def _of(deferred: Deferred[Any]) -> Any:
    return await deferred.asFuture(asyncio.get_running_loop())


@pytest.mark.parametrize("kind", ["asyncio", "Deferred"])
def test_cancelling_what_run_gave_cancels_the_coroutine(on_loop: Loop, kind: str) -> None:
    seen = []

    async def answer() -> None:
        try:
            await (asyncio.sleep(30) if kind == "asyncio" else Deferred())
        except (asyncio.CancelledError, defer.CancelledError) as error:
            seen.append(error)
            raise

    async def scenario() -> None:
        result = aio.run(answer())
        result.cancel()
        with pytest.raises(defer.CancelledError):
            await _of(result)
        await asyncio.sleep(0.001)

    on_loop.run(scenario())
    (error,) = seen
    expected = asyncio.CancelledError if kind == "asyncio" else defer.CancelledError
    assert isinstance(error, expected)


def test_what_a_cancelled_coroutine_raises_in_the_end_is_logged(on_loop: Loop) -> None:
    async def answer() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            raise LookupError("no")

    async def scenario() -> None:
        result = aio.run(answer()).addErrback(lambda _: None)
        await asyncio.sleep(0)
        result.cancel()
        await asyncio.sleep(0.001)

    with capturedLogs() as logged:
        on_loop.run(scenario())
    assert [event["log_failure"].type for event in logged] == [LookupError]


# Handlers, in memory


async def awaits(awaitable: Any) -> Any:
    return await awaitable


class Page(HTTPRequestHandler):
    """Answers by path."""

    async def do_GET(self) -> None:
        answer = getattr(self, self.path.strip("/"))
        await answer()

    def say(self, text: object, status: int = 200) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(str(text).encode())

    async def slept(self) -> None:
        await asyncio.sleep(0.001)
        self.say("slept")

    async def event(self) -> None:
        await asyncio.Event().wait()

    async def own(self) -> None:
        try:
            await asyncio.sleep(30)
        except TimeoutError as error:
            self.say(error, 503)

    async def librarys(self) -> None:
        try:
            self.say(await fetch(asyncio.sleep(30)))
        except TimeoutError as error:
            self.say(error, 503)

    async def section(self) -> None:
        try:
            with aio.raising_reason():
                await fetch(asyncio.sleep(30))
        except TimeoutError as error:
            task = asyncio.current_task()
            assert task is not None
            self.say(f"{error}, {task.cancelling()} left", 503)

    async def body(self) -> None:
        try:
            with aio.raising_reason():
                async with asyncio.TaskGroup() as group:
                    group.create_task(asyncio.sleep(30))
                    await asyncio.sleep(30)
        except TimeoutError as error:
            task = asyncio.current_task()
            assert task is not None
            self.say(f"{error}, {task.cancelling()} left", 503)

    async def bodys(self) -> None:
        with aio.raising_reason():
            async with asyncio.TaskGroup() as group:
                group.create_task(self.fails())
                await asyncio.sleep(30)

    async def fails(self) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            raise LookupError("culprit")

    async def group(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.rfile.readexactly(10))
            group.create_task(asyncio.sleep(30))

    async def child(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(awaits(Deferred()))

    async def cancels(self) -> None:
        with aio.raising_reason():
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(30)


async def _asked(
    path: str, handler: Any = Page, *, late: bool = False, length: int = 0
) -> HTTPExchange:
    """Ask, and let the deadline of the handler pass, which is 5 seconds."""
    exchange = HTTPExchange(handler, deadlines=Deadlines(handle=5 if handler is Page else None))
    head = f"GET /{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    exchange.receive(head.encode())
    await asyncio.sleep(0)
    if late:
        exchange.advance(5)
    while not exchange.output:
        await asyncio.sleep(0)
        exchange.advance(0)
    return exchange


def _answer(exchange: HTTPExchange) -> tuple[int, str]:
    (response,) = exchange.take_responses()
    return response.status, response.body.decode()


def test_a_handler_in_memory_awaits_asyncio(on_loop: Loop) -> None:
    assert _answer(on_loop.run(_asked("slept"))) == (200, "slept")


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("own", (503, "the handle deadline expired")),
        ("section", (503, "the handle deadline expired, 0 left")),
        ("body", (503, "the handle deadline expired, 0 left")),
    ],
)
def test_a_deadline_is_caught_as_a_timeout(
    on_loop: Loop, path: str, answer: tuple[int, str]
) -> None:
    assert _answer(on_loop.run(_asked(path, late=True))) == answer


@pytest.mark.parametrize("path", ["librarys", "group"])
def test_a_deadline_that_is_not_caught_is_answered(on_loop: Loop, path: str) -> None:
    exchange = on_loop.run(_asked(path, late=True, length=10 if path == "group" else 0))
    assert _answer(exchange)[0] == 504
    assert exchange.expired == "handle"


def test_an_error_beside_a_deadline_is_not_lost(on_loop: Loop) -> None:
    exchange = on_loop.run(_asked("bodys", late=True))
    assert isinstance(exchange.error, ExceptionGroup)
    assert exchange.error.subgroup(LookupError) is not None


def test_a_cancel_that_is_not_ours_is_an_error_of_the_handlers(on_loop: Loop) -> None:
    exchange = on_loop.run(_asked("cancels"))
    assert _answer(exchange)[0] == 500
    assert "cancelled by asyncio's means" in str(exchange.error)


def test_a_deferred_in_a_task_of_asyncios_is_an_error_that_says_what_to_do(on_loop: Loop) -> None:
    exchange = on_loop.run(_asked("child"))
    assert _answer(exchange)[0] == 500
    assert isinstance(exchange.error, ExceptionGroup)
    (error,) = exchange.error.exceptions
    assert "deferred.asFuture(asyncio.get_running_loop())" in error.__notes__[0]


class Backend:
    """The class of a gateway's URLs, which asks by asyncio's means."""

    def __init__(self, web_handler: WebHandler) -> None:
        self.web_handler = web_handler

    async def do_GET(self, env: Environment) -> None:
        seconds = 30 if env["path_info"] == "/slow" else 0
        call = fetch(asyncio.sleep(seconds, "from afar"))
        self.web_handler.send_response(await self.web_handler.call_backend(call))


class Gateway(GatewayRequestHandler):
    urls = {"/": Backend}
    backend_timeout = 5


@pytest.mark.parametrize(("path", "answer"), [("quick", (200, "from afar")), ("slow", (504, ""))])
def test_a_gateways_backend_is_asked_by_asyncios_means(
    on_loop: Loop, path: str, answer: tuple[int, str]
) -> None:
    exchange = on_loop.run(_asked(path, Gateway, late=path == "slow"))
    status, body = _answer(exchange)
    assert (status, body if status == 200 else "") == answer


class Lines(StreamRequestHandler):
    """Reads by asyncio's means, and ends when that is ended."""

    async def handle(self) -> None:
        async with asyncio.TaskGroup() as group:
            line = group.create_task(self.rfile.readline())
            group.create_task(asyncio.sleep(0))
        self.wfile.write(line.result().upper())
        await asyncio.sleep(30)


def test_a_stream_handler_awaits_asyncio(on_loop: Loop) -> None:
    async def scenario() -> StreamExchange:
        exchange = StreamExchange(Lines)
        exchange.receive(b"one\n")
        while not exchange.output:
            await asyncio.sleep(0)
        exchange.lose()
        while not exchange.done:
            await asyncio.sleep(0)
        return exchange

    exchange = on_loop.run(scenario())
    assert exchange.sent == b"ONE\n"
    assert isinstance(exchange.error, ClientGone)


class Packets(DatagramRequestHandler):
    """Answers in a while, or says that it is late."""

    async def handle(self) -> None:
        try:
            await asyncio.sleep(float(self.rfile.read()))
        except TimeoutError:
            self.wfile.write(b"late")
        else:
            self.wfile.write(b"in time")


def test_a_datagrams_handler_awaits_asyncio(on_loop: Loop) -> None:
    async def scenario() -> Listener:
        listener = Listener(Packets, deadlines=Deadlines(handle=3), factory=OnLoop)
        listener.receive(b"0.001", b"30")
        while len(listener.answers) < 1:
            await asyncio.sleep(0)
        listener.clock.advance(3)  # the handle deadline
        while len(listener.answers) < 2:
            await asyncio.sleep(0)
        return listener

    listener = on_loop.run(scenario())
    assert listener.answers == [b"in time", b"late"]
    assert listener.outcomes == ["ok", "expired: handle"]


class OnLoop(DatagramServer):
    """A server on a clock that says that it runs on the event loop."""

    def __init__(self, handler: Any, *, reactor: Any, **options: Any) -> None:
        reactor._asyncioEventloop = asyncio.get_running_loop()
        super().__init__(handler, reactor=reactor, **options)


def test_a_handler_that_does_not_come_to_its_end_is_given_up(on_loop: Loop) -> None:
    closed = []

    class Stubborn(StreamRequestHandler):
        async def handle(self) -> None:
            try:
                while True:
                    try:
                        await asyncio.sleep(30)
                    except TimeoutError:
                        pass
            finally:
                closed.append(asyncio.current_task())

    async def scenario() -> StreamExchange:
        exchange = StreamExchange(Stubborn, deadlines=Deadlines(handle=3, abandon=2))
        exchange.advance(3)  # the handle deadline
        await asyncio.sleep(0.001)
        assert closed == []
        exchange.advance(2)  # the patience with it
        return exchange

    assert on_loop.run(scenario()).done
    assert len(closed) == 1


@pytest.mark.parametrize("path", ["slept", "event"])
def test_without_a_loop_the_error_says_what_to_do(path: str) -> None:
    response = run_http(Page, path=f"/{path}")
    assert response.status == 500
    assert response.error is not None
    assert "--reactor=asyncio" in response.error.__notes__[0]


def test_an_error_that_is_not_asyncios_says_no_more() -> None:
    response = run_http(Page, path="/nothing")
    assert isinstance(response.error, AttributeError)
    assert not hasattr(response.error, "__notes__")
