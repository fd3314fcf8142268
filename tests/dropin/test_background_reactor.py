"""The reactor of a program that has none: which one it is, on which thread."""

import os
import sys
import threading
from types import SimpleNamespace

import pytest
from twisted.python import threadable

from sockserve.dropin import background_reactor
from sockserve.dropin.background_reactor import (
    is_reactors_thread,
    private_reactor,
    running_reactor,
)


@pytest.fixture
def none_yet(monkeypatch):
    """The process has no reactor yet; one that is made is stopped after the test."""
    monkeypatch.setitem(sys.modules, "twisted.internet.reactor", None)
    monkeypatch.setattr(background_reactor, "_private", None)
    monkeypatch.setattr(background_reactor, "_private_thread", None)
    yield
    reactor, thread = background_reactor._private, background_reactor._private_thread
    if reactor is not None:
        reactor.callFromThread(reactor.stop)
        thread.join(15)
        assert not thread.is_alive()
        for reader in reactor.removeAll():
            reader.connectionLost(None)
        reactor._poller.close()


def called_on(reactor, function):
    """What C{function} returns on the reactor's thread."""
    told, result = threading.Event(), []

    def call():
        result.append(function())
        told.set()

    reactor.callFromThread(call)
    assert told.wait(15)
    return result[0]


def test_the_applications_serves_while_it_runs(monkeypatch, none_yet):
    installed = SimpleNamespace(running=True)
    monkeypatch.setitem(sys.modules, "twisted.internet.reactor", installed)
    assert running_reactor() is installed
    assert background_reactor._private is None


@pytest.mark.parametrize("installed", [None, SimpleNamespace(running=False)])
def test_else_a_private_one_does_which_is_made_once(monkeypatch, none_yet, installed):
    monkeypatch.setitem(sys.modules, "twisted.internet.reactor", installed)
    reactor = running_reactor()
    assert reactor.running
    assert running_reactor() is reactor
    assert sys.modules["twisted.internet.reactor"] is installed


def test_the_private_one_can_be_had_beside_the_applications(monkeypatch, none_yet):
    """Whose thread stays the one that Twisted calls its own."""
    installed = SimpleNamespace(running=True)
    monkeypatch.setitem(sys.modules, "twisted.internet.reactor", installed)
    before = threadable.ioThread
    reactor = private_reactor()
    assert reactor is not installed
    assert private_reactor() is reactor
    assert running_reactor() is installed
    assert called_on(reactor, lambda: is_reactors_thread(reactor))
    assert threadable.ioThread == before


def test_the_private_one_has_a_daemon_thread_of_its_own(none_yet):
    reactor = running_reactor()
    assert not is_reactors_thread(reactor)
    thread, is_its = called_on(
        reactor, lambda: (threading.current_thread(), is_reactors_thread(reactor))
    )
    assert is_its
    assert thread.daemon
    assert thread.name == "sockserve reactor"


def test_a_forked_child_starts_its_own(none_yet):
    parents = running_reactor()
    into, out = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            own = running_reactor()
            os.write(out, b"own" if own.running and own is not parents else b"the parent's")
        finally:
            os._exit(0)
    os.close(out)
    with open(into, "rb") as told:
        assert told.read() == b"own"
    os.waitpid(pid, 0)
    assert running_reactor() is parents
