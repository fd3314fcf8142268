"""
The drop-in modules' servers at their edges: timeouts that a program sets by itself, overrides
that raise or wrap, and who waits for whom at the end.
"""

import contextlib
import contextvars
import functools
import socket
import ssl
import threading

import pytest

from sockserve import ConfigurationError, Deadlines, StreamRequestHandler
from tests.integration.servers import certificate_file, connect_tls, read_all, read_line
from tests.integration.socketservers import (
    BOTH,
    OURS,
    PACKAGES,
    blocking,
    looping,
    run_program,
)

pytestmark = pytest.mark.usefixtures("no_leaks")

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connect(server):
    return socket.create_connection(server.server_address, 15)


def web(modules, **attributes):
    """An HTTP handler that answers with its connection's timeout."""

    class Web(modules.http.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = str(self.connection.gettimeout()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            """Quiet."""

    return type("Handler", (Web,), attributes)


def read_body(client):
    with client.makefile("rb") as answer:
        while (line := answer.readline()) != b"\r\n":
            assert line, "the connection has ended"
        return answer.readline(4)


# Timeouts


@BOTH
@pytest.mark.parametrize("parks", [True, False])
@blocking
def test_a_handlers_timeout_is_not_for_its_own_work(modules, parks):
    gate = threading.Event()

    def do_GET(self):
        gate.wait(15)
        super(handler, self).do_GET()

    handler = web(modules, timeout=0.1, do_GET=do_GET)
    variables = {"parks_connections": parks}
    server = type("Server", (modules.http.ThreadingHTTPServer,), variables)
    server = server(("127.0.0.1", 0), handler)
    with connect(server) as client:
        client.sendall(GET)  # before it is accepted, and so in time
        with looping(server):
            opens = threading.Timer(0.5, gate.set)  # well after the timeout
            opens.start()
            assert read_body(client) == b"0.1"
            opens.join()
            assert client.recv(1) == b""  # it is for waiting for the next request


@BOTH
@blocking
def test_a_timeout_that_get_request_sets(modules):
    class Server(modules.http.ThreadingHTTPServer):
        def get_request(self):
            request, client_address = super().get_request()
            request.settimeout(0.2)
            return request, client_address

    server = Server(("127.0.0.1", 0), web(modules))
    with connect(server) as client:
        client.sendall(GET)
        with looping(server):
            assert read_body(client) == b"0.2"
            assert client.recv(1) == b""


@blocking
def test_a_coroutine_needs_none_of_its_connections():
    class Echo(StreamRequestHandler):
        async def handle(self):
            self.wfile.write(await self.rfile.readline())

    class Server(OURS.socketserver.ThreadingTCPServer):
        def get_request(self):
            request, client_address = super().get_request()
            request.settimeout(0.2)
            return request, client_address

    server = Server(("127.0.0.1", 0), Echo)
    with looping(server), connect(server) as client:
        client.sendall(b"line\n")
        assert read_line(client) == b"line\n"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"max_threads": 0}, "max_threads: 0 is not a number of threads, 1 or more"),
        ({"max_threads": None}, "max_threads: None is not a number of threads, 1 or more"),
        (
            {"deadlines": None},
            "deadlines: None is no sockserve.Deadlines; a phase without one is None there",
        ),
    ],
)
def test_variables_that_cannot_be(variables, message):
    server = type("Server", (OURS.socketserver.ThreadingTCPServer,), variables)
    with pytest.raises(ConfigurationError) as raised:
        server(("127.0.0.1", 0), None)
    assert str(raised.value) == message


# Overrides


@blocking
def test_a_handle_error_that_raises_leaves_no_request_open(tmp_path):
    """As many do, with a bare raise; here it is asked on the reactor."""

    class Awaits(StreamRequestHandler):
        async def handle(self):
            """It cannot have TLS."""

    class Server(OURS.socketserver.ThreadingTCPServer):
        def handle_error(self, request, client_address):
            raise

    certificate = certificate_file(tmp_path)
    server = Server(("127.0.0.1", 0), Awaits)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with (
        hooked() as seen,
        looping(server),
        connect_tls(server.server_address, certificate) as client,
        contextlib.suppress(ssl.SSLError),  # there may be no farewell
    ):
        assert client.recv(1) == b""
    # The server has closed by now: it has waited for nothing.
    assert [type(each).__name__ for each in seen] == ["ConfigurationError"]


@BOTH
@blocking
def test_what_handle_error_raises_is_the_excepthooks(modules):
    def do_GET(self):
        raise ZeroDivisionError

    class Server(modules.http.ThreadingHTTPServer):
        daemon_threads = False

        def handle_error(self, request, client_address):
            raise LookupError

    server = Server(("127.0.0.1", 0), web(modules, do_GET=do_GET))
    with hooked() as seen, looping(server), connect(server) as client:
        client.sendall(GET)
        assert read_all(client) == b""
    assert [type(each) for each in seen] == [LookupError]


@contextlib.contextmanager
def hooked():
    """What C{threading.excepthook} hears."""
    seen = []
    usual, threading.excepthook = threading.excepthook, lambda args: seen.append(args.exc_value)
    try:
        yield seen
    finally:
        threading.excepthook = usual


@BOTH
@blocking
def test_an_override_that_wraps_what_it_overrides(modules):
    called = []

    class Server(modules.http.ThreadingHTTPServer):
        @functools.wraps(modules.http.ThreadingHTTPServer.finish_request)
        def finish_request(self, request, client_address):
            called.append(type(request))
            super().finish_request(request, client_address)

    server = Server(("127.0.0.1", 0), web(modules))
    with looping(server), connect(server) as client:
        client.sendall(GET)
        read_body(client)
    assert called == [socket.socket]


@blocking
def test_a_mix_in_has_its_servers_deadlines():
    class Door(OURS.socketserver.TCPServer):
        deadlines = Deadlines(idle=0.2)

    class ThreadingDoor(OURS.socketserver.ThreadingMixIn, Door):
        """As they are combined."""

    class Echo(OURS.socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(self.rfile.read())

    server = ThreadingDoor(("127.0.0.1", 0), Echo)
    with looping(server), connect(server) as client:
        assert client.recv(1) == b""


@BOTH
@blocking
def test_an_own_handler_on_either_kind_of_server(modules):
    class Echo(StreamRequestHandler):
        def handle(self):
            self.wfile.write(self.rfile.readline())

    class Server(OURS.socketserver.ThreadingMixIn, modules.socketserver.TCPServer):
        """A mix-in of ours with a server of theirs, too."""

    server = Server(("127.0.0.1", 0), Echo)
    with looping(server), connect(server) as client:
        client.sendall(b"line\n")
        assert read_line(client) == b"line\n"


@BOTH
@pytest.mark.parametrize("kind", ["TCPServer", "ThreadingTCPServer"])
@pytest.mark.parametrize("name", ["make", "make_one", "makes"])
@blocking
def test_what_makes_handlers_may_be_a_method(modules, kind, name):
    class Shout(modules.socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(self.rfile.readline().upper())

    class Maker:
        def make(self, *arguments):
            return Shout(*arguments)

        @classmethod
        def make_one(cls, *arguments):
            return Shout(*arguments)

        makes = functools.partialmethod(make)

    server = getattr(modules.socketserver, kind)(("127.0.0.1", 0), getattr(Maker(), name))
    with looping(server), connect(server) as client:
        client.sendall(b"line\n")
        assert read_line(client) == b"LINE\n"


@BOTH
@blocking
def test_a_server_may_serve_before_it_is_made(modules):
    begun, gate = threading.Event(), threading.Event()

    class Server(modules.socketserver.TCPServer):
        def server_activate(self):
            super().server_activate()
            self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
            self.thread.start()
            assert begun.wait(15)

        def service_actions(self):
            begun.set()
            gate.wait(15)

    with Server(("127.0.0.1", 0), None) as server:
        stopping = threading.Thread(target=server.shutdown)
        stopping.start()
        stopping.join(0.1)
        assert stopping.is_alive()  # it waits for the loop
        gate.set()
        stopping.join()
        server.thread.join()


@BOTH
@blocking
def test_a_context_variable_is_of_one_request_only(modules):
    user = contextvars.ContextVar("user", default="nobody")

    class Names(modules.socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(f"{user.get()}\n".encode())
            user.set("somebody")

    server = modules.socketserver.ThreadingTCPServer(("127.0.0.1", 0), Names)
    with looping(server):
        for _ in range(3):
            with connect(server) as client:
                assert read_all(client) == b"nobody\n"


# Ends


@BOTH
@blocking
def test_a_handler_that_closes_its_server(modules):
    raised = []

    class Closes(modules.socketserver.BaseRequestHandler):
        def handle(self):
            try:
                self.server.server_close()
            except RuntimeError as error:
                raised.append(str(error))

    server = modules.socketserver.ThreadingTCPServer(("127.0.0.1", 0), Closes)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    with connect(server) as client:
        thread.join()
        assert client.recv(1) == b""
    server.server_close()
    assert raised == ["cannot join current thread"]


@blocking
def test_a_server_that_has_closed_before_it_serves():
    """The standard library's C{shutdown} waits for it to begin."""
    server = OURS.socketserver.ThreadingTCPServer(("127.0.0.1", 0), None)
    server.shutdown()
    server.server_close()
    server.serve_forever()


@blocking
def test_a_signals_handler_may_shut_down_just_as_it_begins():
    """The handler runs on the thread that serves, between any two of its steps."""

    class Server(OURS.socketserver.TCPServer):
        begins = False

        @property
        def deadlines(self):
            if self.begins:
                self.shutdown()
            return Deadlines()

    with Server(("127.0.0.1", 0), None) as server:
        server.begins = True
        server.serve_forever()


@blocking
def test_shutdown_is_heard_between_two_requests_over_tls(tmp_path):
    """All have shaken hands already."""
    served, shaken = [], threading.Barrier(4)

    class Shuts(OURS.socketserver.BaseRequestHandler):
        def handle(self):
            served.append(self.client_address)
            with contextlib.suppress(threading.BrokenBarrierError):  # not all got in before
                shaken.wait(2)
            self.server.shutdown()

    certificate = certificate_file(tmp_path)
    server = OURS.socketserver.TCPServer(("127.0.0.1", 0), Shuts)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)

    def client():
        with contextlib.suppress(OSError), connect_tls(server.server_address, certificate) as sock:
            with contextlib.suppress(threading.BrokenBarrierError):
                shaken.wait(15)
            sock.recv(1)

    clients = [threading.Thread(target=client) for _ in range(3)]
    for each in clients:
        each.start()
    server.serve_forever()
    server.server_close()
    for each in clients:
        each.join()
    assert len(served) == 1


@PACKAGES
def test_a_handler_forks(package):
    """Its child has the connection as well, in which the answer has begun."""
    script = """
    class Forks(Web):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "9")
            self.end_headers()
            child = os.fork()
            if not child:
                self.wfile.write(b"by child ")
                os._exit(0)
            os.waitpid(child, 0)
    server = http_server.ThreadingHTTPServer(("127.0.0.1", 0), Forks)
    thread = background(server)
    client = http.client.HTTPConnection(*server.server_address)
    for _ in range(2):
        client.request("GET", "/")
        print(client.getresponse().read().decode())
    client.close()
    server.shutdown()
    thread.join()
    """
    assert run_program(script, package) == ["by", "child"] * 2


@PACKAGES
def test_the_main_threads_end_is_not_its_servers(package):
    """Neither for clients that it goes on to serve, nor for who waits for that thread."""
    script = """
    class Server(socketserver.ThreadingMixIn, http_server.HTTPServer):
        pass
    server = Server(("127.0.0.1", 0), Web)
    background(server, poll_interval=0.01)
    client = http.client.HTTPConnection(*server.server_address)
    def ask():
        client.request("GET", "/")
        return client.getresponse().read().decode()
    print(ask(), flush=True)
    def goes_on():
        threading.main_thread().join()
        print(ask(), flush=True)
        client.close()
        server.shutdown()
    threading.Thread(target=goes_on).start()
    """
    assert run_program(script, package) == ["ok", "ok"]


def test_a_server_closes_although_the_reactor_has_stopped():
    script = """
    from twisted.internet import reactor
    class Waits(socketserver.BaseRequestHandler):
        def handle(self):
            print("begun", flush=True)
            stopped.wait(15)
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Waits)
    stopped, closing = threading.Event(), threading.Event()
    def serve():
        thread = background(server)
        client = connect(server)
        while server._ThreadingMixIn__dispatcher is None:
            time.sleep(0.01)
        server.shutdown()
        thread.join()
        threading.Timer(0.2, reactor.callFromThread, [reactor.stop]).start()
        server.server_close()
        print("closed", flush=True)
    serving = threading.Thread(target=serve)
    reactor.callWhenRunning(serving.start)
    reactor.run()
    stopped.set()
    serving.join()
    """
    assert run_program(script) == ["begun", "closed"]
