"""
The reactor of a program that has none: a private one, on a thread of its own.

This room owns which reactor serves a program that knows of none: the application's, while
that runs, else the private one, which starts when it is first needed.  It must not know what
is served. (any thread)

The private reactor is not installed as Twisted's (C{twisted.internet.reactor}), so the
program can still install and run one; its thread is a daemon, so it does not keep the
interpreter alive; it leaves signals alone; and a child that was forked starts its own.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from twisted.python import threadable

from sockserve.core.clock import keep_steady
from sockserve.core.reactors import IReactor, as_reactor

try:
    from twisted.internet.epollreactor import EPollReactor as _PrivateReactor
except ImportError:  # not Linux
    from twisted.internet.pollreactor import PollReactor as _PrivateReactor  # type: ignore[assignment]

__all__ = ["is_reactors_thread", "private_reactor", "run_on_thread", "running_reactor"]

# The private reactor, once it is needed, and its thread; the lock is held while it is made
_lock = threading.Lock()
_private: IReactor | None = None
_private_thread: threading.Thread | None = None


def running_reactor() -> IReactor:
    """
    The reactor to serve on: one that runs, the application's or the private one. (any thread)

    @raise OSError: there are no descriptors to be had for the latter.
    """
    installed: Any = sys.modules.get("twisted.internet.reactor")
    if installed is not None and getattr(installed, "running", False):
        return as_reactor(installed)
    return private_reactor()


def private_reactor() -> IReactor:
    """
    The private reactor, whether or not the application runs one: for a thread whose end the
    application's may wait for. (any thread)

    @raise OSError: there are no descriptors to be had for it.
    """
    global _private
    with _lock:
        if _private is None:
            _private = _start()
        return _private


def is_reactors_thread(reactor: IReactor) -> bool:
    """Whether the calling thread is the one that C{reactor}, which runs, runs on. (any thread)"""
    if reactor is _private:
        return threading.current_thread() is _private_thread
    return bool(threadable.isInIOThread())


def run_on_thread(reactor: Any) -> threading.Thread:
    """
    Run a reactor that is all ours on a thread of its own, a daemon, and wait until it runs; it
    leaves signals alone. (any thread)

    @return: the thread.
    """
    keep_steady(reactor)
    running = threading.Event()
    reactor.callWhenRunning(running.set)
    thread = threading.Thread(
        target=reactor.run,
        kwargs={"installSignalHandlers": False},
        name="sockserve reactor",
        daemon=True,
    )
    thread.start()
    running.wait()
    return thread


def _start() -> IReactor:
    """Make a reactor, and wait until it runs on its thread."""
    global _private_thread
    reactor = as_reactor(_PrivateReactor())
    # The application's own is the one that Twisted is to take for its thread of input and output.
    reactor._registerAsIOThread = False  # type: ignore[attr-defined]
    _private_thread = run_on_thread(reactor)
    return reactor


def _forget_parents() -> None:
    """Let go of the private reactor in a forked child, where it does not run."""
    global _lock, _private
    _lock = threading.Lock()
    _private = None


os.register_at_fork(after_in_child=_forget_parents)
