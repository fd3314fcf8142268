"""Datagrams through real sockets: every kind of listener, handler and place to run it in."""

import os
import resource
import socket
import socketserver
import struct
import subprocess
import threading
import time
from contextlib import asynccontextmanager, contextmanager

import pytest
from twisted.internet.task import deferLater

import sockserve
from sockserve import Deadlines
from sockserve.executors import make_executor
from sockserve.listeners.datagrams import DatagramServer
from sockserve.service import DatagramRequestService, service_from_description
from tests.integration.servers import (
    PATIENCE_SECONDS,
    in_thread,
    link_local_address,
    running,
    until,
)
from tests.tools import need_tool

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")


class Coroutine(sockserve.DatagramRequestHandler):
    async def handle(self):
        self.wfile.write(self.rfile.read().upper())


class Blocking(sockserve.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.read().upper())


class Stdlib(socketserver.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.read().upper())


class StdlibSendto(socketserver.BaseRequestHandler):
    """As in the documentation of socketserver."""

    def handle(self):
        data = self.request[0]
        sock = self.request[1]
        sock.sendto(data.upper(), self.client_address)


class CoroutineSendto(sockserve.BaseRequestHandler):
    async def handle(self):
        from twisted.internet import reactor

        data, transport = self.request
        await deferLater(reactor, 0)
        transport.sendto(data.upper(), self.client_address)


HANDLERS = pytest.mark.parametrize(
    ("handler", "concurrency"),
    [
        pytest.param(handler, concurrency, id=f"{handler.__name__}-{concurrency or 'reactor'}")
        for handler, concurrencies in [
            (Coroutine, [None]),
            (CoroutineSendto, [None]),
            (Blocking, ["threads", "serial", "fork"]),
            (Stdlib, ["threads", "serial", "fork"]),
            (StdlibSendto, ["threads", "serial", "fork"]),
        ]
        for concurrency in concurrencies
    ],
)


@asynccontextmanager
async def serving(handler, description, concurrency=None, **options):
    """Serve datagrams; gives the server object."""
    from twisted.internet import reactor

    if concurrency is not None:
        options["concurrency"] = make_executor(reactor, concurrency)
    service = DatagramRequestService.from_description(reactor, description, handler, **options)
    async with running(service):
        yield service.server


@contextmanager
def client_for(server, folder=None):
    """An unconnected client's socket."""
    with socket.socket(server.address_family, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE_SECONDS)
        if server.address_family == socket.AF_UNIX:
            client.bind(str(folder / "client"))
        yield client


def ask(client, data, address):
    client.sendto(data, address)
    return client.recvfrom(65536)


KINDS = {
    "udp": "udp:0:interface=127.0.0.1",
    "udp-anywhere": "udp:0",
    "udp6": "udp6:0:interface=\\:\\:1",
    "udp6-anywhere": "udp6:0",
    "unixgram": "unixgram:{}/server",
}


@pytest.mark.parametrize("kind", KINDS)
@HANDLERS
async def test_every_kind(kind, handler, concurrency, tmp_path):
    records = []
    async with serving(handler, KINDS[kind].format(tmp_path), concurrency) as server:
        server.observers.append(records.append)
        address = server.server_address
        if kind == "udp-anywhere":
            address = ("127.0.0.1", address[1])
        if kind == "udp6-anywhere":
            address = ("::1", address[1])

        def talk():
            with client_for(server, tmp_path) as client:
                answers = [ask(client, b"%d-abc" % number, address) for number in range(3)]
                return answers, client.getsockname()

        answers, own = await in_thread(talk)
        assert [data for data, _ in answers] == [b"0-ABC", b"1-ABC", b"2-ABC"]
        assert {sender[:2] if kind != "unixgram" else sender for _, sender in answers} == {
            address[:2] if kind != "unixgram" else address
        }
        await until(lambda: len(records) == 3)
        for record in records:
            assert record.outcome == "ok"
            assert record.received == 5
            assert record.peer == own if kind == "unixgram" else record.peer[1] == own[1]
        assert server.statistics.requests == 3
        assert server.statistics.active == 0


# Where answers come from


@HANDLERS
async def test_the_answer_leaves_from_where_the_request_came_to(handler, concurrency):
    """A client's connected socket takes packets from the address it is connected to only."""

    def talk(port):
        heard = []
        for host in ("127.0.0.2", "127.0.0.1", "127.3.2.1"):
            with socket.socket(type=socket.SOCK_DGRAM) as client:
                client.settimeout(PATIENCE_SECONDS)
                client.bind(("127.0.0.1", 0))
                client.connect((host, port))
                client.send(host.encode())
                heard.append(client.recv(100).decode())
        return heard

    async with serving(handler, "udp:0", concurrency) as server:
        assert server.server_address[0] == "0.0.0.0"
        heard = await in_thread(talk, server.server_address[1])
        assert heard == ["127.0.0.2", "127.0.0.1", "127.3.2.1"]


@HANDLERS
async def test_also_to_one_client_that_asks_at_several(handler, concurrency):
    def talk(port):
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE_SECONDS)
            client.bind(("127.0.0.1", 0))
            hosts = [f"127.0.0.{number}" for number in range(1, 21)]
            for host in hosts:
                client.sendto(host.encode(), (host, port))
            answers = [client.recvfrom(100) for _ in hosts]
            return hosts, answers

    async with serving(handler, "udp:0", concurrency) as server:
        hosts, answers = await in_thread(talk, server.server_address[1])
        assert sorted(answers) == sorted(
            (host.encode(), (host, server.server_address[1])) for host in hosts
        )


async def test_what_a_handler_sends_to_others_goes_the_systems_way():
    """And with flags, as C{socket.sendto} takes them."""

    class Forward(socketserver.BaseRequestHandler):
        def handle(self):
            data, sock = self.request
            host, port = data.decode().split()
            sock.sendto(b"for you", 0, (host, int(port)))
            sock.sendto(b"sent", self.client_address)

    def talk(port):
        with (
            socket.socket(type=socket.SOCK_DGRAM) as client,
            socket.socket(type=socket.SOCK_DGRAM) as other,
        ):
            for each in (client, other):
                each.settimeout(PATIENCE_SECONDS)
                each.bind(("127.0.0.1", 0))
            client.connect(("127.0.0.2", port))
            client.send(b"127.0.0.1 %d" % other.getsockname()[1])
            return client.recv(100), other.recvfrom(100)[0]

    async with serving(Forward, "udp:0") as server:
        assert await in_thread(talk, server.server_address[1]) == (b"sent", b"for you")


# Empty, too long, unanswerable


@HANDLERS
async def test_an_empty_datagram_is_answered_with_an_empty_one(handler, concurrency):
    async with serving(handler, KINDS["udp"], concurrency) as server:

        def talk():
            with client_for(server) as client:
                return ask(client, b"", server.server_address)

        assert await in_thread(talk) == (b"", server.server_address)


class Silent(sockserve.DatagramRequestHandler):
    """Answers what begins with a question mark."""

    answer_empty = False

    async def handle(self):
        if self.packet.startswith(b"?"):
            self.wfile.write(self.packet)


class BlockingSilent(sockserve.DatagramRequestHandler):
    answer_empty = False

    def handle(self):
        if self.packet.startswith(b"?"):
            self.wfile.write(self.packet)


@pytest.mark.parametrize(
    ("handler", "concurrency"),
    [(Silent, None), (BlockingSilent, "serial"), (BlockingSilent, "fork")],
)
async def test_nothing_is_sent_without_answer_empty(handler, concurrency):
    async with serving(handler, KINDS["udp"], concurrency) as server:

        def talk():
            with client_for(server) as client:
                client.sendto(b"quiet", server.server_address)
                client.sendto(b"", server.server_address)
                return ask(client, b"?", server.server_address)[0]

        assert await in_thread(talk) == b"?"


@HANDLERS
@pytest.mark.parametrize("kind", ["udp", "udp-anywhere", "unixgram"])
async def test_a_truncated_datagram_is_dropped_and_counted(kind, handler, concurrency, tmp_path):
    class Small(DatagramServer):
        max_packet_size = 1000

    description = KINDS[kind].format(tmp_path)
    async with serving(handler, description, concurrency, factory=Small) as server:
        address = server.server_address
        if kind != "unixgram":
            address = ("127.0.0.1", address[1])

        def talk():
            with client_for(server, tmp_path) as client:
                client.sendto(b"x" * 1001, address)
                client.sendto(b"x" * 8192, address)
                return ask(client, b"y" * 1000, address)[0]

        assert await in_thread(talk) == b"Y" * 1000
        assert server.statistics.refused == {"truncated": 2}
        await until(lambda: server.statistics.requests == 1)


async def test_the_largest_datagram_there_is():
    class Large(DatagramServer):
        max_packet_size = 65507  # what fits into IPv4 beside its and UDP's headers

    async with serving(Coroutine, KINDS["udp"], factory=Large) as server:

        def talk():
            with client_for(server) as client:
                return ask(client, b"x" * 65507, server.server_address)[0]

        assert await in_thread(talk) == b"X" * 65507


async def test_an_answer_that_is_too_long_is_an_error_of_the_handlers(errors):
    class TooLong(sockserve.DatagramRequestHandler):
        async def handle(self):
            self.wfile.write(b"x" * 65536)

    async with serving(TooLong, KINDS["udp"]) as server:

        def talk():
            with client_for(server) as client:
                client.sendto(b"x", server.server_address)

        await in_thread(talk)
        await until(lambda: server.statistics.errors == 1)
        assert "Message too long" in errors.pop()


@pytest.mark.parametrize(("handler", "concurrency"), [(Coroutine, None), (Stdlib, "threads")])
async def test_clients_that_are_gone_do_no_harm(handler, concurrency):
    """The kernel reports them (ECONNREFUSED) on connected sockets at most; the next is served."""
    async with serving(handler, KINDS["udp"], concurrency) as server:

        def talk():
            for _ in range(20):
                with client_for(server) as client:
                    client.sendto(b"gone", server.server_address)
            with client_for(server) as client:
                return ask(client, b"here", server.server_address)[0]

        assert await in_thread(talk) == b"HERE"
        await until(lambda: server.statistics.requests == 21)
        assert server.statistics.errors == 0


# Floods


class Slow(sockserve.DatagramRequestHandler):
    """Every request takes until the gate opens."""

    answer_empty = False
    gate: threading.Event

    def handle(self):
        self.gate.wait()
        self.wfile.write(self.packet[:5])


class SlowCoroutine(sockserve.DatagramRequestHandler):
    answer_empty = False
    gate: threading.Event

    async def handle(self):
        from twisted.internet import reactor

        while not self.gate.is_set():
            await deferLater(reactor, 0.05)
        self.wfile.write(self.packet[:5])


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize(("handler", "concurrency"), [(Slow, "threads"), (SlowCoroutine, None)])
async def test_a_flood_does_not_eat_memory_and_passes(handler, concurrency):
    """
    100,000 packets of 4 KiB are 400 MiB.  At most 1,000 (max_datagrams) are held at once: 4 MiB,
    beside what 256 threads need (some tens of KiB each, 10 MiB).
    """
    gate = threading.Event()
    handler = type(handler.__name__, (handler,), {"gate": gate})
    try:
        async with serving(handler, KINDS["udp"], concurrency) as server:
            before = resident_bytes()

            def flood():
                with client_for(server) as client:
                    packet = b"flood" + bytes(4091)
                    for _ in range(100_000):
                        client.sendto(packet, server.server_address)

            for _ in range(10):  # a busy machine may take too few of them
                await in_thread(flood)
                if server.statistics.active >= server.max_datagrams:
                    break
            assert server.statistics.active == server.max_datagrams
            assert server.statistics.accepted == server.max_datagrams
            assert resident_bytes() - before < 48 * 2**20
            gate.set()

            def ask_until_answered():
                """The kernel's buffer is full of the flood at first, and drops what comes."""
                with client_for(server) as client:
                    client.settimeout(0.5)
                    deadline = time.monotonic() + PATIENCE_SECONDS
                    while time.monotonic() < deadline:
                        try:
                            return ask(client, b"still there?", server.server_address)[0]
                        except TimeoutError:
                            pass

            assert await in_thread(ask_until_answered) == b"still"
            await until(lambda: server.statistics.active == 0)
    finally:
        gate.set()


# Deadlines


async def test_a_child_that_takes_too_long_is_killed():
    class Stuck(socketserver.BaseRequestHandler):
        def handle(self):
            if self.request[0] == b"stuck":
                time.sleep(600)
            self.request[1].sendto(b"fine", self.client_address)

    deadlines = Deadlines(handle=3.0)  # the other child has time to spare
    async with serving(Stuck, KINDS["udp"], "fork", deadlines=deadlines) as server:

        def talk():
            with client_for(server) as client:
                client.sendto(b"stuck", server.server_address)
                return ask(client, b"x", server.server_address)[0]

        assert await in_thread(talk) == b"fine"
        await until(lambda: server.statistics.active == 0)
        assert server.statistics.expiries == {"handle": 1}


# Sockets with a name


@HANDLERS
async def test_a_unix_client_without_a_name_is_served_though_it_cannot_be_answered(
    handler, concurrency, tmp_path
):
    """Such as everyone who calls syslog(3)."""
    path = f"{tmp_path}/server"
    async with serving(handler, f"unixgram:{path}", concurrency) as server:
        records = []
        server.observers.append(records.append)
        for data in (b"anonymous", b"", b"x" * 1000):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
                client.connect(path)
                client.send(data)
        await until(lambda: server.statistics.requests == 3)
        assert server.statistics.errors == 0
        assert {record.peer for record in records} == {None}
        assert sum(record.sent or 0 for record in records) == 0


async def test_the_address_of_a_client_without_a_name_is_none(tmp_path):
    class Remember(sockserve.DatagramRequestHandler):
        seen = []

        async def handle(self):
            self.seen.append((self.packet, self.client_address))

    async with serving(Remember, f"unixgram:{tmp_path}/server") as server:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.sendto(b"anonymous", f"{tmp_path}/server")
        await until(lambda: server.statistics.requests == 1)
        assert Remember.seen == [(b"anonymous", None)]


@HANDLERS
@pytest.mark.parametrize("how", ["closed", "removed", "no socket", "shut"])
async def test_unix_clients_that_are_gone_do_no_harm(how, handler, concurrency, tmp_path):
    path = f"{tmp_path}/server"

    def go(number):
        name = f"{tmp_path}/gone{number}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.bind(name)
            if how == "shut":
                client.shutdown(socket.SHUT_RD)
            client.sendto(b"gone", path)
            if how != "closed":
                os.unlink(name)
            if how == "no socket":
                os.mkdir(name)
            if how == "shut":
                os.symlink(name, name)

    def talk(server):
        for number in range(5):
            go(number)
        with client_for(server, tmp_path) as client:
            return ask(client, b"here", path)[0]

    async with serving(handler, f"unixgram:{path}", concurrency) as server:
        assert await in_thread(talk, server) == b"HERE"
        await until(lambda: server.statistics.requests == 6)
        assert server.statistics.errors == 0


@pytest.mark.parametrize(
    ("handler", "concurrency"),
    [(Coroutine, None), (Blocking, "serial"), (Stdlib, "serial"), (StdlibSendto, "threads")],
)
async def test_a_unix_client_that_does_not_read_keeps_nobody_waiting(
    handler, concurrency, tmp_path
):
    """Nobody but those who wait with it, for a second, and only once."""
    path = f"{tmp_path}/server"

    def talk(server):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
            deaf.bind(f"{tmp_path}/deaf")
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            for _ in range(600):
                deaf.sendto(b"x", path)
            with client_for(server, tmp_path) as client:
                return ask(client, b"here", path)[0]

    async with serving(handler, f"unixgram:{path}", concurrency) as server:
        assert await in_thread(talk, server) == b"HERE"
        await until(lambda: server.statistics.requests == 601)
        assert server.statistics.errors == 0


@pytest.mark.parametrize(
    ("handler", "concurrency"), [(Coroutine, None), (Blocking, "threads"), (Stdlib, "fork")]
)
async def test_an_abstract_name(handler, concurrency, tmp_path):
    """Of the server, and of its client: Linux gives one who asks for any."""
    name = f"sockserve-{os.getpid()}-{handler.__name__}"

    def talk():
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE_SECONDS)
            client.bind("")
            return ask(client, b"hello", f"\0{name}")

    async with serving(handler, f"unixgram:@{name}", concurrency) as server:
        assert server.server_address == b"\0" + name.encode()
        assert await in_thread(talk) == (b"HELLO", b"\0" + name.encode())
        assert server.statistics.errors == 0


@HANDLERS
async def test_a_link_local_address(handler, concurrency):
    address, zone = link_local_address()
    written = address.replace(":", "\\:") + f"%{zone}"

    def talk(server):
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE_SECONDS)
            client.bind((address, 0, 0, socket.if_nametoindex(zone)))
            return ask(client, b"hello", server.server_address), client.getsockname()

    for description in (f"udp6:0:interface={written}", f"udp:0:interface={written}"):
        async with serving(handler, description, concurrency) as server:
            records = []
            server.observers.append(records.append)
            (data, source), client_address = await in_thread(talk, server)
            assert (data, source) == (b"HELLO", server.server_address)
            assert client_address[3] == socket.if_nametoindex(zone)
            await until(lambda kept=records: kept)
            assert records[0].peer == client_address


@pytest.mark.parametrize("kind", ["plain", "fork"])
async def test_the_name_lasts_as_long_as_the_listener(tmp_path, kind):
    """Also when a child that has a copy of the socket ends meanwhile."""
    path = tmp_path / "server"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
        left.bind(str(path))
    handler, concurrency = (Blocking, "fork") if kind == "fork" else (Coroutine, None)
    async with serving(handler, f"unixgram:{path}:mode=600", concurrency) as server:
        assert path.stat().st_mode & 0o777 == 0o600

        def talk():
            with client_for(server, tmp_path) as client:
                return [ask(client, b"x", str(path))[0] for _ in range(2)]

        assert await in_thread(talk) == [b"X", b"X"]
        assert path.exists()
    assert not path.exists()


async def test_socat_over_a_unix_socket(tmp_path):
    path = tmp_path / "server"
    command = [need_tool("socat"), "-t", "10", "-", f"UNIX-SENDTO:{path},bind={tmp_path}/client"]

    def talk():
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as socat:
            try:
                socat.stdin.write(b"hello")
                socat.stdin.flush()
                return os.read(socat.stdout.fileno(), 100)
            finally:
                socat.kill()

    async with serving(Coroutine, f"unixgram:{path}"):
        assert await in_thread(talk) == b"HELLO"


# DNS


class Names(socketserver.BaseRequestHandler):
    """
    A name server in few lines: every A question is answered with 192.0.2.53.  The same class
    serves both transports, as RFC 1035 section 4.2 has it: over TCP each message has its length
    in front.
    """

    def handle(self):
        if isinstance(self.request, tuple):
            data, sock = self.request
            sock.sendto(self.answer(data), self.client_address)
            return
        with self.request.makefile("rb") as stream:
            while length := stream.read(2):
                answer = self.answer(stream.read(*struct.unpack(">H", length)))
                self.request.sendall(struct.pack(">H", len(answer)) + answer)

    def answer(self, query):
        end = query.index(b"\0", 12) + 5  # the name, its end, QTYPE, QCLASS
        header = query[:2] + struct.pack(">HHHHH", 0x8580, 1, 1, 0, 0)
        record = struct.pack(">HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton("192.0.2.53")
        return header + query[12:end] + record


async def test_dig_over_both_transports():
    """One place to run in and one handler for both, as with two C{--listen}."""
    from twisted.internet import reactor

    dig = need_tool("dig")
    concurrency = make_executor(reactor, "threads")

    def service(kind, port):
        description = f"{kind}:{port}:interface=127.0.0.1"
        return service_from_description(reactor, description, Names, concurrency=concurrency)

    def look_up(port, *options):
        question = ["@127.0.0.1", "-p", str(port), "+short", "+tries=1", "+time=10"]
        return subprocess.run(
            [dig, *question, *options, "example.org"],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS * 2,
        )

    async with running(service("tcp", 0)) as tcp:
        port = tcp.server.server_address[1]
        async with running(service("udp", port)) as udp:
            for options in ["+notcp"], ["+tcp"], ["+notcp"], ["+tcp", "+keepopen"]:
                done = await in_thread(look_up, port, *options)
                assert (done.returncode, done.stdout) == (0, "192.0.2.53\n"), done
            await until(lambda: tcp.server.statistics.requests == 2)
            await until(lambda: udp.server.statistics.requests == 2)
