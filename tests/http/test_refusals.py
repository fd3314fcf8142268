"""What the server answers in a handler's place, in the form of its class."""

import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from twisted.logger import capturedLogs, formatEvent

from sockserve.http import GatewayRequestHandler, HTTPRequestHandler
from sockserve.http.refusals import error_page


def made(handler: Any, status: int = 400, accept: str = "") -> tuple[list[str], str]:
    """The lines of the head but for its date, and the body."""
    head, body = error_page(status, handler, accept, "too <b>large</b>")
    lines = head.splitlines()
    assert f"Content-Length: {len(body)}" in lines
    return [line for line in lines if not line.startswith("Date: ")], body.decode()


class Own(HTTPRequestHandler):
    error_message_format = "%(code)d|%(message)s|%(explain)s"
    error_content_type = "text/plain"
    server_version = "Own/1"
    sys_version = "On/2"


class StockOwn(BaseHTTPRequestHandler):
    error_message_format = Own.error_message_format
    error_content_type = "text/plain"
    server_version = "Own/1"
    sys_version = "On/2"


@pytest.mark.parametrize("handler", [Own, StockOwn, Own(None, None, None)])
def test_an_error_is_in_the_form_of_its_class(handler: Any) -> None:
    lines, body = made(handler)
    assert body == "400|Bad Request|too &lt;b&gt;large&lt;/b&gt;"
    assert lines == [
        "HTTP/1.1 400 Bad Request",
        "Server: Own/1 On/2",
        "Content-Type: text/plain",
        "Vary: Accept",
        f"Content-Length: {len(body)}",
    ]


def test_a_class_that_tells_no_version_tells_none_here() -> None:
    class Secret(Own):
        server_version = ""

    assert not any(line.startswith("Server") for line in made(Secret)[0])


def test_a_version_may_be_a_methods() -> None:
    class Method(Own):
        def version_string(self) -> str:
            return f"{self.server_version}, mostly"

    assert "Server: Own/1, mostly" in made(Method)[0]


def test_a_client_that_asks_for_json_gets_a_problem() -> None:
    lines, body = made(Own, 413, "application/json")
    assert "Content-Type: application/problem+json" in lines
    assert json.loads(body) == {
        "type": "about:blank",
        "title": HTTPStatus(413).phrase,
        "status": 413,
        "detail": "too <b>large</b>",
    }


def test_a_handler_that_has_no_form_has_the_usual_one() -> None:
    assert made(GatewayRequestHandler) == made(HTTPRequestHandler)
    assert "<h1><span>Error 400</span> Bad Request</h1>" in made(HTTPRequestHandler)[1]


@pytest.mark.parametrize(
    "members",
    [
        {"error_message_format": "%(nonsense)s"},
        {"error_message_format": "100%"},
        {"error_message_format": None},
        {"error_content_type": "text/html\r\nX: y"},
        {"error_content_type": None},
        {"server_version": "a\nb"},
        {"version_string": 5},
    ],
)
def test_a_form_that_is_of_no_use_is_logged(members: dict[str, Any]) -> None:
    broken = type("Broken", (Own,), members)
    with capturedLogs() as events:
        assert made(broken) == made(HTTPRequestHandler)
    assert "an error page cannot be made" in str(formatEvent(events[0]))
