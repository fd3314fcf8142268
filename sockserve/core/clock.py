"""
The clock of a reactor: time that the system's clock, when it is set, does not move.

This room owns delayed calls that come when so many seconds have really passed.  Twisted's reactors
go by the system's clock: set back an hour, they make each of their calls an hour late, and set
forward, early.  It must not know what a call is for, nor how a step is noticed
(L{sockserve.core.watch}). (reactor thread)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.base import ReactorBase
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

__all__ = ["MonotonicClock", "clock_of", "keep_steady"]

#: A change of the system's clock between two looks that is a step.  50 ms: some hundred times
#: what is slewed meanwhile, and less than anybody waits for.
STEP_SECONDS = 0.05


def clock_of(reactor: Any) -> Any:
    """
    The clock of a reactor: the same one for all who ask.  A reactor that L{keep_steady} has been
    called for is its own, and so is a C{Clock} that stands for one.
    """
    if not isinstance(reactor, ReactorBase):
        return reactor
    clock = _clocks.get(reactor)
    if clock is None:
        clock = _clocks[reactor] = MonotonicClock(reactor)
    return clock


@implementer(IReactorTime)
class MonotonicClock:
    """
    A reactor's delayed calls by a time that only goes on.

    @param reactor: makes the calls.
    @param seconds: gives that time.
    @param system_seconds: gives the system's, by which the reactor goes.
    """

    def __init__(
        self,
        reactor: Any,
        seconds: Callable[[], float] = time.monotonic,
        system_seconds: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self.seconds = seconds
        self._system_seconds = system_seconds
        self._ahead = system_seconds() - seconds()
        #: Those that are to come.
        self._calls: set[_Call] = set()

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> IDelayedCall:
        """As C{IReactorTime.callLater}."""
        if delay == 0:
            inner: IDelayedCall = self._reactor.callLater(0, callable, *args, **kw)
            inner.time = 0.0  # type: ignore[attr-defined]  # due at any time of the system's
            return inner
        call = _Call(self, self.seconds() + delay, callable, args, kw)
        self._calls.add(call)
        call.inner = self._reactor.callLater(delay, call.come)
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """As C{IReactorTime.getDelayedCalls}."""
        return list(self._calls)

    def look_for_step(self) -> None:
        """Put right the reactor's idea of when calls are due, if the system's clock was set back.
        (One that was set forward shows when the reactor makes a call too early.)"""
        ahead = self._system_seconds() - self.seconds()
        if ahead < self._ahead - STEP_SECONDS:
            for call in self._calls:
                call.wait()
        self._ahead = ahead


@implementer(IDelayedCall)
class _Call:
    """
    A delayed call.

    @ivar inner: the reactor's, that comes when this is due or before; None when it is over.
    """

    __slots__ = ("_arguments", "_cancelled", "_clock", "_due", "_function", "_words", "inner")

    inner: IDelayedCall | None

    def __init__(
        self,
        clock: MonotonicClock,
        due: float,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        words: dict[str, Any],
    ) -> None:
        self._clock = clock
        self._due = due
        self._function = function
        self._arguments = arguments
        self._words = words
        self._cancelled = False
        self.inner = None

    def __repr__(self) -> str:
        name = getattr(self._function, "__qualname__", repr(self._function))
        return f"<call of {name} in {self._due - self._clock.seconds():.3f} s>"

    def come(self) -> None:
        """Call the function if it is time, as the reactor says; else wait on."""
        self.inner = None
        if self._clock.seconds() < self._due:
            self.wait()
        else:
            self._clock._calls.discard(self)
            self._function(*self._arguments, **self._words)

    def wait(self) -> None:
        """Have the reactor come back when it is time."""
        if self.inner is not None:
            self.inner.cancel()
        left = max(0.0, self._due - self._clock.seconds())
        self.inner = self._clock._reactor.callLater(left, self.come)

    def getTime(self) -> float:
        """As C{IDelayedCall.getTime}, by the clock's time."""
        return self._due

    def cancel(self) -> None:
        """As C{IDelayedCall.cancel}."""
        self._check_active()
        assert self.inner is not None
        self.inner.cancel()
        self.inner = None
        self._cancelled = True
        self._clock._calls.discard(self)

    def delay(self, secondsLater: float) -> None:
        """As C{IDelayedCall.delay}."""
        self._move(self._due + secondsLater)

    def reset(self, secondsFromNow: float) -> None:
        """As C{IDelayedCall.reset}."""
        self._move(self._clock.seconds() + secondsFromNow)

    def active(self) -> bool:
        """As C{IDelayedCall.active}."""
        return self.inner is not None

    def _move(self, due: float) -> None:
        self._check_active()
        is_earlier = due < self._due
        self._due = due
        if is_earlier:  # else it waits for the rest when the reactor comes
            self.wait()

    def _check_active(self) -> None:
        if self._cancelled:
            raise AlreadyCancelled
        if self.inner is None:
            raise AlreadyCalled


#: Of each reactor, which lasts as long as its process.
_clocks: dict[ReactorBase, IReactorTime] = {}


def keep_steady(reactor: Any) -> None:
    """
    Have a reactor that is all ours go by a time that only goes on, for handlers' own delayed
    calls, too.  It is the system's time as of now: what is a delayed call already stays right.
    Not for a reactor of others, who may take its time for the date. (reactor thread, or before
    it runs)
    """
    if reactor not in _clocks:
        ahead, seconds = time.time() - time.monotonic(), time.monotonic
        reactor.seconds = lambda: ahead + seconds()
        _clocks[reactor] = reactor
