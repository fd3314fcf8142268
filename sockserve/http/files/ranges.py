"""
Ranges and preconditions: how much of a file a request is to get, if any (RFC 9110,
sections 13 and 14).

This room owns the arithmetic, on the values of header fields.  It must not know files,
handlers, connections or what time it is.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import NamedTuple

__all__ = [
    "MOST_RANGES",
    "ByteRange",
    "Validators",
    "conditional_fields",
    "content_range",
    "http_date",
    "multipart",
    "precondition",
    "selected_ranges",
]

#: Who asks for more ranges at once gets the whole file.  100: starlette's bound; Apache's
#: is 200, and download managers and readers of PDF ask for a dozen.
MOST_RANGES = 100

#: Above every file's size, and below what makes C{int()} refuse a number for its length.
_MOST_DIGITS = 19
_BEYOND = 10**_MOST_DIGITS

_CONDITIONAL = frozenset(
    {
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "range",
    }
)

_RANGE = re.compile(r"([0-9]*)-([0-9]*)")
_ENTITY_TAG = re.compile(r'(?:W/)?"[^"]*"')

_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_MONTH = "(?P<month>" + "|".join(_MONTHS) + ")"
_TIME = "(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-5][0-9]|60)"
#: RFC 9110, 5.6.7: the one to send, and the two obsolete ones that are to be understood.
_DATES = (
    re.compile(f"[A-Z][a-z]{{2}}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    re.compile(f"[A-Z][a-z]{{5,8}}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"),
    re.compile(f"[A-Z][a-z]{{2}} {_MONTH} (?P<day>[0-9 ][0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)


class ByteRange(NamedTuple):
    """The bytes from C{start} to just before C{stop}."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many they are."""
        return self.stop - self.start


class Validators(NamedTuple):
    """
    What tells a representation from the one a client has.

    @ivar etag: the entity-tag, quotes included, C{W/} in front when it is weak.
    @ivar modified: the time of the last modification in whole seconds since 1970.
    """

    etag: str
    modified: int


def conditional_fields(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """
    Those of C{headers} that this room understands, by their names in lower case.

    One that is repeated counts as a list (RFC 9110, 5.2); where it is not one by its
    grammar, that makes it invalid, and so ignored.
    """
    fields: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()
        if name in _CONDITIONAL:
            value = value.strip()
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def http_date(field: str | None) -> int | None:
    """
    A date in any of HTTP's three forms as seconds since 1970; None for what is not one.

    A year of two digits is one from 1970 to 2069.  (RFC 9110 has a window that moves with
    the clock.  Nobody has sent these dates for decades, and they will not come to matter.)
    """
    if field is None:
        return None
    for form in _DATES:
        match = form.fullmatch(field)
        if match is not None:
            break
    else:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        year += 1900 if year >= 70 else 2000
    try:
        date = datetime(
            year,
            _MONTHS.index(match["month"]) + 1,
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            min(int(match["second"]), 59),  # 60, a leap second, has no number of its own
        )
    except ValueError:
        return None
    return timegm(date.timetuple())


def precondition(fields: Mapping[str, str], current: Validators) -> HTTPStatus | None:
    """
    Whether a GET or HEAD is to be answered otherwise than with the representation: in the
    order of RFC 9110, 13.2.2.

    @return: 412 or 304; None to go on.
    """
    match = fields.get("if-match")
    if match is not None:
        if not _lists(match, current.etag, weakly=False):
            return HTTPStatus.PRECONDITION_FAILED
    else:
        date = http_date(fields.get("if-unmodified-since"))
        if date is not None and current.modified > date:
            return HTTPStatus.PRECONDITION_FAILED
    none_match = fields.get("if-none-match")
    if none_match is not None:
        if _lists(none_match, current.etag, weakly=True):
            return HTTPStatus.NOT_MODIFIED
    else:
        date = http_date(fields.get("if-modified-since"))
        if date is not None and current.modified <= date:
            return HTTPStatus.NOT_MODIFIED
    return None


def selected_ranges(
    fields: Mapping[str, str], current: Validators, size: int
) -> list[ByteRange] | None:
    """
    The ranges of C{size} bytes that a GET asks for, in its order.

    An answer is never longer than the file but for the parts' heads: ranges that add up to
    more, which only overlapping ones can, get the whole file once instead of the same
    bytes again and again (RFC 9110, 14.2 and 17.15).  So does everything asked of an empty
    file, since many clients ask for a first piece before they know the size.

    @return: None for the whole, because nothing else was asked, or not in a way that
        counts; an empty list when what was asked for lies beyond the end (416).
    """
    field = fields.get("range")
    if field is None or not size or not _range_applies(fields.get("if-range"), current):
        return None
    unit, equals, wanted = field.partition("=")
    if not equals or unit.lower() != "bytes":
        return None
    specs = [spec.strip(" \t") for spec in wanted.split(",")]
    specs = [spec for spec in specs if spec]
    if not specs or len(specs) > MOST_RANGES:
        return None
    ranges = []
    for spec in specs:
        match = _RANGE.fullmatch(spec)
        if match is None or spec == "-":
            return None
        first, last = match.groups()
        if not first:
            start, stop = max(0, size - _number(last)), size
        else:
            start = _number(first)
            stop = _number(last) + 1 if last else max(size, start + 1)
            if stop <= start:
                return None
        if start < size:
            ranges.append(ByteRange(start, min(stop, size)))
    return None if sum(part.size for part in ranges) > size else ranges


def content_range(part: ByteRange | None, size: int) -> str:
    """The C{Content-Range} of one part, or for None that of a 416."""
    return f"bytes */{size}" if part is None else f"bytes {part.start}-{part.stop - 1}/{size}"


def multipart(
    ranges: Sequence[ByteRange], size: int, content_type: str, boundary: str
) -> tuple[list[bytes | ByteRange], int]:
    """
    The body of a C{multipart/byteranges} response (RFC 9110, 14.6).

    @param boundary: what does not occur in the parts, of token characters only.
    @return: what it consists of, bytes as they are and ranges to be filled in, and its
        length.
    """
    body: list[bytes | ByteRange] = []
    separator = f"--{boundary}\r\n"
    for part in ranges:
        head = (
            f"{separator}Content-Type: {content_type}\r\n"
            f"Content-Range: {content_range(part, size)}\r\n\r\n"
        )
        body += [head.encode("latin-1"), part]
        separator = f"\r\n--{boundary}\r\n"
    body.append(f"\r\n--{boundary}--\r\n".encode("latin-1"))
    length = sum(part.size if isinstance(part, ByteRange) else len(part) for part in body)
    return body, length


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return _BEYOND if len(digits) > _MOST_DIGITS else int(digits or "0")


def _lists(field: str, etag: str, *, weakly: bool) -> bool:
    """Whether a list of entity-tags has this one (RFC 9110, 8.8.3.2)."""
    if field == "*":
        return True
    if weakly:
        etag = etag.removeprefix("W/")
        return any(tag.removeprefix("W/") == etag for tag in _ENTITY_TAG.findall(field))
    # Equal and strong: a weak one is never the same, byte for byte.
    return not etag.startswith("W/") and etag in _ENTITY_TAG.findall(field)


def _range_applies(field: str | None, current: Validators) -> bool:
    """
    Whether what the client has a part of is what there is (RFC 9110, 13.1.5).

    A date has to be the very one that was sent.  Whether it is a strong validator the
    client has checked: by the C{Date} beside it, which it alone has seen.
    """
    if field is None:
        return True
    if field.endswith('"'):
        return field == current.etag and not field.startswith("W/")
    return http_date(field) == current.modified
