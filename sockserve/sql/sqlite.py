"""
SQLite: a table of rows in a file.

This room owns the statements for SQLite, and its connections.  It must not know the reactor, nor
when what is asked.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from urllib.parse import quote

from sockserve.core.messages import one_line
from sockserve.sql.rows import FailedRow, Row
from sockserve.sql.schema import READY, quoted, schema
from sockserve.sql.store import (
    COLUMNS,
    Claimed,
    LeaseLost,
    StoreAway,
    StoreBusy,
    StoreError,
    Turn,
)
from sockserve.sql.wakeups import forget_waiter, wait_for_rows

__all__ = ["SQLiteStore"]

#: How long a statement waits for another's transaction to end.  As long as a lease: what a handler
#: does in its transaction keeps all others waiting.
BUSY_SECONDS = 30.0

#: What SQLite says, in the lower byte of its codes, while others keep it from what it is asked.
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class SQLiteStore:
    """
    A table in a file of SQLite's: a L{sockserve.sql.store.Store}.

    @cvar busy_seconds: how long a statement waits for another's transaction to end.
    @ivar path: the file's name.
    """

    is_exclusive = True
    busy_seconds = BUSY_SECONDS

    def __init__(self, path: str, table: str = "jobs", *, seconds: Callable[[], float] = time.time):
        """
        @param seconds: gives the time, in seconds since 1970.
        """
        name = quoted(table)
        self.path = path
        self.table = table
        self.description = f"sqlite:///{path}?table={table}"
        self._seconds = seconds
        self._connection: sqlite3.Connection | None = None
        #: Connections for transactions of handlers that are not used just now.
        self._idle: list[sqlite3.Connection] = []
        self._version: int | None = None
        self._changed: Callable[[], None] | None = None
        # The statements
        self._columns = f"SELECT {', '.join(COLUMNS)} FROM {name} LIMIT 0"
        self._remove = f"DELETE FROM {name} WHERE id IN (SELECT value FROM json_each(?))"
        self._remove_one = f"DELETE FROM {name} WHERE id = ? AND attempts = ?"
        self._fail = (
            f"UPDATE {name} SET leased_until = NULL, due_at = coalesce(?, due_at), dead_at = ?,"
            f" failure = ? WHERE id = ? AND attempts = ? AND leased_until IS NOT NULL"
        )
        those = (
            "(id, attempts) IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]')"
            " FROM json_each(?)) AND leased_until IS NOT NULL"
        )
        self._release = (
            f"UPDATE {name} SET leased_until = NULL, attempts = attempts - 1 WHERE {those}"
        )
        self._extend = f"UPDATE {name} SET leased_until = ? WHERE {those}"
        self._bury = (
            f"UPDATE {name} SET leased_until = NULL, dead_at = ?, failure = ?"
            f" WHERE leased_until <= ? AND attempts >= ?"
        )
        self._expire = f"UPDATE {name} SET leased_until = NULL WHERE leased_until <= ?"
        self._priorities = (
            f"WITH RECURSIVE found (priority) AS ("
            f" SELECT (SELECT max(priority) FROM {name} WHERE {READY})"
            f" UNION ALL SELECT (SELECT max(priority) FROM {name}"
            f" WHERE {READY} AND priority < found.priority)"
            f" FROM found WHERE found.priority IS NOT NULL)"
            f" SELECT priority FROM found WHERE priority IS NOT NULL"
        )
        self._claim = (
            f"UPDATE {name} SET leased_until = ?, attempts = attempts + 1 WHERE id IN ("
            f"SELECT id FROM {name} WHERE {READY} AND priority = ? AND due_at <= ?"
            f" ORDER BY due_at, id LIMIT ?)"
            f" RETURNING id, payload, attempts, priority, due_at, idempotency_key"
        )
        self._next_due = (
            f"SELECT due_at FROM {name} WHERE {READY} AND priority = ? AND due_at > ?"
            f" ORDER BY due_at LIMIT 1"
        )

    def create(self) -> None:
        """Make the table, and the file that has it. (any thread)"""
        with closing(self._connect("rwc")) as connection, _store_errors():
            connection.executescript(schema("sqlite", self.table))

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        """A connection for a program. (any thread)"""
        with (
            closing(self._connect()) as connection,
            _store_errors(self.table),
            _transaction(connection),
        ):
            yield connection

    def open(self) -> None:
        """Open the file, and look for the table."""
        connection = self._connect()
        try:
            with _store_errors(self.table):
                connection.execute(self._columns)
                connection.execute(self._priorities)
            if not os.access(self.path, os.W_OK):
                raise StoreError("its file cannot be written")
        except StoreError:
            connection.close()
            raise
        self._connection = connection
        self._version = None

    def close(self) -> None:
        """Close all connections."""
        if self._changed is not None:
            forget_waiter(self.path, self._changed)
            self._changed = None
        connections = [*self._idle, self._connection]
        self._connection = None
        self._idle.clear()
        for connection in connections:
            if connection is not None:
                connection.close()

    def turn(self, turn: Turn) -> Claimed:
        """Do all that C{turn} says, or nothing."""
        connection = self._opened()
        with _store_errors(), _transaction(connection):
            now = self._seconds()  # it may have waited for long
            # Nothing can be added before the end of this, and what is after it shows.
            (self._version,) = connection.execute("PRAGMA data_version").fetchone()
            self._settle(connection, turn, now)
            return self._claim_rows(connection, turn, now)

    def has_changed(self) -> bool:
        """Whether another connection has committed anything since this was last asked."""
        with _store_errors():
            (version,) = self._opened().execute("PRAGMA data_version").fetchone()
        before, self._version = self._version, version
        return bool(version != before)

    def subscribe(self) -> None:
        """Return None: SQLite tells nobody of anything."""

    def watch(self, changed: Callable[[], None]) -> None:
        """Call C{changed} when this process has enqueued rows."""
        self._changed = changed
        wait_for_rows(self.path, changed)

    @contextmanager
    def transaction(self, row: Row) -> Iterator[sqlite3.Connection]:
        """A transaction that removes the row. (handler's thread)"""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            self._begin(connection)
            with _transaction(connection):
                if not connection.execute(self._remove_one, (row.id, row.attempts)).rowcount:
                    raise LeaseLost(f"row {row.id} is another's: its lease has expired")
                yield connection
        finally:
            if self._connection is None:
                connection.close()
            else:
                self._idle.append(connection)

    def _begin(self, connection: sqlite3.Connection) -> None:
        """
        Begin a transaction when no other is under way, however long that lasts: it is no fault of
        the row's. (handler's thread)
        """
        while not connection.in_transaction:
            try:
                with _store_errors():
                    connection.execute("BEGIN IMMEDIATE")
            except StoreBusy:
                self._opened()  # else nobody waits for this any more

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError("it is closed")
        return self._connection

    def _connect(self, mode: str = "rw") -> sqlite3.Connection:
        """
        Open the database, with a write-ahead log, so that who reads waits for nobody.

        @param mode: C{rwc} to make it, if there is none.
        @raise StoreError: there is none, or it is not to be had.
        """
        if mode == "rw" and not os.path.exists(self.path):  # SQLite would not say so
            raise StoreAway(f"no file {self.path!r}")
        with _store_errors():
            connection = sqlite3.connect(
                f"file:{quote(self.path)}?mode={mode}",
                uri=True,
                timeout=self.busy_seconds,
                isolation_level=None,
                check_same_thread=False,
            )
        try:
            with _store_errors():
                connection.execute("PRAGMA journal_mode = WAL")
                # A commit is not waited for until it is on the disk: a loss of power may bring rows
                # back that have been served, but none is lost that was there before.
                connection.execute("PRAGMA synchronous = NORMAL")
        except StoreError:
            connection.close()
            raise
        return connection

    def _settle(self, connection: sqlite3.Connection, turn: Turn, now: float) -> None:
        """Do all but claim."""
        execute = connection.execute
        if turn.served:
            execute(self._remove, (json.dumps(turn.served),))
        if turn.failed:
            connection.executemany(self._fail, [_failed(row, now) for row in turn.failed])
        if turn.released:
            execute(self._release, (_those(turn.released),))
        if turn.held:
            execute(self._extend, (now + turn.lease, _those(turn.held)))
        if turn.is_sweep:
            why = f"its lease expired at attempt {turn.max_attempts} or later: its process has died"
            execute(self._bury, (now, why, now, turn.max_attempts))
            execute(self._expire, (now,))

    def _claim_rows(self, connection: sqlite3.Connection, turn: Turn, now: float) -> Claimed:
        rows: list[Row] = []
        due: list[float] = []
        if not turn.want:
            return Claimed(rows)
        until = now + turn.lease
        for (priority,) in connection.execute(self._priorities).fetchall():
            left = turn.want - len(rows)
            if not left:
                return Claimed(rows)
            found = self._fetch(connection, (until, priority, now, left))
            found.sort(key=lambda row: (row.due_at, row.id))
            rows += found
            if len(found) < left:
                due += [at for (at,) in connection.execute(self._next_due, (priority, now))]
        return Claimed(rows, max(0.0, min(due) - now) if due else None)

    def _fetch(
        self, connection: sqlite3.Connection, parameters: tuple[float, int, float, int]
    ) -> list[Row]:
        """Claim rows of one priority; one whose text is none has a fault."""
        connection.execute("SAVEPOINT claim")
        try:
            return [Row(*values) for values in connection.execute(self._claim, parameters)]
        except sqlite3.OperationalError as error:
            if "decode" not in str(error):
                raise
            connection.execute("ROLLBACK TO claim")
            connection.text_factory = _text
            return [_checked(values) for values in connection.execute(self._claim, parameters)]
        finally:
            connection.text_factory = str
            connection.execute("RELEASE claim")


class _NoText(bytes):
    """What is stored as text, and is not UTF-8."""


def _text(stored: bytes) -> str | _NoText:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return _NoText(stored)


def _checked(values: tuple[object, ...]) -> Row:
    row = Row(*values)  # type: ignore[arg-type]
    if any(isinstance(value, _NoText) for value in values):
        row.fault = "its text is not UTF-8"
    return row


def _failed(row: FailedRow, now: float) -> tuple[float | None, float | None, str, int, int]:
    due_at = None if row.delay is None else now + row.delay
    return (due_at, now if row.delay is None else None, row.failure, row.id, row.attempts)


def _those(rows: list[Row]) -> str:
    """Rows as a parameter of a statement: pairs of id and attempts, by which a row is this
    claim's."""
    return json.dumps([(row.id, row.attempts) for row in rows])


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction, which excludes all others: one that has begun, or that begins here."""
    if not connection.in_transaction:
        connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _store_errors(table: str | None = None) -> Iterator[None]:
    """
    Have errors of SQLite's be L{StoreError}s.

    @param table: the one that is looked for, so that what makes it is told if it is not there.
    """
    try:
        yield
    except OverflowError as error:  # a number that it cannot take
        raise StoreError(one_line(error)) from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in _BUSY:
            raise StoreBusy("another transaction keeps the database locked") from error
        if code == sqlite3.SQLITE_CANTOPEN:
            raise StoreAway(one_line(error)) from error
        message = one_line(error)
        if table is not None and message.startswith("no such "):
            message += (
                f"; what makes the table: python -m sockserve.sql schema sqlite --table {table}"
            )
        raise StoreError(message) from error
