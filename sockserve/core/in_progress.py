"""
Requests in progress, as an operator sees them.

This room owns what is told of one, and how one is named to be aborted.  It must not know what a
request is, or who asks. (reactor thread)
"""

from __future__ import annotations

import itertools
from typing import NamedTuple, Protocol

import attrs

from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.interfaces import Phase

__all__ = ["RequestInProgress", "RequestStatus", "UnderWay", "next_deadline", "next_id"]

_ids = itertools.count(1)


def next_deadline(timer: DeadlineTimer | None) -> tuple[Phase | None, float | None]:
    """The deadline of C{timer} that would pass first, and the seconds until then."""
    due = None if timer is None else timer.next_due()
    return (None, None) if due is None else due


def next_id() -> int:
    """A number for a request that is listed for the first time."""
    return next(_ids)


@attrs.frozen(kw_only=True)
class RequestStatus:
    """
    The stand of a connection, a datagram or another request in progress.

    @ivar id: its number, the same each time, by which it can be aborted.
    @ivar listener: the description of its listener.
    @ivar peer: the client's address, as a socket gives it; None until it is known.
    @ivar handler: the handler class's name.
    @ivar stage: what is under way: C{handshake}, C{idle}, C{header}, C{body}, C{queue}, C{handle}
        or C{write}.
    @ivar request: the request line, of HTTP while one is answered; else empty.
    @ivar seconds: its age: since its connection was accepted, or of HTTP since the request began.
    @ivar received: bytes from the peer; None where the system does not tell.
    @ivar sent: bytes to the peer; likewise.
    @ivar deadline: the deadline that would pass first; None for none.
    @ivar expires_in: the seconds until then; None for never.
    """

    id: int
    listener: str
    peer: object
    handler: str
    stage: str
    request: str = ""
    seconds: float
    received: int | None
    sent: int | None
    deadline: Phase | None = None
    expires_in: float | None = None


class UnderWay(NamedTuple):
    """
    The stand of what a connection is in the middle of.

    @ivar stage: as L{RequestStatus}'s, and so is C{request}.
    @ivar began: when it has begun; None for when the connection has.
    """

    stage: str
    request: str = ""
    began: float | None = None


class RequestInProgress(Protocol):
    """A request in progress: it tells its stand, and can be ended."""

    def status(self) -> RequestStatus:
        """The stand of the request."""

    def abort_by_operator(self) -> None:
        """End the request now; of a handler that does not hear of that, no longer wait for it."""
