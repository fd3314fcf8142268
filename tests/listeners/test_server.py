"""The server object: what it makes of a handler's error."""

import os
import signal
import socket
import threading

import pytest
from twisted.internet.task import Clock

from sockserve import DeadlineExpired, Phase
from sockserve.core.forking import ThreadRole, mark_thread
from sockserve.handlers import BaseRequestHandler
from sockserve.interfaces import Outcome
from sockserve.listeners.server import RequestServer
from sockserve.streams.reader import IncompleteReadError, LimitOverrunError


@pytest.fixture
def server():
    return RequestServer(BaseRequestHandler, reactor=Clock())


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize(
    "error",
    [
        DeadlineExpired(Phase.IDLE),
        IncompleteReadError(b"", 4),
        LimitOverrunError("too long", 0),
    ],
)
def test_bad_manners_are_the_clients(server, pair, error):
    assert server.outcome_of(pair[0], error) is Outcome.LOST


def test_a_timeout_the_handler_asked_for_is_the_clients(server, pair):
    pair[0].settimeout(5)
    assert server.outcome_of(pair[0], TimeoutError("timed out")) is Outcome.LOST


def test_a_timeout_of_something_else_is_an_error(server, pair):
    """A handler's own database, say: its request never times out."""
    assert server.outcome_of(pair[0], TimeoutError("timed out")) is Outcome.ERROR


@pytest.mark.parametrize("seconds", [None, 0.01])
def test_a_broken_connection_is_the_clients_when_the_client_is_gone(server, pair, seconds):
    """Its own timeout is not waited for."""
    ours, theirs = pair
    ours.settimeout(seconds)
    assert server.outcome_of(ours, ConnectionResetError()) is Outcome.ERROR
    theirs.close()
    assert server.outcome_of(ours, ConnectionResetError()) is Outcome.LOST


def test_anything_else_is_an_error(server, pair):
    pair[1].close()
    assert server.outcome_of(pair[0], KeyError("culprit")) is Outcome.ERROR


def test_a_handlers_child_does_not_wait_for_the_parents_log(server, pair):
    """Another thread may have been writing to it when the handler forked; that is not in it."""
    ours, theirs = pair
    theirs.close()
    statuses = []

    def fork():
        mark_thread(ThreadRole.WORKER)
        pid = os.fork()
        if not pid:
            signal.alarm(5)  # which ends it
            try:
                raise ConnectionResetError
            except ConnectionResetError:
                server.handle_error(ours, "client")
            finally:
                os._exit(0)
        statuses.append(os.waitpid(pid, 0)[1])

    with server.incidents._lock:
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
    assert statuses == [0]
