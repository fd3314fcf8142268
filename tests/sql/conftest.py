"""Tables for tests: in a file of SQLite's, and on a PostgreSQL server that all tests share."""

import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from sockserve.sql.schema import schema
from sockserve.sql.store import Store
from sockserve.sql.url import store_and_settings
from tests.postgresql import Cluster, running_cluster

_numbers = itertools.count(1)


@attrs.define
class Table:
    """
    A table of one test.

    @ivar connection: commits each statement.
    """

    url: str
    name: str
    connection: Any

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    def execute(self, statement: str, *parameters: object) -> list[Any]:
        if not self.is_sqlite:
            statement = statement.replace("?", "%s")
        cursor = self.connection.execute(statement.replace("jobs", self.name), parameters)
        return cursor.fetchall() if cursor.description else []

    @property
    def path(self) -> str:
        """The file of one of SQLite's."""
        return self.url.removeprefix("sqlite:///").partition("?")[0]

    def count(self) -> int:
        return int(self.execute("SELECT count(*) FROM jobs")[0][0])

    def connect(self) -> Any:
        """A further connection, in whose transactions statements are."""
        if self.is_sqlite:
            return sqlite3.connect(self.path)
        import psycopg

        return psycopg.connect(self.url.rpartition("&")[0])

    def store(self) -> Store:
        return store_and_settings(self.url)[0]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as running:
        yield running


@pytest.fixture
def sqlite_table(tmp_path: Path) -> Iterator[Table]:
    path = tmp_path / "jobs.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(schema("sqlite"))
    yield Table(f"sqlite:///{path}?table=jobs", "jobs", connection)
    connection.close()


@pytest.fixture
def postgresql_table(cluster: Cluster) -> Iterator[Table]:
    import psycopg

    name = f"jobs_{next(_numbers)}"
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute(schema("postgresql", name))
        yield Table(f"{cluster.url}&table={name}", name, connection)
        connection.execute(f"DROP TABLE {name}")


@pytest.fixture(params=["sqlite", "postgresql"])
def table(request: pytest.FixtureRequest) -> Table:
    chosen: Table = request.getfixturevalue(f"{request.param}_table")
    return chosen
