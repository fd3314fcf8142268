"""
C{http.server}'s handlers that read their connections by themselves, when their service stops: what
has arrived is answered, the last answer says that it is the last, and who asks no more is let go.
"""

import functools
import http.server
import re
import socketserver
import ssl
import threading
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

import sockserve.http.server
import sockserve.socketserver
from sockserve.core.deadlines import Deadlines
from sockserve.service import RequestService, SocketServerService
from sockserve.sockets.hangups import Hangup, hangup_of
from tests.integration.http_handlers import place
from tests.integration.servers import (
    certificate_file,
    connect,
    connect_as,
    connect_tls,
    description,
    in_thread,
    read_all,
    until,
)
from tests.integration.web import get, post

pytestmark = [
    pytest.mark.usefixtures("no_leaks", "errors"),
    # Twisted's own way to its certificates.
    pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning"),
]

ADDRESS = ("127.0.0.1", 0)
HINT = b"HTTP/1.1 103 Early Hints\r\n\r\n"


class Site(http.server.BaseHTTPRequestHandler):
    """Answers with the request's body, which it reads after a hint that it has begun."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        size = int(self.headers.get("Content-Length", 0))
        if size:
            self.wfile.write(HINT)
            self.wfile.flush()
        body = self.rfile.read(size)
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *arguments):
        """Quiet."""


class OwnLoop(Site):
    def handle(self):
        self.close_connection = False
        while not self.close_connection:
            self.handle_one_request()


class KeepsAlive(Site):
    def end_headers(self):
        self.send_header("Connection", "keep-alive")
        super().end_headers()


class BuffersOutput(OwnLoop):
    wbufsize = -1


class Unbuffered(Site):
    rbufsize = 0


class StdlibForking(socketserver.ForkingMixIn, http.server.HTTPServer):
    pass


class Forking(sockserve.socketserver.ForkingMixIn, sockserve.http.server.HTTPServer):
    pass


class OverTLS(sockserve.socketserver.ForkingMixIn, sockserve.http.server.HTTPSServer):
    pass


def overriding(base):
    """A server whose methods on the way to a handler are the program's own."""

    class Overriding(base):
        def process_request(self, request, client_address):
            super().process_request(request, client_address)

        def finish_request(self, request, client_address):
            super().finish_request(request, client_address)

    return Overriding


class Service(NamedTuple):
    """A service by its options."""

    place: str
    kind: str = "tcp"
    handler: Any = Site


class Object(NamedTuple):
    """A server object that is served as it stands."""

    server: type
    handler: Any = Site


#: Those with a child for each connection.
CHILDREN = {
    "fork": Service("fork"),
    "fork, UNIX": Service("fork", "unix"),
    "fork, TLS": Service("fork", "ssl"),
    "fork, PROXY": Service("fork", "haproxy:tcp"),
    "fork, factory": Service("fork", handler=lambda *arguments: Site(*arguments)),
    "fork, loop": Service("fork", handler=OwnLoop),
    "fork, says keep-alive": Service("fork", handler=KeepsAlive),
    "fork, wbufsize": Service("fork", handler=BuffersOutput),
    "fork, rbufsize = 0": Service("fork", handler=Unbuffered),
    "object": Object(StdlibForking),
    "object, factory": Object(StdlibForking, lambda *arguments: Site(*arguments)),
    "object, overrides": Object(overriding(StdlibForking)),
    "object of ours": Object(Forking),
    "object of ours, overrides": Object(overriding(Forking)),
    "object of ours, TLS": Object(OverTLS),
}

THREADS = {
    "threads, loop": Service("threads", handler=OwnLoop),
    "threads, factory": Service("threads", handler=lambda *arguments: Site(*arguments)),
    "threads, UNIX, loop": Service("threads", "unix", OwnLoop),
    "threads, TLS, loop": Service("threads", "ssl", OwnLoop),
    "serial, rbufsize = 0": Service("serial", handler=Unbuffered),
    "threads, object, loop": Object(http.server.ThreadingHTTPServer, OwnLoop),
    "threads, object, overrides": Object(overriding(http.server.ThreadingHTTPServer)),
    "one, object, overrides": Object(overriding(http.server.HTTPServer)),
    "threads, object, TLS": Object(sockserve.http.server.ThreadingHTTPSServer),
}

each_way = pytest.mark.parametrize("way", [*CHILDREN, *THREADS])
each_way_with_children = pytest.mark.parametrize("way", CHILDREN)


@asynccontextmanager
async def started(way, folder, **seconds):
    """
    Start a service of handlers that read by themselves.

    @param seconds: deadlines.  One that is not about the test is too long for it.
    """
    from twisted.internet import reactor

    made = (CHILDREN | THREADS)[way]
    deadlines = Deadlines(**{"quiet": 60, "drain": 60, **seconds})
    if isinstance(made, Service):
        where = description(made.kind, folder)
        options = {"concurrency": place(made.place), "deadlines": deadlines}
        service = RequestService.from_description(reactor, where, made.handler, **options)
        service.startService()
        connect_client = functools.partial(connect_as, made.kind, service.server.server_address)
    else:
        is_tls = issubclass(made.server, sockserve.http.server.HTTPSServer)
        words = {"certfile": certificate_file(folder)} if is_tls else {}
        server = made.server(ADDRESS, made.handler, **words)
        service = SocketServerService(server, reactor, deadlines=deadlines)
        service.startService()
        connector = connect_tls if is_tls else connect
        connect_client = functools.partial(connector, server.server_address)
    try:
        with await in_thread(connect_client) as client:
            yield service, client
    finally:
        await service.stopService()


def ask(client, *pieces):
    """Send C{pieces}, and read one answer, or a hint."""
    client.sendall(b"".join(pieces))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = client.recv(1)
        assert byte, head
        head += byte
    size = re.search(rb"Content-Length: ([0-9]+)", head)
    body = b""
    while len(body) < int(size[1] if size else 0):
        body += client.recv(1)
    return head + body


def rest(client, *pieces):
    """Send C{pieces}, and read all answers, to the end."""
    said = b""
    try:
        if pieces:
            client.sendall(b"".join(pieces))
        while part := client.recv(2**16):
            said += part
    except ssl.SSLEOFError:  # sockets that are wrapped end without a word
        pass
    return said


def answers(said):
    """
    For each of the answers in C{said}: what it says of the connection, and its body.
    """
    found = []
    while said:
        head, _, said = said.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        size = int(re.search(rb"Content-Length: ([0-9]+)", head)[1])
        found.append((re.findall(rb"(?m)^Connection: (.*?)\r?$", head), said[:size]))
        said = said[size:]
    return found


@each_way
async def test_an_answer_while_the_service_stops_is_the_last_and_says_so(way, tmp_path):
    async with started(way, tmp_path) as (service, client):
        before = await in_thread(ask, client, get())
        assert b"Connection: close" not in before
        assert await in_thread(ask, client, post(b"one")[:-3]) == HINT
        stopped = service.stopService()
        said = await in_thread(rest, client, b"one")
        assert answers(said) == [([b"close"], b"one")]
        await stopped


@each_way
async def test_what_a_client_has_sent_ahead_is_answered_before(way, tmp_path):
    keep = [b"keep-alive"] if "keep-alive" in way else []
    async with started(way, tmp_path) as (service, client):
        assert await in_thread(ask, client, post(b"one")[:-3]) == HINT
        stopped = service.stopService()
        said = await in_thread(rest, client, b"one" + get() * 2)
        assert answers(said) == [(keep, b"one"), (keep, b""), ([b"close"], b"")]
        await stopped


@each_way_with_children
async def test_who_asks_while_the_service_stops_is_answered(way, tmp_path):
    """It may have asked just before; "quiet" is a minute."""
    async with started(way, tmp_path) as (service, client):
        await in_thread(ask, client, get())
        stopped = service.stopService()
        assert answers(await in_thread(rest, client, get())) == [([b"close"], b"")]
        await stopped


@each_way_with_children
async def test_who_asks_no_more_is_let_go(way, tmp_path):
    """0.1 s (quiet)."""
    async with started(way, tmp_path, quiet=0.1) as (service, client):
        await in_thread(ask, client, get())
        stopped = service.stopService()
        assert await in_thread(rest, client) == b""
        await stopped


@pytest.mark.parametrize("way", ["fork", "fork, UNIX", "object", "object of ours"])
async def test_so_is_who_has_not_asked_at_all(way, tmp_path):
    """0.1 s (quiet)."""
    async with started(way, tmp_path, quiet=0.1) as (service, client):
        stopped = service.stopService()
        assert await in_thread(rest, client) == b""
        await stopped


@pytest.mark.parametrize(
    # Where the service moves the bytes, it ends the input itself, not knowing what is asked.
    "way",
    [way for way in CHILDREN if way not in ("fork, TLS", "fork, PROXY")],
)
async def test_who_has_asked_for_half_of_something_is_waited_for(way, tmp_path):
    """Whether that has been read already, behind another request, or not; 0.1 s (quiet)."""
    async with started(way, tmp_path, quiet=0.1) as (service, client):
        await in_thread(ask, client, get() + get()[:10])
        stopped = service.stopService()
        await in_thread(threading.Event().wait, 0.3)  # nothing is to come of that
        assert answers(await in_thread(rest, client, get()[10:])) == [([b"close"], b"")]
        await stopped


async def test_children_are_told_of_their_own_service_only(tmp_path):
    from twisted.internet import reactor

    shared, services = place("fork"), []
    for _ in range(2):
        where = description("tcp", tmp_path)
        services.append(
            RequestService.from_description(
                reactor, where, Site, concurrency=shared, deadlines=Deadlines(quiet=None, drain=1)
            )
        )
        services[-1].startService()
    with (
        await in_thread(connect, services[0].server.server_address) as first,
        await in_thread(connect, services[1].server.server_address) as second,
    ):
        await in_thread(ask, first, get())
        await in_thread(ask, second, get())
        await services[0].stopService()
        assert await in_thread(rest, first) == b""
        assert b"Connection: close" not in await in_thread(ask, second, get())
        stopped = services[1].stopService()
        assert await in_thread(rest, second) == b""
        await stopped


async def test_a_service_that_was_started_again_says_nothing_of_the_kind(tmp_path):
    from twisted.internet import reactor

    where = description("unix", tmp_path)
    service = RequestService.from_description(
        reactor, where, Site, concurrency=place("fork"), deadlines=Deadlines(quiet=None, drain=1)
    )
    for _ in range(2):
        service.startService()
        with await in_thread(connect, service.server.server_address) as client:
            for _ in range(2):
                assert b"Connection: close" not in await in_thread(ask, client, get())
            stopped = service.stopService()
            assert await in_thread(rest, client) == b""
        await stopped


async def test_one_that_has_waited_for_its_child_is_told_when_it_begins(tmp_path):
    """With one child, the second connection waits for the end of the first."""
    from twisted.internet import reactor

    service = RequestService.from_description(
        reactor,
        description("tcp", tmp_path),
        Site,
        concurrency=place("fork", max_children=1),
        deadlines=Deadlines(quiet=60),
    )
    service.startService()
    with (
        await in_thread(connect, service.server.server_address) as first,
        await in_thread(connect, service.server.server_address) as second,
    ):
        await in_thread(ask, first, get())
        second.sendall(get())
        await until(lambda: service.server.concurrency.waiting == 1)
        stopped = service.stopService()
        for client, request in ((first, get()), (second, b"")):
            assert answers(await in_thread(rest, client, request)) == [([b"close"], b"")]
        await stopped


@pytest.mark.parametrize("kind", ["tcp", "ssl", "haproxy:tcp"])
async def test_one_that_answers_for_longer_than_its_client_may_be_quiet_says_so(kind, tmp_path):
    """Its input is ended meanwhile, which is nothing that the client has sent."""
    from twisted.internet import reactor

    begun, go_on, sockets = threading.Event(), threading.Event(), []

    class Busy(OwnLoop):
        def do_GET(self):
            sockets.append(self.connection)
            begun.set()
            assert go_on.wait(15)
            super().do_GET()

    service = RequestService.from_description(
        reactor,
        description(kind, tmp_path),
        Busy,
        concurrency=place("threads"),
        deadlines=Deadlines(quiet=0.05),
    )
    service.startService()
    with await in_thread(connect_as, kind, service.server.server_address) as client:
        client.sendall(get())
        assert await in_thread(begun.wait, 15)
        stopped = service.stopService()
        await until(lambda: hangup_of(sockets[0]) is Hangup.ENDED)
        go_on.set()
        assert answers(await in_thread(rest, client)) == [([b"close"], b"")]
        await stopped


@pytest.mark.parametrize("kind", [StdlibForking, Forking])
async def test_an_objects_own_shutdown_tells_no_child(kind):
    """Where no service serves it, all is as in the standard library."""
    server = kind(ADDRESS, Site)

    def talk():
        with connect(server.server_address) as client:
            ask(client, get())
            server.shutdown()
            thread.join()
            return [ask(client, get()) for _ in range(2)]

    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    said = await in_thread(talk)
    assert [answers(each) for each in said] == [[([], b"")]] * 2
    server.block_on_close = False
    server.server_close()
    for pid in server.active_children:
        import os
        import signal

        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("way", ["fork", "object"])
async def test_a_handler_that_is_none_of_http_servers_is_not_told(way, monkeypatch, tmp_path):
    """It may be in the middle of something."""

    class Lines(socketserver.StreamRequestHandler):
        def handle(self):
            for line in self.rfile:
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + line)

    monkeypatch.setitem(CHILDREN, way, CHILDREN[way]._replace(handler=Lines))
    async with started(way, tmp_path, quiet=None) as (service, client):
        await in_thread(ask, client, b"one\n")
        stopped = service.stopService()
        await in_thread(threading.Event().wait, 0.3)  # nothing is to come of that

        def talk():
            client.sendall(b"two\n")
            client.shutdown(1)
            return read_all(client)

        said = await in_thread(talk)
        assert said.endswith(b"HTTP/1.1 200 OK\r\n\r\ntwo\n")
        await stopped
