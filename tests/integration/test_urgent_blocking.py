"""Urgent data of blocking handlers: side by side with the standard library."""

import fcntl
import http.server
import importlib
import select
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

import sockserve.http.server
import sockserve.socketserver
from sockserve.executors.fork import ForkExecutor
from sockserve.executors.threads import ThreadExecutor
from sockserve.service import SocketServerService
from sockserve.streams.urgent import _SIOCATMARK
from tests.integration.servers import (
    PATIENCE_SECONDS,
    connect,
    connect_as,
    description,
    in_thread,
    read_all,
    running,
    serving,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")


def urge(client: socket.socket) -> None:
    client.send(b"!", socket.MSG_OOB)


def is_at_mark(sock: socket.socket) -> bool:
    """C{sockatmark}."""
    return bool(struct.unpack("i", fcntl.ioctl(sock, _SIOCATMARK, bytes(4)))[0])


def cut_at_mark(sock: socket.socket, last: bytes | None = None) -> tuple[bytes, bytes]:
    """All that comes up to the urgent byte, and from there; until the end, or until C{last}."""
    before = behind = b""
    has_come = False
    while True:
        select.select([sock], [], [], PATIENCE_SECONDS)
        has_come = has_come or is_at_mark(sock)
        piece = sock.recv(2**16)
        if has_come:
            behind += piece
        else:
            before += piece
        if not piece or (last is not None and piece.endswith(last)):
            return before, behind


def client_cut_at_mark(client: socket.socket) -> tuple[bytes, bytes]:
    """The same, of a client, for which the urgent byte is the first of what comes from there."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    return cut_at_mark(client)


class OutOfBand(socketserver.BaseRequestHandler):
    """Tells of all that it receives, before the urgent byte and from there; and sends one."""

    inline = False

    def handle(self):
        sock = self.request
        told: list[object] = []
        _, _, urgent = select.select([], [], [sock], PATIENCE_SECONDS)
        told.append(bool(urgent))
        if self.inline:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        else:
            told.append(sock.recv(1, socket.MSG_OOB))
        told.append(cut_at_mark(sock, b"after"))
        try:
            told.append(sock.recv(1, socket.MSG_OOB))
        except OSError as error:
            told.append(error.errno)
        sock.sendall(repr(told).encode())
        urge(sock)


class Inline(OutOfBand):
    inline = True


def ask(address: Any) -> tuple[bytes, bytes]:
    """What a handler says of urgent data that may be there before it, and its own urgent byte."""
    with connect(address) as client:
        client.sendall(b"before")
        urge(client)
        client.sendall(b"after")
        return client_cut_at_mark(client)


@contextmanager
def serving_forever(server: Any) -> Iterator[Any]:
    """The address of a server object, which runs on a thread."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address
        finally:
            server.shutdown()
            thread.join()


def told(server: Any) -> tuple[bytes, bytes]:
    """What the handler of a server object says."""
    with serving_forever(server) as address:
        return ask(address)


def told_by_stdlib(handler: type) -> tuple[bytes, bytes]:
    return told(socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler))


handlers = pytest.mark.parametrize("handler", [OutOfBand, Inline])


@handlers
@pytest.mark.parametrize("name", ["TCPServer", "ThreadingTCPServer", "ForkingTCPServer"])
@pytest_twisted.ensureDeferred
async def test_a_drop_in_server_leaves_urgent_data_where_it_is(name: str, handler: type) -> None:
    server = getattr(sockserve.socketserver, name)(("127.0.0.1", 0), handler)
    said, behind = await in_thread(told, server)
    assert (said, behind) == await in_thread(told_by_stdlib, handler)
    assert said.startswith(b"[True, ")
    assert behind == b"!"


@handlers
@pytest.mark.parametrize("executor", [ThreadExecutor, ForkExecutor])
@pytest_twisted.ensureDeferred
async def test_a_service_leaves_urgent_data_where_it_is(
    executor: Callable[..., Any], handler: type
) -> None:
    from twisted.internet import reactor

    async with serving(handler, concurrency=executor(reactor)) as server:
        said = await in_thread(ask, server.server_address)
    assert said == await in_thread(told_by_stdlib, handler)


@handlers
@pytest.mark.parametrize("name", ["TCPServer", "ThreadingTCPServer", "ForkingTCPServer"])
@pytest_twisted.ensureDeferred
async def test_a_served_object_leaves_urgent_data_where_it_is(name: str, handler: type) -> None:
    from twisted.internet import reactor

    server = getattr(socketserver, name)(("127.0.0.1", 0), handler)
    with server:
        async with running(SocketServerService(server, reactor)):
            said = await in_thread(ask, server.server_address)
    assert said == await in_thread(told_by_stdlib, handler)


@handlers
@pytest_twisted.ensureDeferred
async def test_a_connection_that_waits_for_a_thread_keeps_its_urgent_data(handler: Any) -> None:
    """It is watched for the client's going, which takes nothing."""
    from twisted.internet import reactor

    begun, go = threading.Event(), threading.Event()

    class Held(handler):
        def handle(self):
            if self.request.recv(1, socket.MSG_PEEK) == b"h":
                begun.set()
                go.wait(PATIENCE_SECONDS)
            else:
                super().handle()

    def clients(address: Any) -> tuple[bytes, bytes]:
        with connect(address) as holder, connect(address) as client:
            holder.sendall(b"hold")
            assert begun.wait(PATIENCE_SECONDS)
            client.sendall(b"before")
            urge(client)
            client.sendall(b"after")
            # A later one that gives up: the kernel tells of it, and all that wait are looked at.
            with connect(address) as other:
                urge(other)
                other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            reactor.callFromThread(go.set)
            return client_cut_at_mark(client)

    async with serving(Held, concurrency=ThreadExecutor(reactor, 1)) as server:
        said = await in_thread(clients, server.server_address)
    assert said == await in_thread(told_by_stdlib, handler)


# Where there is none


class Refused(socketserver.BaseRequestHandler):
    """Tells what comes of each way to send an urgent byte."""

    def handle(self):
        sock = self.request
        for send in (
            lambda: sock.send(b"?", socket.MSG_OOB),
            lambda: sock.sendall(b"?", socket.MSG_OOB),
            lambda: sock.sendmsg([b"?"], (), socket.MSG_OOB),
        ):
            try:
                send()
            except OSError as error:
                sock.sendall(str(error).encode() + b"\n")


@pytest.mark.parametrize("kind", ["ssl", "haproxy:tcp"])
@pytest_twisted.ensureDeferred
async def test_where_there_is_none_it_is_not_lost_but_refused(kind: str, tmp_path: Path) -> None:
    def client(address: Any) -> list[bytes]:
        with connect_as(kind, address) as sock:
            return read_all(sock).splitlines()

    async with serving(Refused, description(kind, tmp_path)) as server:
        lines = await in_thread(client, server.server_address)
    assert len(lines) == 3
    assert all(b"no urgent data over TLS or behind a PROXY header" in line for line in lines)


# HTTP


class Page(http.server.BaseHTTPRequestHandler):
    """Says what urgent byte there is, and sends one of its own."""

    def do_GET(self):
        if self.path == "/behind":
            select.select([], [], [self.connection], PATIENCE_SECONDS)
        try:
            urgent = self.connection.recv(1, socket.MSG_OOB)
        except OSError as error:
            urgent = error.errno
        if self.path == "/behind":
            urgent = f"{urgent} {self.rfile.read(4)}"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{self.path} {urgent}".encode())
        urge(self.connection)
        self.wfile.write(b"end")

    def log_message(self, *arguments: object) -> None:
        pass


def get(server: Any, *pieces: bytes) -> tuple[bytes, bytes]:
    """The page for a request in pieces, an urgent byte between two; cut at that of the handler."""
    with serving_forever(server) as address, connect(address) as client:
        client.sendall(pieces[0])
        for piece in pieces[1:]:
            urge(client)
            client.sendall(piece)
        said, behind = client_cut_at_mark(client)
    return said.partition(b"\r\n\r\n")[2], behind


@pytest.mark.parametrize("name", ["HTTPServer", "ThreadingHTTPServer"])
@pytest_twisted.ensureDeferred
async def test_in_an_http_request_an_urgent_byte_is_no_part_of_it(name: str) -> None:
    pieces = [b"GET /pa", b"th HTTP/1.0\r\n\r\n"]
    said = []
    for module in ("http.server", "sockserve.http.server"):
        server = getattr(importlib.import_module(module), name)(("127.0.0.1", 0), Page)
        said.append(await in_thread(get, server, *pieces))
    assert said[0] == said[1] == (b"/path 22", b"!end")


@pytest.mark.parametrize("name", ["HTTPServer", "ThreadingHTTPServer"])
@pytest_twisted.ensureDeferred
async def test_behind_an_http_request_it_is_there_where_the_handler_reads(name: str) -> None:
    pieces = [b"GET /behind HTTP/1.0\r\n\r\n", b"more"]
    said = []
    for module in (http.server, sockserve.http.server):
        server = getattr(module, name)(("127.0.0.1", 0), Page)
        server.parks_connections = False
        said.append(await in_thread(get, server, *pieces))
    assert said[0] == said[1] == (b"/behind b'!' b'more'", b"!end")
