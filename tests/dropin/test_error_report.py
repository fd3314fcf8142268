"""What a drop-in server prints of an error that a handler has raised."""

import http.server
import re
import socket
import socketserver
import sys
from typing import Any

import pytest

import sockserve.socketserver

CLIENT, PLACE = ("192.0.2.1", 50000), ("192.0.2.9", 80)


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        {}["missing"]

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""


class NotParsed(Page):
    def handle(self):
        self.do_GET()


class Line(socketserver.StreamRequestHandler):
    def handle(self):
        {}["missing"]


def report(handler: Any, sent: bytes, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines that are printed when a handler is served what a client has sent."""
    server = sockserve.socketserver.BaseServer(PLACE, handler)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(sent)
        try:
            server.finish_request(ours, CLIENT)
        except KeyError as error:
            link: Any = error.__traceback__
            error.__traceback__ = link.tb_next  # without this file's line
            server.handle_error(ours, CLIENT)
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("handler", "sent", "where", "own"),
    [
        (Page, b"GET /a?b HTTP/1.1\r\n\r\n", ": GET /a?b", ["do_GET"]),
        (NotParsed, b"", " on ('192.0.2.9', 80)", ["handle", "do_GET"]),
        (Line, b"", " on ('192.0.2.9', 80)", ["handle"]),
    ],
)
def test_it_says_what_was_asked_for_and_begins_with_the_handlers_own_code(
    handler: Any, sent: bytes, where: str, own: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, heading, *traceback, last = report(handler, sent, capsys)
    assert first == last == "-" * 40
    said = "Exception occurred during processing of request from ('192.0.2.1', 50000)"
    assert heading == said + where
    assert traceback[0] == "Traceback (most recent call last):"
    functions = re.findall(r", in (\w+)$", "\n".join(traceback), re.MULTILINE)
    assert functions == own
    assert traceback[-1] == "KeyError: 'missing'"


def test_without_an_error_it_says_so_as_socketserver(capsys: pytest.CaptureFixture[str]) -> None:
    sockserve.socketserver.BaseServer(PLACE, Line).handle_error(None, CLIENT)
    assert capsys.readouterr().err.splitlines()[2] == "NoneType: None"


def test_a_program_that_calls_the_original_gets_it(capsys: pytest.CaptureFixture[str]) -> None:
    class Server(sockserve.socketserver.BaseServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            sys.stdout.write("mine\n")
            super().handle_error(request, client_address)

    try:
        {}["missing"]
    except KeyError:
        Server(PLACE, Line).handle_error(None, CLIENT)
    out, err = capsys.readouterr()
    assert out == "mine\n"
    assert "KeyError: 'missing'" in err
