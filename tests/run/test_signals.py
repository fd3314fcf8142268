"""
What a process that serves does when it is sent signals, step by step.

That such a process really ends is in L{tests.integration.test_twistd}.
"""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.application.service import MultiService
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs

from sockserve.listeners.service import ListenerService
from sockserve.run import signals as room
from sockserve.run.signals import LEAVE_AFTER_SECONDS, TELL_AFTER_SECONDS, Signals
from sockserve.server import RequestStatus

HEEDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """What this process does when it is sent signals is as it was."""
    before = {number: signal.getsignal(number) for number in HEEDED}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest_twisted has its own
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Reactor(Clock):
    """A reactor of the main thread; C{advance(0)} is a turn of it."""

    running = True

    def __init__(self) -> None:
        super().__init__()
        self.stopped: list[Callable[[], object]] = []

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:
        self.callLater(0, function, *arguments)

    def callWhenRunning(self, function: Callable[..., object]) -> None:
        self.callLater(0, function)

    def addSystemEventTrigger(self, phase: str, event: str, function: Any) -> None:
        assert (phase, event) == ("after", "shutdown")
        self.stopped.append(function)


class Request:
    """One in progress, which ends when it is aborted."""

    def __init__(self, service: "Listener", **facts: Any) -> None:
        self.service = service
        self.facts = {"stage": "handle", "seconds": 0.0, **facts}

    def status(self) -> RequestStatus:
        named = {"id": 1, "listener": "", "peer": None, "handler": "Echo"}
        return RequestStatus(received=None, sent=None, **{**named, **self.facts})

    def abort_by_operator(self) -> None:
        self.service.pending.remove(self)


class Listener(ListenerService):
    """A listener that has requests in progress."""

    def __init__(self) -> None:
        self.server: Any = self
        self.pending: list[Request] = []

    def in_progress(self) -> list[Request]:
        return self.pending


@pytest.fixture
def reactor() -> Reactor:
    return Reactor()


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def service(listener: Listener) -> MultiService:
    """It is found at any depth."""
    inner, outer = MultiService(), MultiService()
    listener.setServiceParent(inner)
    inner.setServiceParent(outer)
    return outer


class Timer:
    """C{threading.Timer}, whose time has come when it is called."""

    last: "Timer | None" = None

    def __init__(self, seconds: float, function: Callable[..., object], arguments: Any) -> None:
        self.seconds, self.function, self.arguments = seconds, function, arguments

    def start(self) -> None:
        Timer.last = self

    def __call__(self) -> None:
        self.function(*self.arguments)


@pytest.fixture(autouse=True)
def timer(monkeypatch: pytest.MonkeyPatch) -> None:
    Timer.last = None
    monkeypatch.setattr(room.threading, "Timer", Timer)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def texts(events: list[LogEvent]) -> list[str]:
    return [event["log_format"].format(**event) for event in events]


def test_the_first_has_the_service_stopped_and_the_second_the_process_left(
    reactor: Reactor, service: MultiService, listener: Listener
) -> None:
    stops: list[int] = []
    left: list[int] = []
    listener.pending = [Request(listener), Request(listener)]
    Signals(reactor, service, stops.append, left.append).install()  # type: ignore[arg-type]
    with capturedLogs() as log:
        send(signal.SIGTERM)
        assert stops == [], "not in the middle of whatever the thread does"
        reactor.advance(0)
        assert stops == [signal.SIGTERM]
        send(signal.SIGINT)
        reactor.advance(0)
        assert (listener.pending, stops) == ([], [signal.SIGTERM])
    assert texts(log) == ["Received SIGINT again, ending at once."]
    assert left == []
    for stopped in reactor.stopped:
        stopped()
    assert left == [128 + signal.SIGINT], "as soon as all has ended"


def test_what_does_not_end_is_left_after_a_while(reactor: Reactor, service: MultiService) -> None:
    left: list[int] = []
    Signals(reactor, service, int, left.append).install()  # type: ignore[arg-type]
    send(signal.SIGTERM)
    send(signal.SIGTERM)  # and the reactor does not turn
    assert Timer.last is not None
    assert (Timer.last.seconds, left) == (LEAVE_AFTER_SECONDS, [])
    Timer.last()
    assert left == [128 + signal.SIGTERM]


def test_a_process_that_is_not_ours_goes_on(
    reactor: Reactor, service: MultiService, listener: Listener
) -> None:
    listener.pending = [Request(listener)]
    signals = Signals(reactor, service, int)  # type: ignore[arg-type]
    signals.install()
    send(signal.SIGINT)
    assert signals.exit_status is None
    send(signal.SIGINT)
    send(signal.SIGINT)
    reactor.advance(0)
    assert (listener.pending, signals.exit_status, Timer.last) == ([], 130, None)


@pytest.mark.parametrize(
    ("number", "requests", "line"),
    [
        (
            signal.SIGINT,
            [
                {"seconds": 3.0},
                {"seconds": 12.4, "request": "GET /slow HTTP/1.1"},
                {"seconds": 99.0, "stage": "idle"},
                {"seconds": 0.1, "stage": "write"},
            ],
            "waiting for 3 requests, oldest GET /slow 12 s; Ctrl-C again to end them",
        ),
        (
            signal.SIGTERM,
            [{"seconds": 0.6}],
            "waiting for 1 request, oldest Echo 1 s; SIGTERM again to end it",
        ),
        (
            signal.SIGTERM,
            [{"request": "GET /\x9b" + "x" * 1000}],
            f"waiting for 1 request, oldest GET /\\x9b{'x' * 74} 0 s; SIGTERM again to end it",
        ),
    ],
)
def test_a_line_tells_what_is_waited_for(
    reactor: Reactor,
    service: MultiService,
    listener: Listener,
    number: signal.Signals,
    requests: list[dict[str, Any]],
    line: str,
) -> None:
    listener.pending = [Request(listener, **facts) for facts in requests]
    Signals(reactor, service, int).install()  # type: ignore[arg-type]
    with capturedLogs() as log:
        send(number)
        reactor.advance(0)
        reactor.advance(TELL_AFTER_SECONDS)
        reactor.advance(100)
    assert texts(log) == [line]


def test_nothing_is_told_where_nothing_is_waited_for(
    reactor: Reactor, service: MultiService, listener: Listener
) -> None:
    listener.pending = [Request(listener, stage="idle")]
    Signals(reactor, service, int).install()  # type: ignore[arg-type]
    with capturedLogs() as log:
        send(signal.SIGINT)
        reactor.advance(0)
        reactor.advance(TELL_AFTER_SECONDS)
    assert log == []


def test_a_hangup_is_logged_and_the_signal_for_logs_is_nothing(
    reactor: Reactor, service: MultiService
) -> None:
    Signals(reactor, service, int).install()  # type: ignore[arg-type]
    with capturedLogs() as log:
        send(signal.SIGHUP)
        send(signal.SIGUSR1)
        reactor.advance(0)
    assert texts(log) == ["Received SIGHUP: nothing is reloaded, start anew instead"]


def test_other_signals_do_not_end_it_on_its_way_out_either(
    reactor: Reactor, service: MultiService
) -> None:
    """The interpreter makes handlers the usual ones before it has ended."""
    Signals(reactor, service, int, int).install()  # type: ignore[arg-type]
    for stopped in reactor.stopped:
        stopped()
    for number in (signal.SIGHUP, signal.SIGUSR1):
        assert signal.getsignal(number) is signal.SIG_IGN


def test_handlers_of_the_program_and_what_is_ignored_stay(
    reactor: Reactor, service: MultiService
) -> None:
    heard: list[int] = []

    def hear(number: int, frame: object) -> None:
        heard.append(number)

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, hear)
    before = {number: signal.getsignal(number) for number in HEEDED}
    signals = Signals(reactor, service, int)  # type: ignore[arg-type]
    signals.install()
    assert signal.getsignal(signal.SIGHUP) is signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    send(signal.SIGUSR1)
    assert heard == [signal.SIGUSR1]
    signals.restore()
    assert {number: signal.getsignal(number) for number in HEEDED} == before


def test_the_reactors_own_handlers_are_replaced_when_it_runs(
    reactor: Reactor, service: MultiService
) -> None:
    from twisted.internet import reactor as twisteds

    reactor.running = False
    stops: list[int] = []
    signals = Signals(reactor, service, stops.append)  # type: ignore[arg-type]
    signals.install()
    signal.signal(signal.SIGTERM, twisteds.sigTerm)  # type: ignore[attr-defined]
    reactor.advance(0)
    send(signal.SIGTERM)
    reactor.advance(0)
    assert stops == [signal.SIGTERM]


def test_one_that_comes_before_the_reactor_runs_is_heeded_when_it_does(
    reactor: Reactor, service: MultiService
) -> None:
    """Whoever has read that it is served may send one at once."""
    reactor.running = False
    stops: list[int] = []
    signals = Signals(reactor, service, stops.append)  # type: ignore[arg-type]
    signals.install()
    send(signal.SIGTERM)
    assert stops == []
    reactor.running = True
    reactor.advance(0)
    assert stops == [signal.SIGTERM]
