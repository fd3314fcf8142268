"""What a program overrides is called when, where and with what the standard library calls it."""

import socket
import socketserver as stdlib_socketserver
import sys
import threading

import pytest

from tests.integration.servers import connect, is_ended, read_all, read_line
from tests.integration.socketservers import (
    BOTH,
    PACKAGES,
    STDLIB,
    blocking,
    eventually,
    looping,
    run_program,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

ADDRESS = ("127.0.0.1", 0)

#: On the serving thread; and where a mix-in has the handler run.
SERVING = ("get_request", "verify_request", "process_request")
HANDLING = ("finish_request", "handle_error", "shutdown_request", "close_request")


class Wilful(Exception):
    """What a handler raises here."""


class Echo(stdlib_socketserver.StreamRequestHandler):
    """Echoes by line; raises when asked to."""

    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
            if line == b"raise\n":
                raise Wilful


class Datagrams(stdlib_socketserver.BaseRequestHandler):
    """The same for datagrams."""

    def handle(self):
        data, sock = self.request
        sock.sendto(data, self.client_address)
        if data == b"raise\n":
            raise Wilful


def say(client, line):
    client.sendall(line)
    return read_line(client)


def tracing(base):
    """
    A server that notes of each method in C{trace} what thread it ran on, what exception was
    being handled, and whether the connection was open.
    """

    def note(name):
        def method(self, *arguments):
            request = arguments[0] if arguments else None
            self.trace.append(
                (
                    name,
                    threading.current_thread(),
                    sys.exc_info()[0],
                    isinstance(request, socket.socket) and request.fileno() >= 0,
                )
            )
            if name != "handle_error":
                return getattr(base, name)(self, *arguments)

        return method

    return type("Server", (base,), {name: note(name) for name in SERVING + HANDLING})


def trace_of(server, talk):
    """What is called for what one client does, by name; threads by what they are there for."""
    server.trace = []
    with looping(server) as serving:
        talk(server.server_address)
        eventually(lambda: any(entry[0] == "close_request" for entry in server.trace))
    places = {thread: "handling" for name, thread, *_ in server.trace if name == "finish_request"}
    places[serving] = "serving"
    trace = [(name, places.get(where, where), *more) for name, where, *more in server.trace]
    return sorted(trace, key=lambda entry: entry[0])


@pytest.mark.parametrize("verified", [True, False])
@pytest.mark.parametrize("wish", [b"end\n", b"raise\n"])
@pytest.mark.parametrize("kind", ["TCPServer", "ThreadingTCPServer", "ThreadingUnixStreamServer"])
@blocking
def test_streams_are_treated_as_by_the_standard_library(kind, wish, verified, tmp_path):
    import sockserve.socketserver

    def talk(address):
        with connect(address) as client:
            if verified:
                assert say(client, wish) == wish
                client.shutdown(socket.SHUT_WR)
            assert is_ended(client)

    found = []
    for number, module in enumerate([stdlib_socketserver, sockserve.socketserver]):
        where = str(tmp_path / str(number)) if "Unix" in kind else ADDRESS
        cls = tracing(getattr(module, kind))
        if not verified:
            cls.verify_request = lambda server, request, client_address: False
        found.append(trace_of(cls(where, Echo), talk))
    expected, trace = found
    assert trace == expected
    assert [entry[0] for entry in trace].count("finish_request") == verified


@pytest.mark.parametrize("wish", [b"end\n", b"raise\n"])
@pytest.mark.parametrize("kind", ["UDPServer", "ThreadingUDPServer"])
@blocking
def test_datagrams_are_treated_as_by_the_standard_library(kind, wish):
    import sockserve.socketserver

    def talk(address):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(15)
            client.sendto(wish, address)
            assert client.recv(100) == wish

    expected, trace = (
        trace_of(tracing(getattr(module, kind))(ADDRESS, Datagrams), talk)
        for module in (stdlib_socketserver, sockserve.socketserver)
    )
    assert trace == expected


@BOTH
@blocking
def test_what_process_request_raises_is_handled_on_the_serving_thread(modules):
    seen = []

    class Server(modules.socketserver.ThreadingTCPServer):
        def process_request(self, request, client_address):
            raise Wilful

        def handle_error(self, request, client_address):
            seen.append((threading.current_thread() is serving, sys.exc_info()[0]))

    server = Server(ADDRESS, Echo)
    with looping(server) as serving, connect(server.server_address) as client:
        assert read_all(client) == b""
    assert seen == [(True, Wilful)]


@BOTH
@blocking
def test_what_verify_request_raises_ends_serve_forever(modules):
    class Server(modules.socketserver.TCPServer):
        def verify_request(self, request, client_address):
            kept.append(request)
            raise Wilful

    kept = []
    with Server(ADDRESS, Echo) as server, connect(server.server_address):
        with pytest.raises(Wilful):
            server.serve_forever()
        server.shutdown()
        kept.pop().close()


@BOTH
@pytest.mark.parametrize("name", ["shutdown_request", "close_request", "handle_error"])
@blocking
def test_an_http_connections_end_is_told_where_its_handler_was(modules, name):
    """Once, while the connection is open, by the thread that has served it."""

    class Web(modules.http.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            handled.add(threading.get_ident())
            if self.path == "/raise":
                raise Wilful
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            """Quiet."""

    class Server(modules.http.ThreadingHTTPServer):
        def note(self, request, *address):
            here, error = threading.get_ident() in handled, sys.exc_info()[0]
            seen.append((here, request.fileno() >= 0, error))
            if name != "handle_error":
                getattr(super(), name)(request)

        def handle_error(self, request, client_address):
            """Quiet."""

    setattr(Server, name, Server.note)
    handled, seen = set(), []
    server = Server(ADDRESS, Web)
    with looping(server), connect(server.server_address) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /raise HTTP/1.1\r\nHost: a\r\n\r\n")
        assert is_ended(client)
        eventually(lambda: seen)
    assert seen == [(True, True, Wilful if name == "handle_error" else None)]


@BOTH
@blocking
def test_service_actions_and_handle_timeout(modules):
    class Server(modules.socketserver.ThreadingTCPServer):
        timeout = 0.01

        def service_actions(self):
            actions.append(threading.current_thread())

        def handle_timeout(self):
            silences.append(threading.current_thread())

    actions, silences = [], []
    server = Server(ADDRESS, Echo)
    server.handle_request()
    with looping(server) as serving:
        eventually(lambda: len(actions) > 2)
    assert silences == [threading.current_thread()]
    assert set(actions) == {serving}


@PACKAGES
def test_a_forked_child_calls_what_is_about_its_connection(package):
    script = """
    class Raises(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"x\\n")
            raise ValueError
    class Server(socketserver.ForkingTCPServer):
        parent = os.getpid()
        def handle_error(self, request, client_address):
            assert sys.exc_info()[0] is ValueError
            tell(self, "handle_error")
    def tell(self, name):
        where = "child" if os.getpid() != self.parent else "serving"
        if where == "serving" and threading.current_thread() is not thread:
            where = "?"
        os.write(out, f"{name}:{where} ".encode())
    def telling(name):
        def method(self, *arguments):
            tell(self, name)
            return getattr(super(Server, self), name)(*arguments)
        setattr(Server, name, method)
    for name in ("get_request", "verify_request", "process_request", "finish_request",
                 "shutdown_request", "close_request"):
        telling(name)
    into, out = os.pipe()
    server = Server(("127.0.0.1", 0), Raises)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    print(say(server))
    server.shutdown()
    thread.join()
    server.server_close()  # waits for the child
    print(*sorted(os.read(into, 10000).decode().split()))
    """
    assert run_program(script, package) == [
        "x",
        "close_request:child",
        "close_request:serving",
        "finish_request:child",
        "get_request:serving",
        "handle_error:child",
        "process_request:serving",
        "shutdown_request:child",
        "verify_request:serving",
    ]


@BOTH
@blocking
def test_a_finish_request_gets_the_accepted_connection_once(modules):
    """For all that is asked on it, be it HTTP."""

    class Web(modules.http.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            """Quiet."""

    class Server(modules.http.ThreadingHTTPServer):
        def get_request(self):
            accepted.append(super().get_request())
            return accepted[0]

        def finish_request(self, request, client_address):
            finished.append((request, client_address))
            self.RequestHandlerClass(request, client_address, self)

    accepted, finished = [], []
    server = Server(ADDRESS, Web)
    with looping(server), connect(server.server_address) as client:
        for _ in range(2):
            assert say(client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") == b"HTTP/1.1 200 OK\r\n"
            while read_line(client) > b"\r\n":
                pass
        client.shutdown(socket.SHUT_WR)
        assert is_ended(client)
    assert finished == accepted
    assert [type(request) for request, _ in finished] == [socket.socket]


@BOTH
@blocking
def test_a_thread_of_the_programs_own_serves(modules):
    """A C{process_request} that does what the mix-in's does, as many programs have it."""

    class Server(modules.http.ThreadingHTTPServer):
        def process_request(self, request, client_address):
            thread = threading.Thread(
                target=self.process_request_thread, args=(request, client_address), name="mine"
            )
            threads.append(thread)
            thread.start()

    class Web(modules.http.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(threading.current_thread().name.encode())

        def log_message(self, *arguments):
            """Quiet."""

    threads = []
    server = Server(ADDRESS, Web)
    with looping(server), connect(server.server_address) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert read_all(client).endswith(b"\r\n\r\nmine")
        threads[0].join()


@pytest.mark.parametrize(
    ("mix_in", "base"),
    [("sockserve", "stdlib"), ("stdlib", "sockserve")],
)
@blocking
def test_a_mix_in_of_the_one_module_goes_with_a_server_of_the_other(mix_in, base):
    from tests.integration.socketservers import OURS

    modules = {"stdlib": STDLIB, "sockserve": OURS}

    class Server(modules[mix_in].socketserver.ThreadingMixIn, modules[base].socketserver.TCPServer):
        """Of both."""

    server = Server(ADDRESS, Echo)
    address = server.server_address
    with looping(server), connect(address) as one, connect(address) as other:
        assert say(other, b"other\n") == b"other\n"
        assert say(one, b"one\n") == b"one\n"
