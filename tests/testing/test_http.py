"""The kit users test their HTTP handlers with."""

import functools
import http.server
import socket
from http import HTTPStatus

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from sockserve import DeadlineExpired, Deadlines, Phase, StreamRequestHandler
from sockserve.http import FileRequestHandler, HTTPRequestHandler
from sockserve.testing import LIFECYCLE, HTTPExchange, run_http

pytestmark = pytest.mark.usefixtures("no_leaks")


def answer(handler, body, status=200):
    handler.send_response(status)
    handler.send_header("X-Method", handler.command)
    if isinstance(handler, http.server.BaseHTTPRequestHandler):
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


class Coroutine(HTTPRequestHandler):
    async def do_GET(self):
        answer(self, self.path.encode())

    do_HEAD = do_GET

    async def do_POST(self):
        answer(self, (await self.rfile.read())[::-1])

    async def do_BREAK(self):
        raise KeyError("culprit")


class Blocking(HTTPRequestHandler):
    def do_GET(self):
        answer(self, self.path.encode())

    do_HEAD = do_GET

    def do_POST(self):
        answer(self, self.rfile.read()[::-1])

    def do_BREAK(self):
        raise KeyError("culprit")


class Mixed(Coroutine):
    do_POST = Blocking.do_POST


class Stock(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        answer(self, self.path.encode())

    do_HEAD = do_GET

    def do_POST(self):
        answer(self, self.rfile.read(int(self.headers["Content-Length"]))[::-1])

    def do_BREAK(self):
        raise KeyError("culprit")

    def log_message(self, format, *args):
        pass


class OwnLoop(Stock):
    """Overrides what reads requests, and so has the socket to itself."""

    def handle(self):
        super().handle()


each_kind = pytest.mark.parametrize("handler", [Coroutine, Blocking, Mixed, Stock, OwnLoop])
each_read_by_the_reactor = pytest.mark.parametrize("handler", [Coroutine, Blocking, Mixed, Stock])


@each_kind
def test_request_in_response_out(handler):
    response = run_http(handler, path="/a?b")
    assert (response.status, response.reason, response.body) == (200, "OK", b"/a?b")
    assert response.headers["x-method"] == "GET"
    assert response.headers["Content-Length"] == "4"
    assert response.complete
    assert response.trace == LIFECYCLE
    assert response.error is None


@each_kind
def test_bodies_larger_than_any_buffer(handler):
    body = bytes(range(256)) * 8192
    assert run_http(handler, "POST", body=body).body == body[::-1]


@each_kind
def test_head_has_no_body(handler):
    response = run_http(handler, "HEAD", "/abc")
    assert (response.status, response.body, response.complete) == (200, b"", True)


@each_kind
def test_raw_request(handler):
    response = run_http(handler, raw=b"GET /x HTTP/1.0\r\n\r\n")
    assert (response.status, response.body) == (200, b"/x")


@pytest.mark.parametrize(
    ("handler", "status"), [(Coroutine, 500), (Blocking, 500), (Stock, 0), (OwnLoop, 0)]
)
def test_error_is_told(handler, status):
    """http.server's handlers answer nothing then; the connection ends."""
    response = run_http(handler, "BREAK")
    assert isinstance(response.error, KeyError)
    assert response.trace == [*LIFECYCLE[:6], "handle_error", *LIFECYCLE[6:]]
    assert response.status == status
    assert response.complete == bool(status)


@each_kind
def test_method_that_there_is_not(handler):
    response = run_http(handler, "BREW")
    assert (response.status, response.error) == (501, None)


@each_read_by_the_reactor
def test_client_that_is_refused_is_shut_down_once(handler):
    response = run_http(handler, attributes={"verify_request": lambda request, address: False})
    assert (response.status, response.complete) == (0, False)
    assert response.trace == ["shutdown_request", "close_request"]


def test_what_is_no_request():
    response = run_http(Coroutine, raw=b"GET /\r\nHTTP\r\n\r\n")
    assert response.status == 400
    assert "handle" not in response.trace


def test_header_fields_as_they_are_given():
    class Show(HTTPRequestHandler):
        async def do_GET(self):
            answer(self, repr(self.headers.items()).encode())

    twice = [("X-A", "1"), ("X-A", "2")]
    assert run_http(Show, headers=twice).body == repr([("Host", "localhost"), *twice]).encode()
    host = {"host": "example.org"}
    assert run_http(Show, headers=host).body == b"[('host', 'example.org')]"


def test_chunks_and_interim_responses_are_taken_apart():
    class Streams(HTTPRequestHandler):
        async def do_GET(self):
            self.send_response_only(HTTPStatus.EARLY_HINTS)
            self.send_header("Link", "</a.css>; rel=preload")
            self.end_headers()
            self.send_response(200)
            self.end_headers()
            for piece in (b"one", b"two"):
                self.wfile.write(piece)
                self.wfile.flush()

    response = run_http(Streams)
    assert (response.status, response.body) == (200, b"onetwo")
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert "Link" not in response.headers


def test_chunked_request():
    headers = {"Transfer-Encoding": "chunked"}
    response = run_http(Coroutine, "POST", headers=headers, body=b"3\r\nabc\r\n0\r\n\r\n")
    assert response.body == b"cba"


@pytest.mark.parametrize("blocking", [False, True])
def test_response_that_breaks_off(blocking):
    class Breaks(HTTPRequestHandler):
        def begin(self):
            self.send_response(200)
            self.send_header("Content-Length", 10)
            self.end_headers()
            self.wfile.write(b"12345")
            self.wfile.flush()
            raise OSError("disk")

    class BreaksInCoroutine(Breaks):
        async def do_GET(self):
            self.begin()

    class BreaksInThread(Breaks):
        def do_GET(self):
            self.begin()

    response = run_http(BreaksInThread if blocking else BreaksInCoroutine)
    assert (response.status, response.body, response.complete) == (200, b"12345", False)
    assert str(response.error) == "disk"


@each_kind
def test_attributes_and_address(handler):
    class Who(handler):
        def do_WHO(self):
            answer(self, f"{self.server.motto} {self.client_address[0]}".encode())

    response = run_http(Who, "WHO", client_address=("192.0.2.1", 7), attributes={"motto": "hello"})
    assert response.body == b"hello 192.0.2.1"


def test_blocking_handler_has_a_real_socket():
    class Looks(Blocking):
        def do_GET(self):
            assert isinstance(self.connection, socket.socket)
            assert self.connection.fileno() >= 0
            answer(self, repr(self.connection.getpeername()).encode())

    response = run_http(Looks, client_address=("2001:db8::1", 7, 0, 0))
    assert response.error is None
    assert response.body == b"('2001:db8::1', 7, 0, 0)"


SWITCH = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: shout\r\n\r\n"


class Switches(HTTPRequestHandler):
    def begin(self):
        self.send_response(101)
        self.send_header("Connection", "upgrade")
        self.send_header("Upgrade", "shout")
        self.end_headers()


class CoroutineSwitches(Switches):
    async def do_GET(self):
        assert await self.rfile.read() == b""  # the request's own body
        self.begin()
        async for line in self.rfile:
            self.wfile.write(line.upper())


class BlockingSwitches(Switches):
    def do_GET(self):
        self.begin()
        for line in self.rfile:
            self.wfile.write(line.upper())


@pytest.mark.parametrize("handler", [CoroutineSwitches, BlockingSwitches])
def test_switch_of_protocols(handler):
    response = run_http(handler, raw=SWITCH + b"one\ntwo")
    assert (response.status, response.body, response.error) == (101, b"ONE\nTWO", None)
    assert "Content-Length" not in response.headers


def test_switch_of_protocols_step_by_step():
    exchange = HTTPExchange(CoroutineSwitches)
    exchange.receive(SWITCH)
    assert [response.status for response in exchange.take_responses()] == [101]
    exchange.receive(b"one\n")
    assert exchange.take_sent() == b"ONE\n"
    exchange.end()
    assert exchange.done


def test_partials_and_files(tmp_path):
    (tmp_path / "a.txt").write_text("content")
    own = functools.partial(FileRequestHandler, directory=tmp_path)
    stock = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    for handler in (own, stock):
        response = run_http(handler, path="/a.txt")
        assert (response.status, response.body) == (200, b"content")
        assert response.headers["Content-Type"].startswith("text/plain")
        assert response.trace == LIFECYCLE
    response = run_http(own, path="/a.txt", headers={"Range": "bytes=-4"})
    assert (response.status, response.body) == (206, b"tent")


def test_limit_of_bodies():
    limit = {"max_body_bytes": 10}
    assert run_http(Blocking, "POST", body=b"x" * 10, attributes=limit).status == 200
    response = run_http(Blocking, "POST", body=b"x" * 11, attributes=limit)
    assert response.status == 413
    assert "handle" not in response.trace


def test_coroutine_that_waits_for_something_else_is_told_what_to_do():
    class Waits(HTTPRequestHandler):
        async def do_GET(self):
            await Deferred()

    with pytest.raises(AssertionError, match="HTTPExchange"):
        run_http(Waits)


# Step by step


@each_read_by_the_reactor
def test_requests_one_after_another(handler):
    exchange = HTTPExchange(handler)
    exchange.request(path="/one")
    exchange.request("POST", body=b"two")
    assert [response.body for response in exchange.take_responses()] == [b"/one", b"owt"]
    assert exchange.take_responses() == []
    exchange.receive(b"HEAD /three HTTP/1.1\r\nHo")
    assert exchange.take_responses() == []
    exchange.receive(b"st: a\r\nConnection: close\r\n\r\n")
    (response,) = exchange.take_responses()
    assert (response.headers["X-Method"], response.body) == ("HEAD", b"")
    assert exchange.done
    assert exchange.trace.count("setup") == 3
    assert exchange.trace[-2:] == ["shutdown_request", "close_request"]


@each_read_by_the_reactor
def test_pipelined_requests(handler):
    exchange = HTTPExchange(handler)
    requests = [f"GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for number in range(50)]
    exchange.receive(b"".join(requests))
    exchange.end()
    bodies = [response.body for response in exchange.take_responses()]
    assert bodies == [b"/%d" % number for number in range(50)]
    assert exchange.done


def test_a_coroutine_that_waits_goes_on():
    class Later(HTTPRequestHandler):
        async def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"one ")
            await deferLater(self.server.reactor, 3)
            self.wfile.write(b"two")

    exchange = HTTPExchange(Later)
    exchange.request()
    exchange.advance(2.9)
    assert b"one" in exchange.sent
    assert exchange.take_responses() == []
    exchange.advance(0.1)
    (response,) = exchange.take_responses()
    assert (response.body, exchange.done) == (b"one two", False)
    exchange.lose()
    assert exchange.done


#: What a client does, and what it gets: with each deadline 10 seconds.
DEADLINES = [
    (Coroutine, b"", Phase.IDLE, []),
    (Stock, b"", Phase.IDLE, []),
    (Coroutine, b"GET / HT", Phase.HEADER, [408]),
    (Blocking, b"GET / HTTP/1.1\r\nHost", Phase.HEADER, [408]),
    (Stock, b"GET / HTTP/1.1\r\n", Phase.HEADER, [408]),
    (Coroutine, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", Phase.BODY, [408]),
    (Blocking, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", Phase.BODY, [408]),
    (Stock, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", Phase.BODY, [408]),
]


@pytest.mark.parametrize(("handler", "data", "phase", "statuses"), DEADLINES)
def test_deadlines(handler, data, phase, statuses):
    deadlines = Deadlines(body_rate=None, **{"idle": 60, str(phase): 10})
    exchange = HTTPExchange(handler, deadlines=deadlines)
    exchange.receive(data)
    exchange.advance(9.9)
    assert (exchange.expired, exchange.sent) == (None, b"")
    exchange.advance(0.2)  # 10.1
    assert exchange.expired is phase
    assert [response.status for response in exchange.take_responses()] == statuses
    assert exchange.done


@pytest.mark.parametrize("handler", [Coroutine, Blocking, Stock])
def test_idle_ends_with_the_request_that_comes_just_in_time(handler):
    exchange = HTTPExchange(handler, deadlines=Deadlines(idle=10))
    exchange.advance(9)
    exchange.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
    exchange.advance(2)  # 11 since the connection's beginning, 2 since its last byte
    exchange.receive(b"def")
    assert [response.body for response in exchange.take_responses()] == [b"fedcba"]
    exchange.advance(9.9)
    assert exchange.expired is None
    exchange.advance(0.2)  # 10.1 since the response
    assert exchange.expired is Phase.IDLE


def test_handle_deadline_is_answered():
    class Stuck(HTTPRequestHandler):
        async def do_GET(self):
            await Deferred()

    exchange = HTTPExchange(Stuck, deadlines=Deadlines(handle=5))
    exchange.request()
    exchange.advance(4.9)
    assert exchange.take_responses() == []
    exchange.advance(0.2)  # 5.1
    (response,) = exchange.take_responses()
    assert (response.status, exchange.expired, exchange.done) == (504, Phase.HANDLE, True)
    assert isinstance(response.error, DeadlineExpired)


def test_connection_that_breaks_in_a_body():
    exchange = HTTPExchange(Coroutine)
    exchange.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
    exchange.lose()
    assert isinstance(exchange.error, ConnectionError)
    assert (exchange.done, exchange.take_responses()) == (True, [])


def test_step_by_step_is_for_those_the_server_reads_for():
    class NoHTTP(StreamRequestHandler):
        async def handle(self):
            pass

    for handler in (OwnLoop, NoHTTP):
        with pytest.raises(ValueError, match="by itself"):
            HTTPExchange(handler)
