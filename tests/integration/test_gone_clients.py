"""Clients that go away, over every kind of connection: who is told, and what is free again."""

import os
import select
import socket
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from sockserve import ClientGone, Deadlines, StreamRequestHandler
from sockserve.core.admission import Admission
from sockserve.executors.fork import ForkExecutor
from sockserve.executors.threads import ThreadExecutor
from sockserve.http import HTTPRequestHandler
from tests.integration.servers import (
    ROOT,
    connect,
    connect_as,
    counts,
    description,
    in_thread,
    read_all,
    read_exactly,
    reset,
    serving,
    until,
)
from tests.integration.web import get, post
from tests.tools import need_tool

pytestmark = [
    pytest.mark.usefixtures("no_leaks", "errors"),
    pytest.mark.skipif(sys.platform != "linux", reason="hang-ups are noticed by epoll"),
]

KINDS = ["tcp", "unix", "tls", "haproxy:tcp", "haproxy:unix"]


class Stream(StreamRequestHandler):
    """A handler that waits for the application, once it has said so."""

    async def handle(self):
        if await self.rfile.readline() == b"now\n":
            self.wfile.write(b"answer")
            return
        self.wfile.write(b"waiting")
        try:
            await Deferred()
        except BaseException as error:
            self.server.told.append(type(error))
            raise

    def finish(self):
        self.server.told.append("finished")


class Page(HTTPRequestHandler):
    """The same, of HTTP."""

    async def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"waiting")
        try:
            await Deferred()
        except BaseException as error:
            self.server.told.append(type(error))
            raise

    do_POST = do_GET

    def finish(self):
        self.server.told.append("finished")


@pytest.mark.parametrize("flooded", [False, True], ids=["read from", "not read from"])
@pytest.mark.parametrize("handler", [Stream, Page])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_handler_that_waits_for_the_application_is_told(kind, handler, flooded, tmp_path):
    def ask(server):
        client = connect_as(kind, server.server_address)
        client.sendall(b"wait\n" if handler is Stream else post(bytes(2**20))[: -(2**20)])
        assert read_exactly(client, 7)
        if flooded:
            client.settimeout(0.2)
            try:
                while True:
                    client.send(bytes(2**16))
            except OSError:  # it is not read from
                pass
        return client

    # Over UNIX sockets there are no resets: what was sent before is there to be read for a while.
    deadlines = Deadlines(abandon=0.5)
    async with serving(handler, description(kind, tmp_path), deadlines=deadlines) as server:
        server.told = []
        client = await in_thread(ask, server)
        assert server.told == []
        reset(client)
        await until(lambda: server.told == [ClientGone, "finished"])
        await until(lambda: counts(server) == {"accepted": 1, "requests": 1})


class Stubborn(StreamRequestHandler):
    """A handler that goes on waiting, whoever tells it what."""

    async def handle(self):
        self.wfile.write(b"waiting")
        while True:
            try:
                await Deferred()
            except ClientGone:
                self.server.told.append("gone")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_handler_that_outlives_its_client_is_abandoned(kind, tmp_path):
    def talk(address):
        with connect_as(kind, address) as client:
            read_exactly(client, len(b"waiting"))
            reset(client)

    deadlines = Deadlines(abandon=0.2)
    async with serving(Stubborn, description(kind, tmp_path), deadlines=deadlines) as server:
        server.told = []
        await in_thread(talk, server.server_address)
        await until(lambda: server.statistics.active == 0)
        assert server.told == ["gone"]


@pytest.mark.parametrize("handler", [Stream, Page])
@pytest.mark.parametrize("kind", ["unix", "tls", "haproxy:unix"])
async def test_one_that_has_read_all_and_closes_is_gone_where_that_can_be_told(
    kind, handler, tmp_path
):
    def ask(server):
        with connect_as(kind, server.server_address) as client:
            client.sendall(b"wait\n" if handler is Stream else get())
            said = b""
            while not said.endswith(b"waiting" if handler is Stream else b"waiting\r\n"):
                said += client.recv(1000)

    async with serving(handler, description(kind, tmp_path)) as server:
        server.told = []
        await in_thread(ask, server)
        await until(lambda: server.told == [ClientGone, "finished"])


async def test_closed_tabs_do_not_keep_others_out():
    """With room for two, two clients wait and go; two that wait behind them have gone, too."""

    def come(server):
        client = connect(server.server_address)
        client.sendall(b"wait\n")
        return client

    def ask(server):
        with connect(server.server_address) as client:
            client.sendall(b"now\n")
            return read_exactly(client, 6)

    async with serving(Stream, admission=Admission(max_connections=2)) as server:
        server.told = []
        tabs = [await in_thread(come, server) for _ in range(2)]
        await until(lambda: server.statistics.active == 2)
        tabs += [await in_thread(come, server) for _ in range(2)]
        for tab in reversed(tabs):
            reset(tab)
        assert await in_thread(ask, server) == b"answer"
        await until(lambda: not server.statistics.active)
        assert server.told.count(ClientGone) == 2
        assert counts(server) == {"accepted": 3, "refused": {"gone": 2}, "requests": 3}


async def test_a_thread_that_was_waited_for_goes_on_alone():
    began, go = threading.Event(), threading.Event()

    class Works(Stream):
        async def handle(self):
            try:
                await deferToThread(lambda: (began.set(), go.wait(10)))
            except BaseException as error:
                self.server.told.append(type(error))
                raise

    async with serving(Works) as server:
        server.told = []
        client = await in_thread(connect, server.server_address)
        await until(began.is_set)
        reset(client)
        await until(lambda: server.told == [ClientGone, "finished"])
        await until(lambda: not server.statistics.active)
        go.set()


# Queues for a thread


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "haproxy:unix"])
async def test_no_thread_is_waited_for_by_a_client_that_has_reset(kind, tmp_path):
    from twisted.internet import reactor

    go, served = threading.Event(), []

    class Waits(socketserver.StreamRequestHandler):
        def handle(self):
            served.append(self.rfile.readline())
            go.wait(10)

    def come(server, said):
        client = connect_as(kind, server.server_address)
        client.sendall(said)
        return client

    pool = ThreadExecutor(reactor, 1)
    async with serving(Waits, description(kind, tmp_path), concurrency=pool) as server:
        first = await in_thread(come, server, b"first\n")
        await until(lambda: served)
        second = await in_thread(come, server, b"second\n")
        await until(lambda: pool.waiting == 1)
        if kind == "unix":  # it has no resets but of those that leave something unread
            for channel in list(server.channels.values())[1:]:
                channel.request.send(b"unread")
        reset(second)
        await until(lambda: pool.waiting == 0)
        go.set()
        first.close()
        await until(lambda: not server.statistics.active)
        assert served == [b"first\n"]


async def test_nor_is_it_by_an_http_request_of_one(errors):
    from twisted.internet import reactor

    go, served = threading.Event(), []

    class Waits(HTTPRequestHandler):
        def do_GET(self):
            served.append(self.path)
            go.wait(10)
            self.send_response(204)
            self.end_headers()

    def come(server, *requests):
        client = connect(server.server_address)
        client.sendall(b"".join(requests))
        return client

    pool = ThreadExecutor(reactor, 1)
    async with serving(Waits, concurrency=pool) as server:
        first = await in_thread(come, server, get("/first"))
        await until(lambda: served)
        # The one is read from while it waits, the other has sent too much for that, and the third
        # has ended its side.
        waiting = [
            await in_thread(come, server, get("/second")),
            await in_thread(come, server, get("/third"), get("/x") * 3000),
            await in_thread(come, server, get("/fourth")),
        ]
        waiting[2].shutdown(socket.SHUT_WR)
        await until(lambda: pool.waiting == 3)
        for client in waiting:
            reset(client)
        await until(lambda: pool.waiting == 0)
        go.set()
        assert await in_thread(read_exactly, first, 12) == b"HTTP/1.1 204"
        first.close()
        await until(lambda: not server.statistics.active)
        assert served == ["/first"]


class Holds:
    """A handler that notes what it is asked for in a file, and then waits until it may go on."""

    def hold(self, said):
        with open(self.server.notes, "a") as notes:
            notes.write(said + "\n")
        select.select([self.server.gate], [], [], 10)


class HoldsLine(Holds, socketserver.StreamRequestHandler):
    def handle(self):
        self.hold(self.rfile.readline().decode().strip())
        self.wfile.write(b"done")


class HoldsStock(Holds, BaseHTTPRequestHandler):
    def do_GET(self):
        self.hold(self.path)
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\ndone")


class HoldsPage(Holds, HTTPRequestHandler):
    def do_GET(self):
        self.hold(self.path)
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"done")


class PageRegardless(HoldsPage):
    handler_cancellation = False


@asynccontextmanager
async def holding(handler, kind, folder, places=ThreadExecutor):
    """
    A server with room for one request, and C{ask}, by which a client asks it for something.

    Its attributes: C{notes}, a file; C{gate}, readable once handlers may go on; C{open_gate}.
    """
    from twisted.internet import reactor

    def ask(what):
        client = connect_as(kind, server.server_address)
        is_line = issubclass(handler, HoldsLine)
        client.sendall(f"{what}\n".encode() if is_line else get(what))
        return client

    where, pool = description(kind, folder), places(reactor, 1)
    server_side, test_side = socket.socketpair()
    with server_side, test_side:
        async with serving(handler, where, concurrency=pool) as server:
            server.notes, server.gate = folder / "notes", server_side.detach()
            server.open_gate = lambda: test_side.send(b"go")
            server.notes.touch()
            try:
                yield server, partial(in_thread, ask)
            finally:
                os.close(server.gate)


@pytest.mark.parametrize("places", [ThreadExecutor, ForkExecutor])
@pytest.mark.parametrize("handler", [HoldsStock, HoldsPage])
@pytest.mark.parametrize("kind", ["unix", "haproxy:unix"])
async def test_over_unix_nothing_is_done_for_one_that_has_asked_and_closed(
    kind, handler, places, tmp_path
):
    """But for one that has only ended its side."""
    async with holding(handler, kind, tmp_path, places) as (server, ask):
        first = await ask("/first")
        await until(server.notes.read_text)
        closes, ends_its_side = await ask("/closes"), await ask("/ends-its-side")
        ends_its_side.shutdown(socket.SHUT_WR)
        await until(lambda: server.concurrency.waiting == 2)
        closes.close()
        server.open_gate()
        for client in (first, ends_its_side):
            assert (await in_thread(read_all, client)).endswith(b"done")
            client.close()
        await until(lambda: not server.statistics.active)
        assert server.notes.read_text() == "/first\n/ends-its-side\n"


@pytest.mark.parametrize("handler", [HoldsStock, HoldsPage])
@pytest.mark.parametrize("kind", ["unix", "haproxy:unix"])
async def test_nor_does_it_keep_its_place_until_there_is_a_thread(kind, handler, tmp_path):
    async with holding(handler, kind, tmp_path) as (server, ask):
        first = await ask("/first")
        await until(server.notes.read_text)
        closes = await ask("/closes")
        await until(lambda: server.concurrency.waiting == 1)
        closes.close()
        await until(lambda: server.statistics.active == 1)
        assert server.concurrency.waiting == 0
        assert server.notes.read_text() == "/first\n"
        server.open_gate()
        assert (await in_thread(read_all, first)).endswith(b"done")
        first.close()


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        # One that may only want to say something
        (HoldsLine, "unix"),
        (HoldsLine, "haproxy:unix"),
        (PageRegardless, "unix"),
        (PageRegardless, "haproxy:unix"),
        # Where a close is not told from the end of its side
        (HoldsLine, "tcp"),
        (HoldsStock, "tcp"),
        (HoldsPage, "tcp"),
        (HoldsLine, "haproxy:tcp"),
        (HoldsPage, "haproxy:tcp"),
    ],
)
async def test_what_one_that_has_closed_has_asked_for_is_done(handler, kind, tmp_path):
    async with holding(handler, kind, tmp_path) as (server, ask):
        first = await ask("/first")
        await until(server.notes.read_text)
        closes = await ask("/closes")
        await until(lambda: server.concurrency.waiting == 1)
        closes.close()
        await in_thread(time.sleep, 0.1)  # nothing is to come of it
        assert server.concurrency.waiting == 1
        server.open_gate()
        first.close()
        await until(lambda: not server.statistics.active)
        assert server.notes.read_text() == "/first\n/closes\n"


# Half-open connections


def test_clients_that_are_gone_without_a_word_are_found_out():
    """In a network of its own, which is switched off under the connections."""
    unshare = need_tool("unshare")
    need_tool("ip")
    namespace = [unshare, "--map-root-user", "--net"]
    if subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs user namespaces")
    found = subprocess.run(
        [*namespace, sys.executable, "-m", "tests.integration.half_open"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.stderr == ""
    assert found.stdout.split() == [
        "Beats:expired:write",
        "Blocks:expired:write",
        "Page:expired:write",
        "SecureBeats:expired:write",
        "Waits:lost",
    ]
