"""
Children that handlers fork: what of a server must not go on in them.

This room owns what such a child is without, the server's signal handlers and the listening
sockets, and its end: it has no server, so it ends with its handler's part in it.  It must not know
what is served, or on what threads.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Set
from enum import Enum, auto
from typing import Any, NoReturn, Protocol
from weakref import WeakSet

from sockserve.interfaces import Outcome

__all__ = [
    "ListeningSocketOwner",
    "ThreadRole",
    "end_child",
    "fork_count",
    "is_child",
    "last_fork",
    "listening_socket_owners",
    "mark_thread",
    "note_child",
    "this_thread",
]


class ThreadRole(Enum):
    """The part of a thread in a server, which decides what its children are without."""

    #: It calls blocking handlers.
    WORKER = auto()
    #: It calls coroutine handlers, and runs the reactor.
    REACTOR = auto()
    #: It calls a server object's methods, whose children (C{ForkingMixIn}'s) may listen.
    ACCEPTING = auto()


class ListeningSocketOwner(Protocol):
    """A server that listens."""

    def listening_descriptors(self) -> Iterator[int]:
        """The descriptors of its listening sockets; a negative number is none. (any thread)"""


#: All servers there are.
listening_socket_owners: WeakSet[ListeningSocketOwner] = WeakSet()


class _Thread(threading.local):
    """
    The calling thread.

    @ivar role: what it does for a server; None if that is nothing, or no longer.
    @ivar mask: which signals it lets wait, from before a C{fork} until after it.
    """

    role: ThreadRole | None = None
    mask: Set[int] = frozenset()


this_thread = _Thread()


class _Fork:
    """
    The last C{fork} that has made this process, as far as servers are concerned.

    @ivar thread: the thread that has come out of it on the other side, and is a child's now: of a
        handler, or for a request.  None in a process that is no such child, where asking for it is
        all that a request has to do before L{is_child}.  (Other threads of a child's may serve: it
        is no matter of ours what servers it starts.)
    @ivar count: how many forks there were on the way from the first process to this one.
    """

    __slots__ = ("count", "thread")

    def __init__(self) -> None:
        self.thread: int | None = None
        self.count = 0


last_fork = _Fork()


def note_child() -> None:
    """Note that the calling thread has come out of C{fork} as a child's. (any thread)"""
    last_fork.thread = threading.get_ident()


def is_child() -> bool:
    """Whether L{note_child} was called on the calling thread, in this process. (any thread)"""
    return last_fork.thread is not None and last_fork.thread == threading.get_ident()


def fork_count() -> int:
    """
    How many forks there were on the way to this process: in a child another number than before, for
    which C{os.getpid} would be a system call. (any thread)
    """
    return last_fork.count


def mark_thread(role: ThreadRole | None) -> None:
    """Note what the calling thread does from now on; None for nothing. (any thread)"""
    this_thread.role = role


def end_child(outcome: Outcome = Outcome.OK) -> NoReturn:
    """
    End this process, which is a handler's child and has come to where the parent goes on with
    what is the parent's: the connection, the reactor.  Its exit status is 0, or, like that of a
    child of C{socketserver.ForkingMixIn}'s, 1 after an error. (any thread)
    """
    os._exit(0 if outcome is Outcome.OK else 1)


#: What a reactor and a server handle, and what is usual.
_SIGNALS: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGCHLD: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}


def _before_fork() -> None:
    """Have signals wait: for a child that has its handlers."""
    if this_thread.role is not None:
        this_thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _after_in_parent() -> None:
    if this_thread.role is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, this_thread.mask)


def _after_in_child() -> None:
    """Let go of what is the parent's, in a child that a server's thread has forked."""
    last_fork.count += 1
    role, this_thread.role = this_thread.role, None
    if role is None:
        return
    note_child()
    _reset_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, this_thread.mask)
    if role is not ThreadRole.ACCEPTING:
        _close_listening_sockets()


def _reset_signals() -> None:
    """Undo the handlers of the reactor, which does not run here, and ours; a program's own stay."""
    for number, usual in _SIGNALS.items():
        module = getattr(signal.getsignal(number), "__module__", None) or ""
        if module.startswith(("twisted.", "sockserve.")):
            signal.signal(number, usual)
            signal.set_wakeup_fd(-1)


def _close_listening_sockets() -> None:
    """
    Have the listening sockets end with the parent.  Their numbers stay taken: objects that have
    them are the parent's copies, and may yet close them.
    """
    listening: set[int] = set()
    for owner in list(listening_socket_owners):
        try:
            listening.update(number for number in owner.listening_descriptors() if number >= 0)
        except Exception:  # the parent was just about to open or close it
            continue
    if listening:
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in listening:
            os.dup2(nothing, number, inheritable=False)
        os.close(nothing)


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
