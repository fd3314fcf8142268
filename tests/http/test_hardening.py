"""
HTTP in memory, at its edges: handlers that take a mistake for nothing, mistakes that leave
nothing behind, and what is refused before anything is served.
"""

import functools
from http.server import BaseHTTPRequestHandler

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from sockserve import ConfigurationError
from sockserve.http import HTTPRequestHandler
from sockserve.http.h1.framing import LocalProtocolError
from sockserve.http.h1.head import parse_head
from sockserve.http.responses import BlockingResponse
from sockserve.listeners.stream_factory import StreamFactory
from tests.http.test_channel import GET, POST, Client, Hello, only

LAST = GET[:-2] + b"Connection: close\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def logged():
    """What is logged."""
    with capturedLogs() as events:
        yield events


def handling(function):
    """A handler of GET and POST."""
    return type("Handler", (HTTPRequestHandler,), {"do_GET": function, "do_POST": function})


# A body that breaks


class Careless(Hello):
    """Answers whatever happens to the body."""

    caught = 0

    async def do_POST(self):
        try:
            await self.rfile.read()
        except Exception:
            type(self).caught += 1
        await self.do_GET()


@pytest.mark.parametrize(
    "sent",
    [
        [CHUNKED + b"5\r\nhelloXX\r\n" + GET],
        [CHUNKED + b"zz" + GET],
        [CHUNKED, b"5\r\nhello", b"XX\r\n", GET],
        [CHUNKED + b"5\r\nhel", None],
        [POST % 9 + b"hello", None],
    ],
)
def test_an_answer_to_a_broken_body_is_the_last(sent):
    """What follows such a body cannot be told from it.  (None is the client's end.)"""
    handler = type("Handler", (Careless,), {})
    client = Client(handler)
    for data in sent:
        if data is None:
            client.transport.protocol.readConnectionLost()
        else:
            client.send(data)
    client.advance(0)
    assert handler.caught == 1
    assert client.answer() == (200, "close", 13)
    assert client.ended == "closed"
    assert client.server.statistics.active == 0


def test_a_large_answer_outlasts_the_body_nobody_has_read():
    """The time for what is left of a body ends with the connection's input."""

    async def do_POST(self):
        self.send_response(200)
        self.send_header("Content-Length", 2**20)
        self.end_headers()
        self.wfile.write(b"x" * 2**20)

    client = Client(handling(do_POST), **only(header=10))
    client.transport.producer.pauseProducing()  # the reader is slow
    client.send(CHUNKED + b"10000\r\n")
    for _ in range(6):  # 6 * 64 KiB: more than is thrown away
        client.send(b"x" * 0x10000 + b"\r\n10000\r\n")
    # The body, left at 0 s, would have until 10 s.
    client.advance(30)
    assert client.ended is None
    while client.transport.producer is not None:
        client.transport.producer.resumeProducing()
    client.advance(0)
    assert client.answer() == (200, None, 2**20)
    assert client.ended == "closed"
    assert client.expiries == {}


# Pieces of a body that are refused


def test_a_refused_piece_leaves_nothing_behind():
    refused = []

    async def do_GET(self):
        self.try_to_write(b"too early")
        self.send_response(200)
        self.send_header("Content-Length", 8)
        self.end_headers()
        self.wfile.write(b"this ")
        self.try_to_write(b"is too long")
        self.wfile.write(b"fit")

    def try_to_write(self, data):
        with pytest.raises(LocalProtocolError) as caught:
            self.wfile.write(data)
        refused.append(str(caught.value))

    handler = handling(do_GET)
    handler.try_to_write = try_to_write
    client = Client(handler)
    client.send(GET * 2)
    assert client.said.count(b"\r\n\r\nthis fit") == 2
    assert b"too" not in client.said
    assert len(refused) == 4


@pytest.mark.parametrize("length", [None, 8])
def test_a_refused_piece_of_a_blocking_handler_leaves_nothing_behind(length):
    sent = []
    response = BlockingResponse(parse_head(GET, lenient=False), sent.append)
    with pytest.raises(LocalProtocolError):
        response.write(b"too early")
    field = "" if length is None else f"Content-Length: {length}\r\n"
    response.start(200, f"HTTP/1.1 200 OK\r\n{field}", length, None)
    response.write(b"this ")
    if length is not None:
        with pytest.raises(LocalProtocolError):
            response.write(b"is too long")
    response.write(b"fit")
    response.finish()
    assert b"".join(sent) == b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nthis fit"
    assert response.sent == 8


# Fields about the connection


def versioned(version, *fields):
    return "\r\n".join([f"GET / {version}", "Host: localhost", *fields, "", ""]).encode()


KEPT_1_0 = versioned("HTTP/1.0", "Connection: keep-alive")


@pytest.mark.parametrize(
    ("request_", "says", "kept"),
    [
        (GET, ["keep-alive"], True),
        (GET, ["Keep-Alive"], True),
        (versioned("HTTP/1.0"), ["keep-alive"], False),
        (versioned("HTTP/1.0"), ["keep-alive, x"], False),
        (KEPT_1_0, ["keep-alive"], True),
        (versioned("HTTP/1.1", "Connection: close"), ["keep-alive"], False),
        (versioned("HTTP/1.1", "Connection: close"), ["x"], False),
        (GET, ["close"], False),
        (GET, ["close, x"], False),
        (GET, ["x, Close"], False),
        (GET, ["keep-alive", "close"], False),
        (GET, ["close", "keep-alive"], False),
        (KEPT_1_0, ["close, x"], False),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_what_a_handler_says_of_the_connection_is_kept(request_, says, kept, whole):
    """No client is promised a connection that is closed, nor the other way round."""

    async def do_GET(self):
        self.send_response(200)
        for value in says:
            self.send_header("Connection", value)
        self.send_header("Content-Length", 2)
        self.end_headers()
        self.wfile.write(b"o")
        if not whole:
            self.wfile.flush()
        self.wfile.write(b"k")

    client = Client(handling(do_GET))
    client.send(request_)
    client.advance(0)
    assert client.ended == (None if kept else "closed")
    head = client.said.partition(b"\r\n\r\n")[0].decode().lower()
    options = set()
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        if name == "connection":
            options |= {option.strip() for option in value.split(",")}
    if not kept:
        assert "close" in options
        assert "keep-alive" not in options
    else:
        assert "close" not in options
        assert ("keep-alive" in options) == (request_ == KEPT_1_0)


def test_a_length_said_twice_is_sent_once():
    async def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", 2)
        self.send_header("content-length", "2")
        with pytest.raises(ValueError, match="after 2"):
            self.send_header("Content-Length", 3)
        self.end_headers()
        self.wfile.write(b"ok")

    client = Client(handling(do_GET))
    client.send(GET)
    assert client.said.lower().count(b"content-length: ") == 1
    assert client.answer() == (200, None, 2)


# The end of a connection


@pytest.mark.parametrize("sent", [b"", GET, LAST])
def test_a_shutdown_request_that_raises_settles_nevertheless(sent, logged):
    def shutdown_request(request):
        raise ZeroDivisionError("on purpose")

    client = Client(Hello, **only(drain=30))
    client.server.shutdown_request = shutdown_request
    client.send(sent)
    drained = client.server.drain()
    client.advance(1)
    assert client.ended
    assert drained.called
    assert client.server.statistics.active == 0
    assert client.expiries == {}
    assert [formatEvent(event) for event in logged] == ["shutdown_request raised"]


def test_what_a_deadline_answered_is_what_is_recorded():
    records = []

    async def do_GET(self):
        await Deferred()

    client = Client(handling(do_GET), **only(handle=20))
    client.server.observers.append(records.append)
    client.send(GET)
    client.advance(20)
    assert client.status() == (504, "close")
    (record,) = records
    assert (record.status, record.outcome) == (504, "expired: handle")
    assert record.request_line == "GET / HTTP/1.1"


# What is refused before anything is served


class Stock(BaseHTTPRequestHandler):
    pass


async def coroutine(self):
    pass


async def generator(self):
    yield b"data"


def plain(self):
    pass


@pytest.mark.parametrize(
    ("base", "members"),
    [
        (Stock, {"do_GET": coroutine}),
        (Stock, {"do_GET": plain, "do_POST": coroutine}),
        (HTTPRequestHandler, {"do_GET": generator}),
        (HTTPRequestHandler, {"do_GET": coroutine, "do_POST": generator}),
        (HTTPRequestHandler, {"do_GET": "Hello, world!"}),
        (HTTPRequestHandler, {"do_GET": plain, "do_POST": None}),
    ],
)
@pytest.mark.parametrize("wrap", [lambda cls: cls, functools.partial])
def test_methods_that_could_never_answer(base, members, wrap):
    name = list(members)[-1]
    with pytest.raises(ConfigurationError, match=name):
        StreamFactory(wrap(type("Handler", (base,), members)), reactor=Clock())
