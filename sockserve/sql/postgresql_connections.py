"""
Connections to a PostgreSQL server, by psycopg.

This room owns what libpq is told, how the server's errors are named, and the connection that
listens.  It must not know tables.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.errors import UndefinedColumn, UndefinedTable
from psycopg.pq import Conninfo
from psycopg.rows import TupleRow

from sockserve.core.messages import one_line
from sockserve.sql.store import StoreAway, StoreBusy, StoreError

__all__ = ["Notifications", "connect", "libpq_words", "store_errors"]

#: What libpq is told where nothing else does: a server that has vanished is noticed in a minute.
_DEFAULTS = {
    "fallback_application_name": "sockserve",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}

#: What the server says (SQLSTATE) while others keep it from what it is asked: a lock or a statement
#: has taken too long; besides these, all that begins with 40, such as a deadlock.
_BUSY = ("55P03", "57014")


def libpq_words() -> set[str]:
    """The words of a connection that libpq knows."""
    return {each.keyword.decode() for each in Conninfo.get_defaults()} | {"ssl"}


def connect(given: Mapping[str, Any], settings: Mapping[str, str] = {}) -> Connection[TupleRow]:
    """
    Connect, for statements that are a transaction each where nothing else is said.

    @param given: what libpq is told, by its own words.
    @param settings: the server's, for this connection, besides those that C{options} has in
        C{given}, in the environment or in a service.
    @raise StoreError: the server refuses, or is not there.
    """
    known = {each.keyword.decode(): each.val for each in Conninfo.get_defaults()}
    has_service = given.get("service") or known["service"]
    usual = {} if has_service else {word: _DEFAULTS[word] for word in _DEFAULTS if not known[word]}
    words: dict[str, Any] = {**usual, **given, "client_encoding": "UTF8"}
    wanted = {"TimeZone": "UTC", **settings}
    with store_errors():
        connection = psycopg.connect(**words, autocommit=True)
        try:
            connection.execute("; ".join(f"SET {name} = '{wanted[name]}'" for name in wanted))
        except psycopg.Error:
            connection.close()
            raise
    return connection


@contextmanager
def store_errors(table: str | None = None) -> Iterator[None]:
    """
    Have errors of the server's be L{StoreError}s.

    @param table: the one that is looked for, so that what makes it is told if it is not there.
    """
    try:
        yield
    except psycopg.Error as error:
        # Without the statement, which is ours.
        state, message = error.sqlstate or "", error.diag.message_primary or one_line(error)
        if state in _BUSY or state.startswith("40"):
            raise StoreBusy(message) from error
        if isinstance(error, psycopg.OperationalError) and (
            not state or state.startswith(("08", "57"))
        ):
            raise StoreAway(message) from error
        if table is not None and isinstance(error, (UndefinedTable, UndefinedColumn)):
            hint = f"python -m sockserve.sql schema postgresql --table {table}"
            message = f"{message}; what makes the table: {hint}"
        raise StoreError(message) from error


class Notifications:
    """The connection that listens: a L{sockserve.sql.store.Subscription}."""

    def __init__(self, connection: Connection[TupleRow]) -> None:
        """
        @param connection: this object's from now on.
        @raise StoreAway: there is no descriptor for it; it is still the caller's then.
        """
        self._connection = connection
        try:
            # One of its own: libpq closes the connection's when it is lost, under whoever watches
            # it.
            self._descriptor = os.dup(connection.fileno())
        except OSError as error:
            raise StoreAway(f"the connection that listens: {error.strerror}") from error

    def fileno(self) -> int:
        """Its descriptor."""
        return self._descriptor

    def take(self) -> list[str]:
        """Read what has come, without waiting."""
        libpq = self._connection.pgconn
        hints = []
        try:
            libpq.consume_input()
            while (notification := libpq.notifies()) is not None:
                # One that is no text is somebody else's, and says as little as none does.
                hints.append(notification.extra.decode(errors="replace"))
        except psycopg.Error as error:
            raise StoreAway(f"the connection that listens was lost: {one_line(error)}") from error
        return hints

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)
        self._connection.close()
