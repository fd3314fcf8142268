"""
Heads: the request line and the header section of a request, and the checks of both.

This room owns the request line, the header fields that decide about framing, and their
limits.  It must not know where bytes come from, or what follows a head.

The grammar of header fields is httptools' (llhttp, strict).  Methods that it does not know,
and every doubt about framing, are decided here (RFC 9112 section 11.2).
"""

from __future__ import annotations

import re
from functools import lru_cache

import attrs
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from sockserve.http.h1.framing import RemoteProtocolError
from sockserve.http.h1.sizes import MAX_HEADER_BYTES, MAX_HEADER_FIELDS, MAX_LINE_BYTES

__all__ = [
    "TOKEN",
    "USUAL_LIMITS",
    "HeadLimits",
    "HeaderSection",
    "RequestHead",
    "parse_head",
    "parse_request_line",
]

#: How many header sections are remembered with their meaning, and the longest head whose
#: section is: a few MiB together, at most.
REPEATED_SECTIONS = 512
REPEATED_SECTION_BYTES = 2048


@attrs.frozen
class HeadLimits:
    """
    The limits of a head.  The names that users know them by are those of their errors.

    @ivar line_bytes: the longest request line.
    @ivar header_bytes: the longest header section.
    @ivar header_fields: the most fields of that.
    @ivar usual_bytes: a head of no more is within the first two, and short enough for its
        section to be remembered.
    """

    line_bytes: int = MAX_LINE_BYTES
    header_bytes: int = MAX_HEADER_BYTES
    header_fields: int = MAX_HEADER_FIELDS
    usual_bytes: int = attrs.field(init=False)

    @usual_bytes.default
    def _least(self) -> int:
        return min(REPEATED_SECTION_BYTES, self.line_bytes, self.header_bytes)

    def check_line(self, size: int) -> None:
        """
        Check the length of a request line, or of what has come of it.

        @raise RemoteProtocolError: it is too long.
        """
        if size > self.line_bytes:
            raise RemoteProtocolError(414, "the request line is too long", "max_request_line_bytes")

    def check_section(self, size: int) -> None:
        """
        Check the length of a header section, or of what has come of it.

        @raise RemoteProtocolError: it is too long.
        """
        if size > self.header_bytes:
            raise RemoteProtocolError(431, "the header section is too long", "max_header_bytes")


#: Those of a server that says nothing else.
USUAL_LIMITS = HeadLimits()


@attrs.frozen
class HeaderSection:
    """
    The header section of a request: its fields, and their meaning for framing and the connection.

    @ivar fields: names as sent, values without white space around them.
    @ivar length: the body's length in bytes; None when it is chunked.
    @ivar keep_alive: whether the client wants to keep the connection after the response.
    @ivar expects_continue: whether the client waits for a response of status 100 before it sends
        the body.
    @ivar upgrades: whether the client offers to speak another protocol after this request.
    """

    fields: tuple[tuple[bytes, bytes], ...] = ()
    length: int | None = 0
    keep_alive: bool = False
    expects_continue: bool = False
    upgrades: bool = False


class RequestHead:
    """
    The head of a request.

    @ivar method: as sent: methods are case-sensitive (RFC 9110 section 9.1).
    @ivar target: as sent, decoded as Latin-1.
    @ivar version: C{(1, 1)}, C{(1, 0)}, or C{(0, 9)}, which has no header section and
        whose response is the bare body.
    @ivar raw: the head's bytes, from the method to the empty line.
    @ivar section: its fields, and their meaning, which heads that repeat them share.
    @ivar expects_continue: whether the client waits for a response of status 100 before
        it sends the body (RFC 9110 section 10.1.1), as far as it has not had one.
    """

    __slots__ = ("expects_continue", "method", "raw", "section", "target", "version")

    def __init__(
        self,
        method: str,
        target: str,
        version: tuple[int, int],
        raw: bytes,
        section: HeaderSection,
    ) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.raw = raw
        self.section = section
        self.expects_continue = section.expects_continue

    def __repr__(self) -> str:
        return f"<RequestHead {self.method} {self.target!r} {self.version}>"

    def __str__(self) -> str:
        """Method and target, as a line of a log has them."""
        return f"{self.method} {self.target}"

    @property
    def fields(self) -> tuple[tuple[bytes, bytes], ...]:
        """The header fields, names as sent, values without white space around them."""
        return self.section.fields

    @property
    def length(self) -> int | None:
        """The body's length in bytes; None when it is chunked."""
        return self.section.length

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants to keep the connection after the response."""
        return self.section.keep_alive

    @property
    def upgrades(self) -> bool:
        """Whether the client offers to speak another protocol after this request (RFC 9110 section
        7.8)."""
        return self.section.upgrades

    @property
    def request_line(self) -> str:
        """The first line, without its end, decoded as Latin-1."""
        return self.raw.partition(b"\n")[0].rstrip(b"\r").decode("latin-1")

    def field(self, name: bytes) -> bytes | None:
        """The value of the first header field called C{name}, which is in lower case."""
        for key, value in self.fields:
            if key.lower() == name:
                return value
        return None


class _Fields:
    """A collector of the header fields of one head: httptools' callback object."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field that httptools has found."""
        self.fields.append((name, value))


_HTTP_1_1 = (1, 1)
_VERSIONS = {b"HTTP/1.1": _HTTP_1_1, b"HTTP/1.0": (1, 0)}
_VERSION = re.compile(rb"HTTP/([0-9])\.([0-9])")
#: A token (RFC 9110 section 5.6.2).
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: A host: RFC 3986 section 3.2.2 as far as the characters go.
_HOST_NAME = rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[A-Za-z0-9.:_~!$&'()*+,;=-]+\])"
_HOST = re.compile(_HOST_NAME + rb"(?::[0-9]*)?")
#: The forms of a target (RFC 9112 section 3.2): origin and absolute; and for two methods
#: those that only they have.
_TARGET = re.compile(rb"/[\x21-\x7e]*|[A-Za-z][A-Za-z0-9+.-]*://[\x21-\x7e]+")
_OWN_TARGETS = {
    b"CONNECT": re.compile(_HOST_NAME + rb":[0-9]+"),
    b"OPTIONS": re.compile(_TARGET.pattern + rb"|\*"),
}
_LENIENT_TARGET = re.compile(rb"[\x21-\x7e]+")


#: The methods of nearly all requests.  (CONNECT and OPTIONS have targets of their own.)
_USUAL_METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH")}
#: The request line of these.
_USUAL_LINE = re.compile(rb"(%b) (/[\x21-\x7e]*) (HTTP/1\.[01])\r\n" % b"|".join(_USUAL_METHODS))
_DIGITS = re.compile(rb"[0-9]+")
#: The most digits of a Content-Length: any number of 18 fits 64 bits, as in llhttp.
_MAX_LENGTH_DIGITS = 18
_LINE_END = re.compile(rb"\r?\n")

#: The fields that decide about framing or the connection.
_DECISIVE = frozenset(
    [b"connection", b"content-length", b"expect", b"host", b"transfer-encoding", b"upgrade"]
)


def parse_request_line(
    line: bytes, lenient: bool, simple: bool = False
) -> tuple[bytes, bytes, tuple[int, int]]:
    """
    Parse a request line.

    @param line: with its end.
    @param lenient: as L{sockserve.http.h1.reader.RequestParser}'s; so is C{simple}.
    @return: the method, the target and the version.
    @raise RemoteProtocolError: it is malformed, or of a version that is not 1.1 or 1.0.
    """
    if line.endswith(b"\r\n"):
        text = line[:-2]
    elif lenient:
        text = line[:-1]
    else:
        raise RemoteProtocolError(400, "a line ends with CR and LF")
    words = text.split(b" ")
    if lenient:
        words = text.split()
    if len(words) == 2 and words[0] == b"GET" and (simple or lenient):
        version = (0, 9)
    elif len(words) == 3:
        version = _parse_version(words[2])
    else:
        raise RemoteProtocolError(400, "a request line has a method, a target and a version")
    method, target = words[:2]
    if not target.isascii():
        # RFC 9112 section 3.2: not to be guessed at; one server reads UTF-8, another Latin-1.
        raise RemoteProtocolError(400, "a target is ASCII; other characters are percent-encoded")
    if not TOKEN.fullmatch(method) or not line.startswith(method):
        raise RemoteProtocolError(400, "a request line begins with a method, which is a token")
    target_form = _LENIENT_TARGET if lenient else _OWN_TARGETS.get(method, _TARGET)
    if not target_form.fullmatch(target):
        raise RemoteProtocolError(400, "the target is not one, or not of this method")
    return method, target, version


def _parse_version(version: bytes) -> tuple[int, int]:
    found = _VERSION.fullmatch(version)
    if found is None:
        raise RemoteProtocolError(400, "the version is not one of HTTP's")
    if found[1] != b"1":
        raise RemoteProtocolError(505, "the version is not 1.1 or 1.0")
    # A higher minor version is treated as the highest known (RFC 9110 section 2.5).
    return (1, 0) if found[2] == b"0" else _HTTP_1_1


def parse_head(
    raw: bytes, lenient: bool, simple: bool = False, limits: HeadLimits = USUAL_LIMITS
) -> RequestHead:
    """
    Parse a head.

    @param raw: its bytes with the empty line; of an HTTP/0.9 request, which ends with its
        first line, all that has arrived.
    @param lenient: as L{sockserve.http.h1.reader.RequestParser}'s; so is C{simple}.
    @raise RemoteProtocolError: it is malformed, too long, or leaves a doubt about framing.
    """
    line = _USUAL_LINE.match(raw)
    if line is None or len(raw) > limits.usual_bytes:
        return _unusual_head(raw, lenient, simple, limits)
    method, target, version_text = line.groups()
    version = _VERSIONS[version_text]
    try:
        section = _repeated_section(raw[line.end() :], version, lenient, limits.header_fields)
    except RemoteProtocolError:
        if lenient:  # its lines may end in another way
            return _unusual_head(raw, lenient, simple, limits)
        raise
    return RequestHead(_USUAL_METHODS[method], target.decode("ascii"), version, raw, section)


def _unusual_head(raw: bytes, lenient: bool, simple: bool, limits: HeadLimits) -> RequestHead:
    """Parse a head that is long, of an unusual form, or malformed."""
    line_end = raw.find(b"\n") + 1
    limits.check_line(line_end)
    method, target, version = parse_request_line(raw[:line_end], lenient, simple)
    if version == (0, 9):
        # Whatever follows such a request, it has been answered by then.
        raw = raw[:line_end]
        parsed = HeaderSection()
    else:
        limits.check_section(len(raw) - line_end)
        section = raw[line_end:]
        if lenient:
            section = _LINE_END.sub(b"\r\n", section)
        parsed = _parse_section(section, version, lenient, limits.header_fields)
    return RequestHead(method.decode(), target.decode("latin-1"), version, raw, parsed)


def _parse_section(
    section: bytes, version: tuple[int, int], lenient: bool, max_fields: int
) -> HeaderSection:
    """
    Parse a header section: its fields say how a request's body is delimited, and whether
    the connection is kept.

    @raise RemoteProtocolError: it is malformed, or leaves a doubt about framing.
    """
    found = _Fields()
    try:
        # Below a request line that httptools takes: it does not know all methods.
        HttpRequestParser(found).feed_data(b"GET / HTTP/%d.%d\r\n%b" % (*version, section))
    except HttpParserUpgrade:  # what follows the message could be another protocol
        pass
    except HttpParserError as error:
        raise RemoteProtocolError(400, str(error)) from None
    fields = [(name, value.rstrip(b" \t")) for name, value in found.fields]
    if len(fields) > max_fields:
        raise RemoteProtocolError(431, "there are too many header fields", "max_header_fields")
    values: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        lower = name.lower()
        if lower in _DECISIVE:
            values.setdefault(lower, []).append(value)
    hosts = values.get(b"host", [])
    must_have_host = version == _HTTP_1_1 and not lenient
    if len(hosts) > 1 or (must_have_host and not hosts):
        raise RemoteProtocolError(400, "a request has one Host, if it is not an old one")
    if hosts and not lenient and not _HOST.fullmatch(hosts[0]):
        raise RemoteProtocolError(400, "the Host is not one")
    length = _body_length(values, version)
    options = b",".join(values.get(b"connection", [])).lower().split(b",")
    options = [option.strip(b" \t") for option in options]
    may_keep = version == _HTTP_1_1 or b"keep-alive" in options
    keep_alive = may_keep and b"close" not in options
    expects_continue = False
    if b"expect" in values and version == _HTTP_1_1:
        if values[b"expect"][-1].lower() == b"100-continue":
            expects_continue = length != 0
        elif not lenient:
            raise RemoteProtocolError(417, "the expectation is none that can be met")
    offers = b"upgrade" in options and bool(values.get(b"upgrade", [b""])[0])
    upgrades = offers and version == _HTTP_1_1
    return HeaderSection(tuple(fields), length, keep_alive, expects_continue, upgrades)


#: The same with a memory: a client sends the same header section again and again.
_repeated_section = lru_cache(maxsize=REPEATED_SECTIONS)(_parse_section)


def _body_length(values: dict[bytes, list[bytes]], version: tuple[int, int]) -> int | None:
    """
    The length of a body in bytes, by the fields that decide about it; None when it is chunked.

    @raise RemoteProtocolError: they contradict each other, or the coding is not known.
    """
    lengths = values.get(b"content-length", [])
    length = 0
    if lengths:
        is_number = _DIGITS.fullmatch(lengths[0]) and len(lengths[0]) <= _MAX_LENGTH_DIGITS
        if len(lengths) > 1 or not is_number:
            raise RemoteProtocolError(400, "the Content-Length is not one number")
        length = int(lengths[0])
    if b"transfer-encoding" not in values:
        return length
    if lengths or version != _HTTP_1_1:
        # RFC 9112 section 6.1: the ways of smuggling a request.
        raise RemoteProtocolError(400, "Transfer-Encoding goes with HTTP/1.1 and no Content-Length")
    coding = b",".join(values[b"transfer-encoding"]).lower()
    if coding != b"chunked":
        # RFC 9112 section 6.3: without chunked as the last there is no length.
        last = coding.rpartition(b",")[2].strip(b" \t")
        status = 501 if last == b"chunked" else 400
        raise RemoteProtocolError(status, "the only transfer coding is chunked")
    return None
