"""Servers without a mix-in whose HTTP connections are parked: what is served where, and when."""

import contextlib
import functools
import http.server as stdlib_http
import socket
import socketserver as stdlib_socketserver
import ssl
import sys
import textwrap
import threading
import time
from contextlib import contextmanager

import pytest

from sockserve import Deadlines
from sockserve.dropin.background_reactor import private_reactor
from tests.integration.servers import (
    PATIENCE_SECONDS,
    certificate_file,
    connect,
    connect_tls,
    is_ended,
    read_all,
    read_line,
)
from tests.integration.socketservers import (
    BOTH,
    OURS,
    blocking,
    eventually,
    looping,
    run_program,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

ADDRESS = ("127.0.0.1", 0)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Page(stdlib_http.BaseHTTPRequestHandler):
    """Says on which thread it was made; what else it does the server says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.serve_page(self)

    def do_POST(self):
        self.answer(str(len(self.rfile.read(int(self.headers["Content-Length"])))))

    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments):
        pass


def make(base=OURS.http.HTTPServer, serve_page=None, address=ADDRESS, handler=Page, **attributes):
    def answer(self, handler):
        handler.answer(threading.current_thread().name)

    methods = {"serve_page": serve_page or answer, "request_queue_size": 100, **attributes}
    words = {}
    if isinstance(base, functools.partial):
        base, words = base.func, base.keywords
    return type("Server", (base,), methods)(address, handler, **words)


def is_cut_off(client):
    """Whether a connection over TLS ends, without TLS's own end, as the standard library has it."""
    try:
        return client.recv(1) == b""
    except (ssl.SSLEOFError, ConnectionError):
        return True


def ask(client, request=GET):
    """The status line and the body of an answer."""
    client.sendall(request)
    status = read_line(client)
    length = 0
    while (line := read_line(client)) not in (b"", b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    body = b""
    while len(body) < length:
        body += client.recv(length - len(body))
    return status.split()[1:2], body


@contextmanager
def serving(server, outcome):
    """C{serve_forever} on a thread, and what it raises in C{outcome}."""

    def serve():
        try:
            server.serve_forever()
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=serve, name="serving")
    thread.start()
    try:
        yield thread
    finally:
        server.shutdown()
        thread.join(PATIENCE_SECONDS)
        server.server_close()


@pytest.mark.parametrize(
    ("base", "path"),
    [
        (OURS.http.HTTPServer, False),
        (OURS.socketserver.TCPServer, False),
        (OURS.socketserver.UnixStreamServer, True),
    ],
)
@blocking
def test_idle_and_silent_connections_block_nobody(base, path, tmp_path):
    server = make(base, address=str(tmp_path / "s") if path else ADDRESS)
    with looping(server) as thread:
        clients = [connect(server.server_address) for _ in range(5)]
        silent, unfinished, *kept = clients
        unfinished.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
        for _ in range(2):
            for client in kept:
                assert ask(client) == ([b"200"], thread.name.encode())
        assert ask(unfinished, b" done") == ([b"200"], b"9")
        assert ask(silent) == ([b"200"], thread.name.encode())
        for client in clients:
            client.close()


@blocking
def test_one_request_is_served_at_a_time():
    """Twenty clients at once; the first one served holds up all others, as there is one thread."""
    begun, asked = threading.Semaphore(0), threading.Event()
    threads = set()

    def serve_page(server, handler):
        threads.add(threading.current_thread())
        begun.release()
        assert asked.wait(PATIENCE_SECONDS)
        handler.answer("done")

    server = make(serve_page=serve_page)
    with looping(server) as thread:
        clients = [connect(server.server_address) for _ in range(20)]
        for client in clients:
            client.sendall(GET)
        assert begun.acquire(timeout=PATIENCE_SECONDS)
        assert not begun.acquire(blocking=False)
        asked.set()
        for client in clients:
            assert ask(client, b"")[1] == b"done"
            client.close()
    assert threads == {thread}


@blocking
def test_a_head_and_a_body_written_apart_leave_without_a_pause():
    """Without TCP_NODELAY 200 requests would take 200 times 40 ms."""
    server = make()
    with looping(server), connect(server.server_address) as client:
        began = time.perf_counter()
        for _ in range(200):
            post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
            assert ask(client, post)[1] == b"3"
        assert time.perf_counter() - began < 6


@pytest.mark.parametrize("is_parked", [True, False])
@blocking
def test_connections_have_tcp_nodelay(is_parked):
    def serve_page(server, handler):
        option = handler.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        handler.answer(str(bool(option)))

    server = make(serve_page=serve_page, parks_connections=is_parked)
    with looping(server), connect(server.server_address) as client:
        assert ask(client, LAST)[1] == b"True"


@blocking
def test_what_takes_its_time_is_sent_as_it_comes():
    """The handler goes on only when the client has had what it has sent."""
    has_arrived = threading.Event()

    def serve_page(server, handler):
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        for _ in range(3):
            handler.wfile.write(b"event\n")
            assert has_arrived.wait(PATIENCE_SECONDS)
            has_arrived.clear()

    server = make(serve_page=serve_page)
    with looping(server), connect(server.server_address) as client:
        client.sendall(GET)
        while read_line(client) != b"\r\n":
            pass
        for _ in range(3):
            assert read_line(client) == b"event\n"
            has_arrived.set()
        assert is_ended(client)


@blocking
def test_large_bodies_and_answers():
    server = make(serve_page=lambda server, handler: handler.answer("x" * 3_000_000))
    with looping(server), connect(server.server_address) as client:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n"
        assert ask(client, head + b"x" * 3_000_000)[1] == b"3000000"
        assert len(ask(client)[1]) == 3_000_000
        assert ask(client)[0] == [b"200"]


@BOTH
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@blocking
def test_what_is_no_exception_ends_serve_forever(modules, error):
    def serve_page(server, handler):
        raise error

    outcome = []
    server = make(modules.http.HTTPServer, serve_page)
    with serving(server, outcome) as thread, connect(server.server_address) as client:
        client.sendall(GET)
        assert is_ended(client)
        thread.join(PATIENCE_SECONDS)
    assert [type(each) for each in outcome] == [error]


@pytest.mark.parametrize("raises", [True, False])
@blocking
def test_an_exception_is_told_to_handle_error_on_the_serving_thread(raises):
    """
    And what that raises itself ends C{serve_forever}; as in the standard library, which then leaves
    the connection open.
    """
    told, outcome = [], []

    def serve_page(server, handler):
        raise ValueError

    def handle_error(server, request, client_address):
        told.append((threading.current_thread().name, sys.exc_info()[0], client_address))
        if raises:
            raise RuntimeError

    server = make(serve_page=serve_page, handle_error=handle_error)
    with serving(server, outcome) as thread, connect(server.server_address) as client:
        address = client.getsockname()
        client.sendall(GET)
        if raises:
            thread.join(PATIENCE_SECONDS)
        else:
            assert is_ended(client)
        assert told == [("serving", ValueError, address)]
    assert [type(each) for each in outcome] == [RuntimeError] * raises


@blocking
def test_shutdown_ends_idle_connections_and_waits_for_the_request_under_way():
    has_begun, may_end = threading.Event(), threading.Event()

    def serve_page(server, handler):
        has_begun.set()
        assert may_end.wait(PATIENCE_SECONDS)
        handler.answer("late")

    outcome = []
    server = make(serve_page=serve_page)
    with serving(server, outcome) as thread:
        idle, client, waiting = (connect(server.server_address) for _ in range(3))
        client.sendall(GET)
        assert has_begun.wait(PATIENCE_SECONDS)
        waiting.sendall(GET)
        shutdown = threading.Thread(target=server.shutdown)
        shutdown.start()
        eventually(lambda: server._BaseServer__shutdown_request)
        may_end.set()
        assert ask(client, b"")[1] == b"late"
        shutdown.join(PATIENCE_SECONDS)
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
        assert is_ended(idle)
        # As a client that nobody has accepted, it is served when somebody serves again.
        again = threading.Thread(target=server.serve_forever)
        again.start()
        assert ask(waiting, b"")[1] == b"late"
        server.shutdown()
        again.join()
        for each in (idle, client, waiting):
            each.close()
    assert not outcome


@blocking
def test_shutdown_out_of_a_handler():
    def serve_page(server, handler):
        server.shutdown()
        handler.answer("bye")

    server = make(serve_page=serve_page)
    with serving(server, []) as thread, connect(server.server_address) as client:
        assert ask(client)[1] == b"bye"
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


@blocking
def test_server_close_ends_connections_whose_requests_nobody_serves():
    """One under way, one waiting, half a body, half a head, and nothing: all of them end."""
    has_begun, may_end = threading.Event(), threading.Event()

    def serve_page(server, handler):
        has_begun.set()
        assert may_end.wait(PATIENCE_SECONDS)
        handler.answer("late")

    server = make(serve_page=serve_page)
    with serving(server, []):
        clients = [connect(server.server_address) for _ in range(5)]
        clients[0].sendall(GET)
        assert has_begun.wait(PATIENCE_SECONDS)
        clients[1].sendall(GET)
        clients[2].sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
        clients[3].sendall(b"GET / HT")
        server.server_close()
        for client in clients[1:]:
            assert is_ended(client)
        may_end.set()
        assert ask(clients[0], b"")[1] == b"late"
        for client in clients:
            client.close()


@blocking
def test_server_close_ends_connections_on_which_half_a_request_is_about_to_arrive():
    """The kernel has it, and the reactor is busy until it is told of the close."""
    server = make()
    with serving(server, []), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server.server_address)) for _ in range(3)]
        for client in clients:
            ask(client)
        reactor = private_reactor()
        # Before the second, the reactor has looked at the sockets for the last time.
        holds = [threading.Event(), threading.Event()]
        has_come = threading.Event()
        reactor.callFromThread(holds[0].wait, PATIENCE_SECONDS)
        reactor.callFromThread(lambda: None)
        reactor.callFromThread(lambda: (has_come.set(), holds[1].wait(PATIENCE_SECONDS)))
        closing = threading.Thread(target=server.server_close)
        closing.start()
        eventually(lambda: len(reactor.threadCallQueue) >= 4)
        holds[0].set()
        assert has_come.wait(PATIENCE_SECONDS)
        clients[0].sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
        clients[1].sendall(b"GET / HT")
        clients[2].sendall(GET)
        holds[1].set()
        for client in clients:
            assert is_ended(client)
        closing.join()


OVERRIDES = {
    "process_request": lambda base: {
        "process_request": lambda self, request, address: (
            self.called.append(threading.current_thread().name),
            base.process_request(self, request, address),
            self.called.append("done"),
        )
    },
    "finish_request": lambda base: {
        "finish_request": lambda self, request, address: (
            self.called.append(type(request)),
            base.finish_request(self, request, address),
        )
    },
    "close_request": lambda base: {
        "close_request": lambda self, request: (
            self.called.append(type(request)),
            base.close_request(self, request),
        )
    },
    "get_request": lambda base: {
        "get_request": lambda self: (base.get_request(self)[0], ("somebody", self.called.append(1)))
    },
}


@BOTH
@pytest.mark.parametrize("name", OVERRIDES)
@blocking
def test_overrides_are_called_with_what_they_always_were(modules, name):
    base = modules.http.HTTPServer
    server = make(base, called=[], **OVERRIDES[name](base))
    with looping(server) as thread, connect(server.server_address) as client:
        assert ask(client, LAST)[1] == thread.name.encode()
        assert is_ended(client)
    expected = {
        "process_request": [thread.name, "done"],
        "finish_request": [socket.socket],
        "close_request": [socket.socket],
        "get_request": [1],
    }
    assert server.called == expected[name]


@BOTH
@blocking
def test_a_method_set_on_a_server_that_serves_is_called_from_then_on(modules):
    called = []
    server = make(modules.http.HTTPServer)
    with looping(server):
        for _ in range(2):
            with connect(server.server_address) as client:
                assert ask(client, LAST)[0] == [b"200"]

            def finish_request(request, address):
                called.append(type(request))
                modules.http.HTTPServer.finish_request(server, request, address)

            server.finish_request = finish_request
    assert called == [socket.socket]


@BOTH
@blocking
def test_handle_request_serves_one_connection_whole(modules):
    server = make(modules.http.HTTPServer, timeout=PATIENCE_SECONDS)
    with server, connect(server.server_address) as client:
        client.sendall(GET + LAST)
        server.handle_request()
        assert read_all(client).count(b"HTTP/1.1 200 OK") == 2


@blocking
def test_service_actions_are_called_between_requests():
    """However long the interval is, at which they would be called else."""
    server = make(service_actions=lambda self: self.turns.append(1), turns=[])
    with looping(server, 3600):
        for _ in range(3):
            before = len(server.turns)
            with connect(server.server_address) as client:
                assert ask(client, LAST)[0] == [b"200"]
            eventually(lambda before=before: len(server.turns) > before)


# Over TLS


@contextmanager
def secured(folder, is_wrapped=False, **attributes):
    """An C{HTTPSServer} that serves, or an C{HTTPServer} whose socket the program has wrapped."""
    pem = certificate_file(folder)
    if is_wrapped:
        server = make(**attributes)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    else:
        server = make(functools.partial(OURS.http.HTTPSServer, certfile=pem), **attributes)
    with looping(server):
        yield server


@pytest.mark.parametrize("is_wrapped", [False, True])
@blocking
def test_idle_and_silent_connections_over_tls_block_nobody(tmp_path, is_wrapped):
    with secured(tmp_path, is_wrapped) as server:
        mute = connect(server.server_address)  # not even a handshake
        silent, unfinished, *kept = (connect_tls(server.server_address) for _ in range(5))
        unfinished.sendall(b"GET / HT")
        for _ in range(2):
            for client in kept:
                assert ask(client)[0] == [b"200"]
        assert ask(unfinished, b"TP/1.1\r\nHost: a\r\n\r\n")[0] == [b"200"]
        assert ask(silent)[0] == [b"200"]
        for client in (mute, silent, unfinished, *kept):
            client.close()


@blocking
def test_handlers_over_tls_have_the_socket_that_they_always_had(tmp_path):
    def serve_page(server, handler):
        request = handler.request
        request.getpeercert()
        handler.answer(f"{type(request).__name__} {request.version()} {request.gettimeout()}")

    with (
        secured(tmp_path, serve_page=serve_page) as server,
        connect_tls(server.server_address) as client,
    ):
        for _ in range(2):
            assert ask(client)[1] == f"SSLSocket {client.version()} None".encode()


@blocking
def test_requests_over_tls_that_come_together_and_bodies(tmp_path):
    with secured(tmp_path) as server, connect_tls(server.server_address) as client:
        post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000
        client.sendall(GET + post + GET)
        assert [ask(client, b"")[0] for _ in range(3)] == [[b"200"]] * 3
        assert ask(client, post)[1] == b"200000"
        assert ask(client, LAST)[0] == [b"200"]
        assert is_cut_off(client)


@pytest.mark.parametrize("in_buffer", [0, 1, len(GET) // 2, len(GET) - 1, len(GET), len(GET) + 1])
@blocking
def test_requests_over_tls_that_share_a_record_with_a_body(tmp_path, in_buffer):
    """
    The file of the first's handler takes 8192 bytes of the record, and so much of what follows
    the body; the rest has been decrypted by then, and is never announced.
    """
    size = 8192 - in_buffer
    with secured(tmp_path) as server, connect_tls(server.server_address) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        client.sendall(b"x" * size + GET + GET)
        assert [ask(client, b"")[0] for _ in range(3)] == [[b"200"]] * 3


@pytest.mark.parametrize("apart", [1, len(GET) // 2, len(GET) - 1])
@blocking
def test_half_a_head_over_tls_that_comes_with_a_request_has_the_time_of_a_head(tmp_path, apart):
    """Not the minute that an idle connection has; the rest of it, in time, is served."""
    with secured(tmp_path) as server, connect_tls(server.server_address) as client:
        assert ask(client, GET + GET[:apart])[0] == [b"200"]
        assert ask(client, GET[apart:])[0] == [b"200"]
    deadlines = Deadlines(header=0.2, idle=2 * PATIENCE_SECONDS)
    with (
        secured(tmp_path, deadlines=deadlines) as server,
        connect_tls(server.server_address) as client,
    ):
        assert ask(client, GET + GET[:apart])[0] == [b"200"]
        client.settimeout(PATIENCE_SECONDS)
        assert is_cut_off(client)


@blocking
def test_what_a_handler_raises_over_tls(tmp_path):
    told, outcome = [], []

    def serve_page(server, handler):
        raise ValueError if handler.path == "/" else KeyboardInterrupt

    def handle_error(server, request, client_address):
        told.append((sys.exc_info()[0], client_address))

    pem = certificate_file(tmp_path)
    base = functools.partial(OURS.http.HTTPSServer, certfile=pem)
    server = make(base, serve_page, handle_error=handle_error)
    with serving(server, outcome) as thread:
        for request in (GET, GET.replace(b"/", b"/end", 1)):
            with connect_tls(server.server_address) as client:
                client.sendall(request)
                if request is not GET:  # nobody else answers that
                    assert read_line(client) == b"HTTP/1.1 500 Internal Server Error\r\n"
                    client.recv(2**16)
                assert is_cut_off(client)
                address = client.getsockname()
            told.append(address)
        thread.join(PATIENCE_SECONDS)
    assert told[0] == (ValueError, told[1])
    assert [type(each) for each in outcome] == [KeyboardInterrupt]


@pytest.mark.parametrize("closes", [False, True])
@blocking
def test_the_end_of_a_server_ends_idle_connections_over_tls(tmp_path, closes):
    """One that has a request under way ends after that."""
    has_begun, may_end = threading.Event(), threading.Event()

    def serve_page(server, handler):
        has_begun.set()
        assert may_end.wait(PATIENCE_SECONDS)
        handler.answer("late")

    with secured(tmp_path, serve_page=serve_page) as server:
        idle, client = (connect_tls(server.server_address) for _ in range(2))
        client.sendall(GET)
        assert has_begun.wait(PATIENCE_SECONDS)
        if closes:
            server.server_close()
            assert is_cut_off(idle)
            may_end.set()
        else:
            shutdown = threading.Thread(target=server.shutdown)
            shutdown.start()
            may_end.set()
            shutdown.join()
            assert is_cut_off(idle)
        assert ask(client, b"")[1] == b"late"
        assert is_cut_off(client)
        idle.close()
        client.close()


@pytest.mark.parametrize("begins", [b"", b"GET / HT"])
@blocking
def test_a_handlers_timeout_ends_an_idle_connection_over_tls(tmp_path, begins):
    class Impatient(Page):
        timeout = 2  # from the handshake on: the first request is to come within that

    with (
        secured(tmp_path, handler=Impatient) as server,
        connect_tls(server.server_address) as client,
    ):
        assert ask(client)[0] == [b"200"]
        client.sendall(begins)
        assert is_cut_off(client)


@blocking
def test_a_handler_of_another_kind_is_served_as_ever():
    class Line(stdlib_socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(self.rfile.readline())
            self.server.requests.append(type(self.request))

    server = make(OURS.socketserver.TCPServer, handler=Line, requests=[])
    with looping(server), connect(server.server_address) as client:
        client.sendall(b"hello\n")
        assert read_line(client) == b"hello\n"
        assert is_ended(client)
    assert server.requests == [socket.socket]


def test_a_child_that_a_handler_forks_and_that_returns_leaves_no_server():
    """It answers, and ends after that; the parent serves on."""
    said = run_program(
        """
        class Page(http_server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                pid = os.fork() if self.path == "/fork" else None
                if pid:
                    status = os.waitpid(pid, 0)[1]
                    self.server.statuses.append(status)
                    self.close_connection = True
                    return
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *arguments):
                pass


        with http_server.HTTPServer(("127.0.0.1", 0), Page) as server:
            server.statuses = []
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            for path in ("/", "/fork", "/"):
                client = http.client.HTTPConnection(*server.server_address)
                client.request("GET", path)
                print(client.getresponse().read().decode(), flush=True)
                client.close()
            server.shutdown()
            thread.join()
            print(server.statuses)
        """
    )
    assert said == ["ok", "ok", "ok", "[0]"]


#: An interrupt just where the answer has left and nobody knows yet that the handler is done.
BETWEEN = """
from sockserve.dropin.serving_thread import ServingThread

tell_end, told = ServingThread.tell_end, []

def interrupt(*arguments):
    if not told:
        told.append(True)
        raise KeyboardInterrupt
    tell_end(*arguments)

ServingThread.tell_end = interrupt
"""


@pytest.mark.parametrize("prelude", ["", BETWEEN])
def test_an_interrupt_ends_serve_forever_on_the_main_thread(prelude):
    """Idle connections are ended; the program goes on."""
    said = run_program(
        prelude
        + textwrap.dedent("""
        class Page(http_server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass


        def ask():
            with socket.create_connection(server.server_address) as client:
                client.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
                client.recv(1000)
                if "told" not in globals():
                    os.kill(os.getpid(), signal.SIGINT)
                print(client.recv(1000))


        with http_server.HTTPServer(("127.0.0.1", 0), Page) as server:
            thread = threading.Thread(target=ask)
            thread.start()
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            thread.join()
        """)
    )
    assert sorted(said) == ["b''", "interrupted"]
