"""Deadlines on real connections and the real clock."""

import select
import socket
import socketserver
import statistics
import threading
import time

import pytest
from twisted.internet.defer import Deferred

from sockserve import DeadlineExpired, Deadlines, StreamRequestHandler
from sockserve.interfaces import Phase
from tests.integration.handlers import PIECE, BlockingEcho, Echo
from tests.integration.servers import (
    PROXY_HEADER,
    connect,
    connect_as,
    counts,
    description,
    in_thread,
    is_ended,
    read_exactly,
    read_line,
    serving,
    until,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

#: What a test here sets the deadline it is about to.  The others stay at their defaults,
#: 10 s (handshake) and more; a test that ended by one of those would say so by its counters.
SECONDS = 0.5

#: How long after that what goes on regardless is waited for.
PATIENCE = 2.0

LENT = ["tcp", "unix"]
PUMPED = ["haproxy:tcp", "ssl"]


def impatient(**seconds):
    return Deadlines(**{"abandon": PATIENCE, **seconds})


async def ended_after(kind, server, message=b"", reads=True):
    """
    How long it takes the server to end the connection of a client that says no more, from before
    it connects.
    """

    def begin():
        client = connect_as(kind, server.server_address)
        client.sendall(message)
        return client

    before = time.monotonic()
    client = await in_thread(begin)
    with client:
        if reads:
            assert await in_thread(is_ended, client)
        else:
            await until(lambda: server.statistics.accepted and not server.statistics.active)
        lasted = time.monotonic() - before
    await until(lambda: not server.statistics.active)
    return lasted


async def expires(handler, kind, phase, folder, message=b"", reads=True, **deadlines):
    """A client of C{handler} is ended by this deadline and no other, and not before its time."""
    deadlines = impatient(**(deadlines or {phase: SECONDS}))
    async with serving(handler, description(kind, folder), deadlines=deadlines) as server:
        lasted = await ended_after(kind, server, message, reads)
        # The kernel's clock for a lent connection may be a tick (10 ms at most) behind.
        assert lasted > SECONDS - 0.1
        assert counts(server)["expiries"] == {phase: 1}
        assert server.statistics.errors == 0
        assert server.statistics.abandoned == 0


# Before there is a handler


@pytest.mark.parametrize("handler", [Echo, BlockingEcho])
@pytest.mark.parametrize("kind", ["ssl", "haproxy:tcp"])
@pytest.mark.parametrize("said", [b"", b"PROX"])
async def test_handshake(handler, kind, said, tmp_path):
    """A client that says nothing, or next to nothing, where TLS or a PROXY header is due."""

    def talk(address):
        with connect(address) as client:
            client.sendall(said)
            return is_ended(client)

    if kind == "ssl" and said:
        said = b"\x16\x03"  # how a TLS record begins
    deadlines = impatient(handshake=SECONDS)
    async with serving(handler, description(kind, tmp_path), deadlines=deadlines) as server:
        assert await in_thread(talk, server.server_address)
        await until(lambda: counts(server) == {"accepted": 1, "expiries": {"handshake": 1}})


# Coroutines


class Reads(StreamRequestHandler):
    """Keeps what its read raised."""

    async def handle(self):
        try:
            await self.read()
        except DeadlineExpired as expired:
            self.server.caught = expired
            raise

    async def read(self):
        raise NotImplementedError


class ReadsLine(Reads):
    async def read(self):
        await self.rfile.readline()


class ReadsExactly(Reads):
    async def read(self):
        await self.rfile.readexactly(2**20)


class Writes(Reads):
    async def read(self):
        while True:
            self.wfile.write(PIECE)
            await self.wfile.drain()


class Waits(Reads):
    """Waits for something that is no stream's."""

    async def read(self):
        await Deferred()


@pytest.mark.parametrize(
    ("handler", "phase", "message"),
    [
        (ReadsLine, "idle", b""),
        (ReadsLine, "header", b"half a li"),
        (ReadsExactly, "body", b"half a bo"),
        (Writes, "write", b""),
        (Waits, "handle", b""),
        (Waits, "lifetime", b""),
        (Writes, "handle", b""),
        (Writes, "lifetime", b""),
        (ReadsLine, "handle", b""),
        (ReadsLine, "lifetime", b"half a li"),
    ],
)
@pytest.mark.parametrize("kind", ["tcp", "ssl", "haproxy:tcp"])
async def test_coroutine(handler, phase, message, kind, tmp_path):
    """The handler is told which it was."""
    deadlines = {phase: SECONDS}
    if handler is Writes and phase != "write":
        deadlines["write"] = SECONDS  # what is written by then does not leave, either
    limits = impatient(**deadlines)
    async with serving(handler, description(kind, tmp_path), deadlines=limits) as server:
        lasted = await ended_after(kind, server, message, handler is not Writes)
        assert lasted > SECONDS - 0.1
        if len(deadlines) == 1:
            assert counts(server) == {"accepted": 1, "requests": 1, "expiries": {phase: 1}}
            assert server.caught.phase == phase


async def test_coroutine_that_goes_on_regardless_is_abandoned():
    """
    0.5 s (idle) and 2 s (PATIENCE) later; until then its connection stays, for its last words.
    """

    class Handler(StreamRequestHandler):
        async def handle(self):
            try:
                await self.rfile.readline()
            except TimeoutError:
                self.wfile.write(b"last words\n")
                await Deferred()

    def talk(address):
        with connect(address) as client:
            return read_line(client), is_ended(client)

    async with serving(Handler, deadlines=impatient(idle=SECONDS)) as server:
        assert await in_thread(talk, server.server_address) == (b"last words\n", True)
        await until(lambda: not server.statistics.active)
        assert counts(server)["expiries"] == {"idle": 1}


class AnswersAtLength(StreamRequestHandler):
    """And has done with it, but for what the client does not take."""

    async def handle(self):
        await self.rfile.readline()
        self.wfile.write(PIECE * 256)


@pytest.mark.parametrize("kind", ["tcp", "unix", "ssl", "haproxy:tcp"])
@pytest.mark.parametrize("more", [b"", b"never read" * 100])
async def test_answer_that_nobody_takes_does_not_stay(kind, more, tmp_path):
    """After 0.5 s (write)."""
    await expires(AnswersAtLength, kind, "write", tmp_path, b"line\n" + more, reads=False)


# Blocking handlers


class Receives(socketserver.BaseRequestHandler):
    def handle(self):
        while self.request.recv(2**16):
            pass


class Sends(socketserver.BaseRequestHandler):
    def handle(self):
        while True:
            self.request.sendall(PIECE)


class Selects(socketserver.BaseRequestHandler):
    def handle(self):
        select.select([self.request], [], [])


class Polls(socketserver.BaseRequestHandler):
    def handle(self):
        poll = select.poll()
        poll.register(self.request, select.POLLIN)
        poll.poll()


class Detached(socketserver.BaseRequestHandler):
    """Has moved the descriptor to a socket of its own, as C{ssl} does."""

    def handle(self):
        with socket.socket(fileno=self.request.detach()) as own:
            own.recv(1)


@pytest.mark.parametrize("kind", LENT + PUMPED)
@pytest.mark.parametrize(
    ("handler", "phase"),
    [
        (Receives, "handle"),
        (Receives, "lifetime"),
        (Sends, "handle"),
        (Selects, "handle"),
        (Polls, "handle"),
        (Detached, "handle"),
    ],
)
async def test_blocking_handler_is_woken(handler, phase, kind, tmp_path):
    await expires(
        handler,
        kind,
        phase,
        tmp_path,
        reads=handler is not Sends,
        # What a woken handler leaves behind is under the write deadline.
        **{phase: SECONDS, "write": 2},
    )


@pytest.mark.parametrize("kind", ["tcp", *PUMPED])
@pytest.mark.parametrize("handler", [Receives, Selects])
async def test_idle_blocking_handler_is_woken(handler, kind, tmp_path):
    await expires(handler, kind, "idle", tmp_path)


@pytest.mark.parametrize("kind", ["tcp", *PUMPED])
async def test_blocking_handler_whose_client_does_not_read_is_woken(kind, tmp_path):
    await expires(Sends, kind, "write", tmp_path, reads=False)


@pytest.mark.parametrize("kind", ["tcp", "haproxy:tcp"])
@pytest.mark.parametrize("handler", [Echo, BlockingEcho])
async def test_traffic_keeps_a_connection(handler, kind, tmp_path):
    """A line each 0.6 s, and twice as long as 2 s (idle) altogether."""

    def talk(address):
        with connect_as(kind, address) as client:
            for _ in range(8):
                client.sendall(b"line\n")
                assert read_line(client) == b"line\n"
                time.sleep(0.6)

    deadlines = impatient(idle=2)
    async with serving(handler, description(kind, tmp_path), deadlines=deadlines) as server:
        await in_thread(talk, server.server_address)
        await until(lambda: counts(server) == {"accepted": 1, "requests": 1})


# Slowloris


def trickle(address, prefix, clients, stop):
    """Many clients that send a byte a second, until C{stop}; how many the server has then."""
    sockets = [connect(address) for _ in range(clients)]
    for client in sockets:
        client.sendall(prefix)
    while not stop.wait(1):
        for client in sockets:
            try:
                client.setblocking(False)
                client.send(b".")
            except OSError:
                pass
    left = 0
    for client in sockets:
        with client:
            try:
                left += client.recv(1) != b""
            except BlockingIOError:
                left += 1
            except OSError:
                pass
    return left


@pytest.mark.parametrize("kind", ["tcp", "haproxy:tcp"])
async def test_500_slow_clients_do_not_keep_a_good_one_waiting(kind, tmp_path):
    """
    They are gone after 2 s (header, though a byte comes each second), and meanwhile a good
    client is served as if they were not there.
    """

    def good(address):
        took = []
        with connect_as(kind, address) as client:
            for _ in range(100):
                before = time.monotonic()
                client.sendall(b"line\n")
                assert read_exactly(client, 5) == b"line\n"
                took.append(time.monotonic() - before)
        return statistics.median(took)

    prefix = PROXY_HEADER if kind == "haproxy:tcp" else b""
    stop = threading.Event()
    deadlines = impatient(header=2)
    async with serving(Echo, description(kind, tmp_path), deadlines=deadlines) as server:
        slow = in_thread(trickle, server.server_address, prefix, 500, stop)
        try:
            await until(lambda: server.statistics.active == 500)
            # Promptly: far within what any of the slow ones' bytes takes.
            assert await in_thread(good, server.server_address) < 0.5
            await until(lambda: not server.statistics.active)
        finally:
            stop.set()
            left = await slow
        assert left == 0
        assert counts(server)["expiries"] == {Phase.HEADER: 500}
