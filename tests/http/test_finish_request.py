"""A server that makes its handlers in a way of its own: C{finish_request} is its own."""

import socketserver
from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest

from sockserve.http import HTTPRequestHandler
from sockserve.listeners.server import RequestServer
from tests.http.connections import CLIENT, GET, Connection, Server
from tests.streams.owner import SteppedExecutor


class Coroutine(HTTPRequestHandler):
    async def do_GET(self) -> None:
        answer(self)


class Blocking(HTTPRequestHandler):
    def do_GET(self) -> None:
        answer(self)


def answer(handler: Any) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"made by " + handler.made_by)


def mark(cls: Any) -> Any:
    """As the handlers' class, with a mark on each that it makes."""

    def make(*arguments: Any) -> Any:
        handler = cls(*arguments)
        handler.made_by = b"the program"
        return handler

    return make


def finish_request(server: Any, request: Any, client_address: Any) -> Any:
    assert client_address == CLIENT
    made = server.RequestHandlerClass
    server.RequestHandlerClass = mark(made)
    try:
        return super(Server, server).finish_request(request, client_address)
    finally:
        server.RequestHandlerClass = made


@pytest.mark.parametrize("handler", [Coroutine, Blocking])
def test_it_makes_each_of_them(
    connect: Callable[..., Connection],
    handler: type[HTTPRequestHandler],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Server, "finish_request", finish_request)
    executor = SteppedExecutor() if handler is Blocking else None
    client = connect(handler, executor=executor)
    for _ in range(2):
        client.send(GET)
        if executor is not None:
            executor.step()
    assert client.said.count(b"made by the program") == 2
    assert client.raised == []


def test_one_that_is_set_on_the_server_is_its_own_too(connect: Callable[..., Connection]) -> None:
    server: Any = connect(Coroutine).server
    assert server.makes_handlers()
    server.finish_request = lambda request, client_address: None
    assert not server.makes_handlers()


def test_one_that_is_put_in_the_place_of_ours_counts_as_its_own(
    connect: Callable[..., Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = connect(Coroutine).server
    original = RequestServer.finish_request
    monkeypatch.setattr(RequestServer, "finish_request", lambda *arguments: original(*arguments))
    assert not server.makes_handlers()


class Wrapper:
    """It passes on all that is asked of it, as those of tracers do."""

    def __init__(self, method: Any) -> None:
        self._method = method

    def __call__(self, *arguments: Any) -> Any:
        return self._method(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method, name)


def test_a_wrapper_around_ours_is_its_own(connect: Callable[..., Connection]) -> None:
    server: Any = connect(Coroutine).server
    server.finish_request = Wrapper(server.finish_request)
    assert not server.makes_handlers()


def test_one_that_is_no_function_is_its_own(
    connect: Callable[..., Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As decorators are that are classes."""
    original = Server.finish_request

    class Decorated:
        def __get__(self, server: Any, cls: Any = None) -> Any:
            return MethodType(self, server)

        def __call__(self, *arguments: Any) -> Any:
            return original(*arguments)

    monkeypatch.setattr(Server, "finish_request", Decorated())
    client = connect(Coroutine)
    assert not client.server.makes_handlers()


def test_a_handler_that_serves_while_it_is_made_serves_once(
    connect: Callable[..., Connection],
) -> None:
    """One of C{socketserver}'s, which a program sets in the place of ours while it serves."""
    served = []

    class Once(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            served.append(self.request.head.path)

    executor = SteppedExecutor()
    client = connect(Blocking, executor=executor)
    client.server.RequestHandlerClass = Once
    client.ask(GET)
    assert served == ["/"]
