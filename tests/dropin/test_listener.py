"""The listener of a server object, on a reactor whose turns, and time, the test makes."""

import socket
import sys
import threading

import pytest
from twisted.logger import LogLevel, capturedLogs, formatEvent

from sockserve.core.admission import Admission
from sockserve.core.deadlines import Deadlines
from sockserve.dropin.dispatcher import RequestDispatcher
from sockserve.dropin.listener import ServerObjectListener
from tests.dropin.stepping import Bytes, SteppedReactor

pytestmark = pytest.mark.usefixtures("no_leaks")

#: Loops go round for nothing but what they are woken up for.
SELDOM_SECONDS = 60.0


@pytest.fixture
def reactor(no_leaks):
    return SteppedReactor()


@pytest.fixture
def listening(reactor):
    """Makes the listener of a server, which listens; it is closed after the test."""
    made = []

    def listening(server, admission=None, **deadlines):
        dispatcher = RequestDispatcher(
            server,
            reactor,
            threads=2,
            option="threads",
            deadlines=Deadlines(**deadlines),
            admission=admission,
        )
        shut_down = []
        listener = ServerObjectListener(
            dispatcher, "memory", SELDOM_SECONDS, lambda: shut_down.append(True)
        )
        made.append(listener)
        listener.opened(listener.listen())
        return listener, shut_down

    yield listening
    for listener in made:
        closed = listener.close()
        reactor.run_until(lambda closed=closed: closed.called)
        released = listener._dispatcher.release()
        reactor.run_until(lambda released=released: released.called)


def test_it_brings_the_objects_requests(listening, reactor):
    server = Bytes()
    listener, shut_down = listening(server)
    server.far.sendall(b"ab")
    reactor.run_until(lambda: listener._factory.statistics.requests == 2)
    assert sorted(server.requests) == [b"a", b"b"]
    assert not shut_down


def test_what_a_handler_raises_is_in_the_log_unless_the_object_has_a_way_of_its_own(
    listening, reactor
):
    class Fails(Bytes):
        def finish_request(self, request, client_address):
            {}["missing"]

    class Tells(Fails):
        def handle_error(self, request, client_address):
            self.requests.append(sys.exc_info()[0])

    fails, tells = Fails(), Tells()
    with capturedLogs() as events:
        for server in (fails, tells):
            listener, _ = listening(server)
            server.far.sendall(b"a")
            reactor.run_until(lambda listener=listener: listener._factory.statistics.requests)
    (event,) = events
    assert formatEvent(event).startswith("Noting: exception while serving client on ")
    assert event["log_level"] is LogLevel.critical
    assert "KeyError: 'missing'" in event["log_failure"].getTraceback()
    assert tells.requests == [KeyError]


def test_its_end_closes_the_object(listening, reactor):
    server = Bytes()
    listener, shut_down = listening(server)
    closed = listener.close()
    assert not closed.called
    reactor.run_until(lambda: closed.called)
    assert server.fileno() < 0
    assert not shut_down
    assert not reactor.getDelayedCalls()


def test_it_listens_again(listening, reactor):
    server = Bytes()
    listener, _ = listening(server)
    closed = listener.close()
    reactor.run_until(lambda: closed.called)
    server.near, server.far = socket.socketpair()
    listener.opened(listener.listen())
    server.far.sendall(b"a")
    reactor.run_until(lambda: server.requests)


def test_no_request_is_taken_while_it_is_suspended(listening, reactor):
    server, turned = Bytes(), threading.Semaphore(0)
    server.service_actions = turned.release
    listener, _ = listening(server)
    listener.suspend()
    server.far.sendall(b"a")
    for _ in range(3):
        listener._loop.reopen()
        assert turned.acquire(timeout=15)
    taken = len(server.requests), listener._dispatcher.active
    listener.resume()
    reactor.run_until(lambda: server.requests)
    assert taken == (0, 0)


def test_one_that_ends_while_it_is_suspended_takes_requests_when_it_listens_again(
    listening, reactor
):
    server = Bytes()
    listener, _ = listening(server)
    listener.suspend()
    closed = listener.close()
    reactor.run_until(lambda: closed.called)
    for change in (listener.resume, listener.suspend):  # which is nothing to one that has ended
        change()
    assert listener.close() is closed
    server.near, server.far = socket.socketpair()
    listener.opened(listener.listen())
    server.far.sendall(b"a")
    reactor.run_until(lambda: server.requests)


def test_one_that_shuts_down_while_it_is_suspended_says_so(listening, reactor):
    server = Bytes()
    listener, shut_down = listening(server)
    listener.suspend()
    stopping = threading.Thread(target=server.shutdown)
    stopping.start()
    reactor.run_until(lambda: shut_down)
    stopping.join()


def test_the_caps_hold_it_back(listening, reactor):
    server, admission = Bytes(), Admission(max_connections=1)
    listener, _ = listening(server, admission)
    assert admission.gates == {listener._loop}
    admission.opened()
    assert listener._is_full(0)
    admission.closed()
    assert not listener._is_full(0)
    assert listener._is_full(1)  # a handshake is under way
    closed = listener.close()
    reactor.run_until(lambda: closed.called)
    assert not admission.gates


def test_an_object_that_shuts_down_is_closed_and_says_so(listening, reactor):
    server = Bytes()
    listener, shut_down = listening(server)
    stopping = threading.Thread(target=server.shutdown)
    stopping.start()
    reactor.run_until(lambda: shut_down)
    stopping.join()
    closed = listener.close()
    reactor.run_until(lambda: closed.called)
    assert server.fileno() < 0
    assert shut_down == [True]


@pytest.mark.parametrize("name", ["server_close", "verify_request"])
def test_a_method_that_does_not_return_is_left_behind(listening, reactor, name):
    """4 s (drain) and 6 s (twice abandon)."""
    held, begun = threading.Event(), threading.Event()
    server = Bytes()
    usual = getattr(server, name)

    def hold(*arguments):
        begun.set()
        assert held.wait(15)
        return usual(*arguments)

    setattr(server, name, hold)
    listener, _ = listening(server, drain=4, abandon=3)
    if name == "verify_request":
        server.far.sendall(b"a")
        assert begun.wait(15)
    closed = listener.close()
    assert begun.wait(15)
    reactor.advance(4)
    reactor.advance(5.9)
    assert not closed.called
    reactor.advance(0.1)
    assert closed.called
    server.closed = lambda: reactor.callFromThread(lambda: None)
    held.set()
    reactor.run_until(lambda: server.fileno() < 0)  # when it has returned


def test_without_a_thread_there_is_no_loop(listening, reactor, monkeypatch):
    server = Bytes()
    listener, _ = listening(server)
    closed = listener.close()
    reactor.run_until(lambda: closed.called)
    server.near, server.far = socket.socketpair()

    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(OSError, match="can't start new thread"):
            listener.listen()
    listener.opened(listener.listen())  # it may be had now


def test_server_close_waits_for_requests_as_for_threads(listening):
    server = Bytes()
    listener, _ = listening(server)
    assert server._threads is listener._dispatcher
