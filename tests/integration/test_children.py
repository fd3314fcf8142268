"""What a child that serves a request has from its parent, and what not."""

import errno
import os
import re
import socket
import socketserver
from contextlib import ExitStack
from pathlib import Path

import pytest

from sockserve.core.admission import Admission
from sockserve.executors.fork import ForkExecutor
from tests.integration.handlers import BlockingEcho
from tests.integration.servers import (
    connect,
    connect_as,
    counts,
    description,
    in_thread,
    read_all,
    read_line,
    serving,
    turned_away,
    until,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")


class TellPid(socketserver.StreamRequestHandler):
    """Serves until its client says a line."""

    def handle(self):
        self.wfile.write(b"%d\n" % os.getpid())
        self.rfile.readline()


def sockets(pid="self"):
    """The inodes of the sockets a process holds."""
    held = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(link)
        except FileNotFoundError:
            continue  # the one that lists the folder
        held.update(re.findall(r"^socket:\[(\d+)\]$", target))
    return held


def client_ends(*clients):
    """The inodes of clients in this process, which a child has as well."""
    return {str(os.fstat(client.fileno()).st_ino) for client in clients}


def listening(server):
    """The inode of the socket a server listens on."""
    (port,) = server.ports
    return str(os.fstat(port.fileno()).st_ino)


@pytest.mark.parametrize("kind", ["haproxy:tcp", "ssl"])
async def test_tcp_options_do_not_fail_in_a_child(kind, tmp_path):
    from twisted.internet import reactor

    class Handler(socketserver.StreamRequestHandler):
        disable_nagle_algorithm = True

        def handle(self):
            self.request.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x10)
            self.wfile.write(b"hello")

    def talk(address):
        with connect_as(kind, address) as client:
            return read_all(client)

    options = {"concurrency": ForkExecutor(reactor)}
    async with serving(Handler, description(kind, tmp_path), **options) as server:
        assert await in_thread(talk, server.server_address) == b"hello"
        await until(lambda: not server.statistics.active)
        assert counts(server) == {"accepted": 1, "requests": 1}


@pytest.mark.parametrize("kind", ["tcp", "haproxy:tcp"])
async def test_a_child_holds_its_own_connection_only(kind, tmp_path):
    from twisted.internet import reactor

    before = sockets()
    options = {
        "concurrency": ForkExecutor(reactor),
        # The second is the last: the server does not watch its listening socket then.
        "admission": Admission(max_connections=2),
    }
    async with serving(TellPid, description(kind, tmp_path), **options) as server:

        def talk():
            with ExitStack() as stack:
                clients = []
                for _ in range(2):
                    clients.append(stack.enter_context(connect_as(kind, server.server_address)))
                    held = sockets(int(read_line(clients[-1]))) - before - client_ends(*clients)
                    assert listening(server) not in held
                    assert len(held) == 1
                for client in clients:  # to close is not enough: children hold copies
                    client.sendall(b"\n")
                    read_all(client)

        await in_thread(talk)
        await until(lambda: not server.statistics.active)


async def test_a_child_does_not_hold_what_waits_at_another_server():
    from twisted.internet import reactor

    before = sockets()
    concurrency = ForkExecutor(reactor, 1)
    async with (
        serving(TellPid, concurrency=concurrency) as one,
        serving(TellPid, concurrency=concurrency) as other,
    ):
        with (
            connect(one.server_address) as first,
            connect(one.server_address) as second,
        ):
            await in_thread(read_line, first)
            await until(lambda: concurrency.waiting == 1)
            with connect(other.server_address) as third:
                await until(lambda: concurrency.waiting == 2)
                first.sendall(b"\n")
                pid = int(await in_thread(read_line, second))
                assert len(sockets(pid) - before - client_ends(first, second, third)) == 1
                # To close is not enough: children hold copies.
                second.sendall(b"\n")
                await in_thread(read_line, third)
                third.sendall(b"\n")
                await until(lambda: not concurrency.running)


async def test_a_child_that_cannot_be_watched_does_not_stay(monkeypatch, errors):
    from twisted.internet import reactor

    def none_left(pid):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def echo(address):
        with connect(address) as client:
            client.sendall(b"hello\n")
            client.shutdown(socket.SHUT_WR)  # to close is not enough: the child holds a copy
            return read_all(client)

    def children():
        return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()

    concurrency = ForkExecutor(reactor)
    async with serving(BlockingEcho, concurrency=concurrency) as server:
        before = children()
        with monkeypatch.context() as patch:
            patch.setattr(os, "pidfd_open", none_left)
            assert await in_thread(turned_away, server.server_address)
            await until(lambda: not server.statistics.active)
        assert children() == before
        assert concurrency.running == 0
        (error,) = errors
        assert os.strerror(errno.EMFILE) in error
        errors.clear()
        assert await in_thread(echo, server.server_address) == b"hello\n"
        await until(lambda: not server.statistics.active)
        assert counts(server) == {"accepted": 2, "requests": 2, "errors": 1}
