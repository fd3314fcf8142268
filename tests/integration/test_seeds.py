"""
What the documents promised that this project is made from, row by row, where no other test shows
just that: see C{docs/reference/seeds.md}.
"""

import io
import select
import socket
import socketserver
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from sockserve.socketserver import BaseRequestHandler, DatagramRequestHandler, StreamRequestHandler
from tests.integration.servers import PATIENCE_SECONDS
from tests.integration.socketservers import BOTH, Modules, blocking, looping

pytestmark = pytest.mark.usefixtures("no_leaks")

ADDRESS = ("127.0.0.1", 0)
BASES = ["TCPServer", "UDPServer", "UnixStreamServer", "UnixDatagramServer"]
#: All that there are: those of UNIX sockets that fork are of Python 3.12.
COMBINATIONS = [
    name
    for name in vars(socketserver)
    if name.startswith(("Threading", "Forking")) and not name.endswith("MixIn")
]


class Shouts(StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


class ShoutsBack(DatagramRequestHandler):
    def handle(self) -> None:
        self.wfile.write(self.rfile.read().upper())


def ask(kind: str, address: Any, folder: Any) -> bytes:
    """What a server of a kind answers to C{hello}."""
    family = socket.AF_UNIX if "Unix" in kind else socket.AF_INET
    is_datagram = "UDP" in kind or "Datagram" in kind
    with socket.socket(family, socket.SOCK_DGRAM if is_datagram else socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE_SECONDS)
        if family == socket.AF_UNIX and is_datagram:
            sock.bind(str(folder / "client"))  # else there is nowhere to answer to
        sock.connect(address)
        sock.sendall(b"hello\n")
        if not is_datagram:
            sock.shutdown(socket.SHUT_WR)  # a forked child has this socket too: no close would do
        return sock.recv(100)


def serve(modules: Modules, kind: str, folder: Any) -> bytes:
    """What one request of a server of a kind is answered."""
    is_datagram = "UDP" in kind or "Datagram" in kind
    address = str(folder / "server") if "Unix" in kind else ADDRESS
    handler = ShoutsBack if is_datagram else Shouts
    with looping(server := getattr(modules.socketserver, kind)(address, handler)):
        return ask(kind, server.server_address, folder)


@BOTH
@pytest.mark.parametrize("kind", BASES)
@blocking
def test_s1_servers(modules: Modules, kind: str, tmp_path: Any) -> None:
    assert issubclass(getattr(modules.socketserver, kind), modules.socketserver.BaseServer)
    assert serve(modules, kind, tmp_path) == b"HELLO\n"


@BOTH
@pytest.mark.parametrize("kind", COMBINATIONS)
@blocking
def test_s2_every_ready_made_combination(modules: Modules, kind: str, tmp_path: Any) -> None:
    mix_in = "ForkingMixIn" if kind.startswith("Forking") else "ThreadingMixIn"
    assert issubclass(getattr(modules.socketserver, kind), getattr(modules.socketserver, mix_in))
    assert serve(modules, kind, tmp_path) == b"HELLO\n"


@BOTH
@blocking
def test_s3_handler_classes(modules: Modules) -> None:
    names = modules.socketserver
    assert issubclass(names.StreamRequestHandler, names.BaseRequestHandler)
    assert issubclass(names.DatagramRequestHandler, names.BaseRequestHandler)
    assert names.StreamRequestHandler.rbufsize == -1
    assert names.StreamRequestHandler.wbufsize == 0
    seen = []

    class Looks(names.StreamRequestHandler):  # type: ignore[misc, name-defined]
        def handle(self) -> None:
            seen.append(type(self.rfile))
            self.wfile.write(self.rfile.readline())  # leaves unbuffered, at once
            self.rfile.readline()

    with (
        looping(server := names.TCPServer(ADDRESS, Looks)),
        socket.create_connection(server.server_address, PATIENCE_SECONDS) as sock,
    ):
        sock.sendall(b"line\n")
        assert sock.recv(100) == b"line\n"
    assert issubclass(seen[0], io.BufferedIOBase)


@BOTH
@pytest.mark.parametrize(
    ("kind", "variable", "value"),
    [
        ("TCPServer", "request_queue_size", 5),
        ("TCPServer", "allow_reuse_address", False),
        ("TCPServer", "address_family", socket.AF_INET),
        ("TCPServer", "socket_type", socket.SOCK_STREAM),
        ("UDPServer", "max_packet_size", 8192),
        ("UDPServer", "allow_reuse_address", False),
        ("UDPServer", "socket_type", socket.SOCK_DGRAM),
        ("UnixStreamServer", "address_family", socket.AF_UNIX),
        ("UnixDatagramServer", "address_family", socket.AF_UNIX),
        ("ForkingMixIn", "max_children", 40),
        ("ForkingMixIn", "active_children", None),
    ],
)
def test_s4_class_variables(modules: Modules, kind: str, variable: str, value: object) -> None:
    assert getattr(getattr(modules.socketserver, kind), variable) == value


@BOTH
@blocking
def test_s5_handle_request_after_a_select(modules: Modules) -> None:
    """C{fileno} is what C{select} needs to know which of some servers has a request."""
    servers = [modules.socketserver.TCPServer(ADDRESS, Says) for _ in range(3)]
    try:
        with socket.create_connection(servers[1].server_address, PATIENCE_SECONDS) as sock:
            ready, _, _ = select.select(servers, [], [], PATIENCE_SECONDS)
            assert ready == [servers[1]]
            ready[0].handle_request()
            assert sock.recv(100) == b"hello\n"
    finally:
        for server in servers:
            server.server_close()


class Says(BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(b"hello\n")


@BOTH
@blocking
def test_s6_verify_request_lets_some_in(modules: Modules) -> None:
    class Guarded(modules.socketserver.TCPServer):  # type: ignore[misc, name-defined]
        def verify_request(self, request: socket.socket, client_address: Any) -> bool:
            return bool(client_address[1] != kept_out)

    with looping(server := Guarded(ADDRESS, Says)), socket.socket() as stranger:
        stranger.bind(ADDRESS)
        stranger.settimeout(PATIENCE_SECONDS)
        kept_out = stranger.getsockname()[1]
        stranger.connect(server.server_address)
        assert stranger.recv(100) == b""
        with socket.create_connection(server.server_address, PATIENCE_SECONDS) as friend:
            assert friend.recv(100) == b"hello\n"


@BOTH
@blocking
def test_s7_an_error_is_printed_and_the_server_goes_on(
    modules: Modules, capsys: pytest.CaptureFixture[str]
) -> None:
    class Fails(Says):
        def handle(self) -> None:
            super().handle()
            raise ZeroDivisionError("on purpose")

    with looping(server := modules.socketserver.TCPServer(ADDRESS, Fails)):
        for _ in range(2):
            with socket.create_connection(server.server_address, PATIENCE_SECONDS) as sock:
                assert sock.recv(100) == b"hello\n"
                assert sock.recv(100) == b""
    printed = capsys.readouterr().err
    assert printed.count("ZeroDivisionError: on purpose") == 2
    assert "Exception occurred during processing of request from ('127.0.0.1'" in printed


# An HTTP request handler


class Spam(BaseHTTPRequestHandler):
    """Of the standard library, and as a program has it."""

    def do_SPAM(self) -> None:
        body = f"{self.client_address[0]} {self.command} {self.path} {self.request_version}"
        size = int(self.headers.get("Content-Length", 0)) if hasattr(self, "headers") else 0
        data = f"{body} {self.rfile.read(size).decode()}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_SPAM

    def log_message(self, *arguments: object) -> None:
        pass


@BOTH
@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (b"SPAM /a HTTP/1.0\r\n\r\n", 200, "SPAM /a HTTP/1.0 "),
        (b"SPAM /a HTTP/1.1\r\nHost: h\r\n\r\n", 200, "SPAM /a HTTP/1.1 "),
        (b"SPAM /a HTTP/1.1\nHost: h\nContent-Length: 2\n\nhi", 200, "SPAM /a HTTP/1.1 hi"),
        (b"SPAM   /a  HTTP/1.0  \r\n\r\n", 200, "SPAM /a HTTP/1.0 "),
        (b"GET /a\r\n", None, "GET /a HTTP/0.9 "),
        (b"spam /a HTTP/1.0\r\n\r\n", 501, None),
        (b"EGGS /a HTTP/1.0\r\n\r\n", 501, None),
    ],
    ids=["1.0", "1.1", "LF", "spaces", "0.9", "other case", "no method"],
)
@blocking
def test_o1_an_http_request_handler(
    modules: Modules, request_: bytes, status: int | None, body: str | None
) -> None:
    with (
        looping(server := modules.http.HTTPServer(ADDRESS, Spam)),
        socket.create_connection(server.server_address, PATIENCE_SECONDS) as sock,
    ):
        sock.sendall(request_)
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as file:
            said = file.read()
    if status is not None:
        head, _, said = said.partition(b"\r\n\r\n")
        assert head.split()[1] == str(status).encode()
    if body is not None:
        assert said.decode() == f"127.0.0.1 {body}"


@BOTH
@blocking
def test_o2_a_server_takes_its_address_again(modules: Modules) -> None:
    """Also while a connection of the one before waits out its time."""

    class Server(modules.socketserver.TCPServer):  # type: ignore[misc, name-defined]
        allow_reuse_address = True

    address = ADDRESS
    for _ in range(2):
        with looping(server := Server(address, Says)):
            address = server.server_address
            with socket.create_connection(address, PATIENCE_SECONDS) as sock:
                assert sock.recv(100) == b"hello\n"
                assert sock.recv(100) == b""  # the server was the first to end it
