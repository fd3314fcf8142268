"""
HTTP on real connections, at its edges: clients that never stop asking, handlers that leave
their socket in an odd state, and what is counted and logged of requests that fail.
"""

import contextlib
import gc
import os
import socket
import time

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from sockserve import Deadlines
from sockserve.http import HTTPRequestHandler
from sockserve.http.blocking import BlockingCycle
from sockserve.http.h1.reader import RequestParser
from sockserve.streams.reader import HIGH_WATER_BYTES
from tests.integration.http_clients import Client, chunked, client, get, post, whole
from tests.integration.http_handlers import (
    SECONDS,
    Gate,
    Own,
    Stock,
    both_bases,
    handler,
    one_of_each_kind,
)
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

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")


# Clients that never stop asking


@pytest.fixture
def most_buffered(monkeypatch):
    """The most bytes that have waited on a connection, in a list of one."""
    most = [0]
    feed = RequestParser.feed

    def measured(self, data):
        feed(self, data)
        most[0] = max(most[0], self.buffered)

    monkeypatch.setattr(RequestParser, "feed", measured)
    return most


#: A client is waited for no longer when it has sent this: more than the kernel's buffers of
#: two sockets take (4 MiB and 6 MiB at most, by default).
FLOOD_BYTES = 32 * 2**20

#: What the server buffers: the high watermark, and what one read adds to that.
MOST_BUFFERED = 2 * HIGH_WATER_BYTES


def sends_until_stuck(sock, request):
    """Pipeline a request again and again until the server takes no more."""
    requests = request * (2**16 // len(request))
    sock.settimeout(SECONDS)
    sent = 0
    try:
        while sent < FLOOD_BYTES:
            sock.sendall(requests)
            sent += len(requests)
    except TimeoutError:
        pass
    return sent


async def flood(server, kind, request, go_on, most_buffered):
    """Pipeline without reading, then read; the server keeps its bounds throughout."""
    sock = await in_thread(connect_as, kind, server.server_address)
    try:
        assert await in_thread(sends_until_stuck, sock, request) < FLOOD_BYTES
        assert most_buffered[0] <= MOST_BUFFERED
        go_on()

        def read():
            sock.settimeout(15)
            with contextlib.suppress(OSError):
                while server.statistics.requests < 300:
                    sock.recv(2**16)

        await in_thread(read)
        assert server.statistics.requests >= 300
    finally:
        # TLS would wait for what is under way.
        reset(sock)
    await until(lambda: not server.statistics.active)
    assert most_buffered[0] <= MOST_BUFFERED


@both_bases
@one_of_each_kind
@pytest.mark.parametrize("size", [2, HIGH_WATER_BYTES + 1])
async def test_a_pipeline_without_end_fills_no_memory(base, kind, size, tmp_path, most_buffered):
    """Whether what a handler answers is small or makes it use the connection itself."""
    gate = Gate()

    def do_GET(self):
        gate.wait()
        self.answer(b"x" * size)

    async with serving(handler(base, do_GET=do_GET), description(kind, tmp_path)) as server:
        try:
            await flood(server, kind, get(), gate.opened.set, most_buffered)
        finally:
            gate.opened.set()
        await until(lambda: not server.concurrency.running)


@both_bases
@one_of_each_kind
@pytest.mark.parametrize(
    "following", [[get("/" + "x" * 2000)] * 33, [post(b"x" * 100_000)]], ids=["requests", "a body"]
)
async def test_what_was_held_back_is_served(base, kind, following, tmp_path, most_buffered):
    """
    A client says more than is kept, be it whole requests or the beginning of one, while its
    first request is in service; then it says no more for the time being.
    """
    gate = Gate()

    def do_GET(self):
        if self.path == "/first":
            gate.wait()
        self.answer(b"x")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b"x")

    serves = handler(base, do_GET=do_GET, do_POST=do_POST)
    async with serving(serves, description(kind, tmp_path)) as server:
        one = await in_thread(Client, kind, server.server_address)
        try:
            await in_thread(one.say, get("/first") + b"".join(following))
            await gate.entry()
            await until(lambda: most_buffered[0] > HIGH_WATER_BYTES)
            gate.opened.set()
            for _ in range(1 + len(following)):
                assert (await in_thread(one.answer)).body == b"x"
            assert (await in_thread(one.ask, get("/last"))).body == b"x"
        finally:
            gate.opened.set()
            one.close()


@both_bases
@one_of_each_kind
async def test_nor_does_one_behind_a_lent_connection(base, kind, tmp_path, most_buffered):
    """The first handler has the connection itself; what came before waits for the second."""
    first, second = Gate(), Gate()

    def do_GET(self):
        if self.path == "/first":
            first.wait()
            self.connection.fileno()
        else:
            second.wait()
        self.answer(b"x")

    async with serving(handler(base, do_GET=do_GET), description(kind, tmp_path)) as server:
        sock = await in_thread(connect_as, kind, server.server_address)
        try:
            await in_thread(sock.sendall, get("/first") + get() * 3000)  # 120 KB
            await first.entry()
            first.opened.set()
            await second.entry()
            assert await in_thread(sends_until_stuck, sock, get()) < FLOOD_BYTES
            assert most_buffered[0] <= MOST_BUFFERED
        finally:
            first.opened.set()
            second.opened.set()
            reset(sock)
        await until(lambda: not server.statistics.active)
        await until(lambda: not server.concurrency.running)
        assert most_buffered[0] <= MOST_BUFFERED


@one_of_each_kind
@pytest.mark.parametrize("body", [b"", b"x"])
async def test_nor_does_one_whose_small_bodies_nobody_reads(kind, body, tmp_path, most_buffered):
    go = Deferred()

    class Slow(HTTPRequestHandler):
        async def do_POST(self):
            if not go.called:
                waiter = Deferred()
                go.addCallback(waiter.callback)
                await waiter
            await deferLater(self.server.reactor, 0)
            self.send_response(200)
            self.end_headers()

    async with serving(Slow, description(kind, tmp_path)) as server:
        try:
            await flood(server, kind, post(body), lambda: go.callback(None), most_buffered)
        finally:
            if not go.called:
                go.callback(None)


# A handler that closes its socket


def transports_are_open(server):
    """Whatever the reactor watches is still what it was."""
    from twisted.internet import reactor

    for reader in reactor.getReaders():
        os.fstat(reader.fileno())
    for connection in server.connections:
        assert os.fstat(connection.transport.fileno())


@one_of_each_kind
async def test_a_file_outlives_the_socket_its_handler_has_closed(kind, tmp_path):
    kept = []

    class Keeps(Stock):
        wbufsize = -1

        def do_GET(self):
            kept.append(self.wfile)
            self.answer(b"answer")
            self.wfile.flush()
            self.connection.close()

        def finish(self):
            pass

    async with serving(Keeps, description(kind, tmp_path)) as server:
        for _ in range(3):
            sock = await in_thread(connect_as, kind, server.server_address)
            with sock:
                await in_thread(sock.sendall, get())
                await until(lambda: kept)
                transports_are_open(server)
                answer = await in_thread(read_all, sock)
            assert answer.endswith(b"\r\n\r\nanswer")
            await until(lambda: not server.statistics.active)
            transports_are_open(server)
        kept.clear()
        gc.collect()
        transports_are_open(server)
        assert counts(server) == {"accepted": 3, "requests": 3}


@both_bases
@one_of_each_kind
async def test_a_deadlines_answer_goes_to_nobody_else(base, kind, tmp_path, errors):
    """The number of the descriptor that a handler has closed is somebody else's by then."""
    gate, strangers = Gate(), []

    class Closes(base):
        def do_GET(self):
            number = self.connection.fileno()
            self.connection.close()
            if base is Stock:  # its file keeps the socket open, as makefile's does
                self.rfile.close()
                self.close_connection = True
            while not any(number == one.fileno() for pair in strangers for one in pair):
                assert len(strangers) < 100
                strangers.append(socket.socketpair())
            gate.wait()

    deadlines = Deadlines(handle=SECONDS)
    async with serving(Closes, description(kind, tmp_path), deadlines=deadlines) as server:
        try:
            with await in_thread(connect_as, kind, server.server_address) as sock:
                await in_thread(sock.sendall, get())
                await until(lambda: server.statistics.expiries)
                await deferLater(server.reactor, 0.05)
                for pair in strangers:
                    for one in pair:
                        with pytest.raises(BlockingIOError):
                            one.recv(1, socket.MSG_DONTWAIT)
        finally:
            gate.opened.set()
        await until(lambda: not server.concurrency.running)
        await until(lambda: not server.statistics.active)
        for pair in strangers:
            for one in pair:
                os.fstat(one.fileno())
                one.close()
    assert all("no response was sent" in text for text in errors)
    errors.clear()


# What becomes of requests that fail


def cycles(older=()):
    """Cycles that are not forgotten yet."""
    gc.collect()
    known = set(map(id, older))
    return [one for one in gc.get_objects() if type(one) is BlockingCycle and id(one) not in known]


TOO_LARGE = b"x" * 600_000  # above what is kept in memory
HEAD = get("/broken", "Transfer-Encoding: chunked", method="POST")


@both_bases
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post(TOO_LARGE, target="/broken"), 413),
        (chunked(TOO_LARGE[:300_000], TOO_LARGE[:300_000], target="/broken"), 413),
        (HEAD + b"%x\r\n%b" % (len(TOO_LARGE) - 1, TOO_LARGE), 413),
        (HEAD + b"5\r\nhelloXX\r\n", 400),
        (HEAD + b"zz\r\n", 400),
    ],
)
async def test_a_refused_body_is_over_once(base, request_, status):
    """It is logged under its own name, and nothing of it is kept."""
    shut, records, older = [], [], cycles()
    async with serving(handler(base, do_POST=lambda self: None)) as server:
        server.max_body_bytes = 550_000
        server.observers.append(records.append)
        shutdown_request = server.shutdown_request

        def counted(request):
            shut.append(request)
            shutdown_request(request)

        server.shutdown_request = counted
        answer = await in_thread(whole, server.server_address, request_)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        await until(lambda: not server.statistics.active)
        assert len(shut) == 1
        requests = [record for record in records if hasattr(record, "request_line")]
        assert [(record.request_line, record.status) for record in requests] == [
            ("POST /broken HTTP/1.1", status)
        ]
        assert server.statistics.requests == 1
        shut.clear()
        assert cycles(older) == []


@both_bases
@one_of_each_kind
async def test_an_upgrade_not_taken_is_not_idle(base, kind, tmp_path):
    """A handler at work need not hear or say anything, whatever its client has offered."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", 140_000)
        self.end_headers()
        # Not before: its client may take longer than that to begin.
        [channel] = self.server.channels.values()
        channel.deadlines = short(idle=SECONDS)
        self.wfile.write(b"x" * 70_000)  # makes it use the connection itself
        time.sleep(3 * SECONDS)
        self.wfile.write(b"x" * 70_000)

    request = get("/", "Connection: Upgrade", "Upgrade: h2c")
    cls = handler(base, do_GET=do_GET)
    where = description(kind, tmp_path)
    async with serving(cls, where, deadlines=short()) as server:

        def talk():
            with client(server.server_address, kind) as one:
                return len(one.ask(request).body)

        assert await in_thread(talk) == 140_000
        await until(lambda: not server.statistics.active)


async def answers_as_coroutine(self):
    self.send_response(200)
    self.end_headers()


def answers(self):
    self.answer(b"answer")


@pytest.mark.parametrize(
    ("fields", "leave"),
    [([], reset), ([], socket.socket.close), (["Connection: close"], is_ended)],
)
@pytest.mark.parametrize(
    ("base", "do_GET"), [(Own, answers_as_coroutine), (Own, answers), (Stock, answers)]
)
async def test_a_shutdown_request_that_raises(base, do_GET, fields, leave, errors):
    """Its connection ends, the service stops, and the log has it once."""

    def shutdown_request(request):
        raise ZeroDivisionError("on purpose")

    async with serving(handler(base, do_GET=do_GET), deadlines=short()) as server:
        server.shutdown_request = shutdown_request
        sock = await in_thread(connect_as, "tcp", server.server_address)
        await in_thread(sock.sendall, get("/", *fields))
        await until(lambda: server.statistics.requests)
        await in_thread(leave, sock)
        sock.close()
        await until(lambda: not server.statistics.active)
        await server.drain()
        assert counts(server) == {"accepted": 1, "requests": 1}
        assert server.channels == {}
    (error,) = errors
    assert "ZeroDivisionError: on purpose" in error
    errors.clear()


@both_bases
@one_of_each_kind
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("error", [ConnectionRefusedError, ConnectionResetError, BrokenPipeError])
async def test_a_handlers_own_connection_that_breaks(base, kind, direct, error, tmp_path, errors):
    """That is the server's error, be it that the client has ended its side."""
    records, gate = [], Gate()

    def do_GET(self):
        gate.wait()
        if direct:
            self.connection.fileno()
        raise error("the backend")

    async with serving(handler(base, do_GET=do_GET), description(kind, tmp_path)) as server:
        server.observers.append(records.append)
        with await in_thread(connect_as, kind, server.server_address) as sock:
            await in_thread(sock.sendall, get("/", "Connection: close"))
            await gate.entry()
            if kind == "tcp":
                sock.shutdown(socket.SHUT_WR)
                await deferLater(server.reactor, 0.05)
            gate.opened.set()
            await in_thread(is_ended, sock)
        await until(lambda: not server.statistics.active)
        assert server.statistics.errors == 1
        assert [record.outcome for record in records if hasattr(record, "status")] == ["error"]
    (text,) = errors
    assert "the backend" in text
    errors.clear()


@both_bases
@pytest.mark.parametrize(
    ("kind", "direct"), [("tcp", False), ("tcp", True), ("ssl", False), ("ssl", True)]
)
async def test_a_late_answer_is_not_what_is_recorded(base, kind, direct, tmp_path):
    """The client got what the deadline answered; what its handler says later goes nowhere."""
    records, gate = [], Gate()

    def do_GET(self):
        if direct:
            self.connection.fileno()
        gate.wait()
        self.answer(b"too late")

    options = {"deadlines": Deadlines(handle=SECONDS)}
    cls = handler(base, do_GET=do_GET)
    async with serving(cls, description(kind, tmp_path), **options) as server:
        server.observers.append(records.append)
        try:
            answer = await in_thread(whole, server.server_address, get("/slow"), kind)
        finally:
            gate.opened.set()
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert b"too late" not in answer
        await until(lambda: not server.concurrency.running)
        await until(lambda: not server.statistics.active)
        (record,) = [record for record in records if hasattr(record, "status")]
        assert (record.request_line, record.status) == ("GET /slow HTTP/1.1", 504)
        assert record.outcome == "expired: handle"
        assert server.statistics.snapshot()["responses"] == {"5xx": 1}
