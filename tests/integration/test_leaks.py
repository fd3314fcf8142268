"""Ten thousand connections of each kind leave nothing behind."""

import os
import socketserver

import pytest

from sockserve import StreamRequestHandler
from sockserve.executors import make_executor
from sockserve.listeners.stream_factory import StreamFactory
from tests.integration.servers import (
    connect_as,
    description,
    in_thread,
    is_ended,
    read_line,
    serving,
    until,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")


class Wilful(Exception):
    """What a handler raises here."""


class QuietFactory(StreamFactory):
    """Expects no other errors."""

    def handle_error(self, request, client_address):
        try:
            raise
        except Wilful:
            pass


class Coroutine(StreamRequestHandler):
    """Does as its client says."""

    async def handle(self):
        wish = await self.rfile.readline()
        self.wfile.write(wish)
        if wish == b"close\n":
            self.request.close()
        elif wish == b"raise\n":
            raise Wilful
        elif wish == b"shut\n":
            self.request.shutdown(2)


class Blocking(socketserver.BaseRequestHandler):
    """Does as its client says."""

    def handle(self):
        wish = self.request.recv(100)
        self.request.sendall(wish)
        if wish == b"close\n":
            self.request.close()
        elif wish == b"raise\n":
            raise Wilful
        elif wish == b"shut\n":
            self.request.shutdown(2)
        elif wish == b"detach\n":
            os.close(self.request.detach())
        elif wish == b"dup\n":
            self.request.dup().close()


WISHES = [b"end\n", b"close\n", b"raise\n", b"shut\n", b"detach\n", b"dup\n"]


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def clients(kind, address, count):
    for number in range(count):
        wish = WISHES[number % len(WISHES)]
        with connect_as(kind, address) as client:
            client.sendall(wish)
            assert read_line(client) == wish
            if number % 7:  # the others leave first
                assert is_ended(client)


@pytest.mark.parametrize(
    ("handler", "kind", "concurrency", "count"),
    [
        (Coroutine, "tcp", None, 10_000),
        (Coroutine, "haproxy:tcp", None, 10_000),
        (Coroutine, "ssl", None, 150),
        (Blocking, "tcp", "threads", 10_000),
        (Blocking, "unix", "threads", 10_000),
        (Blocking, "haproxy:tcp", "threads", 10_000),
        (Blocking, "ssl", "threads", 150),
        (Blocking, "tcp", "fork", 120),
        (Blocking, "haproxy:tcp", "fork", 120),
    ],
)
async def test_no_descriptor_is_left(handler, kind, concurrency, count, tmp_path):
    """Whether the handler leaves its socket alone, closes, detaches or duplicates it, or raises."""
    from twisted.internet import reactor

    options = {}
    if concurrency is not None:
        options["concurrency"] = make_executor(reactor, concurrency)
    where = description(kind, tmp_path)
    async with serving(handler, where, factory=QuietFactory, **options) as server:
        await in_thread(clients, kind, server.server_address, 20)
        await until(lambda: not server.statistics.active)
        before = descriptors()
        await in_thread(clients, kind, server.server_address, count)
        await until(lambda: server.statistics.requests == count + 20 and server.idle())
        await until(lambda: descriptors() <= before)  # the last is closed a turn later
        raised = sum(WISHES[n % len(WISHES)] == b"raise\n" for n in range(count)) + 3
        assert server.statistics.errors == raised
        assert not server.connections
        assert not server.channels
