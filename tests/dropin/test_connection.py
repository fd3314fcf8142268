"""Adopted connections and other requests, on socketpairs, turn by turn of a reactor."""

import http.server
import logging
import socket
import socketserver
import sys
import threading
from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from sockserve import ClientGone, StreamRequestHandler
from sockserve.core.handler_kinds import HandlerKind, handler_kind
from sockserve.dropin.connection import AdoptedFactory, AdoptedProtocol, AdoptedRequest
from sockserve.dropin.transport import AdoptedConnection
from sockserve.http import HTTPRequestHandler
from sockserve.interfaces import Outcome
from sockserve.testing.exchanges import InlineExecutor
from tests.dropin.stepping import SteppedReactor

pytestmark = pytest.mark.usefixtures("no_leaks")

CLIENT = ("192.0.2.1", 50000)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Wilful(Exception):
    """Raised by a server's method."""


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response_only(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *arguments):
        """Quiet."""


class Own(socketserver.BaseRequestHandler):
    def handle(self):
        """A handler that has its connection."""


class Owner:
    """
    A dispatcher that notes what requests tell it.

    @ivar served: connections and other requests that were to be served, with their addresses.
    @ivar finished: of each connection that is over, what is told to the server yet.
    """

    def __init__(self, reactor, handler):
        self.server = SimpleNamespace(RequestHandlerClass=handler)
        self.served, self.failed, self.finished, self.over = [], [], [], 0
        executor = None if handler_kind(handler).is_coroutine else InlineExecutor()
        self.factory = AdoptedFactory(
            handler, dispatcher=self, reactor=reactor, concurrency=executor
        )

    def serve(self, request, client_address, served=None):
        self.served.append((request, client_address))
        if served is not None:
            served()
            request.close()
        return Outcome.OK

    def fail(self, request, client_address, error):
        self.failed.append((request, client_address, error))

    def connection_finished(self, untold):
        self.finished.append(untold)

    def request_finished(self):
        self.over += 1


@pytest.fixture
def reactor(no_leaks):
    return SteppedReactor()


@pytest.fixture
def pair():
    accepted, client = socket.socketpair()
    client.setblocking(False)
    with accepted, client:
        yield accepted, client


def adopt(owner, accepted):
    protocol = AdoptedProtocol()
    protocol.factory = owner.factory
    reactor = owner.factory.reactor
    protocol.makeConnection(AdoptedConnection(accepted, CLIENT, protocol, reactor, "test"))
    return protocol


def deliver(reactor):
    """Have the reactor read what has arrived, do what is due, and write."""
    for reader in reactor.getReaders():
        if reader.doRead() is not None:
            reader.connectionLost(Failure(ConnectionDone()))
    reactor.advance(0)
    for writer in reactor.getWriters():
        if writer.doWrite() is not None:
            writer.connectionLost(Failure(ConnectionDone()))


def test_a_connection_is_its_handlers_from_the_first_byte(reactor, pair):
    accepted, client = pair
    accepted.settimeout(7)
    owner = Owner(reactor, Own)
    protocol = adopt(owner, accepted)
    [(request, address)] = owner.served
    assert address == CLIENT
    assert protocol.is_finished
    assert owner.finished == [None]  # the handler's thread has told the server
    assert client.recv(100) == b""
    assert not owner.factory.connections
    assert not reactor.getReaders()
    del request


def test_a_timeout_that_the_program_has_set_is_kept(reactor, pair):
    accepted, _ = pair
    accepted.settimeout(7)
    owner, timeouts = Owner(reactor, Own), []
    owner.serve = lambda request, address, served: timeouts.append(request.gettimeout())
    adopt(owner, accepted)
    assert timeouts == [7]


def test_the_reactor_reads_for_a_stock_handler(reactor, pair):
    accepted, client = pair
    owner = Owner(reactor, Web)
    protocol = adopt(owner, accepted)
    assert reactor.getReaders()
    for _ in range(2):
        client.sendall(GET)
        deliver(reactor)
        assert client.recv(1000) == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert not owner.served
    assert owner.factory.statistics.requests == 2
    assert not protocol.is_finished
    client.close()
    deliver(reactor)
    assert protocol.is_finished


class OnThread(HTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append(self.command)
        self.send_response(200)
        self.end_headers()


class ByCoroutine(OnThread):
    async def do_GET(self):
        super().do_GET()


class Standard(Web):
    def do_GET(self):
        self.server.seen.append(self.command)
        super().do_GET()


@pytest.mark.parametrize("handler", [ByCoroutine, OnThread, Standard])
def test_a_handler_that_is_read_for_sees_the_programs_server(reactor, pair, handler):
    accepted, client = pair
    owner = Owner(reactor, handler)
    owner.server.seen = []
    adopt(owner, accepted)
    client.sendall(GET)
    deliver(reactor)
    assert owner.server.seen == ["GET"]
    assert client.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
    client.close()
    deliver(reactor)
    assert owner.finished == [accepted]


class Leaves(http.server.BaseHTTPRequestHandler):
    def __init__(self, request, client_address, server):
        raise self.error

    error = None


@pytest.mark.parametrize(
    ("error", "raised", "told"),
    [(Wilful, Wilful, []), (KeyboardInterrupt, SystemExit, [KeyboardInterrupt])],
)
def test_a_stock_handler_ends_its_thread_as_one_on_a_thread_of_the_programs_does(
    reactor, pair, monkeypatch, error, raised, told
):
    hooked = []
    monkeypatch.setattr(threading, "excepthook", lambda hook: hooked.append(hook.exc_type))
    monkeypatch.setattr(Leaves, "error", error)
    factory = Owner(reactor, Leaves).factory
    with pytest.raises(raised):
        factory.finish_request(pair[0], CLIENT)
    assert hooked == told


def test_its_end_is_told_by_nobody_yet(reactor, pair):
    accepted, client = pair
    owner = Owner(reactor, Web)
    adopt(owner, accepted)
    client.close()
    deliver(reactor)
    assert owner.finished == [accepted]
    assert not owner.factory.connections


@pytest.mark.parametrize("reason", ["timeout", "wrapped", "told", "another handler"])
def test_a_stock_handler_reads_by_itself(reactor, pair, reason):
    accepted, _ = pair
    owner = Owner(reactor, Web)
    if reason == "timeout":
        accepted.settimeout(7)
    elif reason == "wrapped":
        accepted = type("Wrapped", (socket.socket,), {})(fileno=accepted.detach())
    elif reason == "told":
        owner.factory.let_handlers_read()
        assert owner.factory.kind is HandlerKind.BLOCKING
    else:
        owner.server.RequestHandlerClass = Own
        assert not owner.factory.reads_for_handlers()
    adopt(owner, accepted)
    assert [address for _, address in owner.served] == [CLIENT]
    assert owner.finished == [None]


def test_a_connection_without_a_request_is_ended_when_it_is_waited_for(reactor, pair):
    accepted, client = pair
    owner = Owner(reactor, Web)
    adopt(owner, accepted)
    owner.factory.end_unanswered()
    deliver(reactor)
    assert owner.finished == []  # one may be on its way
    reactor.advance(1)  # Deadlines.quiet
    deliver(reactor)
    assert owner.finished == [accepted]
    assert client.recv(100) == b""


def test_half_a_request_is_none(reactor, pair):
    accepted, client = pair
    owner = Owner(reactor, Web)
    adopt(owner, accepted)
    client.sendall(GET[:-2])
    deliver(reactor)
    owner.factory.end_unanswered()
    deliver(reactor)
    assert owner.finished == [accepted]


def test_what_start_raises_is_the_servers_to_handle(reactor, pair, monkeypatch):
    accepted, client = pair
    owner, handled = Owner(reactor, Own), []
    owner.server.handle_error = lambda request, address: handled.append((request, address))
    owner.server.shutdown_request = lambda request: request.close()

    def run(job):
        raise Wilful

    monkeypatch.setattr(owner.factory.concurrency, "run", run, raising=False)
    adopt(owner, accepted)
    assert [address for _, address in handled] == [CLIENT]
    reactor.run_until(lambda: owner.finished)
    assert client.recv(100) == b""
    handled.clear()


@pytest.mark.parametrize("name", ["handle_error", "shutdown_request"])
def test_what_the_servers_methods_raise_is_the_excepthooks(reactor, pair, name, monkeypatch):
    """A thread could not be had, say."""
    hooked = []
    monkeypatch.setattr(threading, "excepthook", lambda hook: hooked.append(hook.exc_type))
    accepted, client = pair
    owner = Owner(reactor, Own)

    def override(request, *address):
        if name == "shutdown_request":
            request.close()
        raise Wilful

    owner.server.handle_error = lambda request, address: None
    owner.server.shutdown_request = lambda request: request.close()
    setattr(owner.server, name, override)
    monkeypatch.setattr(owner.factory.concurrency, "run", lambda job: job.failed(OSError("none")))
    adopt(owner, accepted)
    reactor.run_until(lambda: owner.finished)
    assert hooked == [Wilful]
    assert owner.factory.statistics.errors == 1
    assert client.recv(100) == b""


# Requests that are no connections


def test_a_request_that_is_no_connection_is_accounted_for(reactor):
    """It waits for 2 s, and takes 3."""
    owner, records = Owner(reactor, Own), []
    owner.factory.observers.append(records.append)
    request = AdoptedRequest(owner, (b"data", None), CLIENT)
    statistics = owner.factory.statistics
    assert (statistics.accepted, statistics.active) == (1, 1)
    reactor.advance(2)
    request.started()
    assert request.serve() is Outcome.OK
    assert owner.served == [((b"data", None), CLIENT)]
    reactor.advance(3)
    request.runs_long()
    assert not owner.over
    request.ended(Outcome.OK)
    assert owner.over == 1
    [record] = records
    assert (record.peer, record.outcome) == (CLIENT, "ok")
    assert record.phases == {"queue": 2, "handle": 3}
    assert (record.received, record.sent) == (None, None)
    assert (statistics.requests, statistics.errors, statistics.active) == (1, 0, 0)


def test_a_request_for_which_there_is_no_thread_fails(reactor):
    owner = Owner(reactor, Own)
    request = AdoptedRequest(owner, (b"data", None), CLIENT)
    request.started()
    error = OSError("no thread")
    request.failed(error)
    assert owner.failed == [((b"data", None), CLIENT, error)]
    assert not owner.over  # that is the dispatcher's to say
    statistics = owner.factory.statistics
    assert (statistics.errors, statistics.active) == (1, 0)


def test_what_a_handler_of_no_connection_raises_is_an_error(reactor, pair):
    factory = Owner(reactor, Own).factory
    assert factory.outcome_of((b"data", None), ConnectionResetError()) is Outcome.ERROR
    accepted, client = pair
    client.close()
    assert factory.outcome_of(accepted, ConnectionResetError()) is Outcome.LOST


# Clients that go


class Waits(StreamRequestHandler):
    async def handle(self):
        await Deferred()


@pytest.mark.parametrize("overridden", [False, True])
def test_a_coroutine_whose_client_has_gone_is_no_error_of_a_server_that_prints_all(
    reactor, pair, overridden, caplog
):
    """It is told of in one line, as elsewhere; an override is asked even so."""
    reported = []

    class Server(socketserver.ThreadingTCPServer):
        def __init__(self):
            self.RequestHandlerClass = Waits

    if overridden:
        Server.handle_error = lambda self, request, address: reported.append(sys.exc_info()[0])
    owner = Owner(reactor, Waits)
    owner.server = Server()
    accepted, client = pair
    protocol = adopt(owner, accepted)
    client.close()
    caplog.set_level(logging.INFO)
    protocol.connectionLost(Failure(ConnectionLost()))
    deliver(reactor)
    assert reported == [ClientGone] * overridden
    lines = [record.getMessage() for record in caplog.records]
    assert ["closed the connection" in line for line in lines] == [True] * (not overridden)
    assert [record.levelname for record in caplog.records] == ["INFO"] * (not overridden)
    assert owner.factory.statistics.errors == 0
    assert owner.factory.statistics.requests == 1
