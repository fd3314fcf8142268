"""
The wake-up queue of a clock: when each of many timers is to be woken, on one delayed call.

This room owns the order in which they are woken.  It must not know what a timer does then.
(reactor thread)
"""

from __future__ import annotations

import itertools
from heapq import heapify, heappop, heappush
from math import inf
from typing import Protocol
from weakref import WeakKeyDictionary, proxy

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from sockserve.core.logs import Topic, logger

__all__ = ["Sleeper", "WakeQueue", "wake_queue_of"]

#: So many entries that are of no more use are kept, however few others there are.
_KEPT = 64

_log = logger(Topic.CONNECTIONS)


class Sleeper(Protocol):
    """
    A timer that waits.

    @ivar wake_at: when it is to be woken: the time it was added for last, or one at which nothing
        is.
    """

    wake_at: float

    def wake(self) -> None:
        """The time has come, or is past."""


class WakeQueue:
    """
    The sleepers of one clock.

    A delayed call of the reactor's for each connection takes half a KiB, and C{MonotonicClock}'s as
    much again; an entry here is a seventh of that.

    An entry is of no more use when its sleeper has another L{Sleeper.wake_at}.  It stays where it
    is, unless there are more of these than of others.

    @param clock: makes the delayed call, and tells the time.
    """

    def __init__(self, clock: IReactorTime) -> None:
        #: As it keeps this (L{wake_queue_of}), which so does not outlast it.
        self._clock: IReactorTime = proxy(clock)
        self._entries: list[tuple[float, int, Sleeper]] = []
        self._numbers = itertools.count()
        #: How many entries are of no more use.
        self._useless = 0
        #: The delayed call, and for when it is; for no time later than the first entry's.
        self._call: IDelayedCall | None = None
        self._comes_at = inf

    def add(self, sleeper: Sleeper) -> None:
        """Wake C{sleeper} at its C{wake_at}."""
        at = sleeper.wake_at
        heappush(self._entries, (at, next(self._numbers), sleeper))
        if at < self._comes_at:
            self._come_at(at)

    def forget(self) -> None:
        """An entry has come to be of no more use."""
        self._useless += 1
        kept = len(self._entries) - self._useless
        if not kept:
            self._entries.clear()
            self._useless = 0
            if self._call is not None:
                self._call.cancel()
                self._call = None
                self._comes_at = inf
        elif self._useless > max(kept, _KEPT):
            self._entries = [entry for entry in self._entries if entry[2].wake_at == entry[0]]
            heapify(self._entries)
            self._useless = 0

    def _come_at(self, at: float) -> None:
        if self._call is not None:
            self._call.cancel()
        self._comes_at = at
        self._call = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._come)

    def _come(self) -> None:
        """Wake all whose time has come by now."""
        self._call = None
        self._comes_at = -inf  # what is added meanwhile is looked at in the end
        now, due = self._clock.seconds(), []
        while self._entries and self._entries[0][0] <= now:
            due.append(heappop(self._entries))
        for at, _, sleeper in due:
            if sleeper.wake_at != at:
                self._useless -= 1
                continue
            try:
                sleeper.wake()
            except Exception:
                _log.failure("a deadline's timer raised")
        self._comes_at = inf
        if self._entries:
            self._come_at(self._entries[0][0])


_queues: WeakKeyDictionary[IReactorTime, WakeQueue] = WeakKeyDictionary()


def wake_queue_of(clock: IReactorTime) -> WakeQueue:
    """The queue of a clock: the same one for all who ask."""
    queue = _queues.get(clock)
    if queue is None:
        queue = _queues[clock] = WakeQueue(clock)
    return queue
