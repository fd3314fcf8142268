"""
The interpreter's exit, which waits for requests as it waits for a program's own threads.

This room owns how long that is: while threads that are no daemons bring requests, and until
those are over.  It must not know what serves them. (any thread)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from enum import Enum
from typing import Protocol
from weakref import WeakKeyDictionary, WeakSet

__all__ = ["Joinable", "keep_interpreter_alive", "wait_at_exit"]


class Joinable(Protocol):
    """Requests that can be waited for."""

    def join(self) -> object:
        """Wait until all are over, and end those that would wait for what may never come."""


class _Exit(Enum):
    """The stand of the interpreter with its exit."""

    #: It is not to call L{_exit} yet.
    UNKNOWN = "unknown"
    #: It is to call that, at the end of the main thread.
    AWAITED = "awaited"
    #: The main thread is at its end, or has ended.
    BEGUN = "begun"


# For the process; the lock is held while one of these is used
_lock = threading.Lock()
#: What is waited for, with the threads that bring it.
_awaited: WeakKeyDictionary[Joinable, WeakSet[threading.Thread]] = WeakKeyDictionary()
_state = _Exit.UNKNOWN


def wait_at_exit(requests: Joinable) -> None:
    """Have the interpreter wait for C{requests}, those to come included. (any thread)"""
    global _state
    with _lock:
        _awaited.setdefault(requests, WeakSet())
        if _state is _Exit.UNKNOWN:
            try:
                # Before the interpreter's own waiting for threads, like concurrent.futures.
                threading._register_atexit(_exit)  # type: ignore[attr-defined]
                _state = _Exit.AWAITED
            except RuntimeError:  # the main thread has ended, and the program goes on without
                _state = _Exit.BEGUN


def keep_interpreter_alive(requests: Joinable) -> None:
    """
    Count the calling thread among those that bring C{requests}: the interpreter waits for it,
    too, be it that the main thread has ended. (accept thread)
    """
    thread = threading.current_thread()
    with _lock:
        threads = _awaited.get(requests)
        if threads is None or thread in threads:
            return
        threads.add(thread)
        exit_has_begun = _state is _Exit.BEGUN
    if exit_has_begun:
        _wait({thread}, requests)


def _exit() -> None:
    """
    Begin to wait, at the end of the main thread.  That does not wait itself: others may wait
    for it, and serve on.
    """
    global _state
    # It brings no more; and CPython cannot stand that one waits just as it ends.
    main = {threading.current_thread()}
    with _lock:
        _state = _Exit.BEGUN
        awaited = [(set(threads) - main, requests) for requests, threads in _awaited.items()]
    for threads, requests in awaited:
        _wait(threads, requests)


def _wait(threads: Iterable[threading.Thread], requests: Joinable) -> None:
    """Have the interpreter wait, by means of a thread that is no daemon."""
    waiting = threading.Thread(
        target=_join_after, args=(threads, requests), name="sockserve exit", daemon=False
    )
    try:
        waiting.start()
    except RuntimeError:  # CPython 3.12.0 and 3.12.1 start none any more
        if threading.current_thread() is threading.main_thread():
            _join_after(threads, requests)


def _join_after(threads: Iterable[threading.Thread], requests: Joinable) -> None:
    for thread in threads:
        if not thread.daemon:  # it is waited for itself, and may bring more until it ends
            thread.join()
    requests.join()


def _renew_lock() -> None:
    """Make the lock anew in a forked child: another thread may have held it in the parent."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)
