"""
The queue as a program sees it: adding rows, and looking after those that were set aside.

This room owns the statements for that, which run on the caller's own connection and in its
transaction.  It must not know sources. (any thread)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sockserve.interfaces import ConfigurationError
from sockserve.sql.rows import DeadRow
from sockserve.sql.schema import HINT, channel_of, quoted
from sockserve.sql.wakeups import wake_waiters

__all__ = ["dead_rows", "enqueue", "requeue"]

#: How many rows that were set aside are listed where nobody says.
DEAD_ROWS = 100


def enqueue(
    connection: Any,
    payload: object,
    *,
    table: str = "jobs",
    priority: int = 0,
    due_at: datetime | None = None,
    delay: float | None = None,
    idempotency_key: str | None = None,
) -> int:
    """
    Add a row, in the caller's transaction: it is there to be served once that is committed.

    @param connection: a C{sqlite3.Connection}, a C{psycopg.Connection}, or a cursor of one's; or
        any other whose C{cursor} has such an C{execute}, as Django's has.
    @param payload: a text, or whatever else the table's column takes.
    @param priority: rows with a higher one are served first.
    @param due_at: not before this time, which has a time zone.
    @param delay: not before so many seconds from now, in place of C{due_at}.
    @param idempotency_key: in place of one of the database's choice.
    @return: the row's id.
    """
    place = _place(connection)
    columns: dict[str, tuple[str, object]] = {
        "payload": (place, payload),
        "priority": (place, priority),
    }
    if due_at is not None:
        if delay is not None:
            raise ConfigurationError("due_at and delay: give one of them")
        if due_at.tzinfo is None:
            raise ConfigurationError(f"due_at: {due_at} has no time zone")
    if delay is not None:
        try:
            due_at = datetime.fromtimestamp(datetime.now(UTC).timestamp() + delay, UTC)
        except (OverflowError, ValueError):
            raise ConfigurationError(
                f"delay: {delay!r} seconds from now are beyond the year 9999, or no time"
            ) from None
    if due_at is not None:
        columns["due_at"] = (place, due_at.timestamp() if _is_sqlite(connection) else due_at)
    if idempotency_key is not None:
        columns["idempotency_key"] = (place, idempotency_key)
    places, values = zip(*columns.values(), strict=True)
    rows = _execute(
        connection,
        f"INSERT INTO {quoted(table)} ({', '.join(columns)}) VALUES ({', '.join(places)})"
        " RETURNING id",
        values,
    )
    _wake(connection)
    return int(rows[0][0])


def dead_rows(connection: Any, *, table: str = "jobs", limit: int = DEAD_ROWS) -> list[DeadRow]:
    """
    The rows that were set aside, those of the last time first.

    @param connection: as L{enqueue}'s.
    @param limit: the most rows.
    """
    is_sqlite = _is_sqlite(connection)
    when = "dead_at" if is_sqlite else "extract(epoch FROM dead_at)::float8"
    place = _place(connection)
    with _any_text(connection):
        rows = _execute(
            connection,
            f"SELECT id, payload, attempts, priority, idempotency_key, {when}, failure"
            f" FROM {quoted(table)} WHERE dead_at IS NOT NULL ORDER BY dead_at DESC LIMIT {place}",
            (limit,),
        )
    return [DeadRow(*row) for row in rows]


def requeue(connection: Any, ids: Collection[int] | None = None, *, table: str = "jobs") -> int:
    """
    Have rows tried again that were set aside, as if they never had been.

    @param connection: as L{enqueue}'s.
    @param ids: their ids; None for all.
    @return: how many there were.
    """
    name = quoted(table)
    given = () if ids is None else tuple(ids)
    if _is_sqlite(connection):
        those = (
            "" if ids is None else f" AND id IN ({', '.join([_place(connection)] * len(given))})"
        )
        rows = _execute(
            connection,
            f"UPDATE {name} SET dead_at = NULL, attempts = 0,"
            " due_at = (julianday('now') - 2440587.5) * 86400.0"
            f" WHERE dead_at IS NOT NULL{those} RETURNING id",
            given,
        )
        _wake(connection)
        return len(rows)
    ((count,),) = _execute(
        connection,
        f"WITH told AS (UPDATE {name} SET dead_at = NULL, attempts = 0, due_at = now()"
        f" WHERE dead_at IS NOT NULL{'' if ids is None else ' AND id = ANY(%s)'}"
        f" RETURNING priority, due_at), notified AS (SELECT pg_notify('{channel_of(table)}',"
        f" {HINT}) FROM told HAVING count(*) > 0)"
        " SELECT count(*) FROM told LEFT JOIN notified ON true",
        () if ids is None else (list(given),),
    )
    return int(count)


@contextmanager
def _any_text(connection: Any) -> Iterator[None]:
    """Have a connection of SQLite's give text that is not UTF-8, too: as C{\\xff}."""
    raw = _raw(connection)
    if not isinstance(raw, sqlite3.Connection):
        yield
        return
    before = raw.text_factory
    raw.text_factory = lambda stored: stored.decode(errors="backslashreplace")
    try:
        yield
    finally:
        raw.text_factory = before


def _raw(connection: Any) -> Any:
    """The driver's connection: a cursor has one, and so has Django's."""
    raw = getattr(connection, "connection", None)
    return raw if isinstance(raw, sqlite3.Connection) else connection


def _is_sqlite(connection: Any) -> bool:
    return isinstance(_raw(connection), sqlite3.Connection)


def _place(connection: Any) -> str:
    """What stands for a value in a statement: C{?} for the C{sqlite3} module itself."""
    return "?" if isinstance(connection, (sqlite3.Connection, sqlite3.Cursor)) else "%s"


def _execute(connection: Any, statement: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
    """The rows of a statement, on a connection or a cursor."""
    if hasattr(connection, "execute"):
        # A cursor's is the cursor itself, or None.
        result = connection.execute(statement, values) or connection
        return list(result.fetchall())
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def _wake(connection: Any) -> None:
    """Tell sources in this process of rows in a database of SQLite's, which tells nobody."""
    raw = _raw(connection)
    if isinstance(raw, sqlite3.Connection):
        for _, name, path in raw.execute("PRAGMA database_list"):
            if name == "main" and path:
                wake_waiters(path)
