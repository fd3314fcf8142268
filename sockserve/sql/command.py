"""
The command C{python -m sockserve.sql}: what a person does with a table of rows.

This room owns its words and what it prints.  It must not know the reactor.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sockserve.core.messages import one_line, printable
from sockserve.interfaces import ConfigurationError
from sockserve.sql.queue import dead_rows, enqueue, requeue
from sockserve.sql.schema import DIALECTS, schema
from sockserve.sql.sqlite import SQLiteStore
from sockserve.sql.store import Store, StoreError
from sockserve.sql.url import dialect_of, store_and_settings

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Do what the arguments say; by default, those of the process.

    @return: the status to exit with.
    """
    words = _parser().parse_args(arguments)
    try:
        for line in words.run(words):
            print(printable(line) if words.is_for_people else line)  # noqa: T201 (a command)
    except (ConfigurationError, StoreError) as error:
        print(f"sockserve.sql: {printable(str(error))}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sockserve.sql", description="Look after a table of rows to be served."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Any, text: str, is_for_people: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run, is_for_people=is_for_people)
        return command

    command = add("schema", _schema, "print the statements that make the table", False)
    command.add_argument("dialect", choices=[*DIALECTS])
    command.add_argument("--table", default="jobs")
    for name, run, text in (
        ("create", _create, "make the table, and with SQLite the file"),
        ("enqueue", _enqueue, "add a row"),
        ("dead", _dead, "list rows that were set aside"),
        ("requeue", _requeue, "have rows tried again that were set aside"),
    ):
        command = add(name, run, text)
        command.add_argument("url", help="sqlite:///PATH?table=NAME or postgresql://...?table=NAME")
        if name == "enqueue":
            command.add_argument("payload")
            command.add_argument("--priority", type=int, default=0)
            command.add_argument("--delay", type=float, help="seconds until it may be served")
        elif name == "dead":
            command.add_argument("--limit", type=int, default=100)
        elif name == "requeue":
            command.add_argument("id", type=int, nargs="*", help="by default, all")
    return parser


def _schema(words: Any) -> Iterator[str]:
    yield schema(words.dialect, words.table).rstrip()


def _create(words: Any) -> Iterator[str]:
    store, _ = store_and_settings(words.url)
    statements = schema(dialect_of(words.url), store.table)
    with _connection(store, creates=True) as connection:
        if isinstance(connection, sqlite3.Connection):
            connection.executescript(statements)
        else:
            connection.execute(statements)
    yield f"{store.description}: it is there"


def _enqueue(words: Any) -> Iterator[str]:
    store, _ = store_and_settings(words.url)
    with _connection(store) as connection:
        number = enqueue(
            connection,
            words.payload,
            table=store.table,
            priority=words.priority,
            delay=words.delay,
        )
    yield f"{store.table}/{number}"


def _dead(words: Any) -> Iterator[str]:
    store, _ = store_and_settings(words.url)
    with _connection(store) as connection:
        rows = dead_rows(connection, table=store.table, limit=words.limit)
    for row in rows:
        when = datetime.fromtimestamp(row.dead_at, UTC).isoformat(timespec="seconds")
        yield f"{store.table}/{row.id}: set aside at {when}, attempt {row.attempts}: {row.payload}"
        yield from (f"    {line}" for line in row.failure.rstrip().splitlines())


def _requeue(words: Any) -> Iterator[str]:
    store, _ = store_and_settings(words.url)
    with _connection(store) as connection:
        count = requeue(connection, words.id or None, table=store.table)
    yield f"{count} {'row' if count == 1 else 'rows'} requeued"


@contextmanager
def _connection(store: Store, creates: bool = False) -> Iterator[Any]:
    """
    A connection to a store's database, whose work is committed at the end of the block.

    @param creates: whether to make a file that is not there.
    @raise StoreError: the database refuses what it is asked for.
    """
    try:
        if isinstance(store, SQLiteStore):
            uri = f"file:{store.path.replace('?', '%3f').replace('#', '%23')}"
            connection: Any = sqlite3.connect(
                f"{uri}?mode={'rwc' if creates else 'rw'}", uri=True, isolation_level="DEFERRED"
            )
            try:
                if creates:
                    connection.execute("PRAGMA journal_mode = WAL")
                yield connection
                connection.commit()
            finally:
                connection.close()
        else:
            import psycopg

            from sockserve.sql.postgresql import PostgreSQLStore

            assert isinstance(store, PostgreSQLStore)
            with psycopg.connect(store.url) as connection:
                yield connection
    except Exception as error:
        if isinstance(error, (ConfigurationError, StoreError)) or not _is_databases(error):
            raise
        raise StoreError(f"{store.description}: {one_line(error)}") from error


def _is_databases(error: Exception) -> bool:
    """Whether an error is of a database's driver, or one of a number that it cannot take."""
    return isinstance(error, OverflowError) or any(
        cls.__module__.partition(".")[0] in ("sqlite3", "psycopg") for cls in type(error).__mro__
    )
