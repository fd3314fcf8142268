"""Blocking HTTP handlers: what holds for sockserve's own and for C{http.server}'s alike."""

import os
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
from tests.integration.http_clients import Client, chunked, client, get, post, whole
from tests.integration.servers import (
    connect_as,
    counts,
    description,
    in_thread,
    is_ended,
    read_all,
    reset,
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


@pytest.mark.parametrize("direct", [False, True])
@both_bases
@one_of_each_kind
async def test_a_handler_that_does_not_end_is_abandoned(base, kind, direct, tmp_path, monkeypatch):
    """And is counted no longer once it has ended."""
    monkeypatch.setattr("sockserve.connections.ABANDON_SECONDS", SECONDS)
    gate = Gate()
    deadlines = Deadlines(handle=SECONDS)

    class handler(waiting(base, gate)):  # noqa: N801
        def setup(self):
            super().setup()
            if direct:
                self.connection.fileno()

    async with serving(handler, description(kind, tmp_path), deadlines=deadlines) as server:
        try:
            await in_thread(whole, server.server_address, get("/wait"), kind)
            # ABANDON_SECONDS later it is no longer waited for.
            await until(lambda: server.statistics.abandoned == 1)
            assert server.statistics.active == 0
        finally:
            gate.opened.set()
        await until(lambda: not server.concurrency.running)
        assert server.statistics.abandoned == 0


@both_bases
@one_of_each_kind
async def test_a_client_that_does_not_read(base, kind, tmp_path):
    class Sends(base):
        def do_GET(self):
            while True:
                self.connection.sendall(b"x" * 2**20)

    deadlines = Deadlines(write=SECONDS)
    async with serving(Sends, description(kind, tmp_path), deadlines=deadlines) as server:
        sock = await in_thread(connect_as, kind, server.server_address)
        with sock:
            await in_thread(sock.sendall, get())
            await until(lambda: not server.statistics.active)
            await until(lambda: not server.concurrency.running)
        assert counts(server) == {"accepted": 1, "requests": 1, "expiries": {"write": 1}}


@both_bases
@one_of_each_kind
async def test_idle_is_not_for_a_handler_that_works(base, kind, tmp_path):
    """It takes three times C{idle}; then the connection, with nothing to do, is closed."""

    class Works(base):
        def do_GET(self):
            self.connection.fileno()
            time.sleep(3 * SECONDS)
            self.answer(b"done")

    deadlines = Deadlines(idle=SECONDS)
    async with serving(Works, description(kind, tmp_path), deadlines=deadlines) as server:
        answer = await in_thread(whole, server.server_address, get(), kind)
        assert answer.endswith(b"\r\n\r\ndone")
        await until(lambda: not server.statistics.active)
        assert counts(server) == {"accepted": 1, "requests": 1, "expiries": {"idle": 1}}


# The end of the service


@both_bases
@one_of_each_kind
async def test_the_service_stops(base, kind, tmp_path):
    """An idle connection ends at once; requests under way and in the queue are answered."""
    gate = Gate()
    options = {"concurrency": place("serial")}
    async with serving(waiting(base, gate), description(kind, tmp_path), **options) as server:
        try:
            clients = [await in_thread(Client, kind, server.server_address) for _ in range(3)]
            idle, served, queued = clients
            assert (await in_thread(idle.ask, get("/"))).body == b"/"
            await in_thread(served.say, get("/wait"))
            await gate.entry()
            await in_thread(queued.say, get("/queued"))
            await until(lambda: server.concurrency.waiting)
            stopped = server.drain()
            assert await in_thread(idle.rest) == b""
            gate.opened.set()
            assert (await in_thread(served.answer)).body == b"/wait"
            assert (await in_thread(queued.answer)).body == b"/queued"
            assert await in_thread(served.rest) == await in_thread(queued.rest) == b""
            for one in clients:
                one.close()
            await stopped
        finally:
            gate.opened.set()
    assert counts(server) == {"accepted": 3, "requests": 3}


@both_bases
@one_of_each_kind
async def test_the_service_does_not_wait_for_ever(base, kind, tmp_path):
    """After C{drain} what still runs is cut off, and what waits for a thread is, too."""
    gate = Gate()
    options = {"concurrency": place("serial"), "deadlines": short()}
    try:
        async with serving(waiting(base, gate), description(kind, tmp_path), **options) as server:
            served = await in_thread(Client, kind, server.server_address)
            queued = await in_thread(Client, kind, server.server_address)
            await in_thread(served.say, get("/wait"))
            await gate.entry()
            await in_thread(queued.say, get("/queued"))
            await until(lambda: server.concurrency.waiting)
            before = time.monotonic()
            drained = server.drain()
            assert await in_thread(is_ended, served.socket)
            assert await in_thread(is_ended, queued.socket)
            assert time.monotonic() - before > 0.4  # 0.5 less the clock's tick
            served.close()
            queued.close()
            gate.opened.set()
            await drained
            assert server.statistics.expiries == {"drain": 2}
    finally:
        gate.opened.set()


# The queue, and clients that go away


@both_bases
@one_of_each_kind
async def test_requests_queue_for_threads(base, kind, tmp_path):
    gate = Gate()
    options = {"concurrency": place("threads", threads=2)}
    async with serving(waiting(base, gate), description(kind, tmp_path), **options) as server:
        try:
            answers = [
                in_thread(whole, server.server_address, get("/wait", "Connection: close"), kind)
                for _ in range(5)
            ]
            await gate.entry(2)
            await until(lambda: server.concurrency.waiting == 3)
            assert server.concurrency.running == 2
        finally:
            gate.opened.set()
        for answer in answers:
            assert (await answer).endswith(b"\r\n\r\n/wait")
        await until(lambda: not server.concurrency.running)


@pytest.mark.parametrize("leave", [reset, socket.socket.close])
@both_bases
@one_of_each_kind
async def test_a_client_leaves_the_queue(base, kind, leave, tmp_path):
    gate = Gate()
    options = {"concurrency": place("serial")}
    async with serving(waiting(base, gate), description(kind, tmp_path), **options) as server:
        try:
            with client(server.server_address, kind) as one:
                await in_thread(one.say, get("/wait"))
                await gate.entry()
                queued = await in_thread(connect_as, kind, server.server_address)
                await in_thread(queued.sendall, get("/queued"))
                await until(lambda: server.concurrency.waiting)
                leave(queued)
                gate.opened.set()
                assert (await in_thread(one.answer)).body == b"/wait"
                # The thread is free for others.
                assert (await in_thread(one.ask, get("/next"))).body == b"/next"
        finally:
            gate.opened.set()
        await until(lambda: not server.statistics.active)
        await until(lambda: not server.concurrency.running)
        assert server.statistics.abandoned == server.statistics.errors == 0


def answers(handler):
    handler.answer(b"x" * 2**20)


def closes(handler):
    handler.answer(b"x")
    handler.connection.close()


def looks(handler):
    handler.answer(b"x")
    handler.connection.fileno()


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("leave", [reset, socket.socket.close])
@pytest.mark.parametrize("act", [answers, closes, looks])
@both_bases
@one_of_each_kind
async def test_a_client_leaves_while_it_is_served(base, kind, leave, act, pipelined, tmp_path):
    """That is no error, and nothing is left of it."""
    gate = Gate()

    class Waits(waiting(base, gate)):
        def do_POST(self):
            gate.wait()
            act(self)

    async with serving(Waits, description(kind, tmp_path)) as server:
        try:
            sock = await in_thread(connect_as, kind, server.server_address)
            await in_thread(sock.sendall, (get() if pipelined else b"") + post(b""))
            await gate.entry()
            leave(sock)
            # It may be seen at once, or when the handler sends.
            await in_thread(time.sleep, 0.05)
        finally:
            gate.opened.set()
        await until(lambda: not server.concurrency.running)
        await until(lambda: not server.statistics.active)
        assert server.statistics.abandoned == server.statistics.errors == 0


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

    async with serving(Process, concurrency=place("fork")) as server:

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


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("method", ["GET", "CONNECT"])
@pytest.mark.parametrize("read", [shouts_from_rfile, shouts_from_the_socket])
@both_bases
@one_of_each_kind
async def test_another_protocol(base, kind, read, method, early, tmp_path):
    if read is shouts_from_the_socket and early:
        pytest.skip("what came early is in rfile, as a buffered one has it in the stdlib")

    class Shouts(base):
        def do_GET(self):
            self.send_response(101 if self.command == "GET" else 200)
            if self.command == "GET":
                self.send_header("Upgrade", "shouting")
                self.send_header("Connection", "Upgrade")
            self.end_headers()
            self.wfile.flush()
            for _ in range(2):
                self.connection.sendall(read(self).upper())
            self.close_connection = True

        do_CONNECT = do_GET

    target, fields = ("/", OFFER) if method == "GET" else ("host:80", ())

    def talk(address):
        with client(address, kind) as one:
            request = get(target, *fields, method=method)
            one.say(request + (b"hello\n" if early else b""))
            status = one.answer("HEAD").status
            if not early:
                one.say(b"hello\n")
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
