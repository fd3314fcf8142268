"""Limits: set where they are met, by every way there is; and told by their names when they are."""

import contextlib
import json
import logging
import socket
import socketserver as stdlib_socketserver
import sys
import threading

import pytest
from twisted.logger import LogLevel, capturedLogs, formatEvent

from sockserve import ConfigurationError, Deadlines, socketserver
from sockserve.http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.observe.access_log import AccessLog
from sockserve.run.config_file import read_toml
from sockserve.service import SocketServerService
from sockserve.tap import Options
from tests.integration.servers import connect, in_thread, running, serving, turned_away, until
from tests.integration.socketservers import blocking, eventually, looping
from tests.integration.web import Conversation, get, post, talk

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

MODULE = sys.modules[__name__].__name__


class Site(BaseHTTPRequestHandler):
    """Says how long the body is that it gets."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(b"%d" % len(body))

    def do_GET(self):
        self.answer(b"%d" % len(self.headers))

    do_POST = do_PUT

    def answer(self, data):
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *arguments):
        pass


def status(address, request):
    """The status of the answer to a request, which ends its connection."""
    return int(talk(address, request).split()[1])


FIELDS = [f"A{number}: b" for number in range(20)]

#: By limit: a value, a request that is within it and one that is over, and what the latter gets.
MET = {
    "max_body_bytes": (100, post(b"x" * 100), post(b"x" * 101), 413),
    "max_request_line_bytes": (30, get("/" + "x" * 10), get("/" + "x" * 40), 414),
    "max_header_bytes": (120, get("/", "X: y"), get("/", "X: " + "y" * 120), 431),
    "max_header_fields": (10, get("/", *FIELDS[:5]), get("/", *FIELDS), 431),
}

each_limit = pytest.mark.parametrize("name", MET)


def closing(request):
    """The same request, the last of its connection."""
    line, end, rest = request.partition(b"\r\n")
    return line + end + b"Connection: close\r\n" + rest


def statuses(address, name):
    _, within, over, _ = MET[name]
    return status(address, closing(within)), status(address, over)


@each_limit
async def test_of_a_factory(name):
    value, _, _, refusal = MET[name]
    factory = type("Factory", (StreamFactory,), {name: value})
    for words in ({"factory": factory}, {"limits": {name: value}}):
        async with serving(Site, **words) as server:
            assert await in_thread(statuses, server.server_address, name) == (200, refusal)
    async with serving(Site) as server:
        assert await in_thread(statuses, server.server_address, name) == (200, 200)


@each_limit
@pytest.mark.parametrize("way", ["options", "file"])
async def test_of_a_command(name, way, tmp_path):
    from twisted.internet import reactor

    value, _, _, refusal = MET[name]
    words = {
        "listen": "tcp:0:interface=127.0.0.1",
        "handler": f"{MODULE}:Site",
        name.replace("_", "-"): str(value),
    }
    if way == "options":
        options = Options()
        options.parseOptions([item for word in words for item in (f"--{word}", words[word])])
        (config,) = options.servers
    else:
        file = tmp_path / "a.toml"
        file.write_text("[[server]]\n" + "".join(f'{word} = "{words[word]}"\n' for word in words))
        (config,) = read_toml(str(file))
    async with running(config.build(reactor)) as service:
        (listener,) = service
        address = listener.server.server_address
        assert await in_thread(statuses, address, name) == (200, refusal)


@each_limit
@pytest.mark.parametrize("base", [ThreadingHTTPServer, HTTPServer])
@blocking
def test_of_a_drop_in_server(name, base):
    value, _, _, refusal = MET[name]
    cls = type("Server", (base,), {name: value})
    with looping_one(cls) as server:
        assert statuses(server.server_address, name) == (200, refusal)


@contextlib.contextmanager
def looping_one(cls, handler=Site):
    server = cls(("127.0.0.1", 0), handler)
    with looping(server):
        yield server


@blocking
def test_of_one_drop_in_server():
    """An attribute of the object, set before its first request."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.max_body_bytes = 10
    with looping(server):
        assert statuses(server.server_address, "max_body_bytes") == (413, 413)


@each_limit
@blocking
def test_of_a_mixed_server(name):
    """sockserve's mix-in before a class of the standard library's."""
    value, _, _, refusal = MET[name]
    bases = (socketserver.ThreadingMixIn, stdlib_socketserver.TCPServer)
    with looping_one(type("Server", bases, {name: value, "daemon_threads": True})) as server:
        assert statuses(server.server_address, name) == (200, refusal)


@each_limit
@pytest.mark.parametrize(
    "bases",
    [
        (ThreadingHTTPServer,),
        (stdlib_socketserver.ThreadingMixIn, stdlib_socketserver.TCPServer),
        (stdlib_socketserver.TCPServer,),
    ],
)
async def test_of_a_server_object(name, bases):
    """Its own attribute, and what is given in place of it."""
    from twisted.internet import reactor

    value, _, _, refusal = MET[name]
    cls = type("Server", bases, {name: value})
    service = SocketServerService(cls(("127.0.0.1", 0), Site), reactor)
    async with running(service):
        found = await in_thread(statuses, service.server.server_address, name)
        assert found == (200, refusal)
    given = {name: value * 1000}
    service = SocketServerService(cls(("127.0.0.1", 0), Site), reactor, limits=given)
    async with running(service):
        found = await in_thread(statuses, service.server.server_address, name)
        assert found == (200, 200)


async def test_a_server_object_without_attributes_has_the_defaults_of_its_kind():
    from twisted.internet import reactor

    for cls, expected in [
        (stdlib_socketserver.ThreadingTCPServer, StreamFactory.max_body_bytes),
        (ThreadingHTTPServer, None),
    ]:
        server = cls(("127.0.0.1", 0), Site)
        service = SocketServerService(server, reactor)
        assert service.server.max_body_bytes == expected
        server.server_close()


async def test_the_deadlines_of_a_server_object_are_its_own():
    from twisted.internet import reactor

    class Patient(ThreadingHTTPServer):
        deadlines = Deadlines(body_rate=7, body_grace=3)

    for cls, rate in [(Patient, 7), (ThreadingHTTPServer, Deadlines().body_rate)]:
        server = cls(("127.0.0.1", 0), Site)
        assert SocketServerService(server, reactor).server.deadlines.body_rate == rate
        server.server_close()


@pytest.mark.parametrize("base", [ThreadingHTTPServer, HTTPServer, socketserver.UDPServer])
def test_a_limit_that_cannot_be_is_told_when_a_drop_in_server_is_made(base):
    cls = type("Server", (base,), {"max_body_bytes": "10m"})
    with pytest.raises(ConfigurationError, match="max_body_bytes: '10m' is not a number of bytes"):
        cls(("127.0.0.1", 0), Site)


# What is said of a refusal


@each_limit
async def test_a_refusal_is_in_the_log_once_a_minute_and_in_the_access_log(name, tmp_path):
    from twisted.internet import reactor

    value, _, over, _ = MET[name]
    access = AccessLog(reactor, str(tmp_path / "log"), "json")
    access.startService()
    with capturedLogs() as events:
        async with serving(Site, limits={name: value}) as server:
            server.observers.append(access.observer("here"))
            for _ in range(3):
                await in_thread(status, server.server_address, over)
            await until(lambda: (tmp_path / "log").read_text().count("\n") == 3)
    access.stopService()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["reason"] for line in lines] == [name] * 3
    said = [formatEvent(event) for event in events if name in formatEvent(event)]
    assert len(said) == 2
    assert said[0].startswith("Site: refused the client 127.0.0.1:")
    assert said[0].endswith(
        f": more than {name} allows, which is {value}; raise that if it is to be served"
    )
    assert said[1] == f"Site: {name}: 2 more like it before"


async def test_a_client_over_the_cap_of_its_address_is_in_the_log():
    from sockserve.core.admission import Admission

    records = []
    with capturedLogs() as events:
        async with serving(Site, admission=Admission(max_connections_per_peer=1)) as server:
            server.observers.append(records.append)

            def come():
                with connect(server.server_address):
                    assert turned_away(server.server_address)

            await in_thread(come)
            await until(lambda: records)
    assert (records[0].outcome, records[0].reason) == ("refused: peer", "max_connections_per_peer")
    (line,) = [formatEvent(each) for each in events if "per_peer" in formatEvent(each)]
    assert "more than max_connections_per_peer allows, which is 1; raise that" in line


async def test_a_body_that_is_slower_than_its_rate_is_told_by_name():
    records = []
    deadlines = Deadlines(body_rate=1000, body_grace=0.1)
    with capturedLogs() as events:
        async with serving(Site, deadlines=deadlines) as server:
            server.observers.append(records.append)
            request = post(b"x" * 100)[:-50]

            def come():
                with Conversation(server.server_address) as client:
                    return client.ask(request).status

            assert await in_thread(come) == 408
            await until(lambda: records)
    assert records[0].outcome == "expired: body"
    (line,) = [formatEvent(each) for each in events if "body_rate" in formatEvent(each)]
    assert line.endswith("the body deadline expired, which body_rate (1000) sets, or idle")


class Small(ThreadingHTTPServer):
    max_body_bytes = 10


async def test_the_service_of_a_server_object_tells_twisteds_log(caplog):
    from twisted.internet import reactor

    service = SocketServerService(Small(("127.0.0.1", 0), Site), reactor)
    with capturedLogs() as events:
        async with running(service):
            await in_thread(status, service.server.server_address, post(b"x" * 11))
    (event,) = [each for each in events if "max_body_bytes" in formatEvent(each)]
    assert event["log_namespace"] == "sockserve.connections"
    assert event["log_level"] is LogLevel.warn
    assert formatEvent(event).startswith("Site: refused the client 127.0.0.1:")
    assert not caplog.records


@blocking
def test_a_drop_in_program_hears_of_it_by_logging(caplog):
    with caplog.at_level(logging.WARNING), looping_one(Small) as server:
        for _ in range(2):
            assert status(server.server_address, post(b"x" * 11)) == 413
        eventually(lambda: caplog.records)
    eventually(lambda: len(caplog.records) == 2)  # the second is told at the end
    lines = [each.getMessage() for each in caplog.records]
    assert lines[0].startswith("Small: refused the client 127.0.0.1:")
    assert "more than max_body_bytes allows, which is 10; raise that" in lines[0]
    assert lines[1:] == ["Small: max_body_bytes: 1 more like it before"]


# Datagrams


class Waiting(stdlib_socketserver.DatagramRequestHandler):
    """Waits until it may answer."""

    def handle(self):
        self.server.began.append(self.packet)
        assert self.server.may_end.wait(20)


def began_and_total(cls_of, limit):
    """How many of 5 datagrams are begun at the limit, and when that is over."""
    server = cls_of(("127.0.0.1", 0), Waiting)
    server.began, server.may_end = [], threading.Event()
    if limit is not None:
        server.max_datagrams = limit
    return server


@blocking
@pytest.mark.parametrize(("limit", "at_once"), [(2, 2), (None, 5)])
def test_a_drop_in_server_takes_so_many_datagrams_at_once(limit, at_once):
    server = began_and_total(socketserver.ThreadingUDPServer, limit)
    with looping(server), socket.socket(type=socket.SOCK_DGRAM) as client:
        for number in range(5):
            client.sendto(b"%d" % number, server.server_address)
        eventually(lambda: len(server.began) == at_once)
        assert (
            server._ThreadingMixIn__dispatcher.active == at_once
        )  # the others are still the kernel's
        server.may_end.set()
        eventually(lambda: len(server.began) == 5)


@pytest.mark.parametrize("given", [True, False])
async def test_so_does_the_service_of_a_server_object(given):
    from twisted.internet import reactor

    server = began_and_total(stdlib_socketserver.ThreadingUDPServer, None if given else 2)
    limits = {"max_datagrams": 2} if given else {}
    service = SocketServerService(server, reactor, limits=limits)
    async with running(service):
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            for number in range(5):
                client.sendto(b"%d" % number, server.server_address)
            await until(lambda: len(server.began) == 2)
            server.may_end.set()
            await until(lambda: len(server.began) == 5)
