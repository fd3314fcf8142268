"""
The service of a server object: what it refuses, what it tells, and whose requests it admits, on a
reactor whose turns, and time, the test makes.
"""

import http.server
import re
import socket
import socketserver
import threading

import pytest
from twisted.logger import capturedLogs

from sockserve import StreamRequestHandler
from sockserve.core.admission import Admission, parse_network
from sockserve.core.deadlines import Deadlines
from sockserve.dropin.service import SocketServerService, why_not_served
from sockserve.executors.threads import DEFAULT_THREADS
from sockserve.interfaces import ConfigurationError
from tests.dropin.stepping import Bytes, SteppedReactor

pytestmark = pytest.mark.usefixtures("no_leaks")

#: A loop that goes round for nothing but what it is woken up for.
SELDOM_SECONDS = 60.0

HERE = ("127.0.0.1", 0)
DENIED = "192.0.2.0/24"


class Handler(socketserver.BaseRequestHandler):
    """Does nothing."""


class Coroutine(StreamRequestHandler):
    async def handle(self):
        pass


class Tcp(socketserver.TCPServer):
    """A server that listens, with a name of its own."""


class Wrapped:
    """A listening socket inside of something else, as some TLS libraries have it."""

    def __init__(self, number):
        self._number = number

    def fileno(self):
        return self._number


class Unconnected:
    """A request that cannot tell who its client is."""

    def getpeername(self):
        raise OSError("not connected")


class Connected:
    """A request that can."""

    def __init__(self, address):
        self._address = address

    def getpeername(self):
        return self._address


@pytest.fixture
def reactor(no_leaks):
    return SteppedReactor()


@pytest.fixture
def service_of(reactor):
    """Makes the service of a server; it is stopped, and its server closed, after the test."""
    made = []

    def service_of(server, **words):
        try:
            service = SocketServerService(server, reactor, poll_interval=SELDOM_SECONDS, **words)
        except BaseException:
            server.server_close()
            raise
        made.append((service, server))
        return service

    yield service_of
    for service, server in made:
        stop(service)
        server.server_close()


@pytest.fixture
def bound():
    """Makes a server of the standard library's on a free port; it is closed after the test."""
    made = []

    def bound(cls=Tcp, handler=Handler, **words):
        made.append(cls(HERE, handler, **words))
        return made[-1]

    yield bound
    for server in made:
        server.server_close()


def stop(service):
    """Stop, and wait for it."""
    wait_for(service.stopService(), service.server.reactor)


def wait_for(stopped, reactor):
    """Wait for a Deferred, and for what that waits for."""
    fired = []
    stopped.addCallback(fired.append)
    reactor.run_until(lambda: fired)


def talk(service, data, count):
    """Have a byte for each request arrive, and wait until so many in all are accounted for."""
    service._object.far.sendall(data)
    statistics = service.server.statistics
    service.server.reactor.run_until(lambda: statistics.accepted == count and not statistics.active)


# What is refused


def test_what_is_no_server_is_not_served():
    assert why_not_served(Tcp) == f"{Tcp!r} is not a socketserver.BaseServer"
    assert why_not_served(None) == "None is not a socketserver.BaseServer"


def test_a_server_without_a_socket_is_not_served():
    assert why_not_served(socketserver.BaseServer(HERE, Handler)) == "it has no socket"


def test_a_server_whose_descriptor_cannot_be_told_is_not_served(bound):
    server = bound()

    def fileno():
        raise OSError("no descriptor")

    server.fileno = fileno
    assert why_not_served(server) == "it has no socket"


@pytest.mark.parametrize("cls", [Tcp, socketserver.UDPServer])
def test_a_closed_server_is_not_served(bound, cls):
    server = bound(cls)
    server.server_close()
    assert why_not_served(server) == "its socket is closed"


def test_a_server_that_does_not_listen_is_not_served(bound):
    server = bound(bind_and_activate=False)
    fault = "it does not listen; call its server_bind and server_activate"
    assert why_not_served(server) == fault
    server.server_bind()
    assert why_not_served(server) == fault
    server.server_activate()
    assert why_not_served(server) is None


def test_datagrams_come_without_listening(bound):
    assert why_not_served(bound(socketserver.UDPServer)) is None


def test_what_only_the_program_can_ask_whether_it_listens_is_served(bound):
    server = bound(bind_and_activate=False)
    server.socket.close()
    with socket.socket() as inner:
        server.socket = Wrapped(inner.fileno())
        assert why_not_served(server) is None
        server.socket = inner


def test_a_refusal_names_the_servers_class(reactor, bound):
    server = bound(bind_and_activate=False)
    with pytest.raises(ConfigurationError, match=re.escape("Tcp: it does not listen; call its ")):
        SocketServerService(server, reactor)


@pytest.mark.parametrize(
    ("handler", "words", "message"),
    [
        (Handler, {"threads": 0}, "threads: 0 is not a number of threads, 1 or more"),
        (Handler, {"threads": "4"}, "threads: '4' is not a number of threads, 1 or more"),
        (Handler, {"deadlines": {"idle": 5}}, "deadlines: {'idle': 5} is no sockserve.Deadlines"),
        (None, {}, "ThreadingTCPServer: handler None is not a class or callable"),
    ],
)
def test_what_is_wrong_with_an_option_or_the_handler_is_named(
    reactor, bound, handler, words, message
):
    server = bound(socketserver.ThreadingTCPServer, handler)
    with pytest.raises(ConfigurationError) as refused:
        SocketServerService(server, reactor, **words)
    assert str(refused.value).startswith(message)


def test_an_option_that_there_is_not_is_refused(reactor, bound):
    with pytest.raises(TypeError, match="max_threads"):
        SocketServerService(bound(), reactor, max_threads=4)


# What is made of the options


def test_a_server_is_named_by_its_class_and_address(service_of):
    service = service_of(Bytes())
    assert service.description == "Bytes on memory"
    assert service.server.statistics.listener == "Bytes on memory"
    assert service.server.server_address == "memory"


def test_the_address_is_the_one_that_was_bound(reactor, bound):
    server = bound()
    service = SocketServerService(server, reactor)
    assert service.server.server_address == server.socket.getsockname()
    assert service.description == f"Tcp on {server.socket.getsockname()}"


@pytest.mark.parametrize(
    ("cls", "words", "limit"),
    [
        (socketserver.ThreadingTCPServer, {}, DEFAULT_THREADS),
        (socketserver.ThreadingTCPServer, {"threads": 7}, 7),
        (socketserver.TCPServer, {"threads": 7}, 1),
        (http.server.HTTPServer, {"threads": 7}, 1),
    ],
)
def test_only_a_threading_server_has_several_threads(reactor, bound, cls, words, limit):
    server = bound(cls)
    assert SocketServerService(server, reactor, **words).server.concurrency.limit == limit


def test_deadlines_are_the_usual_ones_unless_given(reactor, bound):
    server = bound()
    given = Deadlines(idle=5)
    assert SocketServerService(server, reactor).server.deadlines == Deadlines()
    assert SocketServerService(server, reactor, deadlines=given).server.deadlines is given


def test_a_coroutine_handler_is_served_whatever_threads_there_are(reactor, bound):
    service = SocketServerService(bound(handler=Coroutine), reactor)
    assert service.server.kind.is_coroutine


# Starting and stopping


def test_nothing_is_done_before_it_is_started(service_of, reactor):
    before = set(threading.enumerate())
    server = Bytes()
    process_request, verify_request = server.process_request, server.verify_request
    service_of(server, admission=Admission(deny=[parse_network(DENIED)]))
    assert not set(threading.enumerate()) - before
    assert not reactor.getDelayedCalls()
    assert (server.process_request, server.verify_request) == (process_request, verify_request)


def test_it_serves_until_it_is_stopped(service_of):
    server = Bytes()
    service = service_of(server)
    with capturedLogs() as logged:
        service.startService()
    assert [event["server"] for event in logged] == ["Bytes on memory"]
    talk(service, b"ab", 2)
    assert sorted(server.requests) == [b"a", b"b"]
    assert not service.shut_down.called
    stop(service)
    assert not service.running
    assert why_not_served(server) == "its socket is closed"
    assert not service.shut_down.called


def test_what_serves_is_not_started_again(service_of):
    service = service_of(Bytes())
    service.startService()
    message = "Bytes on memory: it has not ended yet; wait for what stopService returned"
    with pytest.raises(ConfigurationError, match=f"^{message}$"):
        service.startService()
    stopped = service.stopService()
    with pytest.raises(ConfigurationError, match=f"^{message}$"):
        service.startService()
    assert not service.running
    wait_for(stopped, service.server.reactor)


def test_what_was_closed_before_its_start_is_not_started(service_of):
    server = Bytes()
    service = service_of(server)
    server.server_close()
    with pytest.raises(ConfigurationError, match=r"^Bytes on memory: its socket is closed$"):
        service.startService()
    assert not service.running


def test_without_a_thread_it_is_not_started_and_may_be_later(service_of, monkeypatch):
    server = Bytes()
    server.client_address = ("198.51.100.7", 5)
    service = service_of(server, admission=Admission(deny=[parse_network(DENIED)]))

    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(OSError, match="can't start new thread"):
            service.startService()
    assert not service.running
    assert service.stopService().called  # nothing to stop
    service.startService()
    talk(service, b"a", 1)
    assert server.requests == [b"a"]


def test_a_program_that_shuts_it_down_is_told_of_and_may_start_it_again(service_of, reactor):
    server = Bytes()
    service = service_of(server)
    service.startService()
    shut_down = service.shut_down
    stopping = threading.Thread(target=server.shutdown)
    stopping.start()
    reactor.run_until(lambda: shut_down.called)
    stopping.join()
    reactor.run_until(service._machine.is_stopped)
    assert why_not_served(server) == "its socket is closed"
    server.near, server.far = socket.socketpair()
    service.startService()
    assert service.shut_down is not shut_down
    assert not service.shut_down.called
    talk(service, b"a", 1)


def test_a_stop_while_it_ends_by_itself_waits_for_that(service_of, reactor):
    server = Bytes()
    service = service_of(server)
    service.startService()
    stopping = threading.Thread(target=server.shutdown)
    stopping.start()
    reactor.run_until(lambda: service.shut_down.called)
    stopping.join()
    stop(service)
    assert why_not_served(server) == "its socket is closed"
    assert not reactor.getDelayedCalls()


def test_no_request_is_taken_while_it_is_suspended(service_of):
    server, turned = Bytes(), threading.Semaphore(0)
    server.service_actions = turned.release
    service = service_of(server)
    service.startService()
    service.suspend()
    server.far.sendall(b"a")
    for _ in range(3):
        service._listener._loop.reopen()
        assert turned.acquire(timeout=15)
    taken = list(server.requests)
    service.resume()
    talk(service, b"", 1)
    assert taken == []
    assert server.requests == [b"a"]


# Networks


def test_without_networks_the_servers_own_verify_request_is_called_as_it_is(service_of):
    server = Bytes()
    own = server.verify_request
    service_of(server).startService()
    assert server.verify_request == own


@pytest.mark.parametrize("networks", [{"deny": DENIED}, {"allow": "198.51.100.0/24"}])
def test_a_client_of_a_denied_network_is_counted_and_not_asked_about(service_of, networks):
    asked = []
    server = Bytes()
    server.client_address = ("192.0.2.7", 5)
    server.verify_request = lambda *request: asked.append(request)
    admission = Admission(**{word: [parse_network(text)] for word, text in networks.items()})
    service = service_of(server, admission=admission)
    records = []
    service.server.observers.append(records.append)
    service.startService()
    server.far.sendall(b"a")
    service.server.reactor.run_until(lambda: records)
    assert [(each.peer, each.handler, each.outcome) for each in records] == [
        (("192.0.2.7", 5), "Noting", "refused: network")
    ]
    statistics = service.server.statistics
    assert (statistics.accepted, statistics.active, statistics.requests) == (1, 0, 0)
    assert statistics.refused == {"network": 1}
    assert server.requests == asked == []


@pytest.mark.parametrize("verdict", [True, False])
def test_of_others_the_servers_own_verify_request_is_asked_once(service_of, verdict):
    """However often the service is started."""
    asked, answered = [], threading.Semaphore(0)
    server = Bytes()
    server.client_address = ("198.51.100.7", 5)

    def verify_request(request, client_address):
        asked.append((request, client_address))
        answered.release()
        return verdict

    server.verify_request = verify_request
    service = service_of(server, admission=Admission(deny=[parse_network(DENIED)]))
    for data in (b"a", b"b"):
        service.startService()
        server.far.sendall(data)
        assert answered.acquire(timeout=15)
        stop(service)
        server.near, server.far = socket.socketpair()
    assert asked == [(b"a", server.client_address), (b"b", server.client_address)]
    assert server.requests == ([b"a", b"b"] if verdict else [])
    assert service.server.statistics.refused == {}


@pytest.mark.parametrize(
    ("request_", "client_address", "is_allowed"),
    [
        # An address is believed, whatever the connection says.
        (Unconnected(), ("192.0.2.7", 5), False),
        (Unconnected(), ("198.51.100.7", 5), True),
        (Connected(("198.51.100.7", 5)), ("192.0.2.7", 5), False),
        (Connected(("192.0.2.7", 5)), ("198.51.100.7", 5), True),
        (Unconnected(), ("::ffff:192.0.2.7", 5, 0, 0), False),
        (Unconnected(), ("fe80::7%eth0", 5, 0, 2), False),
        (Unconnected(), ("2001:db8::7", 5, 0, 0), True),
        # Of what is none the connection is asked.
        (Connected(("192.0.2.7", 5)), ("somebody", 5), False),
        (Connected(("198.51.100.7", 5)), ("somebody", 5), True),
        (Connected(("192.0.2.7", 5)), "192.0.2.8", False),
        (Connected(("198.51.100.7", 5)), ["192.0.2.7", 5], True),
        (Connected(("198.51.100.7", 5)), (b"192.0.2.7", 5), True),
        (Connected(("192.0.2.7", 5)), (), False),
        (Connected(("192.0.2.7", 5)), None, False),
        # And if that cannot tell either, nobody knows.
        (Unconnected(), "somebody", False),
        ((b"packet", None), "somebody", False),
        (None, None, False),
    ],
)
def test_a_client_is_known_by_its_address_or_its_connections(
    service_of, request_, client_address, is_allowed
):
    deny = [parse_network(DENIED), parse_network("fe80::/10")]
    service = service_of(Bytes(), admission=Admission(deny=deny))
    assert service._is_allowed(request_, client_address) is is_allowed


def test_a_client_of_a_unix_socket_has_no_network(service_of):
    server = Bytes()
    server.address_family = socket.AF_UNIX
    service = service_of(server, admission=Admission(allow=[parse_network(DENIED)]))
    assert service._is_allowed(Unconnected(), "")
    assert service._is_allowed(Connected(""), "")
    assert not service._is_allowed(Unconnected(), ("198.51.100.7", 5))  # called so by the program
