"""Blocking handlers on real connections: each has a real socket, lent or pumped."""

import fcntl
import os
import select
import socket
import socketserver
import ssl
import threading
import time

import pytest

import sockserve
from sockserve import Deadlines
from sockserve.executors import make_executor
from tests.integration.handlers import PIECE, BlockingEcho, StdlibEcho
from tests.integration.servers import (
    PATIENCE_SECONDS,
    PROXIED_CLIENT,
    PROXIED_SERVER,
    certificate_file,
    come_and_go,
    connect,
    connect_as,
    counts,
    description,
    in_thread,
    is_ended,
    read_all,
    read_exactly,
    read_line,
    reset,
    secure,
    serving,
    until,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

LENT = ["tcp", "tcp6", "unix"]
PUMPED = ["ssl", "haproxy:tcp", "haproxy:unix", "haproxy:ssl"]
#: One of each, for what cannot differ within.
ONE_OF_EACH = ["tcp", "haproxy:tcp"]


async def told(handler, kind, folder, message=b"", **options):
    """What a client is told that sends C{message}."""

    def talk(address):
        with connect_as(kind, address) as client:
            client.sendall(message)
            return read_all(client)

    async with serving(handler, description(kind, folder), **options) as server:
        answer = await in_thread(talk, server.server_address)
        await until(lambda: not server.statistics.active)
        assert counts(server) == {"accepted": 1, "requests": 1}
        return answer


@pytest.mark.parametrize("kind", LENT + PUMPED)
@pytest.mark.parametrize("handler", [StdlibEcho, BlockingEcho])
async def test_echo(handler, kind, tmp_path):
    def talk(address):
        with connect_as(kind, address) as client:
            for number in range(10):
                client.sendall(b"%d\n" % number)
                assert read_line(client) == b"%d\n" % number

    async with serving(handler, description(kind, tmp_path)) as server:
        await in_thread(talk, server.server_address)
        await until(lambda: not server.statistics.active)
        assert counts(server) == {"accepted": 1, "requests": 1}
        if kind != "unix":  # where the kernel does not count
            assert server.statistics.sent == server.statistics.received == 20


@pytest.mark.parametrize("kind", LENT + PUMPED)
async def test_addresses_are_the_connections_own(kind, tmp_path):
    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            names = self.client_address, self.request.getpeername(), self.request.getsockname()
            self.request.sendall(repr(names).encode())

    def talk(address):
        with connect_as(kind, address) as client:
            return eval(read_all(client)), client.getsockname(), address

    async with serving(Handler, description(kind, tmp_path)) as server:
        seen, own, peer = await in_thread(talk, server.server_address)
    if kind.startswith("haproxy:"):
        own, peer = PROXIED_CLIENT, PROXIED_SERVER
    assert seen == (own, own, peer)


# What handlers in the wild do with their sockets


def is_a_socket(request):
    return isinstance(request, socket.socket) and os.fstat(request.fileno()).st_mode


def blocks(request):
    return request.gettimeout() is None


def selects(request):
    readable, _, _ = select.select([request], [], [], 10)
    return readable and request.recv(100) == b"message\n"


def polls(request):
    poll = select.poll()
    poll.register(request, select.POLLIN)
    return poll.poll(10_000)


def controls(request):
    flags = fcntl.fcntl(request, fcntl.F_GETFL)
    return not flags & os.O_NONBLOCK and fcntl.fcntl(request, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def makes_files(request):
    with request.makefile("rb") as rfile, request.makefile("wb") as wfile:
        line = rfile.readline()
        wfile.write(b"file ")
    return line == b"message\n"


def times_out(request):
    request.recv(100)
    request.settimeout(0.01)
    try:
        request.recv(100)
    except TimeoutError:
        request.settimeout(None)
        return True


def duplicates(request):
    with request.dup() as duplicate:
        return duplicate.fileno() != request.fileno() and duplicate.recv(100) == b"message\n"


def is_woken_by_another_thread(request):
    request.recv(100)
    timer = threading.Timer(0.05, request.shutdown, [socket.SHUT_RD])
    timer.start()
    data = request.recv(100)
    timer.join()
    return data == b""


def sets_options(request):
    if request.family != socket.AF_UNIX or request.getpeername() == PROXIED_CLIENT:
        for value in (0, 1):
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, value)
            if bool(request.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) != bool(value):
                return False
    request.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return request.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def receives_into_and_peeks(request):
    buffer = bytearray(8)
    peeked = request.recv(3, socket.MSG_PEEK)
    return peeked == b"mes" and request.recv_into(buffer) == 8 and buffer == b"message\n"


USES = [
    is_a_socket,
    blocks,
    selects,
    polls,
    controls,
    makes_files,
    times_out,
    duplicates,
    is_woken_by_another_thread,
    sets_options,
    receives_into_and_peeks,
]


@pytest.mark.parametrize("kind", ["tcp", "unix", "ssl", "haproxy:tcp"])
@pytest.mark.parametrize("use", USES)
async def test_request_is_a_socket(use, kind, tmp_path):
    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.sendall(b"yes" if use(self.request) else b"no")
            self.request.shutdown(socket.SHUT_WR)
            while self.request.recv(100):  # to close with bytes unread would be a reset
                pass

    answer = await told(Handler, kind, tmp_path, b"message\n")
    assert answer.removeprefix(b"file ") == b"yes"


@pytest.mark.parametrize("kind", ["tcp", "unix", "ssl", "haproxy:tcp"])
async def test_detach(kind, tmp_path):
    """The descriptor is the handler's own then, and outlives the request."""
    kept = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            kept.append(self.request.detach())

    def talk(address):
        with connect_as(kind, address) as client:
            while not kept:
                time.sleep(0.01)
            time.sleep(0.05)
            with socket.socket(fileno=kept.pop()) as kept_open:
                kept_open.sendall(b"still here")
            return read_all(client)

    async with serving(Handler, description(kind, tmp_path)) as server:
        assert await in_thread(talk, server.server_address) == b"still here"
        await until(lambda: not server.statistics.active)


async def test_handler_speaks_tls_on_a_plain_connection(tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file(tmp_path))

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            with context.wrap_socket(self.request, server_side=True) as secured:
                secured.sendall(secured.recv(100).upper())
                secured.unwrap()

    def talk(address):
        with secure(connect(address)) as client:
            client.sendall(b"hello")
            answer = client.recv(100)
            client.unwrap().close()
            return answer

    async with serving(Handler) as server:
        assert await in_thread(talk, server.server_address) == b"HELLO"
        await until(lambda: not server.statistics.active)
        assert counts(server) == {"accepted": 1, "requests": 1}


# Half-close


@pytest.mark.parametrize("kind", [*LENT, "haproxy:tcp", "haproxy:unix"])
async def test_client_ends_its_side_and_gets_the_answer(kind, tmp_path):
    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"%d bytes" % len(self.rfile.read()))

    def talk(address):
        with connect_as(kind, address) as client:
            client.sendall(PIECE * 16)
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

    # The drain deadline would hide a connection that is not let go.
    deadlines = Deadlines(drain=None)
    async with serving(Handler, description(kind, tmp_path), deadlines=deadlines) as server:
        assert await in_thread(talk, server.server_address) == b"1048576 bytes"
        await until(lambda: not server.statistics.active)


@pytest.mark.parametrize("kind", [*LENT, "haproxy:tcp", "haproxy:unix"])
async def test_handler_ends_its_side_and_reads_on(kind, tmp_path):
    heard = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"first")
            self.request.shutdown(socket.SHUT_WR)
            heard.append(self.rfile.read())

    def talk(address):
        with connect_as(kind, address) as client:
            assert read_all(client) == b"first"
            client.sendall(PIECE * 16)

    async with serving(Handler, description(kind, tmp_path)) as server:
        await in_thread(talk, server.server_address)
        await until(lambda: not server.statistics.active)
    assert heard == [PIECE * 16]


# The end of a connection


class Answers(socketserver.StreamRequestHandler):
    """Answers a line at length and ends."""

    size = 2**23

    def handle(self):
        self.rfile.readline()
        self.wfile.write(b"." * self.size)


@pytest.mark.parametrize("kind", [*LENT, *PUMPED])
async def test_long_answer_is_whole_and_the_connection_ends(kind, tmp_path):
    """Also when its client takes its time, and does not close by itself."""

    def talk(address):
        client = connect_as(kind, address)
        client.sendall(b"line\n")
        time.sleep(0.3)
        assert len(read_exactly(client, Answers.size)) == Answers.size
        assert kind not in LENT or client.recv(1) == b""
        return client

    deadlines = Deadlines(write=PATIENCE_SECONDS, drain=None)
    async with serving(Answers, description(kind, tmp_path), deadlines=deadlines) as server:
        client = await in_thread(talk, server.server_address)
        # Over TLS the client is waited for to confirm the end, no longer than 2 s (linger).
        try:
            await until(lambda: not server.statistics.active)
        finally:
            client.close()


@pytest.mark.parametrize("kind", ["tcp", "unix", "haproxy:tcp", "ssl"])
async def test_client_that_goes_wakes_a_handler_stuck_in_send(kind, tmp_path):
    """As on an accepted socket: also when the client sent what the handler never reads."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            while True:
                self.request.sendall(PIECE)

    def talk(address):
        client = connect_as(kind, address)
        client.setblocking(False)
        try:
            while True:  # until both ends are full
                client.send(PIECE)
                time.sleep(0.001)
        except (BlockingIOError, ssl.SSLWantWriteError):
            time.sleep(0.3)
        reset(client)

    deadlines = Deadlines(drain=None)
    async with serving(Handler, description(kind, tmp_path), deadlines=deadlines) as server:
        await in_thread(talk, server.server_address)
        await until(lambda: server.statistics.accepted and not server.statistics.active)
        assert counts(server) == {"accepted": 1, "requests": 1}


class BlockingTalker(socketserver.StreamRequestHandler):
    def handle(self):
        while True:
            self.wfile.write(PIECE)


class BlockingWaiter(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.read(10)


@pytest.mark.parametrize("kind", ["tcp", "unix", "ssl", "haproxy:tcp"])
@pytest.mark.parametrize("handler", [StdlibEcho, BlockingTalker, BlockingWaiter])
async def test_clients_that_go_are_no_errors(handler, kind, tmp_path):
    count = 30 if kind == "ssl" else 90
    async with serving(handler, description(kind, tmp_path)) as server:
        await in_thread(come_and_go, kind, server.server_address, count)
        await until(lambda: server.statistics.accepted == count and not server.statistics.active)
        assert set(counts(server)) <= {"accepted", "requests"}


async def test_sockserve_handler_class_is_the_stdlibs_in_all_that_matters():
    """One that sets C{timeout} has it on its socket."""

    class Handler(sockserve.StreamRequestHandler):
        timeout = 0.05

        def handle(self):
            try:
                self.rfile.readline()
            except TimeoutError:
                self.wfile.write(b"too late")

    def talk(address):
        with connect(address) as client:
            return read_all(client)

    async with serving(Handler) as server:
        assert await in_thread(talk, server.server_address) == b"too late"


# Where handlers run


class NameAndWait(socketserver.StreamRequestHandler):
    """Says in which thread or process it runs, until the client is through."""

    def handle(self):
        self.wfile.write(f"{threading.current_thread().name} {os.getpid()}\n".encode())
        self.rfile.read()


def names_of(addresses, served):
    """Connect to each; what so many of them, the first, are told, and all clients."""
    clients = [connect(address) for address in addresses]
    return [read_line(client).decode().split() for client in clients[:served]], clients


def end(*clients):
    """Close clients of which a child may have a copy: it was forked from this process."""
    for client in clients:
        client.shutdown(socket.SHUT_RDWR)
        client.close()


async def test_thread_names_are_unique_among_live_connections():
    """Also with several listeners, each with threads of its own."""
    async with serving(NameAndWait) as one, serving(NameAndWait) as other:
        addresses = [one.server_address, other.server_address] * 8
        names, clients = await in_thread(names_of, addresses, 16)
        end(*clients)
    assert len({name for name, _ in names}) == 16
    assert {int(pid) for _, pid in names} == {os.getpid()}


@pytest.mark.parametrize(
    ("place", "bound"),
    [
        (("serial", {}), 1),
        (("threads", {"threads": 3}), 3),
        (("fork", {"max_children": 3}), 3),
    ],
    ids=["serial", "threads", "fork"],
)
async def test_bound(place, bound):
    """No more run at once; the others wait and are served in their turn."""
    from twisted.internet import reactor

    name, options = place
    concurrency = make_executor(reactor, name, **options)
    async with serving(NameAndWait, concurrency=concurrency) as server:
        names, clients = await in_thread(names_of, [server.server_address] * 5, bound)
        others, _, _ = await in_thread(select.select, clients[bound:], [], [], 1)
        assert not others
        assert len({tuple(name) for name in names}) == bound
        await until(lambda: (concurrency.running, concurrency.waiting) == (bound, 5 - bound))
        end(*clients)
        await until(lambda: counts(server) == {"accepted": 5, "requests": 5})


@pytest.mark.parametrize("kind", ["tcp", "unix", "haproxy:tcp", "ssl"])
async def test_fork(kind, tmp_path):
    """Each request in a child of its own, none of which is left."""
    from twisted.internet import reactor

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"%d %s" % (os.getpid(), self.rfile.readline()))

    def talk(address):
        answers = []
        for _ in range(5):
            with connect_as(kind, address) as client:
                client.sendall(b"hello\n")
                answers.append(read_all(client).split())
        return answers

    place = make_executor(reactor, "fork")
    async with serving(Handler, description(kind, tmp_path), concurrency=place) as server:
        answers = await in_thread(talk, server.server_address)
        await until(lambda: counts(server) == {"accepted": 5, "requests": 5})
    assert {hello for _, hello in answers} == {b"hello"}
    pids = {int(pid) for pid, _ in answers}
    assert len(pids) == 5
    assert os.getpid() not in pids


async def test_forked_child_that_raises_or_dies_is_counted(errors):
    from twisted.internet import reactor

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            if self.rfile.readline() == b"die\n":
                os._exit(7)

    def talk(address):
        with connect(address) as client:
            client.sendall(b"die\n")
            return is_ended(client)

    async with serving(Handler, concurrency=make_executor(reactor, "fork")) as server:
        assert await in_thread(talk, server.server_address)
        await until(lambda: counts(server) == {"accepted": 1, "requests": 1, "errors": 1})
    assert len(errors) == 1
    assert "ended with 7" in errors.pop()


async def test_child_does_not_hold_other_clients_connections():
    """A handler that closes its socket is the end of it, whatever other children there are."""
    from twisted.internet import reactor

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            if self.rfile.readline() == b"close\n":
                self.rfile.close()
                self.wfile.close()
                self.request.close()
            else:
                self.wfile.write(b"here\n")
                self.rfile.read()

    def talk(address):
        first, second = connect(address), connect(address)
        for client in (first, second):
            client.sendall(b"stay\n")
            read_line(client)
        # Two children are all there may be, so these wait in the server's hands.
        patient, closing = connect(address), connect(address)
        patient.sendall(b"stay\n")
        closing.sendall(b"close\n")
        time.sleep(0.1)
        end(first)
        read_line(patient)  # its child was forked while the last one waited
        end(second)
        try:
            return is_ended(closing)
        finally:
            end(patient)
            closing.close()

    place = make_executor(reactor, "fork", max_children=2)
    async with serving(Handler, concurrency=place) as server:
        assert await in_thread(talk, server.server_address)
        await until(lambda: not server.statistics.active)
