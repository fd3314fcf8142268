"""What holds for any HTTP/1 bytes, however they are cut; h11 is the oracle of what they say."""

import re
from dataclasses import dataclass
from typing import Any

import h11
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sockserve.http.h1.framing import ResponseFraming
from sockserve.http.h1.head import HeadParser
from tests.wire import HOST, exchange

quick = settings(max_examples=150, deadline=None)
long = settings(max_examples=400, deadline=None)

CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"

#: Rich in what ends something elsewhere.
contents = st.lists(
    st.sampled_from([b"\r\n", b"\r\n\r\n", b"0\r\n", b"\0", b"GET /", b"a", b"x" * 40]), max_size=6
).map(b"".join)
methods = st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS", b"get", b"!#$%&'*+-.^_`|~09aZ"])
targets = st.sampled_from(
    [b"/", b"/a%20b?c=d&e#f", b"//", b"/\"<>\\^`{|}~[]*@:;,'()", b"http://a:1/"]
)
fields = st.lists(
    st.sampled_from(
        [
            b"A:\r\n",
            b'a: b, c;d="\\""\r\n',
            b"B: \t \x80\xff \t\r\n",
            b"!#$%&'*+-.^_`|~09aZ:::\r\n",
            b"Content-Lengths: 5\r\n",
            b"Accept: */*\r\n",
        ]
    ),
    max_size=3,
).map(b"".join)
connections = st.sampled_from([b"", b"", b"Connection: close\r\n", b"Connection: keep-alive\r\n"])
extensions = st.sampled_from([b"", b"", b";a", b';a=b;c="d; \\" "', b"; a\t=\tb"])
cuts = st.lists(st.integers(0, 400), max_size=12)


@dataclass
class Good:
    """A request, as its bytes and as what they mean."""

    method: bytes
    target: bytes
    body: bytes
    raw: bytes
    #: Whether the client would not send another.
    last: bool


@st.composite
def good_requests(draw: Any) -> Good:
    method, target = draw(methods), draw(targets)
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.0"]))
    connection = draw(connections)
    last = b"close" in connection or (version == b"1.0" and not connection)
    way = draw(st.sampled_from(["none", "counted"] + ["chunked"] * (version == b"1.1")))
    body = framed = field = b""
    if way == "counted":
        body = framed = draw(contents)
        field = b"Content-Length: %d\r\n" % len(body)
    elif way == "chunked":
        chunks = [chunk for chunk in draw(st.lists(contents, max_size=4)) if chunk]
        body = b"".join(chunks)
        field = b"Transfer-Encoding: chunked\r\n"
        for chunk in chunks:
            size = draw(st.sampled_from([b"%x", b"%X", b"0%x"])) % len(chunk)
            framed += b"%b%b\r\n%b\r\n" % (size, draw(extensions), chunk)
        framed += b"0%b\r\n%b\r\n" % (draw(extensions), draw(fields))
    line = b"%b %b HTTP/%b\r\n" % (method, target, version)
    raw = b"".join([line, draw(fields), HOST, connection, field, draw(fields), b"\r\n", framed])
    return Good(method, target, body, raw, last)


pipelines = st.lists(good_requests(), min_size=1, max_size=3)

#: What tears a request, or makes two readers of it disagree.
DEBRIS = [
    *(bytes([byte]) for byte in b'\r\n \t:;,=0139afxG/*"\\+-_\0\x0b\x0c\x1f\x7f\x80\xa0\xff'),
    b"\r\n",
    b"\n\n",
    b"\r\n\r\n",
    b"\r\n ",
    b" :",
    b"0\r\n\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/1.2",
    b"HTTP/2.0",
    HOST,
    b"Content-Length: 3\r\n",
    b"Content-Length: 03\r\n",
    b"Content-Length: 3, 3\r\n",
    b"Content-Length: 4\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked, chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"Transfer-Encoding:\r\n chunked\r\n",
    b"Transfer-Encoding: \x0bchunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\n",
    b"POST /x HTTP/1.1\r\n",
]

BREAKS = re.compile(rb"(?<=\n)|(?<=[ :;])")


@st.composite
def mutated_requests(draw: Any) -> bytes:
    data = b"".join(request.raw for request in draw(pipelines))
    for _ in range(draw(st.integers(1, 3))):
        # At the seams of the grammar as often as anywhere.
        seams = [found.start() for found in BREAKS.finditer(data)] or [0]
        at = draw(st.one_of(st.sampled_from(seams), st.integers(0, len(data))))
        gone = draw(st.sampled_from([0, 0, 0, 1, 2]))
        data = data[:at] + draw(st.sampled_from([b"", *DEBRIS])) + data[at + gone :]
    return data


#: What is known of a request: method, target, version, body, header fields.
Read = tuple[bytes, bytes, bytes, bytes, list[tuple[bytes, bytes]]]


def ours(data: bytes, *, lenient: bool = False) -> list[Read]:
    """What a connection's bytes say."""
    return [
        (
            head.method.encode(),
            head.target.encode("latin-1"),
            b"%d.%d" % head.version,
            body,
            [(name.lower(), value) for name, value in head.fields],
        )
        for head, body in exchange(data, lenient=lenient).requests
    ]


def by_h11(data: bytes) -> tuple[list[Read], str]:
    """What they say to h11, and how it refuses what follows; empty if it does not."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(data)
    server.receive_data(b"")
    seen: list[Read] = []
    while True:
        try:
            request = server.next_event()
            if not isinstance(request, h11.Request):
                return seen, ""
            body = b""
            while isinstance(event := server.next_event(), h11.Data):
                body += event.data
        except h11.RemoteProtocolError as error:
            return seen, str(error)
        assert isinstance(event, h11.EndOfMessage)
        version = min(request.http_version, b"1.1")  # RFC 9110 section 2.5
        seen.append((request.method, request.target, version, body, list(request.headers)))
        server.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
        server.send(h11.EndOfMessage())
        if server.our_state is not h11.DONE or server.their_state is not h11.DONE:
            return seen, ""
        server.start_next_cycle()


# Good requests


@quick
@given(pipelines)
def test_good_requests_are_read_as_they_are_meant(requests: list[Good]) -> None:
    lasts = [index for index, request in enumerate(requests, 1) if request.last]
    expected = requests[: min(lasts, default=len(requests))]
    read = ours(b"".join(request.raw for request in requests))
    assert [(method, target, body) for method, target, _, body, _ in read] == [
        (request.method, request.target, request.body) for request in expected
    ]


@quick
@given(good_requests())
def test_a_good_request_is_read_as_by_h11(request_: Good) -> None:
    assert (ours(request_.raw), "") == by_h11(request_.raw)


@quick
@given(good_requests(), st.sampled_from([b"GET", b"PROPFIND", b"BREW"]))
def test_a_method_says_nothing_about_framing(request_: Good, method: bytes) -> None:
    ((_, target, _, body, _),) = ours(method + request_.raw[len(request_.method) :])
    assert (target, body) == (request_.target, request_.body)


# Any bytes


@long
@given(mutated_requests(), cuts, st.booleans(), st.booleans())
@example(b"GET /\r\nHost: a\r\n\r\n", [7], True, False)
@example(b"GET /\r\nHost: a\r\n\r\n", [7], False, True)
@example(b"GET /\r\nHost: a\r\n\r\n", [7], False, False)
def test_any_cut_of_the_same_bytes_reads_the_same(
    data: bytes, at: list[int], lenient: bool, simple: bool
) -> None:
    whole = exchange(data, lenient=lenient, simple=simple).summary
    for cuts_ in (at, range(len(data))):
        assert exchange(data, cuts=cuts_, lenient=lenient, simple=simple).summary == whole
    # A server that has read the same before, some of it as other pieces.
    heads = HeadParser(lenient, simple)
    for cuts_ in (at, (), at, range(len(data)), at):
        assert exchange(data, cuts=cuts_, heads=heads).summary == whole


@quick
@given(mutated_requests())
def test_lenient_reads_what_strict_reads(data: bytes) -> None:
    strict, lenient = ours(data), ours(data, lenient=True)
    assert lenient[: len(strict)] == strict


def tolerated(request: Read, read_before: list[Read], refused: str) -> bool:
    """
    Whether a request that h11 does not read is read here on purpose.

    @param refused: what h11 says of it.
    """
    *_, fields = request
    if not refused:
        # RFC 9112 section 9.3: an HTTP/1.0 client may ask to keep the connection.
        return read_before[-1][2] == b"1.0"
    if (b"transfer-encoding", b"chunked") not in [(name, value.lower()) for name, value in fields]:
        # RFC 9112 section 2.2: any number of empty lines before a request; h11 takes one.
        return refused == "no request line received"
    return (
        refused == "no request line received"
        # RFC 9112 section 7.1.1: white space before an extension's semicolon
        or re.match(r"illegal chunk header: \w+\(b'[0-9A-Fa-f]+(?: |\\t)+;", refused) is not None
        # RFC 9110 section 6.5.1: a trailer says nothing about framing, and is dropped.
        or re.search("Content-Length|Transfer-Encoding", refused) is not None
    )


@long
@given(mutated_requests())
@example(b"GET / HTTP/1.1\r\n%b\r\n\r\n\r\nGET / HTTP/1.1\r\n%b\r\n" % (HOST, HOST))
@example(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n")
@example(b"GET /\r\n")
@example(CHUNKED + b"1 ;a\r\n1\r\n0\r\n\r\n")
@example(CHUNKED + b"0\r\nContent-Length: x\r\n\r\n")
@example(CHUNKED + b"0\r\nTransfer-Encoding: gzip\r\n\r\n")
def test_nothing_is_read_but_as_by_h11(data: bytes) -> None:
    """
    Each request is the same, of the same bytes; what h11 refuses is refused, but for what
    L{tolerated} lists.  Much that h11 reads is refused here: lines that end with LF alone
    (RFC 9112 section 2.2), obs-fold (5.2), equal lengths, and a length beside chunks (6.3),
    chunks in HTTP/1.0 (6.1), HTTP/2.0 (RFC 9110 section 15.6.6), white space behind the size
    of a chunk and extensions that are none (7.1.1), targets of no form (3.2), hosts that are
    none (3.2).
    """
    read, (theirs, refused) = ours(data), by_h11(data)
    assert read[: len(theirs)] == theirs[: len(read)]
    if len(read) > len(theirs):
        assert tolerated(read[len(theirs)], read[: len(theirs)], refused), refused


# Responses


@quick
@given(st.lists(contents, max_size=6), st.sampled_from(["chunked", "counted", "until close"]))
def test_responses_are_read_as_they_were_written(body: list[bytes], way: str) -> None:
    framing = ResponseFraming()
    length = sum(map(len, body))
    version = (1, 0) if way == "until close" else (1, 1)
    framing.begin("GET", version, 200, length if way == "counted" else None, None)
    sent = b"".join([*map(framing.data, body), framing.end()])
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    field = {
        "chunked": b"Transfer-Encoding: chunked\r\n",
        "counted": b"Content-Length: %d\r\n" % length,
        "until close": b"",
    }[way]
    client.receive_data(b"HTTP/1.1 200 OK\r\n%b\r\n%b" % (field, sent))
    client.receive_data(b"")
    assert isinstance(client.next_event(), h11.Response)
    received = b""
    while isinstance(event := client.next_event(), h11.Data):
        received += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert received == b"".join(body)
