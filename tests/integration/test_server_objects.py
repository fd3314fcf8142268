"""Server objects of C{socketserver}'s kind, served as they stand by a service."""

import contextlib
import http.client
import http.server
import os
import socket
import socketserver
import ssl
import sys
import threading
import urllib.request
from typing import ClassVar

import pytest

import sockserve.http.server
import sockserve.socketserver
from sockserve import ConfigurationError, Deadlines, StreamRequestHandler
from sockserve.core.admission import Admission, parse_network
from sockserve.interfaces import Phase
from sockserve.service import SocketServerService
from tests.integration.servers import (
    certificate_file,
    in_thread,
    is_ended,
    read_all,
    read_line,
    secure,
    until,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")


class Echo(socketserver.StreamRequestHandler):
    """Echoes by line, and tells its thread."""

    def handle(self):
        for line in self.rfile:
            self.wfile.write(threading.current_thread().name.encode() + b" " + line)


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.server.greeting
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Quiet."""


class Serving:
    """A service that is started, and stopped again."""

    def __init__(self, server, **options):
        from twisted.internet import reactor

        self.object = server
        self.service = SocketServerService(server, reactor, **options)

    async def __aenter__(self):
        self.service.startService()
        return self.service.server

    async def __aexit__(self, *raised):
        await self.service.stopService()


def connect(server):
    return socket.create_connection(server.server_address, 15)


def renew_socket(server):
    """Have it listen again, on whatever port is free: its own may be another's by now."""
    server.socket = socket.create_server(("127.0.0.1", 0))
    server.server_address = server.socket.getsockname()


def say(client, line):
    client.sendall(line)
    return read_line(client)


@pytest.mark.parametrize("module", [socketserver, sockserve.socketserver])
async def test_a_serial_server_serves_one_after_another_on_one_thread(module):
    server = module.TCPServer(("127.0.0.1", 0), Echo)

    def talk():
        with connect(server) as first, connect(server) as second:
            one = say(first, b"one\n")
            second.sendall(b"two\n")
            first.shutdown(socket.SHUT_WR)
            return one, read_line(second)

    async with Serving(server) as factory:
        answers = await in_thread(talk)
        await until(lambda: factory.statistics.requests == 2 and factory.idle())
    assert [answer.split()[1] for answer in answers] == [b"one", b"two"]
    assert server.socket.fileno() == -1


@pytest.mark.parametrize("module", [socketserver, sockserve.socketserver])
async def test_a_threading_server_serves_side_by_side(module):
    server = module.ThreadingTCPServer(("127.0.0.1", 0), Echo)

    def talk():
        with connect(server) as first, connect(server) as second:
            return {say(client, b"x\n").split()[0] for client in (first, second, first)}

    async with Serving(server):
        assert len(await in_thread(talk)) == 2


async def test_a_forking_server_forks():
    class Tells(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.sendall(b"%d" % os.getpid())

    server = socketserver.ForkingTCPServer(("127.0.0.1", 0), Tells)

    def talk():
        with connect(server) as client:
            return int(read_all(client))

    async with Serving(server):
        child = await in_thread(talk)
    assert child != os.getpid()
    with pytest.raises(ProcessLookupError):  # server_close has waited for it
        os.kill(child, 0)


@pytest.mark.parametrize("module", [socketserver, sockserve.socketserver])
async def test_datagrams(module):
    class Answer(socketserver.DatagramRequestHandler):
        def handle(self):
            self.wfile.write(self.rfile.read().upper())

    server = module.ThreadingUDPServer(("127.0.0.1", 0), Answer)

    def talk():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(15)
            client.connect(server.server_address)
            client.send(b"abc")
            return client.recv(100)

    async with Serving(server):
        assert await in_thread(talk) == b"ABC"


async def test_its_overrides_run_on_one_thread_that_is_not_the_reactors():
    where = {}

    class Overrides(socketserver.ThreadingTCPServer):
        def get_request(self):
            where["get"] = threading.get_ident()
            return super().get_request()

        def verify_request(self, request, client_address):
            where["verify"] = threading.get_ident()
            return client_address[0] == "127.0.0.1"

        def service_actions(self):
            where["actions"] = threading.get_ident()

        def shutdown_request(self, request):
            where["shutdown"] = threading.get_ident()
            super().shutdown_request(request)

    server = Overrides(("127.0.0.1", 0), Echo)

    def talk():
        with connect(server) as client:
            say(client, b"x\n")
            client.shutdown(socket.SHUT_WR)
            return is_ended(client)

    async with Serving(server):
        assert await in_thread(talk)
        await until(lambda: {"actions", "shutdown"} <= where.keys())
    assert len({where["get"], where["verify"], where["actions"], threading.get_ident()}) == 2
    assert where["shutdown"] != where["get"]


async def test_a_process_request_of_its_own_is_called():
    class Own(socketserver.TCPServer):
        def process_request(self, request, client_address):
            request.sendall(b"mine\n")
            self.shutdown_request(request)

    server = Own(("127.0.0.1", 0), Echo)

    def talk():
        with connect(server) as client:
            return read_all(client)

    async with Serving(server):
        assert await in_thread(talk) == b"mine\n"


class Noting:
    """Notes which of its own come by."""

    def process_request(self, request, client_address):
        self.noted.append(threading.get_ident())
        super().process_request(request, client_address)


class Threading(Noting, socketserver.ThreadingTCPServer):
    pass


class Plain(socketserver.ThreadingTCPServer):
    pass


class Several(Plain, Threading):
    """C{Plain}'s is C{Threading}'s here."""


class Serial(Noting, socketserver.TCPServer):
    pass


class Ours(Noting, sockserve.socketserver.ThreadingTCPServer):
    pass


@pytest.mark.parametrize("kind", [Threading, Several, Serial, Ours])
async def test_what_its_process_request_leaves_is_sockserves(kind):
    """On its threads, under its deadlines, and counted."""
    server = kind(("127.0.0.1", 0), Echo)
    server.noted = []

    def talk():
        with connect(server) as client:
            return say(client, b"x\n")

    def be_silent():
        with connect(server) as client:
            return is_ended(client)

    async with Serving(server, threads=1) as counted:
        answer = await in_thread(talk)
        await until(lambda: counted.statistics.requests == 1)
        counted.deadlines = Deadlines(handle=0.2)
        assert await in_thread(be_silent)
        await until(lambda: counted.statistics.requests == 2)
        assert counted.statistics.expiries["handle"] == 1
    assert answer.startswith(b"sockserve-")
    assert len(server.noted) == 2
    [thread] = set(server.noted)
    assert thread != threading.get_ident()
    assert isinstance(server, kind)


class Explicit(socketserver.ThreadingTCPServer):
    def process_request(self, request, client_address):
        socketserver.ThreadingMixIn.process_request(self, request, client_address)


class Dynamic(socketserver.ThreadingTCPServer):
    def process_request(self, request, client_address):
        super(type(self), self).process_request(request, client_address)


class Registered(socketserver.ThreadingTCPServer):
    seen: ClassVar = []

    def __init_subclass__(cls):
        cls.seen.append(cls)

    def process_request(self, request, client_address):
        super().process_request(request, client_address)


@pytest.mark.parametrize("kind", [Explicit, Dynamic, Registered])
async def test_a_process_request_that_cannot_be_followed_is_as_it_was(kind):
    server = kind(("127.0.0.1", 0), Echo)
    server.daemon_threads = True

    def talk():
        with connect(server) as client:
            return say(client, b"x\n")

    async with Serving(server):
        assert (await in_thread(talk)).startswith(b"Thread-")
    assert type(server) is kind
    assert not Registered.seen


async def test_methods_may_make_sockserves_own_handlers():
    class Own(StreamRequestHandler):
        def handle(self):
            self.wfile.write(self.rfile.readline())

    class Maker:
        def make(self, *arguments):
            return Own(*arguments)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Maker().make)

    def talk():
        with connect(server) as client:
            return say(client, b"x\n")

    async with Serving(server):
        assert await in_thread(talk) == b"x\n"


async def test_a_process_request_that_is_set_on_the_object_is_called():
    server = socketserver.TCPServer(("127.0.0.1", 0), Echo)
    before = server.process_request

    def process_request(request, client_address):
        request.sendall(b"first\n")
        before(request, client_address)

    server.process_request = process_request

    def talk():
        with connect(server) as client:
            return read_line(client), say(client, b"x\n")

    async with Serving(server):
        assert await in_thread(talk) == (b"first\n", b"sockserve loop x\n")


async def test_what_one_of_its_methods_raises_ends_nothing(errors):
    class Fails(socketserver.ThreadingTCPServer):
        fails = True

        def verify_request(self, request, client_address):
            failing, self.fails = self.fails, False
            if failing:
                request.close()
                raise ZeroDivisionError
            return True

    server = Fails(("127.0.0.1", 0), Echo)

    def talk():
        with connect(server) as first, connect(server) as second:
            return is_ended(first), say(second, b"x\n")

    async with Serving(server):
        ended, answer = await in_thread(talk)
    assert ended
    assert answer.endswith(b" x\n")
    assert "ZeroDivisionError" in errors.pop()


async def test_one_silent_client_stops_no_serial_http_server():
    """As it does where the standard library serves it."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Web)
    server.greeting = b"hello"

    def talk():
        with connect(server) as silent, connect(server) as slow:
            slow.sendall(b"GET / HTT")
            url = f"http://127.0.0.1:{server.server_address[1]}/"
            with urllib.request.urlopen(url, timeout=15) as answer:
                body = answer.read()
            slow.sendall(b"P/1.1\r\nConnection: close\r\n\r\n")
            return body, read_all(slow), silent.fileno()

    async with Serving(server) as factory:
        body, late, _ = await in_thread(talk)
        assert body == b"hello"
        assert late.endswith(b"hello")
        assert factory.statistics.responses[2] == 2


async def test_deadlines_apply():
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)

    def talk():
        with connect(server) as client:
            say(client, b"x\n")
            return is_ended(client)

    async with Serving(server, deadlines=Deadlines(handle=0.2)) as factory:
        assert await in_thread(talk)
        assert factory.statistics.expiries["handle"] == 1


def own_process_request(request_of):
    """A server whose requests are not sockserve's to process."""

    class Own(socketserver.TCPServer):
        def process_request(self, request, client_address):
            self.finish_request(request, client_address)
            self.shutdown_request(request)

        def get_request(self):
            request, client_address = super().get_request()
            return request, request_of(client_address)

    return Own(("127.0.0.1", 0), Echo)


NETWORK_SERVERS = [
    lambda: socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo),
    lambda: socketserver.ForkingTCPServer(("127.0.0.1", 0), Echo),
    lambda: own_process_request(lambda address: address),
    lambda: own_process_request(lambda address: "somebody"),
]


@pytest.mark.parametrize("make", NETWORK_SERVERS)
@pytest.mark.parametrize("networks", [{"deny": "127.0.0.0/8"}, {"allow": "192.0.2.0/24"}])
async def test_networks_apply(make, networks):
    """Whoever processes the requests, and whatever the program calls its clients."""
    server = make()

    def talk():
        try:
            with connect(server) as client:
                return client.recv(1)
        except ConnectionResetError:  # perhaps as early as in connect
            return b""

    admission = Admission(**{word: [parse_network(text)] for word, text in networks.items()})
    told = []
    async with Serving(server, admission=admission) as factory:
        factory.observers.append(told.append)
        assert await in_thread(talk) == b""
        await until(lambda: told)
    assert factory.statistics.refused == {"network": 1}
    assert factory.statistics.accepted == 1
    assert [record.outcome for record in told] == ["refused: network"]


class Wrapper:
    """A request that is no socket, as some C{get_request} returns."""

    def __init__(self, sock):
        self._sock = sock

    def __getattr__(self, name):
        if name == "getpeername":
            raise AttributeError(name)
        return getattr(self._sock, name)


@pytest.mark.parametrize(
    ("name", "wrap", "served"),
    [
        (("192.0.2.7", 5), None, False),
        (("2001:db8::1", 5), None, False),
        (("2001:db8::1%eth0", 5, 0, 0), None, False),
        (("198.51.100.1", 5), None, True),
        ("somebody", None, True),  # the connection's own address counts
        (("somebody", 5), None, True),
        ("somebody", Wrapper, False),  # nobody knows
        (("somebody", 5), Wrapper, False),
        (("198.51.100.1", 5), Wrapper, True),
    ],
)
async def test_a_client_is_known_by_the_address_it_is_given(name, wrap, served):
    class Server(socketserver.ThreadingTCPServer):
        def get_request(self):
            request, _ = super().get_request()
            return (wrap(request) if wrap else request), name

    class Answers(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.sendall(b"served")

    server = Server(("127.0.0.1", 0), Answers)
    deny = [parse_network("192.0.2.0/24"), parse_network("2001:db8::/32")]

    def talk():
        with connect(server) as client:
            try:
                return read_all(client)
            except ConnectionResetError:
                return b""

    async with Serving(server, admission=Admission(deny=deny)) as counted:
        assert await in_thread(talk) == (b"served" if served else b"")
        await until(lambda: not counted.statistics.active)
    assert counted.statistics.refused["network"] == (not served)


async def test_clients_of_unix_sockets_have_no_network(tmp_path):
    server = socketserver.ThreadingUnixStreamServer(str(tmp_path / "s"), Echo)

    def talk():
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(server.server_address)
            return say(client, b"x\n")

    admission = Admission(allow=[parse_network("192.0.2.0/24")])
    async with Serving(server, admission=admission):
        assert (await in_thread(talk)).endswith(b" x\n")


async def test_the_servers_own_verify_request_is_asked_after_the_networks():
    asked = []

    class Server(socketserver.ThreadingTCPServer):
        def verify_request(self, request, client_address):
            asked.append(client_address[0])
            return False

    server = Server(("127.0.0.1", 0), Echo)

    def talk(host):
        with socket.create_connection(server.server_address, 15, (host, 0)) as client:
            return is_ended(client)

    admission = Admission(deny=[parse_network("127.0.0.2")])
    async with Serving(server, admission=admission):
        for host in ("127.0.0.2", "127.0.0.3"):
            assert await in_thread(talk, host)
    assert asked == ["127.0.0.3"]


async def test_networks_apply_to_datagrams():
    class Answer(socketserver.DatagramRequestHandler):
        def handle(self):
            self.wfile.write(self.rfile.read())

    server = socketserver.ThreadingUDPServer(("127.0.0.1", 0), Answer)
    admission = Admission(deny=[parse_network("127.0.0.2")])
    async with Serving(server, admission=admission) as factory:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as denied:
            denied.bind(("127.0.0.2", 0))
            denied.sendto(b"one", server.server_address)
            await until(lambda: factory.statistics.refused["network"] == 1)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(15)
                client.connect(server.server_address)
                client.send(b"two")
                assert await in_thread(client.recv, 100) == b"two"
            with pytest.raises(BlockingIOError):
                denied.recv(100, socket.MSG_DONTWAIT)
    assert factory.statistics.requests == 1


async def turns(serving):
    """Have the server's loop go round, after which it would have taken who had come before."""
    turned = threading.Event()
    serving.object.service_actions = turned.set
    for _ in range(2):
        turned.clear()
        serving.service._listener._loop.reopen()
        assert await in_thread(turned.wait, 15)


#: With this, a loop goes round for nothing but what it is woken up for.
SELDOM = {"poll_interval": 60.0}


@pytest.mark.parametrize("handler", [Echo, Web])
@pytest.mark.parametrize("kind", ["TCPServer", "ThreadingTCPServer"])
async def test_over_the_most_connections_clients_wait(handler, kind):
    server = getattr(socketserver, kind)(("127.0.0.1", 0), handler)
    server.greeting = b"hello"

    def late():
        with connect(server) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n" if handler is Web else b"x\n")
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

    serving = Serving(server, admission=Admission(max_connections=2), **SELDOM)
    async with serving as counted:
        with connect(server) as first, connect(server):
            await until(lambda: counted.statistics.active == 2)
            answer = in_thread(late)
            with connect(server):
                await turns(serving)
                assert counted.statistics.accepted == 2
                first.close()
                await until(lambda: counted.statistics.accepted > 2)
        assert (await answer).endswith(b"hello" if handler is Web else b"x\n")
        await until(lambda: counted.statistics.accepted == 4 and not counted.statistics.active)


async def test_other_listeners_connections_are_among_the_most():
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    admission = Admission(max_connections=1)

    def talk():
        with connect(server) as client:
            return say(client, b"x\n")

    serving = Serving(server, admission=admission, **SELDOM)
    async with serving as counted:
        admission.opened()
        answer = in_thread(talk)
        await turns(serving)
        assert not counted.statistics.accepted
        admission.closed()
        assert (await answer).endswith(b" x\n")
    assert not admission.gates


async def test_handshakes_are_among_the_most_connections(tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file(tmp_path))
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    server.socket = context.wrap_socket(server.socket, server_side=True)

    def talk():
        with secure(connect(server)) as client:
            return say(client, b"x\n")

    serving = Serving(server, admission=Admission(max_connections=1), **SELDOM)
    async with serving:
        with connect(server):  # and says nothing
            await turns(serving)
            answer = in_thread(talk)
            await turns(serving)
            assert not answer.called
        assert (await answer).endswith(b" x\n")
        with connect(server) as rude:
            rude.sendall(b"not TLS at all\n")
            assert (await in_thread(talk)).endswith(b" x\n")


async def test_clients_are_counted_out_whatever_the_program_calls_them():
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def get_request(self):
            return super().get_request()[0], None

    def one():
        with connect(server) as client:
            return read_line(client) if client.sendall(b"x\n") is None else None

    server = Server(("127.0.0.1", 0), Echo)
    async with Serving(server, admission=Admission(max_connections_per_peer=1)) as counted:
        for _ in range(3):
            assert (await in_thread(one)).endswith(b" x\n")
            await until(lambda: not counted.statistics.active)
        assert not counted.statistics.refused


@pytest.mark.parametrize("kind", ["ThreadingTCPServer", "ThreadingUDPServer", "UDPServer"])
async def test_what_has_become_of_requests(kind):
    """Byte counts are known of connections only."""
    told = []

    class Fails(socketserver.BaseRequestHandler):
        def handle(self):
            if isinstance(self.request, tuple):
                self.request[1].sendto(b"answer", self.client_address)
            else:
                self.request.recv(100)
                self.request.sendall(b"answer")
            raise ZeroDivisionError

    class Server(getattr(socketserver, kind)):
        def handle_error(self, request, client_address):
            """Quiet."""

    server = Server(("127.0.0.1", 0), Fails)

    def ask():
        with socket.socket(server.address_family, server.socket_type) as client:
            client.settimeout(15)
            client.connect(server.server_address)
            client.sendall(b"ask")
            assert client.recv(100) == b"answer"

    async with Serving(server) as counted:
        counted.observers.append(told.append)
        await in_thread(ask)
        await until(lambda: told)
        assert counted.statistics.errors == counted.statistics.requests == 1
        assert not counted.statistics.active
    [record] = told
    assert record.outcome == "error"
    assert record.phases.keys() >= {"queue", "handle"}
    known = (None, None) if "UDP" in kind else (3, 6)
    assert (record.received, record.sent) == known


async def test_stopping_lets_datagrams_be_answered():
    gate, begun = threading.Event(), threading.Event()

    class Waits(socketserver.BaseRequestHandler):
        def handle(self):
            begun.set()
            gate.wait(15)
            self.request[1].sendto(b"answer", self.client_address)

    server = socketserver.ThreadingUDPServer(("127.0.0.1", 0), Waits)
    serving = Serving(server)
    await serving.__aenter__()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(15)
        client.sendto(b"ask", server.server_address)
        await in_thread(begun.wait, 15)
        stopped = serving.service.stopService()
        gate.set()
        await stopped
        assert client.recv(100) == b"answer"
    assert server.socket.fileno() == -1


async def test_stopping_leaves_a_handler_of_datagrams_behind_that_does_not_end():
    """0.1 s (drain) and 0.1 s (abandon)."""
    gate, begun = threading.Event(), threading.Event()

    class Waits(socketserver.BaseRequestHandler):
        def handle(self):
            begun.set()
            gate.wait(15)

    server = socketserver.ThreadingUDPServer(("127.0.0.1", 0), Waits)
    serving = Serving(server, deadlines=Deadlines(drain=0.1, abandon=0.1))
    counted = await serving.__aenter__()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"ask", server.server_address)
        await in_thread(begun.wait, 15)
        await serving.service.stopService()
        # By the thread that closes the server, which may be late for abandon.
        await until(lambda: server.socket.fileno() == -1)
        assert counted.statistics.active == 1
    finally:
        gate.set()
    await until(lambda: not counted.statistics.active)


async def test_a_serial_server_does_not_complain_that_others_wait(caplog):
    gate = threading.Event()

    class Waits(socketserver.BaseRequestHandler):
        def handle(self):
            gate.wait(15)

    server = socketserver.TCPServer(("127.0.0.1", 0), Waits)
    async with Serving(server) as counted:
        with connect(server), connect(server):
            await until(lambda: counted.statistics.accepted == 2)
            gate.set()
            await until(lambda: counted.statistics.requests == 2)
    assert not caplog.records


async def test_stopping_lets_requests_end_and_closes_idle_connections():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    server.greeting = b"hello"
    client = http.client.HTTPConnection(*server.server_address, timeout=15)

    def get():
        client.request("GET", "/")
        return client.getresponse().read()

    async with Serving(server):
        assert await in_thread(get) == b"hello"
        sock = client.sock
    assert await in_thread(is_ended, sock)
    client.close()


class _Held:
    """A mix-in: the loop reaches C{service_actions}, and waits there."""

    request_queue_size = 8

    def hold(self):
        self.greeting = b"hello"
        self.reached, self.go_on = threading.Event(), threading.Event()

    def service_actions(self):
        super().service_actions()
        self.reached.set()
        assert self.go_on.wait(15)


class _OwnEnd(_Held):
    """A server that lets go of what its handlers need when it is closed."""

    def server_close(self):
        super().server_close()
        self.greeting = None


@pytest.mark.parametrize("mixin", [_Held, _OwnEnd])
@pytest.mark.parametrize(
    "base",
    [
        http.server.HTTPServer,
        http.server.ThreadingHTTPServer,
        sockserve.http.server.HTTPServer,
        sockserve.http.server.ThreadingHTTPServer,
    ],
)
@pytest.mark.parametrize("suspends", [False, True])
async def test_stopping_serves_clients_that_nobody_has_accepted_yet(mixin, base, suspends):
    """When the socket that listens is closed, the kernel resets those that wait in its queue."""
    server = type("Server", (mixin, base), {})(("127.0.0.1", 0), Web)
    server.hold()
    if mixin is _OwnEnd and base.__name__.startswith("Threading"):
        server.daemon_threads = False  # or it would not wait for them
    serving = Serving(server, **SELDOM)
    serving.service.startService()
    with contextlib.ExitStack() as clients:
        with connect(server):  # for a turn of the loop
            assert await in_thread(server.reached.wait, 15)
            waiting = [clients.enter_context(connect(server)) for _ in range(8)]
            for client in waiting:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            if suspends:
                serving.service.suspend()
            stopped = serving.service.stopService()
            server.go_on.set()
        for client in waiting:
            answer = await in_thread(read_all, client)
            assert answer.endswith(b"hello")
            assert b"Connection: close" in answer
        await stopped
    assert server.socket.fileno() < 0


class _Crowded(socketserver.ForkingMixIn, http.server.HTTPServer):
    """
    A server to which another client comes with each request that it has processed.

    @ivar come: these clients, or None for one who was refused.
    """

    request_queue_size = 64

    def process_request(self, request, client_address):
        super().process_request(request, client_address)
        try:
            client = connect(self)
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        except ConnectionRefusedError:
            client = None
        self.come.append(client)


async def test_stopping_serves_no_clients_for_ever():
    """Who waits is served by a child, and who comes meanwhile is refused, and not reset."""
    server = type("Server", (_Held, _Crowded), {})(("127.0.0.1", 0), Web)
    server.hold()
    server.come = []
    serving = Serving(server, **SELDOM)
    serving.service.startService()
    with contextlib.ExitStack() as clients:
        clients.enter_context(connect(server))  # for a turn of the loop
        assert await in_thread(server.reached.wait, 15)
        waiting = [clients.enter_context(connect(server)) for _ in range(8)]
        for client in waiting:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        stopped = serving.service.stopService()
        server.go_on.set()
        for client in waiting:
            assert (await in_thread(read_all, client)).endswith(b"hello")
    await stopped
    came = [client for client in server.come if client is not None]  # the loop was not told yet
    for client in came:
        with client:
            assert (await in_thread(read_all, client)).endswith(b"hello")
    assert server.come == came + [None] * (10 - len(came))
    assert len(came) < 10


@pytest.mark.parametrize("kind", ["stock", "own end", "UNIX"])
async def test_no_child_listens_for_a_server_that_has_stopped(kind, tmp_path):
    class Waits(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.sendall(b"begun\n")
            self.request.recv(1)
            self.request.sendall(b"done")

    class OwnEnd(socketserver.ForkingTCPServer):
        def server_close(self):
            self.ended_at = self.server_address
            super().server_close()

    class UnixServer(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
        pass

    if kind == "UNIX":
        server = UnixServer(str(tmp_path / "s"), Waits)
    else:
        base = {"stock": socketserver.ForkingTCPServer, "own end": OwnEnd}[kind]
        server = base(("127.0.0.1", 0), Waits)
    address = server.server_address

    def come():
        client = socket.socket(server.address_family)
        client.settimeout(15)
        try:
            client.connect(address)
        except BaseException:
            client.close()
            raise
        return client

    def is_refused():
        try:
            come().close()
        except ConnectionRefusedError:
            return True
        return False

    serving = Serving(server)
    await serving.__aenter__()
    with come() as client:
        assert await in_thread(read_line, client) == b"begun\n"
        stopped = serving.service.stopService()
        await until(is_refused)
        client.sendall(b"x")
        assert await in_thread(read_all, client) == b"done"
    await stopped
    assert kind != "own end" or server.ended_at == address


@pytest.mark.parametrize("is_parked", [True, False])
async def test_parking_is_as_the_object_says(is_parked):
    """A handler object for each request, or for each connection."""

    class Handler(Web):
        def __init__(self, *arguments):
            self.greets = 0
            super().__init__(*arguments)

        def do_GET(self):
            self.greets += 1
            self.server.greeting = str(self.greets).encode()
            super().do_GET()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.parks_connections = is_parked
    client = http.client.HTTPConnection(*server.server_address, timeout=15)

    def get():
        client.request("GET", "/")
        return client.getresponse().read()

    async with Serving(server):
        assert [await in_thread(get) for _ in range(2)] == [b"1", b"1" if is_parked else b"2"]
        client.close()


# The program's own end


class Quits(socketserver.StreamRequestHandler):
    """Shuts its server down, then answers."""

    def handle(self):
        line = self.rfile.readline()
        if line == b"thread\n":
            stopping = threading.Thread(target=self.server.shutdown)
            stopping.start()
            stopping.join()
        else:
            self.server.shutdown()
        self.wfile.write(b"down\n")


class Careful(socketserver.ThreadingTCPServer):
    """Ends with its socket's end, and says that it has."""

    def shutdown(self):
        super().shutdown()
        self.told.append("shutdown")

    def server_close(self):
        self.shutdown()
        super().server_close()
        self.told.append("closed")


KINDS = [
    socketserver.TCPServer,
    Careful,
    sockserve.socketserver.TCPServer,
    sockserve.socketserver.ThreadingTCPServer,
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("line", [b"here\n", b"thread\n"])
async def test_a_program_may_shut_its_server_down(kind, line):
    server = kind(("127.0.0.1", 0), Quits)
    server.told = []

    def talk():
        with connect(server) as client:
            return say(client, line), is_ended(client)

    serving = Serving(server)
    async with serving:
        assert await in_thread(talk) == (b"down\n", True)
        assert await serving.service.shut_down is None
        await until(lambda: server.socket.fileno() == -1)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_service_stops_whatever_server_close_does(kind):
    server = kind(("127.0.0.1", 0), Quits)
    server.told = []
    serving = Serving(server)
    async with serving:
        pass
    assert server.socket.fileno() == -1
    assert server.told == (["shutdown", "closed"] if kind is Careful else [])
    assert not serving.service.shut_down.called


class Sleeps(socketserver.BaseRequestHandler):
    """Tells whether its server has been closed meanwhile."""

    def handle(self):
        self.server.begun.set()
        self.server.gate.wait(15)
        self.request.sendall(b"%d" % self.server.is_closed)


class Closes:
    is_closed = False

    def server_close(self):
        super().server_close()
        self.is_closed = True


@pytest.mark.parametrize(
    ("base", "attributes", "closed"),
    [
        (socketserver.ThreadingTCPServer, {}, b"0"),
        (socketserver.TCPServer, {}, b"0"),
        (socketserver.ThreadingTCPServer, {"daemon_threads": True}, b"1"),
        (socketserver.ThreadingTCPServer, {"block_on_close": False}, b"1"),
        (sockserve.socketserver.ThreadingTCPServer, {}, b"0"),
    ],
)
async def test_server_close_waits_for_what_it_always_waited_for(base, attributes, closed):
    kind = type("Server", (Closes, base), attributes)
    server = kind(("127.0.0.1", 0), Sleeps)
    server.begun, server.gate = threading.Event(), threading.Event()
    serving = Serving(server)
    await serving.__aenter__()
    with connect(server) as client:
        await in_thread(server.begun.wait, 15)
        stopped = serving.service.stopService()
        if closed == b"1":
            await until(lambda: server.is_closed)
        server.gate.set()
        assert await in_thread(read_all, client) == closed
    await stopped
    assert server.is_closed


@pytest.mark.parametrize("shuts_down", [True, False])
async def test_children_are_killed_that_do_not_end(shuts_down):
    """0.1 s (drain)."""
    server = socketserver.ForkingTCPServer(("127.0.0.1", 0), Echo)
    serving = Serving(server, deadlines=Deadlines(drain=0.1))
    await serving.__aenter__()
    with connect(server) as client:
        await in_thread(say, client, b"x\n")
        if shuts_down:
            await in_thread(server.shutdown)
        await serving.service.stopService()
        assert await in_thread(is_ended, client)
    assert not server.active_children


@pytest.mark.parametrize("drain", [None, 15])
async def test_children_have_the_time_that_drain_gives_them(drain):
    class Waits(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.sendall(b"begun\n")
            self.request.recv(1)
            self.request.sendall(b"done")

    server = socketserver.ForkingTCPServer(("127.0.0.1", 0), Waits)
    serving = Serving(server, deadlines=Deadlines(drain=drain))
    await serving.__aenter__()
    with connect(server) as client:
        assert await in_thread(read_line, client) == b"begun\n"
        await in_thread(server.shutdown)
        await serving.service.shut_down
        stopped = serving.service.stopService()
        client.sendall(b"x")
        assert await in_thread(read_all, client) == b"done"
    await stopped
    assert server.socket.fileno() == -1


async def test_what_was_left_behind_is_closed_when_it_returns():
    """0.1 s (drain) and 0.1 s (twice abandon)."""
    gate, begun = threading.Event(), threading.Event()

    class Server(socketserver.ThreadingTCPServer):
        def verify_request(self, request, client_address):
            begun.set()
            return gate.wait(15) and False

    server = Server(("127.0.0.1", 0), Echo)
    serving = Serving(server, deadlines=Deadlines(drain=0.1, abandon=0.05))
    await serving.__aenter__()
    with connect(server):
        await in_thread(begun.wait, 15)
        await serving.service.stopService()
        assert server.socket.fileno() >= 0
        gate.set()
        await until(lambda: server.socket.fileno() < 0)


async def test_no_thread_to_close_on(monkeypatch, errors):
    server = socketserver.UDPServer(("127.0.0.1", 0), Echo)
    serving = Serving(server)
    await serving.__aenter__()

    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        await serving.service.stopService()
    assert "can't start new thread" in errors.pop()
    server.server_close()


async def test_a_server_close_that_does_not_return_is_left_behind():
    """0.1 s (drain) and 0.1 s (twice abandon)."""
    gate = threading.Event()

    class Server(socketserver.TCPServer):
        def server_close(self):
            super().server_close()
            gate.wait(15)

    serving = Serving(Server(("127.0.0.1", 0), Echo), deadlines=Deadlines(drain=0.1, abandon=0.05))
    await serving.__aenter__()
    await serving.service.stopService()
    assert not serving.service.running
    gate.set()


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
async def test_a_server_close_that_raises(error, errors):
    class Server(socketserver.TCPServer):
        def server_close(self):
            super().server_close()
            raise error

    serving = Serving(Server(("127.0.0.1", 0), Echo))
    await serving.__aenter__()
    await in_thread(serving.object.shutdown)
    await serving.service.shut_down
    await serving.service.stopService()
    assert error.__name__ in errors.pop()


async def test_shut_down_and_stopped_at_once():
    serving = Serving(socketserver.TCPServer(("127.0.0.1", 0), Echo))
    await serving.__aenter__()
    await in_thread(serving.object.shutdown)
    stopped = serving.service.stopService()
    await serving.service.shut_down
    await stopped


@pytest.mark.parametrize("way", ["shutdown", "flag", "exit"])
async def test_the_end_may_come_from_the_loop_itself(way, errors):
    class Server(socketserver.TCPServer):
        def service_actions(self):
            if way == "shutdown":
                self.shutdown()
            elif way == "flag":
                self._BaseServer__shutdown_request = True
            else:
                sys.exit("enough")

    serving = Serving(Server(("127.0.0.1", 0), Echo))
    async with serving:
        await serving.service.shut_down
    assert serving.object.socket.fileno() == -1
    if way == "exit":
        assert "SystemExit: enough" in errors.pop()


async def test_what_has_ended_or_has_not_yet_cannot_be_started():
    gate = threading.Event()

    class Server(socketserver.TCPServer):
        def server_close(self):
            gate.wait(15)
            super().server_close()

    serving = Serving(Server(("127.0.0.1", 0), Echo))
    await serving.__aenter__()
    stopped = serving.service.stopService()
    with pytest.raises(ConfigurationError, match="wait for what stopService returned"):
        serving.service.startService()
    gate.set()
    await stopped
    with pytest.raises(ConfigurationError, match="its socket is closed"):
        serving.service.startService()
    assert not serving.service.running
    assert serving.service.stopService().called


async def test_one_that_has_a_new_socket_is_started_again():
    server = socketserver.TCPServer(("127.0.0.1", 0), Echo)

    def talk():
        with connect(server) as client:
            return say(client, b"x\n")

    serving = Serving(server, admission=Admission(deny=[parse_network("192.0.2.1")]))
    for _ in range(2):
        async with serving:
            assert (await in_thread(talk)).endswith(b" x\n")
        renew_socket(server)
    server.server_close()


@pytest.mark.parametrize("kind", ["TCPServer", "ThreadingTCPServer", "ForkingTCPServer"])
async def test_a_service_is_suspended(kind):
    server = getattr(socketserver, kind)(("127.0.0.1", 0), Echo)

    def talk():
        with connect(server) as client:
            return say(client, b"x\n")

    serving = Serving(server, **SELDOM)
    async with serving:
        serving.service.suspend()
        answer = in_thread(talk)
        await turns(serving)
        assert not answer.called
        serving.service.resume()
        assert (await answer).endswith(b" x\n")


@pytest.mark.parametrize("kind", ["UDPServer", "TCPServer"])
async def test_a_close_after_the_requests_that_does_not_return_is_left_behind(kind):
    """0.1 s (drain) and 0.1 s (twice abandon)."""
    gate = threading.Event()

    class Server(getattr(socketserver, kind)):
        def server_close(self):
            super().server_close()
            gate.wait(15)

    serving = Serving(Server(("127.0.0.1", 0), Echo), deadlines=Deadlines(drain=0.1, abandon=0.05))
    await serving.__aenter__()
    if kind == "TCPServer":
        await in_thread(serving.object.shutdown)
    await serving.service.stopService()
    gate.set()


async def test_a_stuck_handler_of_a_serial_server_is_abandoned_before_that(errors):
    """0.1 s (drain), 0.1 s (abandon), and no more than as long again."""
    gate, begun = threading.Event(), threading.Event()
    shut_down = []

    class Stuck(socketserver.BaseRequestHandler):
        def handle(self):
            begun.set()
            gate.wait(15)

    class Server(Closes, socketserver.TCPServer):
        def shutdown_request(self, request):
            super().shutdown_request(request)
            shut_down.append(request)

    server = Server(("127.0.0.1", 0), Stuck)
    serving = Serving(server, deadlines=Deadlines(drain=0.1, abandon=0.1))
    counted = await serving.__aenter__()
    with connect(server):
        await in_thread(begun.wait, 15)
        await serving.service.stopService()
        await until(lambda: server.is_closed)
        assert counted.statistics.abandoned == 1
        gate.set()
        await until(lambda: shut_down)
    await until(lambda: not counted.statistics.abandoned)


async def test_a_loop_that_was_left_behind_ends_nothing_of_the_next():
    """0.1 s (drain) and 0.1 s (twice abandon)."""
    gate, begun = threading.Event(), threading.Event()

    class Server(socketserver.ThreadingTCPServer):
        def verify_request(self, request, client_address):
            begun.set()
            gate.wait(15)
            return True

    server = Server(("127.0.0.1", 0), Echo)
    serving = Serving(server, deadlines=Deadlines(drain=0.1, abandon=0.05))

    def talk():
        with connect(server) as client:
            return say(client, b"x\n")

    await serving.__aenter__()
    with connect(server):
        await in_thread(begun.wait, 15)
        await serving.service.stopService()
        async with serving:
            gate.set()
            assert (await in_thread(talk)).endswith(b" x\n")
            await turns(serving)
            assert (await in_thread(talk)).endswith(b" x\n")
            assert not serving.service.shut_down.called


async def test_one_that_was_shut_down_is_started_again_with_a_new_socket():
    server = socketserver.TCPServer(("127.0.0.1", 0), Echo)

    def talk():
        with connect(server) as client:
            return say(client, b"x\n")

    serving = Serving(server)
    for _ in range(2):
        async with serving:
            assert (await in_thread(talk)).endswith(b" x\n")
            await in_thread(server.shutdown)
            await serving.service.shut_down
        renew_socket(server)
    server.server_close()


async def test_no_thread_for_a_loop(monkeypatch):
    server = socketserver.TCPServer(("127.0.0.1", 0), Echo)
    serving = Serving(server)

    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(OSError, match="can't start new thread"):
            serving.service.startService()
    async with serving:  # it may be had now
        await in_thread(server.shutdown)


async def test_the_programs_own_server_close_waits_for_requests():
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Sleeps)
    server.is_closed = False
    server.begun, server.gate = threading.Event(), threading.Event()
    serving = Serving(server)
    async with serving:
        with connect(server) as client:
            await in_thread(server.begun.wait, 15)
            await in_thread(server.shutdown)
            closed = in_thread(server.server_close)
            await serving.service.shut_down
            assert not closed.called
            server.gate.set()
            assert await in_thread(read_all, client) == b"0"
        await closed


async def test_tls_wrapped_by_the_program(tmp_path, monkeypatch):
    """Its handshakes are on the service's reactor, whether that runs already or not."""
    monkeypatch.delattr("sockserve.dropin.accept_loop.running_reactor")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file(tmp_path))
    server = sockserve.socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    server.socket = context.wrap_socket(server.socket, server_side=True)

    def talk():
        with connect(server), secure(connect(server)) as client:
            return say(client, b"x\n")

    async with Serving(server):
        assert (await in_thread(talk)).endswith(b" x\n")


@pytest.mark.parametrize("kind", ["TCPServer", "wrapped", "HTTPSServer"])
async def test_a_slow_handshake_holds_up_nobody_without_a_mixin(kind, tmp_path):
    """It is ended by its deadline, 0.5 s; others are served meanwhile."""
    file = certificate_file(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    def make():
        if kind == "HTTPSServer":
            server = sockserve.http.server.HTTPSServer(("127.0.0.1", 0), Web, certfile=file)
        else:
            base = http.server.HTTPServer if kind == "wrapped" else sockserve.socketserver.TCPServer
            server = base(("127.0.0.1", 0), Web)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        server.greeting = b"hello"
        return server

    @contextlib.contextmanager
    def connect_slow(server):
        with connect(server) as slow:
            slow.sendall(b"\x16\x03\x01\x02")  # the beginning of a record
            yield slow

    def talk(server):
        with connect_slow(server), secure(connect(server)) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert read_line(client) == b"HTTP/1.1 200 OK\r\n"

    # Its deadline is later than anybody here would wait for.
    server = make()
    async with Serving(server, deadlines=Deadlines(handshake=60)):
        await in_thread(talk, server)

    def end_slow(server):
        with connect_slow(server) as slow:
            return is_ended(slow)

    server = make()
    async with Serving(server, deadlines=Deadlines(handshake=0.5)) as factory:
        assert await in_thread(end_slow, server)
        await until(lambda: factory.statistics.expiries[Phase.HANDSHAKE] == 1)


def closed():
    server = socketserver.TCPServer(("127.0.0.1", 0), Echo)
    server.server_close()
    return server


class NotBound(socketserver.TCPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Echo, bind_and_activate=False)


@pytest.mark.parametrize(
    ("make", "words", "message"),
    [
        (closed, {}, "TCPServer: its socket is closed"),
        (NotBound, {}, "NotBound: it does not listen; call its server_bind and server_activate"),
        (lambda: socketserver.BaseServer(None, Echo), {}, "BaseServer: it has no socket"),
        (lambda: socketserver.TCPServer, {}, "is not a socketserver.BaseServer"),
        (
            lambda: socketserver.TCPServer(("127.0.0.1", 0), None),
            {},
            "handler None is not a class or callable",
        ),
        (
            lambda: socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo),
            {"threads": 0},
            "threads: 0 is not a number of threads, 1 or more",
        ),
        (
            lambda: socketserver.TCPServer(("127.0.0.1", 0), Echo),
            {"deadlines": 3},
            "deadlines: 3 is no sockserve.Deadlines; a phase without one is None there",
        ),
    ],
)
async def test_what_cannot_be_served(make, words, message):
    server = make()
    try:
        with pytest.raises(ConfigurationError) as raised:
            Serving(server, **words)
        assert str(raised.value).endswith(message)
    finally:
        if hasattr(server, "socket"):
            server.socket.close()
