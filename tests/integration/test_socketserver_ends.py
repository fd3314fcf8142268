"""How requests of the drop-in modules' servers end, by whoever's doing."""

import contextlib
import os
import socket
import socketserver as stdlib_socketserver
import ssl
import sys
import threading
import time

import pytest

from sockserve import Deadlines
from sockserve.core.clock import clock_of
from tests.integration.servers import (
    PATIENCE_SECONDS,
    certificate_file,
    connect,
    is_ended,
    read_all,
    read_line,
    reset,
    secure,
)
from tests.integration.socketservers import BOTH, OURS, blocking, eventually, looping

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

ADDRESS = ("127.0.0.1", 0)
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Wilful(Exception):
    """What a handler raises here."""


class Wishes(stdlib_socketserver.StreamRequestHandler):
    """Does as its client says."""

    def handle(self):
        for line in self.rfile:
            wish = line.strip().decode()
            self.wfile.write(line)
            if wish == "close":
                self.request.close()
            elif wish == "shut":
                self.request.shutdown(socket.SHUT_RDWR)
            elif wish == "half":
                self.request.shutdown(socket.SHUT_WR)
            elif wish == "detach":
                os.close(self.request.detach())
            elif wish == "raise":
                raise Wilful
            elif wish == "leave":
                raise SystemExit(3)
            elif wish == "interrupt":
                raise KeyboardInterrupt


def web(modules):
    class Web(modules.http.BaseHTTPRequestHandler):
        """The same for HTTP, in the path; answers if that is C{/}."""

        protocol_version = "HTTP/1.1"

        def do_GET(self):
            wish = self.path[1:]
            if not wish:
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif wish == "close":
                self.request.close()
                self.rfile.close()
            elif wish == "shut":
                self.request.shutdown(socket.SHUT_RDWR)
            elif wish == "detach":
                os.close(self.request.detach())
            elif wish == "raise":
                raise Wilful
            elif wish == "leave":
                raise SystemExit(3)
            elif wish == "interrupt":
                raise KeyboardInterrupt

        def log_message(self, *arguments):
            """Quiet."""

    return Web


class Noting:
    """What a server's C{handle_error} and the C{threading.excepthook} are told."""

    def __init__(self, monkeypatch):
        self.errors, self.hooked = [], []
        monkeypatch.setattr(
            threading, "excepthook", lambda hook: self.hooked.append(hook.exc_type.__name__)
        )

    def server(self, base, handler, **attributes):
        noting = self

        class Server(base):
            request_queue_size = 20

            def handle_error(self, request, client_address):
                noting.errors.append(sys.exc_info()[0].__name__)

        for name, value in attributes.items():
            setattr(Server, name, value)
        return Server(ADDRESS, handler)


@BOTH
@pytest.mark.parametrize(
    ("wish", "errors", "hooked"),
    [
        ("close", [], []),
        ("shut", [], []),
        ("half", [], []),
        ("raise", ["Wilful"], []),
        ("leave", [], ["SystemExit"]),
        ("interrupt", [], ["KeyboardInterrupt"]),
    ],
)
@blocking
def test_a_stream_handler_ends_as_it_likes(modules, wish, errors, hooked, monkeypatch):
    noting = Noting(monkeypatch)
    server = noting.server(modules.socketserver.ThreadingTCPServer, Wishes)
    with looping(server):
        for _ in range(3):
            with connect(server.server_address) as client:
                client.sendall(wish.encode() + b"\n")
                assert read_line(client) == wish.encode() + b"\n"
                client.shutdown(socket.SHUT_WR)
                assert read_all(client) == b""
        eventually(lambda: len(noting.errors) == 3 * len(errors))
        eventually(lambda: len(noting.hooked) == 3 * len(hooked))
    assert noting.errors == errors * 3
    assert noting.hooked == hooked * 3


@BOTH
@pytest.mark.parametrize(
    ("wish", "errors", "hooked"),
    [
        ("shut", [], []),
        ("raise", ["Wilful"], []),
        ("leave", [], ["SystemExit"]),
        ("interrupt", [], ["KeyboardInterrupt"]),
    ],
)
@blocking
def test_an_http_handler_ends_as_it_likes(modules, wish, errors, hooked, monkeypatch):
    """At its second request; its client learns of it, and the next is served."""
    noting = Noting(monkeypatch)
    server = noting.server(modules.http.ThreadingHTTPServer, web(modules))
    with looping(server):
        for _ in range(3):
            with connect(server.server_address) as client:
                client.sendall(REQUEST)
                assert read_line(client) == b"HTTP/1.1 200 OK\r\n"
                while read_line(client) > b"\r\n":
                    pass
                client.sendall(REQUEST.replace(b"/ ", b"/%s " % wish.encode()))
                assert is_ended(client)
        eventually(lambda: len(noting.errors) == 3 * len(errors))
        eventually(lambda: len(noting.hooked) == 3 * len(hooked))
    assert noting.errors == errors * 3
    assert noting.hooked == hooked * 3


@pytest.mark.parametrize("wish", ["close", "detach"])
@pytest.mark.parametrize("handler", ["stream", "http"])
@blocking
def test_a_descriptor_closed_by_its_handler_is_nobodys_again(handler, wish, monkeypatch):
    """Its number is the next client's, who is not harmed."""
    noting = Noting(monkeypatch)
    base = OURS.http.ThreadingHTTPServer
    server = noting.server(base, Wishes if handler == "stream" else web(OURS))
    good = b"hello\n" if handler == "stream" else REQUEST
    bad = wish.encode() + b"\n"
    if handler == "http":
        bad = REQUEST.replace(b"/ ", b"/%s " % wish.encode())
    with looping(server), connect(server.server_address) as witness:
        for _ in range(10):
            with connect(server.server_address) as client:
                client.sendall(bad)
                client.shutdown(socket.SHUT_WR)
                assert is_ended(client)
            with connect(server.server_address) as client:
                client.sendall(good)
                assert read_line(client) in (b"hello\n", b"HTTP/1.1 200 OK\r\n")
        witness.sendall(good)
        assert read_line(witness) in (b"hello\n", b"HTTP/1.1 200 OK\r\n")


@BOTH
@pytest.mark.parametrize("kind", ["TCPServer", "ThreadingTCPServer"])
@blocking
def test_a_client_that_resets_is_an_error_of_its_own_only(modules, kind, monkeypatch):
    noting = Noting(monkeypatch)
    began = threading.Event()

    class Handler(Wishes):
        def handle(self):
            began.set()
            super().handle()

    server = noting.server(getattr(modules.socketserver, kind), Handler)
    with looping(server):
        client = connect(server.server_address)
        assert began.wait(PATIENCE_SECONDS)
        reset(client)
        eventually(lambda: noting.errors)
        with connect(server.server_address) as client:
            client.sendall(b"hello\n")
            assert read_line(client) == b"hello\n"
    assert noting.errors == ["ConnectionResetError"]


@BOTH
@blocking
def test_system_exit_leaves_a_serial_server(modules):
    server = modules.socketserver.TCPServer(ADDRESS, Wishes)
    with server, connect(server.server_address) as client:
        client.sendall(b"leave\n")
        with pytest.raises(SystemExit):
            server.serve_forever()
        assert read_all(client) == b"leave\n"
        server.shutdown()


@BOTH
@blocking
def test_a_handler_that_keeps_state_between_requests(modules):
    class Counts(web(modules)):
        count = 0

        def setup(self):
            setups.append(self)
            super().setup()

        def do_GET(self):
            self.count += 1
            counted.append(self.count)
            super().do_GET()

        def finish(self):
            super().finish()
            finished.set()

    class Server(modules.http.ThreadingHTTPServer):
        parks_connections = False

    setups, counted, finished = [], [], threading.Event()
    server = Server(ADDRESS, Counts)
    with looping(server), connect(server.server_address) as client:
        for _ in range(3):
            client.sendall(REQUEST)
            while read_line(client) > b"\r\n":
                pass
        client.close()
        assert finished.wait(PATIENCE_SECONDS)
    assert counted == [1, 2, 3]
    assert len(setups) == 1


@pytest.mark.parametrize("said", [b"", REQUEST, b"GET / HT"], ids=["silent", "answered", "begun"])
@blocking
def test_a_closed_server_ends_idle_connections(said):
    """Though it waits for its requests: there is none."""

    class Server(OURS.socketserver.ThreadingMixIn, OURS.http.HTTPServer):
        """One that does wait, as its threads are no daemons."""

    server = Server(ADDRESS, web(OURS))
    with connect(server.server_address) as client:
        with looping(server):
            client.sendall(said)
            if said == REQUEST:
                while read_line(client) > b"\r\n":
                    pass
            else:  # so that it has been accepted
                with connect(server.server_address) as later:
                    later.sendall(REQUEST)
                    assert read_line(later) == b"HTTP/1.1 200 OK\r\n"
        assert is_ended(client)


# Deadlines


def seconds_until_end(client, began):
    """
    How long it is until a client's connection ends, which it may be told of first.

    @param began: a time by C{time.monotonic} when no deadline was armed yet: the machine may
        have other things to do between any two steps of a test.
    """
    with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
        client.recv(1)
    seconds = time.monotonic() - began
    with contextlib.suppress(ssl.SSLEOFError):
        assert is_ended(client)
    return seconds


@pytest.mark.parametrize(
    ("phase", "said", "parks_connections"),
    [
        ("idle", b"", True),
        ("idle", REQUEST, True),
        ("header", b"GET / HT", True),
        ("lifetime", b"GET", True),
        # A handler that reads by itself has no head, only bytes.
        ("idle", b"", False),
        ("idle", REQUEST, False),
        ("lifetime", b"GET", False),
    ],
)
@blocking
def test_deadlines_of_http_connections(phase, said, parks_connections):
    server = OURS.http.ThreadingHTTPServer(ADDRESS, web(OURS))
    server.handle_error = lambda *arguments: None
    server.deadlines = Deadlines(**{"idle": 15.0, "header": 15.0, phase: 0.2})
    server.parks_connections = parks_connections
    began = time.monotonic()
    with connect(server.server_address) as client:
        client.sendall(said)  # before it is accepted, lest it be late
        with looping(server):
            if said == REQUEST:
                assert read_line(client) == b"HTTP/1.1 200 OK\r\n"
                while read_line(client) > b"\r\n":
                    pass
            assert 0.1 < seconds_until_end(client, began) < 10


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("phase", ["idle", "handle", "lifetime"])
@blocking
def test_deadlines_of_stream_handlers(phase, tls, tmp_path):
    ended = threading.Event()

    class Handler(Wishes):
        def handle(self):
            try:
                with contextlib.suppress(OSError):
                    super().handle()
            finally:
                ended.set()

    server = OURS.socketserver.ThreadingTCPServer(ADDRESS, Handler)
    server.deadlines = Deadlines(**{phase: 0.2})
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate_file(tmp_path))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    with looping(server):
        began = time.monotonic()
        client = connect(server.server_address)
        with secure(client) if tls else client as client:
            assert 0.1 < seconds_until_end(client, began) < 10
            assert ended.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize("parks_connections", [True, False])
@blocking
def test_a_handler_that_takes_too_long_loses_its_connection(parks_connections):
    go_on = threading.Event()

    class Slow(web(OURS)):
        def do_GET(self):
            go_on.wait(PATIENCE_SECONDS)
            super().do_GET()

    server = OURS.http.ThreadingHTTPServer(ADDRESS, Slow)
    server.handle_error = lambda *arguments: None
    server.deadlines = Deadlines(handle=0.2)
    server.parks_connections = parks_connections
    with looping(server):
        began = time.monotonic()
        with connect(server.server_address) as client:
            client.sendall(REQUEST)
            assert 0.1 < seconds_until_end(client, began) < 10
        go_on.set()


def armed():
    """The timers of connections; a reactor's turn has passed since this was called."""
    from twisted.internet import reactor
    from twisted.internet.threads import blockingCallFromThread

    delayed = map(str, blockingCallFromThread(reactor, clock_of(reactor).getDelayedCalls))
    # The pool's are of the threads' own.
    return [call for call in delayed if "WakeQueue" in call]


@pytest.mark.parametrize(
    "deadlines", [None, Deadlines(idle=60.0, header=60.0)], ids=["default", "asked for"]
)
@pytest.mark.parametrize("parks_connections", [True, False])
@blocking
def test_by_default_nothing_times_out(parks_connections, deadlines):
    """As far as that can be waited for: no timer is armed, which there is if one asks for it."""
    server = OURS.http.ThreadingHTTPServer(ADDRESS, web(OURS))
    server.handle_error = lambda *arguments: None  # its client leaves before the answer's end
    if deadlines is not None:
        server.deadlines = deadlines
    server.parks_connections = parks_connections
    with looping(server), connect(server.server_address) as client:
        client.sendall(REQUEST + REQUEST[:9])
        while read_line(client) > b"\r\n":
            pass
        if deadlines is None:
            assert not any(armed() for _ in range(100))
        else:
            eventually(armed)
        client.sendall(REQUEST[9:])
        assert read_line(client) == b"HTTP/1.1 200 OK\r\n"
