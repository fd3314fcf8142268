"""The request of a blocking handler, as it is gathered: buffered, too large, or too late."""

from typing import Any

import pytest

from sockserve.http.spool import SPOOL_BYTES
from tests.http.blocking import (
    Echo,
    Serve,
    StockEcho,
    answer,
    assert_last,
    assert_refused,
    both,
    each_kind,
    no_more_descriptors,
)
from tests.http.connections import CHUNKED, GET, POST

#: The head of a request whose client waits to be told to go on.
EXPECTS = POST[:-2] + b"Expect: 100-continue\r\n\r\n"

# Gathering the request


@both
@pytest.mark.parametrize(
    ("handler", "pieces", "last"),
    [
        (Echo, [POST % 5, b"he", b"ll"], b"o"),
        (StockEcho, [POST % 5, b"he", b"ll"], b"o"),
        (Echo, [CHUNKED, b"2\r\nhe\r\n", b"3\r\nllo\r\n"], b"0\r\n\r\n"),
    ],
    ids=["Echo", "StockEcho", "chunks"],
)
def test_a_body_is_buffered_before_the_request_is_queued(
    serve: Serve, pieces: list[bytes], last: bytes
) -> None:
    client = serve()
    for piece in pieces:
        client.send(piece)
        assert client.executor.jobs == []
    client.ask(last)
    assert client.status() == (200, None)
    assert client.body == b"<hello>"


@pytest.mark.parametrize("handler", [StockEcho])
def test_a_stock_handler_takes_chunks_apart_by_itself(serve: Serve) -> None:
    read = []

    def do_POST(self: Any) -> None:
        read.append(self.rfile.read(100))
        answer(self)

    client = serve(do_POST=do_POST)
    client.send(CHUNKED + b"2\r\nhe\r\n")
    client.ask(b"3\r\nllo\r\n0\r\n\r\n")
    assert read == [b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"]
    assert client.body == b"answer"


@each_kind
def test_a_request_without_a_body_is_queued_at_once(serve: Serve) -> None:
    client = serve()
    client.ask()
    assert client.body == b"<>"


@each_kind
def test_requests_are_queued_one_after_another(serve: Serve) -> None:
    client = serve()
    client.send(POST % 1 + b"1" + POST % 1 + b"2" + POST % 1 + b"3")
    for number in (b"1", b"2", b"3"):
        client.executor.step()  # there is just one job
        assert client.said.endswith(b"<" + number + b">")
    assert client.executor.jobs == []
    assert not client.ended


@both
@each_kind
def test_a_client_that_asks_is_told_to_go_on_once(serve: Serve) -> None:
    client = serve()
    client.send(EXPECTS % 5)
    assert client.said == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.ask(b"hello")
    assert client.said.count(b"HTTP/1.1 ") == 2
    assert client.said.endswith(b"<hello>")
    assert not client.ended


class Mixed(Echo):
    """One that answers GET on the reactor."""

    async def do_GET(self) -> None:  # type: ignore[override]
        answer(self, b"x" * 50_000)


@pytest.mark.parametrize("handler", [Mixed])
def test_a_request_waits_until_the_answers_before_it_are_on_their_way(serve: Serve) -> None:
    """Else what its handler sends by the socket would overtake them."""
    client = serve(plain=False)
    client.transport.producer.pauseProducing()  # the client takes nothing
    client.send(GET + POST % 5 + b"hello")
    assert client.executor.jobs == []
    client.transport.producer.resumeProducing()
    client.executor.step()
    assert client.said.endswith(b"<hello>")
    assert client.said.index(b"x" * 50_000) < client.said.index(b"<hello>")


# A body that is too large


@both
@each_kind
@pytest.mark.parametrize("head", [POST, EXPECTS], ids=["sends", "expects"])
def test_a_body_is_too_large_by_its_length(serve: Serve, head: bytes) -> None:
    """11 bytes of the 10 that are kept; nobody is asked to send them."""
    client = serve(max_body_bytes=10)
    client.send(head % 11)
    assert b"larger than 10 bytes" in client.body
    assert_refused(client, 413)


@both
def test_a_body_is_too_large_by_its_bytes(serve: Serve) -> None:
    """6 + 5 bytes of the 10 that are kept."""
    client = serve(max_body_bytes=10)
    client.send(CHUNKED + b"6\r\n123456\r\n")
    assert client.said == b""
    client.send(b"5\r\n12345\r\n0\r\n\r\n")
    assert_refused(client, 413)
    (record,) = client.server.records
    assert (record.status, record.request_line) == (413, "POST / HTTP/1.1")


@pytest.mark.parametrize(
    ("handler", "request_"),
    [
        (Echo, POST % 10 + b"x" * 10),
        (Echo, CHUNKED + b"a\r\nxxxxxxxxxx\r\n0\r\n\r\n"),
        (StockEcho, POST % 10 + b"x" * 10),  # its head is kept besides
    ],
)
def test_a_body_that_just_fits_is_served(serve: Serve, request_: bytes) -> None:
    client = serve(max_body_bytes=10)
    client.ask(request_)
    assert client.body == b"<xxxxxxxxxx>"


# A body that is kept on the disk: more than 512 KiB


@both
@each_kind
@pytest.mark.parametrize("lost", [False, True])
def test_a_large_body_leaves_no_file_behind(serve: Serve, lost: bool) -> None:
    def do_POST(self: Any) -> None:
        answer(self, b"%d" % len(self.rfile.read(600_000)))

    client = serve(do_POST=do_POST)
    client.send(POST % 600_000)
    for _ in range(11):
        client.send(b"x" * 50_000)
    if lost:
        client.lose()
        assert client.is_finished
    else:
        client.ask(b"x" * 50_000)
        assert client.body == b"600000"


@each_kind
def test_a_body_that_there_is_no_room_for_is_refused(serve: Serve) -> None:
    client = serve(plain=False)
    client.send(POST % 600_000 + b"x" * 500_000)
    with no_more_descriptors() as logged:
        client.send(b"x" * 50_000)
    assert client.status() == (503, "close")
    assert any("a request's body cannot be kept" in line for line in logged)
    assert client.executor.jobs == []


@pytest.mark.parametrize("handler", [StockEcho])
def test_one_whose_last_chunk_there_is_no_room_for_is_refused(serve: Serve) -> None:
    """All before it is kept in memory, which it fills to the last byte."""
    size = SPOOL_BYTES - len(CHUNKED + b"7ffff\r\n\r\n")
    client = serve(plain=False)
    with no_more_descriptors() as logged:
        client.send(CHUNKED + b"%x\r\n%b\r\n" % (size, b"x" * size))
        assert client.said == b""
        client.send(b"0\r\n\r\n")
    assert client.status() == (503, "close")
    assert any("a request's body cannot be kept" in line for line in logged)
    assert client.executor.jobs == []
    assert client.is_finished


def test_a_body_behind_a_request_in_service_is_read_when_it_is_its_turn(serve: Serve) -> None:
    """A client is held back at 64 KiB that nobody has asked for."""
    client = serve(plain=False)
    client.send(GET)
    client.send(POST % 150_000 + b"x" * 100_000)
    assert client.transport.producerState == "paused"
    client.executor.step()
    assert client.transport.producerState == "producing"
    client.ask(b"x" * 50_000)
    assert client.said.count(b"x") == 150_000


# A body that does not come


@both
@each_kind
def test_a_body_that_is_late_is_not_waited_for(serve: Serve) -> None:
    """A byte each 9 s: 30 s after the head."""
    client = serve(body=30)
    client.send(POST % 10)
    for _ in range(3):
        client.advance(9)
        client.send(b"x")
    client.advance(2)
    assert client.said == b""
    client.advance(1)
    assert client.expiries == {"body": 1}
    assert_refused(client, 408)


def test_a_body_that_has_come_in_time_is_not_late(serve: Serve) -> None:
    client = serve(body=30)
    client.send(POST % 2 + b"o")
    client.advance(29)
    client.send(b"k")
    client.advance(30)  # the handler's own time
    client.executor.step()
    assert client.status() == (200, None)
    assert client.expiries == {}


def test_a_silent_body_has_as_long_as_an_idle_connection(serve: Serve) -> None:
    """Idle is 10 s from the last byte: 8 + 10 = 18."""
    client = serve(idle=10)
    client.send(POST % 3 + b"x")
    client.advance(8)
    client.send(b"x")
    client.advance(9)
    assert client.said == b""
    client.advance(1)
    assert client.status() == (408, "close")
    assert client.expiries == {"body": 1}


@both
@each_kind
def test_a_client_that_ends_its_side_within_a_body_is_told(serve: Serve) -> None:
    client = serve()
    client.send(POST % 3 + b"x")
    client.end()
    assert client.status() == (400, "close")
    assert_last(client)


@both
@each_kind
def test_a_client_that_is_lost_within_a_body_leaves_nothing(serve: Serve) -> None:
    client = serve()
    client.send(POST % 3_000_000 + b"x" * 100_000)
    client.lose()
    assert client.is_finished
    assert client.executor.jobs == []
    assert client.raised == []
