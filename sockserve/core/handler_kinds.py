"""
Handler kinds: what a server can tell of a handler from its class.

This room owns the questions that are put to a handler's class, once for each server.  It must
not know servers or requests.
"""

from __future__ import annotations

import functools
import inspect
from enum import Enum
from http.server import BaseHTTPRequestHandler
from typing import Any

from zope.interface.interface import InterfaceClass

from sockserve.interfaces import ConfigurationError, IHTTPRequestHandler, IRequestHandler

__all__ = [
    "HandlerKind",
    "application_protocols",
    "check_carrier",
    "handler_kind",
    "handler_name",
    "loop_override",
    "provides",
    "speaks_http",
    "unwrap",
]

#: What of one of C{http.server}'s handlers decides how requests are read.
_LOOP = ("handle", "handle_one_request", "parse_request", "handle_expect_100")

#: The module whose C{WSGIRequestHandler} reads requests likewise.  It is not imported here: a
#: program may have it on other modules than those that this room has.
_LIKEWISE = "wsgiref.simple_server"

#: The method by which a class asks for TCP's urgent data.
_URGENT = "urgent_received"


class HandlerKind(Enum):
    """
    The way in which a handler is served: who reads its connection, and where it runs.

    @ivar is_coroutine: whether it always runs on the reactor, and takes no executor.
    @ivar is_http: whether the reactor reads HTTP for it.
    """

    #: A coroutine with awaitable streams, or for a datagram.
    COROUTINE = ("coroutine", True, False)
    #: A coroutine that takes TCP's urgent data, and so needs a TCP connection, with nothing between
    #: that and itself.
    URGENT = ("coroutine, urgent data", True, False)
    #: It blocks, and has a socket.
    BLOCKING = ("blocking", False, False)
    #: C{HTTPRequestHandler}, all of whose methods are coroutines.
    HTTP_COROUTINE = ("http, coroutine", True, True)
    #: C{HTTPRequestHandler}, some of whose methods block: asked about each request, which is
    #: served as one of L{HTTP_COROUTINE}, or of this kind:
    HTTP_MIXED = ("http, mixed", False, True)
    HTTP_BLOCKING = ("http, blocking", False, True)
    #: One of C{http.server}'s handlers, which reads requests as those do, so that it can be
    #: given one that has arrived.
    HTTP_STOCK = ("http, stock", False, True)

    def __init__(self, words: str, is_coroutine: bool, is_http: bool) -> None:
        self.is_coroutine = is_coroutine
        self.is_http = is_http

    @property
    def needs_tcp(self) -> bool:
        """Whether it is served on TCP connections only, with nothing between."""
        return self is HandlerKind.URGENT


def unwrap(factory: object) -> Any:
    """The class behind C{factory}, through any C{functools.partial}."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    return factory


def handler_name(factory: object) -> str:
    """The name of the class behind C{factory}, for logs and messages."""
    cls = unwrap(factory)
    return getattr(cls, "__qualname__", None) or repr(cls)


def provides(factory: object, interface: InterfaceClass) -> bool:
    """Whether what C{factory} makes has an interface, as far as a class can tell."""
    cls = unwrap(factory)
    # Of other callables zope.interface would keep a note on them, which not all let it.
    return isinstance(cls, type) and bool(interface.implementedBy(cls))


def handler_kind(factory: object, forks: bool = False) -> HandlerKind:
    """
    The kind of handler that C{factory} makes, as far as a class can tell; what any other
    callable makes is taken to block.

    @param forks: whether blocking handlers run in children.
    @raise ConfigurationError: the class mixes the two kinds, or is a stdlib handler
        class with coroutine methods, or cannot be called.
    """
    cls = unwrap(factory)
    if not callable(cls):
        raise ConfigurationError(f"handler {cls!r} is not a class or callable")
    name = handler_name(cls)
    takes_urgent = provides(cls, IRequestHandler) and hasattr(cls, _URGENT)
    if provides(cls, IHTTPRequestHandler):
        if takes_urgent:
            raise ConfigurationError(
                f"handler {name}: {_URGENT} is never called, as HTTP has no urgent data"
            )
        return HandlerKind.HTTP_MIXED if cls.may_block() else HandlerKind.HTTP_COROUTINE
    methods = {"setup", "handle", "finish"}
    if hasattr(cls, "handle_one_request"):  # http.server's
        methods.update(method for method in dir(cls) if method.startswith("do_"))
    coroutines = {
        method for method in methods if inspect.iscoroutinefunction(getattr(cls, method, None))
    }
    if takes_urgent:
        _check_urgent(name, cls, "handle" in coroutines)
    if not coroutines:
        # In a child it reads its requests by itself.
        is_stock = _reads_as_stock(cls) and not forks
        return HandlerKind.HTTP_STOCK if is_stock else HandlerKind.BLOCKING
    if not provides(cls, IRequestHandler):
        raise ConfigurationError(
            f"handler {name}: {', '.join(sorted(coroutines))} is async def, which"
            " socketserver's classes never await; derive from sockserve's class of the same name"
        )
    if "handle" not in coroutines:
        raise ConfigurationError(
            f"handler {name}: {', '.join(sorted(coroutines))} is async def but handle is not;"
            " a request runs in one place, so make handle async def too"
        )
    return HandlerKind.URGENT if takes_urgent else HandlerKind.COROUTINE


def _check_urgent(name: str, cls: Any, is_coroutine: bool) -> None:
    """
    Check that a class can be told of urgent data.

    @raise ConfigurationError: it cannot.
    """
    if not is_coroutine:
        raise ConfigurationError(
            f"handler {name}: {_URGENT} is never called of a handler that blocks; make handle async"
            " def, or ask the socket (recv with MSG_OOB)"
        )
    if inspect.iscoroutinefunction(getattr(cls, _URGENT)):
        raise ConfigurationError(
            f"handler {name}: {_URGENT} is async def, but is called where nothing may wait; make it"
            " plain"
        )


def check_carrier(kind: HandlerKind, name: str, carrier: str | None) -> None:
    """
    Check that a handler can be served on what a listener gives it.

    @param name: the handler's.
    @param carrier: what that is, or what is above it, with a preposition; None for plain TCP, or
        where nobody knows.
    @raise ConfigurationError: it is not TCP alone, which the handler needs.
    """
    if carrier is not None and kind.needs_tcp:
        raise ConfigurationError(
            f"handler {name}: {_URGENT} asks for TCP urgent data, which there is none of {carrier};"
            " listen on plain TCP, or leave that method out"
        )


def _reads_as_stock(cls: object) -> bool:
    """Whether a handler class reads requests as C{http.server}'s do."""
    return (
        isinstance(cls, type)
        and issubclass(cls, BaseHTTPRequestHandler)
        and loop_override(cls) is None
    )


def loop_override(cls: type[BaseHTTPRequestHandler]) -> str | None:
    """
    The attribute by which a handler class of C{http.server}'s reads requests in a way of its own;
    None if it does not.  (With C{rbufsize} 0 it reads no more than it asks for: another
    program, a CGI script say, is to have the connection.)
    """
    if cls.rbufsize == 0:
        return "rbufsize"
    for name in _LOOP:
        method = getattr(cls, name)
        # Not by its name or module, which a wrapper takes over from what it wraps.
        module = getattr(method, "__globals__", {}).get("__name__")
        if method is not getattr(BaseHTTPRequestHandler, name) and module != _LIKEWISE:
            return name
    return None


def speaks_http(factory: object) -> bool:
    """Whether what C{factory} makes answers HTTP requests, whoever reads those."""
    cls = unwrap(factory)
    is_stdlibs = isinstance(cls, type) and issubclass(cls, BaseHTTPRequestHandler)
    return is_stdlibs or provides(cls, IHTTPRequestHandler)


def application_protocols(factory: object) -> tuple[bytes, ...]:
    """The names (ALPN, RFC 7301) of what C{factory}'s handlers speak; none of what nobody knows."""
    return (b"http/1.1", b"http/1.0") if speaks_http(factory) else ()
