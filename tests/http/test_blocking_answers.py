"""
What leaves as a blocking handler's answer: what is said while the service stops, and what is not
sent.
"""

import asyncio
from typing import Any

import pytest

from tests.http.blocking import (
    Executor,
    Serve,
    StockEcho,
    assert_last,
    begin,
    both,
    each_kind,
    owning_or_not,
    step_logged,
)
from tests.http.connections import GET

UPGRADE = GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")

# The service stops


@both
@each_kind
@owning_or_not
@pytest.mark.parametrize("field", ["", "Connection: keep-alive", "connection:Keep-Alive "])
@pytest.mark.parametrize("size", [2, 50_000])
def test_an_answer_made_while_the_service_stops_says_that_it_is_the_last(
    serve: Serve, field: str, size: int
) -> None:
    def do_GET(self: Any) -> None:
        self.server.drain()
        self.send_response(200)
        if field:
            self.send_header(*field.split(":", 1))
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(b"<" * size)

    client = serve(do_GET)
    client.ask()
    head, _, body = client.said.partition(b"\r\n\r\n")
    assert head.lower().count(b"connection:") == 1
    assert b"\r\nConnection: close" in head
    assert body == b"<" * size
    client.end()
    assert client.ended


@both
@each_kind
def test_an_answer_that_has_not_said_so_is_not_the_last(serve: Serve) -> None:
    def do_GET(self: Any) -> None:
        self.connection.fileno()
        begin(self, 2)
        self.wfile.write(b"<")
        self.wfile.flush()
        self.server.drain()
        self.wfile.write(b">")

    client = serve(do_GET)
    client.ask()
    assert b"Connection" not in client.said
    client.ask()
    assert client.said.count(b"Connection: close") == 1
    assert client.said.count(b"<>") == 2
    client.end()
    assert client.ended


@each_kind
def test_a_switch_of_protocols_says_nothing_of_an_end(serve: Serve) -> None:
    def do_GET(self: Any) -> None:
        self.server.drain()
        self.send_response(101)
        self.send_header("Connection", "upgrade")
        self.send_header("Upgrade", "x")
        self.end_headers()
        self.close_connection = True

    client = serve(do_GET)
    client.ask(UPGRADE)
    assert b"close" not in client.said
    assert b"onnection: upgrade\r\n" in client.said
    client.end()
    assert client.ended


# A handler that leaves by what no C{handle_error} hears of


@both
@each_kind
@pytest.mark.parametrize("where", ["__init__", "setup", "do_GET", "finish"])
@pytest.mark.parametrize(
    "error", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError]
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_handler_that_leaves_by_exit_is_answered_for(
    connect: Any, handler: type, plain: bool, where: str, error: Any, method: str
) -> None:
    """Unless it has sent something."""

    def leave(self: Any, *arguments: Any) -> None:
        raise error

    methods = {"do_GET": lambda self: None, "do_HEAD": lambda self: None, where: leave}
    if where == "do_GET":
        methods["do_HEAD"] = leave
    made = type("Leaves", (handler,), methods)
    client = connect(made, plain=plain, executor=Executor(1))
    client.ask(GET.replace(b"GET", method.encode()) + GET)
    assert client.status() == (500, "close")
    assert (b"</html>" in client.said) == (method == "GET")
    assert client.said.count(b"HTTP/1.1 ") == 1
    assert_last(client)
    assert client.server.statistics.responses[5] == 1


# An answer that must not be sent

FAULTY = [
    [("Content-Length", "2"), ("Transfer-Encoding", "chunked")],
    [("transfer-encoding", "gzip"), ("CONTENT-LENGTH", "2")],
    [("Content-Length", "2"), ("X", "y"), ("content-length", "3")],
    [("Content-Length", "-2")],
    [("Content-Length", "2, 2")],
    [("Content-Length", "0x2")],
    [("Content-Length", "")],
]


@both
@each_kind
@owning_or_not
@pytest.mark.parametrize("fields", FAULTY)
@pytest.mark.parametrize("size", [2, 50_000])
def test_an_answer_with_two_ends_is_not_sent(
    serve: Serve, handler: type, fields: Any, size: int
) -> None:
    """It is the handler's mistake, which the log tells, and a 500 to the client."""

    def do_GET(self: Any) -> None:
        self.send_response(200)
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"<" * size)

    client = serve(do_GET)
    client.send(GET)
    logged = step_logged(client)
    assert client.status()[0] == 500
    assert client.said.count(b"HTTP/1.1 ") == 1
    assert b"<<" not in client.said
    if handler is StockEcho:
        assert "Content-Length" in logged
        assert client.ended
    else:
        assert client.raised == [ValueError]
    assert client.server.statistics.errors == 1
    assert client.server.statistics.responses[5] == 1


@both
@each_kind
def test_an_answer_with_one_end_is_sent(serve: Serve) -> None:
    def do_GET(self: Any) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"2\r\nok\r\n0\r\n\r\n")

    client = serve(do_GET)
    client.ask()
    assert client.status()[0] == 200
    assert client.body == b"2\r\nok\r\n0\r\n\r\n"
