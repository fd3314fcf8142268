"""The wire: a connection's bytes as requests, and what is refused."""

import time

import pytest

from sockserve.http.h1.chunks import MAX_CHUNK_LINE_BYTES, MAX_CHUNK_OVERHEAD_BYTES
from sockserve.http.h1.framing import (
    TRANSITIONS,
    Event,
    LocalProtocolError,
    RemoteProtocolError,
    State,
)
from sockserve.http.h1.head import HeadParser, RequestHead
from sockserve.http.h1.reader import MAX_SKIP_BYTES, RequestParser
from sockserve.http.h1.sizes import MAX_HEADER_BYTES, MAX_HEADER_FIELDS, MAX_LINE_BYTES
from tests.wire import HOST, exchange

GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
COUNTED_POST = POST + b"Content-Length: %d\r\n\r\n"

both_whole_and_dripped = pytest.mark.parametrize("dripped", [False, True])


def reader_in(state: State) -> RequestParser:
    """A reader that has come to a state."""
    data = {
        State.IDLE: b"",
        State.HEAD: b"GET / ",
        State.COUNTED_BODY: POST + b"Content-Length: 3\r\n\r\n",
        State.CHUNKED_BODY: CHUNKED,
        State.COMPLETE: GET,
        State.SWITCHED: GET,
        State.ENDED: b"",
        State.FAILED: b" ",
    }[state]
    reader = RequestParser(HeadParser())
    if state is State.ENDED:
        reader.feed_eof()
    if data:
        reader.feed(data)
    if state is State.FAILED:
        with pytest.raises(RemoteProtocolError):
            reader.next_event()
    else:
        reader.next_event()
    if state is State.SWITCHED:
        assert reader.switch() == b""
    assert reader.state is state
    return reader


def feed(data: bytes):
    def act(reader: RequestParser) -> None:
        reader.feed(data)
        while reader.next_event() not in (Event.END, None):
            pass

    return act


def fail(data: bytes):
    def act(reader: RequestParser) -> None:
        reader.feed(data)
        with pytest.raises(RemoteProtocolError):
            reader.next_event()

    return act


def end_file(reader: RequestParser) -> None:
    reader.feed_eof()
    assert reader.next_event() is None


def end_file_early(reader: RequestParser) -> None:
    reader.feed_eof()
    with pytest.raises(RemoteProtocolError) as raised:
        reader.next_event()
    assert raised.value.status == 400


COUNTED_HEAD = POST + b"Content-Length: 3\r\n\r\n"
REST = b"HTTP/1.1\r\n" + HOST
DRIVEN = {
    (State.IDLE, Event.BEGUN): feed(b"G"),
    (State.IDLE, Event.BODILESS): feed(GET),
    (State.IDLE, Event.COUNTED): feed(COUNTED_HEAD),
    (State.IDLE, Event.CHUNKED): feed(CHUNKED),
    (State.IDLE, Event.EOF): end_file,
    (State.IDLE, Event.ERROR): fail(b"\x16\x03\x01"),
    (State.HEAD, Event.BODILESS): feed(REST + b"\r\n"),
    (State.HEAD, Event.COUNTED): feed(REST + b"Content-Length: 3\r\n\r\n"),
    (State.HEAD, Event.CHUNKED): feed(REST + b"Transfer-Encoding: chunked\r\n\r\n"),
    (State.HEAD, Event.EOF): end_file_early,
    (State.HEAD, Event.ERROR): fail(b"\0\r\n"),
    (State.COUNTED_BODY, Event.END): feed(b"123"),
    (State.COUNTED_BODY, Event.EOF): end_file_early,
    (State.CHUNKED_BODY, Event.END): feed(b"3\r\n123\r\n0\r\n\r\n"),
    (State.CHUNKED_BODY, Event.EOF): end_file_early,
    (State.CHUNKED_BODY, Event.ERROR): fail(b"z"),
    (State.COMPLETE, Event.NEXT): RequestParser.next_request,
    (State.COMPLETE, Event.SWITCH): RequestParser.switch,
}
REQUEST_STATES = list(State)[: list(State).index(State.AWAITED)]


def test_all_transitions_of_requests_are_driven_below() -> None:
    rows = {(state, event) for state in REQUEST_STATES for event in TRANSITIONS[state]}
    assert rows == set(DRIVEN)


@pytest.mark.parametrize(("state", "event"), DRIVEN)
def test_transition(state: State, event: Event) -> None:
    reader = reader_in(state)
    DRIVEN[state, event](reader)
    assert reader.state is TRANSITIONS[state][event]


@pytest.mark.parametrize("act", [RequestParser.next_request, RequestParser.switch])
@pytest.mark.parametrize("state", [state for state in REQUEST_STATES if state != State.COMPLETE])
def test_what_is_not_complete_is_not_left(state: State, act) -> None:
    reader = reader_in(state)
    with pytest.raises(LocalProtocolError):
        act(reader)
    assert reader.state is state


@pytest.mark.parametrize("state", [State.COMPLETE, State.SWITCHED, State.ENDED, State.FAILED])
def test_nothing_more_is_read(state: State) -> None:
    reader = reader_in(state)
    reader.feed(GET)
    reader.feed_eof()
    assert reader.next_event() is None
    assert reader.state is state


# Bodies


@both_whole_and_dripped
@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (GET, b""),
        (POST + b"\r\n", b""),
        (POST + b"Content-Length: 0\r\n\r\n", b""),
        (POST + b"Content-Length: 003\r\n\r\n1\r\n", b"1\r\n"),
        (CHUNKED + b"0\r\n\r\n", b""),
        (CHUNKED + b"3\r\n123\r\n0\r\n\r\n", b"123"),
        (CHUNKED + b"000A\r\n0123456789\r\na\r\n0123456789\r\n00\r\n\r\n", b"0123456789" * 2),
        # Nothing in a chunk's data is the end of anything.
        (CHUNKED + b"7\r\n\r\n0\r\n\r\n\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n0\r\n\r\n\r\n\r\n"),
        # Extensions, with the white space that there may be (RFC 9112 section 7.1.1)
        (CHUNKED + b'1;a\r\n1\r\n1 ;a\t= b ; c\r\n2\r\n0;d="; \\" \\\\\x80"\r\n\r\n', b"12"),
        # Trailers
        (CHUNKED + b"1\r\n1\r\n0\r\nA: b\r\nC:\r\nContent-Length: 5\r\n\r\n", b"1"),
    ],
)
def test_body(sent: bytes, body: bytes, dripped: bool) -> None:
    seen = exchange(sent + GET, cuts=range(len(sent)) if dripped else ())
    assert seen.status is None
    assert [(head.target, content) for head, content in seen.requests] == [("/", body), ("/", b"")]


@both_whole_and_dripped
@pytest.mark.parametrize(
    "chunks",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"1_0\r\n",
        b" 1\r\n",
        b"1 \r\n1\r\n",
        b"1\n1\r\n",
        b"1\r1\r\n",
        b"1\r\n12\r\n",
        b"1\r\n1\n0\r\n",
        b"1\r\n1\r0\r\n",
        b"1\r\n10\r\n",
        b"\xef\xbc\x91\r\n1\r\n",
        b"00000000000000001\r\n",
        b"1\x00\r\n",
        b"1;\r\n",
        b"1;=b\r\n",
        b"1;a=\r\n",
        b'1;a="\r\n',
        b'1;a="\n"\r\n',
        b"1;a=b c\r\n",
        b"1;a\x00\r\n",
        b"1,a\r\n",
        b"0\r\n\n",
        b"0\r\n\rx",
        b"0\r\n:\r\n",
        b"0\r\na\r\n",
        b"0\r\na :b\r\n",
        b"0\r\na: b\r\n c\r\n",
        b"0\r\na: \x00\r\n",
        b"0\r\na: b\rc\r\n",
        b"0\r\na: b\n\r\n",
    ],
)
def test_chunks_that_are_none(chunks: bytes, dripped: bool) -> None:
    sent = CHUNKED + b"2\r\n==\r\n" + chunks + b"\r\n0\r\n\r\n"
    for lenient in [False, True]:
        seen = exchange(sent, cuts=range(len(sent)) if dripped else (), lenient=lenient)
        assert seen.status == 400
        assert not seen.requests
        assert seen.partial is not None
        assert seen.partial.startswith(b"=="), "what was good comes first"


@pytest.mark.parametrize("begun", [b"z", b"12345678901234567", b"1z", b"2\r\n==x", b"0\r\n x"])
def test_what_becomes_no_chunk_is_not_waited_for(begun: bytes) -> None:
    reader = reader_in(State.CHUNKED_BODY)
    reader.feed(begun)
    with pytest.raises(RemoteProtocolError):
        reader.next_event(), reader.next_event()


def test_a_body_comes_as_it_arrives() -> None:
    for head, sent in [(COUNTED_HEAD, [b"1", b"23"]), (CHUNKED, [b"3\r\n1", b"23\r\n0\r\n\r\n"])]:
        reader = RequestParser(HeadParser())
        reader.feed(head)
        assert isinstance(reader.next_event(), RequestHead)
        assert reader.next_event() is None
        reader.feed(sent[0])
        assert reader.next_event() == b"1"
        assert reader.next_event() is None
        reader.feed(sent[1])
        assert reader.next_event() == b"23"
        assert reader.next_event() is Event.END
        assert reader.next_event() is None


@pytest.mark.parametrize("over", [0, 1])
def test_a_counted_body_is_skipped_unless_it_is_large(over: int) -> None:
    reader, size = RequestParser(HeadParser()), MAX_SKIP_BYTES + over
    reader.feed(COUNTED_POST % size + b"x" * 10)
    reader.next_event()
    assert reader.can_skip_body() is (not over)
    reader.skip_body()
    assert reader.can_skip_body() is (not over), "what is thrown away counts"
    assert not reader.has_whole_body()
    reader.feed(b"x" * (size - 10) + GET)
    reader.skip_body()
    assert reader.has_whole_body()
    assert reader.buffered == len(GET)


def test_what_was_read_of_a_body_need_not_be_skipped() -> None:
    reader = RequestParser(HeadParser())
    reader.feed(COUNTED_POST % (MAX_SKIP_BYTES + 1) + b"x")
    reader.next_event()
    assert not reader.can_skip_body()
    assert reader.next_event() == b"x"
    assert reader.can_skip_body()


def test_a_body_in_chunks_is_skipped_until_it_proves_large() -> None:
    reader = RequestParser(HeadParser())
    chunk = b"1000\r\n%b\r\n" % (b"x" * 4096)
    reader.feed(CHUNKED)
    reader.next_event()
    for _ in range(MAX_SKIP_BYTES // 4096):
        reader.feed(chunk)
        reader.skip_body()
        assert reader.can_skip_body()
    reader.feed(b"1\r\nx\r\n")
    reader.skip_body()
    assert not reader.can_skip_body()


def test_each_body_is_skipped_by_itself() -> None:
    reader = RequestParser(HeadParser())
    for _ in range(2):
        reader.feed(COUNTED_POST % MAX_SKIP_BYTES + b"x" * MAX_SKIP_BYTES)
        reader.next_event()
        reader.skip_body()
        assert reader.has_whole_body()
        reader.next_request()


def test_a_body_that_breaks_the_protocol_cannot_be_skipped() -> None:
    reader = RequestParser(HeadParser())
    reader.feed(CHUNKED + b"no size\r\n")
    reader.next_event()
    reader.skip_body()
    assert not reader.can_skip_body()
    assert not reader.has_whole_body()


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (GET, False),
        (GET + b"G", True),
        (COUNTED_POST % 5, False),
        (COUNTED_POST % 5 + b"hello", False),
        (COUNTED_POST % 5 + b"helloG", True),
        (CHUNKED + b"0\r\n\r\nG", False),  # not before the body is read
        (b"", False),
        (GET[:5], False),
    ],
)
def test_what_waits_behind_a_request_is_a_further_one(sent: bytes, expected: bool) -> None:
    reader = RequestParser(HeadParser())
    reader.feed(sent)
    reader.next_event()
    assert reader.has_next_request() is expected


# One request at a time


@both_whole_and_dripped
@pytest.mark.parametrize("first", [GET, COUNTED_HEAD + b"123", CHUNKED + b"1\r\n1\r\n0\r\n\r\n"])
def test_what_follows_a_request_waits_unread(first: bytes, dripped: bool) -> None:
    following = b"\0 whatever it is\r\n\r\n"
    reader = RequestParser(HeadParser())
    events = []
    for piece in [bytes([byte]) for byte in first] if dripped else [first]:
        reader.feed(piece)
        if dripped:
            events.append(reader.next_event())
    reader.feed(following)
    while reader.state is not State.COMPLETE:
        events.append(reader.next_event())
    assert reader.next_event() is None
    assert reader.buffered == len(following)
    assert not reader.is_empty()
    reader.next_request()
    with pytest.raises(RemoteProtocolError):
        reader.next_event()
    assert reader.buffered == 0


@both_whole_and_dripped
def test_pipelined_requests_come_in_order(dripped: bool) -> None:
    requests = [
        (b"GET /%d HTTP/1.1\r\n" % number) + HOST + end
        for number, end in enumerate(
            [
                b"\r\n",
                b"Content-Length: 5\r\n\r\nGET /",
                b"Transfer-Encoding: Chunked\r\n\r\n1\r\n0\r\n0\r\n\r\n",
                b"Connection: close\r\n\r\n",
                b"\r\n",
            ]
        )
    ]
    sent = b"".join(requests)
    seen = exchange(sent, cuts=range(len(sent)) if dripped else ())
    assert [(head.target, body) for head, body in seen.requests] == [
        ("/0", b""),
        ("/1", b"GET /"),
        ("/2", b"0"),
        ("/3", b""),  # the client said that it is its last
    ]


def test_empty_lines_before_a_request() -> None:
    """RFC 9112 section 2.2."""
    sent = b"\r\n\r\n" + GET + b"\r\n" + GET + b"\r\n\r"
    for cuts in [(), range(len(sent))]:
        seen = exchange(sent, cuts=cuts)
        assert [head.raw for head, _ in seen.requests] == [GET, GET]
        assert seen.status is None, "the end of the file comes between requests"
    assert exchange(b"\n" + GET).status == 400
    assert exchange(b"\n" + GET, lenient=True).requests
    assert exchange(b"\r" + GET).status == 400


@both_whole_and_dripped
@pytest.mark.parametrize("begun", [b"GET / HTTP/1.1\n", GET[:-2] + b"X: y\n", POST + b"X: y\n"])
def test_a_line_that_ends_with_lf_alone_is_not_waited_behind(begun: bytes, dripped: bool) -> None:
    """Its client gets to know at once, not when the head's deadline has passed."""
    pieces = [begun[at : at + 1] for at in range(len(begun))] if dripped else [begun]
    strict, lenient = RequestParser(HeadParser()), RequestParser(HeadParser(lenient=True))
    for piece in pieces[:-1]:
        strict.feed(piece)
        assert strict.next_event() is None
    strict.feed(pieces[-1])
    with pytest.raises(RemoteProtocolError) as caught:
        strict.next_event()
    assert caught.value.status == 400
    for piece in pieces:
        lenient.feed(piece)
        assert lenient.next_event() is None


def test_a_line_break_may_come_in_two_pieces() -> None:
    reader = RequestParser(HeadParser())
    for piece in GET.splitlines(keepends=True)[:-1]:
        reader.feed(piece[:-1])
        assert reader.next_event() is None
        reader.feed(b"\n")
        assert reader.next_event() is None
    reader.feed(b"\r\n")
    assert isinstance(reader.next_event(), RequestHead)


def test_bytes_wait_for_a_switch_of_protocols() -> None:
    for request in [
        b"CONNECT example.org:443 HTTP/1.1\r\n" + HOST + b"\r\n",
        GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        COUNTED_HEAD[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n123",
    ]:
        reader = RequestParser(HeadParser())
        reader.feed(request + b"\x16\x03\r\n\r\n")
        head = reader.next_event()
        assert isinstance(head, RequestHead)
        assert head.field(b"upgrade") in (None, b"websocket", b"h2c")
        while reader.state is not State.COMPLETE:
            reader.next_event()
        assert reader.switch() == b"\x16\x03\r\n\r\n"
        assert reader.buffered == 0


# The end of the file


@pytest.mark.parametrize(
    "sent",
    [
        b"G",
        b"\r\nG",
        GET[:-1],
        COUNTED_HEAD + b"12",
        CHUNKED,
        CHUNKED + b"1",
        CHUNKED + b"1\r\n1\r",
        CHUNKED + b"1\r\n1\r\n0\r\n\r",
    ],
)
def test_a_request_cut_off(sent: bytes) -> None:
    seen = exchange(GET + sent)
    assert len(seen.requests) == 1
    assert seen.status == 400


@pytest.mark.parametrize("sent", [GET, COUNTED_HEAD + b"123", CHUNKED + b"0\r\n\r\n"])
def test_a_request_whose_client_shuts_its_side_at_once(sent: bytes) -> None:
    reader = RequestParser(HeadParser())
    assert reader.is_empty()
    reader.feed(sent + sent)
    reader.feed_eof()
    assert reader.eof
    for _ in range(2):
        while reader.state is not State.COMPLETE:
            assert reader.next_event() is not None
        reader.next_request()
    assert reader.next_event() is None
    assert reader.state is State.ENDED
    assert not reader.is_empty(), "no more may come"


# Limits


def section(size: int) -> bytes:
    """A header section of that many bytes, with its empty line."""
    return HOST + b"A: " + b"x" * (size - len(HOST) - 7) + b"\r\n\r\n"


def request_line(size: int) -> bytes:
    return b"GET /" + b"x" * (size - 16) + b" HTTP/1.1\r\n"


def fields(count: int) -> bytes:
    return b"".join(b"A%d: b\r\n" % number for number in range(count))


LINE = b"GET / HTTP/1.1\r\n"
MANY_LINES = CHUNKED + b"1\r\n1\r\n0\r\n"


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("step", [1 << 30, 1000])
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request_line(MAX_LINE_BYTES) + HOST + b"\r\n", None),
        (request_line(MAX_LINE_BYTES + 1) + HOST + b"\r\n", 414),
        (b"GET /" + b"x" * MAX_LINE_BYTES, 414),
        (b"A" * (MAX_LINE_BYTES + 1), 414),
        (LINE + section(MAX_HEADER_BYTES), None),
        (LINE + section(MAX_HEADER_BYTES + 1), 431),
        (LINE + b"A: " + b"x" * MAX_HEADER_BYTES, 431),
        (b"BREW / HTTP/1.1\r\n" + section(MAX_HEADER_BYTES + 1), 431),
        (request_line(MAX_LINE_BYTES) + section(MAX_HEADER_BYTES), None),
        (LINE + HOST + fields(MAX_HEADER_FIELDS - 1) + b"\r\n", None),
        (LINE + HOST + fields(MAX_HEADER_FIELDS) + b"\r\n", 431),
        (MANY_LINES + fields(MAX_HEADER_FIELDS) + b"\r\n", None),
        (MANY_LINES + fields(MAX_HEADER_FIELDS + 1) + b"\r\n", 431),
        (MANY_LINES + b"A: " + b"x" * MAX_HEADER_BYTES, 431),
        (MANY_LINES + (b"A: " + b"x" * 1000 + b"\r\n") * 70, 431),
        (CHUNKED + b"0;" + b"x" * (MAX_CHUNK_LINE_BYTES - 4) + b"\r\n\r\n", None),
        (CHUNKED + b"0;" + b"x" * (MAX_CHUNK_LINE_BYTES - 3) + b"\r\n\r\n", 431),
        (CHUNKED + b"0;" + b"x" * MAX_CHUNK_LINE_BYTES, 431),
        # A chunk for each byte, without and with much beside it
        (CHUNKED + b"1\r\nx\r\n" * MAX_CHUNK_OVERHEAD_BYTES + b"0\r\n\r\n", None),
        (CHUNKED + (b"1;" + b"x" * 1000 + b"\r\nx\r\n") * 16 + b"0\r\n\r\n", None),
        (CHUNKED + (b"1;" + b"x" * 1000 + b"\r\nx\r\n") * 17, 431),
        # Much body is no licence for much beside it.
        (
            CHUNKED
            + b"FFFF\r\n"
            + b"x" * 0xFFFF
            + b"\r\n"
            # As many as above, each of 1005 bytes and 2 more, less 16 for it and 2 for its body
            + (b"1;" + b"x" * 1000 + b"\r\nx\r\n") * 17,
            431,
        ),
    ],
)
def test_limit(sent: bytes, status: int | None, step: int, lenient: bool) -> None:
    seen = exchange(sent, cuts=range(0, len(sent), step), lenient=lenient)
    assert seen.status == status
    assert len(seen.requests) == (status is None)


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize(
    "sent",
    [
        b"A" * 60_000,
        b"GET /" + b"x" * 60_000,
        LINE + b"A: " + b"x" * 60_000,
        LINE + b"A:\r\n" * 12_000,
        CHUNKED + b"0\r\nA: " + b"x" * 60_000,
        CHUNKED + b"0\r\n" + b"A" * 60_000,
        b"\r\n" * 30_000,
    ],
)
def test_dripping_is_no_attack(sent: bytes, lenient: bool) -> None:
    """
    Bytes that come one at a time cost about as much each, however many came before: all of them
    together not much more than the first of them as often as that makes as many.  A pattern that
    looks at each again for every other takes many times as much.
    """

    def seconds(sent: bytes) -> float:
        reader = RequestParser(HeadParser(lenient))
        started = time.thread_time()
        for byte in sent:
            reader.feed(bytes([byte]))
            while reader.next_event() is not None:
                pass
        return time.thread_time() - started

    parts = 16
    first = sent[: len(sent) // parts]
    # What else the machine does shows in one of them more than in the other.
    assert any(seconds(sent) < 2.5 * sum(seconds(first) for _ in range(parts)) for _ in range(3))
