"""What the interpreter waits for at its exit, as if it came to that now."""

import threading
from weakref import WeakKeyDictionary

import pytest

from sockserve.dropin import interpreter_exit
from sockserve.dropin.interpreter_exit import keep_interpreter_alive, wait_at_exit


class Requests:
    """
    Requests that are over when a test says so.

    @ivar joining: set when it is waited for them.
    """

    def __init__(self):
        self.joining, self.over = threading.Event(), threading.Event()

    def join(self):
        self.joining.set()
        assert self.over.wait(15)


@pytest.fixture
def exits(monkeypatch):
    """
    A process that has never waited for requests: gives what it calls at its exit.  All threads
    that wait by then have ended after the test.
    """
    registered = []
    monkeypatch.setattr(interpreter_exit, "_awaited", WeakKeyDictionary())
    monkeypatch.setattr(interpreter_exit, "_state", interpreter_exit._Exit.UNKNOWN)
    monkeypatch.setattr(threading, "_register_atexit", registered.append)
    before = set(threading.enumerate())
    yield registered
    for thread in set(threading.enumerate()) - before:
        thread.join(15)
        assert not thread.is_alive()


def waiting():
    """The threads that keep the interpreter."""
    return [each for each in threading.enumerate() if each.name == "sockserve exit"]


def bring(requests, daemon=False):
    """A thread that brings requests until the event that is given is set."""
    brought, enough = threading.Event(), threading.Event()

    def run():
        keep_interpreter_alive(requests)
        brought.set()
        assert enough.wait(15)

    thread = threading.Thread(target=run, daemon=daemon)
    thread.start()
    assert brought.wait(15)
    return thread, enough


def test_the_interpreter_is_told_once(exits):
    wait_at_exit(Requests())
    wait_at_exit(Requests())
    assert len(exits) == 1


def test_the_exit_begins_a_wait_for_requests_and_goes_on(exits):
    requests = Requests()
    wait_at_exit(requests)
    exits[0]()
    assert requests.joining.wait(15)
    [thread] = waiting()
    assert not thread.daemon  # so the interpreter waits for it
    requests.over.set()


def test_requests_are_waited_for_after_the_thread_that_brings_them(exits):
    requests = Requests()
    wait_at_exit(requests)
    thread, enough = bring(requests)
    exits[0]()
    assert not requests.joining.is_set()
    enough.set()
    thread.join(15)
    assert requests.joining.wait(15)
    requests.over.set()


def test_a_daemon_that_brings_them_is_not_waited_for(exits):
    requests = Requests()
    wait_at_exit(requests)
    _, enough = bring(requests, daemon=True)
    exits[0]()
    assert requests.joining.wait(15)
    requests.over.set()
    enough.set()


def test_requests_that_nobody_waits_for_are_not(exits):
    requests = Requests()
    keep_interpreter_alive(requests)
    wait_at_exit(others := Requests())
    others.over.set()
    exits[0]()
    assert others.joining.wait(15)
    assert not requests.joining.is_set()


def test_a_thread_that_first_brings_some_during_the_exit_is_waited_for(exits):
    requests = Requests()
    wait_at_exit(requests)
    requests.over.set()
    exits[0]()
    assert requests.joining.wait(15)
    for thread in waiting():
        thread.join(15)
    requests.over.clear()
    requests.joining.clear()
    thread, enough = bring(requests)
    assert waiting()
    assert not requests.joining.is_set()
    enough.set()
    assert requests.joining.wait(15)
    requests.over.set()


def test_after_the_main_thread_has_ended_nothing_can_be_registered(exits, monkeypatch):
    def refuse(function):
        raise RuntimeError("can't register atexit after shutdown")

    monkeypatch.setattr(threading, "_register_atexit", refuse)
    requests = Requests()
    wait_at_exit(requests)
    _, enough = bring(requests)
    assert waiting()
    enough.set()
    assert requests.joining.wait(15)
    requests.over.set()


def test_where_no_thread_starts_at_the_exit_the_main_thread_waits(exits, monkeypatch):
    requests = Requests()
    wait_at_exit(requests)
    requests.over.set()

    def start(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    exits[0]()
    assert requests.joining.is_set()
