"""The cycle of a coroutine: what is answered when, and what becomes of the connection."""

import asyncio
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent

from sockserve import ClientGone, DeadlineExpired
from sockserve.http import HTTPRequestHandler
from sockserve.http.h1.reader import MAX_SKIP_BYTES
from tests.http.connections import CHUNKED, GET, POST, Connection

Connect = Callable[..., Connection]


def handling(function: Callable[[Any], object]) -> type[HTTPRequestHandler]:
    """A handler whose GET and POST are C{function}."""
    return type("Handler", (HTTPRequestHandler,), {"do_GET": function, "do_POST": function})


def begin(handler: Any, status: int = 200, length: int | None = None) -> None:
    handler.send_response(status)
    if length is not None:
        handler.send_header("Content-Length", length)
    handler.end_headers()


def answer(handler: Any, body: bytes = b"answer") -> None:
    begin(handler)
    handler.wfile.write(body)


async def waits(handler: Any, seconds: float = 1) -> None:
    await deferLater(handler.server.reactor, seconds)


async def answers(handler: Any) -> None:
    answer(handler)


both = pytest.mark.parametrize("plain", [True, False], ids=["plain", "wrapped"])
#: Whether the handler waits before it does what a test is about.
late = pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])


# Answers


@both
def test_an_answer_that_is_made_without_a_wait_has_a_length(connect: Connect, plain: bool) -> None:
    async def do_GET(handler: Any) -> None:
        answer(handler, b"an")
        handler.wfile.write(b"swer")

    client = connect(handling(do_GET), plain=plain)
    client.send(GET)
    assert b"Content-Length: 6\r\n" in client.said
    assert client.body == b"answer"
    assert not client.ended


@pytest.mark.parametrize("field", [("Content-length", "5"), ("Transfer-Encoding", "chunked")])
def test_a_204_says_nothing_of_a_body(connect: Connect, field: tuple[str, str]) -> None:
    """RFC 9110 section 8.6: who believed it would take the next answer for that."""

    async def do_GET(handler: Any) -> None:
        handler.send_response(204)
        handler.send_header(*field)
        handler.send_header("X-Other", "content-length: 5")
        handler.end_headers()
        handler.wfile.write(b"hello")

    client = connect(handling(do_GET))
    client.send(GET)
    head, _, rest = client.said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 204 ")
    assert head.endswith(b"\r\nX-Other: content-length: 5")
    assert field[0].encode() not in head
    assert rest == b""
    client.send(GET)
    assert client.said.count(b"HTTP/1.1 204 ") == 2


@both
def test_what_was_written_leaves_when_the_handler_waits(connect: Connect, plain: bool) -> None:
    async def do_GET(handler: Any) -> None:
        answer(handler, b"an")
        await waits(handler)
        handler.wfile.write(b"sw")
        await waits(handler)
        handler.wfile.write(b"er")

    client = connect(handling(do_GET), plain=plain)
    client.send(GET)
    assert b"Transfer-Encoding: chunked\r\n" in client.said
    assert client.body == b"2\r\nan\r\n"
    client.advance(1)
    assert client.body == b"2\r\nan\r\n2\r\nsw\r\n"
    client.advance(1)
    assert client.body == b"2\r\nan\r\n2\r\nsw\r\n2\r\ner\r\n0\r\n\r\n"


@both
@late
def test_requests_that_come_together_are_answered_one_after_another(
    connect: Connect, plain: bool, late: bool
) -> None:
    """1 s for each, when they wait."""
    running: list[str] = []

    async def do_GET(handler: Any) -> None:
        assert running == []
        running.append(handler.path)
        if late:
            await waits(handler)
        answer(handler, f"<{running.pop()}>".encode())

    client = connect(handling(do_GET), plain=plain)
    client.send(b"".join(GET.replace(b"/ ", b"/%d " % number) for number in range(3)))
    client.advance(3)
    assert [client.said.find(b"</%d>" % number) > 0 for number in range(3)] == [True] * 3
    assert client.said.index(b"</0>") < client.said.index(b"</1>") < client.said.index(b"</2>")
    assert client.server.statistics.requests == 3


# Failures


@both
@pytest.mark.parametrize(("late", "begins"), [(False, False), (False, True), (True, False)])
def test_a_handler_that_raises_before_its_head_has_left_is_answered_for(
    connect: Connect, plain: bool, late: bool, begins: bool
) -> None:
    async def do_GET(handler: Any) -> None:
        if late:
            await waits(handler)
        if begins:
            answer(handler, b"held back")
        raise ZeroDivisionError

    client = connect(handling(do_GET), plain=plain)
    client.send(GET)
    client.advance(1)
    assert client.status() == (500, None)
    assert b"held back" not in client.said
    assert [type(error) for error in client.server.raised] == [ZeroDivisionError]
    assert client.server.statistics.errors == 1
    client.send(GET)  # the connection is as good as before
    client.advance(1)
    assert client.said.count(b"HTTP/1.1 500 ") == 2


@both
@late
def test_one_that_raises_after_it_breaks_the_connection(
    connect: Connect, plain: bool, late: bool
) -> None:
    async def do_GET(handler: Any) -> None:
        begin(handler, length=9)
        handler.wfile.write(b"not all")
        if late:
            await waits(handler)
        else:
            handler.wfile.flush()
        raise ZeroDivisionError

    client = connect(handling(do_GET), plain=plain)
    client.send(GET + GET)
    client.advance(1)
    assert client.body == b"not all"
    assert client.ended
    if not plain:  # a client that knows no length must not take that for all
        assert client.transport.ended == "aborted"
    assert client.server.statistics.requests == client.server.statistics.errors == 1


@late
@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError,
        SystemExit,
        KeyboardInterrupt,
        GeneratorExit,
        asyncio.CancelledError,
    ],
)
def test_what_no_handle_error_handles_is_logged_and_answered_for(
    connect: Connect, late: bool, error: type[BaseException]
) -> None:
    async def do_GET(handler: Any) -> None:
        if late:
            await waits(handler)
        raise error

    def handle_error(request: Any, client_address: Any) -> None:
        raise ValueError

    client = connect(handling(do_GET))
    client.server.handle_error = handle_error  # type: ignore[method-assign]
    with capturedLogs() as logged:
        client.send(GET)
        client.advance(1)
    assert client.status() == (500, None)
    (event,) = [event for event in logged if "log_failure" in event]
    raised = event["log_failure"].type
    is_handled = error in (ZeroDivisionError, asyncio.CancelledError)
    assert raised is (ValueError if is_handled else error)
    assert client.server.statistics.errors == 1


@late
def test_a_handler_without_an_answer_is_answered_for(connect: Connect, late: bool) -> None:
    async def do_GET(handler: Any) -> None:
        if late:
            await waits(handler)

    client = connect(handling(do_GET))
    with capturedLogs() as logged:
        client.send(GET)
        client.advance(1)
    assert client.status() == (500, None)
    (text,) = [formatEvent(event) for event in logged]
    assert text == "Handler: GET /: no response was sent"
    assert not client.ended


@both
@late
def test_an_answer_shorter_than_its_length_is_the_last(
    connect: Connect, plain: bool, late: bool
) -> None:
    async def do_GET(handler: Any) -> None:
        begin(handler, length=9)
        handler.wfile.write(b"not all")
        if late:
            await waits(handler)

    client = connect(handling(do_GET), plain=plain)
    with capturedLogs() as logged:
        client.send(GET + GET)
        client.advance(1)
    assert client.body == b"not all"
    assert client.ended
    assert "2 bytes too short" in formatEvent(logged[0])
    assert client.server.statistics.requests == client.server.statistics.errors == 1


# A body that nobody has read


@both
@late
@pytest.mark.parametrize(
    ("length", "kept"), [(1, True), (MAX_SKIP_BYTES, True), (MAX_SKIP_BYTES + 1, False)]
)
def test_an_unread_body_is_thrown_away_unless_it_is_large(
    connect: Connect, plain: bool, late: bool, length: int, kept: bool
) -> None:
    async def do_POST(handler: Any) -> None:
        if late:
            await waits(handler)
        answer(handler)

    client = connect(handling(do_POST), plain=plain)
    client.send(POST % length)
    client.advance(1)
    # A head leaves when the handler that has waited finishes, before anybody looks at the body.
    assert client.status() == (200, None if kept or late else "close")
    assert client.ended is not kept
    if kept:
        for _ in range(length // 4096):
            client.send(b"x" * 4096)
        client.send(b"x" * (length % 4096) + GET)
        client.advance(1)
        assert client.said.count(b"answer") == 2


def test_chunks_nobody_reads_are_counted_as_they_come(connect: Connect) -> None:
    """Nobody can tell their length before; by then the answer has left."""
    client = connect(handling(answers))
    client.send(CHUNKED)
    assert client.status() == (200, None)
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    for _ in range(MAX_SKIP_BYTES // 4096):
        client.send(chunk)
    assert not client.ended
    client.send(chunk)
    assert client.ended


@both
def test_what_is_left_of_a_body_is_not_the_next_request(connect: Connect, plain: bool) -> None:
    async def do_POST(handler: Any) -> None:
        answer(handler, b"<" + await handler.rfile.read(2) + b">")

    client = connect(handling(do_POST), plain=plain)
    client.send(POST % len(GET) + GET[:20])
    client.send(GET[20:] + POST % 2 + b"ok")
    assert b"<GE>" in client.said
    assert b"<ok>" in client.said
    assert client.server.statistics.requests == 2


def test_a_body_that_is_read_in_part_does_not_hold_its_client_back(connect: Connect) -> None:
    """The client is not read from beyond 64 KiB that wait for the handler."""

    async def do_POST(handler: Any) -> None:
        await handler.rfile.read(2)
        await waits(handler)
        answer(handler)

    client = connect(handling(do_POST), plain=False)
    client.send(POST % 200_000 + b"x" * 50_000)
    client.send(b"x" * 50_000)
    assert client.transport.producerState == "paused"
    client.advance(1)
    assert client.transport.producerState == "producing"
    client.send(b"x" * 100_000 + GET)
    client.advance(1)
    assert client.said.count(b"answer") == 2


def test_a_body_that_has_come_may_be_as_large_as_it_is(connect: Connect) -> None:
    """All of it is here by the time of the answer: nothing more is to be read."""

    async def do_POST(handler: Any) -> None:
        data = await handler.rfile.read()
        answer(handler, b"%d" % len(data))

    client = connect(handling(do_POST), plain=False)
    client.send(POST % (MAX_SKIP_BYTES + 1) + b"x" * (MAX_SKIP_BYTES + 1))
    assert client.status() == (200, None)
    assert client.body == b"%d" % (MAX_SKIP_BYTES + 1)


# Expectations

EXPECTS = POST[:-2] % 5 + b"Expect: 100-continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@both
@late
def test_a_client_that_asks_is_told_to_go_on_when_its_body_is_read(
    connect: Connect, plain: bool, late: bool
) -> None:
    async def do_POST(handler: Any) -> None:
        if late:
            await waits(handler)
        body = await handler.rfile.readexactly(1)
        answer(handler, body + await handler.rfile.read())

    client = connect(handling(do_POST), plain=plain)
    client.send(EXPECTS)
    assert client.said == (b"" if late else CONTINUE)
    client.advance(1)
    assert client.said == CONTINUE
    client.send(b"h")
    client.send(b"ello")
    assert client.said.count(CONTINUE) == 1
    assert client.said.endswith(b"5\r\nhello\r\n0\r\n\r\n")
    assert not client.ended


def test_a_client_that_does_not_wait_is_not_told(connect: Connect) -> None:
    async def do_POST(handler: Any) -> None:
        answer(handler, await handler.rfile.readexactly(5))

    client = connect(handling(do_POST))
    client.send(EXPECTS + b"hello" + EXPECTS + b"again")
    assert client.said.count(b"HTTP/1.1 ") == 2
    assert client.said.count(b"HTTP/1.1 200 ") == 2
    assert b"close" not in client.said
    assert not client.ended


CHUNKS = EXPECTS.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked")


@both
@late
@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("sent", [EXPECTS + b"hello", CHUNKS + b"5\r\nhello\r\n0\r\n\r\n"])
@pytest.mark.parametrize("missing", [0, 1])
def test_nor_does_his_connection_end(
    connect: Connect, plain: bool, late: bool, reads: bool, sent: bytes, missing: int
) -> None:
    """Whether the handler reads the body or leaves it, and how much of it has come by then."""

    async def do_POST(handler: Any) -> None:
        if late:
            await waits(handler)
        answer(handler, await handler.rfile.read() if reads else b"hello")

    client = connect(handling(do_POST), plain=plain)
    client.send(sent[: len(sent) - missing])
    client.send(sent[len(sent) - missing :])
    client.advance(1)
    assert b"hello" in client.body
    client.send(EXPECTS + b"again")
    client.advance(1)
    assert client.said.count(b"HTTP/1.1 200 ") == 2
    assert b"close" not in client.said
    assert not client.ended


def test_nor_does_that_of_one_who_begins_while_the_handler_waits(connect: Connect) -> None:
    async def do_POST(handler: Any) -> None:
        await waits(handler)
        answer(handler, b"no")

    client = connect(handling(do_POST))
    client.send(EXPECTS)
    client.send(b"hello")
    client.advance(1)
    assert client.status() == (200, None)
    assert not client.ended


@both
def test_an_answer_instead_of_the_body_is_the_last(connect: Connect, plain: bool) -> None:
    """Nobody can tell whether the body follows."""
    client = connect(handling(answers), plain=plain)
    client.send(EXPECTS)
    assert client.status() == (200, "close")
    assert client.ended


def test_nobody_is_told_to_go_on_after_the_answer_has_begun(connect: Connect) -> None:
    async def do_POST(handler: Any) -> None:
        begin(handler, length=6)
        handler.wfile.flush()
        await handler.rfile.read()
        handler.wfile.write(b"answer")

    client = connect(handling(do_POST))
    client.send(EXPECTS)
    assert client.status() == (200, "close")
    client.send(b"hello")
    assert client.body == b"answer"
    assert client.ended


# A switch of protocols


@both
@late
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (GET[:-2] + b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\n", 101),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", 200),
    ],
)
def test_what_follows_a_switch_is_the_handlers(
    connect: Connect, plain: bool, late: bool, request_: bytes, status: int
) -> None:
    async def do_GET(handler: Any) -> None:
        if late:
            await waits(handler)
        begin(handler, status)
        while data := await handler.rfile.read(100):
            handler.wfile.write(b"<" + data + b">")
        handler.wfile.write(b"bye")

    handler = handling(do_GET)
    handler.do_CONNECT = do_GET  # type: ignore[attr-defined]
    client = connect(handler, plain=plain)
    client.send(request_ + b"GET ")
    client.advance(1)
    assert client.said.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Length" not in client.said
    assert client.body == b"<GET >"
    client.send(b"/ no HTTP\r\n\r\n")
    assert client.body == b"<GET ></ no HTTP\r\n\r\n>"
    client.end()
    assert client.body.endswith(b">bye")
    assert client.ended
    assert client.is_finished


def test_the_record_of_a_request_says_what_is_wrong_with_its_body(connect: Connect) -> None:
    async def do_GET(handler: Any) -> None:
        await handler.rfile.read()

    client = connect(handling(do_GET))
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
    client.end()
    assert client.status() == (400, "close")
    (record,) = client.server.records
    assert record.reason == "the request ends before its end"


@both
def test_a_client_may_have_ended_its_side_before_the_switch(connect: Connect, plain: bool) -> None:
    async def do_CONNECT(handler: Any) -> None:
        await waits(handler)
        begin(handler)
        handler.wfile.write(b"<" + await handler.rfile.read() + b">")

    client = connect(
        type("Handler", (HTTPRequestHandler,), {"do_CONNECT": do_CONNECT}), plain=plain
    )
    client.send(b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\nlast")
    client.end()
    client.advance(1)
    assert client.body == b"<last>"
    assert client.ended


@late
def test_a_switch_that_is_refused_leaves_the_connection_as_it_was(
    connect: Connect, late: bool
) -> None:
    async def do_CONNECT(handler: Any) -> None:
        assert await handler.rfile.read() == b""
        if late:
            await waits(handler)
        handler.send_error(403)

    client = connect(
        type("Handler", (HTTPRequestHandler,), {"do_CONNECT": do_CONNECT, "do_GET": answers})
    )
    client.send(b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n" + GET)
    client.advance(1)
    assert client.status() == (403, None)
    assert client.said.endswith(b"answer")
    assert not client.ended


# A deadline passes while the handler waits


def test_the_handle_deadline_is_raised_where_the_handler_waits(connect: Connect) -> None:
    """And what it waits for is cancelled."""
    cancelled: list[Deferred[None]] = []
    caught = []

    async def do_GET(handler: Any) -> None:
        try:
            await Deferred(cancelled.append)
        except DeadlineExpired as error:
            caught.append(error.phase)
            raise
        finally:
            caught.append("finally")

    client = connect(handling(do_GET), handle=10)
    client.send(GET)
    client.advance(9)
    assert (cancelled, client.said) == ([], b"")
    client.advance(1)
    assert len(cancelled) == 1
    assert caught == ["handle", "finally"]
    assert client.status() == (504, "close")
    assert client.ended
    (record,) = client.server.records
    assert (record.status, record.outcome) == (504, "expired: handle")
    assert client.server.statistics.errors == 0


@both
def test_it_is_raised_in_a_read_likewise(connect: Connect, plain: bool) -> None:
    async def do_POST(handler: Any) -> None:
        await handler.rfile.read()

    client = connect(handling(do_POST), plain=plain, handle=10)
    client.send(POST % 5 + b"x")
    client.advance(10)
    assert client.status() == (504, "close")
    assert [str(error) for error in client.server.raised] == ["the handle deadline expired"]
    client.end()
    assert client.ended


def test_an_abandoned_coroutine_is_ended(connect: Connect) -> None:
    """Its deadline at 10 s, and 5 s to come to its end."""
    ends = []

    async def do_GET(handler: Any) -> None:
        try:
            while True:
                try:
                    await Deferred()
                except DeadlineExpired:
                    ends.append("deaf")
        finally:
            ends.append("ended")

    client = connect(handling(do_GET), handle=10, abandon=5)
    client.send(GET)
    client.advance(14)
    assert ends == ["deaf"]
    assert not client.is_finished
    client.advance(1)
    assert ends == ["deaf", "ended"]
    assert client.ended
    assert client.is_finished
    (record,) = client.server.records
    assert record.outcome == "expired: handle"
    assert client.server.statistics.abandoned == 0  # unlike a thread


# The client is lost while the handler waits


@both
def test_a_read_tells_that_the_client_is_lost(connect: Connect, plain: bool) -> None:
    caught = []

    async def do_POST(handler: Any) -> None:
        try:
            await handler.rfile.read()
        except ConnectionError as error:
            caught.append(type(error))
            raise

    client = connect(handling(do_POST), plain=plain)
    client.send(POST % 5 + b"x")
    client.lose()
    assert caught == [ConnectionResetError]
    assert client.is_finished
    assert client.server.statistics.errors == 0
    assert client.server.records[0].outcome == "lost"


@both
def test_a_handler_that_waits_for_something_else_is_told(connect: Connect, plain: bool) -> None:
    caught = []

    async def do_GET(handler: Any) -> None:
        begin(handler)
        try:
            await waits(handler, 5)
        except ClientGone as error:
            caught.append(error)
            raise

    client = connect(handling(do_GET), plain=plain)
    client.send(GET + GET)
    client.lose()
    assert len(caught) == 1
    assert client.is_finished
    assert client.server.statistics.requests == 1  # the other one is not served
    assert client.server.statistics.errors == 0
    assert client.server.records[0].outcome == "lost"


@both
def test_a_handler_is_told_though_the_one_before_had_an_async_finish(
    connect: Connect, plain: bool
) -> None:
    """Which did not wait, so that its task was never made."""
    caught = []

    class Handler(HTTPRequestHandler):
        async def do_GET(self) -> None:
            answer(self)

        async def do_POST(self) -> None:
            try:
                await waits(self, 5)
            except ClientGone as error:
                caught.append(error)
                raise

        async def finish(self) -> None:
            pass

    client = connect(Handler, plain=plain)
    client.send(GET)
    client.send(POST % 0)
    client.lose()
    assert len(caught) == 1
    assert client.is_finished


@both
def test_a_handler_that_was_told_and_goes_on_is_given_up(connect: Connect, plain: bool) -> None:
    async def do_GET(handler: Any) -> None:
        try:
            await waits(handler, 5)
        except ClientGone:
            await Deferred()

    client = connect(handling(do_GET), plain=plain, abandon=3)
    client.send(GET)
    client.lose()
    client.advance(2)
    assert not client.is_finished
    client.advance(1)
    assert client.is_finished
    assert client.server.records[0].outcome == "lost"


@both
def test_a_handler_may_finish_regardless(connect: Connect, plain: bool) -> None:
    """What it writes goes nowhere, and C{drain} says so."""
    caught = []

    async def do_GET(handler: Any) -> None:
        await waits(handler, 5)
        answer(handler)
        try:
            await handler.wfile.drain()
        except ConnectionError as error:
            caught.append(type(error))

    handler = handling(do_GET)
    handler.handler_cancellation = False
    client = connect(handler, plain=plain)
    client.send(GET + GET)
    client.lose()
    client.advance(4)
    assert not client.is_finished
    client.advance(1)
    assert caught == [BrokenPipeError]
    assert client.is_finished
    assert client.said == b""
    assert client.server.statistics.requests == 1  # the other one is not served


@both
def test_a_client_that_only_ends_its_side_is_answered(connect: Connect, plain: bool) -> None:
    async def do_GET(handler: Any) -> None:
        await waits(handler)
        answer(handler)

    client = connect(handling(do_GET), plain=plain)
    client.send(GET + GET)
    client.end()
    client.advance(2)
    assert client.said.count(b"answer") == 2
    assert client.ended
    assert client.is_finished


# The handler ends the connection


@both
@late
def test_a_handler_that_closes_the_connection_has_the_last_word(
    connect: Connect, plain: bool, late: bool
) -> None:
    async def do_GET(handler: Any) -> None:
        if late:
            await waits(handler)
        answer(handler, b"bye")
        handler.request.close()

    client = connect(handling(do_GET), plain=plain)
    client.send(GET + GET)
    client.advance(1)
    assert client.said.count(b"bye") == 1
    client.end()
    assert client.ended
    assert client.is_finished
    assert client.server.statistics.requests == 1
    assert client.server.statistics.errors == 0


@late
def test_one_that_closes_it_without_a_word_has_said_none(connect: Connect, late: bool) -> None:
    async def do_GET(handler: Any) -> None:
        if late:
            await waits(handler)
        handler.request.close()

    client = connect(handling(do_GET))
    client.send(GET)
    client.advance(1)
    assert client.said == b""
    assert client.ended
    assert client.is_finished


def test_one_that_goes_on_after_that_writes_for_nobody(connect: Connect) -> None:
    async def do_GET(handler: Any) -> None:
        handler.request.close()
        await waits(handler)
        answer(handler)

    client = connect(handling(do_GET))
    client.send(GET)
    assert client.ended
    client.advance(1)
    assert client.said == b""
    assert client.is_finished


# Memory


@both
@late
@pytest.mark.parametrize("request_", [GET, POST % 4 + b"body"], ids=["bodiless", "body"])
@pytest.mark.parametrize("raises", [False, True])
def test_nothing_of_a_request_is_left_to_the_garbage_collector(
    connect: Connect, plain: bool, late: bool, request_: bytes, raises: bool, no_collector: None
) -> None:
    kept: list[weakref.ref[Any]] = []

    async def do_POST(handler: Any) -> None:
        kept.extend([weakref.ref(handler), weakref.ref(handler.wfile)])
        await handler.rfile.read()
        if late:
            await waits(handler)
        if raises:
            raise ZeroDivisionError
        answer(handler)

    client = connect(handling(do_POST), plain=plain)
    client.send(request_)
    client.advance(1)
    assert client.status()[0] == (500 if raises else 200)
    client.server.raised.clear()
    assert [each() for each in kept] == [None] * 2
