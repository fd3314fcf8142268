"""What only PostgreSQL's store does: it walks over nothing twice."""

import errno
import os
import select
from pathlib import Path

import psycopg
import pytest

from sockserve.sql import dead_rows, enqueue, requeue, schema
from sockserve.sql.postgresql import PostgreSQLStore
from sockserve.sql.rows import FailedRow
from sockserve.sql.store import StoreAway, StoreError, Turn
from sockserve.sql.url import store_and_settings
from tests.postgresql import Cluster
from tests.sql.conftest import Table

ROWS = 3000
BATCH = 30


def test_claims_do_not_walk_over_what_an_open_transaction_keeps(postgresql_table: Table) -> None:
    """
    100 claims of 30 rows, none of which can be vacuumed after it was served.  Begun at the index'
    head, they would read 100 * 3000 / 2 = 150,000 entries of it; each once, 3,000.
    """
    table = postgresql_table
    table.execute(f"INSERT INTO jobs (payload) SELECT i FROM generate_series(1, {ROWS}) i")
    store = table.store()
    store.open()
    with psycopg.connect(table.url.rpartition("&")[0]) as elsewhere:
        elsewhere.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        elsewhere.execute("SELECT 1")
        served: list[int] = []
        for number in range(ROWS // BATCH):
            turn = Turn(30.0, BATCH, served=served, is_sweep=not number)
            served = [row.id for row in store.turn(turn).rows]
            assert len(served) == BATCH
        store.turn(Turn(30.0, served=served))
    store.close()  # what it has counted is told with its end
    read = 0
    while read < ROWS:  # it may have told a part before
        table.execute("SELECT pg_stat_force_next_flush()")
        ((read,),) = table.execute(
            "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'jobs_ready'"
        )
    assert read < 2 * ROWS


@pytest.mark.parametrize("hint", ["", "nonsense", "2026-01-01 00:00:00.0 x", "infinity 0"])
def test_a_hint_that_says_nothing_leads_to_a_sweep(postgresql_table: Table, hint: str) -> None:
    store = postgresql_table.store()
    store.open()
    store.turn(Turn(30.0, 10))
    postgresql_table.execute(
        "INSERT INTO jobs (payload, due_at) VALUES ('x', now() - interval '1 day')"
    )
    claimed = store.turn(Turn(30.0, 10, hints=[hint]))
    assert [row.payload for row in claimed.rows] == ["x"]
    store.close()


def test_a_hint_leads_back_to_where_a_row_came_in(postgresql_table: Table) -> None:
    """A transaction that began before the last claim is committed after it."""
    table = postgresql_table
    store = table.store()
    store.open()
    subscription = store.subscribe()
    assert subscription is not None
    with psycopg.connect(table.url.rpartition("&")[0]) as early:
        early.execute(f"INSERT INTO {table.name} (payload, priority) VALUES ('early', 3)")
        table.execute("INSERT INTO jobs (payload) VALUES ('late')")
        assert [row.payload for row in store.turn(Turn(30.0, 10)).rows] == ["late"]
        assert store.turn(Turn(30.0, 10)).rows == []
        early.commit()
    hints: list[str] = []
    while len(hints) < 2:  # one for each transaction
        select.select([subscription], [], [], 10)
        hints += subscription.take()
    assert [row.payload for row in store.turn(Turn(30.0, 10, hints=hints)).rows] == ["early"]
    subscription.close()
    store.close()


def test_without_a_descriptor_nothing_listens(
    postgresql_table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(descriptor: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "dup", none_left)
    with pytest.raises(StoreAway, match="Too many open files"):
        postgresql_table.store().subscribe()
    listening = 1
    while listening:  # a connection that is closed ends a moment later
        ((listening,),) = postgresql_table.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%%'"
        )


def test_an_old_server_is_refused(postgresql_table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg.ConnectionInfo, "server_version", 140012)
    with pytest.raises(StoreError, match="PostgreSQL 14; it is to be 15 or newer"):
        postgresql_table.store().open()


def test_no_password_is_told(tmp_path: Path) -> None:
    store = PostgreSQLStore(f"postgresql://me:secret@/db?host={tmp_path}")
    assert "secret" not in store.description
    with pytest.raises(StoreError) as caught:
        store.open()
    assert "secret" not in str(caught.value)


def test_a_table_may_have_a_schema_and_a_name_that_is_a_word_of_sql(cluster: Cluster) -> None:
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA app")
        connection.execute(schema("postgresql", "app.Order"))
        number = enqueue(connection, "x", table="app.Order", priority=2)
        store = PostgreSQLStore(cluster.url, "app.Order")
        store.open()
        (row,) = store.turn(Turn(30.0, 10, is_sweep=True)).rows
        store.turn(Turn(30.0, held=[row], failed=[FailedRow(row.id, 1, None, "why")]))
        assert [dead.id for dead in dead_rows(connection, table="app.Order")] == [number]
        assert requeue(connection, table="app.Order") == 1
        (row,) = store.turn(Turn(30.0, 10, is_sweep=True)).rows
        with store.transaction(row):
            pass
        store.close()
        connection.execute("DROP SCHEMA app CASCADE")


def test_other_tables_than_plain_ones_are_refused(postgresql_table: Table) -> None:
    """The place of a row (ctid) is no place of theirs, or not of one part alone."""
    table = postgresql_table
    url = table.url.rpartition("=")[0]
    table.execute("CREATE VIEW jobs_view AS SELECT * FROM jobs")
    table.execute("CREATE TABLE jobs_parts (LIKE jobs INCLUDING DEFAULTS) PARTITION BY LIST (id)")
    for other in (f"{table.name}_view", f"{table.name}_parts"):
        with pytest.raises(StoreError, match=f"^{other} is a view, or a table in parts"):
            store_and_settings(f"{url}={other}")[0].open()
    for statement in ("DROP VIEW jobs_view", "DROP TABLE jobs_parts"):
        table.execute(statement)


def test_a_table_that_may_only_be_read_is_told_at_the_start(postgresql_table: Table) -> None:
    table = postgresql_table
    table.execute("CREATE ROLE jobs_reader LOGIN")
    table.execute("GRANT SELECT ON jobs TO jobs_reader")
    store, _ = store_and_settings(table.url.replace("tests@", f"{table.name}_reader@"))
    with pytest.raises(StoreError, match=f"^permission denied for table {table.name}$"):
        store.open()
    table.execute("DROP OWNED BY jobs_reader")
    table.execute("DROP ROLE jobs_reader")


def test_claims_are_made_whatever_a_roles_transactions_are_like(postgresql_table: Table) -> None:
    """Two that claim at once would be in each other's way: could not serialize access."""
    table = postgresql_table
    table.execute("CREATE ROLE jobs_strict LOGIN SUPERUSER")
    table.execute("ALTER ROLE jobs_strict SET default_transaction_isolation = 'serializable'")
    table.execute("INSERT INTO jobs (payload) VALUES ('a'), ('b')")
    url = table.url.replace("tests@", f"{table.name}_strict@")
    store, _ = store_and_settings(f"{url}&options=-c%20statement_timeout%3D99s")
    store.open()
    settings = "SELECT current_setting(%s)"
    with store.connected() as connection:  # a program's own is as it says
        for name, value in (
            ("default_transaction_isolation", "serializable"),
            ("statement_timeout", "99s"),
        ):
            assert connection.execute(settings, (name,)).fetchall() == [(value,)]
    with psycopg.connect(table.url.rpartition("&")[0]) as other:
        other.execute(f"UPDATE {table.name} SET leased_until = now() WHERE payload = 'a'")
        assert [row.payload for row in store.turn(Turn(30.0, 1, is_sweep=True)).rows] == ["b"]
    store.close()
    table.execute("DROP ROLE jobs_strict")


def test_a_traceback_is_kept_in_a_database_that_has_not_all_letters(cluster: Cluster) -> None:
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    store, _ = store_and_settings(cluster.url.replace("/postgres?", "/latin?"))
    store.create()
    with store.connected() as program:
        number = enqueue(program, "caf\xe9")
    store.open()
    (row,) = store.turn(Turn(30.0, 10, is_sweep=True)).rows
    assert row.payload == "caf\xe9"
    store.turn(Turn(30.0, failed=[FailedRow(number, 1, None, "5 \u20ac for caf\xe9")]))
    with store.connected() as program:
        (dead,) = dead_rows(program)
    assert dead.failure == r"5 \u20ac for caf\xe9"
    store.close()
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute("DROP DATABASE latin")
