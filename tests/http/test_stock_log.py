"""What the log tells of http.server's handlers: refusals, and answers that were never made."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from twisted.logger import capturedLogs, formatEvent

from sockserve.http import HTTPRequestHandler
from tests.http.blocking import Executor, Serve, StockEcho, step_logged
from tests.http.connections import GET, Connection

Connect = Callable[..., Connection]

stock = pytest.mark.parametrize("handler", [StockEcho])

MALFORMED = b"GET / HTTP/9\r\n\r\n"
CUT_SHORT = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab"


class Tells(StockEcho):
    lines: list[str]

    def log_message(self, format: str, *arguments: Any) -> None:
        assert isinstance(self.server.max_body_bytes, int)  # type: ignore[attr-defined]
        self.lines.append(f"{self.address_string()}: {format % arguments}")


@pytest.mark.parametrize(
    ("sent", "lines"),
    [
        (MALFORMED, ["code 400, message the version is not one of HTTP's"]),
        (
            CUT_SHORT,
            ["code 400, message the request ends before its end", '"POST /a HTTP/1.1" 400 -'],
        ),
    ],
)
def test_a_request_that_is_refused_has_the_handlers_own_lines(
    connect: Connect, sent: bytes, lines: list[str]
) -> None:
    Tells.lines = []
    client = connect(Tells, executor=Executor())
    client.send(sent)
    client.end()
    assert client.status() == (400, "close")
    assert [line.partition(": ")[2] for line in Tells.lines] == lines
    assert [record.outcome for record in client.server.records] == ["refused"]


class Page(HTTPRequestHandler):
    async def do_GET(self) -> None:
        raise AssertionError


@pytest.mark.parametrize("logs_requests", [False, True])
def test_one_of_another_handler_has_a_line_where_requests_have_none(
    connect: Connect, logs_requests: bool
) -> None:
    client = connect(Page)
    client.server.logs_requests = logs_requests
    with capturedLogs() as logged:
        client.send(MALFORMED)
    assert client.status() == (400, "close")
    told = [formatEvent(event).partition(" sent ")[2] for event in logged]
    line = "a request that is none: the version is not one of HTTP's"
    assert told == ([] if logs_requests else [line])


def test_a_method_of_the_handlers_that_fails_for_want_of_a_request_fails_alone(
    connect: Connect,
) -> None:
    class Looks(StockEcho):
        def log_message(self, format: str, *arguments: Any) -> None:
            self.rfile.read()  # there is none

    client = connect(Looks, executor=Executor())
    with capturedLogs() as logged:
        client.send(MALFORMED)
    assert client.status() == (400, "close")
    assert logged == []


def forgets(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("X", "y")


def says_nothing(handler: Any) -> None:
    """No answer."""


def owns_connection(handler: Any) -> None:
    handler.connection.fileno()


def sends_by_itself(handler: Any) -> None:
    handler.connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")


@stock
@pytest.mark.parametrize(
    ("do_GET", "line"),
    [
        (forgets, "Handler: GET /: no response was sent: end_headers was not called"),
        (says_nothing, "Handler: GET /: no response was sent"),
        (owns_connection, ""),
        (sends_by_itself, ""),
    ],
)
def test_a_handler_that_has_not_answered_is_told_of(
    serve: Serve, do_GET: Callable[[Any], None], line: str
) -> None:
    client = serve(do_GET)
    client.send(GET)
    assert step_logged(client) == line


@stock
def test_it_is_not_if_it_has_raised_or_its_client_has_gone(serve: Serve) -> None:
    client = serve(lambda self: {}["missing"])
    client.send(GET)
    assert step_logged(client) == ""
    assert client.raised == [KeyError]

    def leaves(self: BaseHTTPRequestHandler) -> None:
        gone.lose()

    gone = serve(leaves)
    gone.send(GET)
    assert step_logged(gone) == ""
