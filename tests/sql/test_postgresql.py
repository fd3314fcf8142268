"""What only PostgreSQL's store does: it walks over nothing twice."""

import select
from pathlib import Path

import psycopg
import pytest

from sockserve.sql import dead_rows, enqueue, requeue, schema
from sockserve.sql.postgresql import PostgreSQLStore
from sockserve.sql.rows import FailedRow
from sockserve.sql.store import StoreError, Turn
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
    while not read:
        table.execute("SELECT pg_stat_force_next_flush()")
        ((read,),) = table.execute(
            "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'jobs_ready'"
        )
    assert ROWS <= read < 2 * ROWS


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
