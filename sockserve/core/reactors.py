"""
Reactors: Twisted's, as far as any room needs one.

This room owns the name of all that is asked of a reactor.  It must not know which one runs.
"""

from __future__ import annotations

from typing import cast

from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFDSet,
    IReactorFromThreads,
    IReactorTime,
)

__all__ = ["IReactor", "as_reactor"]


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
