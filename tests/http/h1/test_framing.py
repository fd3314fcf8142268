"""Framing: how a response's body is delimited, as its client reads it."""

import h11
import pytest

from sockserve.http.h1.framing import (
    TRANSITIONS,
    Event,
    LocalProtocolError,
    ResponseFraming,
    State,
    response_fault,
)

GET_1_1 = ("GET", (1, 1), 200, None, None)


@pytest.mark.parametrize(
    ("method", "version", "status", "length", "coding", "state"),
    [
        ("GET", (1, 1), 200, None, None, State.CHUNKED),
        ("GET", (1, 1), 200, 5, None, State.COUNTED),
        ("GET", (1, 1), 200, 0, None, State.COUNTED),
        ("GET", (1, 0), 200, 5, None, State.COUNTED),
        ("GET", (1, 0), 200, None, None, State.UNTIL_CLOSE),
        # It has no place for a length or for chunks.
        ("GET", (0, 9), 200, 5, None, State.UNTIL_CLOSE),
        # RFC 9112 section 6.3: these have no body, whatever their fields say.
        ("HEAD", (1, 1), 200, 5, None, State.BODILESS),
        ("HEAD", (1, 0), 200, None, "chunked", State.BODILESS),
        ("GET", (1, 1), 204, None, None, State.BODILESS),
        ("GET", (1, 1), 304, 5, None, State.BODILESS),
        ("GET", (1, 1), 205, 0, None, State.COUNTED),
        # What follows is the handler's own.
        ("GET", (1, 1), 200, None, "chunked", State.UNTIL_CLOSE),
        ("GET", (1, 1), 101, None, None, State.UNTIL_CLOSE),
        ("CONNECT", (1, 1), 200, None, None, State.UNTIL_CLOSE),
        ("CONNECT", (1, 1), 200, 5, None, State.UNTIL_CLOSE),
        ("CONNECT", (1, 1), 405, 5, None, State.COUNTED),
    ],
)
def test_the_head_decides(method, version, status, length, coding, state) -> None:
    framing = ResponseFraming()
    assert framing.begin(method, version, status, length, coding) is state
    assert framing.state is state


BODIES = [
    [],
    [b""],
    [b"one"],
    [b"one", b"", b"two\r\n\r\n", b"0\r\n\r\n"],
    [b"x" * 70_000, b"\0"],
]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("version", "counted", "field"),
    [
        ((1, 1), False, b"Transfer-Encoding: chunked\r\n"),
        ((1, 1), True, b"Content-Length: %d\r\n"),
        ((1, 0), True, b"Content-Length: %d\r\n"),
        ((1, 0), False, b""),
    ],
)
def test_a_client_reads_what_was_written(version, counted, field, method, body) -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    length = sum(map(len, body))
    framing = ResponseFraming()
    framing.begin(method, version, 200, length if counted else None, None)
    sent = [framing.data(piece) for piece in body]
    sent.append(framing.end())
    field = field % length if counted else field
    client.receive_data(b"HTTP/%d.%d 200 OK\r\n%b\r\n" % (*version, field) + b"".join(sent))
    until_close = not field and method == "GET"
    if until_close:
        client.receive_data(b"")
    received = b""
    assert isinstance(client.next_event(), h11.Response)
    while isinstance(event := client.next_event(), h11.Data):
        received += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert received == (b"" if method == "HEAD" else b"".join(body))
    assert client.trailing_data == (b"", until_close)
    assert framing.state is State.SENT


def test_bytes_of_a_chunked_body() -> None:
    framing = ResponseFraming()
    framing.begin(*GET_1_1)
    assert framing.data(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert framing.data(b"") == b"", "an empty chunk would end it"
    assert framing.end() == b"0\r\n\r\n"


@pytest.mark.parametrize("arguments", [GET_1_1, ("HEAD", (1, 1), 200, None, None)])
def test_a_request_has_one_response(arguments) -> None:
    framing = ResponseFraming()
    framing.begin(*arguments)
    for end in [lambda: None, framing.end]:
        end()
        with pytest.raises(LocalProtocolError):
            framing.begin(*arguments)


def test_a_body_needs_a_head() -> None:
    framing = ResponseFraming()
    with pytest.raises(LocalProtocolError):
        framing.data(b"x")
    with pytest.raises(LocalProtocolError):
        framing.end()
    assert framing.begin(*GET_1_1) is State.CHUNKED, "no harm done"


@pytest.mark.parametrize("length", [None, 0])
def test_nothing_follows_the_end(length) -> None:
    framing = ResponseFraming()
    framing.begin("GET", (1, 1), 200, length, None)
    framing.end()
    with pytest.raises(LocalProtocolError):
        framing.data(b"x")
    with pytest.raises(LocalProtocolError):
        framing.end()


def test_more_than_the_content_length() -> None:
    framing = ResponseFraming()
    framing.begin("GET", (1, 1), 200, 5, None)
    assert framing.data(b"123") == b"123"
    with pytest.raises(LocalProtocolError, match="2 bytes too long"):
        framing.data(b"4567")
    assert framing.data(b"45") == b"45", "none of what was refused counts"
    assert framing.end() == b""


def test_less_than_the_content_length() -> None:
    framing = ResponseFraming()
    framing.begin("GET", (1, 1), 200, 5, None)
    framing.data(b"123")
    with pytest.raises(LocalProtocolError, match="2 bytes too short"):
        framing.end()


def test_every_transition_of_a_response() -> None:
    """Those of requests are in test_http_wire."""
    begin = {
        Event.BODILESS: ("HEAD", (1, 1), 200, None, None),
        Event.COUNTED: ("GET", (1, 1), 200, 0, None),
        Event.CHUNKED: GET_1_1,
        Event.UNTIL_CLOSE: ("GET", (1, 0), 200, None, None),
    }
    assert set(TRANSITIONS[State.AWAITED]) == set(begin)
    for event, arguments in begin.items():
        framing = ResponseFraming()
        assert framing.state is State.AWAITED
        framing.begin(*arguments)
        assert framing.state is TRANSITIONS[State.AWAITED][event]
        assert TRANSITIONS[framing.state] == {Event.END: State.SENT}
        framing.end()
        assert framing.state is State.SENT
    assert TRANSITIONS[State.SENT] == {}


def test_the_table_is_whole() -> None:
    assert set(TRANSITIONS) == set(State)
    to = {state for row in TRANSITIONS.values() for state in row.values()}
    assert to | {State.IDLE, State.AWAITED} == set(State)
    assert {event for row in TRANSITIONS.values() for event in row} == set(Event)


# What a handler has put into a head


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        (b"", None),
        (b"Content-Length: 5\r\n", None),
        (b"Content-Length: \t5 \t\r\n", None),
        (b"content-length:5 \r\nCONTENT-LENGTH: 5\r\n", None),
        (b"Transfer-Encoding: chunked\r\n", None),
        (b"X-Content-Length: x\r\nX: Transfer-Encoding: chunked\r\n", None),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "not both"),
        (b"transfer-encoding: \r\nA: b\r\nCONTENT-LENGTH: 5\r\n", "not both"),
        (b"Content-Length: 5\nTransfer-Encoding: chunked\n", "not both"),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", "5, 6"),
        (b"Content-Length: 5, 5\r\n", "not one number"),
        (b"Content-Length: -5\r\n", "-5"),
        (b"Content-Length: 5 5\r\n", "5 5"),
        (b"Content-Length:\r\n", "not one number"),
    ],
)
def test_a_head_must_not_tell_two_ends(fields: bytes, fault: str | None) -> None:
    said = response_fault(b"HTTP/1.1 200 OK\r\n" + fields)
    assert (said is None) == (fault is None)
    assert (fault or "") in (said or "")
