"""The example receiver: results that many peers send at once, some of them twice or not at all."""

import json
import os
import socket
import sqlite3
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.error import HTTPError

import pytest

from tests.examples.running import PATIENCE_SECONDS, Example
from tests.postgresql import running_cluster

PAGE = "howto/use-with-django.md"
#: Of the peers that come at once, how many say nothing, or not all.
SILENT, SPEAKING = 50, 150


@pytest.fixture(params=["sqlite", "postgresql"])
def receiver(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Example]:
    """The example with its own database, or on a server."""
    with ExitStack() as stack:
        monkeypatch.delenv("PGHOST", raising=False)
        if request.param == "postgresql":
            cluster = stack.enter_context(running_cluster())
            monkeypatch.setenv("PGHOST", str(cluster.folder))
            monkeypatch.setenv("PGUSER", "tests")
        yield from started(tmp_path)


def started(tmp_path: Path) -> Iterator[Example]:
    example = Example(PAGE, tmp_path)
    try:
        example.wait_for(": serving ")
        yield example
    finally:
        example.end()


def form(data: str, field: str = "data") -> urllib.request.Request:
    """A request with a form, but for its address."""
    part = f'--b\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{data}\r\n--b--\r\n'
    about = {"Content-Type": "multipart/form-data; boundary=b"}
    return urllib.request.Request("http://localhost/", part.encode(), about)


def send(example: Example, request: urllib.request.Request) -> int:
    """Send a request; gives the status of the answer."""
    request.full_url = f"http://127.0.0.1:{example.port}/"
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            assert answer.headers["Content-type"] == "text/plain"
            assert answer.read() == b"OK"
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


def stored(example: Example) -> list[tuple[str, dict[str, object]]]:
    """The jobs and data that are in the database."""
    statement = "SELECT job, CAST(data AS text) FROM results_result"
    if "PGHOST" in os.environ:
        import psycopg

        with psycopg.connect(dbname="postgres") as server:
            rows = server.execute(statement).fetchall()
    else:
        with closing(sqlite3.connect(example.folder / "results.sqlite3")) as file:
            rows = file.execute(statement).fetchall()
    return [(job, json.loads(data)) for job, data in rows]


def test_a_result_is_stored_before_it_is_answered(receiver: Example) -> None:
    assert send(receiver, form('{"job": 7, "status": "ok"}')) == 200
    assert stored(receiver) == [("7", {"job": 7, "status": "ok"})]


def test_what_is_no_result_is_refused(receiver: Example) -> None:
    assert send(receiver, urllib.request.Request("http://localhost/")) == 404
    assert send(receiver, form('{"job": 7}', field="other")) == 404
    assert send(receiver, urllib.request.Request("http://localhost/", b"data=7")) == 404
    assert send(receiver, form("no JSON")) == 400
    assert send(receiver, form('{"job": 1, "value": NaN}')) == 400
    assert send(receiver, form("[" * 5000)) == 400
    assert stored(receiver) == []


def reason(example: Example, data: dict[str, object]) -> str:
    """Send what is refused; gives the reason."""
    request = form(json.dumps(data))
    request.full_url = f"http://127.0.0.1:{example.port}/"
    with pytest.raises(HTTPError) as refused, urllib.request.urlopen(request, timeout=30):
        pass
    with refused.value as answer:
        assert answer.code == 400
        return str(answer.reason)


def test_what_cannot_be_stored_is_refused_with_the_reason(receiver: Example) -> None:
    """Whatever the database: PostgreSQL takes less for JSON than SQLite does."""
    long = "job: Ensure this value has at most 100 characters (it has 101)."
    assert reason(receiver, {"job": "x" * 101}) == long
    assert reason(receiver, {"job": ""}) == "job: This field cannot be blank."
    assert reason(receiver, {"job": "a\0b"}) == "data: there is a NUL in it"
    assert reason(receiver, {"job": 1, "value": ["\\\0"]}) == "data: there is a NUL in it"
    assert reason(receiver, {"job": 1, "half": "\ud83d"}).startswith("data: 'utf-8' codec can't")
    assert send(receiver, form('{"job": 2, "value": 1e999}')) == 400
    assert stored(receiver) == []
    data = {"job": "1", "value": "\\u0000", "deep": json.loads("[" * 300 + "]" * 300)}
    assert send(receiver, form(json.dumps(data))) == 200
    assert stored(receiver) == [("1", data)], "which only looks like it"


def test_many_peers_at_once_lose_nothing_and_wait_for_nobody(receiver: Example) -> None:
    """200 peers, of which 50 stay silent; each of the others sends its result twice, at once."""
    where = ("127.0.0.1", receiver.port)
    silent = [socket.create_connection(where, PATIENCE_SECONDS) for _ in range(SILENT)]
    for peer in silent[::2]:
        peer.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n--b")
    jobs = [number for number in range(SPEAKING) for _ in range(2)]
    with ThreadPoolExecutor(SPEAKING) as pool:
        statuses = list(pool.map(lambda job: send(receiver, form(json.dumps({"job": job}))), jobs))
    for peer in silent:
        peer.close()
    assert statuses == [200] * (2 * SPEAKING)
    assert sorted(int(job) for job, _ in stored(receiver)) == list(range(SPEAKING))
    assert receiver.end() == 0


def test_a_result_under_way_is_stored_when_it_is_ended(receiver: Example) -> None:
    request = form('{"job": 8}')
    assert isinstance(request.data, bytes)
    with socket.create_connection(("127.0.0.1", receiver.port), PATIENCE_SECONDS) as peer:
        head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(request.data)}\r\n"
        kind = f"Content-Type: {request.get_header('Content-type')}\r\n\r\n"
        peer.sendall((head + kind).encode() + request.data)
        assert receiver.end() == 0
        assert peer.makefile().readline() == "HTTP/1.1 200 OK\n"
    assert stored(receiver) == [("8", {"job": 8})]
