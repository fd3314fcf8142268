"""
Guarded handlers: C{http.server}'s, where they read their connections by themselves.

This room owns what the server sees to even so: that a head which leaves a doubt is refused, that an
answer with two ends is not sent, and that the client of a handler which leaves by C{sys.exit} and
the like is answered.  All of that happens where such a handler calls its own C{parse_request}, and
writes to its C{wfile}; one that does neither is on its own.  It must not know connections.
(handler's thread)
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import sys
from collections.abc import Callable, Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler
from socketserver import StreamRequestHandler
from typing import TYPE_CHECKING, Any

from sockserve.core.buffers import bytes_of
from sockserve.core.handler_kinds import provides, unwrap
from sockserve.core.lifecycle import make_and_run
from sockserve.core.logs import Topic, logger
from sockserve.http.h1.framing import RemoteProtocolError, response_fault
from sockserve.http.h1.head import (
    MAX_HEADER_BYTES,
    MAX_HEADER_FIELDS,
    MAX_LINE_BYTES,
    HeadLimits,
    parse_head,
)
from sockserve.http.refusals import error_page
from sockserve.http.stock import can_have_method, make_with_method
from sockserve.http.stock_output import final_head
from sockserve.interfaces import IRequestHandler

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["handle_guarded", "make_and_run_guarded"]

_log = logger(Topic.HTTP)

#: What C{http.server} has let pass by then: no more is refused here.
_LIMITS = HeadLimits(MAX_LINE_BYTES, MAX_HEADER_FIELDS * MAX_HEADER_BYTES, MAX_HEADER_FIELDS)

_EMPTY_LINES = (b"\r\n", b"\n")


class _Answer:
    """
    The answer to one request, as far as it is seen on its way to C{wfile}: until its head is whole.

    @ivar is_mistaken: whether it was one that must not be sent, and is not.
    """

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self.is_mistaken = False
        self._handler = handler
        self._head = b""
        self._write: Callable[[ReadableBuffer], int] = handler.wfile.write
        self._attributes = _free_attributes(handler.wfile, "write")
        #: Whether some of it has been sent, besides interim responses, or could have been unseen.
        self._has_begun = self._attributes is None
        if self._attributes is not None:
            self._attributes["write"] = self.write

    def write(self, data: ReadableBuffer) -> int:
        """Send C{data} as C{wfile} does, unless it must not be."""
        if self.is_mistaken:
            return len(bytes_of(data))
        if self._is_looked_at():  # else somebody has kept this method
            piece = data if type(data) is bytes else bytes_of(data)
            had_begun, self._head = self._has_begun, self._head + piece[: MAX_HEADER_BYTES + 1]
            head = final_head(self._head)
            self._has_begun = head != b""
            if head is None or head.endswith(b"\r\n\r\n") or len(head) > MAX_HEADER_BYTES:
                self.release()
                fault = head and response_fault(head[:-2])
                if fault:
                    self._refuse(fault, had_begun)
                    return len(piece)
        return self._write(data)

    def _is_looked_at(self) -> bool:
        return self._attributes is not None and self._attributes.get("write") == self.write

    def _refuse(self, fault: str, had_begun: bool) -> None:
        """Answer with an error instead, or with no more if that comes too late."""
        _log.error("{handler}: {error}", handler=type(self._handler).__qualname__, error=fault)
        self.is_mistaken = True
        assert self._attributes is not None
        self._attributes["write"] = self.write
        if not had_begun:
            self._send_error_page()
        _end_input(self._handler)

    def answer_for_handler(self) -> None:
        """Answer 500 for a handler that has not answered, and does not any more."""
        if not self._has_begun:
            with contextlib.suppress(OSError, ValueError):  # the client or wfile is gone
                self._send_error_page()

    def _send_error_page(self) -> None:
        self._has_begun = True
        fields: Any = getattr(self._handler, "headers", None)
        accepted = fields.get_all("Accept", []) if isinstance(fields, Message) else []
        head, body = error_page(500, self._handler, ",".join(map(str, accepted)))
        page = f"{head}Connection: close\r\n\r\n".encode()
        self._write(page if self._handler.command == "HEAD" else page + body)

    def release(self) -> None:
        """Look at the answer no more."""
        if self._is_looked_at():
            assert self._attributes is not None
            self._attributes.pop("write", None)


class _Guard:
    """The guard of one handler, while that has a connection."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._process = os.getpid()
        self._handler = handler
        self._parse_request = handler.parse_request
        # Of the request under way
        #: Lines that C{parse_request} has read.
        self._lines: list[bytes] = []
        #: Whether C{http.server} has parsed it, as far as is seen, and not the program itself.
        self._is_http = False
        self._is_refused = False
        self._answer: _Answer | None = None

    def parse_request(self) -> bool:
        """In the place of the handler's method: do as that, and refuse what leaves a doubt."""
        self.end()
        handler, lines = self._handler, self._lines
        readline = getattr(getattr(handler, "rfile", None), "readline", None)
        if readline is None:
            return self._parse_request()
        expected = handler.handle_expect_100
        lines.clear()

        def read_line(size: int | None = -1) -> bytes:
            line: bytes = readline(size)
            lines.append(line)
            return line

        def handle_expect_100() -> bool:
            return self._check_head() and expected()

        with (
            _replaced(handler.rfile, "readline", read_line),
            _replaced(handler, "handle_expect_100", handle_expect_100),
        ):
            parsed = self._parse_request()
        if parsed and self._check_head():
            if self._is_http:
                self._answer = _Answer(handler)
            return True
        if self._is_refused:
            _end_input(handler)
        return False

    def _check_head(self) -> bool:
        """Whether the head that has been read leaves no doubt; if it does, answer that."""
        handler = self._handler
        if not self._is_refused:
            try:
                self._is_http = _check(vars(handler).get("raw_requestline"), self._lines)
            except RemoteProtocolError as error:
                self._is_refused = handler.close_connection = True
                handler.send_error(error.status, str(error))
        return not self._is_refused

    def answer_for_handler(self) -> None:
        """Answer for a handler that has left by what nobody handles, unless this is its child."""
        if self._answer is not None and self._process == os.getpid():
            self._answer.answer_for_handler()

    def end(self) -> None:
        """The request under way is over, if there is one."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.release()


def _free_attributes(owner: object, name: str) -> dict[str, Any] | None:
    """
    The attributes of C{owner} itself, for one that is to be called C{name}; None if it cannot have
    that, or has one already.
    """
    try:
        attributes: dict[str, Any] = object.__getattribute__(owner, "__dict__")
    except AttributeError:  # also where what it wraps has them
        return None
    return None if name in attributes else attributes


@contextlib.contextmanager
def _replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Have a method of C{owner} replaced, if that is possible."""
    attributes = _free_attributes(owner, name)
    if attributes is not None:
        attributes[name] = value
    try:
        yield
    finally:
        if attributes is not None:
            attributes.pop(name, None)


def _check(request_line: object, lines: list[bytes]) -> bool:
    """
    Check a head.

    @param lines: those that were read for it, and perhaps before and after.
    @return: whether it is one, which C{http.server} has read.
    @raise RemoteProtocolError: it leaves a doubt.
    """
    if not isinstance(request_line, bytes):
        return False
    words = str(request_line, "iso-8859-1").split()  # as http.server does
    if len(words) > 2 and not words[-1].startswith("HTTP/"):  # RTSP, say
        return False
    head = [request_line]
    for line in lines:
        if line is request_line:  # what came before was something else
            head.clear()
        head.append(line)
        if line in _EMPTY_LINES or not line:
            break
    else:
        return False  # it was read in another way
    parsed = parse_head(b"".join(head), lenient=True, limits=_LIMITS)
    if not head[-1] and parsed.version != (0, 9):
        raise RemoteProtocolError(400, "the head is cut short")
    return True


def _end_input(handler: BaseHTTPRequestHandler) -> None:
    """Let the handler's request be the last on its connection, whatever its loop is."""
    handler.close_connection = True
    attributes = _free_attributes(handler.rfile, "readline")
    if attributes is not None:
        attributes["readline"] = lambda size=-1: b""


def handle_guarded(handler: BaseHTTPRequestHandler, handle: Callable[[], object]) -> None:
    """Have a handler serve its connection by C{handle}, under guard."""
    guard = _Guard(handler)
    with _replaced(handler, "parse_request", guard.parse_request):
        try:
            handle()
        except Exception:
            raise
        except BaseException:
            guard.answer_for_handler()
            raise
        finally:
            guard.end()


def make_and_run_guarded(
    make: Callable[..., Any], request: object, client_address: object, server: object
) -> None:
    """
    L{make_and_run} for handlers that have their connection themselves, which may be
    C{http.server}'s.
    """
    if not (isinstance(request, socket.socket) and _may_be_stock(make)):
        make_and_run(make, request, client_address, server)
    elif can_have_method(make):
        make_with_method(make, (request, client_address, server), "handle", _handle)
    else:
        with _telling(request):
            make_and_run(make, request, client_address, server)


def _may_be_stock(make: Callable[..., Any]) -> bool:
    """Whether C{make} may make one of C{http.server}'s handlers, which serves while it is made."""
    cls = unwrap(make)
    is_other = isinstance(cls, type) and not issubclass(cls, BaseHTTPRequestHandler)
    return not (is_other or provides(make, IRequestHandler))


def _handle(handler: BaseHTTPRequestHandler) -> None:
    handle_guarded(handler, functools.partial(type(handler).handle, handler))


@contextlib.contextmanager
def _telling(request: socket.socket) -> Iterator[None]:
    """
    Have a socket tell which handler it is given to, in whatever way the program makes that: a
    handler makes a file of its socket in its C{setup}.  Until then the socket is of a class that
    looks who asks for one.
    """
    cls: type[socket.socket] = type(request)
    telling = _telling_class(cls)  # type: ignore[arg-type]  # a class can be hashed
    request.__class__ = telling
    try:
        yield
    finally:
        if type(request) is telling:
            request.__class__ = cls


@functools.lru_cache(maxsize=64)
def _telling_class(cls: type[socket.socket]) -> type[socket.socket]:
    """A class of sockets like C{cls}, each of which is of that as soon as it makes a file."""

    def makefile(self: socket.socket, *arguments: Any, **words: Any) -> Any:
        self.__class__ = cls
        caller = sys._getframe(1)
        if caller.f_code is StreamRequestHandler.setup.__code__:
            handler = caller.f_locals["self"]
            if isinstance(handler, BaseHTTPRequestHandler) and "handle" not in vars(handler):
                vars(handler)["handle"] = functools.partial(_handle_once, handler)
        return self.makefile(*arguments, **words)

    names = {"__slots__": (), "__module__": cls.__module__, "makefile": makefile}
    return type(cls.__name__, (cls,), names)


def _handle_once(handler: BaseHTTPRequestHandler) -> None:
    del vars(handler)["handle"]  # a cycle, otherwise
    _handle(handler)
