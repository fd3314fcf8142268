"""C{--explain}: what serves a server's requests, in a line for each."""

import functools
import gc
import re
import socket
import ssl
import subprocess
import sys
import threading

import pytest

import sockserve.http
from sockserve import StreamRequestHandler, socketserver
from sockserve.dropin.serving_thread import may_be_parked
from sockserve.dropin.serving_way import ServingWay, WayKind, serving_way
from sockserve.http.server import HTTPServer, SimpleHTTPRequestHandler, ThreadingHTTPServer
from sockserve.programs.explanation import Explanation, words

ITSELF, FORKED, THREADS, SERIAL, REACTOR = WayKind


class Plain(socketserver.StreamRequestHandler):
    pass


class Page(SimpleHTTPRequestHandler):
    pass


class Loop(Page):
    def handle(self):
        """Nothing."""


class Unbuffered(Page):
    rbufsize = 0


class Wrapping(Page):
    def setup(self):
        """Nothing."""


class Echo(StreamRequestHandler):
    async def handle(self):
        """Nothing."""


class Own(sockserve.http.HTTPRequestHandler):
    def do_GET(self):
        """Nothing."""


class OwnThreads(HTTPServer):
    def process_request(self, request, client_address):
        threading.Thread(target=self.finish_request, args=(request, client_address)).start()


class Counting(ThreadingHTTPServer):
    def process_request(self, request, client_address):
        super().process_request(request, client_address)


class Explicit(ThreadingHTTPServer):
    def process_request(self, request, client_address):
        ThreadingHTTPServer.process_request(self, request, client_address)


class Finishing(ThreadingHTTPServer):
    def finish_request(self, request, client_address):
        """Nothing."""


class Forking(socketserver.ForkingMixIn, HTTPServer):
    pass


class CountingForking(Forking):
    process_request = Counting.process_request


class Accepting(ThreadingHTTPServer):
    def get_request(self):
        """Nothing."""


class Held(HTTPServer):
    parks_connections = False


def own(name):
    """Why, where a program has a method of its own."""
    return f"{name} is not the standard library's"


ONE_BY_ONE, PARKED_ONE_BY_ONE = ServingWay(SERIAL, None, ""), ServingWay(SERIAL, True, "")
ON_THREADS, PARKED = ServingWay(THREADS, None, ""), ServingWay(THREADS, True, "")
IN_CHILDREN = ServingWay(FORKED, None, "")

TABLE = [
    (socketserver.TCPServer, Plain, ONE_BY_ONE),
    (socketserver.ThreadingTCPServer, Plain, ON_THREADS),
    (socketserver.ThreadingUDPServer, Plain, ON_THREADS),
    (socketserver.ForkingTCPServer, Plain, IN_CHILDREN),
    (socketserver.ThreadingTCPServer, lambda *_: None, ON_THREADS),
    (
        socketserver.ThreadingTCPServer,
        Echo,
        ServingWay(REACTOR, None, "its handler is a coroutine"),
    ),
    (HTTPServer, Page, PARKED_ONE_BY_ONE),
    (HTTPServer, functools.partial(Page, directory="."), PARKED_ONE_BY_ONE),
    (HTTPServer, Loop, ServingWay(SERIAL, False, own("Loop.handle"))),
    (HTTPServer, Wrapping, ServingWay(SERIAL, False, own("Wrapping.setup"))),
    (HTTPServer, Unbuffered, ServingWay(SERIAL, False, own("Unbuffered.rbufsize"))),
    (Held, Page, ServingWay(SERIAL, False, "parks_connections is False")),
    (ThreadingHTTPServer, Page, PARKED),
    (ThreadingHTTPServer, Own, PARKED),
    (ThreadingHTTPServer, Loop, ServingWay(THREADS, False, own("Loop.handle"))),
    (Counting, Page, PARKED),
    (Explicit, Page, PARKED),
    (Finishing, Page, ServingWay(THREADS, False, own("Finishing.finish_request"))),
    (OwnThreads, Page, ServingWay(ITSELF, None, own("OwnThreads.process_request"))),
    (Forking, Page, IN_CHILDREN),
    (CountingForking, Page, IN_CHILDREN),
    (Accepting, Page, ServingWay(THREADS, True, "where Accepting.get_request gives plain sockets")),
]


@pytest.mark.parametrize(("server", "handler", "way"), TABLE)
def test_how_a_servers_requests_are_served(server, handler, way):
    with server(("127.0.0.1", 0), handler) as made:
        assert serving_way(made) == way
        if way.kind is SERIAL:
            with socket.socket() as connection:
                assert may_be_parked(made, connection) is bool(way.is_parked)


def test_a_method_that_is_set_on_the_server_object():
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        server.close_request = print
        why = own("the server's close_request")
        assert serving_way(server) == ServingWay(THREADS, False, why)
        server.process_request = print
        assert serving_way(server).kind is ITSELF


def test_one_request_is_not_parked():
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        why = "handle_request takes one connection"
        assert serving_way(server, is_loop=False) == ServingWay(SERIAL, False, why)
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        assert serving_way(server, is_loop=False) == PARKED


def test_a_thread_has_a_connection_over_tls():
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        why = "the connections are the ssl module's"
        assert serving_way(server) == ServingWay(THREADS, False, why)


@pytest.mark.parametrize(
    ("server", "way", "said"),
    [
        ("TCPServer", ON_THREADS, "threads, 1000 at most, each for a connection"),
        ("UDPServer", ON_THREADS, "threads, 1000 at most, each for a datagram"),
        (
            "TCPServer",
            ServingWay(THREADS, False, "why"),
            "threads, 1000 at most, each for a connection: why",
        ),
        (
            "ThreadingTCPServer",
            ServingWay(THREADS, True, "why"),
            "threads, 1000 at most, each for a request;"
            " HTTP connections are parked in between: why",
        ),
        ("TCPServer", ONE_BY_ONE, "serial, connection by connection"),
        ("TCPServer", ServingWay(SERIAL, False, "why"), "serial, connection by connection: why"),
        (
            "TCPServer",
            PARKED_ONE_BY_ONE,
            "serial, request by request; HTTP connections are parked in between",
        ),
        ("UDPServer", IN_CHILDREN, "forked, a child for each datagram"),
        ("TCPServer", ServingWay(ITSELF, None, "why"), "by itself: why"),
        ("TCPServer", ServingWay(REACTOR, None, "why"), "reactor: why"),
    ],
)
def test_the_words_for_it(server, way, said):
    with getattr(socketserver, server)(("127.0.0.1", 0), Plain) as made:
        assert words(made, way) == said


def test_a_line_comes_when_it_begins_to_serve_and_when_that_changes():
    said = []
    explanation = Explanation(said.append)
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        explanation.server_made(server)
        for is_loop in (True, True, False, False, True):
            explanation.serving_began(server, is_loop)
        address = f"127.0.0.1:{server.server_port}"
        name = f"sockserve.http.server.HTTPServer on {address}, with {__name__}.Page"
        parked = f"{name}: serial, request by request; HTTP connections are parked in between"
        once = f"{name}: serial, connection by connection: handle_request takes one connection"
        assert said == [parked, once, parked]
        explanation.end()
        assert said[3:] == []
        explanation.server_made(server)
        explanation.end()
        assert said[3:] == [
            f"{name}: by itself: neither serve_forever nor handle_request was called"
        ]


PROGRAM = """
import os, socketserver, xmlrpc.server

class Once:
    def service_actions(self):
        self.shutdown()

class Calls(Once, xmlrpc.server.SimpleXMLRPCServer): pass
class Datagrams(Once, socketserver.ThreadingUDPServer): pass

Calls(("127.0.0.1", 0)).serve_forever()
silent = socketserver.UnixStreamServer("socket", socketserver.BaseRequestHandler)
if not os.fork():
    Datagrams(("127.0.0.1", 0), socketserver.DatagramRequestHandler).serve_forever()
    os._exit(0)
os.wait()
"""

SAID = [
    r"sockserve: socketserver and http\.server are replaced by sockserve's",
    r"sockserve: __main__\.Calls on 127\.0\.0\.1:\d+, with"
    r" xmlrpc\.server\.SimpleXMLRPCRequestHandler:"
    r" serial, request by request; HTTP connections are parked in between",
    r"sockserve\[\d+\]: __main__\.Datagrams on 127\.0\.0\.1:\d+, with"
    r" socketserver\.DatagramRequestHandler: threads, 1000 at most, each for a datagram",
    r"sockserve: socketserver\.UnixStreamServer on socket, with"
    r" socketserver\.BaseRequestHandler:"
    r" by itself: neither serve_forever nor handle_request was called",
]


def explained(program, folder):
    """The lines on standard error."""
    (folder / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "sockserve", "--explain", "program.py"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "")
    return done.stderr.splitlines()


def test_a_program_and_its_child_are_explained(tmp_path):
    lines = explained(PROGRAM, tmp_path)
    assert len(lines) == len(SAID)
    for line, said in zip(lines, SAID, strict=True):
        assert re.fullmatch(said, line)


def test_a_program_that_asks_for_neither_is_explained(tmp_path):
    assert explained("", tmp_path) == [
        "sockserve: nothing is replaced: neither socketserver nor http.server was imported"
    ]


def test_a_server_that_is_gone_is_remembered_no_more():
    explanation = Explanation(lambda _: None)
    for _ in range(3):
        with HTTPServer(("127.0.0.1", 0), Page) as server:
            explanation.server_made(server)
            explanation.serving_began(server, is_loop=True)
            assert len(explanation._said) == 1
        del server
        gc.collect()
    assert explanation._said == {}
