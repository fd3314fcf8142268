"""
Deadlines of coroutine HTTP handlers on real connections and the real clock.  Their arithmetic
is in C{tests/http/test_channel.py}; this is about what reaches a client, and when all ends.
"""

import contextlib
import re
import socket
import time

import pytest
from twisted.internet.defer import Deferred

from sockserve import Deadlines
from sockserve.core.admission import Admission
from sockserve.http import HTTPRequestHandler
from sockserve.service import RequestService
from tests.integration.handlers import PIECE
from tests.integration.servers import (
    LOOPBACK,
    PATIENCE_SECONDS,
    connect,
    connect_as,
    counts,
    description,
    in_thread,
    is_ended,
    read_all,
    running,
    serving,
    until,
)
from tests.integration.web import Conversation, get, post

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

#: What a test here sets the deadline it is about to; the others stay at their defaults, the
#: shortest of which (5 s, for a body) it would not mistake for it.
SECONDS = 0.5


class Hello(HTTPRequestHandler):
    async def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"Hello, world!")

    async def do_POST(self):
        await self.rfile.read()
        await self.do_GET()


class Stuck(Hello):
    async def do_GET(self):
        if self.path == "/begun":
            await super().do_GET()
        await Deferred()


class Endless(HTTPRequestHandler):
    async def do_GET(self):
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(PIECE)
            await self.wfile.drain()


def ended(client):
    """Everything up to the server's end of the connection, and whether that was in order."""
    said = b""
    try:
        while piece := client.recv(65536):
            said += piece
    except ConnectionError:
        return said, False
    return said, True


HEAD = get()[:-2]


@pytest.mark.parametrize("kind", ["tcp", "unix", "ssl"])
@pytest.mark.parametrize(
    ("phase", "handler", "sent", "status", "in_order"),
    [
        ("header", Hello, HEAD, b"408", True),
        ("body", Hello, post(b"abc")[:-1], b"408", True),
        ("handle", Stuck, get(), b"504", True),
        ("handle", Stuck, get("/begun"), b"200", False),
        ("idle", Hello, b"", b"", True),
        ("lifetime", Hello, b"", b"", True),
        ("lifetime", Stuck, get(), b"504", True),
        ("lifetime", Hello, HEAD, b"504", True),
    ],
)
async def test_what_a_client_gets(kind, phase, handler, sent, status, in_order, tmp_path):
    # Where it begins before the client has spoken, that is to be in time.
    seconds = 2 if phase == "lifetime" else SECONDS
    deadlines = Deadlines(**{phase: seconds})
    async with serving(handler, description(kind, tmp_path), deadlines=deadlines) as server:
        before = time.monotonic()
        client = await in_thread(connect_as, kind, server.server_address)
        with client:
            await in_thread(client.sendall, sent)
            said, orderly = await in_thread(ended, client)
        assert time.monotonic() - before > seconds - 0.1
        assert said[:13].removeprefix(b"HTTP/1.1 ")[:3] == status
        if status in (b"408", b"504"):
            assert b"\r\nConnection: close\r\n" in said
        if in_order:
            assert orderly
        elif kind == "tcp":  # others have no way to say so
            assert not orderly
        if not in_order:
            assert not said.endswith(b"0\r\n\r\n")
        await until(lambda: not server.statistics.active)
        assert counts(server)["expiries"] == {phase: 1}
        assert server.statistics.errors == 0


@pytest.mark.parametrize("kind", ["tcp", "ssl"])
async def test_a_client_that_stops_reading_is_ended(kind, tmp_path):
    deadlines = Deadlines(write=SECONDS)
    async with serving(Endless, description(kind, tmp_path), deadlines=deadlines) as server:
        client = await in_thread(connect_as, kind, server.server_address)
        with client:
            await in_thread(client.sendall, get())
            await until(lambda: server.statistics.accepted and not server.statistics.active)
        assert counts(server) == {"accepted": 1, "requests": 1, "expiries": {"write": 1}}


async def test_a_trickle_of_a_head_does_not_last_longer():
    async with serving(Hello, deadlines=Deadlines(header=SECONDS)) as server:

        def client():
            with Conversation(server.server_address) as conversation:
                began = time.monotonic()
                conversation.socket.settimeout(SECONDS / 5)
                for byte in get():  # 38 bytes: 3.8 s
                    conversation.send(bytes([byte]))
                    try:
                        said = conversation.socket.recv(2**16)
                    except TimeoutError:
                        continue
                    return said, time.monotonic() - began
                return b"", 0

        said, lasted = await in_thread(client)
        assert said.startswith(b"HTTP/1.1 408 ")
        assert lasted > SECONDS - 0.1
        assert counts(server)["expiries"] == {"header": 1}


async def test_slow_clients_do_not_keep_others_from_being_served():
    """They have begun a head; none has a thread, or anything else to block."""
    async with serving(Hello) as server:

        def begin(_):
            client = connect(server.server_address)
            client.sendall(HEAD)
            return client

        slow = await in_thread(lambda: [begin(number) for number in range(200)])
        try:
            await until(lambda: server.statistics.active == 200)

            def client():
                with Conversation(server.server_address) as conversation:
                    return conversation.ask(get()).body

            assert await in_thread(client) == b"Hello, world!"
        finally:
            for client in slow:
                client.close()
        await until(lambda: not server.statistics.active)


# The service stops


async def test_a_service_that_stops_answers_what_was_asked():
    """
    An idle connection ends; requests that have arrived are answered, the last of which is told
    that it is.
    """
    from twisted.internet import reactor

    go, begun = Deferred(), []

    class Slow(Hello):
        async def do_GET(self):
            if self.path == "/slow":
                begun.append(self)
                await go
            await super().do_GET()

    service = RequestService.from_description(reactor, LOOPBACK, Slow)
    async with running(service):
        address = service.server.server_address
        clients = [await in_thread(Conversation, address) for _ in range(3)]
        silent, used, busy = clients
        try:
            assert (await in_thread(used.ask, get())).status == 200
            busy.send(get("/slow") + get("/next"))
            await until(lambda: begun)
            stopped = service.stopService()
            assert await in_thread(silent.rest) == b""
            assert await in_thread(used.rest) == b""
            with pytest.raises(ConnectionRefusedError):
                await in_thread(connect, address)
            assert not stopped.called
            go.callback(None)
            for connection in (None, "close"):
                answer = await in_thread(busy.answer)
                said = (answer.body, answer.headers["Connection"])
                assert said == (b"Hello, world!", connection)
            assert await in_thread(busy.rest) == b""
            await stopped
            assert counts(service.server) == {"accepted": 3, "requests": 3}
        finally:
            for client in clients:
                client.__exit__(None, None, None)


@pytest.mark.parametrize("suspended", [False, True])
async def test_a_service_that_stops_answers_whom_nobody_has_accepted_yet(suspended):
    """Of 20 clients in the kernel's queue half have asked, and half ask when they are accepted."""
    from twisted.internet import reactor

    service = RequestService.from_description(reactor, LOOPBACK, Hello)
    async with running(service):
        if suspended:
            service.suspend()
        address = service.server.server_address
        clients = [Conversation(address) for _ in range(20)]  # in one turn of the reactor's
        try:
            for client in clients[::2]:
                client.send(get())
            stopped = service.stopService()
            for client in clients[1::2]:
                client.send(get())
            for client in clients:
                answer = await in_thread(client.answer)
                assert (answer.status, answer.headers["Connection"]) == (200, "close")
            await stopped
            assert counts(service.server) == {"accepted": 20, "requests": 20}
        finally:
            for client in clients:
                client.__exit__(None, None, None)


async def test_a_service_that_stops_accepts_no_more_than_are_admitted():
    from twisted.internet import reactor

    service = RequestService.from_description(
        reactor, LOOPBACK, Hello, admission=Admission(max_connections=2)
    )
    async with running(service):
        clients = [Conversation(service.server.server_address) for _ in range(4)]
        try:
            stopped = service.stopService()
            for client in clients[:2]:
                client.send(get())
            for client in clients[:2]:
                assert (await in_thread(client.answer)).status == 200
            for client in clients[2:]:
                with contextlib.suppress(ConnectionResetError):
                    assert await in_thread(client.rest) == b""
            await stopped
            assert counts(service.server) == {"accepted": 2, "requests": 2}
        finally:
            for client in clients:
                client.__exit__(None, None, None)


async def test_a_service_does_not_wait_for_ever():
    from twisted.internet import reactor

    begun = []

    class Noted(Stuck):
        async def do_GET(self):
            begun.append(self)
            await super().do_GET()

    service = RequestService.from_description(
        reactor, LOOPBACK, Noted, deadlines=Deadlines(drain=SECONDS)
    )
    async with running(service):
        with await in_thread(Conversation, service.server.server_address) as client:
            client.send(get())
            await until(lambda: begun)
            before = time.monotonic()
            await service.stopService()
            assert time.monotonic() - before > SECONDS - 0.1
            assert await in_thread(is_ended, client.socket)
    assert counts(service.server)["expiries"] == {"drain": 1}


# What a refused client may still send


async def test_a_client_that_sends_on_for_ever_is_ended():
    """After an error its client gets to read it, and some seconds, not all day."""

    def send_on(address):
        with connect(address) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            client.settimeout(0.1)
            began = time.monotonic()
            while time.monotonic() - began < 15:
                try:
                    client.sendall(b"x" * 1000)
                    time.sleep(0.01)
                except TimeoutError:
                    pass
                except ConnectionError:
                    return time.monotonic() - began
            return None

    async with serving(Hello) as server:
        lasted = await in_thread(send_on, server.server_address)
        assert lasted is not None
        await until(lambda: not server.statistics.active)
        assert server.statistics.snapshot()["responses"] == {"4xx": 1}


async def test_a_client_that_ends_its_side_is_not_waited_for():
    """Else it would be as long as what it sends is thrown away."""
    linger = 2 * PATIENCE_SECONDS
    async with serving(Hello, deadlines=Deadlines(linger=linger)) as server:

        def client():
            with connect(server.server_address) as conversation:
                conversation.sendall(b"GET / HTTP/1.1\r\n\r\n" + b"x" * 1000)
                conversation.shutdown(socket.SHUT_WR)
                return re.match(rb"HTTP/1.1 (\d+) ", read_all(conversation))[1]

        assert await in_thread(client) == b"400"
        await until(lambda: not server.statistics.active)
