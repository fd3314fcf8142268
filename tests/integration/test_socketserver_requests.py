"""What a program gives its server: sockets, requests, addresses and handlers of its own making."""

import os
import socket
import socketserver as stdlib_socketserver
import ssl
import threading

import pytest

from tests.integration.servers import (
    PATIENCE_SECONDS,
    certificate_file,
    connect,
    connect_tls,
    is_ended,
    read_all,
    read_line,
)
from tests.integration.socketservers import BOTH, OURS, blocking, eventually, looping

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

ADDRESS = ("127.0.0.1", 0)


class Echo(stdlib_socketserver.StreamRequestHandler):
    """Echoes by line."""

    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


def web(modules):
    class Web(modules.http.BaseHTTPRequestHandler):
        """Says who its client is."""

        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = repr(self.client_address).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            """Quiet."""

    return Web


def say(client, line):
    client.sendall(line)
    return read_line(client)


def get(address):
    with connect(address) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return read_all(client).partition(b"\r\n\r\n")[2]


def listening():
    sock = socket.socket()
    sock.bind(ADDRESS)
    sock.listen()
    return sock


# Sockets to listen on

SERVERS = pytest.mark.parametrize("kind", ["TCPServer", "ThreadingTCPServer"])


@BOTH
@SERVERS
@blocking
def test_bound_and_activated_late(modules, kind):
    server = getattr(modules.socketserver, kind)(ADDRESS, Echo, bind_and_activate=False)
    server.allow_reuse_address = True
    server.server_bind()
    server.server_activate()
    with looping(server), connect(server.server_address) as client:
        assert say(client, b"late\n") == b"late\n"


@BOTH
@SERVERS
@pytest.mark.parametrize("way", ["fromfd", "handed over"])
@blocking
def test_a_listener_from_elsewhere(modules, kind, way):
    """As from systemd or a supervisor."""
    server = getattr(modules.socketserver, kind)(ADDRESS, Echo, bind_and_activate=False)
    server.socket.close()
    with listening() as theirs:
        if way == "fromfd":
            server.socket = socket.fromfd(theirs.fileno(), socket.AF_INET, socket.SOCK_STREAM)
        else:
            server.socket = socket.socket(fileno=theirs.detach())
        address = server.server_address = server.socket.getsockname()
        with looping(server), connect(address) as client:
            assert say(client, b"handed\n") == b"handed\n"


@BOTH
@pytest.mark.parametrize("kind", ["BaseServer", "ThreadingBaseServer"])
@blocking
def test_one_end_of_a_socketpair_is_a_request(modules, kind):
    base = modules.socketserver.BaseServer

    class Server(base):
        """Is given its requests by the program."""

        def __init__(self, ours):
            super().__init__("a pair", Echo)
            self.inner, self.outer = socket.socketpair()
            self.ours = ours

        def fileno(self):
            return self.inner.fileno()

        def get_request(self):
            self.inner.recv(1)
            return self.ours, ("the other end", 1)

        def shutdown_request(self, request):
            request.close()

        def server_close(self):
            super().server_close()
            self.inner.close()
            self.outer.close()

    class Threading(modules.socketserver.ThreadingMixIn, Server):
        """The same with threads."""

    ours, theirs = socket.socketpair()
    with theirs:
        theirs.settimeout(PATIENCE_SECONDS)
        server = (Server if kind == "BaseServer" else Threading)(ours)
        with looping(server):
            server.outer.send(b".")
            assert say(theirs, b"pair\n") == b"pair\n"
            theirs.shutdown(socket.SHUT_WR)
            assert read_all(theirs) == b""


@BOTH
@SERVERS
@blocking
def test_a_socket_wrapped_after_construction(modules, kind, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file(tmp_path))
    server = getattr(modules.socketserver, kind)(ADDRESS, Echo)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with looping(server), connect_tls(server.server_address) as client:
        assert say(client, b"secret\n") == b"secret\n"
        client.shutdown(socket.SHUT_RDWR)


@BOTH
@blocking
def test_a_get_request_that_shakes_hands_by_itself(modules, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file(tmp_path))

    class Server(modules.socketserver.ThreadingTCPServer):
        def get_request(self):
            request, client_address = super().get_request()
            return context.wrap_socket(request, server_side=True), client_address

    server = Server(ADDRESS, Echo)
    with looping(server), connect_tls(server.server_address) as client:
        assert say(client, b"secret\n") == b"secret\n"
        client.shutdown(socket.SHUT_RDWR)


@BOTH
@blocking
def test_a_server_that_is_closed_and_opened_again(modules):
    # While it is closed, no other test is to be given its port.
    own = (f"127.{1 + os.getpid() // 250 % 250}.{os.getpid() % 250}.2", 0)
    server = modules.socketserver.ThreadingTCPServer(own, Echo)
    for _ in range(3):
        with looping(server), connect(server.server_address) as client:
            assert say(client, b"again\n") == b"again\n"
        server.socket = socket.socket()
        server.server_bind()
        server.server_activate()
    server.server_close()


# What they are called


@pytest.mark.parametrize("said", [None, "somebody", ("a",), ("::1", 1, 0, 0, "more")], ids=repr)
@pytest.mark.parametrize("handler", ["stream", "http"])
@BOTH
@blocking
def test_a_client_is_called_what_get_request_says(modules, handler, said):
    class Tells(stdlib_socketserver.StreamRequestHandler):
        def handle(self):
            while self.rfile.readline() > b"\r\n":
                pass
            self.wfile.write(b"\r\n\r\n" + repr(self.client_address).encode())

    class Server(modules.socketserver.ThreadingTCPServer):
        def get_request(self):
            return super().get_request()[0], said

    server = Server(ADDRESS, Tells if handler == "stream" else web(modules))
    with looping(server):
        assert get(server.server_address) == repr(said).encode()


@BOTH
@blocking
def test_requests_that_are_no_sockets(modules):
    """A queue of jobs, read from a pipe."""

    class Job(stdlib_socketserver.BaseRequestHandler):
        def handle(self):
            done.append((self.request, self.client_address))

    class Jobs(modules.socketserver.ThreadingMixIn, modules.socketserver.BaseServer):
        def __init__(self):
            super().__init__("a pipe", Job)
            self.out, self.into = os.pipe()

        def fileno(self):
            return self.out

        def get_request(self):
            return ("job", os.read(self.out, 1)), None

        def close_request(self, request):
            closed.append(request)

        def server_close(self):
            super().server_close()
            os.close(self.out)
            os.close(self.into)

    done, closed = [], []
    server = Jobs()
    with looping(server):
        os.write(server.into, b"abc")
        eventually(lambda: len(closed) == 3)
    assert sorted(done) == [(("job", b"%c" % c), None) for c in b"abc"]
    assert sorted(closed) == [("job", b"%c" % c) for c in b"abc"]


@BOTH
@blocking
def test_sockets_of_a_class_of_the_programs_own(modules):
    class Counting(socket.socket):
        sent = 0

        def sendall(self, data, *flags):
            type(self).sent += len(data)
            return super().sendall(data, *flags)

    class Server(modules.http.ThreadingHTTPServer):
        def get_request(self):
            accepted, client_address = super().get_request()
            return Counting(fileno=accepted.detach()), client_address

    server = Server(ADDRESS, web(modules))
    with looping(server):
        body = get(server.server_address)
    assert body.startswith(b"('127.0.0.1'")
    assert Counting.sent > len(body)


# Handlers


@BOTH
@SERVERS
@pytest.mark.parametrize(
    "handler", [None, 1, lambda *arguments: None], ids=["None", "1", "function"]
)
@blocking
def test_a_finish_request_needs_no_handlers(modules, kind, handler):
    class Server(getattr(modules.socketserver, kind)):
        def finish_request(self, request, client_address):
            request.sendall(b"by itself")

    server = Server(ADDRESS, handler)
    with looping(server), connect(server.server_address) as client:
        assert read_all(client) == b"by itself"


@pytest.mark.parametrize("old", ["stream", "http"])
@pytest.mark.parametrize("new", ["stream", "http", "function"])
@BOTH
@blocking
def test_the_handler_is_replaced_while_the_server_serves(modules, old, new):
    """Connections there are keep the old one."""

    def function(request, client_address, server):
        request.sendall(request.recv(100))

    class Other(web(modules)):
        def do_GET(self):
            self.path = "/other"
            super().do_GET()

    handlers = {"stream": Echo, "http": web(modules), "function": function}
    server = modules.http.ThreadingHTTPServer(ADDRESS, handlers[old])
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    expected = {"stream": b"GET / HTTP/1.1\r\n", "http": b"HTTP/1.1 200 OK\r\n"}
    expected["function"] = expected["stream"]
    with looping(server), connect(server.server_address) as before:
        assert say(before, request) == expected[old]
        server.RequestHandlerClass = Other if new == "http" else handlers[new]
        with connect(server.server_address) as after:
            assert say(after, request) == expected[new]
            after.shutdown(socket.SHUT_WR)
            read_all(after)
        if old == "http":
            while read_line(before) > b"\r\n":
                pass
            read_line_of_body = before.recv(100)
            assert read_line_of_body.startswith(b"('127.0.0.1'")
            assert say(before, request) == expected[old]


@pytest.mark.parametrize("new", ["stream", "http"])
@blocking
def test_a_coroutine_is_replaced_by_what_blocks(new):
    import sockserve

    class Coroutine(sockserve.StreamRequestHandler):
        async def handle(self):
            self.wfile.write(await self.rfile.readline())

    server = OURS.socketserver.ThreadingTCPServer(ADDRESS, Coroutine)
    with looping(server):
        with connect(server.server_address) as client:
            assert say(client, b"coroutine\n") == b"coroutine\n"
        server.RequestHandlerClass = Echo if new == "stream" else web(OURS)
        with connect(server.server_address) as client:
            answer = say(client, b"GET / HTTP/1.0\r\n\r\n")
            assert answer == (b"GET / HTTP/1.0\r\n" if new == "stream" else b"HTTP/1.1 200 OK\r\n")
            client.shutdown(socket.SHUT_WR)
            read_all(client)


@BOTH
@pytest.mark.parametrize("how", ["close", "shutdown"])
@blocking
def test_a_program_that_ends_its_connections_from_outside(modules, how, errors):
    """
    Its C{close} of one that is being read ends nothing, as long as there is an C{rfile} of it;
    and harms no other.
    """

    class Server(modules.http.ThreadingHTTPServer):
        def process_request(self, request, client_address):
            requests.append(request)
            super().process_request(request, client_address)

    requests = []
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    server = Server(ADDRESS, web(modules))
    with looping(server), connect(server.server_address) as client:
        assert say(client, request) == b"HTTP/1.1 200 OK\r\n"
        for each in requests:
            if how == "close":
                each.close()
            else:
                each.shutdown(socket.SHUT_RDWR)
        if how == "shutdown":
            assert is_ended(client)
        for _ in range(5):  # one of these would have got its number
            assert get(server.server_address).startswith(b"('127.0.0.1'")
        client.close()


@BOTH
@blocking
def test_a_handler_hands_its_connection_on(modules):
    """To a thread of the program's that goes on with it: such a server closes no request."""

    class HandsOn(stdlib_socketserver.BaseRequestHandler):
        def handle(self):
            self.request.sendall(b"first ")
            kept.append(self.request)
            handed.set()

    class Server(modules.socketserver.ThreadingTCPServer):
        def shutdown_request(self, request):
            """It is another's."""

    kept, handed = [], threading.Event()
    server = Server(ADDRESS, HandsOn)
    with connect(server.server_address) as client:
        with looping(server):
            assert handed.wait(PATIENCE_SECONDS)
        assert kept[0].gettimeout() is None
        kept[0].sendall(b"second")
        kept.pop().close()
        assert read_all(client) == b"first second"
