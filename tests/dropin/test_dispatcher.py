"""How requests reach a worker, and are waited for, on a reactor whose turns the test makes."""

import http.server
import socket
import socketserver
import threading

import pytest

from sockserve import StreamRequestHandler
from sockserve.dropin.dispatcher import RequestDispatcher
from sockserve.dropin.overriding import take_over
from sockserve.dropin.server_check import check_settings
from sockserve.dropin.settings import DEFAULT_DEADLINES
from sockserve.interfaces import ConfigurationError, Outcome
from tests.dropin.stepping import Server, SteppedReactor

pytestmark = pytest.mark.usefixtures("no_leaks")

CLIENT = ("192.0.2.1", 50000)


class Wilful(Exception):
    """Raised by a handler."""


class Shout(socketserver.StreamRequestHandler):
    """Answers a line in capitals; raises when asked to."""

    def handle(self):
        line = self.rfile.readline()
        self.wfile.write(line.upper())
        if line == b"raise\n":
            raise Wilful


class Web(http.server.BaseHTTPRequestHandler):
    """One of C{http.server}'s, whose requests the reactor reads."""


class Datagram(socketserver.BaseRequestHandler):
    """Notes the datagram, with the thread."""

    def handle(self):
        self.server.seen.append((self.request, self.client_address, threading.current_thread()))


class Coroutine(StreamRequestHandler):
    """One of sockserve's, which takes plain connections."""

    async def handle(self):
        self.wfile.write(await self.rfile.readline())


@pytest.fixture
def reactor(no_leaks):
    return SteppedReactor()


@pytest.fixture
def dispatch(reactor):
    """Makes the dispatcher of a server with a handler; all is closed after the test."""
    made = []

    def dispatch(handler, cls=Server, **options):
        words = {"threads": 2, "option": "max_threads", "deadlines": DEFAULT_DEADLINES} | options
        server = cls(handler)
        try:
            made.append(RequestDispatcher(server, reactor, **words))
        except ConfigurationError:
            server.server_close()
            raise
        return made[-1]

    yield dispatch
    for dispatcher in made:
        released = []
        dispatcher.release().addBoth(released.append)
        reactor.run_until(lambda released=released: released)
        dispatcher.server.server_close()


def talk(dispatcher, line):
    """What a client receives that sends a line, if its connection is all there is."""
    accepted, client = socket.socketpair()
    with client:
        client.sendall(line)
        dispatcher.take(accepted, CLIENT)
        dispatcher.reactor.run_until(lambda: not dispatcher.active)
        return client.recv(100)


def test_a_connection_is_served_on_a_thread_and_closed(dispatch):
    dispatcher = dispatch(Shout)
    assert talk(dispatcher, b"line\n") == b"LINE\n"
    statistics = dispatcher.factory.statistics
    assert (statistics.accepted, statistics.requests, statistics.active) == (1, 1, 0)
    assert len(dispatcher) == 1
    assert dispatcher.is_alive()


def test_what_the_handler_raises_is_the_servers_to_handle(dispatch):
    dispatcher = dispatch(Shout)
    assert talk(dispatcher, b"raise\n") == b"RAISE\n"
    [(address, error)] = dispatcher.server.errors
    assert address == CLIENT
    assert isinstance(error, Wilful)
    assert dispatcher.factory.statistics.errors == 1


def test_a_datagram_is_served_on_a_thread(dispatch):
    dispatcher = dispatch(Datagram)
    dispatcher.server.seen = seen = []
    dispatcher.server.shutdown_request = lambda request: None
    dispatcher.take((b"data", "a socket"), CLIENT)
    dispatcher.reactor.run_until(lambda: not dispatcher.active)
    [(request, address, thread)] = seen
    assert (request, address) == ((b"data", "a socket"), CLIENT)
    assert thread is not threading.current_thread()


def test_a_connection_that_was_closed_meanwhile_is_served_like_no_connection(dispatch):
    dispatcher = dispatch(Shout)
    accepted, client = socket.socketpair()
    accepted.close()
    with client:
        dispatcher.take(accepted, CLIENT)
        dispatcher.reactor.run_until(lambda: not dispatcher.active)
    [(_, error)] = dispatcher.server.errors
    assert isinstance(error, OSError)


@pytest.mark.parametrize("where", ["class", "server"])
@pytest.mark.parametrize("name", ["finish_request", "process_request_thread"])
def test_an_override_made_between_two_requests_is_called(dispatch, name, where):
    """On the server, or on its class, and no more when it is taken away."""
    cls = type("Server", (Server,), {})
    dispatcher = dispatch(Shout, cls)
    owner = dispatcher.server if where == "server" else cls

    def override(*arguments):
        request = arguments[-2]
        request.sendall(b"mine")
        if name == "process_request_thread":
            request.close()

    assert talk(dispatcher, b"line\n") == b"LINE\n"
    setattr(owner, name, override)
    assert talk(dispatcher, b"line\n") == b"mine"
    delattr(owner, name)
    assert talk(dispatcher, b"line\n") == b"LINE\n"


def test_what_a_thread_method_of_the_programs_own_raises_is_the_excepthooks(dispatch, monkeypatch):
    hooked = []
    monkeypatch.setattr(threading, "excepthook", lambda hook: hooked.append(hook.exc_type))
    dispatcher = dispatch(Shout)

    def process_request_thread(request, client_address):
        request.close()
        raise Wilful

    dispatcher.server.process_request_thread = process_request_thread
    assert talk(dispatcher, b"") == b""
    assert hooked == [Wilful]


def test_a_wrapped_connection_is_nothing_for_a_coroutine(dispatch):
    dispatcher = dispatch(Coroutine)

    class Wrapped(socket.socket):
        """As TLS does it."""

    accepted, client = socket.socketpair()
    wrapped = Wrapped(fileno=accepted.detach())
    with client:
        dispatcher.take(wrapped, CLIENT)
        dispatcher.reactor.run_until(lambda: not dispatcher.active)
        assert client.recv(100) == b""
    [(_, error)] = dispatcher.server.errors
    assert "Coroutine: it takes plain connections, not Wrapped" in str(error)


@pytest.mark.parametrize("name", ["handle_error", "shutdown_request"])
def test_a_request_that_fails_is_over_whatever_the_servers_methods_raise(
    dispatch, name, monkeypatch
):
    hooked = []
    monkeypatch.setattr(threading, "excepthook", lambda hook: hooked.append(hook.exc_type))
    dispatcher = dispatch(Shout)

    def override(*arguments):
        raise Wilful

    setattr(dispatcher.server, name, override)
    accepted, client = socket.socketpair()
    dispatcher.active += 1
    with accepted, client:
        dispatcher.fail(accepted, CLIENT, OSError("no thread"))
    assert hooked == [Wilful]
    assert not dispatcher.active


def test_join_waits_until_all_are_over(dispatch, reactor):
    dispatcher = dispatch(Shout)
    accepted, client = socket.socketpair()
    with client:
        dispatcher.take(accepted, CLIENT)
        joined = threading.Event()

        def join():
            dispatcher.join()
            joined.set()
            reactor.callFromThread(lambda: None)

        waiting = threading.Thread(target=join)
        waiting.start()
        reactor.run_until(lambda: dispatcher.factory.connections)
        assert not joined.is_set()
        client.sendall(b"line\n")
        reactor.run_until(joined.is_set)
        waiting.join()
    assert not dispatcher.active


def test_join_ends_a_request_that_begins_while_it_waits_and_goes_no_further(dispatch, reactor):
    dispatcher = dispatch(Web)
    accepted, client = socket.socketpair()
    with client:
        dispatcher.take(accepted, CLIENT)
        waiting = threading.Thread(target=dispatcher.join)
        waiting.start()
        reactor.run_until(
            lambda: any(it.is_draining for it in dispatcher.factory.channels.values())
        )
        client.sendall(b"GET / HT")
        for reader in reactor.getReaders():
            reader.doRead()
        reactor.run_until(lambda: not dispatcher.active)
        waiting.join()
        assert client.recv(100) == b""


def test_a_thread_that_serves_cannot_wait_for_itself(dispatch):
    class Joins(socketserver.BaseRequestHandler):
        def handle(self):
            self.server.dispatcher.join()

    dispatcher = dispatch(Joins)
    dispatcher.server.dispatcher = dispatcher
    assert talk(dispatcher, b"") == b""
    [(_, error)] = dispatcher.server.errors
    assert str(error) == "cannot join current thread"


def test_join_does_not_wait_for_a_reactor_that_has_stopped(dispatch, reactor):
    dispatcher = dispatch(Shout)
    accepted, client = socket.socketpair()
    with accepted, client:
        dispatcher.take(accepted, CLIENT)
        reactor.running = False
        assert not dispatcher.is_alive()
        dispatcher.join()
        assert dispatcher.active == 1
        dispatcher.close(waits=True)


def test_that_others_wait_is_logged_once(dispatch, caplog, reactor):
    """Two threads, four connections."""
    dispatcher = dispatch(Shout)
    pairs = [socket.socketpair() for _ in range(4)]
    for accepted, _ in pairs:
        dispatcher.take(accepted, CLIENT)
    reactor.run_until(lambda: dispatcher.factory.concurrency.waiting == 2)
    for _, client in pairs:
        client.sendall(b"line\n")
    reactor.run_until(lambda: not dispatcher.active)
    for _, client in pairs:
        client.close()
    assert [record.getMessage() for record in caplog.records] == [
        "Server: more than 2 requests at once, which is max_threads; others wait"
    ]


def test_one_thread_is_ones_own_choice(dispatch, caplog, reactor):
    dispatcher = dispatch(Shout, threads=1)
    pairs = [socket.socketpair() for _ in range(2)]
    for accepted, client in pairs:
        client.sendall(b"line\n")
        dispatcher.take(accepted, CLIENT)
    reactor.run_until(lambda: not dispatcher.active)
    for _, client in pairs:
        client.close()
    assert not caplog.records


def test_whoever_shares_the_connections_hears_of_each_end(dispatch):
    dispatcher = dispatch(Shout)
    heard = []
    dispatcher.on_request_finished = lambda: heard.append(dispatcher.active)
    talk(dispatcher, b"line\n")
    assert heard == [0]


def test_a_server_that_is_taken_over_brings_its_requests(dispatch):
    dispatcher = dispatch(Shout)
    take_over(dispatcher.server, dispatcher.take)
    accepted, client = socket.socketpair()
    with client:
        client.sendall(b"line\n")
        dispatcher.server.process_request(accepted, CLIENT)
        dispatcher.reactor.run_until(lambda: not dispatcher.active)
        assert client.recv(100) == b"LINE\n"


def test_serve_tells_what_has_come_of_a_request(dispatch):
    dispatcher = dispatch(Datagram)
    dispatcher.server.seen = []
    closed, served = [], []
    dispatcher.server.shutdown_request = closed.append
    assert dispatcher.serve((b"", None), CLIENT, lambda: served.append(list(closed))) is Outcome.OK
    assert served == [[]]  # before it is closed
    assert closed == [(b"", None)]
    del dispatcher.server.seen
    assert dispatcher.serve((b"", None), CLIENT) is Outcome.ERROR
    assert len(dispatcher.server.errors) == 1


@pytest.mark.parametrize(
    ("threads", "deadlines", "message"),
    [
        (0, DEFAULT_DEADLINES, "max_threads: 0 is not a number of threads"),
        (None, DEFAULT_DEADLINES, "max_threads: None is not a number of threads"),
        (1, None, "deadlines: None is no sockserve.Deadlines"),
    ],
)
def test_settings_that_cannot_be(threads, deadlines, message):
    with pytest.raises(ConfigurationError, match=message):
        check_settings("max_threads", threads, deadlines)


def test_a_handler_that_cannot_be_called(dispatch):
    with pytest.raises(ConfigurationError, match="Server: handler None is not a class"):
        dispatch(None)
    cls = type("Server", (Server,), {"finish_request": lambda self, request, address: None})
    assert talk(dispatch(None, cls), b"") == b""  # which does without
