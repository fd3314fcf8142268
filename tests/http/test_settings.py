"""HTTP settings: what is decided once for a server."""

import functools
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from twisted.internet.task import Clock

from sockserve import Deadlines
from sockserve.core.handler_kinds import HandlerKind
from sockserve.core.statistics import RequestRecord
from sockserve.executors.fork import ForkExecutor
from sockserve.http import HTTPRequestHandler
from sockserve.http.h1.head import HeaderSection, RequestHead, parse_head
from sockserve.http.responses import Response
from sockserve.http.settings import HTTPSettings
from sockserve.interfaces import Outcome
from sockserve.listeners.stream_factory import StreamFactory
from tests.transports import SteppedReactor


def plain(self: Any) -> None:
    pass


async def coroutine(self: Any) -> None:
    pass


def handler(base: type, **members: Any) -> type:
    return type("Handler", (base,), members)


def settings(handler: Any, **options: Any) -> HTTPSettings:
    return HTTPSettings(StreamFactory(handler, reactor=SteppedReactor(), **options))


def blocks(asked: HTTPSettings, method: str) -> bool:
    head = f"{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    assert asked.blocks is not None
    return asked.blocks(parse_head(head, lenient=False))


each_base = pytest.mark.parametrize("base", [BaseHTTPRequestHandler, HTTPRequestHandler])
each_wrap = pytest.mark.parametrize("wrap", [lambda cls: cls, functools.partial])


# Deadlines


@each_base
@each_wrap
@pytest.mark.parametrize(
    ("given", "timeout", "idle", "header"),
    [
        ({}, 5, 5, 5),
        ({"idle": 2, "header": 7}, 5, 2, 5),
        ({"idle": None, "header": None}, 5, 5, 5),
        ({"idle": 2, "header": 7}, None, 2, 7),
    ],
)
def test_a_handlers_timeout_bounds_what_it_no_longer_waits_for(
    base: type,
    wrap: Callable[[type], Any],
    given: dict[str, float | None],
    timeout: float | None,
    idle: float,
    header: float,
) -> None:
    made = wrap(handler(base, do_GET=plain, timeout=timeout))
    deadlines = settings(made, deadlines=Deadlines(**given)).deadlines
    assert (deadlines.idle, deadlines.header) == (idle, header)


def test_it_bounds_nothing_else_and_no_other_server() -> None:
    given = Deadlines(body=30, handle=40, write=50, lifetime=None)
    server = StreamFactory(
        handler(HTTPRequestHandler, do_GET=coroutine, timeout=5), reactor=Clock(), deadlines=given
    )
    bounded = HTTPSettings(server).deadlines
    assert (bounded.body, bounded.handle, bounded.write, bounded.lifetime) == (30, 40, 50, None)
    assert server.deadlines is given
    assert (given.idle, given.header) == (Deadlines().idle, Deadlines().header)


# Where a request is answered


@each_wrap
def test_each_method_says_where_it_runs(wrap: Callable[[type], Any]) -> None:
    asked = settings(wrap(handler(HTTPRequestHandler, do_GET=coroutine, do_POST=plain)))
    assert asked.kind is HandlerKind.HTTP_MIXED
    assert not blocks(asked, "GET")
    assert blocks(asked, "POST")


def test_a_method_there_is_none_for_is_refused_on_the_reactor() -> None:
    asked = settings(handler(HTTPRequestHandler, do_GET=coroutine, do_POST=plain))
    assert not blocks(asked, "DELETE")


@pytest.mark.parametrize(("method", "does_block"), [(plain, True), (coroutine, False)])
def test_a_method_that_is_made_when_it_is_asked_for_is_asked(
    method: Callable[[Any], Any], does_block: bool
) -> None:
    def find(self: Any, name: str) -> Any:
        if name == "do_PURGE":
            return method.__get__(self)
        raise AttributeError(name)

    made = handler(HTTPRequestHandler, do_GET=plain, __getattr__=find)
    asked = settings(made)
    assert blocks(asked, "PURGE") is does_block
    assert not blocks(asked, "DELETE")
    assert blocks(asked, "GET")


def test_one_whose_making_fails_without_a_request_runs_on_a_thread() -> None:
    def find(self: Any, name: str) -> Any:
        raise ZeroDivisionError

    made = handler(HTTPRequestHandler, do_GET=plain, __getattr__=find)
    assert blocks(settings(made), "PURGE")


def test_a_handler_may_choose_by_more_than_the_method() -> None:
    """As a router does."""

    class Router(HTTPRequestHandler):
        do_GET = plain

        @classmethod
        def blocks(cls, head: RequestHead) -> bool:
            return head.target.startswith("/slow")

    asked = settings(Router)
    heads = [RequestHead("GET", path, (1, 1), b"", HeaderSection()) for path in ("/", "/slow/1")]
    assert asked.blocks is not None
    assert list(map(asked.blocks, heads)) == [False, True]


def test_coroutines_alone_are_not_asked_about_each_request() -> None:
    made = handler(HTTPRequestHandler, do_GET=coroutine)
    asked = settings(made)
    assert asked.kind is HandlerKind.HTTP_COROUTINE
    assert asked.blocks is None


@each_wrap
def test_stock_handlers_are_not_asked_about_each_request(wrap: Callable[[type], Any]) -> None:
    asked = settings(wrap(handler(BaseHTTPRequestHandler, do_GET=plain)))
    assert asked.kind is HandlerKind.HTTP_STOCK


def test_blocking_methods_fork_where_they_are_asked_to() -> None:
    made = handler(HTTPRequestHandler, do_GET=plain)
    assert not settings(made).forks
    assert settings(made, concurrency=ForkExecutor(SteppedReactor())).forks


# Counting


def test_a_request_that_is_over_is_counted_by_the_class_of_its_status() -> None:
    server = StreamFactory(handler(HTTPRequestHandler, do_GET=coroutine), reactor=SteppedReactor())
    counting = HTTPSettings(server)
    for status, outcome, seconds in [
        (200, Outcome.OK, 0.5),
        (204, Outcome.LOST, 0.25),
        (500, Outcome.ERROR, 2.0),
        (0, Outcome.ERROR, 0.0),  # none began
    ]:
        response = Response(RequestHead("GET", "/", (1, 1), b"", HeaderSection()), None)
        response.status = status
        counting.account(RequestRecord(None, ""), response, outcome, seconds)
    told = server.statistics.snapshot()
    assert told["responses"] == {"0xx": 1, "2xx": 2, "5xx": 1}
    assert (told["requests"], told["errors"]) == (4, 2)
    assert told["durations"] == {"handle": {"count": 4, "total": 2.75}}
