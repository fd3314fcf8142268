"""What the standard library takes, a drop-in server takes: heads and bodies at their limits."""

import pytest

from sockserve.http.limits import HTTPLimits
from tests.integration.socketservers import BOTH, OURS, STDLIB, blocking, looping
from tests.integration.web import talk

pytestmark = pytest.mark.usefixtures("no_leaks")

HOST = b"Host: a\r\nConnection: close\r\n"


def line(size, name=b"A"):
    """A header field whose line is so many bytes long."""
    return name + b": " + b"x" * (size - len(name) - 4) + b"\r\n"


LONG_LINES = b"".join([line(65536, b"A%d" % number) for number in range(97)])

#: Requests by what they are, and the status that the standard library gives.
REQUESTS = {
    "a line of 64 KiB": (b"GET / HTTP/1.1\r\n" + HOST + line(65536) + b"\r\n", 200),
    "a longer line": (b"GET / HTTP/1.1\r\n" + HOST + line(65537) + b"\r\n", 431),
    "97 lines of 64 KiB": (b"GET / HTTP/1.1\r\n" + HOST + LONG_LINES + b"\r\n", 200),
    "99 fields": (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 97 + b"\r\n", 200),
    "101 fields": (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 99 + b"\r\n", 431),
    "a target of 64 KiB": (b"GET /" + b"x" * (65536 - 16) + b" HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    "a longer target": (b"GET /" + b"x" * (65537 - 16) + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "a body": (
        b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: 300000\r\n\r\n" + b"x" * 300_000,
        200,
    ),
}


def handler_of(modules):
    class Handler(modules.http.BaseHTTPRequestHandler):
        def do_GET(self):
            length = int(self.headers.get("Content-Length", 0))
            assert len(self.rfile.read(length)) == length
            self.send_response(200)
            self.end_headers()

        do_PUT = do_GET

        def log_message(self, format, *arguments):
            pass

    return Handler


def ask(modules, request):
    server = modules.http.ThreadingHTTPServer(("127.0.0.1", 0), handler_of(modules))
    with looping(server):
        return talk(server.server_address, request).split(b"\r\n")[0].split()[1]


@BOTH
@pytest.mark.parametrize("what", REQUESTS)
@blocking
def test_heads_and_bodies(modules, what, monkeypatch):
    """(The default of other servers' bodies is small here: 2 GiB take their time.)"""
    monkeypatch.setattr(HTTPLimits, "max_body_bytes", 1000)
    request, status = REQUESTS[what]
    assert int(ask(modules, request)) == status


@pytest.mark.parametrize("name", ["max_packet_size", "request_queue_size"])
def test_what_the_standard_library_has_a_variable_for_has_its_value(name):
    for cls in ("TCPServer", "UDPServer", "ThreadingUDPServer", "UnixStreamServer"):
        ours, theirs = getattr(OURS.socketserver, cls), getattr(STDLIB.socketserver, cls)
        assert getattr(ours, name, None) == getattr(theirs, name, None)
