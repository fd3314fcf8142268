"""
The deadline timer of a connection: keeps its deadlines, whichever phases they are for.

This room owns when a phase has expired.  It must not know how long one may last, nor what is done
on expiry. (reactor thread)
"""

from __future__ import annotations

from collections.abc import Callable, Container
from math import inf

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from sockserve.core.clock import clock_of
from sockserve.interfaces import Phase

__all__ = ["DeadlineTimer"]


class DeadlineTimer:
    """
    The deadlines of one connection, on one delayed call.

    Arming writes a time into a table.  The delayed call is touched only when the
    new time is earlier than the one it waits for; a deadline that was disarmed or
    moved later costs one early wake-up, after which the call is set anew.  So a
    connection that re-arms C{idle} for every message never touches the reactor's
    heap (whose C{reset} to an earlier time is a linear search).

    @param clock: where time comes from: a reactor, or a clock that stands for one.
    @param expired: called with each phase whose deadline has passed.
    @ivar seconds: gives the clock's time; the clock's own function, as a connection asks often.
    """

    __slots__ = ("_call", "_clock", "_due", "_expired", "_wake_at", "seconds")

    def __init__(self, clock: IReactorTime, expired: Callable[[Phase], object]) -> None:
        self._clock: IReactorTime = clock_of(clock)
        self.seconds: Callable[[], float] = self._clock.seconds
        self._expired = expired
        #: When each armed phase expires.
        self._due: dict[Phase, float] = {}
        #: What the clock is to call, and when: at the earliest of these or before.
        self._call: IDelayedCall | None = None
        self._wake_at = inf

    def arm(self, phase: Phase, seconds: float | None, now: float | None = None) -> None:
        """
        Let C{phase} expire in C{seconds}; C{None} disarms it.

        @param now: the moment they count from, for a caller that has just asked for the time.
        """
        if seconds is None:
            self._due.pop(phase, None)
            return
        due = (self._clock.seconds() if now is None else now) + seconds
        self._due[phase] = due
        if due < self._wake_at:
            self._wake(due)

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
        return phase, max(0.0, self._due[phase] - self._clock.seconds())

    def stop(self) -> None:
        """Disarm everything, for good."""
        self._due.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._wake_at = -inf  # no time is earlier

    def _wake(self, at: float) -> None:
        # Cancelling and calling anew is O(log n); IDelayedCall.reset to an earlier
        # time searches the reactor's whole heap.
        if self._call is not None:
            self._call.cancel()
        self._wake_at = at
        self._call = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._fire_due)

    def _fire_due(self) -> None:
        self._call = None
        self._wake_at = inf
        now = self._clock.seconds()
        for phase in [phase for phase, due in self._due.items() if due <= now]:
            # An earlier expiry may have disarmed this one.
            if self._due.get(phase, inf) <= now:
                del self._due[phase]
                self._expired(phase)
        if self._due:
            earliest = min(self._due.values())
            if earliest < self._wake_at:
                self._wake(earliest)
