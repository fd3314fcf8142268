"""How requests of blocking HTTP handlers end: deadlines, the end of the service, of a client."""

import socket
import ssl
import time
from contextlib import closing

import pytest

from sockserve import Deadlines
from tests.integration.http_clients import Client, chunked, get, post, whole
from tests.integration.http_handlers import (
    SECONDS,
    Echo,
    Gate,
    Stock,
    both_bases,
    one_of_each_kind,
    place,
    waiting,
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

#: For deadlines that begin when a client connects, which is to have spoken by then.
FROM_CONNECTION_SECONDS = 2

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

    deadlines = Deadlines(**{phase: FROM_CONNECTION_SECONDS})
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
async def test_a_handler_that_does_not_end_is_abandoned(base, kind, direct, tmp_path):
    """And is counted no longer once it has ended."""
    gate = Gate()
    deadlines = Deadlines(handle=SECONDS, abandon=SECONDS)

    class handler(waiting(base, gate)):  # noqa: N801
        def setup(self):
            super().setup()
            if direct:
                self.connection.fileno()

    async with serving(handler, description(kind, tmp_path), deadlines=deadlines) as server:
        try:
            await in_thread(whole, server.server_address, get("/wait"), kind)
            # A while later it is no longer waited for.
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
    """It takes longer than C{idle}; then the connection, with nothing to do, is closed."""

    class Works(base):
        def do_GET(self):
            self.connection.fileno()
            time.sleep(FROM_CONNECTION_SECONDS + 1)
            self.answer(b"done")

    deadlines = Deadlines(idle=FROM_CONNECTION_SECONDS)
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
            one = await in_thread(Client, kind, server.server_address)
            with closing(one):
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


@one_of_each_kind
async def test_idle_is_for_what_follows_a_switch_of_protocols(kind, tmp_path):
    class Listens(Stock):
        def do_GET(self):
            self.send_response(101)
            self.send_header("Upgrade", "other")
            self.send_header("Connection", "Upgrade")
            self.end_headers()
            self.wfile.flush()
            self.close_connection = True
            self.server.heard = self.rfile.readline()

    request = get("/", "Connection: Upgrade", "Upgrade: other")
    deadlines = short(idle=FROM_CONNECTION_SECONDS)
    async with serving(Listens, description(kind, tmp_path), deadlines=deadlines) as server:
        answer = await in_thread(whole, server.server_address, request, kind)
        assert answer.startswith(b"HTTP/1.1 101 ")
        await until(lambda: not server.statistics.active)
        assert server.heard == b""
        assert server.statistics.expiries == {"idle": 1}
