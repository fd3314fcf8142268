"""C{serve_forever}, C{shutdown} and C{handle_request}, in whatever order and from wherever."""

import contextlib
import select
import socket
import socketserver as stdlib_socketserver
import sys
import threading
import time

import pytest

from tests.integration.servers import PATIENCE_SECONDS, connect, read_line
from tests.integration.socketservers import BOTH, OURS, blocking, looping

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

ADDRESS = ("127.0.0.1", 0)

KINDS = pytest.mark.parametrize("kind", ["TCPServer", "ThreadingTCPServer", "UDPServer"])


class Echo(stdlib_socketserver.StreamRequestHandler):
    """Echoes by line."""

    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


class Datagrams(stdlib_socketserver.BaseRequestHandler):
    """Echoes."""

    def handle(self):
        data, sock = self.request
        sock.sendto(data, self.client_address)


def make(kind, **attributes):
    handler = Datagrams if "UDP" in kind else Echo
    return type("Server", (getattr(OURS.socketserver, kind),), attributes)(ADDRESS, handler)


def echoes(server):
    if server.socket_type == socket.SOCK_STREAM:
        with connect(server.server_address) as client:
            client.sendall(b"hello\n")
            return read_line(client) == b"hello\n"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE_SECONDS)
        client.sendto(b"hello\n", server.server_address)
        return client.recv(100) == b"hello\n"


def started(server, poll_interval=3600):
    thread = threading.Thread(target=server.serve_forever, args=(poll_interval,))
    thread.start()
    return thread


@KINDS
@blocking
def test_shutdown_is_heard_at_once(kind):
    """
    However long the interval; a matter of less than a millisecond, but of the best of some, and
    of more, where the machine has other things to do.
    """
    seconds = []
    with make(kind) as server:
        for _ in range(10):
            thread = started(server)
            assert echoes(server)
            began = time.perf_counter()
            server.shutdown()
            seconds.append(time.perf_counter() - began)
            thread.join()
    assert min(seconds) < 0.05


@KINDS
@blocking
def test_shutdown_before_serve_forever_and_twice(kind):
    """Where the standard library waits for ever."""
    with make(kind) as server:
        server.shutdown()
        server.shutdown()
        server.serve_forever(3600)  # whoever said so before it began is obeyed
        thread = started(server)
        assert echoes(server)
        server.shutdown()
        server.shutdown()
        thread.join()


@KINDS
@blocking
def test_shutdown_races_the_start(kind):
    """Whichever is first, both end."""
    with make(kind) as server:
        for number in range(100):
            thread = started(server)
            time.sleep(number % 10 / 20_000)
            server.shutdown()
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()
        thread = started(server)
        assert echoes(server)
        server.shutdown()
        thread.join()


@blocking
def test_shutdown_by_many_at_once():
    for _ in range(10):
        with make("ThreadingTCPServer") as server:
            thread = started(server)
            assert echoes(server)
            many = [threading.Thread(target=server.shutdown) for _ in range(5)]
            for each in many:
                each.start()
            for each in (*many, thread):
                each.join(PATIENCE_SECONDS)
                assert not each.is_alive()


@BOTH
@blocking
def test_a_threads_handler_shuts_its_server_down(modules):
    class Stops(stdlib_socketserver.StreamRequestHandler):
        def handle(self):
            self.server.shutdown()
            self.wfile.write(b"stopped\n")

    with modules.socketserver.ThreadingTCPServer(ADDRESS, Stops) as server:
        thread = started(server, 0.01)
        with connect(server.server_address) as client:
            assert read_line(client) == b"stopped\n"
        thread.join()


@pytest.mark.parametrize("where", ["handle", "verify_request", "service_actions", "finish"])
@blocking
def test_the_serving_thread_itself_says_shutdown(where):
    """Where the standard library waits for itself."""

    class Handler(Echo):
        def finish(self):
            super().finish()
            if where == "finish":
                self.server.shutdown()

        def handle(self):
            if where == "handle":
                self.server.shutdown()
            super().handle()

    def stop(server, *arguments):
        server.shutdown()
        return True

    attributes = {} if where in ("handle", "finish") else {where: stop}
    base = OURS.socketserver.TCPServer
    with type("Server", (base,), attributes)(ADDRESS, Handler) as server:
        thread = started(server)
        with connect(server.server_address) as client:
            client.sendall(b"hello\n")
            if where != "service_actions":
                assert read_line(client) == b"hello\n"
            client.shutdown(socket.SHUT_WR)
            thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


@blocking
def test_many_servers_in_one_process():
    with contextlib.ExitStack() as stack:
        kinds = ["TCPServer", "ThreadingTCPServer", "UDPServer", "ThreadingUDPServer"] * 3
        servers = [make(kind) for kind in kinds]
        for server in servers:
            stack.enter_context(looping(server, 3600))
        for server in servers:
            assert echoes(server)
        servers[1].shutdown()
        for server in servers[2:]:
            assert echoes(server)


@BOTH
@blocking
def test_a_server_goes_on_while_another_thread_of_its_own_closes(modules):
    """One loop ends, the next begins on another thread, and who waits in between is served."""
    with modules.socketserver.ThreadingTCPServer(ADDRESS, Echo) as server:
        first = started(server, 0.01)
        with connect(server.server_address) as early:
            early.sendall(b"early\n")
            assert read_line(early) == b"early\n"
            server.shutdown()
            first.join()
            with connect(server.server_address) as waiting:
                waiting.sendall(b"waiting\n")
                early.sendall(b"still\n")
                assert read_line(early) == b"still\n"
                second = started(server, 0.01)
                assert read_line(waiting) == b"waiting\n"
                server.shutdown()
                second.join()


@BOTH
@blocking
def test_one_selects_for_many_servers(modules):
    """The program's own loop, by C{fileno}, without serve_forever."""
    kinds = [modules.socketserver.ThreadingTCPServer, modules.socketserver.TCPServer]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(kind(ADDRESS, Echo)) for kind in kinds * 2]
        answers = []

        def client(server):
            with connect(server.server_address) as sock:
                sock.sendall(b"hello\n")
                answers.append(read_line(sock))

        clients = [threading.Thread(target=client, args=(server,)) for server in servers]
        for each in clients:
            each.start()
        left = set(servers)
        while left:
            ready, _, _ = select.select(list(left), [], [], PATIENCE_SECONDS)
            assert ready
            for server in ready:
                server.handle_request()
                left.discard(server)
        for each in clients:
            each.join()
    assert answers == [b"hello\n"] * 4


@BOTH
@pytest.mark.parametrize(
    ("own", "of_the_socket"), [(0.05, None), (None, 0.05), (0.05, 15), (15, 0.05), (0, None)]
)
@blocking
def test_handle_request_waits_as_long_as_the_shorter_timeout(modules, own, of_the_socket):
    class Server(modules.socketserver.ThreadingTCPServer):
        def handle_timeout(self):
            late.append(time.monotonic() - began)

    late = []
    with Server(ADDRESS, Echo) as server:
        server.timeout = own
        server.socket.settimeout(of_the_socket)
        began = time.monotonic()
        server.handle_request()
    (seconds,) = late
    assert seconds < 10


@BOTH
@blocking
def test_a_timeout_may_be_a_property(modules):
    class Server(modules.socketserver.ThreadingTCPServer):
        @property
        def timeout(self):
            return 0.05

        def handle_timeout(self):
            late.append(True)

    late = []
    with Server(ADDRESS, Echo) as server:
        server.handle_request()
    assert late == [True]


@BOTH
@blocking
def test_an_accepted_connection_has_no_timeout_of_the_listeners(modules):
    """As C{accept} gives it; nor is it left in non-blocking mode."""
    seen = []

    class Handler(Echo):
        def handle(self):
            seen.append(self.request.gettimeout())
            super().handle()

    with modules.socketserver.ThreadingTCPServer(ADDRESS, Handler) as server:
        server.socket.settimeout(PATIENCE_SECONDS)
        with connect(server.server_address) as client:
            server.handle_request()
            client.sendall(b"hello\n")
            assert read_line(client) == b"hello\n"
    assert seen == [None]


@BOTH
@blocking
def test_a_timeout_that_get_request_sets_is_the_handlers(modules):
    class Server(modules.socketserver.ThreadingTCPServer):
        def get_request(self):
            request, client_address = super().get_request()
            request.settimeout(0.05)
            return request, client_address

        def handle_error(self, request, client_address):
            raised.append(sys.exc_info()[0])

    raised = []
    with Server(ADDRESS, Echo) as server, connect(server.server_address) as client:
        server.handle_request()
        assert client.recv(1) == b""
    assert raised == [TimeoutError]
