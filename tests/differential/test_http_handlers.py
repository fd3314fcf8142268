"""
C{http.server}'s handlers under the stdlib's server and under ours: the same calls in the same
order, the same bytes to the client.
"""

import re
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from twisted.internet.threads import deferToThread

from sockserve.listeners.stream_factory import StreamFactory
from sockserve.service import RequestService
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.usefixtures("no_leaks")


class Traced:
    """Records what is called on a server and, by way of it, on handlers."""

    trace: list[str]
    closed: threading.Event

    def verify_request(self, request, client_address):
        self.trace.append("verify_request")
        return super().verify_request(request, client_address)

    def process_request(self, request, client_address):
        self.trace.append("process_request")
        return super().process_request(request, client_address)

    def finish_request(self, request, client_address):
        self.trace.append("finish_request")
        return super().finish_request(request, client_address)

    def handle_error(self, request, client_address):
        self.trace.append(f"handle_error {sys.exc_info()[0].__name__}")

    def shutdown_request(self, request):
        self.trace.append("shutdown_request")
        super().shutdown_request(request)

    def close_request(self, request):
        self.trace.append("close_request")
        super().close_request(request)
        self.closed.set()


class Stdlib(Traced, ThreadingHTTPServer):
    block_on_close = False


class Ours(Traced, StreamFactory):
    pass


class Traces:
    """Records the handler's methods."""

    def setup(self):
        self.server.trace.append("setup")
        super().setup()

    def finish(self):
        self.server.trace.append("finish")
        super().finish()

    def log_message(self, format, *args):
        self.server.trace.append(f"log {format % args}")


class Echo(Traces, BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(repr((self.command, self.path, self.request_version)).encode())

    do_HEAD = do_GET

    def do_POST(self):
        self.do_GET()
        self.wfile.write(self.rfile.read(int(self.headers.get("Content-Length", 0))))


class NewEcho(Echo):
    protocol_version = "HTTP/1.1"


class Buffered(Echo):
    wbufsize = 8192


class Shy(Echo):
    """Sends with its socket only, and says when there is no more."""

    def do_GET(self):
        self.connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nshy")
        self.connection.shutdown(socket.SHUT_WR)


class Fails(Echo):
    def do_GET(self):
        raise ZeroDivisionError

    def do_POST(self):
        super().do_GET()
        raise ZeroDivisionError


class Errors(Echo):
    def do_GET(self):
        self.send_error(418, "Tea & <coffee>", "explained")


class Closes(Echo):
    def do_GET(self):
        super().do_GET()
        self.connection.close()


class Files(Traces, SimpleHTTPRequestHandler):
    def __init__(self, *arguments):
        super().__init__(*arguments, directory="/nowhere-at-all")


HANDLERS = [Echo, NewEcho, Buffered, Shy, Fails, Errors, Closes, Files]

#: What clients say before they end their side.
SAID = {
    "GET of 1.0": b"GET /a HTTP/1.0\r\n\r\n",
    "GET of 1.1": b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "no Host": b"GET /a?b=c HTTP/1.1\r\nConnection: close\r\n\r\n",
    "HEAD": b"HEAD /a HTTP/1.0\r\n\r\n",
    "POST": b"POST /a HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello",
    "POST and more": b"POST /a HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello and more",
    "a body that nobody reads": b"GET /a HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/0.9": b"GET /a\r\n\r\n",
    "lines ended by LF": b"GET /a HTTP/1.0\nField: value\n\n",
    "a doubled slash": b"GET //a HTTP/1.0\r\n\r\n",
    "an unknown method": b"BREW /a HTTP/1.0\r\n\r\n",
    "a minor version": b"GET /a HTTP/1.3\r\nConnection: close\r\n\r\n",
    "nothing": b"",
}

_CHANGING = re.compile(rb"(?m)^(Date|Server): [^\r]*")


def talk(address, said):
    """Runs in a thread."""
    with socket.create_connection(address, timeout=PATIENCE_SECONDS) as sock:
        sock.sendall(said)
        sock.shutdown(socket.SHUT_WR)
        heard = b"".join(iter(lambda: sock.recv(65536), b""))
    return _CHANGING.sub(rb"\1: ", heard)


def under_the_stdlib(handler, said):
    """Runs in a thread."""
    with Stdlib(("127.0.0.1", 0), handler) as server:
        server.trace, server.closed = [], threading.Event()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            heard = talk(server.server_address, said)
            assert server.closed.wait(PATIENCE_SECONDS)
        finally:
            server.shutdown()
            thread.join()
        return server.trace, heard


async def under_ours(handler, said):
    from twisted.internet import reactor

    where = "tcp:0:interface=127.0.0.1"
    service = RequestService.from_description(reactor, where, handler, factory=Ours)
    server = service.server
    server.trace, server.closed = [], threading.Event()
    service.startService()
    try:
        heard = await deferToThread(talk, server.server_address, said)
        assert await deferToThread(server.closed.wait, PATIENCE_SECONDS)
        return server.trace, heard
    finally:
        await service.stopService()


CASES = [(handler, said) for handler in HANDLERS for said in SAID]


@pytest.mark.parametrize(("handler", "said"), CASES)
async def test_one_request(handler, said):
    expected_trace, expected = await deferToThread(under_the_stdlib, handler, SAID[said])
    trace, heard = await under_ours(handler, SAID[said])
    if said == "nothing":
        # Where no request has come, no handler is made.
        handlers = ["finish_request", "setup", "finish"]
        expected_trace = [step for step in expected_trace if step not in handlers]
    assert trace == expected_trace
    assert heard == expected


async def test_two_requests():
    """Each has a handler of its own; the connection is opened and closed once, as before."""
    said = b"GET /a HTTP/1.1\r\nContent-Length: 0\r\n\r\n"

    class Keeps(NewEcho):
        def end_headers(self):
            self.send_header("Content-Length", "25")
            super().end_headers()

    expected_trace, expected = await deferToThread(under_the_stdlib, Keeps, said * 2)
    trace, heard = await under_ours(Keeps, said * 2)
    assert heard == expected
    log = 'log "GET /a HTTP/1.1" 200 -'
    begin, end = ["verify_request", "process_request"], ["shutdown_request", "close_request"]
    one = ["finish_request", "setup", log]
    assert expected_trace == [*begin, *one, log, "finish", *end]
    assert trace == [*begin, *one, "finish", *one, "finish", *end]
