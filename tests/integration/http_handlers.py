"""HTTP handlers that several of the tests here serve, blocking ones of both kinds."""

import threading
from http.server import BaseHTTPRequestHandler

import pytest

from sockserve.executors import make_executor
from sockserve.http import HTTPRequestHandler
from tests.integration.servers import in_thread

#: One that is lent and one that is pumped.
ONE_OF_EACH = ["tcp", "ssl"]

#: What a test here sets the deadline it is about to.  The others stay at their defaults,
#: 10 s (handshake) and more; a test that ended by one of those would say so by its counters.
SECONDS = 0.5


def place(name, **options):
    from twisted.internet import reactor

    return make_executor(reactor, name, **options)


class Own(HTTPRequestHandler):
    def answer(self, body, status=200):
        self.send_response(status)
        self.send_header("Content-Length", len(body))
        self.end_headers()
        self.wfile.write(body)


class Stock(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer = Own.answer

    def send_header(self, keyword, value):
        super().send_header(keyword, str(value))

    def log_message(self, format, *args):
        pass


BASES = [Own, Stock]
both_bases = pytest.mark.parametrize("base", BASES)
one_of_each_kind = pytest.mark.parametrize("kind", ONE_OF_EACH)


class Echo:
    """Tells a client the path it asked for, and the body it sent."""

    def do_GET(self):
        self.answer(self.path.encode())

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))


class Gate:
    """A handler that waits until a test lets it go on; made anew for each test."""

    def __init__(self):
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()

    def wait(self):
        self.entered.release()
        assert self.opened.wait(30)

    async def entry(self, times=1):
        for _ in range(times):
            assert await in_thread(self.entered.acquire, True, 15)


def handler(base, **methods):
    return type(base.__name__, (base,), methods)


def waiting(base, gate):
    """A handler that waits at C{/wait}."""

    def do_GET(self):
        if self.path == "/wait":
            gate.wait()
        self.answer(self.path.encode())

    return handler(base, do_GET=do_GET)
