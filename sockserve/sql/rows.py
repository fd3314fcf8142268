"""
Rows: requests that are entries of a table, as a handler gets them, and what has become of them.

This room owns a row's words, and when a row that has failed is tried again.  It must not know
databases, servers or the reactor.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, NamedTuple

import attrs

from sockserve.interfaces import ConfigurationError

__all__ = ["DeadRow", "FailedRow", "RetryPolicy", "Row", "RowState"]


class RowState(Enum):
    """How far a claimed row has come in this process."""

    #: It waits for its turn.
    WAITING = auto()
    #: It has a handler, or waits for a thread for it.
    STARTED = auto()
    #: It was closed before it had one.
    CLOSED = auto()
    #: It was served, has failed or was given back.
    SETTLED = auto()


@attrs.define(eq=False)
class Row:
    """
    One row of the table: what a handler sees as C{self.request}.

    @ivar id: its number in the table.
    @ivar payload: what was asked for; text, unless the table's column is of another type.
    @ivar attempts: how often it has been claimed, this time included.
    @ivar priority: rows with a higher one are served first.
    @ivar due_at: since when it may be served, in seconds since 1970.
    @ivar idempotency_key: the same text each time that this row is served, and no other row's:
        by it a handler, or whom it calls, knows what has been done before.
    @ivar connection: the transaction that removes the row, for a handler that asks for it
        (L{sockserve.sql.handlers.SQLRequestHandler}); else None.
    """

    id: int
    payload: object
    attempts: int
    priority: int
    due_at: float
    idempotency_key: str
    connection: object = None

    # For the source and the server

    #: The last traceback; None while nothing was raised.
    failure: str | None = None
    #: What is wrong with it, so that no handler can have it; None of nearly all.
    fault: str | None = None
    #: When its lease began, by the source's clock.
    leased_at: float = 0.0
    #: Whether its own transaction has removed it.
    is_removed: bool = False
    state: RowState = RowState.WAITING


class FailedRow(NamedTuple):
    """
    A row that has failed, for the store.

    @ivar delay: seconds until it may be claimed again; None to set it aside.
    @ivar failure: a traceback, or why there is none.
    """

    id: int
    attempts: int
    delay: float | None
    failure: str


class DeadRow(NamedTuple):
    """
    A row that was set aside.

    @ivar dead_at: when, in seconds since 1970.
    @ivar failure: the traceback of its last attempt.
    """

    id: int
    payload: object
    attempts: int
    priority: int
    idempotency_key: str
    dead_at: float
    failure: str


#: The most doublings that are reckoned with: 2**40 seconds are 35,000 years.
_MOST_DOUBLINGS = 40


def _positive(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ConfigurationError(f"{attribute.name}: {value!r} is not a number above 0")


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """
    When a row whose handler has failed is tried again.

    @ivar attempts: how often it is tried in all, before it is set aside.  10: with the rest as it
        is, a row outlives a fault of a quarter of an hour.
    @ivar first: the seconds before the second attempt, which double with each further one.
    @ivar longest: the most seconds between two.
    @ivar random: gives a number between 0 and 1.  A wait is cut by up to its half, so that rows
        that have failed together do not come back together.
    """

    attempts: int = attrs.field(default=10, validator=_positive)
    first: float = attrs.field(default=2.0, validator=_positive)
    longest: float = attrs.field(default=3600.0, validator=_positive)
    random: Callable[[], float] = random.random

    def delay(self, attempts: int) -> float | None:
        """
        The seconds until a row may be tried again that has been for C{attempts} times; None when
        these were enough.
        """
        if attempts >= self.attempts:
            return None
        doublings = min(attempts - 1, _MOST_DOUBLINGS)
        wait = min(self.longest, self.first * float(2**doublings))
        return wait * (1.0 - self.random() / 2.0)
