"""How much of threads and descriptors the drop-in modules' servers take."""

import contextlib
import gc
import logging
import os
import resource
import select
import socket
import socketserver as stdlib_socketserver
import threading

import pytest

from tests.integration.servers import (
    PATIENCE_SECONDS,
    certificate_file,
    connect,
    is_ended,
    read_all,
    read_line,
    reset,
)
from tests.integration.socketservers import (
    BOTH,
    OURS,
    PACKAGES,
    blocking,
    eventually,
    looping,
    run_program,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

ADDRESS = ("127.0.0.1", 0)
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Gate:
    """Where handlers are held up; counts those that are inside."""

    def __init__(self):
        self.opened = threading.Event()
        self.lock = threading.Lock()
        self.inside = self.most = 0

    def __enter__(self):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        assert self.opened.wait(PATIENCE_SECONDS)

    def __exit__(self, *raised):
        with self.lock:
            self.inside -= 1


def gated(gate):
    class Web(OURS.http.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            with gate:
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *arguments):
            """Quiet."""

    return Web


def read_head(client):
    head = []
    while (line := read_line(client)) > b"\r\n":
        head.append(line)
    return head


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@blocking
def test_what_clients_have_sent_that_close_at_once_is_served(tmp_path):
    """Over UNIX sockets the kernel tells that they have gone: they want no answer."""
    gate, said = Gate(), []

    class Log(OURS.socketserver.StreamRequestHandler):
        def handle(self):
            said.append(self.rfile.read())
            with gate:
                pass

    class Server(OURS.socketserver.ThreadingUnixStreamServer):
        max_threads = 1
        daemon_threads = False

    server = Server(str(tmp_path / "log"), Log)
    with looping(server):
        for number in range(5):
            with connect(server.server_address) as client:
                client.sendall(b"%d" % number)
        eventually(lambda: gate.inside == 1)
        gate.opened.set()
        eventually(lambda: len(said) == 5)
    assert said == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("parks_connections", [True, False])
@blocking
def test_max_threads_is_the_bound_and_is_told_of_once(parks_connections, caplog):
    """Be the connections there before their requests, or not."""
    gate = Gate()

    class Server(OURS.http.ThreadingHTTPServer):
        max_threads = 3
        request_queue_size = 10
        daemon_threads = False

    Server.parks_connections = parks_connections
    server = Server(ADDRESS, gated(gate))
    with caplog.at_level(logging.WARNING, "sockserve"), contextlib.ExitStack() as stack:
        stack.enter_context(looping(server))
        clients = [stack.enter_context(connect(server.server_address)) for _ in range(10)]
        for client in clients:
            client.sendall(REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        eventually(lambda: gate.inside == 3)
        eventually(lambda: caplog.messages)
        assert select.select(clients, [], [], 0)[0] == []
        gate.opened.set()
        for client in clients:
            assert read_all(client).startswith(b"HTTP/1.1 200 ")
    assert gate.most == 3
    (message,) = caplog.messages
    assert "more than 3 requests at once, which is max_threads" in message


@blocking
def test_no_warning_where_all_have_a_thread(caplog):
    gate = Gate()

    class Server(OURS.http.ThreadingHTTPServer):
        max_threads = request_queue_size = 10
        daemon_threads = False

    server = Server(ADDRESS, gated(gate))
    with contextlib.ExitStack() as stack:
        stack.enter_context(looping(server))
        clients = [stack.enter_context(connect(server.server_address)) for _ in range(10)]
        for client in clients:
            client.sendall(REQUEST)
        eventually(lambda: gate.inside == 10)
        gate.opened.set()
        for client in clients:
            assert read_head(client)[0] == b"HTTP/1.1 200 OK\r\n"
            client.close()
    assert caplog.messages == []


@blocking
def test_clients_that_wait_and_go_are_over_in_their_turn():
    gate = Gate()

    class Server(OURS.socketserver.ThreadingTCPServer):
        max_threads = 1
        request_queue_size = 10

    class Handler(stdlib_socketserver.StreamRequestHandler):
        def handle(self):
            with gate:
                for line in self.rfile:
                    self.wfile.write(line)

    server = Server(ADDRESS, Handler)
    with looping(server), connect(server.server_address) as first:
        eventually(lambda: gate.inside == 1)
        for _ in range(5):
            connect(server.server_address).close()
        last = connect(server.server_address)
        gate.opened.set()
        first.close()
        last.sendall(b"last\n")
        assert read_line(last) == b"last\n"
        last.close()


@BOTH
@blocking
def test_a_chat_whose_every_connection_holds_its_thread(modules):
    members = 200
    everybody = []
    lock = threading.Lock()

    class Member(stdlib_socketserver.StreamRequestHandler):
        def handle(self):
            with lock:
                everybody.append(self.wfile)
            self.wfile.write(b"welcome\n")
            for line in self.rfile:
                with lock:
                    for each in everybody:
                        each.write(line)
            with lock:
                everybody.remove(self.wfile)

    class Chat(modules.socketserver.ThreadingTCPServer):
        request_queue_size = members

    server = Chat(ADDRESS, Member)
    with looping(server), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server.server_address)) for _ in range(members)]
        for client in clients:
            assert read_line(client) == b"welcome\n"
        assert threading.active_count() >= members
        for speaker in (clients[0], clients[-1]):
            speaker.sendall(b"hello\n")
            for client in clients:
                assert read_line(client) == b"hello\n"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@blocking
def test_a_thousand_idle_connections_take_few_threads_and_a_descriptor_each():
    count = 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3 * count:
        pytest.skip(f"this needs {3 * count} descriptors, and {hard} is the limit here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3 * count), hard))

    class Server(OURS.http.ThreadingHTTPServer):
        request_queue_size = 100

    gate = Gate()
    gate.opened.set()
    try:
        server = Server(ADDRESS, gated(gate))
        with looping(server), contextlib.ExitStack() as stack:
            gc.collect()
            before = threading.active_count()
            held = descriptors()
            clients = []
            for _ in range(count):
                client = stack.enter_context(connect(server.server_address))
                clients.append(client)
                client.sendall(REQUEST)
                assert read_head(client)[0] == b"HTTP/1.1 200 OK\r\n"
            assert threading.active_count() - before < 30
            assert descriptors() - held < 2 * count + 30  # its clients' are here as well
            for client in (clients[0], clients[-1]):  # they are served still
                client.sendall(REQUEST)
                assert read_head(client)[0] == b"HTTP/1.1 200 OK\r\n"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


#: What the log says once of a want of descriptors.
WANT = (
    "Server: cannot accept connections (EMFILE), which wait; trying again every 0.1 s; raise the"
    " limit of open files (ulimit -n)\n"
)


@pytest.mark.parametrize(("kind", "room"), [("ThreadingTCPServer", 5), ("TCPServer", 0)])
def test_a_want_of_descriptors_passes(kind, room):
    """
    Who finds none waits; when there are some again, everybody is served.

    @param room: how many there are: some clients have one, unless one is all that is asked for
        at once, as by a serial server.
    """
    script = f"""
    import errno, resource
    base = socketserver.{kind}
    class Server(base):
        request_queue_size = 100
        def get_request(self):
            try:
                return super().get_request()
            except OSError as error:
                wanted.append(error.errno)
                raise
        def close_request(self, request):
            super().close_request(request)
            closed.set()
    class Line(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(self.rfile.readline())
    wanted = []
    closed = threading.Event()
    server = Server(("127.0.0.1", 0), Line)
    thread = background(server)
    print(say(server))
    closed.wait()  # or its descriptor, below the limit, would be one that somebody gets
    clients = [socket.socket() for _ in range(20)]
    free = os.dup(0)  # the lowest that is free
    os.close(free)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + {room}, limits[1]))
    for client in clients:
        client.settimeout(15)
        client.connect(server.server_address)
    while errno.EMFILE not in wanted:
        time.sleep(0.01)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for client in clients:
        client.sendall(b"y\\n")
    print({{client.makefile("rb").readline() for client in clients}} == {{b"y\\n"}})
    print(say(server))
    server.shutdown()
    thread.join()
    server.server_close()
    """
    assert run_program(script, stderr=WANT) == ["x", "True", "x"]


def test_a_want_of_descriptors_leaves_the_processor_to_others():
    script = """
    import resource
    attempts = []
    class Server(socketserver.TCPServer):
        def get_request(self):
            attempts.append(time.monotonic())
            return super().get_request()
        def service_actions(self):
            serves.set()
    serves = threading.Event()
    server = Server(("127.0.0.1", 0), Echo)
    thread = background(server, poll_interval=0.01)
    serves.wait(15)  # it has what descriptors it needs itself
    client = socket.socket()
    free = os.dup(0)  # the lowest that is free
    os.close(free)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    client.connect(server.server_address)
    while len(attempts) < 3:
        time.sleep(0.01)
    print(attempts[2] - attempts[0] >= 0.2)  # 0.1 s between two
    server.shutdown()
    thread.join()
    """
    assert run_program(script, stderr=WANT) == ["True"]


@pytest.mark.parametrize("serves_forever", [True, False])
def test_a_want_of_descriptors_over_tls_leaves_the_processor_to_others(tmp_path, serves_forever):
    """
    It says so once, takes next to no time of the processor's in two thirds of a second, and serves
    as soon as there are descriptors again.
    """
    script = f"""
    import logging, ssl
    import resource
    told = threading.Event()
    class Tells(logging.StreamHandler):
        def emit(self, record):
            super().emit(record)
            told.set()
    logging.basicConfig(handlers=[Tells(sys.stdout)], format="%(levelname)s")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain({str(certificate_file(tmp_path))!r})
    class Server(socketserver.TCPServer):
        def service_actions(self):
            turned.set()
    server = Server(("127.0.0.1", 0), Echo)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    trusting = ssl._create_unverified_context()
    def ask():
        with trusting.wrap_socket(client) as secured:
            print(say_on(secured), flush=True)
            secured.shutdown(socket.SHUT_RDWR)
    turned, is_over = threading.Event(), threading.Event()
    def handle_requests():
        while not is_over.is_set():
            server.handle_request()
            turned.set()
    client = socket.create_connection(server.server_address, 15)
    if {serves_forever}:
        thread = background(server)
    else:
        thread = threading.Thread(target=handle_requests)
        thread.start()
    ask()  # it has what descriptors it needs itself
    client = socket.socket()
    client.settimeout(15)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))  # fewer than are open
    before = time.process_time()
    client.connect(server.server_address)
    if {serves_forever}:
        told.wait(15)  # it has tried
    end = time.monotonic() + 0.66
    while time.monotonic() < end:
        turned.clear()
        turned.wait(0.11)
    print(time.process_time() - before < 0.2, flush=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    ask()
    is_over.set()
    if {serves_forever}:
        server.shutdown()
    else:
        socket.create_connection(server.server_address).close()
    thread.join()
    server.server_close()
    """
    said = ["x", *["ERROR"] * serves_forever, "True", "x"]
    assert run_program(script) == said


def test_a_loop_that_finds_no_descriptors_says_so_and_may_be_shut_down():
    script = """
    import errno, resource
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    free = os.dup(0)
    os.close(free)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        server.serve_forever()
    except OSError as error:
        print(error.errno == errno.EMFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    stop = threading.Thread(target=server.shutdown, daemon=True)
    stop.start()
    stop.join(15)
    print(stop.is_alive())
    server.server_close()
    """
    assert run_program(script) == ["True", "False"]


@PACKAGES
def test_no_thread_is_left_when_a_server_has_closed(package):
    """By then, not some time later; and there is one reactor, not one for each server."""
    script = """
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:  # has what stays
        background(server, poll_interval=0.01), say(server), server.shutdown()
    before = set(threading.enumerate())
    for _ in range(20):
        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
            thread = background(server, poll_interval=0.01)
            say(server)
            server.shutdown()
            thread.join()
        assert set(threading.enumerate()) <= before, threading.enumerate()
    print("ended")
    """
    assert run_program(script, package) == ["ended"]


def ask_once(server):
    """One client that stays for its answer."""
    with connect(server.server_address) as client:
        client.sendall(REQUEST)
        client.shutdown(socket.SHUT_WR)
        assert is_ended(client)


@pytest.mark.parametrize("kind", ["ThreadingTCPServer", "ThreadingHTTPServer"])
@blocking
def test_nothing_is_left_of_clients_that_come_and_go(kind):
    class Line(stdlib_socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(self.rfile.readline())

    gate = Gate()
    gate.opened.set()
    http = kind == "ThreadingHTTPServer"
    module = OURS.http if http else OURS.socketserver

    class Server(getattr(module, kind)):
        request_queue_size = 300

        def handle_error(self, request, client_address):
            """Quiet: there are those that reset."""

    server = Server(ADDRESS, gated(gate) if http else Line)
    with looping(server):
        before = None
        for number in range(300):
            client = connect(server.server_address)
            with contextlib.suppress(ConnectionError):
                if number % 3:
                    client.sendall(REQUEST if number % 2 else REQUEST[:9])
            if number % 5:
                client.close()
            else:
                reset(client)
            if number == 20:
                ask_once(server)  # by then the loop runs, and has taken those before
                eventually(lambda: not gate.inside)
                gc.collect()
                before = descriptors()
        eventually(lambda: descriptors() <= before)
        ask_once(server)
