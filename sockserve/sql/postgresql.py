"""
PostgreSQL: a table of rows on a server, by psycopg.

This room owns the statements for PostgreSQL, and its connections.  It must not know the reactor,
nor when what is asked.

What has been claimed or removed stays in the table and in its index as long as any transaction of
the server's, be it in another database's dump, might still see it.  A claim that began at the
index' head would walk over all of that each time.  So it begins, for each priority, where the last
one has ended; what comes before that is told by the server's notifications (which say how far back
to go), and found by a sweep, which looks through all.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import Connection
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from sockserve.core.messages import one_line
from sockserve.sql.rows import Row
from sockserve.sql.schema import HINT, READY, channel_of, quoted
from sockserve.sql.store import COLUMNS, Claimed, LeaseLost, StoreError, Turn

__all__ = ["PostgreSQLStore"]

#: The oldest server whose triggers and indexes are as the schema wants them.
OLDEST_SERVER = 150000

#: What libpq is told where the URL does not say: a server that has vanished is noticed in a minute.
_LIBPQ = {
    "application_name": "sockserve",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}

#: How plans are made: the rows to be claimed are few and at a known place of an index, whatever the
#: statistics make of a table that was empty, or full, a moment ago.
_PLANS = "-c enable_seqscan=off -c enable_bitmapscan=off -c enable_sort=off"

_FIRST = datetime(1970, 1, 1, tzinfo=UTC)

#: Before all ids.
_LEAST = -(2**63)


class PostgreSQLStore:
    """
    A table on a PostgreSQL server: a L{sockserve.sql.store.Store}.

    @ivar url: what libpq connects by.
    """

    is_exclusive = False

    def __init__(self, url: str, table: str = "jobs") -> None:
        self.url = url
        self.table = table
        self.description = f"{_without_password(url)}?table={table}"
        self._connection: Connection[TupleRow] | None = None
        #: Connections for transactions of handlers that are not used just now.
        self._idle: list[Connection[TupleRow]] = []
        self._lock = threading.Lock()
        #: By priority, the place (C{due_at} and C{id}) up to which all that was ready is claimed.
        self._places: dict[int, tuple[datetime, int]] = {}
        #: The place up to which all leases have been looked at.
        self._leases_until = _FIRST
        name, channel = quoted(table), channel_of(table)
        self._channel = channel
        returning = "id, payload, attempts, priority, due_at, idempotency_key"
        these = (
            f"SELECT kept.ctid FROM {name} kept JOIN unnest(%s::bigint[], %s::integer[])"
            " AS these (id, attempts) USING (id) WHERE kept.attempts = these.attempts"
            " AND kept.leased_until IS NOT NULL FOR UPDATE OF kept SKIP LOCKED"
        )
        self._columns = f"SELECT {', '.join(COLUMNS)} FROM {name} LIMIT 0"
        # None of these waits for a row that a handler's transaction has: that decides over it.
        self._remove = (
            f"DELETE FROM {name} WHERE ctid = ANY(ARRAY("
            f"SELECT ctid FROM {name} WHERE id = ANY(%s) FOR UPDATE SKIP LOCKED))"
        )
        self._remove_one = f"DELETE FROM {name} WHERE id = %s AND attempts = %s"
        self._fail = (
            f"UPDATE {name} SET leased_until = NULL, failure = f.failure,"
            " due_at = coalesce(now() + f.delay * interval '1 second', due_at),"
            " dead_at = CASE WHEN f.delay IS NULL THEN now() END"
            " FROM unnest(%s::bigint[], %s::float8[], %s::text[]) AS f (id, delay, failure)"
            f" WHERE {name}.ctid = ANY(ARRAY({these})) AND {name}.id = f.id"
        )
        tell = f"SELECT pg_notify('{channel}', {HINT}) FROM told HAVING count(*) > 0"
        self._release = (
            f"WITH told AS (UPDATE {name} SET leased_until = NULL, attempts = attempts - 1"
            f" WHERE ctid = ANY(ARRAY({these})) RETURNING priority, due_at) {tell}"
        )
        self._extend = (
            f"UPDATE {name} SET leased_until = now() + %s * interval '1 second'"
            f" WHERE ctid = ANY(ARRAY({these}))"
        )
        self._expire = (
            f"WITH expired AS (UPDATE {name} SET leased_until = NULL,"
            " dead_at = CASE WHEN attempts >= %(most)s THEN now() END,"
            " failure = CASE WHEN attempts >= %(most)s THEN %(why)s ELSE failure END"
            f" WHERE ctid = ANY(ARRAY(SELECT ctid FROM {name} WHERE leased_until >= %(since)s"
            " AND leased_until <= now() FOR UPDATE SKIP LOCKED))"
            " RETURNING priority, due_at, dead_at), told AS (SELECT priority, due_at FROM expired"
            f" WHERE dead_at IS NULL) {tell}"
        )
        self._priorities = (
            f"WITH RECURSIVE found (priority) AS ("
            f" (SELECT priority FROM {name} WHERE {READY} ORDER BY priority LIMIT 1)"
            f" UNION ALL SELECT (SELECT priority FROM {name} kept"
            f" WHERE {READY} AND kept.priority > found.priority ORDER BY kept.priority LIMIT 1)"
            f" FROM found WHERE found.priority IS NOT NULL)"
            f" SELECT priority FROM found WHERE priority IS NOT NULL"
        )
        self._claim = (
            f"UPDATE {name} SET leased_until = now() + %(lease)s * interval '1 second',"
            f" attempts = attempts + 1 WHERE ctid = ANY(ARRAY("
            "SELECT kept.ctid FROM unnest(%(priorities)s::smallint[], %(dues)s::timestamptz[],"
            f" %(ids)s::bigint[]) AS at (priority, due_at, id), LATERAL (SELECT ctid FROM {name}"
            f" WHERE {READY} AND priority = at.priority AND {name}.due_at <= now()"
            f" AND ({name}.due_at, {name}.id) > (at.due_at, at.id)"
            f" ORDER BY {name}.due_at, {name}.id LIMIT %(want)s FOR UPDATE SKIP LOCKED) AS kept"
            " LIMIT %(want)s))"
            f" RETURNING {returning}"
        )
        self._next_due = (
            "SELECT now(), (SELECT min(next.due_at) FROM unnest(%s::smallint[]) AS at (priority),"
            f" LATERAL (SELECT due_at FROM {name} WHERE {READY} AND priority = at.priority"
            " AND due_at > now() ORDER BY due_at LIMIT 1) AS next)"
        )

    def open(self) -> None:
        """Connect, and look for the table."""
        connection = self._connect(_PLANS)
        try:
            if connection.info.server_version < OLDEST_SERVER:
                raise StoreError(
                    f"the server is PostgreSQL {connection.info.server_version // 10000}; it is to"
                    f" be {OLDEST_SERVER // 10000} or newer"
                )
            connection.execute(self._columns)
        except psycopg.Error as error:
            connection.close()
            raise StoreError(_missing(self.table, error)) from error
        except StoreError:
            connection.close()
            raise
        self._connection = connection
        self._places.clear()
        self._leases_until = _FIRST

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            connections = [*self._idle, self._connection]
            self._connection = None
            self._idle.clear()
        for connection in connections:
            if connection is not None:
                connection.close()

    def turn(self, turn: Turn) -> Claimed:
        """Do all that C{turn} says, or nothing."""
        connection = self._connection
        if connection is None:
            raise StoreError("it is closed")
        self._rewind(turn.hints)
        try:
            with connection.transaction():
                return self._in_transaction(connection, turn)
        except psycopg.Error as error:
            raise StoreError(one_line(error)) from error

    def has_changed(self) -> bool:
        """Return true: a look at the table is all that can tell."""
        return True

    def subscribe(self) -> _Notifications:
        """Listen for the notifications of the table's trigger."""
        connection = self._connect()
        try:
            connection.execute(f"LISTEN {quoted(self._channel)}")
        except psycopg.Error as error:
            connection.close()
            raise StoreError(one_line(error)) from error
        return _Notifications(connection)

    def watch(self, changed: Callable[[], None]) -> None:
        """Do nothing: the server tells of this process' rows as of any other's."""

    @contextmanager
    def transaction(self, row: Row) -> Iterator[Connection[TupleRow]]:
        """A transaction that removes the row. (handler's thread)"""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None or connection.closed:
            connection = self._connect()
        try:
            with connection.transaction():
                removed = connection.execute(self._remove_one, (row.id, row.attempts))
                if not removed.rowcount:
                    raise LeaseLost(f"row {row.id} is another's: its lease has expired")
                yield connection
                if connection.info.transaction_status is TransactionStatus.INERROR:
                    # The server would roll back, and call that a commit.
                    raise StoreError(
                        f"row {row.id}: a statement of its transaction failed, which undoes all of"
                        " it; what may fail belongs into connection.transaction()"
                    )
        finally:
            with self._lock:
                is_kept = self._connection is not None and not connection.closed
                if is_kept:
                    self._idle.append(connection)
            if not is_kept:
                connection.close()

    def _connect(self, options: str = "") -> Connection[TupleRow]:
        """
        Connect.

        @param options: settings for this connection, besides those of the URL.
        """
        try:
            given = psycopg.conninfo.conninfo_to_dict(self.url)
            words: dict[str, Any] = {**_LIBPQ, **given}
            words["options"] = f"{given.get('options') or ''} {options} -c TimeZone=UTC".strip()
            return psycopg.connect(**words, autocommit=True)
        except psycopg.Error as error:
            raise StoreError(one_line(error)) from error

    def _rewind(self, hints: list[str]) -> None:
        """Go back to where rows have come in behind the places, as hints (L{HINT}) say."""
        for hint in hints:
            due_at, _, priorities = hint.rpartition(" ")
            try:
                place = datetime.fromisoformat(f"{due_at}+00:00")
                numbers = [int(each) for each in priorities.split(",")]
            except ValueError:  # too many to be told, or somebody else's
                self._places.clear()
                return
            for number in numbers:
                known = self._places.get(number)
                if known is None or place < known[0]:
                    self._places[number] = (place, _LEAST)

    def _in_transaction(self, connection: Connection[TupleRow], turn: Turn) -> Claimed:
        execute = connection.execute
        if not (turn.served or turn.failed):
            # A claim that the server forgets in a crash is made again.
            execute("SET LOCAL synchronous_commit = off")
        if turn.served:
            execute(self._remove, (turn.served,))
        if turn.failed:
            execute(self._fail, _failed(turn))
        if turn.released:
            execute(self._release, _these(turn.released))
        if turn.held:
            execute(self._extend, (turn.lease, *_these(turn.held)))
        if turn.is_sweep:
            execute(
                self._expire,
                {
                    "most": turn.max_attempts,
                    "since": self._leases_until,
                    "why": f"its lease expired at attempt {turn.max_attempts} or later: its"
                    " process has died",
                },
            )
        if not turn.want:
            return Claimed([])
        if turn.is_sweep or not self._places:
            found = execute(self._priorities).fetchall()
            self._places = {priority: (_FIRST, _LEAST) for (priority,) in found}
        return self._claim_rows(connection, turn)

    def _claim_rows(self, connection: Connection[TupleRow], turn: Turn) -> Claimed:
        priorities = sorted(self._places, reverse=True)
        found = connection.execute(
            self._claim,
            {
                "lease": turn.lease,
                "want": turn.want,
                "priorities": priorities,
                "dues": [self._places[each][0] for each in priorities],
                "ids": [self._places[each][1] for each in priorities],
            },
        ).fetchall()
        found.sort(key=lambda row: (-row[3], row[4], row[0]))
        rows = [
            Row(number, payload, attempts, priority, due_at.timestamp(), key)
            for number, payload, attempts, priority, due_at, key in found
        ]
        for row in found:  # the last one of a priority stays
            self._places[row[3]] = (row[4], row[0])
        if len(found) == turn.want:
            return Claimed(rows)
        now, due_at = _one(connection.execute(self._next_due, (priorities,)))
        for priority in priorities:
            self._places[priority] = (now, _LEAST)
        return Claimed(rows, None if due_at is None else (due_at - now).total_seconds())


class _Notifications:
    """The connection that listens: a L{sockserve.sql.store.Subscription}."""

    def __init__(self, connection: Connection[TupleRow]) -> None:
        self._connection = connection
        # One of its own: libpq closes the connection's when it is lost, under whoever watches it.
        self._descriptor = os.dup(connection.fileno())

    def fileno(self) -> int:
        return self._descriptor

    def take(self) -> list[str]:
        libpq = self._connection.pgconn
        hints = []
        try:
            libpq.consume_input()
            while (notification := libpq.notifies()) is not None:
                hints.append(notification.extra.decode())
        except (psycopg.Error, UnicodeDecodeError) as error:
            raise StoreError(one_line(error)) from error
        return hints

    def close(self) -> None:
        os.close(self._descriptor)
        self._connection.close()


def _one(cursor: psycopg.Cursor[TupleRow]) -> TupleRow:
    row = cursor.fetchone()
    assert row is not None
    return row


def _failed(turn: Turn) -> tuple[list[Any], ...]:
    rows = turn.failed
    ids = [row.id for row in rows]
    return (
        ids,
        [row.delay for row in rows],
        [row.failure.replace("\0", "\\0") for row in rows],  # its texts have no NUL
        ids,
        [row.attempts for row in rows],
    )


def _these(rows: list[Row]) -> tuple[list[int], list[int]]:
    """Rows as parameters of a statement: id and attempts, by which a row is this claim's."""
    return [row.id for row in rows], [row.attempts for row in rows]


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _missing(table: str, error: psycopg.Error) -> str:
    """What a table lacks, in one line with what helps."""
    message = one_line(error).partition("LINE 1")[0].strip()
    hint = f"python -m sockserve.sql schema postgresql --table {table}"
    return f"{message}; what makes the table: {hint}"
