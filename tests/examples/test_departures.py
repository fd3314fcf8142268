"""The gateway of C{examples/departures}, its statistics log, and a backend that is killed."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection
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


def stop_backend(example: Example) -> int:
    """Have the backend answer nothing until it is continued; gives the id of its process."""
    pid = int((example.folder / "backend.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_many_clients_wait_for_one_call_of_a_backend(departures: Example) -> None:
    backend = stop_backend(departures)
    with ExitStack() as stack:
        clients = []
        for _ in range(20):
            client = HTTPConnection("127.0.0.1", departures.port, timeout=PATIENCE_SECONDS)
            clients.append(stack.enter_context(closing(client)))
            client.request("GET", "/kv55/57330430")
        assert get(departures, "/kv55/stop")[0] == 404  # so the others have been read, too
        os.kill(backend, signal.SIGCONT)
        responses = [client.getresponse() for client in clients]
        page = b'<departures stop="57330430" call="1"/>\n'
        assert {response.read() for response in responses} == {page}
    assert {response.status for response in responses} == {200}
    assert {response.headers["Content-Type"] for response in responses} == {"application/xml"}
    unknown, *requests = statistics(departures, 21)
    assert unknown["status"] == 404
    assert {request["target"] for request in requests} == {"/kv55/57330430"}
    for request in requests:
        phases = ["WEB_IN", "GOVI_OUT", "GOVI_IN", "WEB_OUT", "handle"]
        assert list(request["phases"]) == phases
        assert request["status"] == 200


def test_an_answer_is_kept_for_some_seconds(departures: Example) -> None:
    answers: list[str] = []
    give_up = time.monotonic() + PATIENCE_SECONDS
    # Until one has been given twice, and there has been another.
    while not 1 < len(set(answers)) < len(answers):
        assert time.monotonic() < give_up, answers
        answers.append(get(departures, "/kv55/1")[2])
    calls = list(dict.fromkeys(answers))
    expected = range(1, len(calls) + 1)
    assert calls == [f'<departures stop="1" call="{call}"/>\n' for call in expected]


def test_an_error_of_the_backend_is_told_and_not_kept(departures: Example) -> None:
    answers = [get(departures, "/kv55/0") for _ in range(2)]
    assert answers == [(502, "text/plain", "backend: 503 Service Unavailable\n")] * 2
    assert get(departures, "/kv55/1")[2] == '<departures stop="1" call="3"/>\n'


def test_a_backend_that_is_killed_is_told_and_written_down(departures: Example) -> None:
    backend = stop_backend(departures)
    with socket.create_connection(("127.0.0.1", departures.port), PATIENCE_SECONDS) as client:
        client.sendall(b"GET /kv55/3 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        departures.wait_for("ClientFactory#info] Starting")  # the call is under way
        os.kill(backend, signal.SIGKILL)
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
