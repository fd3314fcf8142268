"""Whom a client's address names, on real sockets: one address in one way only, everywhere."""

import os
import socket
import socketserver
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from sockserve import StreamRequestHandler
from sockserve.core.admission import Admission, parse_network
from sockserve.dropin.service import SocketServerService
from sockserve.executors import make_executor
from tests.integration.servers import (
    PATIENCE_SECONDS,
    certificate_file,
    connect,
    connect_tls,
    in_thread,
    link_local_address,
    read_all,
    running,
    serving,
    turned_away,
    until,
)
from tests.integration.socketservers import BOTH, blocking, eventually, looping
from tests.tools import need_tool

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")


class Named(StreamRequestHandler):
    """Says who its client is."""

    async def handle(self):
        self.wfile.write(repr(self.client_address).encode())


class BlockingNamed(StreamRequestHandler):
    def handle(self):
        self.wfile.write(repr(self.client_address).encode())


class StdlibNamed(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(repr(self.client_address).encode())


class DualStack:
    """As many dual-stack servers are written."""

    address_family = socket.AF_INET6

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


HANDLERS = pytest.mark.parametrize("handler", [Named, BlockingNamed, StdlibNamed])


def options_for(handler, **options):
    from twisted.internet import reactor

    if handler is not Named:
        options["concurrency"] = make_executor(reactor, "threads")
    return options


def named(client):
    """Whom the server names, and the client's own address."""
    with client:
        client.settimeout(PATIENCE_SECONDS)
        own = client.getsockname()
        return eval(read_all(client)), own


@contextmanager
def records_of(server):
    """The peers of the records that the server makes."""
    peers = []

    def observe(record):
        peers.append(record.peer)

    server.observers.append(observe)
    yield peers
    server.observers.remove(observe)


# IPv4 clients of dual-stack listeners


@HANDLERS
@pytest.mark.parametrize("kind", ["tcp6", "tls"])
async def test_an_ipv4_client_of_a_dual_stack_listener_is_one(kind, handler, tmp_path):
    certificate_file(tmp_path)
    where = "tcp6:0" if kind == "tcp6" else f"tls:0:{tmp_path}"

    def talk(server, host):
        port = server.server_address[1]
        address = (host, port, 0, 0) if ":" in host else (host, port)
        return named(connect_tls(address) if kind == "tls" else connect(address))

    async with serving(handler, where, **options_for(handler)) as server:
        with records_of(server) as peers:
            for host in ("127.0.0.1", "::1"):
                seen, own = await in_thread(talk, server, host)
                assert seen == own
                await until(lambda own=own: peers[-1:] == [own])


@pytest.mark.parametrize("denied", ["127.0.0.0/8", "::ffff:127.0.0.0/104", "::ffff:0:0/96"])
async def test_networks_of_ipv4_hold_there(denied):
    admission = Admission(deny=[parse_network(denied)])
    async with serving(Named, "tcp6:0", admission=admission) as server:
        port = server.server_address[1]
        assert await in_thread(turned_away, ("127.0.0.1", port))
        seen, own = await in_thread(lambda: named(connect(("::1", port, 0, 0))))
        assert seen == own


class Waits(StreamRequestHandler):
    async def handle(self):
        self.wfile.write(b"served")
        await self.rfile.read()


async def test_a_peer_has_one_cap_on_all_listeners():
    """Its address is mapped on the one, plain on the next, and a proxy says it otherwise again."""
    admission = Admission(max_connections_per_peer=1)
    header = b"PROXY TCP6 ::ffff:7f00:1 ::ffff:7f00:1 4711 80\r\n"

    def talk(mapped, plain, proxied):
        with connect(("127.0.0.1", mapped[1])) as first:
            assert first.recv(6) == b"served"
            assert turned_away(plain)
            assert turned_away(proxied, header)
        return True

    async with (
        serving(Waits, "tcp6:0", admission=admission) as mapped,
        serving(Waits, admission=admission) as plain,
        serving(Waits, "haproxy:tcp:0:interface=127.0.0.1", admission=admission) as proxied,
    ):
        servers = mapped, plain, proxied
        assert await in_thread(talk, *(server.server_address for server in servers))


# What proxies say

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
MAPPED = socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.7")
V2_MAPPED = SIGNATURE + b"\x21\x21\0\x24" + MAPPED * 2 + struct.pack("!HH", 4711, 80)
V2_LONG = SIGNATURE + b"\x21\x21\0\x24" + (b"\x20\x01\x0d\xb8" + bytes(11) + b"\1") * 2
V2_UNIX = SIGNATURE + b"\x21\x31\0\xd8" + b"/run/client".ljust(108, b"\0") + bytes(108)


@HANDLERS
@pytest.mark.parametrize(
    ("header", "address"),
    [
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.80 4711 80\r\n", ("192.0.2.7", 4711)),
        (b"PROXY TCP6 ::FFFF:C000:207 ::1 4711 80\r\n", ("192.0.2.7", 4711)),
        (b"PROXY TCP6 2001:DB8:0::0:1 ::1 4711 80\r\n", ("2001:db8::1", 4711, 0, 0)),
        (V2_MAPPED, ("192.0.2.7", 4711)),
        (V2_LONG + struct.pack("!HH", 4711, 80), ("2001:db8::1", 4711, 0, 0)),
        (V2_UNIX, "/run/client"),
    ],
    ids=range(6),
)
async def test_a_client_that_a_proxy_names(header, address, handler):
    def talk(where):
        client = connect(where)
        client.sendall(header)
        return named(client)[0]

    where = "haproxy:tcp:0:interface=127.0.0.1"
    async with serving(handler, where, **options_for(handler)) as server:
        with records_of(server) as peers:
            assert await in_thread(talk, server.server_address) == address
            await until(lambda: peers == [address])


@pytest.mark.parametrize("denied", ["192.0.2.0/24", "::ffff:192.0.2.0/120"])
@pytest.mark.parametrize(
    "header", [V2_MAPPED, b"PROXY TCP6 ::ffff:c000:207 ::1 4711 80\r\n"], ids=["v2", "v1"]
)
async def test_networks_of_ipv4_hold_for_whom_a_proxy_names(header, denied):
    admission = Admission(deny=[parse_network(denied)])
    where = "haproxy:tcp:0:interface=127.0.0.1"
    async with serving(Named, where, admission=admission) as server:
        assert await in_thread(turned_away, server.server_address, header)
        assert server.statistics.refused == {"network": 1}


@pytest.mark.parametrize(("proxies", "believed"), [("127.0.0.1", True), ("192.0.2.1", False)])
async def test_a_proxy_is_known_by_its_ipv4_address(proxies, believed):
    def talk(port):
        client = connect(("127.0.0.1", port))
        client.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.80 4711 80\r\n")
        try:
            return named(client)[0]
        except (ConnectionError, SyntaxError):  # nothing at all was said
            return None

    networks = [parse_network(proxies)]
    async with serving(Named, "haproxy:tcp6:0", proxy_from=networks) as server:
        seen = await in_thread(talk, server.server_address[1])
        assert seen == (("192.0.2.7", 4711) if believed else None)


@pytest.mark.parametrize(
    "sends", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"]
)
@pytest.mark.parametrize("denied", [None, "127.0.0.0/8", "::ffff:127.0.0.1"])
async def test_the_real_haproxy_with_a_dual_stack_front(sends, denied, tmp_path: Path):
    """It says ::ffff:127.0.0.1 in version 1, and the same in 16 bytes in version 2."""
    program = need_tool("haproxy")
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as front:
        port = front.getsockname()[1]
        os.set_inheritable(front.fileno(), True)

        def talk():
            try:
                return named(connect(("127.0.0.1", port)))
            except (ConnectionError, SyntaxError):
                return None

        admission = Admission(deny=[] if denied is None else [parse_network(denied)])
        where = "haproxy:tcp:0:interface=127.0.0.1"
        async with serving(Named, where, admission=admission) as server:
            back = server.server_address[1]
            configuration = tmp_path / "haproxy.cfg"
            configuration.write_text(
                "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n"
                " timeout server 30s\n unique-id-format %pid\n"
                f"frontend front\n bind fd@{front.fileno()}\n default_backend back\n"
                f"backend back\n server one 127.0.0.1:{back} {sends}\n"
            )
            with subprocess.Popen(
                [program, "-db", "-f", configuration],
                stderr=subprocess.DEVNULL,
                pass_fds=[front.fileno()],
            ) as proxy:
                try:
                    answer = await in_thread(talk)
                finally:
                    proxy.terminate()
            if denied is None:
                assert answer is not None
                assert answer[0] == answer[1]
            else:
                assert answer is None
                assert server.statistics.refused == {"network": 1}


# Link-local addresses


@HANDLERS
async def test_a_link_local_client_has_its_scope_as_in_the_standard_library(handler):
    address, zone = link_local_address()
    scope = socket.if_nametoindex(zone)
    written = address.replace(":", "\\:") + f"%{zone}"

    def talk(port):
        return named(connect((address, port, 0, scope)))

    for where in (f"tcp6:0:interface={written}", "tcp6:0"):
        admission = Admission(allow=[parse_network(f"fe80::%{zone}/64")])
        options = options_for(handler, admission=admission)
        async with serving(handler, where, **options) as server:
            with records_of(server) as peers:
                seen, own = await in_thread(talk, server.server_address[1])
                assert seen == own
                assert seen == (address, own[1], 0, scope)
                await until(lambda kept=peers: kept)
                assert peers == [own]


# Names of UNIX sockets


@HANDLERS
@pytest.mark.parametrize("mark", ["@", "\0"])
async def test_an_abstract_name(mark, handler):
    name = f"sockserve-{os.getpid()}-{handler.__name__}"

    def talk(client_name):
        with socket.socket(socket.AF_UNIX) as client:
            if client_name is not None:
                client.bind(client_name)
            client.connect(f"\0{name}")
            return named(client)

    async with serving(handler, f"unix:{mark}{name}", **options_for(handler)) as server:
        assert server.server_address == b"\0" + name.encode()
        assert server.statistics.listener == f"unix:@{name}"
        for client_name in (None, "", f"\0client of {name}"):
            seen, own = await in_thread(talk, client_name)
            assert seen == own


async def test_an_abstract_name_is_free_again_at_once():
    name = f"sockserve-{os.getpid()}-again"
    for _ in range(3):
        async with serving(Named, f"unix:@{name}"):
            seen, own = await in_thread(lambda: named(connect(f"\0{name}")))
            assert seen == own


# Server objects, the standard library's and ours


@BOTH
@blocking
def test_a_drop_in_server_calls_its_clients_what_the_standard_librarys_does(modules):
    class Server(DualStack, modules.socketserver.ThreadingTCPServer):
        """Of either module."""

    server = Server(("::", 0), StdlibNamed)
    with looping(server):
        port = server.server_address[1]
        seen, own = named(connect(("127.0.0.1", port)))
        assert seen == ("::ffff:127.0.0.1", own[1], 0, 0)
        seen, own = named(connect(("::1", port, 0, 0)))
        assert seen == own


@pytest.mark.parametrize("denied", [None, "127.0.0.0/8", "::ffff:127.0.0.0/104"])
async def test_a_served_object_too_but_not_in_the_log_or_for_networks(denied):
    from twisted.internet import reactor

    class Server(DualStack, socketserver.ThreadingTCPServer):
        """The standard library's."""

    def talk(port):
        try:
            return named(connect(("127.0.0.1", port)))
        except (ConnectionError, SyntaxError):
            return None

    server = Server(("::", 0), StdlibNamed)
    admission = Admission(deny=[] if denied is None else [parse_network(denied)])
    service = SocketServerService(server, reactor, admission=admission)
    async with running(service):
        with records_of(service.server) as peers:
            answer = await in_thread(talk, server.server_address[1])
            await until(lambda: peers)
    ((host, port),) = peers
    assert host == "127.0.0.1"
    if denied is None:
        assert answer == (("::ffff:127.0.0.1", port, 0, 0), ("127.0.0.1", port))
    else:
        assert answer is None
        assert service.server.statistics.refused == {"network": 1}


async def test_datagrams_of_a_served_object_likewise():
    """Its handler answers to the address as its own socket wrote it."""
    from twisted.internet import reactor

    class Server(DualStack, socketserver.ThreadingUDPServer):
        """The standard library's."""

    class Answers(socketserver.DatagramRequestHandler):
        def handle(self):
            self.wfile.write(repr(self.client_address).encode())

    server = Server(("::", 0), Answers)
    service = SocketServerService(server, reactor)
    async with running(service):
        with (
            records_of(service.server) as peers,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            client.settimeout(PATIENCE_SECONDS)
            client.connect(("127.0.0.1", server.server_address[1]))
            client.send(b"x")
            seen = eval(await in_thread(client.recv, 100))
            await until(lambda: peers)
            own = client.getsockname()
    assert seen == (f"::ffff:{own[0]}", own[1], 0, 0)
    assert peers == [own]


@BOTH
@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("kind", ["UnixStreamServer", "ThreadingUnixStreamServer"])
@blocking
def test_a_drop_in_server_on_an_abstract_name(modules, kind, as_bytes):
    name = f"\0sockserve-{os.getpid()}-{kind}"
    server = getattr(modules.socketserver, kind)(name.encode() if as_bytes else name, StdlibNamed)
    with looping(server):
        assert server.server_address == name.encode()
        for client_name in (None, f"{name} client"):
            with socket.socket(socket.AF_UNIX) as client:
                if client_name is not None:
                    client.bind(client_name)
                client.connect(name)
                seen, own = named(client)
                assert seen == own


@BOTH
@pytest.mark.parametrize("kind", ["UnixDatagramServer", "ThreadingUnixDatagramServer"])
@blocking
def test_a_drop_in_server_of_datagrams_on_an_abstract_name(modules, kind):
    class Answers(modules.socketserver.DatagramRequestHandler):
        def handle(self):
            self.wfile.write(repr(self.client_address).encode())

    name = f"\0sockserve-{os.getpid()}-{kind}"
    server = getattr(modules.socketserver, kind)(name, Answers)
    with looping(server), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE_SECONDS)
        client.bind("")
        client.sendto(b"x", name)
        assert eval(client.recv(100)) == client.getsockname()


@BOTH
@pytest.mark.parametrize("kind", ["UnixDatagramServer", "ThreadingUnixDatagramServer"])
@blocking
def test_the_standard_librarys_datagram_handler_cannot_answer_nobody(modules, kind, tmp_path):
    """There it is an error of the handler's: what a program has relied on stays."""
    told = []

    class Server(getattr(modules.socketserver, kind)):
        def handle_error(self, request, client_address):
            told.append((type(sys.exc_info()[1]), client_address))

        def shutdown_request(self, request):
            super().shutdown_request(request)
            told.append("over")

    class Answers(modules.socketserver.DatagramRequestHandler):
        def handle(self):
            self.wfile.write(b"answer")

    server = Server(str(tmp_path / "s"), Answers)
    with looping(server), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", str(tmp_path / "s"))
        eventually(lambda: len(told) == 2)
    assert told == [(TypeError, None), "over"]
