"""
The reactor asks once for the events of a whole turn.  A descriptor that is closed within the
turn may give its number to a new one, which then hears what was meant for the old.
"""

import socket
import socketserver

import pytest
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from sockserve.executors.fork import ForkExecutor
from sockserve.sockets.pumping import Pump
from tests.integration.servers import (
    connect,
    connect_as,
    description,
    in_thread,
    is_ended,
    read_line,
    serving,
    until,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")


class Lines(socketserver.StreamRequestHandler):
    """Echoes by line."""

    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


def say(client, line):
    client.sendall(line)
    return read_line(client)


async def test_a_pumped_connection_does_not_take_anothers_hang_up_for_its_own(tmp_path):
    from twisted.internet import reactor

    kind = "haproxy:tcp"
    async with serving(Lines, description(kind, tmp_path)) as server:
        client = await in_thread(connect_as, kind, server.server_address)
        with client:
            assert await in_thread(say, client, b"one\n") == b"one\n"
            (pump,) = [each for each in reactor.getReaders() if isinstance(each, Pump)]
            reactor._disconnectSelectable(pump, ConnectionDone(), True)  # as on POLLHUP
            assert await in_thread(say, client, b"two\n") == b"two\n"
        await until(lambda: not server.statistics.active)
    assert server.statistics.errors == 0


async def test_the_reactor_does_not_wait_for_a_child_that_has_not_ended(tmp_path):
    from twisted.internet import reactor

    concurrency = ForkExecutor(reactor)
    async with serving(Lines, description("tcp", tmp_path), concurrency=concurrency) as server:
        client = await in_thread(connect, server.server_address)
        with client:
            assert await in_thread(say, client, b"one\n") == b"one\n"
            (child,) = [
                each for each in reactor.getReaders() if each.logPrefix().startswith("child ")
            ]
            child.doRead()  # a blocking wait would not return: its client is silent
            assert await in_thread(say, client, b"two\n") == b"two\n"
            client.shutdown(socket.SHUT_WR)  # the child has a copy of it
        await until(lambda: not server.statistics.active)
    assert server.statistics.requests == 1


async def test_a_handlers_real_hang_up_is_still_heard(tmp_path):
    from twisted.internet import reactor

    class Once(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(self.rfile.readline())
            self.rfile.readline()

    def last(client):
        client.sendall(b"end\n")
        return is_ended(client)

    kind = "haproxy:tcp"
    async with serving(Once, description(kind, tmp_path)) as server:
        client = await in_thread(connect_as, kind, server.server_address)
        with client:
            assert await in_thread(say, client, b"one\n") == b"one\n"
            (pump,) = [each for each in reactor.getReaders() if isinstance(each, Pump)]
            pump.readConnectionLost(Failure(ConnectionDone()))
            assert await in_thread(last, client)
        await until(lambda: not server.statistics.active)
