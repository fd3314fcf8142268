"""
The reactor of a program that calls a command: Twisted's global one, on a thread of its own.

This room owns where that reactor runs, as handlers use it by its name.  A reactor runs once in a
process, and commands may be called many times there, on any thread; so the first starts it, and it
ends with the interpreter.  It must not know what is served. (any thread)
"""

from __future__ import annotations

import threading
from typing import Any

from twisted.python import threadable

from sockserve.core.reactors import IReactor, as_reactor
from sockserve.dropin.background_reactor import run_on_thread
from sockserve.interfaces import ConfigurationError

__all__ = ["global_reactor", "running_global_reactor"]

#: Held while it is started.
_lock = threading.Lock()


def global_reactor() -> IReactor:
    """
    Twisted's reactor, which does not run yet.

    @raise ConfigurationError: it has run, and does not again.
    """
    from twisted.internet import reactor

    found: Any = reactor
    if found.running or found._startedBefore:
        raise ConfigurationError(
            "the reactor of this process has been run; use django.core.management.call_command"
        )
    return as_reactor(found)


def running_global_reactor() -> IReactor:
    """
    Twisted's reactor, which runs: the program's own, or on a thread that this starts.

    @raise ConfigurationError: the calling thread is the one that it runs on, which must not wait;
        or it has run, and does not again.
    """
    from twisted.internet import reactor

    found: Any = reactor
    with _lock:
        if found.running:
            if threadable.isInIOThread():
                raise ConfigurationError(
                    "this is the reactor's thread, which must not wait; call the command on another"
                )
            return as_reactor(found)
        if found._startedBefore:
            raise ConfigurationError("the reactor of this process has ended, and starts no more")
        _start(found)
    return as_reactor(found)


def _start(reactor: Any) -> None:
    """Run a reactor on a thread until the interpreter exits, and wait until it does."""
    thread = run_on_thread(reactor)

    def end() -> None:
        reactor.callFromThread(reactor.stop)
        thread.join()

    # Before the interpreter waits for threads, as those of deferToThread end with the reactor.
    threading._register_atexit(end)  # type: ignore[attr-defined]
