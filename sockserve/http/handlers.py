"""
HTTP request handlers: the base class of users' handlers for HTTP.

This room owns the interface of C{http.server.BaseHTTPRequestHandler}: the attributes that
describe the request, and the methods that make the response.  It must not know connections,
or whether the reactor or a thread runs it. (handler's thread)
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from functools import cached_property
from http import HTTPStatus
from io import BufferedIOBase
from socket import socket
from typing import Any, ClassVar, Generic

from typing_extensions import TypeVar, override
from zope.interface import implementer

from sockserve.core.logs import Topic, logger
from sockserve.core.messages import without_controls
from sockserve.core.version import __version__
from sockserve.handlers import BaseRequestHandler, ServerT
from sockserve.http.error_pages import ERROR_CONTENT_TYPE, ERROR_FORMAT, accept_of, error_fields
from sockserve.http.fields import check_text, known_kind, learn_name
from sockserve.http.h1.framing import LocalProtocolError
from sockserve.http.h1.head import RequestHead
from sockserve.http.methods import (
    allowed_methods,
    blocking_methods,
    blocks_unknown,
    find_method,
    method_blocks,
    method_name,
)
from sockserve.http.preambles import Preamble, make_preamble, preamble_parts, server_value
from sockserve.http.requests import RequestConnection
from sockserve.http.responses import CoroutineResponse, Response, ResponseBody
from sockserve.http.status_lines import RESPONSES, current_date, status_line, usual_status_line
from sockserve.interfaces import IHTTPRequestHandler
from sockserve.streams.reader import StreamReader

__all__ = ["BlockingHTTPRequestHandler", "HTTPRequestHandler"]

_log = logger(Topic.HTTP)

_VERSIONS = {(1, 1): "HTTP/1.1", (1, 0): "HTTP/1.0", (0, 9): "HTTP/0.9"}

#: What L{HTTPRequestHandler.send_error} logs.
_ERROR_LINE = "%s %s: %d %s"

_NOT_SHOWN = "what made it does not show that it answers HTTP; give the class or a partial of it"

RequestT = TypeVar("RequestT", default=RequestConnection)
ReaderT = TypeVar("ReaderT", default=StreamReader)
WriterT = TypeVar("WriterT", bound=ResponseBody, default=CoroutineResponse)


@implementer(IHTTPRequestHandler)
class HTTPRequestHandler(
    BaseRequestHandler[RequestT, ServerT], Generic[ServerT, RequestT, ReaderT, WriterT]
):
    """
    The base class of handlers for HTTP: one instance answers one request.

    Write C{do_GET} and so on, each C{async def}, to run on the reactor, or plain, to run on
    a worker thread.  The names are C{http.server.BaseHTTPRequestHandler}'s.  A method that
    is C{async def} has awaitable streams (L{sockserve.streams.reader.StreamReader},
    L{sockserve.http.responses.CoroutineResponse}); a plain one has files, its C{rfile}
    being the whole body, and a socket as C{self.connection}.

    A response without a C{Content-Length} gets one when the handler finishes before it
    first waits (or, plain, flushes); else it is sent in chunks.

    For type checkers its methods are coroutines, and it is generic in the server object's class.
    A class with plain ones derives from L{BlockingHTTPRequestHandler}.

    @ivar command: the request's method, as C{"GET"}.
    @ivar path: its target as sent; of several slashes at its start only one is left, since
        clients take what follows two for a host.
    @ivar wfile: where the response's body is written.
    @ivar connection: the connection, as C{self.request}.
    @cvar protocol_version: C{HTTP/1.0} to end the connection with each response.
    @cvar default_request_version: C{HTTP/0.9} to answer requests of that version, too, which are
        C{GET}, a target and no more; None to refuse them.
    @cvar server_version: the C{Server} field's value; empty for no such field.
    @cvar sys_version: a second word of it; empty for none.
    @cvar error_message_format: the page of L{send_error}, with C{%(code)d},
        C{%(message)s} and C{%(explain)s}.
    @cvar error_content_type: its content type.
    @cvar responses: by status, the reason phrase and a longer explanation.
    """

    server_version: str = f"sockserve/{__version__}"
    sys_version: str = ""
    protocol_version: str = "HTTP/1.1"
    default_request_version: str | None = None
    error_message_format: str = ERROR_FORMAT
    error_content_type: str = ERROR_CONTENT_TYPE
    MessageClass: ClassVar[type[http.client.HTTPMessage]] = http.client.HTTPMessage
    responses: ClassVar[dict[int, tuple[str, str]]] = RESPONSES

    # The head being made

    #: 0 when none has been begun.
    _status: int = 0
    #: Its lines.
    _head: str = ""
    #: What its Content-Length and Transfer-Encoding say; None when it has none.
    _length: int | None = None
    _coding: str | None = None

    connection: RequestT
    wfile: WriterT

    #: By HTTP method, whether the class's must run on a thread; noted by L{may_block}.
    _blocking: ClassVar[dict[str, bool]] = {}
    #: What its responses begin with, unless it says that by methods of its own; likewise.
    _preamble: ClassVar[Preamble | None] = None

    # The request

    @override
    def setup(self) -> Any:
        """Make the attributes from C{self.request}."""
        request: Any = self.request
        try:
            self._response: Response = request.response
        except AttributeError:
            raise TypeError(f"{type(self).__qualname__}: {_NOT_SHOWN}") from None
        self.connection = request
        self.wfile = request.wfile
        head = self._response.request
        self.command: str = head.method
        self.path: str = head.path
        if self.protocol_version != "HTTP/1.1":
            self._response.version = min(head.version, (1, 0))
            self._response.close = True

    @override
    def handle(self) -> Any:
        """
        Call the method C{do_GET} and so on for the request.  Without a C{do_HEAD} that is
        C{do_GET}; without a C{do_OPTIONS} the answer is which there are, and with one of these
        two that is None it is 405; else 501.

        @return: what the method returns: an awaitable, if it is C{async def}.
        """
        method = getattr(self, method_name(self.command) or f"do_{self.command}", None)
        if method is None:
            method = find_method(self, self.command) or self._answer_without_method
        return method()

    @property
    def _listener(self) -> Any:
        """The server that has taken the request; C{server} may be an object in front of it."""
        return getattr(self.request, "listener", self.server)

    def _answer_without_method(self) -> None:
        if hasattr(self, f"do_{self.command}"):
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
        elif self.command == "OPTIONS":
            self.send_response(HTTPStatus.NO_CONTENT)
            self.send_header("Allow", allowed_methods(type(self)))
            self.end_headers()
        else:
            self.send_error(HTTPStatus.NOT_IMPLEMENTED, f"Unsupported method ({self.command!r})")

    @override
    def finish(self) -> Any:
        """Tell the server, for the log, of a head that was begun and not ended."""
        if self._status:
            self._response.has_open_head = True

    @cached_property
    def rfile(self) -> ReaderT:
        """The request's body: an awaitable stream or a file."""
        request: Any = self.request
        rfile: ReaderT = request.rfile
        return rfile

    @cached_property
    def headers(self) -> http.client.HTTPMessage:
        """The request's header fields, by name without regard to case."""
        message = self.MessageClass()
        for name, value in self._response.request.fields:
            message[name.decode("latin-1")] = value.decode("latin-1")
        return message

    @cached_property
    def request_version(self) -> str:
        """The request's version: C{HTTP/1.1}, C{HTTP/1.0} or C{HTTP/0.9}."""
        return _VERSIONS[self._response.request.version]

    @cached_property
    def requestline(self) -> str:
        """The request line as sent, without its end."""
        return self._response.request.request_line

    @property
    def close_connection(self) -> bool:
        """Whether the connection ends with this response; set it before C{end_headers}."""
        return self._response.close

    @close_connection.setter
    def close_connection(self, close: bool) -> None:
        self._response.close = bool(close)

    # The response

    def send_response(self, code: int, message: str | None = None) -> None:
        """
        Begin the head: status line, C{Server} and C{Date}.  A head that was begun before
        and not ended is dropped.

        @param code: the status.
        @param message: the reason phrase; by default the status' own.
        @raise ValueError: the status is not within 100 and 999, or the phrase has CR, LF or
            NUL, or cannot be sent in Latin-1.
        """
        preamble = self._preamble
        lines = None if preamble is None or message is not None else preamble.lines(self, code)
        if lines is not None:
            self._status = code
            self._length = self._coding = None
            self._head = lines
            return
        self.log_request(code)
        self.send_response_only(code, message)
        server, date = self.version_string(), self.date_time_string()
        self._head += f"Server: {server}\r\nDate: {date}\r\n" if server else f"Date: {date}\r\n"

    def send_response_only(self, code: int, message: str | None = None) -> None:
        """
        Begin the head with its status line alone; also that of an interim response (1xx).

        @raise ValueError: as L{send_response}.
        """
        line = usual_status_line(code)
        if line is None or message is not None or self.responses is not RESPONSES:
            reason = self.responses.get(code, ("",))[0] if message is None else message
            line = status_line(code, reason)
        self._status = code
        self._length = self._coding = None
        self._head = line

    def send_header(self, keyword: str, value: Any) -> None:
        """
        Add a field to the head.

        @param keyword: the field's name.
        @param value: its value, or an object whose C{str} is that.
        @raise ValueError: the name is no token, or the value has CR, LF or NUL, or cannot
            be sent in Latin-1; or it is another C{Content-Length} than before, or one with a
            C{Transfer-Encoding}.
        """
        text = value if type(value) is str else str(value)
        if not (text.isascii() and text.isprintable()):
            check_text(f"header field {keyword}:", text)
        kind = known_kind(keyword)
        if kind is None:
            kind = learn_name(keyword)
        if kind and not self._note_framing(kind, text):
            return
        self._head += f"{keyword}: {text}\r\n"

    def end_headers(self) -> None:
        """
        Complete the head.  It is sent with the first of the body, or when the handler
        waits or finishes.

        @raise LocalProtocolError: no head was begun, or there was one before.
        """
        head, status = self._head, self._status
        self._status = 0
        if not status:
            raise LocalProtocolError("a head begins with send_response")
        if status < 200 and status != 101:
            self._response.send_informational(head)
        else:
            self._response.start(status, head, self._length, self._coding)
            if status == 101 or self.command == "CONNECT":
                self.__dict__.pop("rfile", None)  # the next bytes are another stream's

    def flush_headers(self) -> None:
        """Send the head now, if L{end_headers} has completed it."""
        if self._response.started:
            self.wfile.flush()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """
        Answer with an error page, in the place of a response of which nothing has been sent.

        @param code: the status.
        @param message: the reason phrase; by default the status' own.
        @param explain: a longer explanation for the page; likewise.
        @raise LocalProtocolError: a part of the response has been sent.
        """
        short, long = self.responses.get(int(code), ("???", "???"))
        message = short if message is None else message
        explain = long if explain is None else explain
        self.log_error(_ERROR_LINE, self.command, self.path, code, message)
        if not self._response.begun:
            self._response.reset()
        self.send_response(code, message)
        fields: list[tuple[str, str]] = []
        body = b""
        if code >= 200 and code not in (204, 205, 304):
            accept = accept_of(self._response.request)
            fields, body = error_fields(self, int(code), message, explain, accept)
        if code in (HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED):
            fields.append(("Allow", allowed_methods(type(self), but=self.command)))
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(body)

    # What a head says

    def version_string(self) -> str:
        """The value of the C{Server} field; there is none if that is empty."""
        return server_value(self.server_version, self.sys_version)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """
        A time as HTTP writes it (RFC 9110 section 5.6.7).

        @param timestamp: seconds since 1970; by default now.
        """
        return current_date() if timestamp is None else formatdate(timestamp, usegmt=True)

    def log_date_time_string(self) -> str:
        """The current time as logs write it."""
        return time.strftime("%d/%b/%Y %H:%M:%S")

    def address_string(self) -> str:
        """The client's address, without its port."""
        address = self.client_address
        return str(address[0]) if isinstance(address, tuple) else str(address)

    # The log

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """
        Measure a phase of the request: the seconds in which the body of the C{with} statement runs,
        or waits, are in the records and counters under C{name}, added up if it comes again.
        However the body ends, they are; other requests do not matter.
        """
        began = time.monotonic()
        try:
            yield
        finally:
            response = self._response
            if response.phases is None:
                response.phases = {}
            spent = response.phases.get(name, 0.0)
            response.phases[name] = spent + time.monotonic() - began

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Do nothing: the server has an access log.  Called by L{send_response}."""

    def log_error(self, format: str, *args: Any) -> None:
        """Call L{log_message}.  Called by L{send_error}."""
        self.log_message(format, *args)

    def log_message(self, format: str, *args: Any) -> None:
        """Log C{format % args} behind the client's address, with control characters escaped."""
        if format is _ERROR_LINE and getattr(self._listener, "logs_requests", False):
            return  # the request's own line tells
        text = without_controls(format % args)
        _log.info("{client}: {text}", client=self.address_string(), text=text)

    # For the server (reactor thread)

    @classmethod
    def blocks(cls, head: RequestHead) -> bool:
        """Whether a request must be answered on a thread: its method tells."""
        known = cls._blocking.get(head.method)
        return method_blocks(cls, head.method) if known is None else known

    @classmethod
    def may_block(cls) -> bool:
        """
        Whether the class may have a method that must run on a thread.

        @raise ConfigurationError: it has one, and a C{setup} or C{finish} that must run on
            the reactor; or a C{do_} method cannot be called or awaited.
        """
        cls._blocking = blocking_methods(cls)
        cls._preamble = make_preamble(cls, _USUAL_PARTS)
        return any(cls._blocking.values()) or blocks_unknown(cls)

    # Inside

    def _note_framing(self, kind: str, value: str) -> bool:
        """
        Take note of a field of L{FRAMING_FIELDS<sockserve.http.fields.FRAMING_FIELDS>}.

        @return: whether to send the field as it is.
        @raise ValueError: as L{send_header}.
        """
        if kind == "content-length":
            return self._note_length(value)
        if kind == "connection":
            options = [option.strip() for option in value.split(",")]
            if "close" in map(str.lower, options):
                self._response.close = True
            # It is the server that decides whether the connection is kept.
            others = [word for word in options if word.lower() not in ("close", "keep-alive")]
            if others:
                self._head += f"Connection: {', '.join(others)}\r\n"
            return False
        # RFC 9112 section 6.2: not both, as one of two readers would believe the other one.
        if self._length is not None:
            raise ValueError(f"header field Transfer-Encoding: {value}, beside a Content-Length")
        self._coding = value if self._coding is None else f"{self._coding}, {value}"
        if self._coding.lower().count("chunked") > 1:
            raise ValueError(f"header field Transfer-Encoding: {self._coding}, twice chunked")
        return True

    def _note_length(self, value: str) -> bool:
        if self._coding is not None:
            raise ValueError(f"header field Content-Length: {value}, beside a Transfer-Encoding")
        if not (value.isascii() and value.isdigit()):
            raise ValueError(f"header field Content-Length: {value!r} is not a number")
        is_first = self._length is None
        if not is_first and self._length != int(value):
            raise ValueError(f"header field Content-Length: {value}, after {self._length}")
        self._length = int(value)
        return is_first


class BlockingHTTPRequestHandler(
    HTTPRequestHandler[ServerT, socket, BufferedIOBase, BufferedIOBase]
):
    """
    A handler for HTTP whose methods are plain.  It does as its base class does, and tells type
    checkers that C{request} is a socket, C{rfile} and C{wfile} are files.
    """


#: Those of a class that has nothing of its own to say.
_USUAL_PARTS = preamble_parts(HTTPRequestHandler)
