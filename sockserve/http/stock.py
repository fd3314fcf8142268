"""
Stock handlers: C{http.server}'s handler classes, made as they are, but for their reading of
a usual head a second time.

This room owns a stand-in for C{BaseHTTPRequestHandler.parse_request}, for one request of
one handler: the same attributes with the same values, for the heads that nearly all
clients send; any other head the handler parses by itself.  (It takes half of all the time
an answer takes, in C{email}'s parser, which the test of this room holds the stand-in
against.)  It must not know connections.  Runs on the handler's thread.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from http.client import HTTPMessage
from typing import Any, NamedTuple

from sockserve.http.h1.head import REPEATED_SECTION_BYTES, REPEATED_SECTIONS, TOKEN
from sockserve.http.spool import StockInput

__all__ = ["make_stock_handler"]

#: Header fields that are the same to every parser, as whole lines.
_SECTION = re.compile(rb"(?:%b:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n" % TOKEN.pattern)

#: Fields with which C{email} or C{http.server} do more than keep them: a multipart body
#: is missed, an expectation is met.
_DEMANDING = re.compile(rb"(?im)^(?:content-type:[ \t]*(?:multipart|message)|expect:)")

_VERSIONS = frozenset(["HTTP/1.0", "HTTP/1.1"])


class _Section(NamedTuple):
    """
    A header section.

    @ivar fields: as C{email} keeps them: names and values as sent, values without the
        white space before.
    @ivar connection: the first C{Connection} field's value in lower case.
    """

    fields: list[tuple[str, str]]
    connection: str


@functools.lru_cache(maxsize=REPEATED_SECTIONS)
def _parse_section(raw: bytes) -> _Section | None:
    """A header section with its empty line; None if it is not a usual one."""
    if not _SECTION.fullmatch(raw) or _DEMANDING.search(raw):
        return None
    fields, connection = [], ""
    for line in raw.decode("iso-8859-1").split("\r\n")[:-2]:
        name, _, value = line.partition(":")
        fields.append((name, value.lstrip(" \t")))
    for name, value in fields:
        if name.lower() == "connection":
            connection = value.lower()
            break
    return _Section(fields, connection)


def _parse_request(handler: Any) -> bool:
    """What C{handler.parse_request} does, after it has read the request line."""
    del handler.parse_request  # it is for one request, and makes a cycle
    rfile, line = handler.rfile, handler.raw_requestline
    raw = getattr(rfile, "head", b"")
    words = str(line, "iso-8859-1").split()
    if (
        raw.startswith(line)
        and len(words) == 3
        and words[2] in _VERSIONS
        and not words[1].startswith("//")
        and len(raw) - len(line) <= REPEATED_SECTION_BYTES
        and handler.MessageClass is HTTPMessage
        and rfile.tell() == len(line)
    ):
        section = _parse_section(raw[len(line) :])
        if section is not None:
            rfile.seek(len(raw))
            rfile.head_is_read()
            handler.requestline = str(line, "iso-8859-1").rstrip("\r\n")
            handler.command, handler.path, handler.request_version = words
            handler.headers = headers = HTTPMessage()
            for name, value in section.fields:
                headers.set_raw(name, value)
            headers.set_payload("")
            keeps = handler.protocol_version >= "HTTP/1.1" and (
                words[2] == "HTTP/1.1" or section.connection == "keep-alive"
            )
            handler.close_connection = not keeps or section.connection == "close"
            return True
    parsed: bool = handler.parse_request()
    if isinstance(rfile, StockInput):
        rfile.head_is_read()
    return parsed


def _makes(cls: type) -> Any:
    return cls.__new__


def make_stock_handler(
    make: Callable[..., Any], request: Any, client_address: Any, server: Any
) -> None:
    """
    Make one of C{http.server}'s handlers, which serves the request while it is made.

    @param make: the class, a C{functools.partial} of it, or whatever else makes one.
    """
    arguments: tuple[Any, ...] = (request, client_address, server)
    words: dict[str, Any] = {}
    cls: Any = make
    if type(make) is functools.partial:
        cls, arguments, words = make.func, make.args + arguments, make.keywords
    if type(cls) is not type or _makes(cls) is not object.__new__:  # made in a way of its own
        cls(*arguments, **words)
        return
    handler: Any = object.__new__(cls)
    handler.__dict__["parse_request"] = functools.partial(_parse_request, handler)
    try:
        handler.__init__(*arguments, **words)
    finally:
        handler.__dict__.pop("parse_request", None)
