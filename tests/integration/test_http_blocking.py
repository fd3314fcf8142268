"""Blocking HTTP handlers: what holds for sockserve's own and for C{http.server}'s alike."""

import contextlib
import os
import re
import threading

import pytest

from sockserve import ConfigurationError, Deadlines
from sockserve.listeners.stream_factory import StreamFactory
from tests.integration.http_clients import chunked, client, get, post, whole
from tests.integration.http_handlers import (
    BASES,
    Echo,
    Own,
    Stock,
    both_bases,
    one_of_each_kind,
    place,
)
from tests.integration.servers import (
    PATIENCE_SECONDS,
    description,
    in_thread,
    serving,
    until,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

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
@pytest.mark.parametrize("read", [nothing, by_line, too_much, to_the_end, some, into, over_lines])
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

    where, deadlines = description(kind, tmp_path), Deadlines(linger=PATIENCE_SECONDS)
    async with serving(Reads, where, factory=SmallFactory, deadlines=deadlines) as server:

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
        ("GET /Müller.pdf HTTP/1.1\r\nHost: h\r\n\r\n".encode(), 400),
        ("GET /?q=à HTTP/1.1\r\nHost: h\r\n\r\n".encode(), 400),
        (b"GET /\xe9 HTTP/1.0\r\n\r\n", 400),
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
        (b"GET /a\r\n", b"/a"),
        (b"GET /a\r\n\r\n", b"/a"),
        (b"GET /a\r\nHost: h\r\n\r\n", b"/a"),
    ],
)
async def test_what_http_server_accepts(said, heard):
    async with serving(type("Handler", (Echo, Stock), {})) as server:
        answer = await in_thread(whole, server.server_address, said, "tcp", True)
        assert answer.startswith(heard)


def undated(answer):
    return re.sub(rb"\r\nDate: [^\r]*", b"", answer)


@pytest.mark.parametrize("base", [Own, Stock])
@pytest.mark.parametrize("asked_for", ["HTTP/0.9", "HTTP/1.0", "nothing"])
@pytest.mark.parametrize("rest", [b"", b"\r\n", b"Host: h\r\n\r\n"])
async def test_a_request_of_http_0_9_in_pieces_and_whole(base, asked_for, rest):
    """A handler of sockserve's own class has to ask for them, one of http.server's gets them."""

    class Asks(Echo, base):
        if asked_for != "nothing":
            default_request_version = asked_for

    def in_pieces(address):
        with client(address) as one:
            for piece in (b"GET", b" /a", b"\r", b"\n", rest):
                # What came before another's request has been read when that is answered.
                whole(address, get("/other", "Connection: close"))
                with contextlib.suppress(ConnectionError):
                    one.say(piece)
            return one.rest()

    async with serving(Asks) as server:
        said = await in_thread(whole, server.server_address, b"GET /a\r\n" + rest)
        the_same = await in_thread(in_pieces, server.server_address)
        assert [undated(the_same)] == [undated(said)]
        if base is Own and asked_for != "HTTP/0.9":
            assert said.startswith(b"HTTP/1.1 400 ")
        else:
            assert said.endswith(b"/a")
            assert said.startswith(b"HTTP/") == (asked_for == "HTTP/1.0")


# Kinds of handler in one class, and places to run


class Mixed(Own):
    async def do_GET(self):
        assert threading.current_thread() is threading.main_thread()
        body = await self.rfile.read()
        self.answer(b"coroutine " + body)

    def do_POST(self):
        assert threading.current_thread() is not threading.main_thread()
        self.answer(b"blocking " + self.rfile.read())


class MixedWithSetup(Mixed):
    """A plain C{setup} goes with both."""

    def setup(self):
        super().setup()
        self.ready = True

    def finish(self):
        assert self.ready
        super().finish()


@pytest.mark.parametrize("handler", [Mixed, MixedWithSetup])
@one_of_each_kind
async def test_coroutines_and_blocking_methods_take_turns(handler, kind, tmp_path):
    said = [
        (post(b"1"), b"blocking 1"),
        (post(b"2", method="GET"), b"coroutine 2"),
        (get(), b"coroutine "),
        (chunked(b"3", b"4"), b"blocking 34"),
    ] * 3

    def talk(address):
        with client(address, kind) as one:
            one.say(b"".join(request for request, _ in said))
            return [one.answer().body for _ in said]

    async with serving(handler, description(kind, tmp_path)) as server:
        assert await in_thread(talk, server.server_address) == [answer for _, answer in said]


@pytest.mark.parametrize("name", ["setup", "finish"])
def test_an_async_setup_does_not_go_with_a_plain_method(name):
    async def method(self):
        pass

    handler = type("Handler", (Mixed,), {name: method})
    with pytest.raises(ConfigurationError, match=rf"Handler: {name} is async def but do_POST"):
        StreamFactory(handler, reactor=None)


@pytest.mark.parametrize("base", BASES)
async def test_a_child_for_each(base):
    """Our own are served one request a connection, the stdlib's one connection a child."""

    class Process(base):
        def do_GET(self):
            self.answer(b"%d" % os.getpid())

        do_POST = Echo.do_POST

    # The child has the client's end as well, as a copy of this process, and is not told of its end.
    limits = Deadlines(drain=0.5)
    async with serving(Process, concurrency=place("fork"), deadlines=limits) as server:

        def talk():
            with client(server.server_address) as one:
                first = one.ask(get())
                if base is Stock:
                    return [first.body, one.ask(get()).body]
                assert first.headers["Connection"] == "close"
                assert one.rest() == b""
            with client(server.server_address) as one:
                assert one.ask(post(b"x" * 2**20)).body == b"x" * 2**20
                return [first.body]

        pids = set(await in_thread(talk))
        assert len(pids) == 1
        assert pids != {b"%d" % os.getpid()}


async def test_serial_is_one_at_a_time():
    at_once = []

    class One(Own):
        def do_GET(self):
            at_once.append(self.server.concurrency.running)
            self.answer(threading.current_thread().name.encode())

    async with serving(One, concurrency=place("serial")) as server:
        request = get("/", "Connection: close")
        for answer in [in_thread(whole, server.server_address, request) for _ in range(10)]:
            assert b"200 OK" in await answer
    assert at_once == [1] * 10


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
@both_bases
@one_of_each_kind
async def test_a_handler_is_left_in_an_unusual_way(base, kind, error, tmp_path, errors):
    class Leaves(base):
        def do_GET(self):
            raise error

    async with serving(Leaves, description(kind, tmp_path)) as server:
        answer = await in_thread(whole, server.server_address, get(), kind)
        assert b"200 OK" not in answer
        await until(lambda: not server.statistics.active)
    errors.clear()


# Other protocols

OFFER = ("Connection: Upgrade", "Upgrade: shouting")


def shouts_from_rfile(handler):
    return handler.rfile.readline()


def shouts_from_the_socket(handler):
    return handler.connection.recv(100)


@pytest.mark.parametrize("when", ["with the request", "when answered", "before it is read"])
@pytest.mark.parametrize("method", ["GET", "CONNECT"])
@pytest.mark.parametrize("read", [shouts_from_rfile, shouts_from_the_socket])
@both_bases
@one_of_each_kind
async def test_another_protocol(base, kind, read, method, when, tmp_path):
    if read is shouts_from_the_socket and when == "with the request":
        pytest.skip("what came early is in rfile, as a buffered one has it in the stdlib")
    said = threading.Event()

    class Shouts(base):
        def do_GET(self):
            self.send_response(101 if self.command == "GET" else 200)
            if self.command == "GET":
                self.send_header("Upgrade", "shouting")
                self.send_header("Connection", "Upgrade")
            self.end_headers()
            self.wfile.flush()
            if when == "before it is read":  # which takes more than a moment
                assert said.wait(15)
            for _ in range(2):
                self.connection.sendall(read(self).upper())
            self.close_connection = True

        do_CONNECT = do_GET

    target, fields = ("/", OFFER) if method == "GET" else ("host:80", ())

    def talk(address):
        with client(address, kind) as one:
            request = get(target, *fields, method=method)
            one.say(request + (b"hello\n" if when == "with the request" else b""))
            status = one.answer("HEAD").status
            if when != "with the request":
                one.say(b"hello\n")
                said.set()
            first = one.read(6)
            one.say(b"there\n")
            return status, first, one.rest()

    async with serving(Shouts, description(kind, tmp_path)) as server:
        status = 101 if method == "GET" else 200
        assert await in_thread(talk, server.server_address) == (status, b"HELLO\n", b"THERE\n")


@both_bases
@one_of_each_kind
async def test_an_offer_that_is_not_taken(base, kind, tmp_path):
    """It changes nothing about the body, and holds no thread."""
    echo = type("Handler", (Echo, base), {})
    async with serving(echo, description(kind, tmp_path), concurrency=place("serial")) as server:

        def talk():
            with client(server.server_address, kind) as one:
                body = one.ask(post(b"hello", *OFFER)).body
                # While that one is still there.
                with client(server.server_address, kind) as other:
                    return body, other.ask(get("/other")).body

        assert await in_thread(talk) == (b"hello", b"/other")
