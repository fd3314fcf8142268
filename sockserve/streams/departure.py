"""
The departure of a client: how a coroutine is told that nothing can reach its client any more.

This room owns when L{ClientGone} is raised, in whom and in whom not, and how long a handler that
was told may take to come to its end.  It must not know how a departure is noticed
(L{sockserve.streams.transport_channel}). (reactor thread)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Protocol

from twisted.internet.defer import Deferred

from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.deadlines import Deadlines
from sockserve.core.tasks import Task
from sockserve.interfaces import ClientGone, Phase

__all__ = ["Answerer", "Departure"]

#: The deadlines that end a handler wherever it waits, whatever its client does.
_HANDLERS_PHASES = (Phase.HANDLE, Phase.LIFETIME, Phase.DRAIN)


class Answerer(Protocol):
    """The handler that answers a client just now: a coroutine, or a blocking one."""

    def running_task(self) -> Task | None:
        """The drive of the coroutine; None if none waits."""

    def reads_on(self) -> bool:
        """Whether the coroutine waits for input, or has some to read that came before."""

    def input_taken(self) -> int:
        """How many bytes of its input the coroutine has taken so far."""

    def has_connection(self) -> bool:
        """Whether a blocking handler has the connection itself, and hears of its end by that."""


class _Stand(Enum):
    """
    How far the handler has been told::

        UNTOLD --reads on--> READING --abandon seconds----+
          |                     |  without reading        |
          |                 shielded                      |
          |                     v                         v
          +-----shielded-----> DUE --shield ends--> CANCELLED --abandon seconds--> given up

    From C{UNTOLD} also to C{CANCELLED} at once, which is the usual way; or to C{EXCUSED}, where
    it stays.  For C{CANCELLED} read C{TOLD} where the error is raised in nobody: the handler has
    waited for the departure, or finishes.
    """

    UNTOLD = "untold"
    #: There is nothing to tell it any more: it has closed the connection, or a deadline is raised.
    EXCUSED = "excused"
    #: It reads what came before, and comes to an end of file.
    READING = "reading"
    #: It is told as soon as its shielded section has ended.
    DUE = "due"
    TOLD = "told"
    #: The error was raised in it.
    CANCELLED = "cancelled"


#: The handler was told, and is to come to its end.
_AT_ITS_END = (_Stand.TOLD, _Stand.CANCELLED)


class Departure:
    """
    The going away of one connection's client.

    @ivar error: what is known of it; None while the client is here.
    @ivar is_finishing: whether C{finish} of the handler waits, which nothing interrupts.
    """

    __slots__ = (
        "_cancels",
        "_deadlines",
        "_is_clients_fault",
        "_shields",
        "_stand",
        "_taken",
        "_task",
        "_timer",
        "_waiters",
        "error",
        "is_finishing",
    )

    def __init__(self, timer: DeadlineTimer, deadlines: Deadlines, cancels: bool) -> None:
        """
        @param cancels: whether handlers are cancelled at all.
        """
        self._timer = timer
        self._deadlines = deadlines
        self._cancels = cancels
        #: Whether a deadline has passed that is about what the client does.
        self._is_clients_fault = False
        self._stand = _Stand.UNTOLD
        #: The handler's, once the client has gone.
        self._task: Task | None = None
        #: How much input it had taken when it was last looked whether it reads on.
        self._taken: int | None = None
        #: How many shielded sections it is in, one inside of the other.
        self._shields = 0
        self.is_finishing = False
        self._waiters: list[Deferred[None]] = []
        self.error: ClientGone | None = None

    # What handlers call

    def gone(self) -> Deferred[None]:
        """
        Wait for it.

        @return: a new Deferred, which fires with None once the client has gone.
        """
        waiter: Deferred[None] = Deferred(self._waiters.remove)
        if self.error is None:
            self._waiters.append(waiter)
        else:
            waiter.callback(None)
        return waiter

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Cancel the handler only after this section."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
            if not self._shields and self._stand is _Stand.DUE:
                self._cancel()

    def handler_finishing(self) -> None:
        """C{finish} is about to wait, which nothing interrupts."""
        self.is_finishing = True
        if self._task is not None:
            self._task.take_back()

    # What the connection calls

    def cancels(self) -> bool:
        """Whether the handler may be cancelled now."""
        return self._cancels and not self._shields

    def has_cancelled(self) -> bool:
        """Whether the error was raised in the handler, whatever that has made of it."""
        task = self._task
        return self._stand is _Stand.CANCELLED and task is not None and not task.is_cancelling()

    def was_told(self) -> bool:
        """Whether the handler was told, and was to come to its end."""
        return self._stand in _AT_ITS_END

    def excuse(self) -> None:
        """Raise nothing: the handler has closed the connection by itself."""
        if self._stand is _Stand.UNTOLD:
            self._stand = _Stand.EXCUSED

    def deadline_expired(self, phase: Phase) -> bool:
        """
        A deadline has passed, which ends the connection.

        @return: whether it is to be raised wherever the handler waits, and not only where it
            reads or writes.
        """
        self._is_clients_fault = phase not in _HANDLERS_PHASES
        cancels = not self._is_clients_fault or (phase is Phase.WRITE and self.cancels())
        if cancels:
            self.excuse()
        return cancels

    def finishes_regardless(self) -> bool:
        """Whether the handler goes on though its time has passed, as that is its client's fault."""
        return self._is_clients_fault and not self.cancels()

    def happened(
        self,
        error: ClientGone,
        task: Task | None,
        *,
        reads_on: bool = False,
        taken: int | None = None,
    ) -> None:
        """
        The client has gone.

        @param task: the drive of the handler; None if none waits.
        @param reads_on: whether the handler has things to read that came before, and so hears of
            it by an end of file.
        @param taken: how many bytes of its input it has taken so far.
        """
        if self.error is not None:
            if self._stand is _Stand.READING and not reads_on:  # it has written, and that failed
                self._cancel()
            return
        self.error = error
        waiting = None if task is None else task.waiting
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)
        if task is None or task.has_ended or not self._cancels:
            return
        if self._stand is _Stand.EXCUSED:
            return
        self._task = task
        if task.waiting is not waiting:  # it has waited for this
            self._set_told(_Stand.TOLD)
        elif reads_on:
            self._stand, self._taken = _Stand.READING, taken
            self._wait_for_handler()
        else:
            self._cancel()

    def patience_passed(self, taken: int | None) -> bool | None:
        """
        The time that the handler was given has passed, if it was given any.

        @param taken: how many bytes of its input the handler has taken so far.
        @return: whether to wait for it no longer; None if that was not what passed.
        """
        if self._deadlines.abandon is None:
            return None
        if self._stand in _AT_ITS_END:
            return True
        if self._stand is not _Stand.READING:
            return None
        if taken != self._taken:  # it gets on with what came before
            self._taken = taken
            self._wait_for_handler()
            return False
        self._cancel()
        return False

    # Inside

    def _cancel(self) -> None:
        """Raise the error in the handler, unless it is not to be disturbed now."""
        task, error = self._task, self.error
        assert task is not None
        assert error is not None
        if self._shields:
            self._stand = _Stand.DUE
            return
        self._set_told(_Stand.TOLD if self.is_finishing else _Stand.CANCELLED)
        if not self.is_finishing:
            task.cancel(error)

    def _set_told(self, stand: _Stand) -> None:
        self._stand = stand
        self._wait_for_handler()

    def _wait_for_handler(self) -> None:
        if self._deadlines.abandon is not None:  # else `lifetime` stays as it is
            self._timer.arm(Phase.LIFETIME, self._deadlines.abandon)
