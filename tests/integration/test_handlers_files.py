"""What C{rfile} and C{wfile} of each kind of handler say, beside what Python's own say."""

import array
import contextlib
import http.server
import io
import os
import select
import socket
import socketserver

import pytest

from sockserve import DatagramRequestHandler, StreamRequestHandler
from sockserve.http import HTTPRequestHandler
from sockserve.testing import run_datagram, run_http, run_stream
from tests.integration.servers import connect, read_all
from tests.integration.socketservers import BOTH, OURS, STDLIB, blocking, looping

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

ADDRESS = ("127.0.0.1", 0)

#: What is written, by name: first what is refused.
PIECES = {
    "str": "text",
    "None": None,
    "int": 3,
    "bool": True,
    "list": [1, 2],
    "bytes": b"bytes",
    "bytearray": bytearray(b"bytearray"),
    "memoryview": memoryview(b"memoryview")[2:],
    "array": array.array("H", [0x6161, 0x6262]),
    "empty": b"",
}


def outcome(call, *arguments):
    """What a call returns or raises, as words."""
    try:
        return repr(call(*arguments))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def what_is_said(wfile):
    """What C{write} and C{writelines} say about each of L{PIECES}."""
    said = {name: outcome(wfile.write, piece) for name, piece in PIECES.items()}
    return said | {"lines": outcome(wfile.writelines, ["a", b"b"])}


EXPECTED = what_is_said(io.BytesIO())
WRITTEN = b"bytesbytearraymoryviewaabb"


class Said:
    """The mixin of handlers that note what is said."""

    said = None

    def note(self):
        Said.said = what_is_said(self.wfile)


class CoroutineStream(Said, StreamRequestHandler):
    async def handle(self):
        self.note()


class BlockingStream(Said, StreamRequestHandler):
    def handle(self):
        self.note()


class BufferedStream(BlockingStream):
    wbufsize = -1


class CoroutineDatagram(Said, DatagramRequestHandler):
    async def handle(self):
        self.note()


class BlockingDatagram(Said, DatagramRequestHandler):
    def handle(self):
        self.note()


class CoroutineHTTP(Said, HTTPRequestHandler):
    async def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.note()


class BlockingHTTP(Said, HTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.note()


class LongHTTP(BlockingHTTP):
    """Sends by itself, as its length is known."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(WRITTEN)))
        self.end_headers()
        self.note()


def test_the_standard_library_says_what_is_expected():
    near, far = socket.socketpair()
    with near, far:
        assert what_is_said(socketserver._SocketWriter(near)) == EXPECTED
        assert far.recv(100) == WRITTEN
    assert EXPECTED["str"] == "TypeError: a bytes-like object is required, not 'str'"


@pytest.mark.parametrize("handler", [CoroutineStream, BlockingStream, BufferedStream])
def test_a_stream_handlers_wfile(handler):
    assert run_stream(handler, b"").sent == WRITTEN
    assert Said.said == EXPECTED


@pytest.mark.parametrize("handler", [CoroutineDatagram, BlockingDatagram])
def test_a_datagram_handlers_wfile(handler):
    assert run_datagram(handler, b"hello").datagrams[0][0] == WRITTEN
    assert Said.said == EXPECTED


@pytest.mark.parametrize("handler", [CoroutineHTTP, BlockingHTTP, LongHTTP])
def test_an_http_handlers_wfile(handler):
    assert run_http(handler, "GET", "/").body == WRITTEN
    assert Said.said == EXPECTED


class Stock(http.server.BaseHTTPRequestHandler):
    """Notes what is said, on its server."""

    wbufsize = 0

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        if self.path == "/large":  # more than is kept back
            self.wfile.write(b"x" * 100_000)
        self.server.said.append(what_is_said(self.wfile))
        self.server.said.append([outcome(self.connection.sendall, each) for each in ("a", 3, None)])
        self.server.said.append([outcome(self.connection.send, each) for each in ("a", 3, None)])

    def do_POST(self):
        self.server.said += list(self.server.look(self))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


def serve(modules, kind, request, look=None, handler=Stock):
    """What a handler of the standard library's notes at a request, and what its client gets."""
    server = getattr(modules.http, kind)(ADDRESS, handler)
    server.said, server.look = [], look
    # One that does not read it all may cut off a client that is about to send the rest.
    may_be_cut_off = contextlib.suppress(ConnectionError) if look else contextlib.nullcontext()
    answer = b""
    with looping(server), connect(server.server_address) as client, may_be_cut_off:
        client.sendall(request)
        answer = read_all(client)
    return server.said, answer


KINDS = pytest.mark.parametrize("kind", ["HTTPServer", "ThreadingHTTPServer"])


@BOTH
@KINDS
@pytest.mark.parametrize("path", ["/", "/large"])
@blocking
def test_a_stock_handlers_wfile(modules, kind, path):
    said, answer = serve(modules, kind, f"GET {path} HTTP/1.0\r\n\r\n".encode())
    assert said[0] == EXPECTED
    for each in said[1:]:
        refused = "TypeError: a bytes-like object is required, not"
        assert each == [f"{refused} {name!r}" for name in ("str", "int", "NoneType")]
    assert answer.endswith(WRITTEN)


def look_around(handler):
    """What an C{rfile} tells of itself, with a body to be read."""
    rfile, descriptor = handler.rfile, handler.connection.fileno()
    yield rfile.readable(), rfile.writable(), rfile.seekable(), rfile.closed, rfile.isatty()
    yield rfile.mode, rfile.fileno() == descriptor, rfile.name == descriptor
    yield isinstance(rfile, io.BufferedIOBase), isinstance(rfile.raw, socket.SocketIO)
    yield rfile.raw.fileno() == descriptor, rfile.raw.mode, rfile.raw._sock is handler.connection
    yield rfile.raw is rfile.raw, os.fstat(rfile.fileno()).st_mode == os.fstat(descriptor).st_mode
    yield outcome(rfile.write, b"x"), outcome(rfile.write, "x")
    yield rfile.peek(1)[:1], rfile.peek()[:5]
    yield rfile.read1(2), rfile.read(1)
    buffer = bytearray(2)
    yield rfile.readinto(buffer), bytes(buffer), rfile.readinto1(buffer), bytes(buffer)
    yield rfile.readline(), next(rfile), [rfile.readline(), rfile.readline(3)]
    # Nothing follows yet: the client waits for its answer.
    yield select.select([rfile], [], [], 0)[0], select.select([rfile.raw], [], [], 0)[0]
    rfile.close()
    yield rfile.closed, outcome(rfile.fileno), outcome(rfile.read).partition(":")[0]


BODY = b"0123456789\nline\nmore\nlast"
POST = b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n"


@KINDS
@pytest.mark.parametrize("size", [len(BODY), 1_000_000])
@blocking
def test_a_stock_handlers_rfile(kind, size):
    """In memory and in a temporary file, beside the one that C{socket.makefile} makes."""
    body = BODY.ljust(size, b".")
    theirs, ours = (
        serve(modules, kind, POST % size + body, look_around)[0] for modules in (STDLIB, OURS)
    )
    if size > len(BODY):  # then the standard library's has not read all of it
        ours[-2] = theirs[-2]
    assert ours == theirs


def detach(handler):
    """The raw file is the handler's, and the connection stays open as long as it."""
    raw = handler.rfile.detach()
    yield raw.readable(), raw.fileno() == handler.connection.fileno(), raw.closed
    raw.close()


@BOTH
@KINDS
@blocking
def test_a_stock_handlers_rfile_can_be_detached(modules, kind):
    class Detaching(Stock):
        def finish(self):
            self.wfile.flush()

    handler = Stock if modules.http is not http.server else Detaching
    said, _ = serve(modules, kind, POST % len(BODY) + BODY, detach, handler)
    assert said == [(True, True, False)]


@BOTH
@KINDS
@blocking
def test_what_follows_a_request_can_be_selected(modules, kind):
    """A client that hangs up is heard of by C{select} on C{rfile}."""

    def look(handler):
        handler.rfile.read(len(BODY))
        client.shutdown(socket.SHUT_WR)
        yield select.select([handler.rfile], [], [], 15)[0] == [handler.rfile]

    server = getattr(modules.http, kind)(ADDRESS, Stock)
    server.said, server.look = [], look
    with looping(server), connect(server.server_address) as client:
        client.sendall(POST % len(BODY) + BODY)
        read_all(client)
    assert server.said == [True]
