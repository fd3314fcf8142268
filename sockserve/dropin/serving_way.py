"""
Serving ways: what serves the requests of a server object, and why, in words.

This room owns how that is told from a server's class and its handler's, before a request has come.
It must not know how requests are served: it puts the questions that decide it, once more.
"""

from __future__ import annotations

import socket
import socketserver
import ssl
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler

from sockserve.core.handler_kinds import (
    HandlerKind,
    handler_kind,
    loop_override,
    speaks_http,
    unwrap,
)
from sockserve.dropin.overriding import is_overridden
from sockserve.dropin.server_object import ServerObject
from sockserve.interfaces import ConfigurationError

__all__ = ["ServingWay", "WayKind", "serving_way"]

_MIX_INS = (socketserver.ForkingMixIn, socketserver.ThreadingMixIn)


class WayKind(Enum):
    """The kind of a serving way, by what serves the requests."""

    #: The program's own code, from the accepted request on.
    ITSELF = "by itself"
    #: A child for each request.
    FORKED = "forked"
    #: Threads of a pool.
    THREADS = "threads"
    #: The thread that calls C{serve_forever} or C{handle_request}, one request after another.
    SERIAL = "serial"
    #: The reactor, and no thread.
    REACTOR = "reactor"


@dataclass(frozen=True)
class ServingWay:
    """
    The way in which a server's requests are served.

    @ivar kind: what serves them.
    @ivar is_parked: whether an HTTP connection is the reactor's until a request has arrived on it;
        None where the question does not arise.
    @ivar why: what has decided that; empty where there was nothing to decide.
    """

    kind: WayKind
    is_parked: bool | None
    why: str


def serving_way(server: ServerObject, is_loop: bool = True) -> ServingWay:
    """
    The way of a server's requests.

    @param is_loop: whether C{serve_forever} takes them, not C{handle_request}.
    """
    if _processes_by_itself(server):
        return ServingWay(WayKind.ITSELF, None, _program_has(server, "process_request"))
    mix_in = next((base for base in type(server).__mro__ if base in _MIX_INS), None)
    if mix_in is socketserver.ForkingMixIn:
        return ServingWay(WayKind.FORKED, None, "")
    make = server.RequestHandlerClass
    try:
        kind = handler_kind(make)
    except ConfigurationError:
        kind = HandlerKind.BLOCKING  # of a program that makes it by itself
    if kind.is_coroutine:
        return ServingWay(WayKind.REACTOR, None, "its handler is a coroutine")
    way = WayKind.SERIAL if mix_in is None else WayKind.THREADS
    if not speaks_http(make):
        return ServingWay(way, None, "")
    why = _why_not_parked(server, kind, way, is_loop)
    if why is None and is_overridden(server, "get_request"):
        return ServingWay(way, True, f"where {_owner(server, 'get_request')} gives plain sockets")
    return ServingWay(way, why is None, why or "")


def _processes_by_itself(server: ServerObject) -> bool:
    """Whether a C{process_request} of the program's hands requests on to nobody's."""
    name = "process_request"
    methods = [vars(server).get(name)]
    for base in type(server).__mro__:
        methods.append(vars(base).get(name))
        if name in vars(base) and not is_overridden(base, name):
            break
    *own, _ = filter(None, methods)
    for method in own:
        code = getattr(getattr(method, "__func__", method), "__code__", None)
        if code is None or name not in code.co_names:
            return True
    return False


def _why_not_parked(
    server: ServerObject, kind: HandlerKind, way: WayKind, is_loop: bool
) -> str | None:
    """Why a thread has an HTTP connection from its first byte to its last; None if it does not."""
    handler = unwrap(server.RequestHandlerClass)
    if kind is not HandlerKind.HTTP_STOCK:
        if not issubclass(handler, BaseHTTPRequestHandler):
            return None
        return _program_has(handler, loop_override(handler) or "handle")
    if not getattr(server, "parks_connections", True):
        return "parks_connections is False"
    if way is WayKind.SERIAL and not is_loop:
        return "handle_request takes one connection"
    own = "process_request_thread" if way is WayKind.THREADS else "process_request"
    for name in (own, "finish_request", "shutdown_request", "close_request"):
        if is_overridden(server, name):
            return _program_has(server, name)
    for name in ("setup", "finish"):
        if is_overridden(handler, name):
            return _program_has(handler, name)
    if socket.getdefaulttimeout() is not None:
        return "sockets have a timeout, by setdefaulttimeout"
    listening = getattr(server, "socket", None)
    if way is WayKind.THREADS and isinstance(listening, ssl.SSLSocket):
        return "the connections are the ssl module's"
    return None


def _owner(owner: object, name: str) -> str:
    """The owner of a method, or of another attribute, with its name."""
    classes = owner.__mro__ if isinstance(owner, type) else type(owner).__mro__
    has = next((base for base in classes if name in vars(base)), None)
    if has is None or (not isinstance(owner, type) and name in vars(owner)):
        return f"the server's {name}"
    return f"{has.__qualname__}.{name}"


def _program_has(owner: object, name: str) -> str:
    return f"{_owner(owner, name)} is not the standard library's"
