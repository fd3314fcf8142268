"""Blocking HTTP handlers: what holds for sockserve's own and for C{http.server}'s alike."""

import functools
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler

import pytest

from sockserve import ConfigurationError, Deadlines
from sockserve.concurrency import make_concurrency
from sockserve.connections import StreamFactory
from sockserve.http import HTTPRequestHandler
from tests.integration.http_clients import chunked, client, get, post, whole
from tests.integration.servers import (
    connect_as,
    counts,
    description,
    in_thread,
    read_all,
    reset,
    running,
    serving,
    short,
    until,
)

pytestmark = [
    pytest.mark.usefixtures("no_leaks", "errors"),
    # Twisted's own way to its certificates.
    pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning"),
]

#: One that is lent and one that is pumped.
ONE_OF_EACH = ["tcp", "ssl"]

#: What a test here sets the deadline it is about to.  The others stay at their defaults,
#: 10 s (handshake) and more; a test that ended by one of those would say so by its counters.
SECONDS = 0.5


def place(name, **options):
    from twisted.internet import reactor

    return make_concurrency(reactor, name, **options)


class Own(HTTPRequestHandler):
    def answer(self, body, status=200):
        self.send_response(status)
        self.send_header("Content-Length", len(body))
        self.end_headers()
        self.wfile.write(body)


class Stock(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer = Own.answer

    def send_header(self, keyword, value):
        super().send_header(keyword, str(value))

    def log_message(self, format, *args):
        pass


BASES = [Own, Stock]
both_bases = pytest.mark.parametrize("base", BASES)
one_of_each_kind = pytest.mark.parametrize("kind", ONE_OF_EACH)


class Echo:
    """Tells a client the path it asked for, and the body it sent."""

    def do_GET(self):
        self.answer(self.path.encode())

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))


class Gate:
    """A handler that waits until a test lets it go on; made anew for each test."""

    def __init__(self):
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()

    def wait(self):
        self.entered.release()
        assert self.opened.wait(30)

    async def entry(self, times=1):
        for _ in range(times):
            assert await in_thread(self.entered.acquire, True, 15)


def handler(base, **methods):
    return type(base.__name__, (base,), methods)


def waiting(base, gate):
    """A handler that waits at C{/wait}."""

    def do_GET(self):
        if self.path == "/wait":
            gate.wait()
        self.answer(self.path.encode())

    return handler(base, do_GET=do_GET)


# Bodies


@both_bases
@one_of_each_kind
@pytest.mark.parametrize("size", [0, 1, 2**16, 2**19 - 1, 2**19, 2**19 + 1, 5 * 2**20])
async def test_a_body_is_whole_however_large(base, kind, size, tmp_path):
    """Up to 512 KiB it is kept in memory, then in a file, which is closed afterwards."""
    body = bytes(range(251)) * (size // 251) + bytes(size % 251)

    def talk(address):
        with client(address, kind) as one:
            return [one.ask(post(body)).body == body for _ in range(2)]

    async with serving(type("Handler", (Echo, base), {}), description(kind, tmp_path)) as server:
        assert await in_thread(talk, server.server_address) == [True, True]


def nothing(rfile, size):
    return b""


def by_line(rfile, size):
    return rfile.readline() + rfile.readline()


def too_much(rfile, size):
    return rfile.read(size + 100) + rfile.read(1)


def to_the_end(rfile, size):
    return rfile.read()


def some(rfile, size):
    return rfile.read(2)


def into(rfile, size):
    buffer = bytearray(size)
    return bytes(buffer[: rfile.readinto(buffer)])


def over_lines(rfile, size):
    return b"".join(rfile)


@both_bases
@one_of_each_kind
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    "read", [nothing, by_line, too_much, to_the_end, some, into, over_lines]
)
async def test_the_next_request_is_not_read_with_the_body(base, kind, read, large, tmp_path):
    body = b"GET /smuggled HTTP/1.1\r\n" + (b"x" * 2**20 if large else b"") + b"\r\n"

    class Reads(base):
        def do_POST(self):
            self.answer(b"%d" % len(read(self.rfile, int(self.headers["Content-Length"]))))

        def do_GET(self):
            self.answer(self.path.encode())

    def talk(address):
        with client(address, kind) as one:
            one.say(post(body) + get("/next", "Connection: close"))
            return int(one.answer().body), one.answer().body, one.rest()

    read_in_vain = {nothing: 0, some: 2}
    async with serving(Reads, description(kind, tmp_path)) as server:
        got = await in_thread(talk, server.server_address)
        assert got == (read_in_vain.get(read, len(body)), b"/next", b"")


@one_of_each_kind
async def test_chunks_are_taken_apart_for_own_handlers(kind, tmp_path):
    class Reads(Own):
        def do_POST(self):
            self.answer(self.rfile.read())

        do_GET = Echo.do_GET

    def talk(address):
        with client(address, kind) as one:
            one.say(chunked(b"one ", b"two ", b"three") + get("/next"))
            return one.answer().body, one.answer().body

    async with serving(Reads, description(kind, tmp_path)) as server:
        assert await in_thread(talk, server.server_address) == (b"one two three", b"/next")


@one_of_each_kind
@pytest.mark.parametrize("large", [False, True])
async def test_a_stock_handler_takes_chunks_apart_by_itself(kind, large, tmp_path):
    class Reads(Stock):
        def do_POST(self):
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                assert self.rfile.readline() == b"\r\n"
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            self.answer(body)

        do_GET = Echo.do_GET

    pieces = (b"one ", b"two " * (2**18 if large else 1), b"three")

    def talk(address):
        with client(address, kind) as one:
            one.say(chunked(*pieces) + get("/next"))
            return one.answer().body, one.answer().body

    async with serving(Reads, description(kind, tmp_path)) as server:
        assert await in_thread(talk, server.server_address) == (b"".join(pieces), b"/next")


class SmallFactory(StreamFactory):
    max_body_bytes = 1000


@both_bases
@one_of_each_kind
@pytest.mark.parametrize(
    ("said", "status"),
    [
        (post(b"x" * 1000), 200),
        (post(b"x" * 1001), 413),
        (post(b"x" * 2**20), 413),
        (chunked(b"x" * 1001), 413),
        (chunked(*[b"x" * 100] * 11), 413),
        (post(b"", "Expect: 100-continue").replace(b"h: 0", b"h: 1001"), 413),
    ],
)
async def test_a_body_that_is_too_large(base, kind, said, status, tmp_path):
    class Reads(base):
        def do_POST(self):
            self.answer(b"%d" % len(self.rfile.read()))

    async with serving(Reads, description(kind, tmp_path), factory=SmallFactory) as server:

        def talk():
            with client(server.server_address, kind) as one:
                return one.ask(said).status

        assert await in_thread(talk) == status
        await until(lambda: not server.statistics.active)
        assert server.statistics.errors == 0


@both_bases
@one_of_each_kind
async def test_a_client_is_told_once_to_continue(base, kind, tmp_path):
    def talk(address):
        with client(address, kind) as one:
            request = post(b"hello", "Expect: 100-continue")
            assert one.ask(request[:-5]).status == 100
            assert one.ask(b"hello").body == b"hello"
            # One that does not wait to be told.
            statuses = [one.ask(request).status, one.answer().status]
            return statuses, one.ask(get("/next")).body

    async with serving(type("Handler", (Echo, base), {}), description(kind, tmp_path)) as server:
        assert await in_thread(talk, server.server_address) == ([100, 200], b"/next")


# What is refused, and what is not


@both_bases
@pytest.mark.parametrize(
    ("said", "status"),
    [
        (post(b"hello", "Transfer-Encoding: chunked"), 400),
        (post(b"hello", "Content-Length: 6"), 400),
        (post(b"hello", "Content-Length: 5"), 400),
        (post(b"hello").replace(b"h: 5", b"h: +5"), 400),
        (post(b"hello").replace(b"h: 5", b"h : 5"), 400),
        (get("/", "Transfer-Encoding: gzip", method="POST"), 400),
        (get("/", "Transfer-Encoding: gzip, chunked", method="POST"), 501),
        (get("/", "Transfer-Encoding: chunked", method="POST") + b"x\r\n", 400),
        (get("/", "Transfer-Encoding: chunked", method="POST", version="1.0"), 400),
        (get("/", " folded: field"), 400),
        (get("/" + "x" * 2**16), 414),
        (get("/", "Field: " + "x" * 2**16), 431),
        (get("/", *["Field: 1"] * 101), 431),
        (get("/", version="2.0"), 505),
        (b"nonsense\r\n\r\n", 400),
    ],
)
async def test_what_is_ambiguous_is_refused(base, said, status):
    """With an answer of the server's own, and the connection's end."""

    class Smuggler(Echo, base):
        def do_GET(self):
            if self.path == "/smuggled":
                self.server.smuggled = True
            self.answer(b"")

    async with serving(Smuggler) as server:
        answer = await in_thread(whole, server.server_address, said + get("/smuggled"))
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.count(b"\r\nContent-Type:") == 1
        assert not hasattr(server, "smuggled")


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (b"GET /a HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n"),
        (b"GET /a HTTP/1.1\n\n", b"HTTP/1.1 200 OK\r\n"),
        (b"\r\n\r\nGET /a HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n"),
        (b"GET /a HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 OK\r\n"),
        (b"GET /\xe9 HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 OK\r\n"),
        (b"GET /a\r\n", b"/a"),
        (b"GET /a\r\n\r\n", b"/a"),
    ],
)
async def test_what_http_server_accepts(said, heard):
    async with serving(type("Handler", (Echo, Stock), {})) as server:
        answer = await in_thread(whole, server.server_address, said, "tcp", True)
        assert answer.startswith(heard)


# Deadlines


@both_bases
@one_of_each_kind
@pytest.mark.parametrize(
    ("said", "phase"),
    [
        (get()[:-2], "header"),
        (post(b"hello")[:-1], "body"),
        (chunked(b"hello")[:-1], "body"),
    ],
)
async def test_a_request_that_stalls(base, kind, said, phase, tmp_path):
    deadlines = Deadlines(**{phase: SECONDS})
    echo = type("Handler", (Echo, base), {})
    async with serving(echo, description(kind, tmp_path), deadlines=deadlines) as server:
        answer = await in_thread(whole, server.server_address, said, kind)
        assert answer.startswith(b"HTTP/1.1 408 ")
        await until(lambda: not server.statistics.active)
        assert server.statistics.expiries == {phase: 1}
        assert server.statistics.abandoned == 0


@both_bases
@one_of_each_kind
@pytest.mark.parametrize("phase", ["handle", "lifetime"])
@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"])
async def test_a_handler_that_takes_too_long(base, kind, phase, sent, tmp_path):
    """504 when nothing has been sent, else the answer is cut off."""
    gate = Gate()

    class Waits(base):
        def do_GET(self):
            if sent:
                self.connection.sendall(sent)
            gate.wait()
            self.answer(b"too late")

    def talk(address):
        with connect_as(kind, address) as sock:
            sock.sendall(get())
            try:
                return read_all(sock)
            except (ConnectionResetError, ssl.SSLError):  # cut off so
                return sent

    deadlines = Deadlines(**{phase: SECONDS})
    async with serving(Waits, description(kind, tmp_path), deadlines=deadlines) as server:
        try:
            answer = await in_thread(talk, server.server_address)
            if sent:
                assert answer == sent
            else:
                assert answer.startswith(b"HTTP/1.1 504 ")
            assert server.statistics.expiries == {phase: 1}
            assert server.concurrency.running == 1
        finally:
            gate.opened.set()
        await until(lambda: not server.concurrency.running)
        assert server.statistics.abandoned == server.statistics.errors == 0


@both_bases
@one_of_each_kind
async def test_a_handler_that_does_not_end_is_abandoned(base, kind, tmp_path):
    """And is counted no longer once it has ended."""
    gate = Gate()
    deadlines = Deadlines(handle=SECONDS)
    handler = waiting(base, gate)
    async with serving(handler, description(kind, tmp_path), deadlines=deadlines) as server:
        try:
            await in_thread(whole, server.server_address, get("/wait"), kind)
            # 5 s (ABANDON_SECONDS) later it is no longer waited for.
            await until(lambda: server.statistics.abandoned == 1)
            assert server.statistics.active == 0
        finally:
            gate.opened.set()
        await until(lambda: not server.concurrency.running)
        assert server.statistics.abandoned == 0
