"""
Drain notices: the way in which a handler that has its connection itself, on a thread or in a child,
hears that its service drains.

This room owns the notice of one server, a flag for threads and a pipe for children, and which
notice is for the calling thread.  It must not know what a handler does about it.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sockserve.core.deadlines import Deadlines

__all__ = ["DrainNotice", "drain_notice"]


class DrainNotice:
    """
    The notice that a server drains, for its handlers.

    @ivar deadlines: the server's.
    """

    def __init__(self, deadlines: Deadlines) -> None:
        self.deadlines = deadlines
        # Until it is given again
        self._is_given = False
        #: Its reading end is readable once the notice is given; nobody reads it.
        self._pipe: tuple[int, int] | None = None

    # What the server calls (reactor thread)

    def reach_children(self) -> None:
        """
        Have it reach children that are forked from now on.  (Without a descriptor to be had, only
        those that are forked after it is given.) (reactor thread)
        """
        if self._pipe is None and not self._is_given:
            try:
                self._pipe = os.pipe()
            except OSError:
                pass

    def give(self) -> None:
        """The server drains. (reactor thread)"""
        if not self._is_given:
            # First the flag: a child may be forked on another thread meanwhile.
            self._is_given = True
            if self._pipe is not None:
                os.write(self._pipe[1], b"\0")

    def take_back(self) -> None:
        """The server serves again. (reactor thread)"""
        self.close()
        self._is_given = False

    def close(self) -> None:
        """Let go of the descriptors; children keep theirs. (reactor thread)"""
        pipe, self._pipe = self._pipe, None
        for descriptor in pipe or ():
            os.close(descriptor)

    def descriptors(self) -> Iterator[int]:
        """The descriptors that are open for it in the server's process."""
        yield from self._pipe or ()

    # What handlers call (handler's thread)

    def descriptor(self) -> int:
        """A descriptor that is readable once it is given; -1 where there is none.
        (handler's thread)"""
        pipe = self._pipe  # once: the server may let go of it meanwhile
        return -1 if pipe is None else pipe[0]

    def is_given(self) -> bool:
        """Whether the server drains. (handler's thread)"""
        told = self.descriptor()
        if self._is_given or told < 0:
            return self._is_given
        poll = select.poll()
        poll.register(told, select.POLLIN)
        return bool(poll.poll(0))

    @contextmanager
    def for_this_thread(self) -> Iterator[None]:
        """Have it be L{drain_notice} of this thread, and of children that it forks. (any thread)"""
        before, _this_thread.notice = _this_thread.notice, self
        try:
            yield
        finally:
            _this_thread.notice = before


class _Thread(threading.local):
    """The calling thread."""

    notice: DrainNotice | None = None


_this_thread = _Thread()


def drain_notice() -> DrainNotice | None:
    """The notice for handlers on the calling thread; None for nobody's. (any thread)"""
    return _this_thread.notice
