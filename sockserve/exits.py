"""
Exits: what the interpreter waits for before it exits, beside the program's own threads.

This room owns waiting for requests, as the interpreter waits for threads that are no daemons.
It must not know what serves them.  Any thread may call it.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol
from weakref import WeakKeyDictionary

__all__ = ["Requests", "hold_exit", "wait_at_exit"]


class Requests(Protocol):
    """What is waited for."""

    def join(self) -> Any:
        """Wait until they are over, and let none wait for what may never come."""


#: With the threads that have brought requests since the main one ended.
_awaited: WeakKeyDictionary[Requests, set[threading.Thread]] = WeakKeyDictionary()
_is_registered = False
#: Whether the main thread is at its end: what comes now, L{_join_all} has not waited for.
_is_exiting = False


def wait_at_exit(requests: Requests) -> None:
    """Have the interpreter wait for C{requests}, those to come included."""
    global _is_registered, _is_exiting
    _awaited.setdefault(requests, set())
    if not _is_registered:
        _is_registered = True
        try:
            # Before the interpreter's own waiting for threads, like concurrent.futures.
            threading._register_atexit(_join_all)  # type: ignore[attr-defined]
        except RuntimeError:  # the main thread has ended, and the program goes on without
            _is_exiting = True


def hold_exit(requests: Requests) -> None:
    """
    One more has come: if the main thread has ended, let the interpreter wait for it as well.
    The thread that has brought it, which is itself waited for if it is no daemon.
    """
    if _is_exiting and requests in _awaited:
        serving, known = threading.current_thread(), _awaited[requests]
        if not serving.daemon and serving not in known:
            known.add(serving)
            threading.Thread(
                target=_join_after, args=(serving, requests), name="sockserve exit", daemon=False
            ).start()


def _join_after(serving: threading.Thread, requests: Requests) -> None:
    """A thread of its own, so that the interpreter waits for it."""
    serving.join()
    requests.join()


def _join_all() -> None:
    """The main thread, at its end."""
    global _is_exiting
    # First: a request that comes meanwhile is either seen here or sees this.
    _is_exiting = True
    for requests in list(_awaited):
        requests.join()
