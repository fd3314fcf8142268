"""Rows served by C{twistd}: what it says at the start, and mistakes in one line."""

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sockserve.sql import enqueue
from sockserve.sql.schema import schema

HANDLERS = """
from sockserve import BaseRequestHandler

class Note(BaseRequestHandler):
    def handle(self):
        with open("seen", "a") as file:
            print(self.request.payload, file=file)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.py").write_text(HANDLERS)
    connection = sqlite3.connect(tmp_path / "jobs.db")
    connection.executescript(schema("sqlite"))
    connection.execute("CREATE TABLE narrow (id INTEGER PRIMARY KEY, payload)")
    connection.close()
    return tmp_path


def twistd(folder: Path, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "sockserve", *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_serves_rows_and_drains(folder: Path) -> None:
    process = twistd(folder, "--source", "sqlite:///jobs.db?table=jobs", "-H", "rows:Note")
    connection = sqlite3.connect(folder / "jobs.db")
    for payload in "abc":
        enqueue(connection, payload)
    connection.commit()
    give_up = time.monotonic() + 20
    while connection.execute("SELECT count(*) FROM jobs").fetchone() != (0,):
        assert time.monotonic() < give_up
        time.sleep(0.02)
    connection.close()
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM, errors
    assert "Note: serving sqlite:///jobs.db?table=jobs" in output
    assert sorted((folder / "seen").read_text().split()) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--source", "sqlite:///jobs.db?table=nothing"], "no such table: nothing"),
        (["--source", "sqlite:///jobs.db?table=narrow"], "no such column"),
        (["--source", "sqlite:///none.db"], "no file 'none.db'"),
        (["--source", "sqlite:///rows.py"], "not a database"),
        (["--source", "sqlit:///jobs.db"], "sqlite:///PATH"),
        (["--source", "postgresql://u:secret@127.0.0.1:1/x"], "refused"),
        (["--source", "sqlite:///jobs.db", "--listen", "tcp:0"], "listen: does not go with"),
    ],
)
def test_a_mistake_is_one_line_and_the_end(folder: Path, options: list[str], words: str) -> None:
    process = twistd(folder, "--handler", "rows:Note", *options)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.count("\n") == 1
    assert errors.startswith("sockserve: ")
    assert words in errors
    assert "secret" not in errors
    assert "Traceback" not in errors


def test_check_says_what_would_run(folder: Path) -> None:
    process = twistd(folder, "--check", "--source", "sqlite:///jobs.db", "--handler", "rows:Note")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert output.splitlines()[0] == "source sqlite:///jobs.db?table=jobs: Note on threads"
