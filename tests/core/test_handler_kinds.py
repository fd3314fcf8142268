"""Handler kinds: what can be told of a handler from its class."""

import functools
import http.server
import socketserver
import wsgiref.simple_server
import xmlrpc.server
from collections.abc import Callable
from typing import Any

import pytest

from sockserve import (
    BaseRequestHandler,
    ConfigurationError,
    DatagramRequestHandler,
    StreamRequestHandler,
)
from sockserve.core.handler_kinds import HandlerKind, handler_kind, provides, unwrap
from sockserve.http import HTTPRequestHandler
from sockserve.interfaces import IHTTPRequestHandler, IRequestHandler


class Blocking(BaseRequestHandler):
    def handle(self) -> None:
        pass


class Coroutine(BaseRequestHandler):
    async def handle(self) -> None:
        pass


class AllCoroutines(Coroutine):
    async def setup(self) -> None:
        pass

    async def finish(self) -> None:
        pass


class StdlibStream(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        pass


class StdlibCoroutine(socketserver.StreamRequestHandler):
    async def handle(self) -> None:
        pass


class OnlyFinish(StreamRequestHandler):
    async def finish(self) -> None:
        pass


class Maker:
    """Makes handlers, by methods that let nothing be noted on them."""

    def make(self, *arguments: Any) -> StdlibStream:
        return StdlibStream(*arguments)

    @classmethod
    def make_one(cls, *arguments: Any) -> StdlibStream:
        return StdlibStream(*arguments)


class Urgent(Coroutine):
    def urgent_received(self, data: bytes) -> None:
        pass


class UrgentBlocking(Blocking):
    def urgent_received(self, data: bytes) -> None:
        pass


class UrgentCoroutine(Coroutine):
    async def urgent_received(self, data: bytes) -> None:
        pass


class UrgentStdlib(StdlibStream):
    """Has a method of that name, which is its own business."""

    def urgent_received(self, data: bytes) -> None:
        pass


class OnlySetup(DatagramRequestHandler):
    async def setup(self) -> None:
        pass


@pytest.mark.parametrize(
    ("factory", "coroutine"),
    [
        (Blocking, False),
        (Coroutine, True),
        (AllCoroutines, True),
        (StdlibStream, False),
        (http.server.SimpleHTTPRequestHandler, False),
        (functools.partial(http.server.SimpleHTTPRequestHandler, directory="/"), False),
        (functools.partial(Coroutine), True),
        (functools.partial(functools.partial(Coroutine), server=None), True),
        (lambda request, client_address, server: None, False),
        (Maker().make, False),
        (Maker.make_one, False),
        (functools.partial(Maker().make), False),
    ],
)
def test_a_handler_is_a_coroutine_handler_or_not(
    factory: Callable[..., Any], coroutine: bool
) -> None:
    assert handler_kind(factory).is_coroutine is coroutine


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        (StdlibCoroutine, "handler StdlibCoroutine: handle is async def.*derive from sockserve's"),
        (functools.partial(StdlibCoroutine), "handler StdlibCoroutine: handle is async def"),
        (OnlyFinish, "handler OnlyFinish: finish is async def but handle is not"),
        (OnlySetup, "handler OnlySetup: setup is async def but handle is not"),
        (
            UrgentBlocking,
            "handler UrgentBlocking: urgent_received is never .* make handle",
        ),
        (UrgentCoroutine, "handler UrgentCoroutine: urgent_received is async def.*make it plain"),
        ("mypkg.echo:Echo", "'mypkg.echo:Echo' is not a class or callable"),
        (None, "None is not a class or callable"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(factory: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refused:
        handler_kind(factory)
    assert "\n" not in str(refused.value)


def test_the_class_behind_a_partial() -> None:
    assert unwrap(functools.partial(functools.partial(Blocking), server=None)) is Blocking
    assert unwrap(Blocking) is Blocking


# HTTP


class Coroutines(HTTPRequestHandler):
    async def do_GET(self) -> None:
        pass


class Mixed(Coroutines):
    def do_POST(self) -> None:
        pass


class Stock(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        pass


class ReadsByItself(Stock):
    def parse_request(self) -> bool:
        return super().parse_request()


class Unbuffered(Stock):
    rbufsize = 0


class SetsUp(Stock):
    timeout = 3
    rbufsize = 2**16

    def setup(self) -> None:
        super().setup()


class UrgentHTTP(Coroutines):
    def urgent_received(self, data: bytes) -> None:
        pass


def overriding(name: str, base: type) -> type:
    return type("Overriding", (base,), {name: lambda self: None})


#: The methods by which http.server's handlers go from request to request.
LOOP = ["handle", "handle_one_request", "parse_request", "handle_expect_100"]


class StockCoroutine(http.server.BaseHTTPRequestHandler):
    async def do_GET(self) -> None:
        pass


@pytest.mark.parametrize(
    ("factory", "kind"),
    [
        (Blocking, HandlerKind.BLOCKING),
        (Coroutine, HandlerKind.COROUTINE),
        (Urgent, HandlerKind.URGENT),
        (functools.partial(Urgent), HandlerKind.URGENT),
        (UrgentStdlib, HandlerKind.BLOCKING),
        (Coroutines, HandlerKind.HTTP_COROUTINE),
        (functools.partial(Coroutines), HandlerKind.HTTP_COROUTINE),
        (Mixed, HandlerKind.HTTP_MIXED),
        (Stock, HandlerKind.HTTP_STOCK),
        (http.server.SimpleHTTPRequestHandler, HandlerKind.HTTP_STOCK),
        (
            functools.partial(functools.partial(http.server.SimpleHTTPRequestHandler)),
            HandlerKind.HTTP_STOCK,
        ),
        (http.server.BaseHTTPRequestHandler, HandlerKind.HTTP_STOCK),
        (xmlrpc.server.SimpleXMLRPCRequestHandler, HandlerKind.HTTP_STOCK),
        (wsgiref.simple_server.WSGIRequestHandler, HandlerKind.HTTP_STOCK),
        # Its requests are read as they were, whatever else it does.
        (SetsUp, HandlerKind.HTTP_STOCK),
        (overriding("do_GET", wsgiref.simple_server.WSGIRequestHandler), HandlerKind.HTTP_STOCK),
        # These read what only their own socket has.
        (ReadsByItself, HandlerKind.BLOCKING),
        (Unbuffered, HandlerKind.BLOCKING),
        (overriding("handle", type("Between", (SetsUp,), {})), HandlerKind.BLOCKING),
        (functools.partial(overriding("parse_request", Stock)), HandlerKind.BLOCKING),
        (http.server.CGIHTTPRequestHandler, HandlerKind.BLOCKING),
        # Nobody can tell what it makes.
        (lambda request, client_address, server: None, HandlerKind.BLOCKING),
    ],
)
def test_the_kind_of_a_handler(factory: Callable[..., Any], kind: HandlerKind) -> None:
    assert handler_kind(factory) is kind


@pytest.mark.parametrize("base", [Stock, wsgiref.simple_server.WSGIRequestHandler])
@pytest.mark.parametrize("name", LOOP)
def test_a_stdlib_handler_with_a_loop_of_its_own_is_not_read_for(base: type, name: str) -> None:
    assert handler_kind(overriding(name, base)) is HandlerKind.BLOCKING


@pytest.mark.parametrize(
    ("kind", "is_coroutine", "is_http"),
    [
        (HandlerKind.COROUTINE, True, False),
        (HandlerKind.URGENT, True, False),
        (HandlerKind.BLOCKING, False, False),
        (HandlerKind.HTTP_COROUTINE, True, True),
        (HandlerKind.HTTP_MIXED, False, True),
        (HandlerKind.HTTP_STOCK, False, True),
    ],
)
def test_what_a_kind_says(kind: HandlerKind, is_coroutine: bool, is_http: bool) -> None:
    assert (kind.is_coroutine, kind.is_http) == (is_coroutine, is_http)


@pytest.mark.parametrize("factory", [UrgentHTTP, functools.partial(UrgentHTTP)])
def test_a_handler_of_http_that_asks_for_urgent_data_is_refused(factory: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"UrgentHTTP: urgent_received .* HTTP has no"):
        handler_kind(factory)


@pytest.mark.parametrize("kind", HandlerKind)
def test_only_what_takes_urgent_data_needs_tcp(kind: HandlerKind) -> None:
    assert kind.needs_tcp is (kind is HandlerKind.URGENT)


def test_a_stdlib_handler_with_a_coroutine_method_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="do_GET is async def"):
        handler_kind(StockCoroutine)


def test_what_a_class_provides_is_asked_through_partials() -> None:
    assert provides(functools.partial(Coroutines), IHTTPRequestHandler)
    assert provides(Coroutine, IRequestHandler)
    assert not provides(Coroutine, IHTTPRequestHandler)
    assert not provides(StdlibStream, IRequestHandler)
    assert not provides(Maker().make, IRequestHandler)
