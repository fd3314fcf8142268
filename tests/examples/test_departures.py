"""The gateway of C{examples/departures}, its statistics log, and a backend that is killed."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.examples.running import PATIENCE_SECONDS, Example


@pytest.fixture
def departures(tmp_path: Path) -> Iterator[Example]:
    example = Example("howto/answer-for-a-backend.md", tmp_path)
    try:
        example.wait_for(": serving ", times=2)
        yield example
    finally:
        example.end()


def get(example: Example, path: str) -> tuple[int, str, str]:
    """The status, type and body of an answer."""
    try:
        with urlopen(f"http://127.0.0.1:{example.port}{path}", timeout=PATIENCE_SECONDS) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def statistics(example: Example, count: int) -> list[dict[str, Any]]:
    """The objects of the statistics log, once there are so many."""
    log = example.folder / "stats.log"
    give_up = time.monotonic() + PATIENCE_SECONDS
    while len(lines := log.read_text().splitlines()) < count:
        assert time.monotonic() < give_up, lines
        time.sleep(0.02)
    assert len(lines) == count
    return [json.loads(line) for line in lines]


def test_many_clients_wait_for_one_call_of_a_backend(departures: Example) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: get(departures, "/kv55/57330430"), range(20)))
    page = '<departures stop="57330430" call="1"/>\n'
    assert set(answers) == {(200, "application/xml", page)}
    requests = statistics(departures, 20)
    assert {request["target"] for request in requests} == {"/kv55/57330430"}
    for request in requests:
        phases = ["WEB_IN", "GOVI_OUT", "GOVI_IN", "WEB_OUT", "handle"]
        assert list(request["phases"]) == phases
        assert request["status"] == 200


def test_an_answer_is_kept_for_some_seconds(departures: Example) -> None:
    calls = []
    give_up = time.monotonic() + PATIENCE_SECONDS
    while (not calls or calls[-1] == calls[0]) and time.monotonic() < give_up:
        calls.append(get(departures, "/kv55/1")[2])
    assert sorted(set(calls)) == [f'<departures stop="1" call="{call}"/>\n' for call in (1, 2)]
    assert calls.count(calls[0]) > 1


def test_an_error_of_the_backend_is_told_and_not_kept(departures: Example) -> None:
    answers = [get(departures, "/kv55/0") for _ in range(2)]
    assert answers == [(502, "text/plain", "backend: 503 Service Unavailable\n")] * 2
    assert get(departures, "/kv55/1")[2] == '<departures stop="1" call="3"/>\n'


def test_a_backend_that_is_killed_is_told_and_written_down(departures: Example) -> None:
    with socket.create_connection(("127.0.0.1", departures.port), PATIENCE_SECONDS) as client:
        client.sendall(b"GET /kv55/3 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        departures.wait_for("ClientFactory#info] Starting")  # the call is under way
        os.kill(int((departures.folder / "backend.pid").read_text()), signal.SIGKILL)
        assert client.recv(100).startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert get(departures, "/kv55/4")[0] == 502
    assert get(departures, "/kv55/stop")[0] == 404
    cut, refused, unknown = statistics(departures, 3)
    assert [cut["status"], refused["status"], unknown["status"]] == [502, 502, 404]
    assert {"WEB_IN", "GOVI_OUT", "GOVI_IN"} < set(cut["phases"])
    assert departures.end() == 0


def test_a_request_that_is_under_way_is_answered_when_the_example_ends(
    departures: Example,
) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(get, departures, "/kv55/5")
        # Its call of the backend has begun; the gateway is told to end before the backend is.
        departures.wait_for("Starting factory")
        departures.end()
        assert answer.result()[::2] == (200, '<departures stop="5" call="1"/>\n')
    # The second is told when the first has ended, and once.
    _, first, second = departures.said.split("Received SIGTERM")
    assert "Server Shut Down" in first
    assert "again" not in second
