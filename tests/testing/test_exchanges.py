"""The record of what a handler did, and the executor that runs it at once."""

import functools
import socketserver
from typing import Any

import pytest
from twisted.internet.task import Clock

from sockserve import StreamRequestHandler
from sockserve.core.handler_kinds import handler_kind
from sockserve.core.lifecycle import serve, verify_and_process
from sockserve.interfaces import Outcome
from sockserve.listeners.server import RequestServer
from sockserve.testing import LIFECYCLE, Exchange, InlineExecutor
from sockserve.testing.exchanges import SERVER_ADDRESS, Recording, traced
from tests.contracts import Job

CLIENT = ("192.0.2.1", 7)


class Blocking(socketserver.BaseRequestHandler):
    """Keeps what it was made with."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.options = options
        super().__init__(*arguments)


class Coroutine(StreamRequestHandler):
    async def handle(self) -> None:
        """Nothing to do."""


# The record


def test_an_exchange_begins_empty_and_has_what_was_sent_in_pieces_and_as_one() -> None:
    exchange = Exchange()
    assert (exchange.trace, exchange.error, exchange.datagrams, exchange.sent) == (
        [],
        None,
        [],
        b"",
    )
    exchange.output += [b"one", b"two"]
    assert exchange.sent == b"onetwo"


# A handler that is traced


def test_the_three_methods_are_recorded_as_they_are_called() -> None:
    trace: list[str] = []
    traced(Blocking, trace)("request", CLIENT, "server")
    assert trace == ["setup", "handle", "finish"]


def test_two_traces_of_one_class_do_not_mix() -> None:
    first: list[str] = []
    second: list[str] = []
    traced(Blocking, first)
    traced(Blocking, second)("request", CLIENT, "server")
    assert (first, second) == ([], ["setup", "handle", "finish"])
    Blocking("request", CLIENT, "server")
    assert len(second) == 3


@pytest.mark.parametrize("handler", [Blocking, Coroutine])
def test_a_traced_class_is_still_what_it_was(handler: type) -> None:
    class_ = traced(handler, [])
    assert isinstance(class_, type)
    assert issubclass(class_, handler)
    assert handler_kind(class_) is handler_kind(handler)
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(class_, name) == getattr(handler, name)


def test_a_partial_is_looked_through_and_keeps_its_arguments() -> None:
    trace: list[str] = []
    partial = functools.partial(functools.partial(Blocking, "request", one=1), two=2)
    handler = traced(partial, trace)(CLIENT, "server")
    assert trace == ["setup", "handle", "finish"]
    assert isinstance(handler, Blocking)
    assert (handler.request, handler.options) == ("request", {"one": 1, "two": 2})


def test_what_only_makes_handlers_is_left_as_it_is() -> None:
    def make(*arguments: Any) -> Blocking:
        return Blocking(*arguments)

    assert traced(make, []) is make
    partial = functools.partial(make)
    assert traced(partial, []).func is make  # type: ignore[attr-defined]


# A server object that records


class Inline(RequestServer):
    """
    A server object that serves at once.

    @ivar closed: requests whose connection it has closed.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.closed: list[Any] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        serve(self, request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)

    def close_request(self, request: Any) -> None:
        self.closed.append(request)


class Picky(Inline):
    """Serves nobody."""

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return False


class Recorded(Recording, Inline):
    pass


class RecordedPicky(Recording, Picky):
    pass


def make(
    cls: Any, handler: Any = Blocking, attributes: dict[str, Any] | None = None
) -> tuple[Any, Exchange]:
    exchange = Exchange()
    server = cls(handler, exchange, attributes, reactor=Clock(), concurrency=InlineExecutor())
    return server, exchange


def test_all_methods_are_recorded_in_their_order_and_do_what_they_did() -> None:
    server, exchange = make(Recorded)
    verify_and_process(server, "request", CLIENT)
    assert exchange.trace == LIFECYCLE
    assert server.closed == ["request"]
    assert exchange.error is None


def test_a_client_that_is_not_served_is_recorded_as_refused() -> None:
    server, exchange = make(RecordedPicky)
    verify_and_process(server, "request", CLIENT)
    assert exchange.trace == ["verify_request", "shutdown_request", "close_request"]


def test_what_a_handler_raises_is_recorded_and_not_logged() -> None:
    class Fails(Blocking):
        def handle(self) -> None:
            raise ValueError("no")

    server, exchange = make(Recorded, Fails)
    verify_and_process(server, "request", CLIENT)
    assert isinstance(exchange.error, ValueError)
    assert exchange.trace == [
        *("verify_request", "process_request", "finish_request"),
        *("setup", "handle", "finish", "handle_error"),
        *("shutdown_request", "close_request"),
    ]


def test_a_handler_sees_the_servers_address_and_the_tests_attributes() -> None:
    server, _ = make(Recorded, attributes={"greeting": "hello"})
    assert (server.server_address, server.greeting) == (SERVER_ADDRESS, "hello")
    server, _ = make(Recorded, attributes={"server_address": ("192.0.2.9", 80)})
    assert server.server_address == ("192.0.2.9", 80)


# The executor


def test_a_job_has_been_served_when_it_was_given_away() -> None:
    executor = InlineExecutor()
    seen = []

    def work() -> Outcome:
        seen.append((executor.running, executor.waiting))
        return Outcome.OK

    job = Job(work)
    executor.run(job)
    assert seen == [(1, 0)]
    assert job.told == ["started", Outcome.OK]


def test_a_job_that_gives_away_another_waits_for_it() -> None:
    executor = InlineExecutor()
    inner = Job()

    def work() -> Outcome:
        executor.run(inner)
        assert inner.told == ["started", Outcome.OK]
        assert executor.running == 1
        return Outcome.OK

    outer = Job(work)
    executor.run(outer)
    assert outer.told == ["started", Outcome.OK]
    assert executor.running == 0


def test_no_job_ever_waits_or_runs_beside_who_gave_it_away() -> None:
    executor, answers = InlineExecutor(), []

    def work() -> Outcome:
        answers.extend([executor.withdraw(job), executor.kill(job)])
        return Outcome.OK

    job = Job(work)
    executor.run(job)
    assert answers == [False, False]
    stopped = executor.stop()
    assert stopped.called
