"""
Exits: what the interpreter waits for before it exits, beside the program's own threads.

This room owns waiting for requests, as the interpreter waits for threads that are no daemons.
It must not know what serves them.  Any thread may call it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

__all__ = ["Requests", "hold_exit", "wait_at_exit"]


class Requests(Protocol):
    """What is waited for."""

    def join(self) -> Any:
        """Wait until they are over, and let none wait for what may never come."""


_lock = threading.Lock()
#: With the threads that bring them.
_awaited: WeakKeyDictionary[Requests, WeakSet[threading.Thread]] = WeakKeyDictionary()
_is_registered = False
#: Whether the main thread is at its end.
_is_exiting = False


def wait_at_exit(requests: Requests) -> None:
    """Have the interpreter wait for C{requests}, those to come included."""
    global _is_registered, _is_exiting
    with _lock:
        _awaited.setdefault(requests, WeakSet())
        if not _is_registered:
            _is_registered = True
            try:
                # Before the interpreter's own waiting for threads, like concurrent.futures.
                threading._register_atexit(_exit)  # type: ignore[attr-defined]
            except RuntimeError:  # the main thread has ended, and the program goes on without
                _is_exiting = True


def hold_exit(requests: Requests) -> None:
    """The calling thread brings some, be it that the main one has ended."""
    thread = threading.current_thread()
    with _lock:
        threads = _awaited.get(requests)
        if threads is None or thread in threads:
            return
        threads.add(thread)
        exiting = _is_exiting
    if exiting:
        _wait([thread], requests)


def _exit() -> None:
    """
    The main thread, at its end.  It waits for nothing itself, for others may wait for it, and
    serve on.
    """
    global _is_exiting
    with _lock:
        _is_exiting = True
        awaited = [(list(threads), requests) for requests, threads in _awaited.items()]
    for threads, requests in awaited:
        _wait(threads, requests)


def _wait(threads: Iterable[threading.Thread], requests: Requests) -> None:
    threading.Thread(
        target=_join_after, args=(threads, requests), name="sockserve exit", daemon=False
    ).start()


def _join_after(threads: Iterable[threading.Thread], requests: Requests) -> None:
    """A thread of its own, so that the interpreter waits for it."""
    for thread in threads:
        if not thread.daemon:  # it is waited for itself, and may bring more until it ends
            thread.join()
    requests.join()


def _renew_lock() -> None:
    """This is a child."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)
