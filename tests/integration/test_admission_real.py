"""Who gets in, how many at once, and how a server ends; on real connections."""

import socketserver
import threading
import time

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from sockserve import Deadlines, StreamRequestHandler
from sockserve.core.admission import Admission, parse_network
from sockserve.service import RequestService
from tests.integration.handlers import BlockingEcho, Echo
from tests.integration.servers import (
    LOOPBACK,
    PATIENCE_SECONDS,
    child,
    connect,
    connect_as,
    counts,
    description,
    in_thread,
    is_ended,
    read_exactly,
    read_line,
    serving,
    turned_away,
    until,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")


def served(client, seconds=15.0):
    """Whether a client's line is echoed within that time."""
    client.settimeout(seconds)
    client.sendall(b"line\n")
    try:
        return read_line(client) == b"line\n"
    except TimeoutError:
        return False


def served_in_the_end(kind, address):
    """Whether a client is served once there are descriptors again; each try waits for one."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            with connect_as(kind, address) as client:
                if served(client):
                    return True
        except ConnectionError:  # of the flood, some are not gone yet
            pass
    return False


# How many


@pytest.mark.parametrize("kind", ["tcp", "unix", "haproxy:tcp", "ssl"])
@pytest.mark.parametrize("handler", [Echo, BlockingEcho])
async def test_max_connections(handler, kind, tmp_path):
    """Exactly so many; the next waits, unharmed, until one of them ends."""
    admission = Admission(max_connections=3)

    def talk(address):
        clients = [connect_as(kind, address) for _ in range(3)]
        assert all(served(client) for client in clients)
        # Over TLS not even a handshake is to be had.
        waiting = connect(address)
        if kind == "ssl":
            from tests.integration.servers import secure

            before = time.monotonic()
            later = threading.Timer(0.4, clients.pop().close)
            later.start()
            waiting = secure(waiting)
            waited = time.monotonic() - before > 0.3
            later.join()
        else:
            if kind == "haproxy:tcp":
                from tests.integration.servers import PROXY_HEADER

                waiting.sendall(PROXY_HEADER)
            waited = not served(waiting, 0.2)
            clients.pop().close()
        clients.append(waiting)
        waiting.settimeout(15)
        if kind == "ssl":
            waiting.sendall(b"line\n")
        assert read_line(waiting) == b"line\n"
        for client in clients:
            client.close()
        return waited

    async with serving(handler, description(kind, tmp_path), admission=admission) as server:
        assert await in_thread(talk, server.server_address)
        await until(lambda: counts(server) == {"accepted": 4, "requests": 4})


async def test_max_connections_shared_by_listeners():
    admission = Admission(max_connections=1)

    def talk(one, other):
        with connect(one) as first, connect(other) as second:
            assert served(first)
            assert not served(second, 0.2)
            first.close()
            second.settimeout(15)
            return read_line(second)

    async with (
        serving(Echo, admission=admission) as one,
        serving(Echo, admission=admission) as other,
    ):
        assert await in_thread(talk, one.server_address, other.server_address) == b"line\n"


async def test_max_connections_per_peer():
    """127.0.0.1 has its share; 127.0.0.2, another peer, has one of its own."""
    admission = Admission(max_connections_per_peer=2)

    def talk(address):
        with (
            connect(address, bound_to="127.0.0.1") as first,
            connect(address, bound_to="127.0.0.1") as second,
            connect(address, bound_to="127.0.0.2") as stranger,
        ):
            assert served(first)
            assert served(second)
            assert turned_away(address, bound_to="127.0.0.1")
            assert served(stranger)

    def talk_again(address):
        with connect(address, bound_to="127.0.0.1") as again:
            return served(again)

    async with serving(Echo, admission=admission) as server:
        await in_thread(talk, server.server_address)
        await until(lambda: not server.statistics.active)
        assert await in_thread(talk_again, server.server_address)
        await until(lambda: not server.statistics.active)
        assert counts(server) == {"accepted": 5, "requests": 4, "refused": {"peer": 1}}


@pytest.mark.parametrize(
    ("networks", "kind", "client", "admitted"),
    [
        ({"allow": ["127.0.0.2"]}, "tcp", "127.0.0.2", True),
        ({"allow": ["127.0.0.2"]}, "tcp", "127.0.0.3", False),
        ({"deny": ["127.0.0.0/30"]}, "tcp", "127.0.0.3", False),
        ({"deny": ["127.0.0.0/30"]}, "tcp", "127.0.0.4", True),
        ({"allow": ["127.0.0.0/8"], "deny": ["127.0.0.2"]}, "tcp", "127.0.0.2", False),
        ({"allow": ["::1"]}, "tcp6", None, True),
        ({"deny": ["::/64"]}, "tcp6", None, False),
        ({"allow": ["192.0.2.1"]}, "unix", None, True),
    ],
)
@pytest.mark.parametrize("handler", [Echo, BlockingEcho])
async def test_networks(handler, networks, kind, client, admitted, tmp_path):
    admission = Admission(
        **{name: [parse_network(text) for text in texts] for name, texts in networks.items()}
    )

    def talk(address):
        if not admitted:
            return not turned_away(address, bound_to=client)
        with connect(address, bound_to=client) as connection:
            return served(connection)

    async with serving(handler, description(kind, tmp_path), admission=admission) as server:
        assert await in_thread(talk, server.server_address) == admitted
        await until(lambda: not server.statistics.active)
        if admitted:
            assert counts(server) == {"accepted": 1, "requests": 1}
        else:
            assert counts(server) == {"accepted": 1, "refused": {"network": 1}}


@pytest.mark.parametrize("handler", ["Echo", "BlockingEcho"])
@pytest.mark.parametrize("kind", ["tcp", "haproxy:tcp"])
def test_running_out_of_descriptors(handler, kind, tmp_path):
    """
    100 clients where there are 64 descriptors: those there are go on, the complaint comes
    once, and when there is room again, everybody is served.
    """
    limited = ("sh", "-c", 'ulimit -n 64; exec "$@"', "sh")
    with child(description(kind, tmp_path), handler, wrapper=limited) as server:
        old = [connect_as(kind, server.address) for _ in range(8)]
        assert all(served(client) for client in old)
        flood = [connect_as(kind, server.address) for _ in range(100)]
        server.wait_for_log("ulimit -n")
        assert all(served(client) for client in old)
        for client in flood:
            client.close()
        assert served_in_the_end(kind, server.address)
        assert all(served(client) for client in old)
        for client in old:
            client.close()
        complaints = [line for line in server.log().splitlines() if "ulimit -n" in line]
    assert complaints
    # A pumped connection takes three: one may be accepted and still not be served.
    for complaint in ("cannot accept", "cannot serve"):
        assert sum(complaint in line for line in complaints) <= 1
    assert "Traceback" not in server.log()


def test_deadline_wakes_a_handler_also_without_descriptors():
    """Or the connections that used them up would never end."""
    limited = ("sh", "-c", 'ulimit -n 40; exec "$@"', "sh")
    with child(LOOPBACK, "BlockingEcho", "idle=1", wrapper=limited) as server:
        flood = [connect(server.address) for _ in range(60)]
        # The last are served when the first have been idle for 1 s, and so on.
        for client in flood:
            with client:
                assert is_ended(client)
        assert served_in_the_end("tcp", server.address)


# The end of the service


class Idle(StreamRequestHandler):
    async def handle(self):
        self.wfile.write(b"ready\n")
        async for _line in self.rfile:
            pass


class BlockingIdle(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"ready\n")
        for _line in self.rfile:
            pass


class Busy(StreamRequestHandler):
    """Answers when it is told to, however long that takes."""

    async def handle(self):
        await self.rfile.readline()
        self.wfile.write(b"ready\n")
        await self.server.told
        self.wfile.write(b"answer\n")


class BlockingBusy(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.readline()
        self.wfile.write(b"ready\n")
        self.server.event.wait()
        self.wfile.write(b"answer\n")


class Stuck(StreamRequestHandler):
    """Expects more, all the time."""

    async def handle(self):
        self.wfile.write(b"ready\n")
        await Deferred()


class BlockingStuck(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"ready\n")
        while self.request.recv(100):
            pass


def start(handler, kind, folder, **seconds):
    from twisted.internet import reactor

    service = RequestService.from_description(
        reactor, description(kind, folder), handler, deadlines=Deadlines(**seconds)
    )
    service.startService()
    return service


def ready(kind, address):
    client = connect_as(kind, address)
    client.sendall(b"go on\n")
    assert read_line(client) == b"ready\n"
    return client


KINDS = ["tcp", "unix", "haproxy:tcp", "ssl"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("handler", [Idle, BlockingIdle])
async def test_stop_does_not_wait_for_idle_clients(handler, kind, tmp_path):
    """Nothing came for more than 1 s (quiet); far below 14 s (drain)."""
    if handler is BlockingIdle and kind == "unix":
        pytest.skip("the kernel does not tell how long a UNIX connection has been quiet")
    service = start(handler, kind, tmp_path, drain=14)
    client = await in_thread(ready, kind, service.server.server_address)
    await in_thread(time.sleep, 1.2 if handler is BlockingIdle else 0.05)

    def leave():
        with client:
            return is_ended(client)

    leaving = in_thread(leave)
    before = time.monotonic()
    await service.stopService()
    assert time.monotonic() - before < 7
    assert await leaving
    assert counts(service.server) == {"accepted": 1, "requests": 1}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("handler", [Busy, BlockingBusy])
async def test_stop_lets_a_request_finish(handler, kind, tmp_path):
    from twisted.internet import reactor

    service = start(handler, kind, tmp_path)
    server = service.server
    server.told, server.event = Deferred(), threading.Event()
    address = server.server_address
    client = await in_thread(ready, kind, address)
    stopped = service.stopService()
    await deferLater(reactor, 0)  # who comes before that is served

    def refused():
        try:
            connect(address).close()
        except (ConnectionRefusedError, FileNotFoundError):
            return True

    await until(refused)
    assert not stopped.called
    server.told.callback(None)
    server.event.set()
    assert await in_thread(read_line, client) == b"answer\n"
    client.close()
    await stopped
    assert counts(server) == {"accepted": 1, "requests": 1}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("handler", [Stuck, BlockingStuck])
async def test_stop_aborts_after_drain(handler, kind, tmp_path):
    """After 0.5 s (drain), though the client keeps talking."""
    service = start(handler, kind, tmp_path, drain=0.5)
    client = await in_thread(ready, kind, service.server.server_address)
    before = time.monotonic()
    await service.stopService()
    assert time.monotonic() - before > 0.4
    assert await in_thread(is_ended, client)
    client.close()
    assert counts(service.server) == {"accepted": 1, "requests": 1, "expiries": {"drain": 1}}


@pytest.mark.parametrize("kind", ["tcp", "haproxy:tcp"])
async def test_stop_abandons_a_thread_that_does_not_end(kind, tmp_path):
    """0.5 s (drain) and 1 s (abandon); it is counted until it ends after all."""
    service = start(BlockingBusy, kind, tmp_path, drain=0.5, abandon=1.0)
    server = service.server
    server.event = threading.Event()
    client = await in_thread(ready, kind, server.server_address)
    await service.stopService()
    assert counts(server) == {"accepted": 1, "expiries": {"drain": 1}, "abandoned": 1}
    server.event.set()
    await until(lambda: not server.statistics.abandoned)
    client.close()
    # Its thread, which nobody waits for any more, goes by itself.
    await service.server.concurrency.stop()


async def test_stop_with_requests_that_wait_for_a_thread():
    from twisted.internet import reactor

    from sockserve.executors import make_executor

    service = RequestService.from_description(
        reactor,
        LOOPBACK,
        BlockingStuck,
        deadlines=Deadlines(drain=0.5),
        concurrency=make_executor(reactor, "serial"),
    )
    service.startService()
    server = service.server
    first = await in_thread(ready, "tcp", server.server_address)
    waiting = [connect(server.server_address) for _ in range(3)]
    await until(lambda: server.statistics.accepted == 4)
    await service.stopService()
    for client in (first, *waiting):
        assert await in_thread(is_ended, client)
        client.close()
    assert server.idle()


async def test_service_can_be_started_again():
    service = start(Echo, "tcp", None)
    for _ in range(2):
        service.startService()
        client = await in_thread(connect, service.server.server_address)
        assert await in_thread(served, client)
        client.close()
        await service.stopService()


async def test_suspend_and_resume():
    """A suspended listener accepts nobody; who comes meanwhile is served afterwards."""
    service = start(Echo, "tcp", None)
    service.suspend()
    client = await in_thread(connect, service.server.server_address)
    assert not await in_thread(served, client, 0.2)
    assert service.server.statistics.accepted == 0
    service.resume()
    assert await in_thread(read_exactly, client, 5) == b"line\n"
    client.close()
    await service.stopService()
