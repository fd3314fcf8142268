"""
Stock handlers: instances of C{http.server}'s own classes, which do not parse a usual head again.

This room owns a stand-in for C{BaseHTTPRequestHandler.handle}, for one request of one handler: it
sets the same attributes to the same values, for the heads that nearly all clients send, and calls
the same method; with any other head the handler does all that by itself.  For a class with a
C{handle} of its own, C{wsgiref}'s, it has one for C{parse_request}.  It must not know connections.

(C{http.server} spends half of the time of an answer in C{email}'s parser.  The tests of this room
compare the stand-ins with it.)
(handler's thread)
"""

from __future__ import annotations

import functools
import http.server
import re
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler
from types import MethodType
from typing import Any, NamedTuple

from sockserve.http.h1.head import REMEMBERED_BYTES, REMEMBERED_HEADS, RequestHead
from sockserve.http.h1.request_line import TOKEN
from sockserve.http.spool import StockInput

__all__ = [
    "body_may_end_with_connection",
    "can_have_method",
    "has_open_head",
    "make_stock_handler",
    "make_with_method",
]

#: A header section that every parser reads alike, as whole lines.
_SECTION = re.compile(rb"(?:%b:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n" % TOKEN.pattern)

#: Header fields that C{email} or C{http.server} do more with than keep them: a multipart body
#: is looked for, an expectation is met.
_DEMANDING = re.compile(rb"(?im)^(?:content-type:[ \t]*(?:multipart|message)|expect:)")

#: The methods that are stood in for; None for one that a program has put another in the place of.
_HANDLE, _HANDLE_ONE_REQUEST, _PARSE_REQUEST = (
    method if getattr(method, "__globals__", None) is vars(http.server) else None
    for method in (
        BaseHTTPRequestHandler.handle,
        BaseHTTPRequestHandler.handle_one_request,
        BaseHTTPRequestHandler.parse_request,
    )
)

_VERSIONS = frozenset(["HTTP/1.0", "HTTP/1.1"])

#: No client sends a body with these that nobody could tell the end of.
_WITHOUT_BODY = frozenset(["GET", "HEAD"])


def body_may_end_with_connection(head: RequestHead) -> bool:
    """
    Whether a handler may find a body that goes on until the client ends its side: what follows the
    last request of a connection, if that says nothing of a length.
    """
    return (
        not head.keep_alive
        and head.length == 0
        and head.method not in _WITHOUT_BODY
        and head.field(b"content-length") is None
    )


class _Message(NamedTuple):
    """
    The C{HTTPMessage} of a header section, of which each request has a copy.

    @ivar state: its attributes.
    @ivar lists: those of them that a copy has for itself.
    """

    state: dict[str, Any]
    lists: list[tuple[str, list[Any]]]


class _UsualHead(NamedTuple):
    """
    What C{http.server} makes of a usual head.

    @ivar line: the request line, with its end.
    """

    line: bytes
    requestline: str
    command: str
    path: str
    version: str
    message: _Message


@functools.lru_cache(maxsize=REMEMBERED_HEADS)
def _parse_head(raw: bytes) -> _UsualHead | None:
    """Parse a head with its empty line; None if it is not a usual one."""
    line, end, section = raw.partition(b"\n")
    line += end
    text = line.decode("iso-8859-1")
    words = text.split()
    # Not what http.server rewrites or refuses.
    if len(words) != 3 or words[2] not in _VERSIONS or words[1].startswith("//"):
        return None
    message = _parse_section(section)
    if message is None:
        return None
    command, path, version = words
    return _UsualHead(line, text.rstrip("\r\n"), command, path, version, message)


@functools.lru_cache(maxsize=REMEMBERED_HEADS)
def _parse_section(section: bytes) -> _Message | None:
    """Parse a header section with its empty line, which clients send with each request; None if it
    is not a usual one."""
    if not _SECTION.fullmatch(section) or _DEMANDING.search(section):
        return None
    message = HTTPMessage()
    for line in section.decode("iso-8859-1").split("\r\n")[:-2]:
        name, _, value = line.partition(":")
        message.set_raw(name, value.lstrip(" \t"))  # as email keeps it
    message.set_payload("")
    state = vars(message)
    return _Message(state, [(name, each) for name, each in state.items() if type(each) is list])


def _usual_head(handler: Any, head: RequestHead | None) -> _UsualHead | None:
    """
    What C{http.server} makes of the head that C{handler} is about to read; None if it must do that
    by itself: the head is not a usual one, or too long to be remembered, or the handler reads
    something else, or keeps its fields in a way of its own.

    @param head: the request's, as the server has read it; None if an override has put something
        of its own in the place of the connection, which does not tell.
    """
    rfile = handler.rfile
    if (
        head is None
        or not isinstance(rfile, StockInput)
        or len(rfile.head) > REMEMBERED_BYTES
        or handler.MessageClass is not HTTPMessage
    ):
        return None
    return _parse_head(rfile.head)


def _take_head(handler: Any, head: RequestHead, usual: _UsualHead) -> None:
    """Have C{handler} know its request, and read on behind the head."""
    handler.rfile.seek(len(handler.rfile.head))
    _, handler.requestline, handler.command, handler.path, version, message = usual
    handler.request_version = version
    handler.headers = headers = object.__new__(HTTPMessage)
    state = headers.__dict__
    state.update(message.state)
    for name, each in message.lists:
        state[name] = each[:]
    _decide_connection(handler, head)


def _is_usual(method: object, usual: object) -> bool:
    """Whether a handler's method is C{http.server}'s, at this moment; not a wrapper, which may pass
    on all that is asked of it."""
    return type(method) is MethodType and method.__func__ is usual


def _handle(handler: Any, head: RequestHead | None) -> None:
    """Serve one request, in the place of C{handle} and C{handle_one_request} of C{handler}."""
    try:
        del handler.handle  # it is for one request, and makes a cycle
    except AttributeError:  # the handler has kept it, and calls it once more
        pass
    rfile = handler.rfile
    usual = _usual_head(handler, head)
    parses_as_usual = _is_usual(handler.parse_request, _PARSE_REQUEST)
    if (
        usual is None
        or rfile.tell() != 0
        or not parses_as_usual
        or not _is_usual(handler.handle_one_request, _HANDLE_ONE_REQUEST)
    ):
        if parses_as_usual:
            instead = functools.partial(_parse_request, handler, head)
            object.__setattr__(handler, "parse_request", instead)
        handler.handle()
        return
    assert head is not None
    handler.raw_requestline = usual.line
    _take_head(handler, head, usual)
    name = f"do_{usual.command}"
    try:
        if hasattr(handler, name):
            getattr(handler, name)()
            handler.wfile.flush()
        else:
            handler.send_error(
                HTTPStatus.NOT_IMPLEMENTED, f"Unsupported method ({usual.command!r})"
            )
    except TimeoutError as error:
        handler.log_error("Request timed out: %r", error)
        handler.close_connection = True
    # What http.server does now is to read the next request, of which there is none here.
    if rfile.has_answered and not handler.close_connection:
        rfile.wants_next = handler.close_connection = True
        handler.raw_requestline = b""
    while not handler.close_connection:
        handler.handle_one_request()


def _parse_request(handler: Any, head: RequestHead | None) -> bool:
    """
    Parse the request whose request line C{handler} has read, in the place of its
    C{parse_request}.

    @return: as that: false when the handler has answered with an error.
    """
    try:
        del handler.parse_request  # likewise
    except AttributeError:
        pass
    usual = _usual_head(handler, head)
    if (
        usual is not None
        and head is not None
        # It is its first reading.
        and handler.raw_requestline == usual.line
        and handler.rfile.tell() == len(usual.line)
    ):
        _take_head(handler, head, usual)
        return True
    parsed: bool = handler.parse_request()
    if parsed and head is not None:
        _decide_connection(handler, head)
    return parsed


def _decide_connection(handler: Any, head: RequestHead) -> None:
    """
    Have the handler read C{Connection} as the server does, which is to end the connection or not:
    as a list, of all its fields.  (C{http.server} compares the first field's whole value.)
    """
    handler.close_connection = not (head.keep_alive and handler.protocol_version >= "HTTP/1.1")


def make_stock_handler(
    make: Callable[..., Any], request: Any, client_address: Any, server: Any
) -> None:
    """
    Make one of C{http.server}'s handlers, which serves the request while it is made.

    @param make: the class, a C{functools.partial} of it, or another callable that makes a
        handler.
    """
    buffered = getattr(request, "buffered", None)
    head = getattr(request, "head", None) if buffered is None else buffered.head
    arguments = (request, client_address, server)
    handle = getattr(make.func if type(make) is functools.partial else make, "handle", None)
    if handle is not None and handle is _HANDLE:
        handler = make_with_method(make, arguments, "handle", _handle, head)
    else:
        handler = make_with_method(make, arguments, "parse_request", _parse_request, head)
    if buffered is not None and has_open_head(handler):
        buffered.response.has_open_head = True


def has_open_head(handler: Any) -> bool:
    """Whether one of C{http.server}'s handlers has begun a head, and not called C{end_headers}."""
    return bool(getattr(handler, "_headers_buffer", None))


def can_have_method(make: Callable[..., Any]) -> bool:
    """
    Whether L{make_with_method} can replace a method: it is a class, or a C{functools.partial} of
    one, that does not make its objects in a way of its own.
    """
    return _makes_as_usual(make.func if type(make) is functools.partial else make)


def _makes_as_usual(cls: Any) -> bool:
    return type(cls).__call__ is type.__call__ and cls.__new__ is object.__new__


def make_with_method(
    make: Callable[..., Any],
    arguments: tuple[Any, ...],
    name: str,
    method: Callable[..., object],
    *more: object,
) -> Any:
    """
    Make a handler, which serves while it is made, with one of its methods replaced, if
    L{can_have_method}. (handler's thread)

    @param make: the class, a C{functools.partial} of it, or another callable that makes a
        handler.
    @param method: called with the handler, and with C{more}, instead.
    @return: the handler.
    """
    words: dict[str, Any] = {}
    cls: Any = make
    if type(make) is functools.partial:
        cls, arguments, words = make.func, make.args + arguments, make.keywords
    if not _makes_as_usual(cls):
        return cls(*arguments, **words)
    handler: Any = object.__new__(cls)
    # Not in its __dict__: CPython is slower with an object whose dictionary somebody has seen.
    instead = functools.partial(method, handler, *more)
    object.__setattr__(handler, name, instead)
    try:
        handler.__init__(*arguments, **words)
    finally:
        if object.__getattribute__(handler, name) is instead:  # it was not called
            object.__delattr__(handler, name)
    return handler
