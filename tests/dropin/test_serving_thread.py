"""The thread that calls C{serve_forever}, as a place for jobs; and which connections bring any."""

import contextlib
import http.server
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock

from sockserve.dropin.serving_thread import ServingThread, may_be_parked
from sockserve.executors.threads import SLOW_JOB_SECONDS
from sockserve.interfaces import Outcome
from tests.contracts import Job, QueueContract
from tests.integration.servers import PATIENCE_SECONDS

pytestmark = pytest.mark.usefixtures("no_leaks")


class TestServingThread(QueueContract):
    """The contract of all executors, with a thread that serves whenever it is woken."""

    # The system need not give it one.
    test_a_job_that_gets_no_place_from_the_system_is_told_so = None  # type: ignore[assignment]

    @pytest.fixture
    def executor(self, no_leaks: None) -> Iterator[ServingThread]:
        from twisted.internet import reactor

        made: Any = ServingThread(reactor)  # type: ignore[arg-type]
        woken, over = threading.Event(), threading.Event()
        made.wake = woken.set

        def serve() -> None:
            while not over.is_set():
                woken.wait()
                woken.clear()
                while made.has_ready():
                    with contextlib.suppress(BaseException):
                        made.serve_one()

        thread = threading.Thread(target=serve)
        thread.start()
        yield made
        over.set()
        woken.set()
        thread.join()

    @pytest.fixture
    def held(self, executor: ServingThread, hold: Any) -> Any:
        """A job that the thread has taken."""
        held = hold(1)
        assert held[0].begun.wait(PATIENCE_SECONDS)
        return held


class TurnedByHand(Clock):
    """A clock that makes the calls of threads when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.from_threads: list[Any] = []

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        self.callLater(0, call, *arguments)


@pytest.fixture
def clock() -> TurnedByHand:
    return TurnedByHand()


@pytest.fixture
def thread(clock: TurnedByHand) -> ServingThread:
    return ServingThread(clock)  # type: ignore[arg-type]


@pytest.mark.parametrize("waits", [0, SLOW_JOB_SECONDS, 3600])
def test_a_job_is_told_that_it_lasts_once_it_is_served(
    clock: TurnedByHand, thread: ServingThread, waits: float
) -> None:
    """However long it has waited for that."""
    told = []

    class Long(Job):
        def runs_long(self) -> None:
            told.append(thread.has_ready())

    def serve() -> Outcome:
        clock.advance(0)
        clock.advance(SLOW_JOB_SECONDS)
        return Outcome.OK

    thread.run(Long(serve))
    clock.advance(waits)
    assert told == []
    thread.serve_one()
    assert told == [False]
    clock.advance(0)
    assert clock.getDelayedCalls() == []


def test_nobody_looks_at_a_job_that_nobody_serves(
    clock: TurnedByHand, thread: ServingThread
) -> None:
    """It may be an hour until C{serve_forever} is called again."""
    thread.run(Job(lambda: Outcome.OK))
    clock.advance(SLOW_JOB_SECONDS)
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("is_told", [True, False])
def test_an_interrupt_in_the_moment_a_job_ends_leaves_none_under_way(
    clock: TurnedByHand, thread: ServingThread, is_told: bool
) -> None:
    """Be it just before the reactor is told of the end, or just after."""

    def interrupted(call: Any, *arguments: Any) -> None:
        del clock.callFromThread  # type: ignore[method-assign]
        if is_told:
            clock.callFromThread(call, *arguments)
        raise KeyboardInterrupt

    clock.callFromThread = interrupted  # type: ignore[method-assign]
    jobs = [Job(lambda: Outcome.OK) for _ in range(2)]
    for job in jobs:
        thread.run(job)
    with pytest.raises(KeyboardInterrupt):
        thread.serve_one()
    thread.tell_end()  # as the end of C{serve_forever} does
    clock.advance(0)
    assert jobs[0].told == ["started", Outcome.OK if is_told else Outcome.ERROR]
    assert jobs[1].told == ["started"]
    thread.serve_one()
    clock.advance(0)
    assert jobs[1].told == ["started", Outcome.OK]


def test_what_waits_when_it_is_stopped_ends_unserved(
    clock: TurnedByHand, thread: ServingThread
) -> None:
    jobs = [Job(lambda: pytest.fail("it is served")) for _ in range(3)]
    for job in jobs:
        thread.run(job)
    thread.stop()
    thread.run(jobs[0])
    assert [job.told for job in jobs] == [
        ["started", Outcome.ERROR] * 2,
        ["started", Outcome.ERROR],
        ["started", Outcome.ERROR],
    ]
    thread.serve_one()
    assert clock.getDelayedCalls() == []


class Page(http.server.BaseHTTPRequestHandler):
    """One whose connection may be parked."""


class Line(socketserver.StreamRequestHandler):
    """One that is no HTTP handler."""


class Finishing(Page):
    """One that cleans up by itself."""

    def finish(self) -> None:
        super().finish()


class Waiting(Page):
    """One that would wait for ever for its coroutine."""

    async def do_GET(self) -> None:
        """Never awaited."""


@contextlib.contextmanager
def made(handler: Any, **attributes: Any) -> Iterator[Any]:
    cls = type("Server", (socketserver.TCPServer,), attributes)
    with cls(("127.0.0.1", 0), handler, bind_and_activate=False) as server:
        yield server


def method(self: Any, *arguments: Any) -> None:
    """Of the program's."""


@pytest.mark.parametrize(
    ("handler", "attributes", "expected"),
    [
        (Page, {}, True),
        (Line, {}, False),
        (Finishing, {}, False),
        (Waiting, {}, False),
        (None, {}, False),
        (Page, {"parks_connections": False}, False),
        (Page, {"verify_request": method, "handle_error": method, "get_request": method}, True),
        *((Page, {name: method}, False) for name in ("process_request", "finish_request")),
        *((Page, {name: method}, False) for name in ("shutdown_request", "close_request")),
    ],
)
def test_which_servers_park(handler: Any, attributes: Any, expected: bool) -> None:
    near, far = socket.socketpair()
    with near, far, made(handler, **attributes) as server:
        assert may_be_parked(server, near) == expected


def test_which_connections_are_parked() -> None:
    class Own(socket.socket):
        """One of the program's, which may do what it likes."""

    near, far = socket.socketpair()
    with near, far, made(Page) as server:
        assert may_be_parked(server, near)
        near.settimeout(1)
        assert not may_be_parked(server, near)
        with Own(fileno=far.detach()) as own:
            assert not may_be_parked(server, own)
        with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            assert not may_be_parked(server, datagrams)
        assert not may_be_parked(server, (b"", near))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        with context.wrap_socket(socket.socket(), do_handshake_on_connect=False) as secured:
            assert may_be_parked(server, secured)
