"""
The thread of an accept loop that is not the program's: C{serve_forever} of a server object that
is served as it stands.

This room owns that thread, and which side has asked it to end.  It must not know what the loop
takes (L{sockserve.dropin.accept_loop}), or what is served.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from enum import Enum
from typing import Any

from typing_extensions import override

from sockserve.core.deadlines import Deadlines
from sockserve.core.drain_notice import DrainNotice
from sockserve.core.forking import ThreadRole, mark_thread
from sockserve.core.logs import Topic, log_raised, logger
from sockserve.core.reactors import IReactor
from sockserve.dropin.accept_loop import POLL_SECONDS, AcceptLoop
from sockserve.dropin.server_object import ServerObject

__all__ = ["AcceptLoopThread"]

_log = logger(Topic.SERVICE)


class _Ending(threading.Event):
    """
    The event that C{socketserver.BaseServer.shutdown} waits for, the end of a loop: waiting for
    it also asks for it.

    @param stop: has the loop end.
    """

    def __init__(self, stop: Callable[[], None], thread: threading.Thread) -> None:
        super().__init__()
        self._stop = stop
        self._thread = thread

    @override
    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the loop has ended, unless this is its thread. (any thread)"""
        self._stop()
        return threading.current_thread() is self._thread or super().wait(timeout)


class _Ender(Enum):
    """The side that has asked an accept loop on a thread of its own to end: the first that did."""

    #: Neither has; if it ends all the same, it could not go on.
    NOBODY = "nobody"
    #: The one that has started it, which also closes the server.
    OWNER = "owner"
    #: The program, by the server's C{shutdown}; whether that is closed is its own to say.
    PROGRAM = "program"


class AcceptLoopThread:
    """
    An accept loop on a thread of its own.  It also ends by the server's C{shutdown}.

    @param reactor: where handshakes are done.
    @param deadlines: as L{AcceptLoop}'s.
    @param ended: called on that thread when the loop has ended, with whether it has done so by
        itself: by C{shutdown}, or because it could not go on.
    @param is_full: as L{AcceptLoop}'s.
    @param poll_interval: as L{AcceptLoop.run}'s.
    @param handshake_failed: as L{AcceptLoop}'s.
    @param notice: tells handlers on that thread, and in its children, that the server drains.
    """

    def __init__(
        self,
        server: ServerObject,
        reactor: IReactor,
        deadlines: Deadlines,
        ended: Callable[[bool], object],
        is_full: Callable[[int], bool] | None = None,
        poll_interval: float = POLL_SECONDS,
        handshake_failed: Callable[[Any, Exception], object] | None = None,
        notice: DrainNotice | None = None,
    ) -> None:
        """
        @raise OSError: there are no descriptors, or no thread, to be had.
        """
        self._loop = AcceptLoop(server, deadlines, self._failed, is_full, reactor, handshake_failed)
        self._server = server
        self._ended = ended
        self._poll_interval = poll_interval
        self._notice = notice
        # Reentrant, as a signal's handler may call shutdown
        self._lock = threading.RLock()
        self._ender = _Ender.NOBODY
        thread = threading.Thread(target=self._run, name="sockserve loop", daemon=True)
        self._ending = _Ending(self._shut_down, thread)
        before = server._BaseServer__is_shut_down
        server._BaseServer__is_shut_down = self._ending
        try:
            thread.start()
        except RuntimeError as error:
            server._BaseServer__is_shut_down = before
            self._loop.close()
            raise OSError(str(error)) from error

    def reopen(self) -> None:
        """Ask again whether there is room. (any thread)"""
        self._loop.wake()

    def stop(self, seconds: float | None) -> None:
        """
        End the loop, once it has taken who waits in the kernel's queue. (any thread)

        @param seconds: how long that may take; None for as long as it does.
        """
        self._note_ender(_Ender.OWNER)
        self._loop.take_last(seconds)

    def _shut_down(self) -> None:
        """End the loop for the program: who waits is its own. (any thread)"""
        self._note_ender(_Ender.PROGRAM)
        self._loop.stop()

    def _note_ender(self, ender: _Ender) -> None:
        """Note who has the loop end, unless the other side was first. (any thread)"""
        with self._lock:
            if self._ender is _Ender.NOBODY:
                self._ender = ender

    def _failed(self) -> None:
        # C{serve_forever} ends with what C{verify_request} raises; nobody would call it again.
        log_raised(_log, "a method of the served server object raised")

    def _run(self) -> None:
        """(accept thread)"""
        mark_thread(ThreadRole.ACCEPTING)
        try:
            with nullcontext() if self._notice is None else self._notice.for_this_thread():
                self._loop.run(self._poll_interval)
        except BaseException:
            _log.failure("the loop of a served server object has failed")
        by_itself = self._ender is not _Ender.OWNER
        self._server._BaseServer__shutdown_request = False  # it may serve again
        self._ending.set()
        self._ended(by_itself)
