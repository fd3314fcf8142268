"""
Heads: the request line and the header section of a request, and the checks of both.

This room owns heads as a whole, the header fields that decide about framing, and the limits of
both.  It must not know where bytes come from, or what follows a head.

The grammar of header fields is httptools' (llhttp, strict).  Methods that it does not know,
and every doubt about framing, are decided here (RFC 9112 section 11.2).
"""

from __future__ import annotations

import re
from typing import Any

import attrs
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from sockserve.http.h1.framing import RemoteProtocolError
from sockserve.http.h1.request_line import HOST_NAME, HTTP_1_1, parse_request_line
from sockserve.http.h1.sizes import MAX_HEADER_BYTES, MAX_HEADER_FIELDS, MAX_LINE_BYTES

__all__ = [
    "HeadLimits",
    "HeadParser",
    "HeaderSection",
    "RequestHead",
    "parse_head",
]

#: How many heads, request lines, and header sections of each version, are remembered with their
#: meaning, and the longest head that is: some MiB for a server, if somebody sends what takes most.
REMEMBERED_HEADS = 256
REMEMBERED_BYTES = 2048


@attrs.frozen
class HeadLimits:
    """
    The limits of a head.  The names that users know them by are those of their errors.

    @ivar line_bytes: the longest request line.
    @ivar header_bytes: the longest header section.
    @ivar header_fields: the most fields of that.
    @ivar usual_bytes: a head of no more is within the first two, and short enough to be
        remembered.
    """

    line_bytes: int = MAX_LINE_BYTES
    header_bytes: int = MAX_HEADER_BYTES
    header_fields: int = MAX_HEADER_FIELDS
    usual_bytes: int = attrs.field(init=False)

    @usual_bytes.default
    def _least(self) -> int:
        return min(REMEMBERED_BYTES, self.line_bytes, self.header_bytes)

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

#: The methods of which no response has a body, or not one with an end.
_METHODS_WITHOUT_BODY = frozenset(["CONNECT", "HEAD"])


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


_HEAD_SLOTS = (
    "expects_continue", "fields", "is_usual", "keep_alive", "length", "may_switch", "method",
    "path", "raw", "target", "upgrades", "version",
)  # fmt: skip


class _HeadInTheMaking:
    __slots__ = _HEAD_SLOTS


class RequestHead:
    """
    The head of a request.  One without a body is that of all requests that repeat it, so nobody
    can change any.

    @ivar method: as sent: methods are case-sensitive (RFC 9110 section 9.1).
    @ivar target: as sent, decoded as Latin-1.
    @ivar path: the same, but with one slash of several at its start.
    @ivar version: C{(1, 1)}, C{(1, 0)}, or C{(0, 9)}, which has no header section and
        whose response is the bare body.
    @ivar raw: the head's bytes, from the method to the empty line.
    @ivar fields: the header fields, names as sent, values without white space around them.
    @ivar length: the body's length in bytes; None when it is chunked.
    @ivar keep_alive: whether the client wants to keep the connection after the response.
    @ivar expects_continue: whether the client waits for a response of status 100 before
        it sends the body (RFC 9110 section 10.1.1).
    @ivar upgrades: whether the client offers to speak another protocol after this request (RFC 9110
        section 7.8).
    @ivar may_switch: whether another protocol may be spoken after this request, which has no body.
    @ivar is_usual: whether its version is 1.1, its client waits for nothing, and its method's
        response can have a body.
    """

    __slots__ = _HEAD_SLOTS

    method: str
    target: str
    path: str
    version: tuple[int, int]
    raw: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    length: int | None
    keep_alive: bool
    expects_continue: bool
    upgrades: bool
    may_switch: bool
    is_usual: bool

    def __new__(
        cls,
        method: str,
        target: str,
        version: tuple[int, int],
        raw: bytes,
        section: HeaderSection,
    ) -> RequestHead:
        """
        @param section: its fields, and their meaning.
        """
        # A third of the time that eleven calls of object.__setattr__ take.
        head: Any = _HeadInTheMaking()
        head.method = method
        head.target = target
        # Clients take what follows two slashes for a host.
        head.path = "/" + target.lstrip("/") if target.startswith("//") else target
        head.version = version
        head.raw = raw
        head.fields = section.fields
        head.length = section.length
        head.keep_alive = section.keep_alive
        head.expects_continue = expects = section.expects_continue
        head.upgrades = section.upgrades
        head.may_switch = section.length == 0 and (method == "CONNECT" or section.upgrades)
        head.is_usual = version is HTTP_1_1 and not expects and method not in _METHODS_WITHOUT_BODY
        head.__class__ = cls
        made: RequestHead = head
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a head cannot be changed: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a head cannot be changed: {name}")

    def __reduce__(self) -> tuple[Any, ...]:
        """How a head is copied and pickled."""
        section = HeaderSection(
            self.fields, self.length, self.keep_alive, self.expects_continue, self.upgrades
        )
        return RequestHead, (self.method, self.target, self.version, self.raw, section)

    def __repr__(self) -> str:
        return f"<RequestHead {self.method} {self.target!r} {self.version}>"

    def __str__(self) -> str:
        """Method and target, as a line of a log has them."""
        return f"{self.method} {self.target}"

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


_VERSIONS = {b"HTTP/1.1": HTTP_1_1, b"HTTP/1.0": (1, 0)}
_HOST = re.compile(HOST_NAME + rb"(?::[0-9]*)?")
#: The methods of nearly all requests.  (CONNECT and OPTIONS have targets of their own.)
_USUAL_METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH")}
#: The request line of these.
_USUAL_LINE = re.compile(rb"(%b) (/[\x21-\x7e]*) (HTTP/1\.[01])" % b"|".join(_USUAL_METHODS))
_DIGITS = re.compile(rb"[0-9]+")
#: The most digits of a Content-Length: any number of 18 fits 64 bits, as in llhttp.
_MAX_LENGTH_DIGITS = 18
_LINE_END = re.compile(rb"\r?\n")

#: The fields that decide about framing or the connection.
_DECISIVE = frozenset(
    [b"connection", b"content-length", b"expect", b"host", b"transfer-encoding", b"upgrade"]
)


def parse_head(raw: bytes, lenient: bool) -> RequestHead:
    """
    L{HeadParser.parse}, for one head.

    @param lenient: as L{HeadParser}'s.
    """
    return HeadParser(lenient).parse(raw)


class HeadParser:
    """
    A parser of heads, for all connections of a server: it remembers what it has read, as clients
    ask for the same things again, and send the same header section with each request.

    @ivar lenient: whether to accept what C{http.server} accepts and does no harm to framing: a
        missing C{Host}, lines of a head that end with LF alone, targets of any form; and what
        C{simple} does.
    @ivar simple: whether to accept requests of HTTP/0.9, which are a line without a version.
    @ivar limits: how long a head may be.
    @ivar recall: gives the head of the same bytes, if that was to be remembered, and still is;
        None if not.
    """

    def __init__(
        self, lenient: bool = False, simple: bool = False, limits: HeadLimits = USUAL_LIMITS
    ) -> None:
        self.lenient = lenient
        self.simple = simple
        self.limits = limits
        self._heads: dict[bytes, RequestHead] = {}
        self.recall = self._heads.get
        self._usual_bytes = limits.usual_bytes
        self._lines: dict[bytes, tuple[str, str, tuple[int, int]]] = {}
        self._sections: dict[bytes, HeaderSection] = {}
        #: Those of HTTP/1.0.
        self._old_sections: dict[bytes, HeaderSection] = {}

    def parse(self, raw: bytes) -> RequestHead:
        """
        Parse a head.

        @param raw: its bytes with the empty line; of an HTTP/0.9 request, which ends with its
            first line, all that has arrived.
        @raise RemoteProtocolError: it is malformed, too long, or leaves a doubt about framing.
        """
        line, _, section = raw.partition(b"\r\n")
        words = self._lines.get(line)
        if words is None:
            found = _USUAL_LINE.fullmatch(line)
            if found is None:
                return self._parse_unusual(raw)
            method, target, version = found.groups()
            words = (_USUAL_METHODS[method], target.decode(), _VERSIONS[version])
            if len(raw) <= self._usual_bytes:
                _remember(self._lines, line, words)
        if len(raw) > self._usual_bytes:
            return self._parse_unusual(raw)
        sections = self._sections if words[2] is HTTP_1_1 else self._old_sections
        parsed = sections.get(section)
        if parsed is None:
            try:
                parsed = self._parse_section(section, words[2])
            except RemoteProtocolError:
                if self.lenient:  # its lines may end in another way
                    return self._parse_unusual(raw)
                raise
            _remember(sections, section, parsed)
        return RequestHead(words[0], words[1], words[2], raw, parsed)

    def remember(self, raw: bytes, head: RequestHead) -> None:
        """Let L{recall} give a head that C{raw} was parsed as, unless it is long."""
        if len(raw) <= self._usual_bytes:
            _remember(self._heads, raw, head)

    def _parse_unusual(self, raw: bytes) -> RequestHead:
        """Parse a head that is long, of an unusual form, or malformed."""
        line_end = raw.find(b"\n") + 1
        self.limits.check_line(line_end)
        line = raw[:line_end]
        method, target, version = parse_request_line(line, self.lenient, self.simple)
        if version == (0, 9):
            # Whatever follows such a request, it has been answered by then.
            raw = line
            parsed = HeaderSection()
        else:
            self.limits.check_section(len(raw) - line_end)
            section = raw[line_end:]
            if self.lenient:
                section = _LINE_END.sub(b"\r\n", section)
            parsed = self._parse_section(section, version)
        return RequestHead(method.decode(), target.decode("latin-1"), version, raw, parsed)

    def _parse_section(self, section: bytes, version: tuple[int, int]) -> HeaderSection:
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
        if len(fields) > self.limits.header_fields:
            raise RemoteProtocolError(431, "there are too many header fields", "max_header_fields")
        values: dict[bytes, list[bytes]] = {}
        for name, value in fields:
            lower = name.lower()
            if lower in _DECISIVE:
                values.setdefault(lower, []).append(value)
        hosts = values.get(b"host", [])
        must_have_host = version == HTTP_1_1 and not self.lenient
        if len(hosts) > 1 or (must_have_host and not hosts):
            raise RemoteProtocolError(400, "a request has one Host, if it is not an old one")
        if hosts and not self.lenient and not _HOST.fullmatch(hosts[0]):
            raise RemoteProtocolError(400, "the Host is not one")
        length = _body_length(values, version)
        options = b",".join(values.get(b"connection", [])).lower().split(b",")
        options = [option.strip(b" \t") for option in options]
        may_keep = version == HTTP_1_1 or b"keep-alive" in options
        keep_alive = may_keep and b"close" not in options
        expects_continue = False
        if b"expect" in values and version == HTTP_1_1:
            if values[b"expect"][-1].lower() == b"100-continue":
                expects_continue = length != 0
            elif not self.lenient:
                raise RemoteProtocolError(417, "the expectation is none that can be met")
        offers = b"upgrade" in options and bool(values.get(b"upgrade", [b""])[0])
        upgrades = offers and version == HTTP_1_1
        return HeaderSection(tuple(fields), length, keep_alive, expects_continue, upgrades)


def _remember(memory: dict[bytes, Any], key: bytes, meaning: object) -> None:
    if len(memory) >= REMEMBERED_HEADS:
        memory.clear()
    memory[key] = meaning


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
    if lengths or version != HTTP_1_1:
        # RFC 9112 section 6.1: the ways of smuggling a request.
        raise RemoteProtocolError(400, "Transfer-Encoding goes with HTTP/1.1 and no Content-Length")
    coding = b",".join(values[b"transfer-encoding"]).lower()
    if coding != b"chunked":
        # RFC 9112 section 6.3: without chunked as the last there is no length.
        last = coding.rpartition(b",")[2].strip(b" \t")
        status = 501 if last == b"chunked" else 400
        raise RemoteProtocolError(status, "the only transfer coding is chunked")
    return None
