"""Heads: what a request's first lines say, and which are refused."""

import copy
import pickle
from collections.abc import Callable

import pytest

from sockserve.http.h1.framing import RemoteProtocolError
from sockserve.http.h1.head import REMEMBERED_HEADS, HeadLimits, HeadParser, RequestHead, parse_head
from tests.wire import HOST, exchange

LINE = b"GET / HTTP/1.1\r\n"


def status_of(raw: bytes, *, lenient: bool = False) -> int | None:
    """How a head is refused, however it arrives; None if it is not."""
    seen = {exchange(raw, cuts=cuts, lenient=lenient).status for cuts in [(), range(len(raw))]}
    assert len(seen) == 1
    return seen.pop()


def test_what_a_head_says() -> None:
    raw = b"PUT /a%20b?c HTTP/1.1\r\nhOST: a:80\r\nX-A: \t b\xe9 c \t\r\nX-A:\r\nX-Empty: \r\n\r\n"
    head = parse_head(raw, lenient=False)
    assert head.method == "PUT"
    assert head.target == "/a%20b?c"
    assert head.version == (1, 1)
    assert list(head.fields) == [
        (b"hOST", b"a:80"),
        (b"X-A", b"b\xe9 c"),
        (b"X-A", b""),
        (b"X-Empty", b""),
    ]
    assert head.raw == raw
    assert head.request_line == "PUT /a%20b?c HTTP/1.1"
    assert head.field(b"x-a") == b"b\xe9 c", "the first of that name"
    assert head.field(b"x-b") is None
    assert repr(head) == "<RequestHead PUT '/a%20b?c' (1, 1)>"
    assert (head.length, head.keep_alive, head.expects_continue) == (0, True, False)


BAD_LINES = [
    (b"GET", 400),
    (b"GET ", 400),
    (b"GET  / HTTP/1.1", 400),
    (b"GET / HTTP/1.1 ", 400),
    (b" GET / HTTP/1.1", 400),
    (b"GET /a b HTTP/1.1", 400),
    (b"GET\t/\tHTTP/1.1", 400),
    (b"GET / ", 400),
    (b"POST /", 400),
    (b"GET HTTP/1.1", 400),
    (b"G@T / HTTP/1.1", 400),
    (b"G\xc3T / HTTP/1.1", 400),
    (b"GET: / HTTP/1.1", 400),
    (b"GET / http/1.1", 400),
    (b"GET / HTTP/1", 400),
    (b"GET / HTTP/1.", 400),
    (b"GET / HTTP/1.10", 400),
    (b"GET / HTTP/11", 400),
    (b"GET / HTTP/+1.1", 400),
    (b"GET / HTTP /1.1", 400),
    (b"GET / HTTPS/1.1", 400),
    (b"GET / ICY/1.1", 400),
    (b"GET / HTTP/0.9", 505),
    (b"GET / HTTP/2.0", 505),
    (b"PRI * HTTP/2.0", 505),
    (b"GET /\0 HTTP/1.1", 400),
    (b"GET /\x7f HTTP/1.1", 400),
    (b"CONNECT \x80:80 HTTP/1.1", 400),
    (b"GET \x80 HTTP/1.1", 400),
    (b"GET /\x80 HTTP/1.1", 400),
    (b"BREW /\x80 HTTP/1.1", 400),
    (b"GET\x80 / HTTP/1.1", 400),
    (b"GET / HTTP/1.1\x80", 400),
    (b"GET /", 400),  # of HTTP/0.9, which nobody has asked for
    # RFC 9112 section 3.2: the forms of a target
    (b"GET * HTTP/1.1", 400),
    (b"M-SEARCH * HTTP/1.1", 400),
    (b"GET a HTTP/1.1", 400),
    (b"BREW a HTTP/1.1", 400),
    (b"GET ?a HTTP/1.1", 400),
    (b"GET a:80 HTTP/1.1", 400),
    (b"GET http:/// HTTP/2.0", 505),
    (b"CONNECT / HTTP/1.1", 400),
    (b"CONNECT a HTTP/1.1", 400),
    (b"CONNECT a: HTTP/1.1", 400),
]


@pytest.mark.parametrize(("line", "status"), BAD_LINES)
def test_request_lines_that_are_none(line: bytes, status: int) -> None:
    assert status_of(line + b"\r\n" + HOST + b"\r\n") == status


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"GET / HTTP/1.1", ("GET", "/", (1, 1))),
        (b"GET / HTTP/1.0", ("GET", "/", (1, 0))),
        # RFC 9110 section 2.5: a higher minor version is as the highest known.
        (b"GET / HTTP/1.2", ("GET", "/", (1, 1))),
        (b"GET / HTTP/1.9", ("GET", "/", (1, 1))),
        # RFC 9110 section 9.1: case-sensitive tokens.
        (b"get / HTTP/1.1", ("get", "/", (1, 1))),
        (b"!#$%&'*+-.^_`|~09aZ / HTTP/1.1", ("!#$%&'*+-.^_`|~09aZ", "/", (1, 1))),
        (b'GET //a/../"<>[]{}|^`#b?c? HTTP/1.1', ("GET", '//a/../"<>[]{}|^`#b?c?', (1, 1))),
        (b"GET http://a:1/b HTTP/1.1", ("GET", "http://a:1/b", (1, 1))),
        (b"BREW coffee+x://pot HTTP/1.1", ("BREW", "coffee+x://pot", (1, 1))),
        (b"OPTIONS * HTTP/1.1", ("OPTIONS", "*", (1, 1))),
        (b"OPTIONS /a HTTP/1.1", ("OPTIONS", "/a", (1, 1))),
        (b"CONNECT [::1]:443 HTTP/1.1", ("CONNECT", "[::1]:443", (1, 1))),
    ],
)
def test_request_lines(line: bytes, expected: tuple[str, str, tuple[int, int]]) -> None:
    raw = line + b"\r\n" + HOST + b"\r\n"
    assert status_of(raw) is None
    head = parse_head(raw, lenient=False)
    assert (head.method, head.target, head.version) == expected
    assert list(head.fields) == [(b"Host", b"example.org")]


BAD_FIELDS = [
    b"A\r\n",
    b": b\r\n",
    b"A : b\r\n",
    b" A: b\r\n",
    b"A\t: b\r\n",
    b"A B: c\r\n",
    b"A\0: b\r\n",
    b"A\xe9: b\r\n",
    b"A(: b\r\n",
    b"A: b\0\r\n",
    b"A: \x01\r\n",
    b"A: \x7f\r\n",
    b"A: b\rc\r\n",
    b"A: b\r\r\n",
    b"A: b\r\n c\r\n",  # obs-fold, RFC 9112 section 5.2
    b"A: b\r\n\tc\r\n",
    b"A: b\r\n \r\n",
    b"A:\r\n b\r\n",
]


@pytest.mark.parametrize("method", [b"GET", b"BREW"])
@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("bad", BAD_FIELDS)
def test_header_fields_that_are_none(bad: bytes, lenient: bool, method: bytes) -> None:
    line = method + b" / HTTP/1.1\r\n"
    for raw in [HOST + bad, bad + HOST]:
        assert status_of(line + raw + b"\r\n", lenient=lenient) == 400


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize(
    "raw",
    [
        LINE + b"\n",
        LINE + HOST + b"\n",
        LINE + HOST.replace(b"\r", b"") + b"\r\n",
        b"GET / HTTP/1.1\n" + HOST + b"\r\n",
        b"GET / HTTP/1.1\n" + HOST.replace(b"\r", b"") + b"\n",
        b"BREW / HTTP/1.1\n" + HOST + b"\n",
    ],
)
def test_lines_that_end_with_lf_alone(raw: bytes, lenient: bool) -> None:
    assert status_of(raw, lenient=lenient) == (None if lenient else 400)


# What decides about framing

LENGTH = b"Content-Length: 3\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        # RFC 9112 section 6.3: two lengths, though they are the same
        (LENGTH + LENGTH, 400),
        (LENGTH + b"Content-Length: 4\r\n", 400),
        (LENGTH + b"content-length: 3\r\n", 400),
        (b"Content-Length: 3, 3\r\n", 400),
        (b"Content-Length: 3,\r\n", 400),
        # RFC 9112 section 6.1: both
        (LENGTH + CHUNKED, 400),
        (CHUNKED + LENGTH, 400),
        (CHUNKED + b"Content-Length: 0\r\n", 400),
        # RFC 9110 section 8.6: digits
        (b"Content-Length:\r\n", 400),
        (b"Content-Length: \t\r\n", 400),
        (b"Content-Length: -1\r\n", 400),
        (b"Content-Length: +3\r\n", 400),
        (b"Content-Length: 3.0\r\n", 400),
        (b"Content-Length: 0x3\r\n", 400),
        (b"Content-Length: 1_0\r\n", 400),
        (b"Content-Length: 3 3\r\n", 400),
        (b"Content-Length: \xb2\r\n", 400),
        (b"Content-Length: 1000000000000000000\r\n", 400),
        (b"Content-Length: 18446744073709551619\r\n", 400),
        # RFC 9112 section 6.3: chunked, once, and last
        (b"Transfer-Encoding:\r\n", 400),
        (b"Transfer-Encoding: identity\r\n", 400),
        (b"Transfer-Encoding: gzip\r\n", 400),
        (b"Transfer-Encoding: xchunked\r\n", 400),
        (b"Transfer-Encoding: chunked, gzip\r\n", 400),
        (b"Transfer-Encoding: chunked;a=b\r\n", 400),
        (b'Transfer-Encoding: "chunked"\r\n', 400),
        (b"Transfer-Encoding: chunked,\r\n", 400),
        (b"Transfer-Encoding: \x0bchunked\r\n", 400),
        (b"Transfer-Encoding: gzip, chunked\r\n", 501),
        (b"Transfer-Encoding: gzip\r\n" + CHUNKED, 501),
        (CHUNKED + CHUNKED, 400),
        (b"Transfer-Encoding: chunked, chunked\r\n", 400),
        (CHUNKED + b"Transfer-Encoding: gzip\r\n", 400),
    ],
)
@pytest.mark.parametrize("method", [b"POST", b"GET", b"BREW"])
def test_framing_in_doubt_is_refused(
    fields: bytes, status: int, lenient: bool, method: bytes
) -> None:
    raw = method + b" / HTTP/1.1\r\n" + HOST + fields + b"\r\n"
    assert status_of(raw + b"3\r\n123\r\n0\r\n\r\n", lenient=lenient) == status


def test_transfer_encoding_is_not_of_http_1_0() -> None:
    """RFC 9112 section 6.1: nobody knows whether who passed it on understood it."""
    for lenient in [False, True]:
        raw = b"POST / HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n0\r\n\r\n"
        assert status_of(raw, lenient=lenient) == 400


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        (b"", 0),
        (b"Content-Length: 0\r\n", 0),
        (b"Content-Length: 0003\r\n", 3),
        (b"Content-Length: \t3 \t\r\n", 3),
        (b"Content-Length: 999999999999999999\r\n", 10**18 - 1),
        (b"transfer-ENCODING: \tChUnKeD \r\n", None),
    ],
)
def test_length_of_the_body(fields: bytes, length: int | None) -> None:
    for method in [b"GET", b"POST", b"BREW"]:
        raw = method + b" / HTTP/1.1\r\n" + HOST + fields + b"\r\n"
        assert parse_head(raw, lenient=False).length == length


# Host


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"a",
        b"a:80",
        b"a:",
        b"127.0.0.1:8000",
        b"[::1]",
        b"[::1]:80",
        b"[v1.a:b]",
        b"%61_b-c.d",
    ],
)
def test_hosts(host: bytes) -> None:
    assert status_of(LINE + b"Host: " + host + b"\r\n\r\n") is None


@pytest.mark.parametrize(
    "host", [b"a b", b"a/b", b"a@b", b"a:b", b"::1", b"[::1", b"a,b/", b"http://a", b"\xe9", b'"a"']
)
def test_hosts_that_are_none(host: bytes) -> None:
    assert status_of(LINE + b"Host: " + host + b"\r\n\r\n") == 400


@pytest.mark.parametrize(
    ("version", "fields", "strict", "lenient"),
    [
        (b"1.1", b"", 400, None),
        (b"1.2", b"", 400, None),
        (b"1.0", b"", None, None),
        (b"1.1", HOST + HOST, 400, 400),
        (b"1.0", HOST + HOST, 400, 400),
        (b"1.1", b"Host: a b\r\n", 400, None),
        (b"1.0", b"Host: a b\r\n", 400, None),
    ],
)
def test_one_host(version: bytes, fields: bytes, strict: int | None, lenient: int | None) -> None:
    raw = b"GET / HTTP/" + version + b"\r\n" + fields + b"\r\n"
    assert status_of(raw) == strict
    assert status_of(raw, lenient=True) == lenient


# Connection and Expect


@pytest.mark.parametrize(
    ("version", "fields", "keep_alive"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: CLOSE\r\n", False),
        (b"1.1", b"Connection: foo,\tClose\t, bar\r\n", False),
        (b"1.1", b"Connection: foo\r\nConnection: close\r\n", False),
        (b"1.1", b"Connection: keep-alive\r\n", True),
        (b"1.1", b"Connection: closed\r\n", True),
        (b"1.1", b"Connection:\r\n", True),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
        (b"1.0", b"Connection: foo, keep-alive\r\n", True),
        # RFC 9112 section 9.3: close comes first, wherever it stands.
        (b"1.0", b"Connection: close, keep-alive\r\n", False),
        (b"1.0", b"Connection: close\r\nConnection: keep-alive\r\n", False),
        (b"1.1", b"Connection: keep-alive\r\nConnection: close\r\n", False),
    ],
)
def test_keep_alive(version: bytes, fields: bytes, keep_alive: bool) -> None:
    raw = b"GET / HTTP/" + version + b"\r\n" + HOST + fields + b"\r\n"
    assert parse_head(raw, lenient=False).keep_alive is keep_alive


UPGRADE = b"Upgrade: websocket\r\n"


@pytest.mark.parametrize(
    ("version", "fields", "upgrades"),
    [
        (b"1.1", UPGRADE + b"Connection: Upgrade\r\n", True),
        (b"1.1", b"Connection: keep-alive,\tupgrade\r\n" + UPGRADE, True),
        (b"1.1", b"Connection: keep-alive\r\nConnection: upgrade\r\n" + UPGRADE, True),
        # RFC 9110 section 7.8: both, and not from HTTP/1.0.
        (b"1.1", UPGRADE, False),
        (b"1.1", UPGRADE + b"Connection: keep-alive\r\n", False),
        (b"1.1", b"Connection: upgrade\r\n", False),
        (b"1.1", b"Upgrade:\r\nConnection: upgrade\r\n", False),
        (b"1.0", UPGRADE + b"Connection: upgrade\r\n", False),
    ],
)
def test_upgrade(version: bytes, fields: bytes, upgrades: bool) -> None:
    raw = b"GET / HTTP/" + version + b"\r\n" + HOST + fields + b"\r\n"
    assert parse_head(raw, lenient=False).upgrades is upgrades


@pytest.mark.parametrize("expectation", [b"100-continue", b"100-CONTINUE \t"])
@pytest.mark.parametrize(
    ("version", "fields", "expects"),
    [
        (b"1.1", LENGTH, True),
        (b"1.1", CHUNKED, True),
        # RFC 9110 section 10.1.1: not without a body, and not from HTTP/1.0.
        (b"1.1", b"", False),
        (b"1.1", b"Content-Length: 0\r\n", False),
        (b"1.0", LENGTH, False),
    ],
)
def test_expect(version: bytes, fields: bytes, expects: bool, expectation: bytes) -> None:
    expect = b"Expect: " + expectation + b"\r\n"
    raw = b"POST / HTTP/" + version + b"\r\n" + HOST + fields + expect + b"\r\n"
    assert parse_head(raw, lenient=False).expects_continue is expects


def test_an_expectation_that_is_not_met() -> None:
    raw = b"GET / HTTP/1.1\r\n" + HOST + b"Expect: miracles\r\n\r\n"
    assert status_of(raw) == 417
    assert status_of(raw, lenient=True) is None, "http.server does not look"
    assert status_of(raw.replace(b"1.1", b"1.0")) is None


# Lenient


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"GET  /  HTTP/1.1", ("GET", "/", (1, 1))),
        (b"GET\t/ HTTP/1.1 ", ("GET", "/", (1, 1))),
        (b"GET a HTTP/1.0", ("GET", "a", (1, 0))),
        (b"GET * HTTP/1.1", ("GET", "*", (1, 1))),
        (b"CONNECT a HTTP/1.1", ("CONNECT", "a", (1, 1))),
    ],
)
def test_lenient_request_lines(line: bytes, expected: tuple[str, str, tuple[int, int]]) -> None:
    """As C{http.server} reads them."""
    raw = line + b"\r\n\r\n"
    assert status_of(raw) == 400
    head = parse_head(raw, lenient=True)
    assert (head.method, head.target, head.version) == expected


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("method", [b"GET", b"BREW", b"OPTIONS", b"CONNECT"])
@pytest.mark.parametrize("target", ["/Müller.pdf", "/?ü", "/à", "http://h/ü", "http://ü/", "ü:80"])
@pytest.mark.parametrize("version", [b" HTTP/1.1", b" HTTP/1.0", b""])
def test_a_target_is_ascii(lenient: bool, method: bytes, target: str, version: bytes) -> None:
    """For all kinds of handler: RFC 9112 section 3.2.  The client is told what to do."""
    for coding in ("utf-8", "latin-1"):
        line = method + b" " + target.encode(coding) + version + b"\r\n"
        for cuts in [(), range(40)]:
            seen = exchange(line + HOST + b"\r\n", cuts=cuts, lenient=lenient, simple=True)
            assert (seen.status, seen.requests) == (400, [])
            if version:
                assert "percent-encoded" in str(seen.error)


# HTTP/0.9


@pytest.mark.parametrize("after", [b"", b"\r\n", b"Host: a\r\n\r\n", b"x" * 70_000 + b"\r\n\r\n"])
@pytest.mark.parametrize("lenient", [False, True])
def test_http_0_9(lenient: bool, after: bytes) -> None:
    """Whatever comes after its line, in one piece with that or not."""
    for cuts in [(), [3, 9], range(20)]:
        seen = exchange(b"GET /a?b\r\n" + after, cuts=cuts, lenient=lenient, simple=not lenient)
        ((head, body),) = seen.requests
        assert (head.method, head.target, head.version) == ("GET", "/a?b", (0, 9))
        assert (head.raw, head.fields, head.length) == (b"GET /a?b\r\n", (), 0)
        assert not head.keep_alive
        assert body == b""


@pytest.mark.parametrize(
    ("raw", "lenient"),
    [
        (b"GET a\r\n", True),
        (b"GET HTTP/1.1\r\n", True),
        (b"GET /\n", True),
        (b"GET \xe9\r\n", False),
        (b"GET  /\r\n", True),
        (b"POST /\r\n", False),
        (b"HEAD /\r\n", False),
        (b"GET\r\n", False),
        (b" GET /\r\n", False),
    ],
)
def test_http_0_9_is_what_it_was(raw: bytes, lenient: bool) -> None:
    assert exchange(raw, simple=True).status == 400
    seen = exchange(raw, lenient=True)
    assert seen.status == (None if lenient else 400)
    assert [head.version for head, _ in seen.requests] == [(0, 9)] * lenient


@pytest.mark.parametrize("after", [b"", b"\r\n", b"Host: a\r\n\r\n"])
def test_http_0_9_is_refused_unless_it_is_asked_for(after: bytes) -> None:
    for cuts in [(), [3, 7], range(20)]:
        seen = exchange(b"GET /\r\n" + after, cuts=cuts)
        assert (seen.status, seen.requests) == (400, [])


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(RemoteProtocolError, match="Content-Length"):
        parse_head(LINE + HOST + LENGTH + LENGTH + b"\r\n", lenient=False)


# What a parser remembers


def test_a_head_that_comes_again_means_the_same() -> None:
    heads = HeadParser()
    raw = LINE + HOST + LENGTH + b"\r\n"
    first, again = heads.parse(raw), heads.parse(raw)
    assert again is not first
    assert (again.method, again.target, again.version, again.raw, again.fields, again.length) == (
        first.method,
        first.target,
        first.version,
        first.raw,
        first.fields,
        first.length,
    )


@pytest.mark.parametrize("versions", [(b"1.1", b"1.0"), (b"1.0", b"1.1")])
def test_a_section_is_remembered_for_its_version(versions: tuple[bytes, bytes]) -> None:
    heads = HeadParser()
    kept = {
        version: heads.parse(b"GET / HTTP/%b\r\n" % version + HOST + b"\r\n").keep_alive
        for version in versions
    }
    assert kept == {b"1.1": True, b"1.0": False}


@pytest.mark.parametrize("field", [b"X: y\r\n", HOST + b"Transfer-Encoding: chunked\r\n"])
def test_what_one_version_allows_is_not_remembered_for_the_other(field: bytes) -> None:
    """HTTP/1.1 demands a Host, and HTTP/1.0 has no chunks."""
    heads, good, bad = HeadParser(), b"1.0", b"1.1"
    if b"chunked" in field:
        good, bad = bad, good
    for _ in range(2):
        heads.parse(b"POST / HTTP/%b\r\n" % good + field + b"\r\n")
        with pytest.raises(RemoteProtocolError):
            heads.parse(b"POST / HTTP/%b\r\n" % bad + field + b"\r\n")


def test_a_known_request_line_excuses_no_long_section() -> None:
    heads = HeadParser(limits=HeadLimits(header_bytes=100))
    heads.parse(LINE + HOST + b"\r\n")
    with pytest.raises(RemoteProtocolError, match="too long"):
        heads.parse(LINE + HOST + b"X: " + b"x" * 100 + b"\r\n\r\n")


def test_a_parser_remembers_no_more_than_it_may() -> None:
    heads = HeadParser()
    for number in range(3 * REMEMBERED_HEADS):
        exchange(b"GET /%d HTTP/1.1\r\nHost: a%d\r\n\r\n" % (number, number), heads=heads)
        exchange(b"GET /%d HTTP/1.0\r\nHost: a%d\r\n\r\n" % (number, number), heads=heads)
    sizes = [len(table) for table in vars(heads).values() if isinstance(table, dict)]
    assert len(sizes) == 4
    assert max(sizes) <= REMEMBERED_HEADS


def test_a_head_cannot_be_changed() -> None:
    """It is that of other clients' requests, too."""
    head = parse_head(LINE + HOST + b"\r\n", lenient=False)
    with pytest.raises(AttributeError):
        head.target = "/other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del head.target


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda head: pickle.loads(pickle.dumps(head))]
)
def test_a_head_can_be_copied(copied: Callable[[RequestHead], RequestHead]) -> None:
    head = parse_head(LINE + HOST + b"Connection: close\r\n\r\n", lenient=False)
    other = copied(head)
    assert other is not head
    for name in RequestHead.__slots__:
        if name != "is_usual":  # which is for those that a parser has made
            assert getattr(other, name) == getattr(head, name)


def test_a_head_is_recalled_by_all_its_bytes() -> None:
    heads = HeadParser()
    raw = LINE + HOST + b"\r\n"
    assert heads.recall(raw) is None
    (request,) = exchange(raw, heads=heads).requests
    assert heads.recall(raw) is request[0]
    assert exchange(raw, heads=heads).requests[0][0] is request[0]
    for other in (raw + raw, raw[:-2], raw + b"x", b"\r\n" + raw):
        assert heads.recall(other) is None


@pytest.mark.parametrize(
    "fields", [LENGTH, LENGTH + b"Expect: 100-continue\r\n", b"Transfer-Encoding: chunked\r\n"]
)
def test_a_head_with_a_body_is_not_recalled(fields: bytes) -> None:
    """Its client may wait to be asked for that, which a head tells of itself."""
    heads = HeadParser()
    raw = LINE + HOST + fields + b"\r\n"
    exchange(raw, heads=heads)
    assert heads.recall(raw) is None
