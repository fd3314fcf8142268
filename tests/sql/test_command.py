"""The command that looks after a table."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from sockserve.sql.command import main
from sockserve.sql.schema import schema
from tests.postgresql import Cluster
from tests.sql.conftest import Table


def test_it_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "postgresql", "--table", "app.mails"]) == 0
    assert capsys.readouterr().out == schema("postgresql", "app.mails")


def test_it_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "sockserve.sql", "schema", "sqlite"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == schema("sqlite")


def test_it_makes_a_table_and_adds_a_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new.db"
    url = f"sqlite:///{path}?table=mails"
    assert main(["create", url]) == 0
    assert main(["enqueue", url, "hello", "--priority", "3", "--delay", "9"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "mails/1"
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT payload, priority FROM mails").fetchall()
    connection.close()
    assert rows == [("hello", 3)]


def test_it_makes_a_table_on_a_server(cluster: Cluster) -> None:
    import psycopg

    assert main(["create", f"{cluster.url}&table=made"]) == 0
    with psycopg.connect(cluster.url) as connection:
        connection.execute("DROP TABLE made")


@pytest.mark.parametrize("limit", ["-1", "many", "1.5"])
def test_a_number_of_rows_that_is_none_is_told(
    table: Table, limit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dead", table.url, "--limit", limit]) == 1
    told = capsys.readouterr().err
    assert f"argument --limit: '{limit}' is not a number of rows" in told
    assert told.count("\n") == 1


def test_it_lists_and_requeues_what_was_set_aside(
    table: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    now = "1.0" if table.is_sqlite else "now()"
    table.execute(
        "INSERT INTO jobs (payload, attempts, dead_at, failure)"
        f" VALUES ('bad', 10, {now}, 'Traceback\n  ZeroDivisionError')"
    )
    assert main(["dead", table.url]) == 0
    first, *trace = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{table.name}/1: set aside at ")
    assert first.endswith(", attempt 10: bad")
    assert trace == ["    Traceback", "      ZeroDivisionError"]
    assert main(["requeue", table.url, "1"]) == 0
    assert main(["requeue", table.url]) == 0
    assert capsys.readouterr().out == "1 row requeued\n0 rows requeued\n"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://x/y", "is not sqlite:///PATH?table=NAME"),
        ("sqlite:///no/such/file.db", "no file 'no/such/file.db'"),
        ("postgresql://nobody:secret@/x?host=/no/such/folder", "No such file"),
    ],
)
def test_a_mistake_is_one_line(url: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dead", url]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert "secret" not in error
    assert error.startswith("sockserve.sql: ")
    assert error.count("\n") == 1


def test_a_table_that_is_not_there_is_told_with_what_makes_it(
    table: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    url = table.url.replace(f"table={table.name}", "table=nothing")
    for arguments in (["dead", url], ["requeue", url], ["enqueue", url, "x"]):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert "nothing" in error
        assert "; what makes the table: python -m sockserve.sql schema" in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "arguments are required: COMMAND"),
        (["list"], "invalid choice: 'list'"),
        (["schema", "mysql"], "invalid choice: 'mysql' (choose from"),
        (["requeue", "sqlite:///x.db", "one"], "argument id: invalid int value: 'one'"),
        (["enqueue", "sqlite:///x.db", "\udcff"], r"argument payload: '\udcff' is not UTF-8"),
        (["create", "sqlite:///a%00b.db"], "write sqlite:///PATH"),
    ],
)
def test_a_wrong_argument_is_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("sockserve.sql: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["enqueue", "x", "--delay", "inf"], "delay: inf seconds from now"),
        (["enqueue", "x", "--delay", "nan"], "delay: nan seconds from now"),
        (["enqueue", "x", "--delay", "1e20"], "delay: 1e+20 seconds from now"),
        (["enqueue", "x", "--priority", str(2**70)], "int too large"),
        (["requeue", str(2**70)], "int too large"),
    ],
)
def test_a_number_that_cannot_be_is_one_line(
    sqlite_table: Table, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *others = arguments
    assert main([name, sqlite_table.url, *others]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
