"""
Guarded handlers: C{http.server}'s, where they read their connections by themselves.

This room owns what the server sees to even so: that a head which leaves a doubt is refused, that an
answer with two ends is not sent, that the last one says so (L{sockserve.http.last_answer}), and
that the client of a handler which leaves by C{sys.exit} and the like is answered.  All of that
happens where such a handler calls its own C{parse_request}, and writes to its C{wfile}; one that
does neither is on its own.  It must not know connections.
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
from enum import Enum
from http.server import BaseHTTPRequestHandler
from socketserver import StreamRequestHandler
from typing import TYPE_CHECKING, Any

from sockserve.core.buffers import bytes_of
from sockserve.core.drain_notice import drain_notice
from sockserve.core.handler_kinds import provides, unwrap
from sockserve.core.lifecycle import make_and_run
from sockserve.core.logs import Topic, logger, standard_logger
from sockserve.core.messages import printable
from sockserve.http.h1.framing import RemoteProtocolError, response_fault
from sockserve.http.h1.head import HeadLimits, HeadParser
from sockserve.http.h1.sizes import MAX_HEADER_BYTES, MAX_HEADER_FIELDS, MAX_LINE_BYTES
from sockserve.http.last_answer import LastAnswer
from sockserve.http.refusals import error_page
from sockserve.http.replacing import free_attributes, replaced
from sockserve.http.stock import can_have_method, has_open_head, make_with_method
from sockserve.http.stock_output import final_head
from sockserve.interfaces import IRequestHandler

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["handle_guarded", "make_and_run_guarded", "telling"]

_log = logger(Topic.HTTP)
_standard_log = standard_logger(Topic.HTTP)

#: What C{http.server} has let pass by then: no more is refused here.
_LIMITS = HeadLimits(MAX_LINE_BYTES, MAX_HEADER_FIELDS * MAX_HEADER_BYTES, MAX_HEADER_FIELDS)
_HEADS = HeadParser(lenient=True, limits=_LIMITS)

_EMPTY_LINES = (b"\r\n", b"\n")


class _Sent(Enum):
    """The stand of an answer on its way to C{wfile}."""

    #: Nothing of it has been sent, besides interim responses.
    NOTHING = "nothing"
    #: Some of it has, or could have unseen.
    SOME = "some"
    #: It was one that must not be sent, and the rest is not.
    REFUSED = "refused"


class _Answer:
    """
    The answer to one request, as far as it is seen on its way to C{wfile}: until its head is whole.
    """

    def __init__(self, handler: BaseHTTPRequestHandler, last: LastAnswer | None) -> None:
        """
        @param last: knows the last answer, as the service may drain.
        """
        self._handler = handler
        self._last = last
        self._head = b""
        self._write: Callable[[ReadableBuffer], int] = handler.wfile.write
        self._attributes = free_attributes(handler.wfile, "write")
        self._sent = _Sent.SOME
        if self._attributes is not None:
            self._sent = _Sent.NOTHING
            self._attributes["write"] = self.write

    def write(self, data: ReadableBuffer) -> int:
        """Send C{data} as C{wfile} does, unless it must not be."""
        if self._sent is _Sent.REFUSED:
            return len(bytes_of(data))
        if self._is_looked_at():  # else somebody has kept this method
            piece = data if type(data) is bytes else bytes_of(data)
            sent, before = self._sent, len(self._head)
            self._head += piece[: MAX_HEADER_BYTES + 1]
            head = final_head(self._head)
            self._sent = _Sent.NOTHING if head == b"" else _Sent.SOME
            if head is None or head.endswith(b"\r\n\r\n") or len(head) > MAX_HEADER_BYTES:
                self.release()
                fault = head and response_fault(head[:-2])
                if fault:
                    self._refuse(fault, sent)
                    return len(piece)
                if head and head.endswith(b"\r\n\r\n") and self._last is not None:
                    self._write(self._last.amend(head, piece, len(head) - len(b"\r\n") - before))
                    return len(piece)
        return self._write(data)

    def _is_looked_at(self) -> bool:
        """Whether L{write} is in the place of C{wfile}'s."""
        return self._attributes is not None and self._attributes.get("write") == self.write

    def _refuse(self, fault: str, sent: _Sent) -> None:
        """Answer with an error instead, or with no more if something of it was C{sent}."""
        _log_fault(self._handler, fault)
        self._sent = _Sent.REFUSED
        assert self._attributes is not None
        self._attributes["write"] = self.write
        if sent is _Sent.NOTHING:
            self._send_error_page()
        _end_input(self._handler)

    def answer_for_handler(self) -> None:
        """Answer 500 for a handler that has not answered, and does not any more."""
        if self._sent is _Sent.NOTHING:
            self._sent = _Sent.SOME
            with contextlib.suppress(OSError, ValueError):  # the client or wfile is gone
                self._send_error_page()

    def _send_error_page(self) -> None:
        """Answer 500, and nothing after that."""
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


class _Head(Enum):
    """The stand of the head of a request."""

    #: C{http.server} has not parsed it, as far as is seen; perhaps the program has.
    UNSEEN = "unseen"
    #: It leaves no doubt.
    CLEAR = "clear"
    #: It left one, and so nothing more is served.
    REFUSED = "refused"


class _Guard:
    """
    The guard of one handler, while that has a connection.

    @ivar last: knows its last answer; None where no service drains.
    """

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._process = os.getpid()
        self._handler = handler
        self._parse_request = handler.parse_request
        notice = drain_notice()
        self.last = None if notice is None else LastAnswer(handler, notice)
        # Of the request under way
        #: Lines that C{parse_request} has read.
        self._lines: list[bytes] = []
        self._head = _Head.UNSEEN
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
            replaced(handler.rfile, "readline", read_line),
            replaced(handler, "handle_expect_100", handle_expect_100),
        ):
            parsed = self._parse_request()
        if parsed and self._check_head():
            if self._head is _Head.CLEAR:
                self._answer = _Answer(handler, self.last)
            return True
        if self._head is _Head.REFUSED:
            _end_input(handler)
        return False

    def _check_head(self) -> bool:
        """Whether the head that has been read leaves no doubt; if it does, answer that."""
        handler = self._handler
        if self._head is not _Head.REFUSED:
            try:
                self._head = _check(vars(handler).get("raw_requestline"), self._lines)
            except RemoteProtocolError as error:
                self._head = _Head.REFUSED
                handler.close_connection = True
                handler.send_error(error.status, str(error))
        return self._head is not _Head.REFUSED

    def answer_for_handler(self) -> None:
        """Answer for a handler that has left by what nobody handles, unless this is its child."""
        if self._answer is not None and self._process == os.getpid():
            self._answer.answer_for_handler()

    def end(self) -> None:
        """The request under way is over, if there is one."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.release()

    def look_at_end(self) -> None:
        """The handler has not raised: log it if it has forgotten the end of its answer's head."""
        handler = self._handler
        if self._answer is not None and has_open_head(handler):
            asked = printable(f"{handler.command} {handler.path}")
            _log_fault(handler, f"{asked}: no response was sent: end_headers was not called")


def _check(request_line: object, lines: list[bytes]) -> _Head:
    """
    Check a head.

    @param lines: those that were read for it, and perhaps before and after.
    @return: L{_Head.UNSEEN} if it is none, or C{http.server} has not read it.
    @raise RemoteProtocolError: it leaves a doubt.
    """
    if not isinstance(request_line, bytes):
        return _Head.UNSEEN
    words = str(request_line, "iso-8859-1").split()  # as http.server does
    if len(words) > 2 and not words[-1].startswith("HTTP/"):  # RTSP, say
        return _Head.UNSEEN
    head = [request_line]
    for line in lines:
        if line is request_line:  # what came before was something else
            head.clear()
        head.append(line)
        if line in _EMPTY_LINES or not line:
            break
    else:
        return _Head.UNSEEN  # it was read in another way
    parsed = _HEADS.parse(b"".join(head))
    if not head[-1] and parsed.version != (0, 9):
        raise RemoteProtocolError(400, "the head is cut short")
    return _Head.CLEAR


def _log_fault(handler: BaseHTTPRequestHandler, fault: str) -> None:
    """Log what is wrong with a handler's answer."""
    name = type(handler).__qualname__
    if "twisted.internet.reactor" in sys.modules:
        _log.error("{handler}: {fault}", handler=name, fault=fault)
    else:  # a program that knows nothing of Twisted's log
        _standard_log.error("%s: %s", name, fault)


def _end_input(handler: BaseHTTPRequestHandler) -> None:
    """Let the handler's request be the last on its connection, whatever its loop is."""
    handler.close_connection = True
    attributes = free_attributes(handler.rfile, "readline")
    if attributes is not None:
        attributes["readline"] = lambda size=-1: b""


def handle_guarded(handler: BaseHTTPRequestHandler, handle: Callable[[], object]) -> None:
    """Have a handler serve its connection by C{handle}, under guard."""
    guard = _Guard(handler)
    looked_for = contextlib.nullcontext() if guard.last is None else guard.last.looked_for()
    with replaced(handler, "parse_request", guard.parse_request), looked_for:
        try:
            handle()
            guard.look_at_end()
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
        with telling(make, request):
            make_and_run(make, request, client_address, server)


def _may_be_stock(make: Callable[..., Any]) -> bool:
    """Whether C{make} may make one of C{http.server}'s handlers, which serves while it is made."""
    cls = unwrap(make)
    is_other = isinstance(cls, type) and not issubclass(cls, BaseHTTPRequestHandler)
    return not (is_other or provides(make, IRequestHandler))


def _handle(handler: BaseHTTPRequestHandler) -> None:
    """Serve as the handler's class does, under guard."""
    handle_guarded(handler, functools.partial(type(handler).handle, handler))


@contextlib.contextmanager
def telling(make: Callable[..., Any], request: object) -> Iterator[None]:
    """
    Have a socket tell which handler it is given to, in whatever way the program makes that: a
    handler makes a file of its socket in its C{setup}.  Until then the socket is of a class that
    looks who asks for one.

    @param make: what the program says makes its handlers.
    """
    if not (isinstance(request, socket.socket) and _may_be_stock(make)):
        yield
        return
    cls: type[socket.socket] = type(request)
    teller = _telling_class(cls)  # type: ignore[arg-type]  # a class can be hashed
    with contextlib.suppress(TypeError):  # one of the program's own that cannot have another
        request.__class__ = teller
    try:
        yield
    finally:
        if type(request) is teller:
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
    """Do as L{_handle}, in place of the handler's own method until it is called."""
    del vars(handler)["handle"]  # a cycle, otherwise
    _handle(handler)
