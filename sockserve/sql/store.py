"""
Stores: tables of rows, as a source asks for them, whichever database has them.

This room owns the names of all that is asked of a database.  It must not know one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import attrs

from sockserve.interfaces import SockserveError
from sockserve.sql.rows import FailedRow, Row

__all__ = [
    "COLUMNS",
    "Claimed",
    "LeaseLost",
    "SQLConnection",
    "SQLCursor",
    "Store",
    "StoreAway",
    "StoreBusy",
    "StoreError",
    "Subscription",
    "Turn",
]

#: The columns that a table has to have.
COLUMNS = (
    "id", "payload", "priority", "due_at", "idempotency_key", "attempts", "leased_until",
    "dead_at", "failure",
)  # fmt: skip


class StoreError(SockserveError):
    """The database does not do what it is asked; the message says why."""


class StoreAway(StoreError):
    """The database is not there, or has gone."""


class StoreBusy(StoreError):
    """The database is there, and others keep it from doing what it is asked: try again."""


class LeaseLost(SockserveError):
    """A row is another's by now: its lease has expired before its handler began."""


@attrs.define
class Turn:
    """
    All that a source wants of its database at one time, in one transaction.

    @ivar lease: for how many seconds rows are claimed.
    @ivar want: the most rows to claim.
    @ivar served: the ids of rows to remove.
    @ivar failed: rows to be tried again, or set aside.
    @ivar released: rows to give back as if they had never been claimed.
    @ivar held: rows whose lease is to last C{lease} seconds from now.
    @ivar hints: what has come from the L{Subscription} since the last turn.
    @ivar is_sweep: whether to look through all of the table, and for leases that have expired.
    @ivar max_attempts: how often a row is tried; one whose lease expires after that is set aside.
    """

    lease: float
    want: int = 0
    served: list[int] = attrs.Factory(list)
    failed: list[FailedRow] = attrs.Factory(list)
    released: list[Row] = attrs.Factory(list)
    held: list[Row] = attrs.Factory(list)
    hints: list[str] = attrs.Factory(list)
    is_sweep: bool = False
    max_attempts: int = 1


@attrs.define
class Claimed:
    """
    What a L{Turn} has come to.

    @ivar rows: those claimed, the first to be served first.
    @ivar due_in: seconds until the next row may be served, if none is left that may be now;
        None when there is none.
    """

    rows: list[Row]
    due_in: float | None = None


class SQLCursor(Protocol):
    """The result of a statement, as every driver has it."""

    @property
    def description(self) -> object:
        """The columns; None of a statement that gives no rows."""

    def fetchall(self) -> list[Any]:
        """The rows."""


class SQLConnection(Protocol):
    """A driver's connection: a C{sqlite3.Connection}, or a C{psycopg.Connection}."""

    def execute(self, statement: str, parameters: Sequence[object] = ..., /) -> SQLCursor:
        """Execute a statement, whose parameters have the driver's own places."""


class Subscription(Protocol):
    """A connection on which the database tells of new rows, for the reactor to wait on."""

    def fileno(self) -> int:
        """Its descriptor."""

    def take(self) -> list[str]:
        """
        Read what has come, without waiting.

        @raise StoreError: the connection is lost.
        """

    def close(self) -> None:
        """Close it."""


class Store(Protocol):
    """
    A table in a database.  All methods may block.  Those that do not say where they run are called
    by one thread at a time.

    @ivar table: its name.
    @ivar description: it and its database, in words that tell no password.
    @ivar is_exclusive: whether one transaction excludes all others of the database.
    """

    table: str
    description: str
    is_exclusive: bool

    def create(self) -> None:
        """
        Make the table, unless it is there. (any thread)

        @raise StoreError: the database refuses.
        """

    def connected(self) -> AbstractContextManager[SQLConnection]:
        """
        A connection for a program, as a context manager: its work is committed at the end of the
        block, and rolled back when that raises. (any thread)

        @raise StoreError: the database refuses what it is asked for.
        """

    def open(self) -> None:
        """
        Connect, and look whether the table is there, and may be changed.

        @raise StoreError: the database refuses, or has no such table or columns.
        """

    def close(self) -> None:
        """Close all connections."""

    def turn(self, turn: Turn) -> Claimed:
        """
        Do all that C{turn} says, or nothing.

        @raise StoreBusy: nothing was done.
        @raise StoreError: nothing was done, or nobody knows.
        """

    def has_changed(self) -> bool:
        """
        Whether the database may have new rows since this was last asked.

        @raise StoreError: it cannot be asked.
        """

    def subscribe(self) -> Subscription | None:
        """
        Have the database tell of new rows; None if it cannot, so that L{has_changed} is to be
        asked now and then.

        @raise StoreError: it does not.
        """

    def watch(self, changed: Callable[[], None]) -> None:
        """Call C{changed}, on any thread, when this process has added rows."""

    def transaction(self, row: Row) -> AbstractContextManager[SQLConnection]:
        """
        A transaction that removes the row, as a context manager that gives its connection: it is
        committed at the end of the block, and rolled back when that raises. (handler's thread)

        @raise LeaseLost: the row is another's.
        """
