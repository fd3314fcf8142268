"""
Ranges and preconditions: the parts of a file that a request asks for, and the conditions under
which it asks (RFC 9110, sections 13 and 14).

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

#: The most ranges in one request; one that asks for more gets the whole file.  100: starlette's
#: bound; Apache's is 200, and download managers and readers of PDF ask for a dozen.
MOST_RANGES = 100

#: The most digits of a number: above every file's size, and far below the length at which
#: C{int()} refuses one.  A longer number counts as L{_BEYOND}.
_MOST_DIGITS = 19
_BEYOND = 10**_MOST_DIGITS

#: The header fields that this room understands, in lower case.
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
#: The three forms of a date (RFC 9110, 5.6.7): the one to send, and two obsolete ones that are
#: to be understood.
_DATES = (
    re.compile(f"[A-Z][a-z]{{2}}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    re.compile(f"[A-Z][a-z]{{5,8}}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"),
    re.compile(f"[A-Z][a-z]{{2}} {_MONTH} (?P<day>[0-9 ][0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)


class ByteRange(NamedTuple):
    """A range of a file: the bytes from C{start} to just before C{stop}, counted from 0."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many bytes they are."""
        return self.stop - self.start


class Validators(NamedTuple):
    """
    The validators of a representation, by which a client tells whether its copy is the same.

    @ivar etag: the entity-tag, quotes included, C{W/} in front when it is weak.
    @ivar modified: the time of the last modification in whole seconds since 1970.
    """

    etag: str
    modified: int


def conditional_fields(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """
    The header fields that this room understands, by their names in lower case.

    A field that is repeated counts as a list (RFC 9110, 5.2); if its grammar has no lists,
    it is invalid, and so ignored.

    @param headers: names and values of all fields of a request.
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
    the clock.  No client has sent these dates for decades, so it does not matter.)
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
    The status that the preconditions of a GET or HEAD call for, evaluated in the order of
    RFC 9110, 13.2.2.

    @param fields: as L{conditional_fields} gives them.
    @param current: the validators of the file.
    @return: 412 or 304; None to answer with the file.
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
    The ranges that a GET asks for, in its order.

    An answer is never longer than the file, but for the parts' heads: ranges that add up to
    more, which only overlapping ones can, get the whole file once instead of the same
    bytes again and again (RFC 9110, 14.2 and 17.15).  So does any range of an empty file,
    since many clients ask for a first piece before they know the size.

    @param fields: as L{conditional_fields} gives them.
    @param current: the validators of the file.
    @param size: the file's, in bytes.
    @return: None for the whole file: no range was asked for, or in a way that is ignored;
        an empty list when all ranges lie beyond the end (416).
    """
    # The whole file is given when:
    # 1. no range was asked for, or the file is empty;
    field = fields.get("range")
    if field is None or not size:
        return None
    # 2. the client has a part of another version of it;
    if not _range_applies(fields.get("if-range"), current):
        return None
    # 3. the unit is another, or the ranges are none, too many, malformed or too long together.
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
    """The value of C{Content-Range} for one part of C{size} bytes; for None that of a 416."""
    return f"bytes */{size}" if part is None else f"bytes {part.start}-{part.stop - 1}/{size}"


def multipart(
    ranges: Sequence[ByteRange], size: int, content_type: str, boundary: str
) -> tuple[list[bytes | ByteRange], int]:
    """
    The body of a C{multipart/byteranges} response (RFC 9110, 14.6).

    @param ranges: the parts.
    @param size: the file's, in bytes.
    @param content_type: the file's.
    @param boundary: a string that does not occur in the parts, of token characters only.
    @return: the parts of the body, bytes as they are and ranges of the file; and its length
        in bytes.
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
    """
    Whether a list of entity-tags has this one.

    @param weakly: whether to compare without regard to weakness (RFC 9110, 8.8.3.2).
    """
    if field == "*":
        return True
    if weakly:
        etag = etag.removeprefix("W/")
        return any(tag.removeprefix("W/") == etag for tag in _ENTITY_TAG.findall(field))
    # Equal and strong: a weak one is never the same, byte for byte.
    return not etag.startswith("W/") and etag in _ENTITY_TAG.findall(field)


def _range_applies(field: str | None, current: Validators) -> bool:
    """
    Whether the file is still the one that the client has a part of, by the value of its
    C{If-Range} (RFC 9110, 13.1.5).

    A date has to be the very one that was sent.  Whether that is a strong validator, the
    client has checked by the C{Date} beside it, which it alone has seen.
    """
    if field is None:
        return True
    if field.endswith('"'):
        return field == current.etag and not field.startswith("W/")
    return http_date(field) == current.modified
