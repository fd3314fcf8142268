"""What can be no handler, and what is said of it; and what only looks so."""

import functools
import re
import socketserver
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler
from wsgiref.simple_server import WSGIRequestHandler
from wsgiref.validate import validator
from xmlrpc.server import SimpleXMLRPCRequestHandler

import pytest

from sockserve import ConfigurationError, StreamRequestHandler
from sockserve.http import FileRequestHandler, HTTPRequestHandler
from sockserve.run.config import server_config
from sockserve.run.handler_check import check_handler
from sockserve.run.loading import load_server
from sockserve.run.source_config import source_config


def wsgi(environ, start_response):
    return []


def wsgi_in_short(env, start):
    return []


class WSGIObject:
    def __call__(self, environ, start_response):
        return []

    def method(self, environ, start_response):
        return []


class WSGIClass:
    def __init__(self, environ, start_response):
        pass

    def __iter__(self):
        yield b""


async def asgi(scope, receive, send):
    pass


class ASGIObject:
    async def __call__(self, scope, receive, send):
        pass


class ASGI2:
    def __init__(self, scope):
        pass

    async def __call__(self, receive, send):
        pass


class Framework:
    """Its module is a framework's; its arguments tell nothing."""

    __module__ = "flask.app"

    def __call__(self, *args):
        pass


async def coroutine(request, client_address, server):
    pass


class CoroutineObject:
    async def __call__(self, request, client_address, server):
        pass


def generator(request, client_address, server):
    yield


async def asynchronous_generator(request, client_address, server):
    yield


class Lines(StreamRequestHandler):
    async def handle(self):
        pass


def make():
    return Lines


class Extra(Lines):
    def __init__(self, request, client_address, server, database):
        pass


class ExtraKeyword(Lines):
    def __init__(self, *args, database):
        pass


class Few(socketserver.BaseRequestHandler):
    def __init__(self, request):
        pass


class Plain:
    pass


class Misspelt(StreamRequestHandler):
    async def hande(self):
        pass


class NoMethod(HTTPRequestHandler):
    pass


class StockNoMethod(BaseHTTPRequestHandler):
    pass


class Small(BaseHTTPRequestHandler):
    def do_get(self):
        pass


class OfOthers(HTTPRequestHandler):
    async def post(self):
        pass


class Withdrawn(HTTPRequestHandler):
    do_GET = None


class ByName(HTTPRequestHandler):
    def __getattr__(self, name):
        raise AttributeError(name)


class Setting(HTTPRequestHandler):
    def setup(self):
        super().setup()
        self.do_GET = self.finish


class OwnLoop(BaseHTTPRequestHandler):
    def handle(self):
        pass


AS_WSGI = "it is a WSGI application, which is not served as it is yet; .*wsgiref.*gunicorn"
AS_ASGI = "it is an ASGI application, which is not served here; use uvicorn or hypercorn"
NEVER_AWAITED = "it is a coroutine function, which nothing would await; write a class"
NO_ITERATION = "it is a generator function, which nothing would iterate over; write a class"
LACKING = "cannot be called with three arguments.*missing a required.*'database'.*partial"
TOO_MANY = "cannot be called with three arguments.*too many positional arguments; "
NO_METHOD = "it has no do_ method, so it would answer no request; write async def do_GET"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (wsgi, AS_WSGI),
        (wsgi_in_short, AS_WSGI),
        (WSGIObject(), AS_WSGI),
        (WSGIObject().method, AS_WSGI),
        (functools.partial(lambda _, environ, start_response: [], 1), AS_WSGI),
        (validator(wsgi), AS_WSGI),
        (Framework(), AS_WSGI),
        (WSGIClass, AS_WSGI),
        (WSGIObject, "it makes WSGI applications"),
        (Framework, "it makes WSGI applications"),
        (asgi, AS_ASGI),
        (ASGIObject(), AS_ASGI),
        (ASGI2, AS_ASGI),
        (ASGIObject, "it makes ASGI applications"),
        (coroutine, NEVER_AWAITED),
        (functools.partial(coroutine), NEVER_AWAITED),
        (CoroutineObject(), NEVER_AWAITED),
        (generator, NO_ITERATION),
        (asynchronous_generator, NO_ITERATION),
        (make, TOO_MANY + "if it returns a handler's class, name what it returns"),
        (Few, TOO_MANY),
        (Plain, TOO_MANY),
        (functools.partial(Lines, 1), TOO_MANY),
        (Extra, LACKING),
        (ExtraKeyword, LACKING),
        (Misspelt, "it has no handle method, so nothing would serve; was 'hande' to be it"),
        (NoMethod, NO_METHOD),
        (functools.partial(NoMethod), NO_METHOD),
        (StockNoMethod, NO_METHOD),
        (Withdrawn, NO_METHOD),
        (Small, "did you mean 'do_GET' by 'do_get'"),
        (OfOthers, "did you mean 'do_POST' by 'post'"),
        (socketserver.TCPServer, "it is a server's class; .*--server"),
        (7, "7 is not a class or callable"),
    ],
)
def test_what_can_be_no_handler_is_told_what_it_is(given, message):
    with pytest.raises(ConfigurationError, match=rf"^HERE: .*{message}") as caught:
        check_handler(given, "HERE")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        Lines,
        StreamRequestHandler,
        socketserver.BaseRequestHandler,
        functools.partial(Extra, database=1),
        lambda request, client_address, server: None,
        lambda *args: None,
        SimpleHTTPRequestHandler,
        SimpleXMLRPCRequestHandler,
        WSGIRequestHandler,
        functools.partial(FileRequestHandler, directory="/"),
        ByName,
        Setting,
        OwnLoop,
        functools.partial(OwnLoop),
        dict,
    ],
)
def test_what_can_be_a_handler_is_taken(given):
    check_handler(given, "HERE")


def test_a_program_that_gives_a_class_is_told_as_well():
    with pytest.raises(ConfigurationError, match=r"^handler Extra: it cannot be called with three"):
        server_config({"handler": Extra})
    with pytest.raises(ConfigurationError, match=r"^handler wsgi: it is a WSGI application"):
        source_config({"source": "sqlite:///jobs.db?table=jobs", "handler": wsgi})


def test_an_application_is_no_server_object():
    with pytest.raises(
        ConfigurationError, match=rf"^server '{re.escape(__name__)}:asgi': {AS_ASGI}"
    ):
        load_server(f"{__name__}:asgi")
