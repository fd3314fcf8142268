"""Urgent data over real connections, of coroutines and of blocking handlers."""

import socket
import socketserver
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.ssl import PrivateCertificate

import sockserve.socketserver
from sockserve import ConfigurationError, DatagramRequestHandler, StreamRequestHandler
from sockserve.service import DatagramRequestService, RequestService, SocketServerService
from tests.integration.servers import (
    certificate_pem,
    connect,
    description,
    in_thread,
    read_all,
    read_line,
    secure,
    serving,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")


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
        ("haproxy:ssl", "over TLS"),
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
