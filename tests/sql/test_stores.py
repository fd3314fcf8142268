"""What every store does: one contract, run on SQLite and on PostgreSQL."""

import sqlite3
import time
from collections.abc import Iterator

import pytest

from sockserve.sql.queue import dead_rows, enqueue, requeue
from sockserve.sql.rows import FailedRow, Row
from sockserve.sql.sqlite import SQLiteStore
from sockserve.sql.store import LeaseLost, Store, StoreError, Turn
from sockserve.sql.url import store_and_settings
from tests.sql.conftest import Table

LEASE = 30.0


@pytest.fixture
def store(table: Table) -> Iterator[Store]:
    store = table.store()
    store.open()
    yield store
    store.close()


def claim(store: Store, want: int = 10, **turn: object) -> list[Row]:
    return store.turn(Turn(LEASE, want, is_sweep=True, **turn)).rows  # type: ignore[arg-type]


def payloads(rows: list[Row]) -> list[object]:
    return [row.payload for row in rows]


def test_a_plain_insert_is_a_row(table: Table, store: Store) -> None:
    table.execute("INSERT INTO jobs (payload) VALUES ('hello')")
    (row,) = claim(store)
    assert (row.payload, row.attempts, row.priority) == ("hello", 1, 0)
    assert len(row.idempotency_key) >= 32


def test_enqueue_is_a_part_of_the_callers_transaction(table: Table, store: Store) -> None:
    connection = table.connect()
    enqueue(connection, "never", table=table.name)
    connection.rollback()
    number = enqueue(connection, "there", table=table.name, idempotency_key="mine")
    connection.commit()
    connection.close()
    (row,) = claim(store)
    assert (row.id, row.payload, row.idempotency_key) == (number, "there", "mine")


def test_a_claimed_row_is_nobody_elses(table: Table, store: Store) -> None:
    table.execute("INSERT INTO jobs (payload) VALUES ('a'), ('b'), ('c')")
    other = table.store()
    other.open()
    assert payloads(claim(store, 2)) == ["a", "b"]
    assert payloads(claim(other)) == ["c"]
    other.close()


def test_rows_come_by_priority_then_by_age(table: Table, store: Store) -> None:
    for payload, priority in (("a", 0), ("b", 5), ("c", -1), ("d", 5), ("e", 0)):
        table.execute("INSERT INTO jobs (payload, priority) VALUES (?, ?)", payload, priority)
    assert payloads(claim(store, 4)) == ["b", "d", "a", "e"]
    assert payloads(claim(store)) == ["c"]


def test_a_row_of_a_higher_priority_that_comes_later_is_next(table: Table, store: Store) -> None:
    table.execute("INSERT INTO jobs (payload) VALUES ('a'), ('b')")
    assert payloads(claim(store, 1)) == ["a"]
    table.execute("INSERT INTO jobs (payload, priority) VALUES ('urgent', 9)")
    assert payloads(claim(store)) == ["urgent", "b"]


def test_a_row_waits_until_it_is_due(table: Table, store: Store) -> None:
    enqueue(table.connection, "later", table=table.name, delay=60.0)
    claimed = store.turn(Turn(LEASE, 10, is_sweep=True))
    assert claimed.rows == []
    assert claimed.due_in == pytest.approx(60.0, abs=5.0)


def test_a_served_row_is_gone(table: Table, store: Store) -> None:
    table.execute("INSERT INTO jobs (payload) VALUES ('a'), ('b')")
    store.turn(Turn(LEASE, served=[row.id for row in claim(store)]))
    assert table.count() == 0


def test_a_failed_row_comes_back_after_its_delay(table: Table, store: Store) -> None:
    table.execute("INSERT INTO jobs (payload) VALUES ('a')")
    (row,) = claim(store)
    claimed = store.turn(Turn(LEASE, 10, failed=[FailedRow(row.id, 1, 60.0, "why")], is_sweep=True))
    assert claimed.rows == []
    assert claimed.due_in == pytest.approx(60.0, abs=5.0)
    assert table.execute("SELECT attempts, failure FROM jobs") == [(1, "why")]


def test_a_row_that_was_set_aside_is_listed_and_can_be_requeued(table: Table, store: Store) -> None:
    table.execute("INSERT INTO jobs (payload) VALUES ('a'), ('b')")
    rows = claim(store)
    store.turn(Turn(LEASE, failed=[FailedRow(row.id, 1, None, "a\0 trace") for row in rows]))
    assert claim(store) == []
    dead = dead_rows(table.connection, table=table.name)
    assert sorted(str(row.payload) for row in dead) == ["a", "b"]
    assert "trace" in dead[0].failure
    assert requeue(table.connection, [rows[0].id], table=table.name) == 1
    assert [(row.id, row.attempts) for row in claim(store)] == [(rows[0].id, 1)]
    assert requeue(table.connection, table=table.name) == 1
    assert requeue(table.connection, table=table.name) == 0


def test_a_row_whose_lease_has_expired_is_claimed_again(table: Table, store: Store) -> None:
    table.execute("INSERT INTO jobs (payload) VALUES ('a')")
    (before,) = claim(store)
    _expire(table)
    (after,) = claim(store, max_attempts=5)
    assert (after.id, after.attempts) == (before.id, 2)
    assert after.idempotency_key == before.idempotency_key


def test_a_row_whose_last_lease_has_expired_is_set_aside(table: Table, store: Store) -> None:
    table.execute("INSERT INTO jobs (payload) VALUES ('a')")
    claim(store)
    _expire(table)
    assert claim(store, max_attempts=1) == []
    (dead,) = dead_rows(table.connection, table=table.name)
    assert "lease expired" in dead.failure


def _expire(table: Table) -> None:
    past = "1.0" if table.is_sqlite else "now() - interval '1 hour'"
    table.execute(f"UPDATE jobs SET leased_until = {past} WHERE leased_until IS NOT NULL")


def test_a_lease_is_extended(table: Table, store: Store) -> None:
    table.execute("INSERT INTO jobs (payload) VALUES ('a')")
    rows = store.turn(Turn(0.001, 10, is_sweep=True)).rows
    store.turn(Turn(LEASE, held=rows))
    assert claim(store) == []


def test_a_released_row_is_as_if_it_had_never_been_claimed(table: Table, store: Store) -> None:
    table.execute("INSERT INTO jobs (payload) VALUES ('a')")
    store.turn(Turn(LEASE, released=claim(store)))
    assert [row.attempts for row in claim(store)] == [1]


def test_one_who_has_lost_a_lease_does_no_harm(table: Table, store: Store) -> None:
    """Its row is another's: it can neither fail, nor extend nor release it."""
    table.execute("INSERT INTO jobs (payload) VALUES ('a')")
    (late,) = claim(store)
    _expire(table)
    (row,) = claim(store, max_attempts=5)
    store.turn(Turn(LEASE, failed=[FailedRow(late.id, late.attempts, 0.0, "late")]))
    store.turn(Turn(0.0, held=[late], released=[late]))
    assert claim(store, max_attempts=5) == []
    with pytest.raises(LeaseLost), store.transaction(late):
        pass
    with store.transaction(row):
        pass
    assert table.count() == 0


def test_a_transaction_removes_the_row_with_what_its_handler_does(
    table: Table, store: Store
) -> None:
    done = f"done{table.name.removeprefix('jobs')}"
    table.execute(f"CREATE TABLE {done} (payload text)")
    table.execute("INSERT INTO jobs (payload) VALUES ('a'), ('b')")
    first, second = claim(store)
    with store.transaction(first) as connection:
        connection.execute(f"INSERT INTO {done} VALUES ('a')")
    with pytest.raises(ZeroDivisionError), store.transaction(second) as connection:  # noqa: PT012
        connection.execute(f"INSERT INTO {done} VALUES ('b')")
        raise ZeroDivisionError
    assert table.execute(f"SELECT payload FROM {done}") == [("a",)]
    assert table.execute("SELECT payload FROM jobs") == [("b",)]


def test_a_table_that_is_not_there_is_told_with_what_makes_it(table: Table) -> None:
    url = table.url.replace(f"table={table.name}", "table=nothing")
    store, _ = store_and_settings(url)
    with pytest.raises(StoreError, match=r"nothing.*python -m sockserve\.sql schema"):
        store.open()


def test_a_column_that_is_not_there_is_told(table: Table) -> None:
    table.execute("ALTER TABLE jobs DROP COLUMN failure")
    with pytest.raises(StoreError, match="failure"):
        table.store().open()


def test_the_table_can_be_made_again(table: Table) -> None:
    table.execute("INSERT INTO jobs (payload) VALUES ('a')")
    table.store().create()
    assert table.count() == 1


def test_a_programs_connection_commits_at_its_end_and_tells_of_errors(table: Table) -> None:
    store = table.store()
    with store.connected() as connection:
        enqueue(connection, "there", table=table.name)
    with pytest.raises(ZeroDivisionError), store.connected() as connection:  # noqa: PT012
        enqueue(connection, "never", table=table.name)
        raise ZeroDivisionError
    with pytest.raises(StoreError, match="nothing"), store.connected() as connection:
        connection.execute("SELECT nothing")
    assert table.execute("SELECT payload FROM jobs") == [("there",)]


def test_rows_of_all_priorities_are_claimed_between_others_that_are_not_due(
    table: Table, store: Store
) -> None:
    """Each priority's first row, due or not, says where its claims begin."""
    for priority, delay in ((3, 60.0), (3, -5.0), (0, 60.0), (-2, -9.0), (-2, 60.0)):
        enqueue(table.connection, str(priority), table=table.name, priority=priority, delay=delay)
    assert payloads(claim(store)) == ["3", "-2"]
    enqueue(table.connection, "0", table=table.name, delay=-1.0)
    assert payloads(claim(store)) == ["0"]


def test_a_lease_begins_when_the_database_is_free(sqlite_table: Table) -> None:
    """The time is taken within the transaction: it may have been waited for as long as a lease."""
    asked: list[bool] = []

    def seconds() -> float:
        try:
            sqlite_table.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            asked.append(True)
        return time.time()

    sqlite_table.connection.execute("PRAGMA busy_timeout = 0")
    store = SQLiteStore(sqlite_table.path, seconds=seconds)
    store.open()
    store.turn(Turn(LEASE, 1))
    store.close()
    assert asked == [True]
