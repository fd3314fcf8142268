"""What is seen of a response that one of C{http.server}'s handlers makes by itself."""

from typing import Any

import pytest

from sockserve.http.h1.head import parse_head
from sockserve.http.responses import BlockingResponse
from sockserve.http.stock_output import StockResponse

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = b"HTTP/1.0 %s\r\nServer: x\r\nContent-Length: %s\r\n\r\n"
PAGE = b"the page in its place"


class Observed:
    """
    A response, and what leaves for it.

    @ivar refusals: why it was refused.
    """

    def __init__(self, *pieces: bytes, drains: bool = False) -> None:
        self.response = StockResponse(parse_head(GET, lenient=True), self._never)
        self.refusals: list[str] = []
        if drains:
            self.response.is_followed = lambda: False
        self.left = b"".join(self.response.observe(each, self._refuse) for each in pieces)

    def _never(self, data: bytes) -> None:
        raise AssertionError

    def _refuse(self, fault: str) -> tuple[BlockingResponse, bytes]:
        self.refusals.append(fault)
        page = BlockingResponse(parse_head(GET, lenient=True), self._never)
        page.status = 500
        return page, PAGE


def seen(*pieces: bytes) -> tuple[int, int, bool]:
    """The status and the size of the body, and whether all has left as it was sent."""
    observed = Observed(*pieces)
    return observed.response.status, observed.response.sent, observed.left == b"".join(pieces)


#: A head is remembered: the second time it is looked at otherwise.
@pytest.fixture(params=[1, 2], ids=["once", "again"])
def times(request: pytest.FixtureRequest) -> Any:
    return range(request.param)


def test_status_and_size_are_learned_however_it_comes(times: range) -> None:
    head = HEAD % (b"404 Never Heard Of", b"4")
    for _ in times:
        assert seen(head + b"body") == (404, 4, True)
        assert seen(head, b"bo", b"dy") == (404, 4, True)
        assert seen(head) == (404, 0, True)


def test_two_heads_that_differ_in_a_byte_are_two(times: range) -> None:
    for _ in times:
        for status in (200, 201):
            assert seen(HEAD % (b"%d" % status, b"0"))[0] == status


def test_the_status_behind_an_interim_response_is_the_final_one(times: range) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    head = HEAD % (b"200 OK", b"4")
    for _ in times:
        assert seen(interim + head + b"body") == (200, 4, True)
        assert seen(head + b"body") == (200, 4, True)


def test_a_head_that_leaves_a_doubt_is_refused_each_time(times: range) -> None:
    head = HEAD % (b"200 OK", b"4\r\nContent-Length: 5")
    for _ in times:
        observed = Observed(head + b"body", b" and more")
        assert observed.left == PAGE
        assert len(observed.refusals) == 1
        assert (observed.response.status, observed.response.close) == (500, True)


def test_what_is_no_head_is_sent_as_it_is(times: range) -> None:
    for _ in times:
        assert seen(b"anything at all") == (0, 15, True)
        assert seen(b"\r\n\r\n") == (0, 4, True)


def test_while_the_service_stops_it_ends_the_connection(times: range) -> None:
    head = HEAD % (b"200 OK", b"4\r\nConnection: keep-alive")
    assert seen(head + b"body") == (200, 4, True)  # it is known by now
    for _ in times:
        observed = Observed(head + b"body", drains=True)
        assert observed.left == (
            b"HTTP/1.0 200 OK\r\nServer: x\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"
        )
        assert observed.response.close
