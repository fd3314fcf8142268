"""
Reactors: Twisted's, as far as any room needs one.

This room owns the name of all that is asked of a reactor.  It must not know which one runs.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable
from functools import partial
from typing import Protocol, cast

from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFDSet,
    IReactorFromThreads,
    IReactorTime,
)

from sockserve.core.clock import clock_of

__all__ = [
    "NEEDS_LOOP",
    "CallAtTurnEnd",
    "Cancellable",
    "IReactor",
    "as_reactor",
    "event_loop_of",
    "turn_end_of",
]

#: What to do about a reactor without an event loop of asyncio's, for errors.
NEEDS_LOOP = "for that, run on asyncio's event loop: --reactor=asyncio or uvloop"


class IReactor(IReactorCore, IReactorTime, IReactorFromThreads, IReactorFDSet):
    """
    A reactor that waits for time, for other threads and for descriptors.

    It is for type checkers: Twisted's reactors have all of this, and declare only the parts.  A
    room to which one part is enough asks for that one.
    """


def as_reactor(reactor: IReactorTime) -> IReactor:
    """
    The reactor that a program has given, as the rooms inside know it.

    A program may give a clock where no more is needed, and to a type checker Twisted's own global
    reactor is not one of C{IReactorFromThreads}; so the doors ask for no more than time.
    """
    return cast(IReactor, reactor)


def event_loop_of(reactor: object) -> AbstractEventLoop | None:
    """
    The event loop of asyncio's that a reactor runs on, while it runs; None if it runs on none.

    The attribute is that of Twisted's C{AsyncioSelectorReactor}, which other programs look for too:
    any reactor that has it is taken to run on that loop.
    """
    loop: AbstractEventLoop | None = getattr(reactor, "_asyncioEventloop", None)
    return loop


class Cancellable(Protocol):
    """A call that is to come, and may not."""

    def cancel(self) -> object:
        """It is not to come."""


#: Has a function called at the end of a reactor's turn.
CallAtTurnEnd = Callable[[Callable[[], object]], Cancellable]


def turn_end_of(reactor: IReactorTime) -> CallAtTurnEnd:
    """
    What calls a function when the reactor has come to the end of its turn, with all that it has
    heard in it: on an event loop of asyncio's in less than half the time of a delayed call.
    """
    loop = event_loop_of(reactor)
    return partial(clock_of(reactor).callLater, 0) if loop is None else loop.call_soon
