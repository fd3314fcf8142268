"""
The command C{python -m sockserve.sql}: what a person does with a table of rows.

This room owns its words and what it prints.  It must not know the reactor.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NoReturn

from typing_extensions import override

from sockserve.core.messages import printable
from sockserve.interfaces import ConfigurationError
from sockserve.sql.queue import dead_rows, enqueue, requeue
from sockserve.sql.schema import DIALECTS, schema
from sockserve.sql.store import SQLConnection, Store, StoreError
from sockserve.sql.url import store_and_settings

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Do what the arguments say; by default, those of the process.

    @return: the status to exit with.
    """
    try:
        words = _parser().parse_args(arguments)
        for line in words.run(words):
            print(printable(line))  # noqa: T201 (a command)
    except (ConfigurationError, StoreError) as error:
        print(f"sockserve.sql: {printable(str(error))}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes are told on one line, as all others."""

    @override
    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(f"{message}; {self.prog} --help lists what there is")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m sockserve.sql", description="Look after a table of rows to be served."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str, run: Callable[[argparse.Namespace], Iterator[str]], text: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    command = add("schema", _schema, "print the statements that make the table")
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
            command.add_argument("payload", type=_text)
            command.add_argument("--priority", type=int, default=0)
            command.add_argument("--delay", type=float, help="seconds until it may be served")
        elif name == "dead":
            command.add_argument("--limit", type=_count, default=100)
        elif name == "requeue":
            command.add_argument("id", type=int, nargs="*", help="by default, all")
    return parser


def _count(word: str) -> int:
    """
    A number of rows.

    @raise argparse.ArgumentTypeError: it is none.
    """
    if not word.isdecimal():
        raise argparse.ArgumentTypeError(f"{word!r} is not a number of rows")
    return int(word)


def _text(word: str) -> str:
    """
    A text that a database can take.

    @raise ArgumentTypeError: it has bytes that were none.
    """
    try:
        word.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{word!r} is not UTF-8") from None
    return word


def _schema(words: argparse.Namespace) -> Iterator[str]:
    yield from schema(words.dialect, words.table).splitlines()


def _create(words: argparse.Namespace) -> Iterator[str]:
    store, _ = store_and_settings(words.url)
    with _described(store):
        store.create()
    yield f"{store.description}: it is there"


def _enqueue(words: argparse.Namespace) -> Iterator[str]:
    with _connected(words.url) as (table, connection):
        number = enqueue(
            connection, words.payload, table=table, priority=words.priority, delay=words.delay
        )
    yield f"{table}/{number}"


def _dead(words: argparse.Namespace) -> Iterator[str]:
    with _connected(words.url) as (table, connection):
        rows = dead_rows(connection, table=table, limit=words.limit)
    for row in rows:
        when = datetime.fromtimestamp(row.dead_at, UTC).isoformat(timespec="seconds")
        yield f"{table}/{row.id}: set aside at {when}, attempt {row.attempts}: {row.payload}"
        yield from (f"    {line}" for line in row.failure.rstrip().splitlines())


def _requeue(words: argparse.Namespace) -> Iterator[str]:
    with _connected(words.url) as (table, connection):
        count = requeue(connection, words.id or None, table=table)
    yield f"{count} {'row' if count == 1 else 'rows'} requeued"


@contextmanager
def _connected(url: str) -> Iterator[tuple[str, SQLConnection]]:
    """
    The table that a URL names, and a connection to its database, whose work is committed at the end
    of the block.

    @raise StoreError: the database refuses what it is asked for.
    """
    store, _ = store_and_settings(url)
    with _described(store), store.connected() as connection:
        yield store.table, connection


@contextmanager
def _described(store: Store) -> Iterator[None]:
    """Have a store's errors say of which it is."""
    try:
        yield
    except StoreError as error:
        raise StoreError(f"{store.description}: {error}") from error
