"""What the command shows on a terminal: requests, and the log."""

import io

import pytest
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from sockserve.core.logs import Topic
from sockserve.core.statistics import HTTPRequestRecord, RequestRecord
from sockserve.observe.terminal import Terminal

PHASES = {"handshake": 9.0, "queue": 0.001, "handle": 0.002, "write": 0.0005}


class Screen(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(record: RequestRecord, stream: io.StringIO | None = None, **environ: str) -> str:
    stream = stream or io.StringIO()
    Terminal(stream, environ).request_ended(record)
    return stream.getvalue()


def http(line: str = "GET /a?b HTTP/1.1", status: int = 200, **more: object) -> HTTPRequestRecord:
    settings = {"phases": PHASES, "sent": 13, "request_line": line, "status": status, **more}
    return HTTPRequestRecord(("192.0.2.1", 5), "Page", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (http(), "GET /a?b  200  13 B  3.5 ms"),
        (http(status=0, outcome="lost"), "GET /a?b  -  13 B  3.5 ms  lost"),
        (http(sent=2048), "GET /a?b  200  2.0 KiB  3.5 ms"),
        (http(sent=1_000_000), "GET /a?b  200  976.6 KiB  3.5 ms"),
        (http(sent=1_048_000), "GET /a?b  200  1.0 MiB  3.5 ms"),
        (http(sent=5 * 2**40), "GET /a?b  200  5.0 TiB  3.5 ms"),
        (http(sent=None), "GET /a?b  200  -  3.5 ms"),
        (http(phases={"handle": 0.25}), "GET /a?b  200  13 B  250 ms"),
        (http(phases={"handle": 2.25}), "GET /a?b  200  13 B  2.2 s"),
        (http(phases={}), "GET /a?b  200  13 B  0.0 ms"),
        (http("", 400, outcome="error", reason="no head"), "-  400  13 B  3.5 ms  error  no head"),
        (
            http("-", 408, outcome="expired: body", reason="late"),
            "-  408  13 B  3.5 ms  expired: body",
        ),
        (http("GET /\x1b[2J\u202e HTTP/1.1"), "GET /\\x1b[2J\\u202e  200  13 B  3.5 ms"),
        (http(f"GET /{'x' * 500} HTTP/1.1"), f"GET /{'x' * 195}  200  13 B  3.5 ms"),
        (
            RequestRecord(("192.0.2.1", 5), "Echo", PHASES, 1, 2),
            "Echo 192.0.2.1:5  ok  1 B in, 2 B out  3.5 ms",
        ),
        (
            RequestRecord("", "Echo", PHASES, None, 2, "expired: idle"),
            "Echo -  expired: idle  - in, 2 B out  3.5 ms",
        ),
    ],
)
def test_a_request_is_a_line(record: RequestRecord, line: str) -> None:
    """Its time is from queue to write, 1 + 2 + 0.5 ms: the handshake is the connection's."""
    assert shown(record) == f"{line}\n"


@pytest.mark.parametrize(
    ("status", "colour"), [(204, "32"), (304, "36"), (404, "33"), (503, "31"), (0, "31")]
)
def test_a_status_has_its_colour_on_a_terminal(status: int, colour: str) -> None:
    text = f"\x1b[{colour}m{status or '-'}\x1b[0m"
    assert text in shown(http(status=status), Screen())
    assert text in shown(http(status=status), Screen(), NO_COLOR="", TERM="xterm")


def test_there_is_no_colour_where_there_is_to_be_none() -> None:
    assert "\x1b" not in shown(http(), Screen(), NO_COLOR="1")
    assert "\x1b" not in shown(http(), Screen(), TERM="dumb")
    assert "\x1b" not in shown(http(), io.StringIO())


def test_a_terminal_that_has_gone_is_no_error() -> None:
    screen = Screen()
    terminal = Terminal(screen, {})
    screen.close()
    terminal.request_ended(http())


def logged(verbosity: int) -> str:
    stream = io.StringIO()
    observer = Terminal(stream, {}).log_observer(verbosity)
    ours = Logger(namespace=Topic.SERVICE, observer=observer)
    others = Logger(namespace="twisted.internet", observer=observer)
    ours.info("serving {where}", where="here")
    ours.debug("a detail")
    others.info("Starting factory")
    others.warn("something is odd")
    try:
        raise ValueError("on purpose")
    except ValueError:
        ours.failure("it failed", Failure())
    return stream.getvalue()


def test_the_log_is_what_sockserve_says_and_what_is_wrong() -> None:
    first, second, third, *traceback = logged(0).splitlines()
    assert (first, second) == ("serving here", "warning: something is odd")
    assert third == "error: it failed"
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[-1].endswith("ValueError: on purpose")


@pytest.mark.parametrize(("verbosity", "has_details"), [(1, False), (2, True)])
def test_more_of_the_log_has_its_times_and_topics(verbosity: int, has_details: bool) -> None:
    text = logged(verbosity)
    assert " [sockserve#info] serving here\n" in text
    assert " [twisted.internet#info] Starting factory\n" in text
    assert (" [sockserve#debug] a detail\n" in text) == has_details
    assert LogLevel.critical.name in text
