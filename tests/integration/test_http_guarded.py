"""
C{http.server}'s handlers that read their connections by themselves, in each way there is: what
leaves a doubt is refused, mistaken answers are not sent, and who leaves by an exit is answered for.
"""

import functools
import http.server
import re
import ssl
import threading
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from sockserve import socketserver
from sockserve.http.server import HTTPServer, HTTPSServer, ThreadingHTTPServer, ThreadingHTTPSServer
from sockserve.service import SocketServerService
from tests.integration.http_handlers import place
from tests.integration.servers import (
    certificate_file,
    connect,
    connect_as,
    connect_tls,
    description,
    in_thread,
    running,
    serving,
)

pytestmark = pytest.mark.usefixtures("untold_exits", "no_leaks", "errors")

ADDRESS = ("127.0.0.1", 0)


@pytest.fixture
def untold_exits(monkeypatch):
    """Threads end by C{SystemExit} without a word, under pytest too, until L{no_leaks} is done."""
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)


class Site(http.server.BaseHTTPRequestHandler):
    """Does as its path says."""

    protocol_version = "HTTP/1.1"
    server_version = sys_version = "test"

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/exit":
            raise SystemExit
        if self.path == "/exit-late":
            self.send_response(200)
            self.end_headers()
            raise SystemExit
        self.send_response(200)
        for name, value in MISTAKES.get(self.path, [("Content-Length", str(len(body)))]):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_POST = do_HEAD = do_GET

    def date_time_string(self, timestamp=None):
        return "today"

    def log_message(self, *arguments):
        """Quiet."""


MISTAKES = {
    "/both": [("Content-Length", "2"), ("Transfer-Encoding", "chunked")],
    "/two": [("Content-Length", "2"), ("Content-Length", "3")],
    "/none": [("Content-Length", "")],
}


# What is overridden, or how the handler is made


def calls_base(base):
    class OwnLoop(base):
        def handle(self):
            super().handle()

    return OwnLoop


def copies_loop(base):
    class OwnLoop(base):
        """As a framework has it."""

        def handle(self):
            self.close_connection = False
            while not self.close_connection:
                self.handle_one_request()

        def handle_one_request(self):
            self.raw_requestline = self.rfile.readline(65537)
            if len(self.raw_requestline) > 65536:
                self.requestline = self.request_version = self.command = ""
                self.send_error(414)
            elif not self.raw_requestline:
                self.close_connection = True
            elif not self.parse_request():
                pass
            elif hasattr(self, f"do_{self.command}"):
                getattr(self, f"do_{self.command}")()
            else:
                self.send_error(501, f"Unsupported method ({self.command!r})")

    return OwnLoop


def parses(base):
    class OwnParser(base):
        def parse_request(self):
            if not super().parse_request():
                return False
            self.path = self.path.removeprefix("/prefix")
            return True

    return OwnParser


def expects(base):
    class OwnExpect(base):
        def handle_expect_100(self):
            return super().handle_expect_100()

    return OwnExpect


def sets_up(base):
    class OwnSetup(base):
        def setup(self):
            super().setup()

        def finish(self):
            super().finish()

    return OwnSetup


def unbuffered(base):
    return type("Unbuffered", (base,), {"rbufsize": 0})


def buffers_output(base):
    return type("Buffers", (calls_base(base),), {"wbufsize": -1})


def factory(base):
    return lambda *arguments: base(*arguments)


def bound(base):
    return functools.partial(calls_base(base))


def as_it_is(base):
    return base


class Own(NamedTuple):
    """A drop-in server, and what its handler is like."""

    server: type
    derive: Any = as_it_is


def overrides(base, name):
    """A server whose method is the program's own."""

    def method(self, *arguments):
        return getattr(super(made, self), name)(*arguments)

    made = type(f"Own_{name}", (base,), {name: method})
    return made


class Forking(socketserver.ForkingMixIn, HTTPServer):
    pass


class Patient(ThreadingHTTPServer):
    def get_request(self):
        request, address = super().get_request()
        request.settimeout(60)
        return request, address


class ByHand(HTTPServer):
    timeout = 0.05

    def __init__(self, *arguments, **words):
        self.is_over = threading.Event()
        super().__init__(*arguments, **words)

    def serve_forever(self, poll_interval=0.5):
        while not self.is_over.is_set():
            self.handle_request()

    def shutdown(self):
        self.is_over.set()


class OneUnparked(HTTPServer):
    parks_connections = False


class Unparked(ThreadingHTTPServer):
    parks_connections = False


DROP_INS = {
    "loop that calls the base's": Own(ThreadingHTTPServer, calls_base),
    "loop that copies the base's": Own(ThreadingHTTPServer, copies_loop),
    "parse_request": Own(ThreadingHTTPServer, parses),
    "handle_expect_100": Own(ThreadingHTTPServer, expects),
    "setup and finish": Own(ThreadingHTTPServer, sets_up),
    "rbufsize = 0": Own(ThreadingHTTPServer, unbuffered),
    "wbufsize": Own(ThreadingHTTPServer, buffers_output),
    "factory": Own(ThreadingHTTPServer, factory),
    "partial": Own(ThreadingHTTPServer, bound),
    "finish_request": Own(overrides(ThreadingHTTPServer, "finish_request")),
    "process_request_thread": Own(overrides(ThreadingHTTPServer, "process_request_thread")),
    "shutdown_request": Own(overrides(ThreadingHTTPServer, "shutdown_request")),
    "timeout": Own(Patient),
    "not parked": Own(Unparked),
    "one": Own(HTTPServer, calls_base),
    "one, factory": Own(HTTPServer, factory),
    "one, not parked": Own(OneUnparked),
    "handle_request": Own(ByHand),
    "forking": Own(Forking),
    "forking, factory": Own(Forking, factory),
    "TLS": Own(ThreadingHTTPSServer),
    "TLS, factory": Own(ThreadingHTTPSServer, factory),
    "TLS, one": Own(HTTPSServer),
    "TLS, one, loop": Own(HTTPSServer, calls_base),
    "TLS, one, factory": Own(HTTPSServer, factory),
}

#: By the kind of place, the kind of transport, and what the handler is like.
SERVICES = {
    "service, loop": ("threads", "tcp", calls_base),
    "service, factory": ("threads", "tcp", factory),
    "service, serial": ("serial", "tcp", unbuffered),
    "service, fork": ("fork", "tcp", as_it_is),
    "service, fork, factory": ("fork", "tcp", factory),
    "service, TLS": ("threads", "ssl", calls_base),
    "service, TLS, factory": ("threads", "ssl", factory),
    "service, PROXY": ("threads", "haproxy:tcp", factory),
}

OBJECTS = {
    "object, loop": Own(http.server.ThreadingHTTPServer, calls_base),
    "object, factory": Own(http.server.ThreadingHTTPServer, factory),
    "object, one": Own(http.server.HTTPServer, calls_base),
    "object, TLS": Own(HTTPSServer),
}

each_way = pytest.mark.parametrize("way", [*DROP_INS, *SERVICES, *OBJECTS])


def everything(client, request):
    """All that a client is answered, who sends no more."""
    said = b""
    with client:
        try:
            client.sendall(request)
            while part := client.recv(2**16):
                said += part
        except (ssl.SSLEOFError, ConnectionError):
            pass
    return said


def made(own, handler, folder):
    words = {"certfile": certificate_file(folder)} if issubclass(own.server, HTTPSServer) else {}
    return own.server(ADDRESS, own.derive(handler), **words)


def connector(own, address):
    return functools.partial(
        connect_tls if issubclass(own.server, HTTPSServer) else connect, address
    )


@contextmanager
def looping(server):
    """C{serve_forever}, called again where a handler ends it."""
    is_over = threading.Event()

    def serve():
        while not is_over.is_set():
            try:
                server.serve_forever(0.01)
            except SystemExit:
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        server.shutdown()
        thread.join()
        server.server_close()


async def answers(way, requests, folder, handler=Site):
    """What clients of a server are answered, one after another."""
    from twisted.internet import reactor

    def ask(connect_client):
        return [everything(connect_client(), request) for request in requests]

    if way in DROP_INS:
        own = DROP_INS[way]

        def ask_drop_in():
            server = made(own, handler, folder)
            with looping(server):
                return ask(connector(own, server.server_address))

        return await in_thread(ask_drop_in)
    if way in OBJECTS:
        own = OBJECTS[way]
        served = made(own, handler, folder)
        async with running(SocketServerService(served, reactor)):
            return await in_thread(ask, connector(own, served.server_address))
    where, kind, derive = SERVICES[way]
    options = {"concurrency": place(where)}
    async with serving(derive(handler), description(kind, folder), **options) as server:
        client = functools.partial(connect_as, kind, server.server_address)
        return await in_thread(ask, client)


def stdlibs_answers(requests):
    server = http.server.ThreadingHTTPServer(ADDRESS, Site)
    with looping(server):
        return [everything(connect(server.server_address), request) for request in requests]


def statuses(said):
    return re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", said)


# Requests

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
LENGTH, CHUNKS = b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"


def posted(fields, line=b"POST / HTTP/1.1"):
    return line + b"\r\nHost: a\r\n" + fields + b"\r\n"


DOUBTFUL = [
    posted(b"", b"GET /\xc3\xa9 HTTP/1.1"),
    posted(b"", b"GET /?\xff HTTP/1.0"),
    posted(LENGTH + CHUNKS),
    posted(CHUNKS + LENGTH),
    posted(b"Expect: 100-continue\r\n" + LENGTH + CHUNKS),
    posted(LENGTH + b"Content-Length: 4\r\n"),
    posted(LENGTH + LENGTH),
    posted(b"Content-Length: +3\r\n"),
    posted(b"Content-Length:\r\n"),
    posted(CHUNKS, b"POST / HTTP/1.0"),
    posted(b"Transfer-Encoding: xchunked\r\n"),
    posted(b"Transfer-Encoding : chunked\r\n"),
    posted(b"Transfer-Encoding:\r\n chunked\r\n"),
    posted(b"X: y\rTransfer-Encoding: chunked\r\n"),
    posted(b"X: \0\r\n"),
    posted(b"X\r\n"),
    posted(b"Host: b\r\n"),
    b"PO(ST / HTTP/1.1\r\nHost: a\r\n\r\n",
]


@each_way
async def test_what_leaves_a_doubt_is_refused(way, tmp_path):
    for request, said in zip(
        DOUBTFUL, await answers(way, [each + SMUGGLED for each in DOUBTFUL], tmp_path), strict=True
    ):
        assert statuses(said) == [b"400"], request


USUAL = [
    posted(LENGTH) + b"abc" + posted(LENGTH + b"Connection: close\r\n") + b"def",
    posted(b"Expect: 100-continue\r\nConnection: close\r\n" + LENGTH) + b"abc",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\nConnection: close\n\n",
    b"GET // HTTP/1.0\r\nHost: \r\n\r\n",
    b'GET /|" HTTP/1.0\r\nX: \xe9\r\nX:y\r\nx: \t z \t\r\n\r\n',
    b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"BREW / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/2.0\r\n\r\n",
    b"GET /" + b"x" * 70_000 + b" HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.0\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    b"GET / HTTP/1.0\r\n" + b"X: y\r\n" * 101 + b"\r\n",
    b"GET / HTTP/1.0\r\n" + (b"X: " + b"y" * 60_000 + b"\r\n") * 3 + b"\r\n",
    b"GET /\r\n\r\n",
]

#: Without errors that what comes after them may cut off on its way, with the reset that it causes.
ANSWERED = [request for request in USUAL if len(request) < 60_000 or b"yyy" in request]


@each_way
async def test_usual_requests_are_answered_as_in_the_standard_library(way, tmp_path):
    right = await in_thread(stdlibs_answers, ANSWERED)
    assert await answers(way, ANSWERED, tmp_path) == right
    assert [statuses(said)[-1:] for said in right[:2]] == [[b"200"], [b"200"]]


@each_way
async def test_too_long_is_too_long(way, tmp_path):
    long = [request for request in USUAL if request not in ANSWERED]
    for said in await answers(way, long, tmp_path):
        assert statuses(said) in ([b"414"], [b"431"], [])


# Answers


@each_way
async def test_an_answer_with_two_ends_is_not_sent(way, tmp_path, errors):
    requests = [
        posted(b"Content-Length: 5\r\n", b"POST %b HTTP/1.1" % path.encode()) for path in MISTAKES
    ]
    for said in await answers(way, [each + b"0\r\n\r\n" + SMUGGLED for each in requests], tmp_path):
        assert statuses(said) == [b"500"]
        assert said.endswith(b"</html>\n")
        assert b"\r\nConnection: close\r\n" in said
    if "fork" not in way:
        assert len(errors) == len(MISTAKES)
    errors.clear()


@each_way
async def test_a_handler_that_leaves_by_exit_is_answered_for(way, tmp_path, errors):
    first = posted(LENGTH) + b"abc"
    leaving = b"GET /exit HTTP/1.1\r\nHost: a\r\n\r\n"
    requests = [leaving + SMUGGLED, first + leaving, leaving.replace(b"exit", b"exit-late")]
    said = await answers(way, requests, tmp_path)
    assert [statuses(each) for each in said] == [[b"500"], [b"200", b"500"], [b"200"]]
    errors.clear()
