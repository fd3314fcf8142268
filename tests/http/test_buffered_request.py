"""Gathering: which handlers get a request that has arrived, and which their connection."""

import functools
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler
from socketserver import StreamRequestHandler
from wsgiref.simple_server import WSGIRequestHandler
from xmlrpc.server import SimpleXMLRPCRequestHandler

import pytest

from sockserve.core.handler_kinds import HandlerKind, handler_kind
from sockserve.http import HTTPRequestHandler


class Plain(BaseHTTPRequestHandler):
    timeout = 3
    rbufsize = 2**16

    def setup(self):
        super().setup()

    def do_GET(self):
        pass


def overriding(name, base=BaseHTTPRequestHandler):
    return type("Handler", (base,), {name: lambda self: None})


LOOP = ["handle", "handle_one_request", "parse_request", "handle_expect_100"]


@pytest.mark.parametrize(
    "handler",
    [
        BaseHTTPRequestHandler,
        SimpleHTTPRequestHandler,
        functools.partial(functools.partial(SimpleHTTPRequestHandler), directory="."),
        SimpleXMLRPCRequestHandler,
        WSGIRequestHandler,
        Plain,
        overriding("do_GET", WSGIRequestHandler),
    ],
)
def test_it_reads_requests_as_http_server_does(handler):
    assert handler_kind(handler) is HandlerKind.HTTP_STOCK


@pytest.mark.parametrize(
    "handler",
    [
        *(overriding(name) for name in LOOP),
        *(overriding(name, WSGIRequestHandler) for name in LOOP),
        overriding("handle", type("Between", (Plain,), {})),
        functools.partial(overriding("parse_request")),
        type("Unbuffered", (Plain,), {"rbufsize": 0}),
        StreamRequestHandler,
        HTTPRequestHandler,
        lambda *arguments: Plain(*arguments),
    ],
)
def test_it_has_a_way_of_its_own(handler):
    assert handler_kind(handler) is not HandlerKind.HTTP_STOCK
