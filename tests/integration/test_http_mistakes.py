"""
What handlers do wrong: a client is never told that a response is whole that is not, and the
log says what went wrong.
"""

from http.client import IncompleteRead

import pytest
from twisted.internet.task import deferLater

from sockserve.http import HTTPRequestHandler
from sockserve.http.h1.framing import LocalProtocolError
from tests.integration.web import answers_in, conversing, get, said

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")


def handling(function, **members):
    """A handler of GET."""
    return type("Site", (HTTPRequestHandler,), {"do_GET": function, **members})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X", "a\r\nSet-Cookie: b"),
        ("X", "a\nb"),
        ("X", "a\rb"),
        ("X", "a\0b"),
        ("X", "\u20ac"),
        ("X\r\nY", "a"),
        ("X:", "a"),
        ("", "a"),
        ("X Y", "a"),
        ("Content-Length", "1, 2"),
        ("Content-Length", -1),
    ],
)
async def test_headers_that_would_break_the_head_are_refused(name, value):
    caught = []

    async def do_GET(self):
        self.send_response(200)
        try:
            self.send_header(name, value)
        except ValueError as error:
            caught.append(error)
        self.end_headers()

    (answer,) = answers_in(await said(handling(do_GET), get()), "GET")
    assert len(caught) == 1
    assert set(answer.headers) == {"Server", "Date", "Content-Length"}


async def test_so_is_a_reason_phrase(errors):
    async def do_GET(self):
        self.send_response(200, "OK\r\nSet-Cookie: a")

    (answer,) = answers_in(await said(handling(do_GET), get()), "GET")
    assert answer.status == 500
    assert "Set-Cookie" not in answer.headers
    assert "reason phrase" in errors.pop()


async def fail(self):
    self.send_response(200)
    self.end_headers()
    raise OSError("the disk is full")


async def test_an_error_before_the_response_began_is_the_servers(errors):
    answers = answers_in(await said(handling(fail), get() * 2), "GET", "GET")
    assert [answer.status for answer in answers] == [500, 500]
    assert b"disk" not in answers[0].body
    assert len(errors) == 2
    assert "the disk is full" in errors[0]
    errors.clear()


@pytest.mark.parametrize("fields", [[], [("Content-Length", 100)]])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
async def test_a_client_can_tell_that_a_response_is_cut_off(fields, version, errors):
    async def do_GET(self):
        self.send_response(200)
        for field in fields:
            self.send_header(*field)
        self.end_headers()
        self.wfile.write(b"begun")
        await deferLater(self.server.reactor, 0)
        raise OSError("the disk is full")

    def client(conversation):
        conversation.send(get(version=version))
        with pytest.raises((IncompleteRead, ConnectionResetError)):
            conversation.answer()

    await conversing(handling(do_GET), client)
    assert "the disk is full" in errors.pop()


async def test_a_handler_that_answers_nothing(errors):
    async def do_GET(self):
        pass

    answers = answers_in(await said(handling(do_GET), get() * 2), "GET", "GET")
    assert [answer.status for answer in answers] == [500, 500]
    assert errors[0].endswith("GET /: no response was sent")
    errors.clear()


async def short(self):
    self.send_response(200)
    self.send_header("Content-Length", 5)
    self.end_headers()
    self.wfile.write(b"abc")


async def test_a_body_shorter_than_its_length_is_cut_off(errors):
    def client(conversation):
        conversation.send(get())
        with pytest.raises(IncompleteRead) as caught:
            conversation.answer()
        return caught.value.partial

    assert await conversing(handling(short), client) == b"abc"
    assert "2 bytes too short" in errors.pop()


async def test_a_body_longer_than_its_length_is_refused(errors):
    caught = []

    async def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", 5)
        self.end_headers()
        self.wfile.write(b"12345")
        try:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        except LocalProtocolError as error:
            caught.append(str(error))

    (answer,) = answers_in(await said(handling(do_GET), get()), "GET")
    assert answer.body == b"12345"
    assert caught == ["the body is longer than its Content-Length, 5"]


async def test_a_body_before_its_head_is_refused(errors):
    async def do_GET(self):
        self.wfile.write(b"Hello, world!")

    (answer,) = answers_in(await said(handling(do_GET), get()), "GET")
    assert answer.status == 500
    assert "call end_headers first" in errors.pop()


async def test_a_broken_connection_to_somebody_else_is_an_error(errors):
    async def do_GET(self):
        raise ConnectionRefusedError("the database is down")

    (answer,) = answers_in(await said(handling(do_GET), get()), "GET")
    assert answer.status == 500
    assert "the database is down" in errors.pop()


async def test_a_second_response_is_refused(errors):
    async def do_GET(self):
        for status in (200, 404):
            self.send_response(status)
            self.end_headers()

    (answer,) = answers_in(await said(handling(do_GET), get()), "GET")
    assert answer.status == 500
    assert "a request has one response" in errors.pop()


async def test_send_error_replaces_what_has_not_left():
    async def do_GET(self):
        self.send_response(200)
        self.send_header("X-Old", "1")
        self.end_headers()
        self.wfile.write(b"old")
        self.send_error(418, "<short>", "<long>")

    (answer,) = answers_in(await said(handling(do_GET), get()), "GET")
    assert (answer.status, answer.headers["X-Old"]) == (418, None)
    assert answer.headers["Content-Type"] == "text/html;charset=utf-8"
    assert b"&lt;short&gt;" in answer.body
    assert b"&lt;long&gt;" in answer.body
