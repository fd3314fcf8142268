"""
PostgreSQL: a table of rows on a server, by psycopg.

This room owns the statements for PostgreSQL, and which connection each is for.  It must not know
the reactor, nor when what is asked.

What has been claimed or removed stays in the table and in its index as long as any transaction of
the server's, be it in another database's dump, might still see it.  A claim that began at the
index' head would walk over all of that each time.  So it begins, for each priority, where the last
one has ended; what comes before that is told by the server's notifications (which say how far back
to go), and found by a sweep, which looks through all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from sockserve.sql.postgresql_connections import Notifications, connect, store_errors
from sockserve.sql.rows import Row
from sockserve.sql.schema import HINT, READY, channel_of, quoted, schema
from sockserve.sql.store import (
    COLUMNS,
    Claimed,
    LeaseLost,
    StoreError,
    Turn,
)

__all__ = ["PostgreSQLStore"]

#: The oldest server whose triggers and indexes are as the schema wants them.
OLDEST_SERVER = 150000

#: How the store's own transactions are isolated, whatever a role or a database has as its default.
#: And how plans are made: the rows to be claimed are few and at a known place of an index, whatever
#: the statistics make of a table that was empty, or full, a moment ago.
_OWN = {
    "default_transaction_isolation": "read committed",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
}

#: Before all ids.
_LEAST = -(2**63)


class PostgreSQLStore:
    """
    A table on a PostgreSQL server: a L{sockserve.sql.store.Store}.

    @ivar url: what libpq connects by.
    """

    is_exclusive = False

    def __init__(self, url: str, table: str = "jobs") -> None:
        """
        @raise ValueError: libpq cannot read the URL.  (It may have a password, so it is not told.)
        """
        try:
            self._words = conninfo_to_dict(url)
        except psycopg.Error:
            raise ValueError("libpq cannot read this URL") from None
        self.url = url
        self.table = table
        self.description = f"{_without_password(url)}?table={table}"
        self._connection: Connection[TupleRow] | None = None
        #: Connections for transactions of handlers that are not used just now.
        self._idle: list[Connection[TupleRow]] = []
        self._lock = threading.Lock()
        #: By priority, the place (C{due_at} and C{id}) up to which all that was ready is claimed.
        self._places: dict[int, tuple[datetime, int]] = {}
        name, channel = quoted(table), channel_of(table)
        self._channel = channel
        returning = "id, payload, attempts, priority, due_at, idempotency_key"
        these = (
            f"SELECT kept.ctid FROM {name} kept JOIN unnest(%s::bigint[], %s::integer[])"
            " AS these (id, attempts) USING (id) WHERE kept.attempts = these.attempts"
            " AND kept.leased_until IS NOT NULL FOR UPDATE OF kept SKIP LOCKED"
        )
        self._columns = f"SELECT {', '.join(COLUMNS)} FROM {name} LIMIT 0"
        # Of any other, the place (ctid) of a row says nothing, or not which one it is.
        self._is_plain = (
            "SELECT relkind = 'r' AND NOT relhassubclass FROM pg_class"
            f" WHERE oid = '{name}'::regclass"
        )
        self._change_none = (
            f"UPDATE {name} SET due_at = due_at, attempts = attempts, leased_until = leased_until,"
            " dead_at = dead_at, failure = failure WHERE false"
        )
        self._remove_none = f"DELETE FROM {name} WHERE false"
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
            f" WHERE ctid = ANY(ARRAY(SELECT ctid FROM {name}"
            " WHERE leased_until <= now() FOR UPDATE SKIP LOCKED))"
            " RETURNING priority, due_at, dead_at), told AS (SELECT priority, due_at FROM expired"
            f" WHERE dead_at IS NULL) {tell}"
        )
        found = f"SELECT priority, due_at, id FROM {name} kept WHERE {READY}"
        order = "ORDER BY priority, due_at, id LIMIT 1"
        # The first of each priority; a place is before all that may be served now, or be added.
        self._first_places = (
            f"WITH RECURSIVE found AS (({found} {order}) UNION ALL SELECT next.* FROM found,"
            f" LATERAL ({found} AND kept.priority > found.priority {order}) AS next)"
            " SELECT priority, least(due_at, now()),"
            f" CASE WHEN due_at <= now() THEN id - 1 ELSE {_LEAST} END FROM found"
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

    def create(self) -> None:
        """Make the table. (any thread)"""
        with self.connected() as connection:
            connection.execute(schema("postgresql", self.table))

    @contextmanager
    def connected(self) -> Iterator[Connection[TupleRow]]:
        """A connection for a program. (any thread)"""
        with (
            store_errors(self.table),
            connect(self._words) as connection,
            connection.transaction(),
        ):
            yield connection

    def open(self) -> None:
        """Connect, and look for the table."""
        connection = connect(self._words, _OWN)
        try:
            self._check(connection)
        except StoreError:
            connection.close()
            raise
        self._connection = connection
        self._places.clear()

    def _check(self, connection: Connection[TupleRow]) -> None:
        """Check that the server is new enough, has the table, and lets it be changed."""
        version = connection.info.server_version
        if version < OLDEST_SERVER:
            raise StoreError(
                f"the server is PostgreSQL {version // 10000}; it is to be"
                f" {OLDEST_SERVER // 10000} or newer"
            )
        with store_errors(self.table), connection.transaction(force_rollback=True):
            connection.execute(self._columns)
            if not _one(connection.execute(self._is_plain))[0]:
                raise StoreError(f"{self.table} is a view, or a table in parts; take a plain table")
            connection.execute(self._change_none)
            connection.execute(self._remove_none)

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
        with store_errors(), connection.transaction():
            return self._in_transaction(connection, turn)

    def has_changed(self) -> bool:
        """Return true: a look at the table is all that can tell."""
        return True

    def subscribe(self) -> Notifications:
        """Listen for the notifications of the table's trigger."""
        connection = connect(self._words)
        try:
            with store_errors():
                connection.execute(f"LISTEN {quoted(self._channel)}")
            return Notifications(connection)
        except StoreError:
            connection.close()
            raise

    def watch(self, changed: Callable[[], None]) -> None:
        """Do nothing: the server tells of this process' rows as of any other's."""

    @contextmanager
    def transaction(self, row: Row) -> Iterator[Connection[TupleRow]]:
        """A transaction that removes the row. (handler's thread)"""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None or connection.closed:
            connection = connect(self._words)
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
            execute(self._fail, _failed(turn, _server_encoding(connection)))
        if turn.released:
            execute(self._release, _these(turn.released))
        if turn.held:
            execute(self._extend, (turn.lease, *_these(turn.held)))
        if turn.is_sweep:
            execute(
                self._expire,
                {
                    "most": turn.max_attempts,
                    "why": f"its lease expired at attempt {turn.max_attempts} or later: its"
                    " process has died",
                },
            )
        if not turn.want:
            return Claimed([])
        if turn.is_sweep or not self._places:
            found = execute(self._first_places).fetchall()
            self._places = {priority: (due_at, number) for priority, due_at, number in found}
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


def _one(cursor: psycopg.Cursor[TupleRow]) -> TupleRow:
    row = cursor.fetchone()
    assert row is not None
    return row


def _server_encoding(connection: Connection[TupleRow]) -> str:
    return connection.info.parameter_status("server_encoding") or "UTF8"


def _failed(turn: Turn, encoding: str) -> tuple[list[Any], ...]:
    rows = turn.failed
    ids = [row.id for row in rows]
    failures = [row.failure.replace("\0", "\\0") for row in rows]  # its texts have no NUL
    if encoding != "UTF8":  # it may not have what Python has
        failures = [each.encode("ascii", "backslashreplace").decode() for each in failures]
    return (ids, [row.delay for row in rows], failures, ids, [row.attempts for row in rows])


def _these(rows: list[Row]) -> tuple[list[int], list[int]]:
    """Rows as parameters of a statement: id and attempts, by which a row is this claim's."""
    return [row.id for row in rows], [row.attempts for row in rows]


def _without_password(url: str) -> str:
    base = url.partition("?")[0]
    scheme, _, rest = base.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
