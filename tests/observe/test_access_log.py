"""The access log: its two forms, and the file it goes to."""

import json
import os
import re
import signal
import sys
from contextlib import contextmanager

import pytest

from sockserve import ConfigurationError
from sockserve.core.statistics import HTTPRequestRecord, RequestRecord
from sockserve.observe.access_log import LOG_FORMATS, AccessLog

#: 17 July 2026, 10:20:30.5 UTC
WHEN = 1784283630.5


class AtOnce:
    """A reactor that does not wait for its turn."""

    def callFromThread(self, function):
        function()


def record(**given):
    given = {"peer": ("192.0.2.7", 5300), "handler": "Echo", **given}
    return RequestRecord(**given)


def line(log_format, **given):
    return formatted(log_format, record(**given))


def formatted(log_format, ended):
    event = {"record": ended, "listener": "tcp:7000", "log_time": WHEN}
    return LOG_FORMATS[log_format](event)


def http_line(log_format, **given):
    defaults = {
        "peer": ("192.0.2.7", 5300),
        "handler": "Hello",
        "sent": 13,
        "request_line": "GET / HTTP/1.1",
        "status": 200,
    }
    return formatted(log_format, HTTPRequestRecord(**defaults | given))


@contextmanager
def running(*logs):
    """Run access logs as an application does, and stop them in reverse."""
    before = signal.getsignal(signal.SIGUSR1)
    for log in logs:
        log.privilegedStartService()
    for log in logs:
        log.startService()
    try:
        yield
    finally:
        for log in reversed(logs):
            log.stopService()
    assert signal.getsignal(signal.SIGUSR1) == before


# The line


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"received": 5, "sent": 7, "phases": {"queue": 0.25, "handle": 1.5}},
            '192.0.2.7:5300 - - [17/Jul/2026:10:20:30 +0000] Echo "ok" 5 7'
            " queue=0.250000 handle=1.500000\n",
        ),
        (
            {"received": None, "sent": None, "outcome": "expired: idle"},
            '192.0.2.7:5300 - - [17/Jul/2026:10:20:30 +0000] Echo "expired: idle" - -\n',
        ),
        (
            {"peer": ("2001:db8::1", 5300, 0, 0)},
            '[2001:db8::1]:5300 - - [17/Jul/2026:10:20:30 +0000] Echo "ok" 0 0\n',
        ),
    ],
)
def test_combined(given, expected):
    assert line("combined", **given) == expected


def test_json():
    text = line("json", received=5, sent=None, phases={"handle": 1.23456789}, outcome="lost")
    assert text.endswith("}\n")
    assert text.count("\n") == 1
    assert json.loads(text) == {
        "time": "2026-07-17T10:20:30.500000+00:00",
        "listener": "tcp:7000",
        "peer": "192.0.2.7:5300",
        "handler": "Echo",
        "outcome": "lost",
        "reason": None,
        "received": 5,
        "sent": None,
        "phases": {"handle": 1.234568},
    }


@pytest.mark.parametrize("log_format", LOG_FORMATS)
@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("/run/client", "/run/client"),
        (b"\0abstract", r"b'\x00abstract'"),
        ("", "-"),
        (None, "-"),
        ("two\nlines", None),
    ],
)
def test_a_unix_client_is_one_word_on_one_line(log_format, peer, expected):
    text = line(log_format, peer=peer)
    assert text.count("\n") == 1
    if expected is not None:
        shown = json.loads(text)["peer"] if log_format == "json" else text.split(" - - ")[0]
        assert shown == expected


# The line of an HTTP request


@pytest.mark.parametrize(
    ("given", "client", "expected"),
    [
        ({}, "192.0.2.7", '"GET / HTTP/1.1" 200 13 "-" "-"'),
        (
            {"referer": "http://x.example/", "user_agent": "curl/8.1"},
            "192.0.2.7",
            '"GET / HTTP/1.1" 200 13 "http://x.example/" "curl/8.1"',
        ),
        ({"sent": 0, "status": 304}, "192.0.2.7", '"GET / HTTP/1.1" 304 - "-" "-"'),
        (  # nothing was answered, and the system does not tell what was sent
            {"request_line": "-", "status": 0, "sent": None},
            "192.0.2.7",
            '"-" - - "-" "-"',
        ),
        ({"peer": ("2001:db8::1", 5300, 0, 0)}, "2001:db8::1", '"GET / HTTP/1.1" 200 13 "-" "-"'),
        ({"peer": ""}, "-", '"GET / HTTP/1.1" 200 13 "-" "-"'),
    ],
)
def test_of_an_http_request_it_is_apaches(given, client, expected):
    assert (
        http_line("combined", **given) == f"{client} - - [17/Jul/2026:10:20:30 +0000] {expected}\n"
    )


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ('a" 200 1 "-" "-', r"a\" 200 1 \"-\" \"-"),
        ("a\\", r"a\\"),
        ("a\nb\r\t\x1b[2J\x7f\0", r"a\x0ab\x0d\x09\x1b[2J\x7f\x00"),
        ("caf\xe9 \x85", r"caf\xe9 \x85"),
    ],
)
@pytest.mark.parametrize("field", ["request_line", "referer", "user_agent"])
def test_no_client_forges_a_line(field, said, shown):
    text = http_line("combined", **{field: said})
    assert f'"{shown}"' in text
    assert text.count("\n") == 1
    assert text.isascii()
    # What is between quotation marks that are not escaped: three strings, whatever was said.
    assert len(re.findall(r'"(?:[^"\\]|\\.)*"', text)) == 3
    assert http_line("json", **{field: said}).count("\n") == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"referer": 'x"y', "user_agent": "curl/8.1", "received": 3, "phases": {"handle": 0.5}},
            {
                "method": "GET",
                "target": "/",
                "protocol": "HTTP/1.1",
                "status": 200,
                "referer": 'x"y',
                "user_agent": "curl/8.1",
                "received": 3,
                "sent": 13,
                "phases": {"handle": 0.5},
            },
        ),
        (
            {"request_line": "GET /old", "status": 200},
            {"method": "GET", "target": "/old", "protocol": None},
        ),
        (
            {"request_line": "-", "status": 408, "outcome": "expired: header"},
            {
                "method": None,
                "target": None,
                "protocol": None,
                "status": 408,
                "referer": None,
                "user_agent": None,
                "outcome": "expired: header",
            },
        ),
        ({"status": 0}, {"status": None}),
    ],
)
def test_json_of_an_http_request(given, expected):
    shown = json.loads(http_line("json", **given))
    assert {name: shown[name] for name in expected} == expected
    assert {"time", "listener", "peer", "handler", "outcome"} < set(shown)


# The file


def test_lines_are_there_as_soon_as_the_request_is_over(tmp_path):
    path = tmp_path / "access.log"
    log = AccessLog(AtOnce(), str(path))
    with running(log):
        log.observer("tcp:7000")(record())
        assert path.read_text().startswith("192.0.2.7:5300 - - [")
        log.observer("tcp:7000")(record(peer=("192.0.2.8", 1)))
        assert len(path.read_text().splitlines()) == 2


def test_what_the_file_held_stays(tmp_path):
    path = tmp_path / "access.log"
    path.write_text("before\n")
    log = AccessLog(AtOnce(), str(path))
    with running(log):
        log.observer("x")(record())
    assert path.read_text().startswith("before\n192.0.2.7")


@pytest.mark.usefixtures("no_leaks")
def test_stopped_it_writes_nothing_and_started_again_it_does(tmp_path):
    path = tmp_path / "access.log"
    log = AccessLog(AtOnce(), str(path))
    observe = log.observer("x")
    observe(record())
    with running(log):
        observe(record())
    observe(record())
    assert len(path.read_text().splitlines()) == 1
    with running(log):
        observe(record())
    assert len(path.read_text().splitlines()) == 2


def test_standard_output(tmp_path, capfd):
    log = AccessLog(AtOnce(), "-", "json")
    with running(log):
        log.observer("tcp:7000")(record())
        assert json.loads(capfd.readouterr().out)["listener"] == "tcp:7000"
        log.reopen()
        log.observer("tcp:7000")(record())
    assert not sys.__stdout__.closed


# Rotation


def test_sigusr1_reopens(tmp_path):
    path, rotated = tmp_path / "access.log", tmp_path / "access.log.1"
    log = AccessLog(AtOnce(), str(path))
    with running(log):
        log.observer("x")(record(handler="Before"))
        path.rename(rotated)
        log.observer("x")(record(handler="Between"))
        os.kill(os.getpid(), signal.SIGUSR1)
        log.observer("x")(record(handler="After"))
    assert [line.split()[5] for line in rotated.read_text().splitlines()] == ["Before", "Between"]
    assert [line.split()[5] for line in path.read_text().splitlines()] == ["After"]


def test_sigusr1_reopens_all_of_several_and_calls_who_listened_before(tmp_path):
    paths = [tmp_path / name for name in "ab"]
    logs = [AccessLog(AtOnce(), str(path)) for path in paths]
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        with running(*logs):
            for path in paths:
                path.unlink()
            os.kill(os.getpid(), signal.SIGUSR1)
            assert all(path.exists() for path in paths)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1]


def test_a_rotation_that_cannot_be_does_not_end_the_program(tmp_path, error_events):
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "access.log"
    log = AccessLog(AtOnce(), str(path))
    with running(log):
        log.observer("x")(record(handler="Before"))
        folder.rename(tmp_path / "moved")
        os.kill(os.getpid(), signal.SIGUSR1)
        log.observer("x")(record(handler="After"))
    (event,) = error_events
    assert str(path) in event
    written = (tmp_path / "moved" / "access.log").read_text()
    assert [line.split()[5] for line in written.splitlines()] == ["Before", "After"]


@pytest.fixture
def error_events():
    """What is logged as an error meanwhile."""
    from twisted.logger import LogLevel, formatEvent, globalLogPublisher

    events = []

    def observe(event):
        if event["log_level"] >= LogLevel.error:
            events.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


@pytest.mark.parametrize(
    ("name", "reason"), [("", "Is a directory"), ("no/such.log", "No such file or directory")]
)
def test_a_file_that_cannot_be_written_is_named(tmp_path, name, reason):
    path = str(tmp_path / name)
    with pytest.raises(ConfigurationError) as caught:
        AccessLog(AtOnce(), path)
    assert str(caught.value) == f"access-log {path!r}: {reason}"
