"""
The wake-up queue of a clock: when each of many timers is to be woken, on one delayed call.

This room owns the order in which they are woken.  It must not know what a timer does then.
(reactor thread)
"""

from __future__ import annotations

import itertools
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any, Protocol, TypeAlias
from weakref import WeakValueDictionary

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from sockserve.core.logs import Topic, logger

__all__ = ["Entry", "Sleeper", "WakeQueue", "wake_queue_of"]

#: So many entries that were removed may stay where they are, however few others there are.  50: as
#: Twisted's reactors keep of delayed calls.
REMOVED_ENTRIES_KEPT = 50

_log = logger(Topic.CONNECTIONS)


class Sleeper(Protocol):
    """A timer that waits to be woken."""

    def wake(self, now: float) -> None:
        """
        The time that it was added for has come.

        @param now: the moment until which the reactor has heard all; it may be later by now.
        """


#: When to wake, a number that no other entry has, and the sleeper: None once it is removed.
Entry: TypeAlias = list[Any]


class WakeQueue:
    """
    The sleepers of one clock.

    A delayed call of the reactor's for each connection takes half a KiB, and C{MonotonicClock}'s as
    much again; an entry here is a sixth of that.

    An entry that is removed holds nothing, and stays where it is until its time comes or there are
    more of these than of others.

    @param clock: makes the delayed call, and tells the time.
    """

    __slots__ = ("__weakref__", "_call", "_called_at", "_clock", "_entries", "_numbers", "_removed")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        #: A heap.
        self._entries: list[Entry] = []
        self._numbers = itertools.count()
        #: How many of the entries are removed ones.
        self._removed = 0
        #: The delayed call, and for when it is or was, which is no later than the first entry: so
        #: nothing that is added while L{_wake_due} is about to be called puts that off.  -inf while
        #: sleepers are woken: after these it is set again.
        self._call: IDelayedCall | None = None
        self._called_at = inf

    def add(self, at: float, sleeper: Sleeper) -> Entry:
        """Wake C{sleeper} when it is C{at}, once; gives what L{remove} takes."""
        entry: Entry = [at, next(self._numbers), sleeper]
        heappush(self._entries, entry)
        if at < self._called_at:
            self._call_at(at)
        return entry

    def remove(self, entry: Entry) -> None:
        """Wake nobody for C{entry}, which has not come yet."""
        entry[2] = None
        self._removed += 1
        others = len(self._entries) - self._removed
        if others and self._removed <= max(others, REMOVED_ENTRIES_KEPT):
            return
        self._entries = [entry for entry in self._entries if entry[2] is not None]
        heapify(self._entries)
        self._removed = 0
        if not others and self._call is not None:
            self._call.cancel()
            self._call = None
            self._called_at = inf

    def _call_at(self, at: float) -> None:
        if self._call is not None:
            self._call.cancel()
        self._called_at = at
        self._call = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._time_came)

    def _time_came(self) -> None:
        """
        Wake who is due, when the reactor has heard what has come by now: one that was kept from its
        turns makes delayed calls before it listens, and some have been in time that it knows
        nothing of.
        """
        self._call = self._clock.callLater(0, self._wake_due, self._clock.seconds())

    def _wake_due(self, now: float) -> None:
        """
        Wake all whose time had come at a moment, but those that are added meanwhile.

        @param now: that moment: what has become due since, it may have heard nothing of.
        """
        self._call, self._called_at = None, -inf
        first_new = next(self._numbers)
        while self._entries and self._entries[0][0] <= now and self._entries[0][1] < first_new:
            sleeper = heappop(self._entries)[2]
            if sleeper is None:
                self._removed -= 1
                continue
            try:
                sleeper.wake(now)
            except BaseException:  # as a reactor does with its calls: it must not stop the others
                _log.failure("ending a request or connection in time raised")
        self._called_at = inf
        if self._removed == len(self._entries):
            self._entries.clear()
            self._removed = 0
        else:
            self._call_at(self._entries[0][0])


#: By the C{id} of their clock, which each keeps.
_queues: WeakValueDictionary[int, WakeQueue] = WeakValueDictionary()


def wake_queue_of(clock: IReactorTime) -> WakeQueue:
    """The queue of a clock: the same one for all who ask, as long as one of them is there."""
    queue = _queues.get(id(clock))
    if queue is None:
        queue = _queues[id(clock)] = WakeQueue(clock)
    return queue
