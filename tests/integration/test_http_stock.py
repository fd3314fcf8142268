"""
C{http.server}'s handlers, as they are: a request that has arrived gets a thread, nothing else
does.
"""

import abc
import contextlib
import functools
import gc
import http.client
import os
import select
import socket
import ssl
import sys
import threading
import time
import xmlrpc.client
from http.server import SimpleHTTPRequestHandler
from types import SimpleNamespace
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from xmlrpc.server import SimpleXMLRPCDispatcher, SimpleXMLRPCRequestHandler

import pytest

from sockserve import Deadlines
from sockserve.http import handler_socket
from sockserve.http.blocking import BlockingCycle
from sockserve.http.handler_socket import OutputMode
from sockserve.listeners.stream_factory import StreamFactory
from tests.integration.handlers import PIECE
from tests.integration.http_clients import client, get, post, whole
from tests.integration.http_handlers import ONE_OF_EACH, Stock, place
from tests.integration.http_handlers import Echo as BothEcho
from tests.integration.servers import (
    PATIENCE_SECONDS,
    connect_as,
    counts,
    description,
    in_thread,
    reset,
    serving,
    until,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

CLOSE = "Connection: close"

KINDS = ["tcp", "unix", "ssl", "haproxy:tcp"]


class Echo(BothEcho, Stock):
    pass


class OldEcho(Echo):
    protocol_version = "HTTP/1.0"


def cycles_of(server):
    """Those that are there yet, needed or not."""
    made = [each for each in gc.get_objects() if isinstance(each, BlockingCycle)]
    return [each for each in made if each._channel.factory is server]


# The kinds of connection


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nothing_of_a_request_is_left_to_the_garbage_collector(method):
    request = get("/", CLOSE, method=method)

    class Counts(Stock):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        do_POST = do_GET

    async with serving(Counts) as server:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                await in_thread(whole, server.server_address, request)
            await until(lambda: not server.statistics.active)
            # The thread that has served may hold its last one for a moment yet.
            await until(lambda: not cycles_of(server))
        finally:
            gc.enable()


@pytest.mark.parametrize("kind", KINDS)
async def test_several_requests_on_a_connection(kind, tmp_path):
    def talk(address):
        with client(address, kind) as one:
            for number in range(5):
                assert one.ask(get(f"/{number}")).body == b"/%d" % number
                assert one.ask(post(b"body %d" % number)).body == b"body %d" % number

    async with serving(Echo, description(kind, tmp_path)) as server:
        await in_thread(talk, server.server_address)
        await until(lambda: not server.statistics.active)
        assert counts(server) == {"accepted": 1, "requests": 10}
        assert server.statistics.responses[2] == 10


@pytest.mark.parametrize("kind", KINDS)
async def test_an_http_1_0_handler_ends_the_connection(kind, tmp_path):
    async with serving(OldEcho, description(kind, tmp_path)) as server:
        answer = await in_thread(whole, server.server_address, get("/a") + get("/b"), kind)
        assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n/a")


async def test_pipelined_requests_are_answered_in_order():
    async with serving(Echo) as server:

        def talk():
            with client(server.server_address) as one:
                one.say(b"".join(get(f"/{n}") + post(b"%d" % n) for n in range(50)))
                return [one.answer().body for _ in range(100)]

        expected = [body for n in range(50) for body in (b"/%d" % n, b"%d" % n)]
        assert await in_thread(talk) == expected


async def test_a_client_that_ends_its_side_is_answered():
    async with serving(Echo) as server:
        answer = await in_thread(
            whole, server.server_address, post(b"hello") + get("/bye"), "tcp", True
        )
        assert answer.count(b"HTTP/1.1 200 OK") == 2
        assert answer.endswith(b"/bye")


# A request that ends with its connection


class Takes(Stock):
    """Answers with what it has read, as C{read} has it read."""

    def read(self):
        return self.rfile.read()

    def do_PUT(self):
        body = self.read()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"%d %b" % (len(body), body[-5:]))

    do_SOURCE = do_PUT


class Ignores(Takes):
    """Reads nothing, and means to go on."""

    def read(self):
        self.close_connection = self.goes_on is None and self.close_connection
        return b""

    goes_on = None

    do_DELETE = do_OPTIONS = do_BREW = do_POST = Takes.do_PUT


class Insists(Ignores):
    goes_on = True


class OfAMetaclass(Ignores, metaclass=abc.ABCMeta):
    """Such a class makes its instances in a way that may be its own."""


class IsSilent(Insists):
    def do_PUT(self):
        self.read()

    do_DELETE = do_OPTIONS = do_BREW = do_POST = do_PUT


@pytest.mark.parametrize("kind", ["tcp", "unix", "haproxy:tcp"])
@pytest.mark.parametrize("method", ["PUT", "SOURCE"])
@pytest.mark.parametrize("last", ["with its head", "later", "before its head is read"])
async def test_a_body_may_end_with_its_connection(kind, method, last, tmp_path):
    """As it does for who reads from the connection by itself."""
    head = get(method=method, version="1.0")
    body = PIECE * 10 + b"the end"

    def talk(address):
        with client(address, kind) as one:
            if last == "with its head":
                one.say(head + body, end=True)
            elif last == "later":
                one.say(head)
                one.say(PIECE * 10)
                one.say(b"the end", end=True)
            else:
                one.say(head[:-2])
                one.say(head[-2:] + body, end=True)
            return one.answer().body

    async with serving(Takes, description(kind, tmp_path)) as server:
        answer = await in_thread(talk, server.server_address)
        assert answer == b"%d e end" % len(body)
        await until(lambda: not server.statistics.active)
        assert counts(server) == {"accepted": 1, "requests": 1}


@pytest.mark.parametrize("kind", ONE_OF_EACH)
async def test_a_stream_is_read_as_it_comes(kind, tmp_path):
    class Echoes(Stock):
        def do_SOURCE(self):
            self.send_response(200)
            self.end_headers()
            while (line := self.rfile.readline()) != b"bye\n":
                self.wfile.write(line.upper())

    def talk(address):
        with client(address, kind) as one:
            one.say(get("/", "Connection: close", method="SOURCE"))
            status = one.answer("HEAD").status
            said = [one.say(b"%d a\n" % number) or one.read(4) for number in range(3)]
            one.say(b"bye\n")
            return status, said, one.rest()

    async with serving(Echoes, description(kind, tmp_path)) as server:
        said = [b"0 A\n", b"1 A\n", b"2 A\n"]
        assert await in_thread(talk, server.server_address) == (200, said, b"")


@pytest.mark.parametrize(
    ("fields", "version"),
    [
        (["Content-Length: 0"], "1.0"),
        (["Content-Length: 0", "Connection: close"], "1.1"),
        ([], "1.1"),  # what follows may be somebody else's request
        (["Connection: keep-alive"], "1.0"),
    ],
)
async def test_others_without_a_body_have_an_end(fields, version):
    request = get("/", *fields, method="PUT", version=version)

    def talk(address):
        with client(address) as one:
            one.say(request + get("/bye"))
            return one.answer("HEAD").status, one.rest()

    async with serving(Takes) as server:
        status, rest = await in_thread(talk, server.server_address)
    assert status == 200
    assert rest.startswith(b"0 ")


@pytest.mark.parametrize("kind", ONE_OF_EACH)
async def test_a_body_that_nobody_reads_is_not_waited_for(kind, tmp_path):
    request = get("/", CLOSE, method="PUT")
    async with serving(Ignores, description(kind, tmp_path)) as server:
        answer = await in_thread(whole, server.server_address, request, kind)
    assert answer.endswith(b"0 ")


@pytest.mark.parametrize(
    "fields",
    [
        ["Connection: close, x"],
        ["Connection: close\t"],
        ["Connection: x, close"],
        ["Connection: x,,CLOSE ,"],
        ["Connection: keep-alive, close"],
        ["Connection: keep-alive", "Connection: close"],
        ["Connection: x", "connection: Close"],
    ],
)
@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "OPTIONS", "BREW", "GONE", "GET"])
@pytest.mark.parametrize("handler", [Ignores, OfAMetaclass, Insists])
async def test_a_last_request_is_the_last_to_its_handler_too(handler, fields, method):
    """By whatever list its client has said so: the handler's loop reads no further one."""
    last = get("/", *fields, method=method)
    async with serving(handler) as server:
        answer = await in_thread(whole, server.server_address, last + get("/next", method=method))
        assert answer.count(b"HTTP/1.1 ") == 1
        await until(lambda: not server.statistics.active)
        assert counts(server) == {"accepted": 1, "requests": 1}


@pytest.mark.parametrize("kind", ONE_OF_EACH)
@pytest.mark.parametrize("fields", [["Connection: close, x"], [CLOSE, "Upgrade: x"]])
async def test_nor_does_the_loop_of_a_handler_that_says_nothing(kind, fields, tmp_path, errors):
    last = get("/", *fields, method="PUT")
    async with serving(IsSilent, description(kind, tmp_path)) as server:
        assert await in_thread(whole, server.server_address, last + get(method="PUT"), kind) == b""
        await until(lambda: not server.statistics.active)
        assert counts(server) == {"accepted": 1, "requests": 1}
    assert errors == ["IsSilent: PUT /: no response was sent"]
    errors.clear()


@pytest.mark.parametrize("kind", ONE_OF_EACH)
@pytest.mark.parametrize(
    ("request_", "status"),
    [(get("/", "Connection: upgrade", "Upgrade: x"), 101), (get("h:1", method="CONNECT"), 200)],
)
async def test_nor_does_it_read_the_protocol_that_is_switched_to(kind, request_, status, tmp_path):
    class Switches(Stock):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.close_connection = False

        do_CONNECT = do_GET

    async with serving(Switches, description(kind, tmp_path)) as server:
        answer = await in_thread(whole, server.server_address, request_ + get("/next"), kind)
        assert answer.count(b"HTTP/1.1 ") == 1
        await until(lambda: not server.statistics.active)


@pytest.mark.parametrize(
    ("fields", "version", "keeps"),
    [
        (["Connection: keep-alive, x"], "1.0", True),
        (["Connection: x", "Connection: Keep-Alive"], "1.0", True),
        (["Connection: x"], "1.0", False),
        (["Proxy-Connection: close"], "1.1", True),  # is nobody's: RFC 9112 appendix C.2.2
        (["Proxy-Connection: keep-alive"], "1.0", False),
        (["Connection: x, keep-alive"], "1.1", True),
        (["Connection: closed"], "1.1", True),
    ],
)
async def test_whether_a_connection_is_kept_is_read_from_a_list(fields, version, keeps):
    request = get("/", *fields, version=version)
    async with serving(Echo) as server:
        both = request + get("/next", CLOSE)
        answer = await in_thread(whole, server.server_address, both)
    assert answer.count(b"HTTP/1.1 200 ") == 1 + keeps


@pytest.mark.parametrize(
    ("deadlines", "speed"), [(Deadlines(body=0.3), 1), (Deadlines(body_rate=1), 200)]
)
async def test_a_body_that_comes_steadily_comes_to_an_end_even_so(deadlines, speed, monkeypatch):
    """
    One that holds a thread: more than its rate is no use.  Where no deadline is named for it, it
    has 60 s, which are over in 0.3 s on a clock that goes 200 times as fast.
    """
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() * speed)
    monkeypatch.setattr(handler_socket, "time", clock)

    def talk(address):
        with client(address) as one:
            one.say(get("/", CLOSE, method="PUT"))
            with contextlib.suppress(ConnectionError):
                while not select.select([one.socket], [], [], 0.01)[0]:
                    one.say(PIECE[:100])
                return one.rest()
            return b""

    async with serving(Takes, deadlines=deadlines) as server:
        assert await in_thread(talk, server.server_address) == b""
        await until(lambda: not server.statistics.active)
        assert server.statistics.expiries == {"body": 1}


@pytest.mark.parametrize("kind", ONE_OF_EACH)
@pytest.mark.parametrize(
    "deadlines", [Deadlines(idle=0.2), Deadlines(body=0.2), Deadlines(body_rate=0.001, idle=0.2)]
)
async def test_a_body_that_stalls(kind, deadlines, tmp_path):
    """Whoever reads it has what a timeout of the socket's raises."""
    raised = []

    class Notes(Takes):
        def read(self):
            # Not before: its client may take longer than that to begin.
            [channel] = self.server.channels.values()
            channel.deadlines = deadlines
            try:
                return self.rfile.read()
            except TimeoutError as error:
                raised.append(error)
                raise

    request = get("/", CLOSE, method="PUT") + b"begun"
    async with serving(Notes, description(kind, tmp_path)) as server:
        assert await in_thread(whole, server.server_address, request, kind) == b""
        await until(lambda: not server.statistics.active)
        assert server.statistics.expiries == {"body": 1}
        assert not server.statistics.errors
    assert [error.phase for error in raised] == ["body"]


@pytest.mark.parametrize("kind", ONE_OF_EACH)
async def test_a_handlers_own_timeout_of_such_a_body(kind, tmp_path):
    class Impatient(Takes):
        timeout = 0.2

        def log_message(self, template, *arguments):
            self.server.said = template % arguments

    request = get("/", CLOSE, method="PUT")
    async with serving(Impatient, description(kind, tmp_path)) as server:
        assert await in_thread(whole, server.server_address, request, kind) == b""
        await until(lambda: not server.statistics.active)
        assert server.said == "Request timed out: TimeoutError('timed out')"


@pytest.mark.parametrize("kind", ONE_OF_EACH)
@pytest.mark.parametrize("sent", ["nothing", "some"])
async def test_idle_is_not_for_a_handler_that_has_such_a_request(kind, sent, tmp_path):
    """It takes longer than a client may be silent (2 s), and does not wait for it."""

    class Works(Takes):
        def do_DELETE(self):
            if sent == "some":
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            time.sleep(3)
            if sent == "nothing":
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            self.wfile.write(b"\r\ndone")

    request = get("/", CLOSE, method="DELETE")
    deadlines = Deadlines(idle=2)  # runs from the connection on, so its client has to be in time
    async with serving(Works, description(kind, tmp_path), deadlines=deadlines) as server:
        answer = await in_thread(whole, server.server_address, request, kind)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"done")


@pytest.mark.parametrize("kind", ONE_OF_EACH)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_what_follows_connect_is_read_line_by_line(kind, version, tmp_path):
    """As C{http.server} reads a head, too."""

    class Tunnel(Stock):
        def do_CONNECT(self):
            self.send_response(200)
            self.end_headers()
            self.close_connection = True
            self.wfile.write(self.rfile.readline(65537).upper())

    def talk(address):
        with client(address, kind) as one:
            one.say(get("host:80", method="CONNECT", version=version))
            assert one.answer("HEAD").status == 200
            one.say(b"hello\n")
            return one.rest()

    async with serving(Tunnel, description(kind, tmp_path)) as server:
        assert await in_thread(talk, server.server_address) == b"HELLO\n"


async def test_parts_with_heads_of_their_own():
    """Which are read as a request's is, and after the answer has begun."""

    class Parts(Stock):
        def do_SOURCE(self):
            self.send_response(200)
            self.end_headers()
            part = http.client.parse_headers(self.rfile)
            self.wfile.write(part["Content-Type"].encode() + self.rfile.read())

    request = get(method="SOURCE", version="1.0") + b"Content-Type: image/jpeg\r\n\r\n body"
    async with serving(Parts) as server:
        answer = await in_thread(whole, server.server_address, request, "tcp", True)
    assert answer.endswith(b"image/jpeg body")


@pytest.mark.parametrize("kind", ["tcp", "ssl"])
async def test_a_body_that_nobody_reads_does_not_throw_away_the_answer(kind, tmp_path):
    class Refuses(Stock):
        def do_PUT(self):
            self.send_error(403)

    request = get("/", CLOSE, method="PUT") + PIECE * 20

    def talk(address):
        with client(address, kind) as one:
            one.say(request)
            return one.answer().status

    deadlines = Deadlines(linger=PATIENCE_SECONDS)  # be the client as slow as it may
    async with serving(Refuses, description(kind, tmp_path), deadlines=deadlines) as server:
        for _ in range(20):
            assert await in_thread(talk, server.server_address) == 403


def end_connection(sock):
    """In the way of its kind."""
    if isinstance(sock, ssl.SSLSocket):
        # It says so, and waits for no answer to it.
        sock.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):
            sock.unwrap()
    else:
        sock.shutdown(socket.SHUT_WR)


class Late(Stock):
    """Reads when it is told to."""

    def do_PUT(self):
        self.server.begun.set()
        self.server.gate.wait(15)
        try:
            self.server.had = self.rfile.read()
        except OSError as error:
            self.server.had = error


@pytest.mark.parametrize("kind", ["tcp", "ssl", "haproxy:tcp"])
@pytest.mark.parametrize(
    ("how", "when"),
    [
        ("ends", "before it is read"),
        ("ends", "while it is read"),
        ("resets", "while it is read"),
        ("stops", "while it is read"),
    ],
)
async def test_a_body_that_was_cut_off_is_not_whole(kind, how, when, tmp_path):
    """One whose client has ended is, although over TLS that is the end of all."""
    request = get("/", CLOSE, method="PUT") + b"x" * 1000
    deadlines = Deadlines(drain=0.1)
    listening = serving(Late, description(kind, tmp_path), deadlines=deadlines)
    async with listening as server:
        server.begun, server.gate, server.had = threading.Event(), threading.Event(), None
        sock = await in_thread(connect_as, kind, server.server_address)
        await in_thread(sock.sendall, request)
        await in_thread(server.begun.wait, 15)
        if when == "while it is read":
            server.gate.set()
            [channel] = server.channels.values()
            await until(lambda: channel.cycle.mode is OutputMode.DIRECT)
        if how == "resets":
            reset(sock)
        elif how == "ends":
            await in_thread(end_connection, sock)
        else:
            server.drain()
        if when == "before it is read":
            if kind == "ssl":  # which has no half ends
                await until(lambda: not any(each.connected for each in server.connections))
            server.gate.set()
        await until(lambda: server.had is not None)
        sock.close()
        await until(lambda: not server.statistics.active)
    if how == "ends":
        assert server.had == b"x" * 1000
    else:
        assert isinstance(server.had, ConnectionError)


# Whole servers' handlers


async def test_files(tmp_path):
    (tmp_path / "page.html").write_text("a page")
    (tmp_path / "big").write_bytes(PIECE * 100)

    class Files(SimpleHTTPRequestHandler):
        log_message = Stock.log_message

    handler = functools.partial(Files, directory=tmp_path)

    def talk(address):
        url = http.client.HTTPConnection(*address)
        pages = []
        for target in ("/page.html", "/big", "/", "/none"):
            url.request("GET", target)
            response = url.getresponse()
            pages.append((response.status, response.read()))
        url.close()
        return pages

    async with serving(handler) as server:
        page, big, listing, missing = await in_thread(talk, server.server_address)
    assert page == (200, b"a page")
    assert big == (200, PIECE * 100)
    assert listing[0] == 200
    assert b"page.html" in listing[1]
    assert missing[0] == 404


class XMLRPCFactory(StreamFactory, SimpleXMLRPCDispatcher):
    """The server of C{xmlrpc.server}: what its handler asks of it."""

    logRequests = False  # noqa: N815 - xmlrpc.server's name

    def __init__(self, *args, **options):
        StreamFactory.__init__(self, *args, **options)
        SimpleXMLRPCDispatcher.__init__(self, allow_none=True, encoding="utf-8")
        self.register_function(pow)
        self.register_introspection_functions()


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
async def test_xmlrpc(version):
    class Handler(SimpleXMLRPCRequestHandler):
        protocol_version = version

    def talk(address):
        with xmlrpc.client.ServerProxy(f"http://localhost:{address[1]}/RPC2") as proxy:
            powers = [proxy.pow(2, n) for n in range(10)]
            # More than the handler takes in one piece, and gzipped on the way.
            with pytest.raises(xmlrpc.client.Fault, match="TypeError"):
                proxy.pow("x" * 2**21)
            return powers, proxy.system.listMethods()

    async with serving(Handler, factory=XMLRPCFactory) as server:
        powers, methods = await in_thread(talk, server.server_address)
        assert powers == [2**n for n in range(10)]
        assert "pow" in methods
        await until(lambda: not server.statistics.active)
        connections = 1 if version == "HTTP/1.1" else 12
        assert counts(server) == {"accepted": connections, "requests": 12}


class WSGIFactory(StreamFactory):
    """The server of C{wsgiref.simple_server}: what its handler asks of it."""

    application = None
    server_name = "localhost"
    server_port = 80
    setup_environ = WSGIServer.setup_environ
    get_app = WSGIServer.get_app
    set_app = WSGIServer.set_app


class WSGIHandler(WSGIRequestHandler):
    log_message = Stock.log_message


def echo_application(environ, start_response):
    size = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(size)
    answer = [environ["REQUEST_METHOD"].encode(), b" ", environ["PATH_INFO"].encode(), b" ", body]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return answer


@pytest.mark.parametrize("kind", ONE_OF_EACH)
async def test_wsgiref(kind, tmp_path):
    async with serving(WSGIHandler, description(kind, tmp_path), factory=WSGIFactory) as server:
        server.setup_environ()
        server.set_app(echo_application)
        answer = await in_thread(whole, server.server_address, post(b"hello", target="/a"), kind)
        assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nPOST /a hello")
        answer = await in_thread(whole, server.server_address, get("/b"), kind)
        assert answer.endswith(b"\r\n\r\nGET /b ")


# What holds a thread


@pytest.mark.parametrize("kind", ONE_OF_EACH)
async def test_no_thread_is_held_between_requests(kind, tmp_path):
    options = {"concurrency": place("serial")}
    async with serving(Echo, description(kind, tmp_path), **options) as server:

        def talk():
            with client(server.server_address, kind) as first:
                assert first.ask(get("/1")).body == b"/1"
                # The only thread serves another, while the first connection is open.
                with client(server.server_address, kind) as second:
                    assert second.ask(get("/2")).body == b"/2"
                    assert first.ask(get("/3")).body == b"/3"
                    return second.ask(get("/4")).body

        assert await in_thread(talk) == b"/4"
        await until(lambda: not server.concurrency.running)


def flood(address, idle, slow):
    """
    Connect many clients: some with a request behind them, some with half of one.  The
    caller closes them.
    """
    clients = []
    try:
        for number in range(idle + slow):
            sock = socket.create_connection(address, timeout=30)
            clients.append(sock)
            if number < idle:
                sock.sendall(get("/idle"))
            else:
                sock.sendall((get if number % 2 else functools.partial(post, b"12345"))()[:-4])
        for sock in clients[:idle]:
            answer = b""
            while not answer.endswith(b"\r\n\r\n/idle"):
                answer += sock.recv(4096)
    except BaseException:
        close_all(clients)
        raise
    return clients


def close_all(clients):
    for sock in clients:
        sock.close()


async def test_slow_and_idle_clients_starve_nobody():
    """8 threads, 2,000 idle connections, 400 that come by the byte, and one more."""
    async with serving(Echo, concurrency=place("threads", threads=8)) as server:
        clients = await in_thread(flood, server.server_address, 2000, 400)
        try:
            await until(lambda: len(server.connections) == 2400)
            await until(lambda: server.concurrency.running == server.concurrency.waiting == 0)
            for _ in range(3):

                def trickle():
                    for sock in clients[2000:]:
                        sock.sendall(b"x")

                await in_thread(trickle)
                with_one_more = in_thread(
                    whole, server.server_address, get("/", "Connection: close")
                )
                assert (await with_one_more).endswith(b"\r\n\r\n/")
                assert server.concurrency.running == server.concurrency.waiting == 0
        finally:
            close_all(clients)
        await until(lambda: not server.statistics.active)


# A handler that overrides the loop


class Line(Stock):
    """Reads what it likes."""

    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())


class Twice(Stock):
    """Has its own idea of when a request is complete."""

    def handle_one_request(self):
        line = self.connection.recv(3)
        self.connection.sendall(line * 2)
        self.close_connection = not line


class NoCase(Stock):
    def parse_request(self):
        parsed = super().parse_request()
        self.command = self.command.upper()
        return parsed

    def do_GET(self):
        self.answer(b"%d" % threading.active_count())


@pytest.mark.parametrize("kind", ONE_OF_EACH)
@pytest.mark.parametrize(
    ("handler", "said", "heard"),
    [
        (Line, b"no request\nat all\n", b"NO REQUEST\nAT ALL\n"),
        (Twice, b"abc", b"abcabc"),
        (NoCase, get(method="get"), b"HTTP/1.1 200 OK"),
    ],
)
async def test_a_handler_with_its_own_loop_keeps_its_thread(handler, said, heard, kind, tmp_path):
    async with serving(handler, description(kind, tmp_path)) as server:

        def talk():
            with client(server.server_address, kind) as one:
                one.say(said)
                answer = one.read(len(heard))
                return answer, server.concurrency.running

        assert await in_thread(talk) == (heard, 1)


# What it may do with its files


def reads_parts(handler):
    """A body of several parts, each with a head, as C{multipart/form-data} has."""
    handler.rfile.readline()
    return http.client.parse_headers(handler.rfile)["Name"].encode()


def peeks(handler):
    return handler.rfile.peek(2)[:2]


@pytest.mark.parametrize(("read", "heard"), [(reads_parts, b"value"), (peeks, b"--")])
@pytest.mark.parametrize("size", [10, 2**20])
async def test_rfile_is_a_buffered_file(read, heard, size):
    class Reads(Stock):
        def do_POST(self):
            answer = read(self)
            self.rfile.read()
            self.answer(answer)

    body = b"--part\r\nName: value\r\n\r\n" + b"x" * size

    def talk(address):
        with client(address) as one:
            return [one.ask(post(body)).body for _ in range(2)]

    async with serving(Reads) as server:
        assert await in_thread(talk, server.server_address) == [heard, heard]


async def test_a_child_that_exits_leaves_the_answer_to_the_handler():
    class Forks(Stock):
        def do_GET(self):
            child = os.fork()
            if not child:
                sys.exit()
            os.waitpid(child, 0)
            self.answer(b"parent")

    async with serving(Forks) as server:
        said = await in_thread(whole, server.server_address, get("/", CLOSE))
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.count(b"HTTP/1.1 ") == 1
