"""Coroutine handlers on real stream connections, over every kind of endpoint."""

import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from twisted.internet.task import deferLater

from sockserve import StreamRequestHandler
from sockserve.core.admission import Admission, parse_network
from tests.integration.handlers import PIECE, Echo
from tests.integration.servers import (
    LOOPBACK,
    PROXIED_CLIENT,
    PROXIED_SERVER,
    PROXY_HEADER,
    child,
    come_and_go,
    connect,
    connect_as,
    counts,
    description,
    in_thread,
    is_ended,
    read_all,
    read_exactly,
    read_line,
    reset,
    serving,
    turned_away,
    until,
)
from tests.tools import need_tool

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

KINDS = [
    *("tcp", "tcp6", "unix", "ssl", "tls"),
    *("haproxy:tcp", "haproxy:tcp6", "haproxy:unix", "haproxy:ssl"),
]


class Addresses(StreamRequestHandler):
    """Says whom it talks with, and echoes a line."""

    async def handle(self):
        addresses = self.client_address, self.request.getpeername(), self.request.getsockname()
        self.wfile.write(repr(addresses).encode() + b"\n")
        self.wfile.write(await self.rfile.readline())


@pytest.mark.parametrize("kind", KINDS)
async def test_echo_and_addresses(kind, tmp_path):
    def talk(server):
        with connect_as(kind, server.server_address) as client:
            client.sendall(b"hello\n")
            lines = read_all(client).splitlines()
            return eval(lines[0]), lines[1:], client.getsockname(), client.getpeername()

    async with serving(Addresses, description(kind, tmp_path)) as server:
        seen, rest, own, peer = await in_thread(talk, server)
        assert rest == [b"hello"]
        if kind.startswith("haproxy:"):
            own, peer = PROXIED_CLIENT, PROXIED_SERVER
        assert seen == (own, own, peer)
        await until(lambda: counts(server) == {"accepted": 1, "requests": 1})
        assert server.statistics.snapshot()["received"] == 6


def listening_socket():
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    return listening


async def test_inherited_descriptor():
    def talk(address):
        with connect(address) as client:
            client.sendall(b"hello\n")
            return read_exactly(client, 6)

    listening = listening_socket()
    address = listening.getsockname()
    async with serving(Echo, f"fd:{listening.detach()}") as server:
        assert server.server_address == address
        assert await in_thread(talk, address) == b"hello\n"


@pytest.mark.parametrize(
    ("names", "which"),
    [
        ("LISTEN_FDNAMES='web'", "index=0"),
        ("LISTEN_FDNAMES='web'", "name=web"),
        ("LISTEN_FDNAMES=''", "index=0"),
        ("", "index=0"),  # from others than systemd
    ],
)
def test_systemd_socket(names, which):
    """systemd gives listening sockets from descriptor 3 on, and says so in the environment."""
    with listening_socket() as listening:
        number = listening.fileno()
        script = (
            f"import os, sys; os.dup2({number}, 3);"
            f"os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', {names});"
            "os.execv(sys.argv[1], sys.argv[1:])"
        )
        wrapper = (sys.executable, "-c", script)
        where = f"systemd:domain=INET:{which}"
        with (
            child(where, "Echo", wrapper=wrapper, pass_fds=[number]),
            connect(listening.getsockname()) as client,
        ):
            client.sendall(b"hello\n")
            assert read_exactly(client, 6) == b"hello\n"


# PROXY

V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V2_TCP4 = (
    V2_SIGNATURE
    + b"\x21\x11\x00\x0c"
    + socket.inet_aton(PROXIED_CLIENT[0])
    + socket.inet_aton(PROXIED_SERVER[0])
    + PROXIED_CLIENT[1].to_bytes(2, "big")
    + PROXIED_SERVER[1].to_bytes(2, "big")
)
PROXIED = (PROXIED_CLIENT, PROXIED_SERVER)


class Greeting(StreamRequestHandler):
    """A server that speaks first."""

    async def handle(self):
        self.wfile.write(repr((self.client_address, self.request.getsockname())).encode() + b"\n")
        self.wfile.write(await self.rfile.read())


@pytest.mark.parametrize(
    ("header", "seen"),
    [
        pytest.param(PROXY_HEADER, PROXIED, id="v1"),
        pytest.param(V2_TCP4, PROXIED, id="v2"),
        pytest.param(b"PROXY UNKNOWN\r\n", None, id="v1-unknown"),
        pytest.param(V2_SIGNATURE + b"\x20\x00\x00\x00", None, id="v2-local"),
    ],
)
@pytest.mark.parametrize("manner", ["alone", "pieces", "together"])
async def test_proxy_header(header, seen, manner):
    """The header alone is enough for a server that speaks first."""

    def talk(address):
        with connect(address) as client:
            real = client.getsockname(), client.getpeername()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if manner == "together":
                client.sendall(header + b"content")
            elif manner == "pieces":
                for place in range(len(header)):
                    client.sendall(header[place : place + 1])
            else:
                client.sendall(header)
            greeting = read_line(client)
            if manner != "together":
                client.sendall(b"content")
            client.shutdown(socket.SHUT_WR)
            return eval(greeting), read_all(client), real

    async with serving(Greeting, "haproxy:" + LOOPBACK) as server:
        greeting, content, real = await in_thread(talk, server.server_address)
        assert greeting == (seen or real)
        assert content == b"content"


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"PROXY TCP4 what\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.80 port port\r\n",
        b"PROXY TCP4 somebody somewhere 1 2\r\n",
        b"PROXY TCP6 \xff\xff ::1 1 2\r\n",
        V2_SIGNATURE + b"\x21\x11\x00\x01.",
        b"\0" * 200,
    ],
)
async def test_wrong_proxy_header_ends_the_connection(header):
    def talk(address):
        with connect(address) as client:
            client.sendall(header)
            return is_ended(client)

    async with serving(Echo, "haproxy:" + LOOPBACK) as server:
        assert await in_thread(talk, server.server_address)
        await until(lambda: counts(server) == {"accepted": 1})


@pytest.mark.parametrize("content", [b"", b"content behind the header"])
async def test_admission_looks_at_the_proxied_address(content):
    admission = Admission(deny=[parse_network("192.0.2.0/24")])
    async with serving(Echo, "haproxy:" + LOOPBACK, admission=admission) as server:
        assert await in_thread(turned_away, server.server_address, PROXY_HEADER + content)
        await until(lambda: counts(server) == {"accepted": 1, "refused": {"network": 1}})


async def test_header_of_a_stranger_is_not_believed():
    proxies = [parse_network("198.51.100.0/24")]
    async with serving(Echo, "haproxy:" + LOOPBACK, proxy_from=proxies) as server:
        assert await in_thread(turned_away, server.server_address, PROXY_HEADER)
        assert counts(server) == {"refused": {"proxy": 1}}


def listens(address):
    """Whether somebody does at C{address}: its name is there before that."""
    try:
        connect(address).close()
    except OSError:
        return False
    return True


@contextmanager
def haproxy_before(address, folder: Path, sends="send-proxy-v2"):
    """The real one; gives where it listens."""
    program = need_tool("haproxy")
    front = folder / "front"
    configuration = folder / "haproxy.cfg"
    configuration.write_text(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n"
        f"frontend front\n bind {front}\n default_backend back\n"
        f"backend back\n server one {address[0]}:{address[1]} {sends}\n"
    )
    with subprocess.Popen([program, "-db", "-f", configuration], stderr=subprocess.PIPE) as proxy:
        try:
            yield str(front)
        finally:
            proxy.terminate()
            proxy.communicate()


@pytest.mark.parametrize("sends", ["send-proxy", "send-proxy-v2"])
async def test_behind_the_real_haproxy_that_speaks_tls(sends, tmp_path):
    """It sends the header before TLS."""

    def talk(front):
        with connect(front) as client:
            client.sendall(b"hello\n")
            return read_all(client).splitlines()[1:]

    async with serving(Addresses, description("haproxy:ssl", tmp_path)) as server:
        with haproxy_before(server.server_address, tmp_path, f"{sends} ssl verify none") as front:
            await until(lambda: listens(front))
            assert await in_thread(talk, front) == [b"hello"]


async def test_behind_the_real_haproxy(tmp_path):
    def talk(front):
        with connect(front) as client:
            client.sendall(b"hello\n")
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

    async with serving(Echo, "haproxy:" + LOOPBACK) as server:
        with haproxy_before(server.server_address, tmp_path) as front:
            await until(lambda: listens(front))
            assert await in_thread(talk, front) == b"hello\n"
        await until(lambda: not server.statistics.active)


# Backpressure

SIZE = 256 * 2**20
#: What a server may grow by while 256 MiB go through it.
ALLOWED_BYTES = 20 * 2**20


def grown_by(server, transfer):
    before = server.forget_peak()
    transfer()
    return server.memory("VmHWM") - before


@pytest.mark.parametrize("handler", ["SlowSink", "BlockingSlowSink"])
@pytest.mark.parametrize("kind", ["tcp", "haproxy:tcp", "ssl"])
async def test_fast_sender_does_not_grow_memory(handler, kind, tmp_path):
    size = SIZE if kind == "tcp" else SIZE // 4

    def transfer(client):
        for _ in range(size // len(PIECE)):
            client.sendall(PIECE)
        if kind == "ssl":  # cannot end one side only
            client = client.unwrap()
        else:
            client.shutdown(socket.SHUT_WR)
            assert int(read_all(client)) == size

    def watch():
        with child(description(kind, tmp_path), handler) as server:
            with connect_as(kind, server.address) as client:
                grown = grown_by(server, lambda: transfer(client))
            assert "rror" not in server.log()
            return grown

    assert await in_thread(watch) < ALLOWED_BYTES


@pytest.mark.parametrize("handler", ["Source", "BlockingSource"])
@pytest.mark.parametrize("kind", ["tcp", "haproxy:tcp", "ssl"])
async def test_slow_reader_does_not_grow_memory(handler, kind, tmp_path):
    size = SIZE if kind == "tcp" else SIZE // 4
    pauses = range(0, size // len(PIECE), size // len(PIECE) // 8)

    def transfer(client):
        import time

        client.sendall(b"%d\n" % (size // len(PIECE)))
        for piece in range(size // len(PIECE)):
            if piece in pauses:
                time.sleep(0.05)
            assert len(read_exactly(client, len(PIECE))) == len(PIECE)

    def watch():
        with child(description(kind, tmp_path), handler) as server:
            with connect_as(kind, server.address) as client:
                grown = grown_by(server, lambda: transfer(client))
            assert "rror" not in server.log()
            return grown

    assert await in_thread(watch) < ALLOWED_BYTES


# Half-close


class AnswerAfterTheEnd(StreamRequestHandler):
    async def handle(self):
        data = await self.rfile.read()
        await deferLater(self.server.reactor, 0.05)
        self.wfile.write(b"%d bytes" % len(data))


class EndsFirst(StreamRequestHandler):
    """Ends its own side and reads on."""

    async def handle(self):
        self.wfile.write(b"first ")
        self.request.shutdown(socket.SHUT_WR)
        self.server.heard = await self.rfile.read()


@pytest.mark.parametrize("kind", ["tcp", "tcp6", "unix", "haproxy:tcp", "haproxy:unix"])
async def test_client_ends_its_side_and_gets_the_answer(kind, tmp_path):
    def talk(address):
        with connect_as(kind, address) as client:
            client.sendall(PIECE * 4)
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

    async with serving(AnswerAfterTheEnd, description(kind, tmp_path)) as server:
        assert await in_thread(talk, server.server_address) == b"262144 bytes"


@pytest.mark.parametrize("kind", ["tcp", "tcp6", "unix", "haproxy:tcp", "haproxy:unix"])
async def test_handler_ends_its_side_and_reads_on(kind, tmp_path):
    def talk(address):
        with connect_as(kind, address) as client:
            assert read_all(client) == b"first "
            client.sendall(PIECE * 16)

    async with serving(EndsFirst, description(kind, tmp_path)) as server:
        await in_thread(talk, server.server_address)
        await until(lambda: not server.statistics.active)
        assert server.heard == PIECE * 16
        assert counts(server) == {"accepted": 1, "requests": 1}


# The end of a connection


class Farewell(StreamRequestHandler):
    """Reads a line of what may be much, answers at length and ends."""

    size = 0

    async def handle(self):
        await self.rfile.readline()
        self.wfile.write(b"." * int(self.size))
        self.wfile.write(b"bye")


class LongFarewell(Farewell):
    size = 2**23


@pytest.mark.parametrize("handler", [Farewell, LongFarewell])
@pytest.mark.parametrize("kind", ["tcp", "unix", "haproxy:tcp", "ssl"])
async def test_answer_is_whole_though_the_request_was_not_read(handler, kind, tmp_path):
    """
    Closing with bytes unread would have the kernel reset the connection, and the reset
    overtake the answer.
    """
    if kind == "haproxy:tcp" or kind == "ssl":
        extra = b""
    else:
        extra = b"unread" * 1000

    def talk(address):
        with connect_as(kind, address) as client:
            client.sendall(b"line\n" + extra)
            return len(read_exactly(client, handler.size + 3))

    async with serving(handler, description(kind, tmp_path)) as server:
        assert await in_thread(talk, server.server_address) == handler.size + 3


@pytest.mark.parametrize("handler", [Farewell, LongFarewell])
@pytest.mark.parametrize("kind", ["tcp", "unix", "haproxy:tcp"])
async def test_client_that_reads_all_but_never_closes_is_let_go(handler, kind, tmp_path):
    """The handler is done; nothing that the client leaves undone keeps the connection."""

    def talk(address):
        client = connect_as(kind, address)
        client.sendall(b"line\n" + b"unread" * 1000)
        assert len(read_exactly(client, handler.size + 3)) == handler.size + 3
        return client

    async with serving(handler, description(kind, tmp_path)) as server:
        client = await in_thread(talk, server.server_address)
        try:
            # Two seconds (linger) for what the client may still send.
            await until(lambda: not server.statistics.active, 15)
        finally:
            client.close()


async def test_nodelay():
    class Handler(StreamRequestHandler):
        async def handle(self):
            self.wfile.write(b"%d" % self.request.transport.getTcpNoDelay())

    def talk(address):
        with connect(address) as client:
            return read_all(client)

    async with serving(Handler) as server:
        assert await in_thread(talk, server.server_address) == b"1"


# Clients that go


class Talker(StreamRequestHandler):
    """Has something to say again and again, whether or not anybody listens."""

    async def handle(self):
        while True:
            self.wfile.write(PIECE)
            await self.wfile.drain()
            await deferLater(self.server.reactor, 0)


class Waiter(StreamRequestHandler):
    async def handle(self):
        await self.rfile.readexactly(10)


@pytest.mark.parametrize("kind", ["tcp", "unix", "ssl", "haproxy:tcp"])
@pytest.mark.parametrize("handler", [Echo, Talker, Waiter])
async def test_clients_that_go_are_no_errors(handler, kind, tmp_path):
    count = 30 if kind == "ssl" else 120
    async with serving(handler, description(kind, tmp_path)) as server:
        await in_thread(come_and_go, kind, server.server_address, count)
        await until(lambda: server.statistics.accepted == count and not server.statistics.active)
        assert set(counts(server)) <= {"accepted", "requests"}


async def test_resets_before_accept():
    """A thousand clients that are gone before anybody looks."""

    def storm(address):
        for _ in range(1000):
            reset(connect(address))

    async with serving(Echo) as server:
        await in_thread(storm, server.server_address)
        await until(lambda: server.statistics.accepted == 1000 and not server.statistics.active)
        assert counts(server)["accepted"] == 1000
        assert server.statistics.errors == 0
