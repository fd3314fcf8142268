"""The table of requests in progress: what an operator sees of each kind, and aborts."""

import http.server
import socket
import socketserver
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from sockserve import DatagramRequestHandler, Deadlines, Phase, StreamRequestHandler
from sockserve.http import HTTPRequestHandler
from sockserve.server import RequestStatus
from sockserve.service import SocketServerService, service_from_description
from tests.integration.servers import connect, running, until

pytestmark = pytest.mark.usefixtures("no_leaks")

TCP = "tcp:0:interface=127.0.0.1"
UDP = "udp:0:interface=127.0.0.1"
GET = b"GET /slow?a HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"


class Coroutine(StreamRequestHandler):
    async def handle(self):
        self.wfile.write(await self.rfile.readline())
        await self.rfile.readline()


class Blocking(StreamRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.readline())
        self.rfile.readline()


class Page(HTTPRequestHandler):
    async def do_GET(self):
        await Deferred()

    def do_POST(self):
        self.request.recv(1)


class Stock(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.connection.recv(1)


class Packet(DatagramRequestHandler):
    async def handle(self):
        await Deferred()


class BlockingPacket(DatagramRequestHandler):
    """Ends when the test says so: nothing else can end a thread that serves a packet."""

    release = threading.Event()

    def handle(self):
        self.release.wait()


@pytest.fixture(autouse=True)
def release():
    BlockingPacket.release.clear()
    yield
    BlockingPacket.release.set()


@asynccontextmanager
async def serving(handler: Any, description: str = TCP, **options: Any) -> AsyncIterator[Any]:
    from twisted.internet import reactor

    deadlines = Deadlines(**({"drain": 0.1, "abandon": 0.1} | options))
    async with running(
        service_from_description(reactor, description, handler, deadlines=deadlines)
    ) as service:
        yield service


async def only(service: Any, stage: str) -> RequestStatus:
    """The one request, as soon as it is so far."""
    await until(lambda: [status.stage for status in service.requests()] == [stage])
    [status] = service.requests()
    return status


@pytest.mark.parametrize("handler", [Coroutine, Blocking])
async def test_a_connection_is_told_with_its_peer_and_bytes(handler: type) -> None:
    async with serving(handler, idle=50) as service:
        with connect(service.server.server_address) as client:
            client.sendall(b"line\n")
            await until(lambda: service.requests() and service.requests()[0].sent == 5)
            status = await only(service, "handle")
            assert status.peer == client.getsockname()
            assert status.handler == handler.__qualname__
            assert status.listener == TCP
            assert (status.received, status.sent) == (5, 5)
            assert 0 <= status.seconds < 40
            assert status.deadline is Phase.IDLE
            assert status.expires_in is not None
            assert 0 < status.expires_in <= 50
            assert status.request == ""
        await until(lambda: service.requests() == [])


@pytest.mark.parametrize(
    ("handler", "sent", "stage", "line"),
    [
        (Page, b"", "idle", ""),
        (Page, GET[:-2], "header", ""),
        (Page, GET, "handle", "GET /slow?a HTTP/1.1"),
        (Page, POST, "body", "POST / HTTP/1.1"),
        (Page, POST + b"hello", "handle", "POST / HTTP/1.1"),
        (Stock, b"", "idle", ""),
        (Stock, GET, "handle", "GET /slow?a HTTP/1.1"),
    ],
)
async def test_a_request_of_http_is_told_with_its_first_line(
    handler: type, sent: bytes, stage: str, line: str
) -> None:
    async with serving(handler) as service:
        with connect(service.server.server_address) as client:
            client.sendall(sent)
            status = await only(service, stage)
            assert status.request == line
            await until(lambda: service.requests()[0].received == len(sent))


async def test_the_oldest_is_told_first_and_each_keeps_its_number() -> None:
    async with serving(Coroutine) as service:
        with connect(service.server.server_address) as one:
            first = await only(service, "handle")
            with connect(service.server.server_address) as other:
                await until(lambda: len(service.requests()) == 2)
                table = service.requests()
                assert [status.peer for status in table] == [
                    one.getsockname(),
                    other.getsockname(),
                ]
                assert table[0].id == first.id != table[1].id


@pytest.mark.parametrize("handler", [Packet, BlockingPacket])
async def test_a_datagram_is_told(handler: type) -> None:
    async with serving(handler, UDP, handle=50) as service:
        with closing(socket.socket(type=socket.SOCK_DGRAM)) as client:
            client.connect(service.server.server_address)
            client.send(b"packet")
            status = await only(service, "handle")
            assert status.peer == client.getsockname()
            assert status.received == 6
            assert status.deadline is Phase.HANDLE
            BlockingPacket.release.set()


async def test_what_waits_for_a_thread_is_told_so() -> None:
    from twisted.internet import reactor

    from sockserve.server import make_executor

    service = service_from_description(
        reactor, TCP, Blocking, concurrency=make_executor(reactor, "threads", threads=1)
    )
    async with running(service):
        address = service.server.server_address
        with connect(address), connect(address) as waiting:
            await until(
                lambda: {status.stage for status in service.requests()} == {"handle", "queue"}
            )
            [status] = [each for each in service.requests() if each.stage == "queue"]
            service.abort(status.id)
            assert waiting.recv(1) == b""


class ServerObject(socketserver.ThreadingTCPServer):
    daemon_threads = True


class DatagramObject(socketserver.ThreadingUDPServer):
    daemon_threads = True


class ObjectPacket(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        BlockingPacket.release.wait()


@pytest.mark.parametrize("cls", [ServerObject, DatagramObject])
async def test_requests_of_a_server_object_are_told(cls: Any) -> None:
    from twisted.internet import reactor

    is_stream = cls is ServerObject
    server = cls(("127.0.0.1", 0), Blocking if is_stream else ObjectPacket)
    service = SocketServerService(server, reactor)
    async with running(service):
        kind = socket.SOCK_STREAM if is_stream else socket.SOCK_DGRAM
        with closing(socket.socket(type=kind)) as client:
            client.connect(server.server_address)
            client.send(b"one\n")
            status = await only(service, "handle")
            assert status.peer == client.getsockname()
            BlockingPacket.release.set()


# Aborting


@pytest.mark.parametrize(
    ("handler", "sent"),
    [
        (Coroutine, b"line\n"),
        (Blocking, b"line\n"),
        (Page, GET),
        (Page, POST + b"hello"),
        (Stock, GET),
    ],
    ids=["coroutine", "thread", "http", "http on a thread", "stock"],
)
async def test_a_request_that_is_aborted_ends_and_others_do_not(handler: type, sent: bytes) -> None:
    async with serving(handler) as service:
        outcomes: dict[object, str] = {}
        service.server.observers.append(
            lambda record: outcomes.update({record.peer: record.outcome})
        )
        with connect(service.server.server_address) as client:
            peer = client.getsockname()
            client.sendall(sent)
            status = await only(service, "handle")
            with connect(service.server.server_address) as other:
                await until(lambda: len(service.requests()) == 2)
                service.abort(status.id)
                await until(lambda: len(service.requests()) == 1)
                assert service.requests()[0].peer == other.getsockname()
            await until(lambda: peer in outcomes)
            assert outcomes[peer] == "aborted"


async def test_a_coroutine_of_a_datagram_is_cancelled() -> None:
    async with serving(Packet, UDP) as service:
        records: list[Any] = []
        service.server.observers.append(records.append)
        with closing(socket.socket(type=socket.SOCK_DGRAM)) as client:
            client.connect(service.server.server_address)
            client.send(b"packet")
            service.abort((await only(service, "handle")).id)
            await until(lambda: records)
            assert records[0].outcome == "aborted"
            assert service.requests() == []
            assert service.server.statistics.expiries == {}


async def test_a_thread_that_does_not_hear_of_it_is_abandoned() -> None:
    class Deaf(StreamRequestHandler):
        def handle(self) -> None:
            BlockingPacket.release.wait()

    async with serving(Deaf) as service:
        with connect(service.server.server_address):
            service.abort((await only(service, "handle")).id)
            await until(lambda: service.requests() == [])
            assert service.server.statistics.abandoned == 1
            BlockingPacket.release.set()
            await until(lambda: service.server.statistics.abandoned == 0)


async def test_what_is_not_in_progress_cannot_be_aborted() -> None:
    async with serving(Coroutine) as service:
        with connect(service.server.server_address):
            status = await only(service, "handle")
        await until(lambda: service.requests() == [])
        with pytest.raises(LookupError, match=f"^request {status.id} is not in progress$"):
            service.abort(status.id)
