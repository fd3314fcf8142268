"""Servers whose methods users have overridden, in ways of their own and in wrong ways."""

import socketserver

import pytest

import sockserve
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.service import RequestService
from tests.integration.handlers import Echo, StdlibEcho
from tests.integration.servers import (
    LOOPBACK,
    connect,
    in_thread,
    is_ended,
    read_line,
    running,
    serving,
    short,
    turned_away,
    until,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")


class ThreadingServer(socketserver.ThreadingMixIn, StreamFactory):
    """A thread for each request, started by the stdlib's own method."""

    daemon_threads = True
    block_on_close = False


class Receiver(socketserver.BaseRequestHandler):
    """Blocked on its client."""

    def handle(self):
        while self.request.recv(1):
            pass


@pytest.mark.parametrize("description", [LOOPBACK, "haproxy:" + LOOPBACK])
async def test_the_stdlibs_threading_mixin_serves(description):
    def talk(address):
        with connect(address) as client:
            if description.startswith("haproxy:"):
                client.sendall(b"PROXY UNKNOWN\r\n")
            client.sendall(b"hello\n")
            return read_line(client)

    async with serving(StdlibEcho, description, factory=ThreadingServer) as server:
        assert await in_thread(talk, server.server_address) == b"hello\n"
        await until(lambda: not server.statistics.active)


@pytest.mark.parametrize("phase", ["lifetime", "drain"])
async def test_deadlines_reach_a_thread_of_the_mixins(phase):
    from twisted.internet import reactor

    service = RequestService.from_description(
        reactor, LOOPBACK, Receiver, factory=ThreadingServer, deadlines=short(**{phase: 0.5})
    )
    async with running(service):
        server = service.server
        with connect(server.server_address) as client:
            await until(lambda: server.statistics.active)
            if phase == "lifetime":
                assert await in_thread(is_ended, client)
                await until(lambda: not server.statistics.active)
            else:
                client.sendall(b"not quiet")
                await service.stopService()
                assert await in_thread(is_ended, client)
            assert server.statistics.active == 0
            assert server.statistics.abandoned == 0


@pytest.mark.parametrize("handler", [Echo, StdlibEcho])
async def test_a_handle_error_that_raises_ends_the_request_still(handler, errors):
    class Server(StreamFactory):
        def verify_request(self, request, client_address):
            raise KeyError("no such client")

        def handle_error(self, request, client_address):
            raise

    async with serving(handler, factory=Server, deadlines=short()) as server:
        assert await in_thread(turned_away, server.server_address)
        await until(lambda: not server.statistics.active)
    assert errors
    assert all("no such client" in error for error in errors)
    errors.clear()


async def test_an_observer_that_raises_stops_nothing(errors):
    from twisted.internet import reactor

    def full(record):
        raise OSError("disk full")

    records = []
    service = RequestService.from_description(reactor, LOOPBACK, Echo, deadlines=short())
    async with running(service):
        server = service.server
        server.observers += [full, records.append]
        with connect(server.server_address) as client:
            client.sendall(b"hello\n")
            assert await in_thread(read_line, client) == b"hello\n"
            await service.stopService()
            assert await in_thread(is_ended, client)
        assert server.statistics.active == 0
    assert len(records) == 1
    (error,) = errors
    assert "disk full" in error
    errors.clear()


async def test_a_coroutine_that_does_not_end_is_ended_and_not_counted_as_abandoned():
    from twisted.internet.defer import Deferred

    class Stubborn(sockserve.StreamRequestHandler):
        async def handle(self):
            while True:
                try:
                    await Deferred()
                except TimeoutError:
                    pass

    async with serving(Stubborn, deadlines=short(handle=0.3, abandon=0.3)) as server:
        with connect(server.server_address) as client:
            assert await in_thread(is_ended, client)
            await until(lambda: not server.statistics.active)
        assert server.statistics.abandoned == 0
        assert server.statistics.errors == 1
