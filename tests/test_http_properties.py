"""What holds for any HTTP/1 bytes, however they are cut; h11 is the oracle of what they say."""

import re
from dataclasses import dataclass
from typing import Any

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire import HOST, exchange

quick = settings(max_examples=150, deadline=None)
long = settings(max_examples=500, deadline=None)

TOKEN_BYTES = b"!#$%&'*+-.^_`|~09azAZ"


def words(alphabet: bytes, **sizes: int) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(list(alphabet)), **sizes).map(bytes)


#: Rich in what ends something elsewhere.
contents = st.lists(
    st.sampled_from([b"\r\n", b"\r\n\r\n", b"0\r\n", b"\0", b"GET /", b"a", b"x" * 40]), max_size=6
).map(b"".join)
tokens = words(TOKEN_BYTES, min_size=1, max_size=9)
methods = st.one_of(st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS"]), tokens).filter(
    lambda method: method != b"CONNECT"
)
targets = words(b"/?#%aZ09-._~:@!$&'()*+,;=[]\"<>\\^`{|}", max_size=12).map(
    lambda path: b"/" + path
)
values = words(b'aZ0 \t,;:="\\()\x80\xff', max_size=12)
#: None of those that decide about framing is made of what tokens are made of here.
fields = st.lists(st.tuples(tokens, values), max_size=5).map(
    lambda pairs: b"".join(b"%b: %b\r\n" % pair for pair in pairs)
)
connections = st.sampled_from([b"", b"", b"Connection: close\r\n", b"Connection: keep-alive\r\n"])
extensions = st.sampled_from([b"", b"", b";a", b';a=b;c="d; \\" "', b" ; a\t=\tb"])
cuts = st.lists(st.integers(0, 400), max_size=12)


@dataclass
class Good:
    """A request, as its bytes and as what they mean."""

    method: bytes
    target: bytes
    body: bytes
    raw: bytes


@st.composite
def good_requests(draw: Any) -> Good:
    method, target = draw(methods), draw(targets)
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.0"]))
    head = b"%b %b HTTP/%b\r\n%b%b" % (method, target, version, HOST, draw(fields))
    head += draw(connections)
    framing = draw(st.sampled_from(["none", "counted"] + ["chunked"] * (version == b"1.1")))
    if framing == "none":
        return Good(method, target, b"", head + b"\r\n")
    if framing == "counted":
        body = draw(contents)
        return Good(method, target, body, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    chunks = [chunk for chunk in draw(st.lists(contents, max_size=4)) if chunk]
    framed = b"".join(
        b"%b%b\r\n%b\r\n" % (draw(st.sampled_from([b"%x", b"%X", b"0%x"])) % len(chunk), ext, chunk)
        for chunk in chunks
        for ext in [draw(extensions)]
    )
    last = b"0%b\r\n%b\r\n" % (draw(extensions), draw(fields))
    return Good(
        method,
        target,
        b"".join(chunks),
        head + b"Transfer-Encoding: chunked\r\n\r\n" + framed + last,
    )


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


# h11's reading


def by_h11(data: bytes) -> tuple[list[tuple[bytes, bytes, bytes, Any]], str | None]:
    """
    What h11 makes of a connection's bytes, answering each request at once: method, target,
    body and header fields; and what it says of what is no request.
    """
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(data)
    server.receive_data(b"")
    seen: list[tuple[bytes, bytes, bytes, Any]] = []
    request, body = None, b""
    while True:
        try:
            event = server.next_event()
        except h11.RemoteProtocolError as error:
            return seen, str(error)
        if isinstance(event, h11.Request):
            request, body = event, b""
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            found = [(name.title(), value) for name, value in request.headers]
            seen.append((request.method, request.target, body, found))
            server.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            server.send(h11.EndOfMessage())
            if server.our_state is not h11.DONE or server.their_state is not h11.DONE:
                return seen, None
            server.start_next_cycle()
        else:  # the end of the connection, or of what HTTP has to say
            return seen, None


def ours(data: bytes, **options: Any) -> tuple[list[tuple[bytes, bytes, bytes, Any]], str | None]:
    seen = exchange(data, **options)
    return [
        (
            head.method.encode(),
            head.target.encode("latin-1"),
            body,
            [(name.title(), value) for name, value in head.fields],
        )
        for head, body in seen.requests
    ], None if seen.error is None else str(seen.error)


# Good requests


@quick
@given(pipelines)
def test_good_requests_are_read_as_they_were_meant_and_as_h11_reads_them(
    requests: list[Good],
) -> None:
    data = b"".join(request.raw for request in requests)
    read, error = ours(data)
    assert error is None
    assert (read, error) == by_h11(data)
    assert [request[:3] for request in read] == [
        (request.method, request.target, request.body) for request in requests[: len(read)]
    ]


@quick
@given(good_requests(), st.sampled_from([b"GET", b"PROPFIND", b"BREW"]))
def test_a_method_says_nothing_about_framing(request_: Good, method: bytes) -> None:
    data = method + request_.raw[len(request_.method) :]
    ((_, target, body, _),), error = ours(data)
    assert (target, body, error) == (request_.target, request_.body, None)


# Any bytes


def http_0_9_with_more(data: bytes) -> bool:
    """
    Whether it has an HTTP/0.9 request with something behind it: that is refused if it comes
    with it, and is not waited for.
    """
    return re.search(rb"GET [\x21-\x7e]+\r\n", data) is not None


@long
@given(mutated_requests(), cuts, st.booleans())
def test_any_cut_of_the_same_bytes_reads_the_same(
    data: bytes, at: list[int], lenient: bool
) -> None:
    if http_0_9_with_more(data) and not lenient:
        return
    whole = exchange(data, lenient=lenient).summary
    assert exchange(data, cuts=at, lenient=lenient).summary == whole
    assert exchange(data, cuts=range(len(data)), lenient=lenient).summary == whole


@quick
@given(mutated_requests())
def test_lenient_reads_what_strict_reads(data: bytes) -> None:
    strict, lenient = ours(data)[0], ours(data, lenient=True)[0]
    assert lenient[: len(strict)] == strict
