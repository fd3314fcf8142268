"""The connection a coroutine handler sees: what it shares with a socket."""

import socket
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport
from zope.interface import directlyProvides

from sockserve import Deadlines, StreamRequestHandler
from sockserve.interfaces import Phase
from sockserve.streams.connection import StreamConnection
from sockserve.streams.departure import Departure
from tests.transports import Call, Connection

CLIENT = ("192.0.2.1", 50000)
SERVER = ("192.0.2.2", 7000)


class Request(StreamConnection):
    """A stream connection on a make-believe transport."""

    def __init__(self, **options: Any) -> None:
        self.below = below = Connection(**options)
        self.closings = 0
        self.contexts: list[Any] = []
        self.handshake: Deferred[None] = Deferred()
        super().__init__(
            below.transport,
            below.reader,
            below.writer,
            (CLIENT, SERVER),
            self._closing,
            self._starting_tls,
            Departure(below.timer, Deadlines(), cancels=True),
        )

    def _closing(self) -> None:
        self.closings += 1

    def _starting_tls(self, context: Any) -> Deferred[None]:
        self.contexts.append(context)
        return self.handshake


def test_addresses_are_those_of_a_socket() -> None:
    request = Request()
    assert request.getpeername() == CLIENT
    assert request.getsockname() == SERVER
    assert "192.0.2.1" in repr(request)


@pytest.mark.parametrize(
    ("how", "reads_on", "writes_on"),
    [
        (socket.SHUT_RD, False, True),
        (socket.SHUT_WR, True, False),
        (socket.SHUT_RDWR, False, False),
    ],
)
def test_shutdown_ends_a_direction(how: int, reads_on: bool, writes_on: bool) -> None:
    request = Request(room=0)
    line = Call(request.rfile.readline())
    request.wfile.write(b"written before")
    request.shutdown(how)
    request.below.transport.make_room()

    assert request.below.transport.sent == b"written before"
    assert request.below.transport.write_ended is not writes_on
    if writes_on:
        request.wfile.write(b", and after")
        request.below.transport.make_room()
        assert request.below.transport.sent == b"written before, and after"
    else:
        with pytest.raises(ValueError, match="closed"):
            request.wfile.write(b"too late")
    assert line.waiting is reads_on
    if not reads_on:
        assert line.result() == b""
    assert request.closings == 0


def test_settimeout_is_how_long_a_read_waits() -> None:
    request = Request(idle=300)
    request.settimeout(5)
    call = Call(request.rfile.read(1))
    request.below.advance(4)
    assert call.waiting
    request.below.advance(1)  # 0 + 5
    with pytest.raises(TimeoutError, match="idle"):
        call.result()


def test_settimeout_none_is_for_ever() -> None:
    request = Request(idle=300)
    request.settimeout(None)
    call = Call(request.rfile.read(1))
    request.below.advance(1000)
    assert call.waiting


def test_a_handlers_timeout_is_how_long_a_read_waits() -> None:
    class Impatient(StreamRequestHandler):
        timeout = 7

        async def handle(self) -> None:
            await self.rfile.readline()

    request = Request(idle=300)
    handler = Impatient(request, CLIENT, None)
    handler.setup()
    assert handler.connection is request
    call = Call(handler.handle())
    request.below.advance(20)
    assert request.below.expired == [(7, Phase.IDLE)]  # 0 + 7
    assert not call.waiting


def test_close_is_the_connections_own() -> None:
    request = Request()
    request.close()
    assert request.closings == 1


def test_only_tls_has_a_certificate_of_the_peers() -> None:
    request = Request()
    assert request.getPeerCertificate() is None
    directlyProvides(request.transport, ISSLTransport)
    request.transport.getPeerCertificate = lambda: "a certificate"
    assert request.getPeerCertificate() == "a certificate"


def test_start_tls_returns_when_the_handshake_is_done() -> None:
    request = Request()
    call = Call(request.start_tls("a context"))
    assert request.contexts == ["a context"]
    assert call.waiting
    request.handshake.callback(None)
    assert call.result() is None


def test_a_failed_handshake_is_raised() -> None:
    request = Request()
    call = Call(request.start_tls("a context"))
    request.handshake.errback(ConnectionResetError("handshake"))
    with pytest.raises(ConnectionResetError, match="handshake"):
        call.result()
