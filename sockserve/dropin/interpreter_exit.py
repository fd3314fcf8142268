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

__all__ = ["Joinable", "keep_interpreter_alive", "wait_at_exit"]


class Joinable(Protocol):
    """What is waited for."""

    def join(self) -> Any:
        """Wait until they are over, and let none wait for what may never come."""


_lock = threading.Lock()
#: With the threads that bring them.
_awaited: WeakKeyDictionary[Joinable, WeakSet[threading.Thread]] = WeakKeyDictionary()
_is_registered = False
#: Whether the main thread is at its end.
_is_exiting = False


def wait_at_exit(requests: Joinable) -> None:
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


def keep_interpreter_alive(requests: Joinable) -> None:
    """The calling thread brings some, be it that the main one has ended."""
    thread = threading.current_thread()
    with _lock:
        threads = _awaited.get(requests)
        if threads is None or thread in threads:
            return
        threads.add(thread)
        exiting = _is_exiting
    if exiting:
        _wait({thread}, requests)


def _exit() -> None:
    """
    The main thread, at its end.  It waits for nothing itself, for others may wait for it, and
    serve on.
    """
    global _is_exiting
    # It brings no more; and CPython cannot stand that one waits just as it ends.
    main = {threading.current_thread()}
    with _lock:
        _is_exiting = True
        awaited = [(set(threads) - main, requests) for requests, threads in _awaited.items()]
    for threads, requests in awaited:
        _wait(threads, requests)


def _wait(threads: Iterable[threading.Thread], requests: Joinable) -> None:
    """Have the interpreter wait, by a thread of its own kind."""
    waits = threading.Thread(
        target=_join_after, args=(threads, requests), name="sockserve exit", daemon=False
    )
    try:
        waits.start()
    except RuntimeError:  # CPython 3.12.0 and 3.12.1 start none any more
        if threading.current_thread() is threading.main_thread():
            _join_after(threads, requests)


def _join_after(threads: Iterable[threading.Thread], requests: Joinable) -> None:
    for thread in threads:
        if not thread.daemon:  # it is waited for itself, and may bring more until it ends
            thread.join()
    requests.join()


def _renew_lock() -> None:
    """This is a child."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)
