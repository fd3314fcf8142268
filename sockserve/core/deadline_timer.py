"""
The deadline timer of a connection: keeps its deadlines, whichever phases they are for.

This room owns when a phase has expired.  It must not know how long one may last, nor what is done
on expiry. (reactor thread)
"""

from __future__ import annotations

from collections.abc import Callable, Container
from math import inf

from twisted.internet.interfaces import IReactorTime

from sockserve.core.clock import clock_of
from sockserve.core.wake_queue import Entry, wake_queue_of
from sockserve.interfaces import Phase

__all__ = ["DeadlineTimer"]


class DeadlineTimer:
    """
    The deadlines of one connection, on one entry of its clock's queue.

    Arming writes a time into a table.  The queue is touched only when the new time is earlier than
    the one it is to wake this timer at; a deadline that was disarmed or moved later costs one early
    wake-up, after which there is a new entry.  So a connection that re-arms C{idle} for every
    message never touches the queue.

    @param clock: where time comes from: a reactor, or a clock that stands for one.
    @param expired: called with each phase whose deadline has passed.
    @ivar seconds: gives the clock's time; the clock's own function, as a connection asks often.
    """

    __slots__ = ("_due", "_entry", "_expired", "_queue", "_wake_at", "seconds")

    def __init__(self, clock: IReactorTime, expired: Callable[[Phase], object]) -> None:
        clock = clock_of(clock)
        self.seconds: Callable[[], float] = clock.seconds
        self._queue = wake_queue_of(clock)
        self._expired = expired
        #: When each armed phase expires.
        self._due: dict[Phase, float] = {}
        #: The place in the queue, and for when: at the earliest of these or before.
        self._entry: Entry | None = None
        self._wake_at = inf

    def arm(self, phase: Phase, seconds: float | None, now: float | None = None) -> None:
        """
        Let C{phase} expire in C{seconds}; C{None} disarms it.

        @param now: the moment they count from, for a caller that has just asked for the time.
        """
        if seconds is None:
            self._due.pop(phase, None)
            return
        if now is None:
            clock_seconds = self.seconds  # two steps: CPython 3.11 looks for a method, otherwise
            now = clock_seconds()
        self._due[phase] = due = now + seconds
        if due < self._wake_at:
            self._sleep_until(due)

    def disarm(self, phase: Phase) -> None:
        """C{phase} has ended in time."""
        self._due.pop(phase, None)

    def disarm_all_but(self, phases: Container[Phase]) -> None:
        """Only C{phases} apply from now on."""
        for phase in [phase for phase in self._due if phase not in phases]:
            del self._due[phase]

    def next_due(self) -> tuple[Phase, float] | None:
        """The armed phase that expires first, and the seconds until then; None for none."""
        if not self._due:
            return None
        phase = min(self._due, key=self._due.__getitem__)
        return phase, max(0.0, self._due[phase] - self.seconds())

    def stop(self) -> None:
        """Disarm everything, for good."""
        self._due.clear()
        self._wake_at = -inf  # no time is earlier
        if self._entry is not None:
            self._queue.remove(self._entry)
            self._entry = None

    def wake(self, now: float) -> None:
        """
        Tell of each phase whose deadline has passed.

        @param now: the moment for which that is asked.
        """
        self._entry, self._wake_at = None, inf
        for phase in [phase for phase, due in self._due.items() if due <= now]:
            # An earlier expiry may have disarmed this one.
            if self._due.get(phase, inf) <= now:
                del self._due[phase]
                self._expired(phase)
        if self._due:
            earliest = min(self._due.values())
            if earliest < self._wake_at:
                self._sleep_until(earliest)

    def _sleep_until(self, at: float) -> None:
        if self._entry is not None:
            self._queue.remove(self._entry)
        self._wake_at = at
        self._entry = self._queue.add(at, self)
