"""
Rows: requests that are entries of a table, as a handler gets them, and what has become of them.

This room owns a row's words.  It must not know databases, servers or the reactor.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

import attrs

__all__ = ["DeadRow", "FailedRow", "Row", "RowState"]


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
