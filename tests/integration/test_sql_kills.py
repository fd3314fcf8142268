"""Four processes on one table, killed now and then: no row is lost."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from sockserve.sql.schema import schema
from tests.postgresql import running_cluster

ROWS = 20_000
PROCESSES = 4
KILLS = 6
LEASE_SECONDS = 2

#: The most rows that one process holds: its places, a batch, and a batch ahead.
HELD = 100 + 100 + 100


@contextmanager
def postgresql_table() -> Iterator[tuple[str, Any]]:
    with running_cluster() as cluster:
        import psycopg

        with psycopg.connect(cluster.url, autocommit=True) as connection:
            connection.execute(schema("postgresql"))
            yield cluster.url, connection


@contextmanager
def sqlite_table() -> Iterator[tuple[str, Any]]:
    with TemporaryDirectory() as folder:
        path = f"{folder}/jobs.db"
        connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(schema("sqlite"))
        yield f"sqlite:///{path}?", connection
        connection.close()


@pytest.mark.parametrize("make_table", [postgresql_table, sqlite_table])
def test_every_row_is_served_though_processes_are_killed(
    make_table: Callable[[], AbstractContextManager[tuple[str, Any]]], tmp_path: Path
) -> None:
    logs: list[Path] = []

    def start(url: str) -> tuple[subprocess.Popen[bytes], Path]:
        logs.append(tmp_path / f"log-{len(logs)}")
        command = [sys.executable, "-m", "tests.sql.worker", url, str(logs[-1])]
        return subprocess.Popen(command, cwd=Path(__file__).parents[2]), logs[-1]

    with make_table() as (base, connection):
        numbers = ", ".join(f"({number})" for number in range(1, ROWS + 1))
        connection.execute(f"INSERT INTO jobs (payload) VALUES {numbers}")

        def left() -> int:
            return int(connection.execute("SELECT count(*) FROM jobs").fetchone()[0])

        url = f"{base}&table=jobs&lease={LEASE_SECONDS}"
        workers = [start(url) for _ in range(PROCESSES)]
        killed = set()
        try:
            for kill in range(1, KILLS + 1):
                _wait(lambda kill=kill: left() < ROWS * (1 - kill / (KILLS + 2)))
                worker, log = workers.pop(0)
                worker.kill()
                worker.wait()
                killed.add(log)
                workers.append(start(url))
            _wait(lambda: not left())
        finally:
            for worker, _ in workers:
                worker.send_signal(signal.SIGTERM)
            statuses = [worker.wait(30) for worker, _ in workers]
    # One that has just begun is ended by the signal, as any program is.
    assert {*statuses} <= {0, -signal.SIGTERM}

    served = {log: [int(line) for line in log.read_text().split()] for log in logs if log.exists()}
    times = Counter(number for seen in served.values() for number in seen)
    assert set(times) == set(range(1, ROWS + 1))
    # At least once: what was served twice was in the hands of a process that was killed.
    twice = {number for number, count in times.items() if count > 1}
    in_killed_hands = {number for log in killed for number in served.get(log, [])}
    assert twice <= in_killed_hands
    assert len(twice) <= KILLS * HELD


def _wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("rows are left")
        time.sleep(0.02)
