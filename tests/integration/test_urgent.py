"""Urgent data over real connections, of coroutines and of blocking handlers."""

import http.server
import importlib
import select
import socket
import socketserver
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.ssl import PrivateCertificate

import sockserve.socketserver
from sockserve import ConfigurationError, DatagramRequestHandler, StreamRequestHandler
from sockserve.executors.fork import ForkExecutor
from sockserve.executors.threads import ThreadExecutor
from sockserve.service import DatagramRequestService, RequestService, SocketServerService
from tests.integration.servers import (
    PATIENCE_SECONDS,
    certificate_pem,
    connect,
    description,
    in_thread,
    read_all,
    read_line,
    secure,
    serving,
)

pytestmark = [
    pytest.mark.usefixtures("no_leaks", "errors"),
    pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning"),
]


def urge(client: socket.socket, data: bytes = b"!") -> None:
    client.send(data, socket.MSG_OOB)


class Counts(StreamRequestHandler):
    """Answers lines, but throws away what came before an interrupt, and answers that."""

    async def handle(self):
        async for line in self.rfile:
            self.wfile.write(line.upper())

    def urgent_received(self, data):
        self.rfile.skip_to_mark()
        self.wfile.write_urgent(b"?")


@pytest_twisted.ensureDeferred
async def test_a_coroutine_throws_away_what_came_before_an_urgent_byte() -> None:
    def client(address: Any) -> list[bytes]:
        with connect(address) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
            sock.sendall(b"one\n")
            said = [read_line(sock)]
            sock.sendall(b"half of t")
            urge(sock)
            sock.sendall(b"wo\n")
            sock.shutdown(socket.SHUT_WR)
            return [*said, read_all(sock)]

    async with serving(Counts) as server:
        said = await in_thread(client, server.server_address)
    assert said == [b"ONE\n", b"?WO\n"]


class StartsTLS(StreamRequestHandler):
    """Tells what comes of an urgent byte over TLS."""

    async def handle(self):
        self.got = []
        self.wfile.write_urgent(b"1")
        await self.rfile.readline()
        self.wfile.write(b"go\n")
        await self.start_tls(PrivateCertificate.loadPEM(certificate_pem()).options())
        line = await self.rfile.readline()
        try:
            self.wfile.write_urgent(b"2")
        except RuntimeError as error:
            self.wfile.write(line + str(error).encode() + str(self.got).encode())

    def urgent_received(self, data):
        self.got.append(data)


@pytest_twisted.ensureDeferred
async def test_after_start_tls_there_is_none() -> None:
    def client(address: Any) -> bytes:
        with connect(address) as sock:
            sock.sendall(b"tls\n")
            assert read_line(sock) == b"go\n"
            with secure(sock) as tls:
                # No byte of TLS: a server that took it for one would end here.
                socket.socket.send(tls, b"!", socket.MSG_OOB)
                tls.sendall(b"line\n")
                return read_all(tls)

    async with serving(StartsTLS) as server:
        said = await in_thread(client, server.server_address)
    assert said.startswith(b"line\nwrite_urgent: there is no urgent data")
    assert said.endswith(b"[]")


# Where a handler that asks is refused


class Asks(StreamRequestHandler):
    async def handle(self):
        pass

    def urgent_received(self, data):
        pass


class AsksPerDatagram(Asks, DatagramRequestHandler):
    pass


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("ssl", "over TLS"),
        ("tls", "over TLS"),
        ("unix", "over UNIX sockets"),
        ("haproxy:tcp", "behind a PROXY header"),
        ("haproxy:ssl", "behind a PROXY header"),
    ],
)
def test_where_there_is_none_a_handler_that_asks_is_refused(
    kind: str, where: str, tmp_path: Path
) -> None:
    from twisted.internet import reactor

    with pytest.raises(ConfigurationError, match=f"^handler Asks: urgent_received .* {where}"):
        RequestService.from_description(reactor, description(kind, tmp_path), Asks)


@pytest.mark.parametrize("kind", ["udp:0", "unixgram:socket"])
def test_a_handler_of_datagrams_that_asks_is_refused(kind: str) -> None:
    from twisted.internet import reactor

    with pytest.raises(ConfigurationError, match=r"urgent_received .* in datagrams"):
        DatagramRequestService.from_description(reactor, kind, AsksPerDatagram)


def test_a_server_object_of_unix_sockets_is_refused(tmp_path: Path) -> None:
    from twisted.internet import reactor

    path = str(tmp_path / "socket")
    with (
        socketserver.ThreadingUnixStreamServer(path, Asks) as server,  # type: ignore[arg-type]
        pytest.raises(ConfigurationError, match="over UNIX sockets"),
    ):
        SocketServerService(server, reactor)
    with pytest.raises(ConfigurationError, match="over UNIX sockets"):
        sockserve.socketserver.ThreadingUnixStreamServer(path + "2", Asks)


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        (["--listen", "unix:socket"], "over UNIX sockets"),
        (["--listen", "haproxy:tcp:0"], "behind a PROXY header"),
    ],
)
def test_a_check_says_so_in_one_line(options: list[str], culprit: str, tmp_path: Path) -> None:
    (tmp_path / "asking.py").write_text(ASKING)
    done = subprocess.run(
        [*TWISTD, "-n", "sockserve", "--handler", "asking:Asks", "--check", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert culprit in line
    assert line.count("urgent_received") == 1


TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]

ASKING = """
from sockserve import StreamRequestHandler

class Asks(StreamRequestHandler):
    async def handle(self): pass
    def urgent_received(self, data): pass
"""


# Blocking handlers, which have a socket, as the standard library has it

_SIOCATMARK = 0x8905


def is_at_mark(sock: socket.socket) -> bool:
    import fcntl

    return bool(struct.unpack("i", fcntl.ioctl(sock, _SIOCATMARK, bytes(4)))[0])


class OutOfBand(socketserver.StreamRequestHandler):
    """Tells of all that it receives, piece by piece, the urgent byte first."""

    inline = False

    def handle(self):
        sock = self.request
        told: list[object] = []
        sock.settimeout(PATIENCE_SECONDS)
        _, _, urgent = select.select([], [], [sock], PATIENCE_SECONDS)
        told.append(bool(urgent))
        if self.inline:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        else:
            told.append(sock.recv(1, socket.MSG_OOB))
        # What came after it may take a moment longer.
        while True:
            at_mark = is_at_mark(sock)
            piece = sock.recv(100)
            told.append((at_mark, piece))
            if not piece or piece.endswith(b"after"):
                break
        try:
            told.append(sock.recv(1, socket.MSG_OOB))
        except OSError as error:
            told.append(error.errno)
        sock.sendall(repr(told).encode())
        sock.send(b"?", socket.MSG_OOB)


class Inline(OutOfBand):
    inline = True


def ask(address: Any) -> bytes:
    """What the handler says to urgent data that was there before it was, and its urgent byte."""
    with connect(address) as client:
        client.sendall(b"before")
        urge(client)
        client.sendall(b"after")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        return read_all(client)


@contextmanager
def stdlib(server: Any) -> Iterator[Any]:
    """The address of a server of socketserver's kind, which runs on a thread."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address
        finally:
            server.shutdown()
            thread.join()


DROP_INS = ["TCPServer", "ThreadingTCPServer", "ForkingTCPServer"]


def expected(handler: Any) -> bytes:
    """What it says where the standard library serves it."""
    with stdlib(socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)) as address:
        return ask(address)


@pytest.mark.parametrize("handler", [OutOfBand, Inline])
@pytest.mark.parametrize("name", DROP_INS)
def test_drop_in_servers_keep_urgent_data_as_it_is(name: str, handler: Any) -> None:
    server = getattr(sockserve.socketserver, name)(("127.0.0.1", 0), handler)
    with stdlib(server) as address:
        said = ask(address)
    assert said == expected(handler)
    assert said.endswith(b"]?")
    assert b"True" in said


@pytest.mark.parametrize("handler", [OutOfBand, Inline])
@pytest.mark.parametrize("executor", [ThreadExecutor, ForkExecutor])
@pytest_twisted.ensureDeferred
async def test_a_blocking_handler_has_urgent_data_as_it_is(
    executor: Callable[..., Any], handler: Any
) -> None:
    from twisted.internet import reactor

    async with serving(handler, concurrency=executor(reactor)) as server:
        said = await in_thread(ask, server.server_address)
    assert said == await in_thread(expected, handler)


@pytest_twisted.ensureDeferred
async def test_what_waits_for_a_thread_keeps_its_urgent_data() -> None:
    """Nobody takes of a connection that waits, though its client is watched."""
    from twisted.internet import reactor

    begun, go = threading.Event(), threading.Event()

    class Held(OutOfBand):
        def handle(self):
            if self.request.recv(1, socket.MSG_PEEK) == b"h":
                begun.set()
                go.wait(PATIENCE_SECONDS)
                return
            super().handle()

    def hold(address: Any) -> bytes:
        with connect(address) as holder:
            holder.sendall(b"hold")
            begun.wait(PATIENCE_SECONDS)
            reactor.callLater(0.1, go.set)
            return ask(address)

    async with serving(Held, concurrency=ThreadExecutor(reactor, 1)) as server:
        said = await in_thread(hold, server.server_address)
    assert said == await in_thread(expected, OutOfBand)


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.parametrize("module", ["http.server", "sockserve.http.server"])
def test_in_an_http_request_an_urgent_byte_is_no_part_of_it(module: str) -> None:
    names = importlib.import_module(module)
    server = names.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    with stdlib(server) as address, connect(address) as client:
        urge(client)
        client.sendall(b"GET /pa")
        urge(client)
        client.sendall(b"th HTTP/1.0\r\n\r\n")
        said = read_all(client)
    assert said.startswith(b"HTTP/1.0 200 ")
    assert said.endswith(b"\r\n/path")
