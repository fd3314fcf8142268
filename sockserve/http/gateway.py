"""
The gateway: an HTTP handler that gives each request to the class that its URL names.

This room owns the table of such classes, the environment they get, and the answer when what is
behind them does not answer in time.  It must not know how a backend is spoken to, or what makes a
response.
"""

from __future__ import annotations

import http.client
import inspect
import pkgutil
import re
from collections.abc import Awaitable, Coroutine, Mapping
from contextlib import AbstractContextManager
from http import HTTPStatus
from typing import Any, ClassVar, TypeVar
from urllib.parse import unquote

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as BackendTimedOut
from typing_extensions import override
from zope.interface import implementer

from sockserve.aio import run
from sockserve.core.clock import clock_of
from sockserve.core.deadlines import is_duration
from sockserve.core.messages import one_line
from sockserve.handlers import BaseRequestHandler
from sockserve.http.h1.head import RequestHead, parse_head
from sockserve.http.handlers import HTTPRequestHandler
from sockserve.http.requests import RequestConnection
from sockserve.interfaces import ConfigurationError, DeadlineExpired, IHTTPRequestHandler

__all__ = ["Environment", "GatewayRequestHandler", "WebHandler"]

_T = TypeVar("_T")

#: A request as the class of its URL gets it: its header fields by name, in lower case, and
#: C{request_method}, C{path_info}, C{query_string} if there is one, and C{http_host}, which are
#: WSGI's (PEP 3333) in lower case.
Environment = http.client.HTTPMessage

#: The end of a head.
_HEAD_END = re.compile(rb"\r?\n\r?\n")

#: The methods of HTTP that a class can have one for.
_COMMANDS = ("GET", "HEAD", "POST")

#: A status as L{GatewayRequestHandler.send_response} takes it: number and reason phrase.
_STATUS = re.compile(r"([1-9][0-9]{2})(?: (.*))?", re.DOTALL)

#: What a call that has taken too long raises: a socket's or C{urllib}'s, and Twisted's.
_TIMED_OUT = (TimeoutError, BackendTimedOut)


def _environment(head: RequestHead) -> Environment:
    """The environment of the request that begins with C{head}."""
    path, has_query, query = head.target.partition("?")
    values = {"request_method": head.method, "path_info": unquote(path, "latin-1")}
    if has_query:
        values["query_string"] = query
    host = head.field(b"host")
    if host is not None:
        values["http_host"] = host.decode("latin-1")
    env = Environment()
    for name, value in head.fields:
        lower = name.decode("latin-1").lower()
        # A client must not be able to say what only the request line does.
        if "_" not in lower:
            env[lower] = value.decode("latin-1")
    for lower, text in values.items():
        env[lower] = text
    return env


class WebHandler:
    """
    The request as the class of its URL gets it, with the ways to answer it.

    @ivar env: the request's C{Environment}.
    @ivar request_handler: the handler that answers it.
    """

    def __init__(self, request_handler: GatewayRequestHandler, env: Environment) -> None:
        self.request_handler = request_handler
        self.env = env

    @property
    def rfile(self) -> Any:
        """The request's body: an awaitable stream for a coroutine, a file for a plain method."""
        return self.request_handler.http.rfile

    def send_response(
        self,
        response: bytes | str,
        status: str = "200 Ok",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """As L{GatewayRequestHandler.send_response}."""
        self.request_handler.send_response(response, status, headers)

    def send_not_found(self) -> None:
        """As L{GatewayRequestHandler.send_not_found}."""
        self.request_handler.send_not_found()

    def send_timeout(self) -> None:
        """As L{GatewayRequestHandler.send_timeout}."""
        self.request_handler.send_timeout()

    def phase(self, name: str) -> AbstractContextManager[None]:
        """As L{HTTPRequestHandler.phase<sockserve.http.HTTPRequestHandler.phase>}."""
        return self.request_handler.phase(name)

    async def call_backend(
        self, answer: Deferred[_T] | Coroutine[Deferred[Any], Any, _T], seconds: float | None = None
    ) -> _T:
        """
        Wait for a backend's answer, and cancel the call when that takes too long.  Where the
        class of the URL lets the error pass, the client is told by L{send_timeout}.

        @param answer: the call, under way.
        @param seconds: how long to wait; by default C{backend_timeout} of the request handler.
        @raise twisted.internet.defer.TimeoutError: it has taken too long.
        """
        handler = self.request_handler
        called = answer if isinstance(answer, Deferred) else run(answer)
        limit = handler.backend_timeout if seconds is None else seconds
        if limit is not None:
            called.addTimeout(limit, clock_of(handler.server.reactor))
        return await called


@implementer(IHTTPRequestHandler)
class GatewayRequestHandler(BaseRequestHandler[RequestConnection, Any]):
    """
    An HTTP handler that finds the class for the request's URL, makes one of it, and calls its
    C{do_GET}, C{do_POST} or C{do_HEAD} with the environment.

    Each may be C{async def}, to run on the reactor, or plain, to run on a worker thread.  Without a
    C{do_HEAD}, C{do_GET} answers C{HEAD}, and the body is left out.

    @ivar http: the handler by which it answers, for all that is not said here.
    @cvar urls: what is served, by the first part of the path: a class, or its name as
        C{MODULE:CLASS}.  It is called with a L{WebHandler}.  The longest path that fits is taken;
        C{"/"} fits all.
    @cvar backend_timeout: the seconds that L{WebHandler.call_backend} waits; None for ever.  13:
        that of the Govi cache, whose request handler this one is made after.
    @cvar timeout_status: what a client is told when a backend has not answered in time.
    @cvar content_type: that of a response whose C{headers} do not say.
    """

    urls: ClassVar[Mapping[str, str | type]] = {}
    backend_timeout: ClassVar[float | None] = 13.0
    timeout_status: ClassVar[str] = "504 Gateway Timeout"
    content_type: ClassVar[str] = "text/html; charset=utf-8"

    #: What L{urls} names, by the parts of each path; made by L{may_block}.
    _classes: ClassVar[Mapping[tuple[str, ...], type]] = {}

    # Without a server it can parse all the same: L{parse_request} is called of objects, too.
    def __init__(self, request: Any, client_address: Any, server: Any = None) -> None:
        super().__init__(request, client_address, server)

    # The request

    @staticmethod
    def parse_request(blob: str | bytes) -> Environment:
        r"""
        Parse the head of a request; no connection is needed.

        >>> request = '''GET /kv55/57330430 HTTP/1.1
        ... Host: cache.govi.openov.nl
        ... Accept-Language: en-us,en;q=0.5
        ...
        ... '''
        >>> env = GatewayRequestHandler(object(), None).parse_request(request)
        >>> for e in env.items():
        ...     print(e)
        ('host', 'cache.govi.openov.nl')
        ('accept-language', 'en-us,en;q=0.5')
        ('request_method', 'GET')
        ('path_info', '/kv55/57330430')
        ('http_host', 'cache.govi.openov.nl')

        @param blob: the request; its lines may end in LF alone, and what comes after the head is
            not looked at.
        @raise RemoteProtocolError: it is no head of HTTP.
        """
        raw = blob.encode("latin-1", "replace") if isinstance(blob, str) else blob
        end = _HEAD_END.search(raw)
        raw = raw.rstrip(b"\r\n") + b"\r\n\r\n" if end is None else raw[: end.end()]
        return _environment(parse_head(raw, lenient=True))

    @override
    def setup(self) -> None:
        """Make C{http} from C{self.request}."""
        self.http = HTTPRequestHandler(self.request, self.client_address, self.server)
        self.http.setup()

    @override
    def handle(self) -> Awaitable[None] | None:
        """Process the request."""
        return self.process(_environment(self.request.head))

    def process(self, env: Environment) -> Awaitable[None] | None:
        """
        Find the class for the URL, make one, and call its method for the request's; answer 404
        where there is none for the URL, and 405 where it has no such method.

        @return: what is to be awaited, if the method is C{async def}.
        """
        cls = self._find(env["path_info"])
        if cls is None:
            self.send_not_found()
            return None
        name = _method_name(cls, env["request_method"])
        if name is None:
            self._refuse_method(cls)
            return None
        method = getattr(cls(WebHandler(self, env)), name)
        if not _blocks(cls, name):
            return self._await(method(env))
        try:
            method(env)
        except _TIMED_OUT as error:
            self._timed_out(error)
        return None

    async def _await(self, answered: Awaitable[object]) -> None:
        """Wait for a class' coroutine method."""
        try:
            await answered
        except _TIMED_OUT as error:
            self._timed_out(error)

    def _timed_out(self, error: Exception) -> None:
        """A backend has not answered in time: tell the client, unless it has had an answer."""
        if isinstance(error, DeadlineExpired) or self.request.response.begun:
            raise error
        self.send_timeout()

    def _refuse_method(self, cls: type) -> None:
        """Answer 405: the class has no such method."""
        allowed = ", ".join(command for command in _COMMANDS if _method_name(cls, command))
        self.send_response("", "405 Method Not Allowed", {"Allow": allowed})

    # The response

    def send_response(
        self,
        response: bytes | str,
        status: str = "200 Ok",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """
        Answer the request, with all of the response's body.

        @param response: the body; text is sent in UTF-8.
        @param status: number and reason phrase.
        @param headers: further fields, by name.
        @raise ValueError: as L{HTTPRequestHandler.send_header
            <sockserve.http.HTTPRequestHandler.send_header>}; or C{status} is none.
        """
        code, phrase = _parse_status(status)
        body = response.encode() if isinstance(response, str) else response
        answer, fields = self.http, dict(headers or {})
        names = {name.lower() for name in fields}
        answer.send_response(code, phrase)
        has_body = code >= 200 and code not in (204, 304)
        if body and "content-type" not in names:
            fields["Content-Type"] = self.content_type
        if has_body and not names & {"content-length", "transfer-encoding"}:
            fields["Content-Length"] = str(len(body))
        for name, value in fields.items():
            answer.send_header(name, value)
        answer.end_headers()
        if has_body and answer.command != "HEAD":
            answer.wfile.write(body)

    def send_not_found(self) -> None:
        """Answer 404: there is nothing at this URL."""
        self.http.send_error(HTTPStatus.NOT_FOUND)

    def send_timeout(self) -> None:
        """Answer C{timeout_status}: what is behind the gateway has not answered in time."""
        self.http.send_error(*_parse_status(self.timeout_status))

    def phase(self, name: str) -> AbstractContextManager[None]:
        """As L{HTTPRequestHandler.phase<sockserve.http.HTTPRequestHandler.phase>}."""
        return self.http.phase(name)

    # For the server (reactor thread)

    @classmethod
    def may_block(cls) -> bool:
        """
        Whether one of the classes has a method that must run on a thread; it loads them.

        @raise ConfigurationError: one cannot be loaded, or is none; or C{urls}, C{timeout_status}
            or C{backend_timeout} is none.
        """
        name = cls.__qualname__
        if not isinstance(cls.urls, Mapping):
            raise ConfigurationError(
                f"handler {name}: urls: {cls.urls!r} is no mapping, as {{'/path': MyClass}} is one"
            )
        seconds: object = cls.backend_timeout
        if seconds is not None and not is_duration(seconds):
            raise ConfigurationError(
                f"handler {name}: backend_timeout: {seconds!r} is not a number of seconds above 0"
                " (None: for ever)"
            )
        try:
            _parse_status(cls.timeout_status)
        except ValueError as error:
            raise ConfigurationError(f"handler {name}: timeout_{error}") from None
        cls._classes = {_parts(url): cls._load(url, named) for url, named in cls.urls.items()}
        return any(_blocks(made, name) for made in cls._classes.values() for name in _methods(made))

    @classmethod
    def blocks(cls, head: RequestHead) -> bool:
        """Whether a request must be answered on a thread: the method of its URL's class tells."""
        made = cls._find(_environment(head)["path_info"])
        if made is None:
            return False
        name = _method_name(made, head.method)
        return name is not None and _blocks(made, name)

    @classmethod
    def _load(cls, url: str, named: str | type) -> type:
        """The class that C{urls} names for a URL."""
        found: object = named
        if isinstance(named, str):
            try:
                found = pkgutil.resolve_name(named)
            except Exception as error:  # whatever the module raises
                raise ConfigurationError(
                    f"handler {cls.__qualname__}: cannot import {named!r}, the class for {url!r}:"
                    f" {type(error).__name__}: {one_line(error)}"
                ) from error
        if not isinstance(found, type) or not _methods(found):
            raise ConfigurationError(
                f"handler {cls.__qualname__}: {named!r}, for {url!r}, is not a class with a do_GET,"
                " do_POST or do_HEAD"
            )
        return found

    @classmethod
    def _find(cls, path: str) -> type | None:
        """The class for a path: of all that fit, the one with the longest path."""
        parts = _parts(path)
        fits = (cls._classes.get(parts[:size]) for size in range(len(parts), -1, -1))
        return next((found for found in fits if found is not None), None)


def _parse_status(status: str) -> tuple[int, str | None]:
    """
    The number and the reason phrase of a status; None for the usual phrase.

    @raise ValueError: it is none.
    """
    match = _STATUS.fullmatch(status)
    if match is None:
        raise ValueError(f"status {status!r}: write a number and words, as in '200 Ok'")
    return int(match[1]), match[2]


def _parts(path: str) -> tuple[str, ...]:
    """The parts of a path, between its slashes."""
    return tuple(filter(None, path.split("/")))


def _methods(cls: type) -> list[str]:
    """The names of the methods of a class that answer requests."""
    return [
        f"do_{command}" for command in _COMMANDS if callable(getattr(cls, f"do_{command}", None))
    ]


def _method_name(cls: type, command: str) -> str | None:
    """The name of the method that answers C{command}; None if there is none."""
    methods = _methods(cls)
    if f"do_{command}" in methods:
        return f"do_{command}"
    return "do_GET" if command == "HEAD" and "do_GET" in methods else None


def _blocks(cls: type, name: str) -> bool:
    """Whether a method of a class must run on a thread."""
    return not inspect.iscoroutinefunction(getattr(cls, name))
