"""A loop's turns, with a server that only counts."""

import errno
import itertools
import queue
import socket
import socketserver
import threading
import time
from types import SimpleNamespace

import pytest
from twisted.logger import LogLevel, capturedLogs

import sockserve.socketserver
from sockserve.core.deadlines import Deadlines
from sockserve.dropin import accept_loop
from sockserve.dropin.accept_loop import AcceptLoop
from sockserve.dropin.loop_thread import AcceptLoopThread
from sockserve.interfaces import HandshakeFailed
from sockserve.listeners.gate import ACCEPT_RETRY_SECONDS
from tests.patience import PATIENCE_SECONDS

NEVER = Deadlines(handshake=None)


class Counting:
    """
    A server that takes a byte for a request.

    @ivar taken: requests.
    @ivar taken_at: in which turn each of these was.
    @ivar turns: how often C{service_actions} was called.
    @ivar is_shut_down: asked by the loop whether it is to end.
    """

    is_shut_down = staticmethod(lambda: False)

    def __init__(self, requests):
        self._near, self._far = socket.socketpair()
        self._far.sendall(bytes(requests))
        self.taken = self.turns = 0
        self._BaseServer__is_shut_down = threading.Event()
        self.taken_at = []

    @property
    def _BaseServer__shutdown_request(self):
        return self.is_shut_down()

    @_BaseServer__shutdown_request.setter
    def _BaseServer__shutdown_request(self, value):
        assert value is False  # it may serve again

    def fileno(self):
        return self._near.fileno()

    def _handle_request_noblock(self):
        self.taken_at.append(self.turns)
        self.taken += len(self._near.recv(1))

    def service_actions(self):
        self.turns += 1

    def close(self):
        self._near.close()
        self._far.close()


@pytest.fixture
def counting():
    server = Counting(5)
    yield server
    server.close()


def test_it_takes_requests_until_it_is_stopped(counting):
    counting.is_shut_down = lambda: counting.taken == 5
    AcceptLoop(counting, NEVER).run(60)
    assert counting.turns == 5


def test_it_may_wait_as_long_as_nothing_happens(counting):
    counting.is_shut_down = lambda: counting.taken == 5
    AcceptLoop(counting, NEVER).run(None)
    assert counting.taken == 5


def test_it_ends_at_once_when_it_is_stopped_before(counting):
    counting.is_shut_down = lambda: True
    AcceptLoop(counting, NEVER).run(60)
    assert not counting.taken


def test_it_ends_at_the_next_turn_when_it_is_told(counting):
    loop = AcceptLoop(counting, NEVER)

    def service_actions():
        counting.turns += 1
        if counting.turns == 3:
            loop.stop()

    counting.service_actions = service_actions
    loop.run(60)
    assert counting.taken == 3
    loop.stop()  # which is nothing to one that has ended


def test_one_that_is_stopped_before_it_runs_takes_nothing(counting):
    loop = AcceptLoop(counting, NEVER)
    loop.stop()
    loop.stop()
    loop.run(60)
    assert (counting.taken, counting.turns) == (0, 0)


def test_one_that_takes_the_last_takes_who_waits(counting):
    loop = AcceptLoop(counting, NEVER)
    loop.take_last(None)
    loop.run(60)
    assert (counting.taken, counting.turns) == (5, 0)
    loop.take_last(None)  # which is nothing to one that has ended


def test_one_that_takes_the_last_goes_on_when_the_server_raises(counting):
    heard = []
    take = counting._handle_request_noblock

    def fail():
        take()
        raise ZeroDivisionError

    counting._handle_request_noblock = fail
    loop = AcceptLoop(counting, NEVER, lambda: heard.append(counting.taken))
    loop.take_last(60)
    loop.run(60)
    assert heard == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("end", ["told", "stopped", "late", "full", "closed"])
def test_one_that_takes_the_last_does_not_take_for_ever(counting, end, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(accept_loop.time, "monotonic", lambda: now[0])
    take = counting._handle_request_noblock

    def take_one():
        take()
        now[0] += 1
        if counting.taken == 2 and end == "stopped":
            loop.stop()
        elif counting.taken == 2 and end == "closed":
            counting.close()

    counting._handle_request_noblock = take_one
    counting.is_shut_down = lambda: end == "told" and counting.taken == 2
    loop = AcceptLoop(counting, NEVER, None, lambda coming: end == "full" and counting.taken == 2)
    loop.take_last(2 if end == "late" else None)
    loop.run(60)
    assert counting.taken == 2


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("fault", [None, HandshakeFailed("not TLS")])
def test_a_handshake_that_outlives_the_loop_is_in_vain(counting, told, fault):
    """Its connection is closed, be it that the loop is told to stop once more."""
    calls = []
    reactor = SimpleNamespace(callFromThread=lambda *call: calls.append(call))
    loop = AcceptLoop(counting, NEVER, reactor=reactor)
    near, far = socket.socketpair()
    with far:
        loop._shake_hands(near, "client")
        [(_, _, request, ended, _)] = calls
        assert request is near
        loop.close()
        if told:
            loop.stop()
        ended(fault)
        assert near.fileno() < 0


def test_service_actions_is_called_with_nothing_to_do(counting):
    counting._near.recv(5)
    counting.is_shut_down = lambda: counting.turns == 3
    AcceptLoop(counting, NEVER).run(0.001)
    assert (counting.taken, counting.turns) == (0, 3)


def test_a_wake_up_is_a_turn(counting):
    counting._near.recv(5)
    loop = AcceptLoop(counting, NEVER)
    for _ in range(100_000):  # more than fit into a socket
        loop.wake()
    counting.is_shut_down = lambda: counting.turns > 0
    loop.run(60)
    assert (counting.taken, counting.turns) == (0, 1)
    loop.wake()  # which is nothing to one that has ended
    assert counting.turns == 1


def test_it_takes_none_while_it_is_full(counting):
    loop = AcceptLoop(counting, NEVER, None, lambda coming: counting.turns < 3)
    counting.is_shut_down = lambda: counting.taken == 5
    loop.run(0.001)
    assert counting.taken_at == [3, 4, 5, 6, 7]  # three turns in which it was full, then each


def test_it_looks_once_more_before_it_takes_one(counting):
    """What others take counts, too, and it is not woken up for that."""
    answers = iter([False, True, True, False])
    loop = AcceptLoop(counting, NEVER, None, lambda coming: next(answers, False))
    counting.is_shut_down = lambda: counting.taken == 1
    loop.run(0.001)
    assert counting.taken_at == [2]  # asked in the first turn twice, in the second once


def test_a_closed_socket_is_nothing_to_take_from(counting):
    """The kernel would say at once, and again, that there is something about it."""

    def service_actions():
        counting.turns += 1
        if counting.turns == 2:
            counting.close()

    counting.service_actions = service_actions
    counting.is_shut_down = lambda: counting.turns == 5
    AcceptLoop(counting, NEVER).run(0.001)
    assert counting.taken_at == [0, 1]


def test_what_the_server_raises_ends_the_loop_unless_somebody_hears_of_it(counting):
    def fail():
        counting.turns += 1
        raise ZeroDivisionError

    counting.service_actions = fail
    with pytest.raises(ZeroDivisionError):
        AcceptLoop(counting, NEVER).run(60)
    heard = []
    loop = AcceptLoop(counting, NEVER, lambda: heard.append(counting.turns))
    counting.is_shut_down = lambda: counting.taken == 5
    loop.run(60)
    assert heard == [2, 3, 4, 5]


def test_on_a_thread_it_ends_when_it_is_told(counting):
    ended, turned = queue.SimpleQueue(), queue.SimpleQueue()
    counting.service_actions = lambda: turned.put(counting.taken)
    loop = AcceptLoopThread(counting, None, NEVER, ended.put)
    while turned.get(timeout=15) < 5:
        pass
    loop.reopen()
    assert turned.get(timeout=15) == 5
    assert ended.empty()
    loop.stop(15)
    assert ended.get(timeout=15) is False


@pytest.mark.parametrize(
    ("enders", "by_itself"),
    [
        (["owner", "owner"], False),
        (["owner", "program"], False),
        (["program", "program"], True),
        (["program", "owner"], True),
    ],
)
def test_on_a_thread_it_ends_for_the_side_that_has_asked_first(counting, enders, by_itself):
    ended, held, may_go_on = queue.SimpleQueue(), threading.Event(), threading.Event()

    def service_actions():
        held.set()
        assert may_go_on.wait(15)

    counting.service_actions = service_actions
    loop = AcceptLoopThread(counting, None, NEVER, ended.put)
    assert held.wait(15)
    for ender in enders:
        if ender == "owner":
            loop.stop(15)
        else:  # what shutdown does, which would wait
            assert not counting._BaseServer__is_shut_down.wait(0)
    assert ended.empty()
    may_go_on.set()
    assert ended.get(timeout=15) is by_itself
    assert counting._BaseServer__is_shut_down.wait(15)


def test_on_a_thread_it_ends_by_itself_when_it_cannot_go_on(counting):
    ended = queue.SimpleQueue()
    counting.close()
    with capturedLogs() as events:
        AcceptLoopThread(counting, None, NEVER, ended.put)
        assert ended.get(timeout=15) is True
    assert [event["log_level"] for event in events] == [LogLevel.critical]


def wanting_descriptors(module, times, attempts):
    """A server that has no descriptor to accept with at first, and says so to C{attempts}."""

    class Server(module.TCPServer):
        def get_request(self):
            attempts.append(time.monotonic())
            if len(attempts) <= times:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().get_request()

        def process_request(self, request, client_address):
            self.shutdown_request(request)
            self.loop.stop()

    return Server(("127.0.0.1", 0), None)


def test_a_want_of_descriptors_is_no_longer_a_pause_though_nothing_else_happens(monkeypatch):
    """Also if the pause ends between two looks at the clock."""
    attempts, now = [], itertools.count(step=ACCEPT_RETRY_SECONDS * 0.6)
    server = wanting_descriptors(socketserver, 1, attempts)
    with server, socket.create_connection(server.server_address):
        server.loop = loop = AcceptLoop(server, NEVER)
        patience = threading.Timer(PATIENCE_SECONDS, loop.stop)
        patience.start()
        monkeypatch.setattr(accept_loop.time, "monotonic", lambda: next(now))
        loop.run(None)
        monkeypatch.undo()
        patience.cancel()
        patience.join()
    assert len(attempts) == 2


@pytest.mark.parametrize("module", [socketserver, sockserve.socketserver])
def test_a_want_of_descriptors_is_a_pause(module, caplog):
    """
    The standard library's C{_handle_request_noblock} swallows that there is none: the client that
    waits would be found waiting again, at once.
    """
    attempts = []
    server = wanting_descriptors(module, 3, attempts)
    with server, socket.create_connection(server.server_address):
        server.loop = loop = AcceptLoop(server, NEVER)
        with caplog.at_level("ERROR"):
            loop.run(60)
    pauses = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert len(pauses) == 3
    assert min(pauses) >= 0.099
    [record] = caplog.records
    assert record.getMessage().startswith(
        f"{type(server).__qualname__}: cannot accept connections (EMFILE)"
    )
