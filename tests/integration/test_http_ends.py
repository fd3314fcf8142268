"""
Coroutine HTTP handlers and clients that do not read, are not read, leave or speak something
else: bodies left unread, backpressure, resets, switched protocols.
"""

import socket

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from sockserve import Deadlines
from sockserve.http import HTTPRequestHandler
from tests.integration.handlers import PIECE
from tests.integration.servers import (
    PATIENCE_SECONDS,
    connect,
    counts,
    in_thread,
    read_exactly,
    reset,
    serving,
    until,
)
from tests.integration.web import (
    Conversation,
    answers_in,
    chunked,
    conversing,
    get,
    post,
    said,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

#: More than the kernel's buffers of both sides hold together.
FAR_TOO_MUCH_BYTES = 64 * 2**20


class Site(HTTPRequestHandler):
    """Answers with its path, and reads no body."""

    async def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    do_POST = do_GET


def is_read(server):
    """Whether the server takes what its only connection brings."""
    from twisted.internet import reactor

    (connection,) = server.connections
    return connection.transport in reactor.getReaders()


# Bodies that are left unread


async def test_a_body_that_comes_while_its_handler_does_something_else():
    """More than is kept of it meanwhile, less than would end the connection."""
    come = Deferred()

    class Busy(Site):
        async def do_POST(self):
            await come
            await self.do_GET()

    async with serving(Busy) as server:
        with await in_thread(Conversation, server.server_address) as client:
            client.send(post(b"x" * 250_000))
            await until(lambda: server.connections and not is_read(server))
            come.callback(None)
            assert (await in_thread(client.answer, "POST")).body == b"/"
            assert (await in_thread(client.ask, get("/next"))).body == b"/next"


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize("in_chunks", [False, True])
async def test_after_a_small_unread_body_the_connection_is_kept(size, in_chunks):
    if in_chunks:
        first = get("/", "Transfer-Encoding: chunked", method="POST") + chunked(b"x" * size)
    else:
        first = post(b"x" * size)
    answers = answers_in(await said(Site, first + get("/next")), "POST", "GET")
    assert [answer.body for answer in answers] == [b"/", b"/next"]


@pytest.mark.parametrize("in_chunks", [False, True])
async def test_after_a_large_one_it_ends_and_the_answer_is_read(in_chunks):
    """The client sends all of it before it reads, as most do."""
    body = b"x" * (16 * 2**20)
    if in_chunks:
        request = get("/", "Transfer-Encoding: chunked", method="POST") + chunked(body)
    else:
        request = post(body)

    def client(conversation):
        conversation.send(request)
        return conversation.answer("POST"), conversation.rest()

    deadlines = Deadlines(linger=PATIENCE_SECONDS)  # be the client as slow as it may
    answer, rest = await conversing(Site, client, deadlines=deadlines)
    assert (answer.status, answer.body, rest) == (200, b"/", b"")
    if not in_chunks:  # of chunks there is no telling
        assert answer.headers["Connection"] == "close"


async def test_what_a_handler_reads_in_part():
    async def do_POST(self):
        first = await self.rfile.read(1)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(first)

    handler = type("Part", (HTTPRequestHandler,), {"do_POST": do_POST})
    data = await said(handler, post(b"a" + b"x" * 100_000) + post(b"bcd"))
    assert [answer.body for answer in answers_in(data, "POST", "POST")] == [b"a", b"b"]


# Backpressure


async def comes_to_rest(progress):
    """Wait until C{progress()} has not changed for a while; what it is."""
    from twisted.internet import reactor

    seen, since = progress(), reactor.seconds()
    while reactor.seconds() - since < 0.5:
        await deferLater(reactor, 0.05)
        if progress() != seen:
            seen, since = progress(), reactor.seconds()
    return seen


async def test_a_client_that_does_not_read_stops_the_handler():
    pieces = FAR_TOO_MUCH_BYTES // len(PIECE)
    written = []

    class Download(HTTPRequestHandler):
        async def do_GET(self):
            self.send_response(200)
            self.end_headers()
            for number in range(pieces):
                self.wfile.write(PIECE)
                written.append(number)
                await self.wfile.drain()

    async with serving(Download) as server:
        with await in_thread(Conversation, server.server_address) as client:
            client.send(get())
            assert 0 < await comes_to_rest(lambda: len(written)) < pieces // 2
            answer = await in_thread(client.answer)
            assert len(answer.body) == FAR_TOO_MUCH_BYTES


def send_until_full(client, data):
    """Send over and over without reading, until nothing more is taken.  How much that was."""
    client.settimeout(0.5)
    sent = 0
    try:
        while sent < FAR_TOO_MUCH_BYTES:
            sent += client.send(data[sent % len(data) :])
    except TimeoutError:
        pass
    client.settimeout(PATIENCE_SECONDS)
    return sent


async def test_a_handler_that_does_not_read_stops_the_client():
    go = Deferred()

    class Upload(HTTPRequestHandler):
        async def do_POST(self):
            size = len(await self.rfile.read(1))
            await go
            while piece := await self.rfile.read(2**16):
                size += len(piece)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"%d" % size)

    async with serving(Upload) as server:
        with await in_thread(Conversation, server.server_address) as client:
            length = f"Content-Length: {FAR_TOO_MUCH_BYTES}"
            client.send(get("/", length, method="POST"))
            sent = await in_thread(send_until_full, client.socket, PIECE)
            assert sent < FAR_TOO_MUCH_BYTES // 2
            go.callback(None)
            await in_thread(client.send, b"x" * (FAR_TOO_MUCH_BYTES - sent))
            answer = await in_thread(client.answer, "POST")
            assert answer.body == b"%d" % FAR_TOO_MUCH_BYTES


@pytest.mark.parametrize("waits", [False, True])
async def test_a_client_that_asks_without_reading_is_stopped(waits):
    """Else its answers, or its requests, would gather in the server."""
    body = b"." * 1000

    class Thousand(HTTPRequestHandler):
        async def do_GET(self):
            if waits:
                await deferLater(self.server.reactor, 0)
            self.send_response(200)
            self.send_header("Content-Length", len(body))
            self.end_headers()
            self.wfile.write(body)

    async with serving(Thousand) as server:
        with await in_thread(Conversation, server.server_address) as client:
            request = get("/", "X: " + "x" * 1000)
            sent = await in_thread(send_until_full, client.socket, request)
            assert sent < FAR_TOO_MUCH_BYTES // 2
            whole = sent // len(request)
            assert await comes_to_rest(lambda: server.statistics.requests) < whole

            def read():
                for _ in range(whole):
                    assert client.answer().body == body

            await in_thread(read)


async def test_so_is_one_that_asks_on_while_a_request_is_in_service():
    """Each request that is answered makes room for another, not for all that waits to come."""
    begun = []

    class Slow(Site):
        async def do_GET(self):
            begun.append(Deferred())
            await begun[-1]
            await super().do_GET()

        async def do_POST(self):
            await self.rfile.read()
            await self.do_GET()

    async with serving(Slow) as server:
        with await in_thread(Conversation, server.server_address) as client:
            request = get("/", "X: " + "x" * 1000)
            client.send(post(b"x" * 100_000))
            sent = await in_thread(send_until_full, client.socket, request)
            assert sent < FAR_TOO_MUCH_BYTES // 2
            for _ in range(200):
                await until(lambda: begun)
                begun.pop().callback(None)
                await deferLater(server.reactor, 0)
            # 200 kB were made room for; 200 reads of 64 KiB would be all the kernel holds.
            assert await in_thread(send_until_full, client.socket, request) < 1_000_000
            reset(client.socket)
        await until(lambda: begun or not server.statistics.active)
        for waiting in begun:
            waiting.callback(None)


# Clients that leave


async def test_a_client_that_leaves_ends_what_waits_for_it():
    ended = []

    class Leaving(HTTPRequestHandler):
        async def do_GET(self):
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(PIECE)
                    await self.wfile.drain()
            except ConnectionError as error:
                ended.append(error)
                raise

        async def do_POST(self):
            try:
                await self.rfile.read()
            except ConnectionError as error:
                ended.append(error)
                raise

    async with serving(Leaving) as server:

        def leave(request):
            client = connect(server.server_address)
            client.sendall(request)
            if request.startswith(b"GET"):
                read_exactly(client, 2**20)
            reset(client)

        for number, request in enumerate([get(), post(b"abc")[:-1]], 1):
            await in_thread(leave, request)
            await until(lambda number=number: len(ended) == number)
        await until(lambda: not server.statistics.active)
        assert counts(server) == {"accepted": 2, "requests": 2}


@pytest.mark.parametrize("then", ["answers", "waits", "raises"])
async def test_a_handler_may_finish_regardless_when_its_client_has_left(then, errors):
    began, gone, over = [], Deferred(), []

    class Slow(HTTPRequestHandler):
        handler_cancellation = False

        async def do_GET(self):
            began.append(self)
            await gone
            if then == "raises":
                raise OSError("the disk is full")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"late")
            if then == "waits":
                await deferLater(self.server.reactor, 0)
                self.wfile.write(b"later")
            over.append(self)

    async with serving(Slow) as server:
        client = await in_thread(connect, server.server_address)
        client.sendall(get())
        await until(lambda: began)
        reset(client)
        await until(lambda: not next(iter(server.connections)).connected)
        gone.callback(None)
        await until(lambda: not server.statistics.active)
        if then == "raises":
            assert "the disk is full" in errors.pop()
        else:
            assert over == began


# Other protocols


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("method", ["GET", "CONNECT"])
async def test_a_handler_speaks_another_protocol(method, together):
    class Switching(HTTPRequestHandler):
        async def do_GET(self):
            self.send_response_only(101)
            self.send_header("Connection", "Upgrade")
            self.send_header("Upgrade", "echo")
            self.end_headers()
            await self.echo()

        async def do_CONNECT(self):
            assert self.path == "example.org:443"
            self.send_response_only(200, "Connected")
            self.end_headers()
            await self.echo()

        async def echo(self):
            async for line in self.rfile:
                self.wfile.write(line.upper())
                await self.wfile.drain()
            self.wfile.write(b"bye")

    def client(conversation):
        target = "/" if method == "GET" else "example.org:443"
        request = get(target, "Connection: Upgrade", "Upgrade: echo", method=method)
        conversation.send(request + (b"one\n" if together else b""))
        head = b"".join(iter(conversation.line, b"\r\n"))
        if not together:
            conversation.send(b"one\n")
        said = [conversation.line()]
        conversation.send(b"two\nGET / HTTP/1.1\r\n\r\n")
        said += [conversation.line() for _ in range(3)]
        conversation.end()
        return head, said, conversation.rest()

    head, lines, rest = await conversing(Switching, client)
    if method == "GET":
        expected = [b"HTTP/1.1 101 Switching Protocols", b"Connection: Upgrade", b"Upgrade: echo"]
    else:
        expected = [b"HTTP/1.1 200 Connected"]
    assert head.splitlines() == expected
    assert lines == [b"ONE\n", b"TWO\n", b"GET / HTTP/1.1\r\n", b"\r\n"]
    assert rest == b"bye"


async def test_an_upgrade_that_is_not_taken_up_is_ignored():
    data = await said(Site, get("/a", "Connection: Upgrade", "Upgrade: h2c") + get("/b"))
    assert [answer.body for answer in answers_in(data, "GET", "GET")] == [b"/a", b"/b"]


@pytest.mark.parametrize("end", ["close", "shutdown"])
async def test_a_handler_may_close_the_connection_itself(end):
    """What it has written still leaves."""

    class Closing(HTTPRequestHandler):
        async def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", 5)
            self.end_headers()
            self.wfile.write(b"whole")
            if end == "close":
                self.connection.close()
            else:
                self.connection.shutdown(socket.SHUT_WR)

    (answer,) = answers_in(await said(Closing, get() * 2), "GET")
    assert answer.body == b"whole"
