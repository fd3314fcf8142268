"""
The checks of a drop-in server object: of what a program has set on it, and of its handler.

This room owns what cannot be, and which settings are the program's own.  It must not know what
comes of them.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

from sockserve.core.deadlines import Deadlines
from sockserve.core.handler_kinds import check_carrier, handler_kind, provides, unwrap
from sockserve.core.limits import LIMITS, check_limit
from sockserve.dropin.settings import DEFAULT_DEADLINES, DEFAULT_MAX_THREADS, DropInLimits
from sockserve.interfaces import ConfigurationError, IHTTPRequestHandler, IRequestHandler

__all__ = ["carrier_of_server", "check_server", "check_settings", "own_deadlines", "own_limits"]


def check_settings(option: str, threads: object, deadlines: object) -> None:
    """
    Check what a program has set.

    @param option: the name of C{threads} where it is set.
    @raise ConfigurationError: one of these cannot be.
    """
    if not isinstance(threads, int) or threads < 1:
        raise ConfigurationError(f"{option}: {threads!r} is not a number of threads, 1 or more")
    if not isinstance(deadlines, Deadlines):
        raise ConfigurationError(
            f"deadlines: {deadlines!r} is no sockserve.Deadlines; a phase without one is None there"
        )


def check_server(server: Any, make: Any, threads: bool) -> None:
    """
    Check a drop-in server's variables and its handler.

    @param threads: whether it has sockserve's C{ThreadingMixIn}.
    @raise ConfigurationError: one of them cannot be.
    """
    check_settings(
        "max_threads", getattr(server, "max_threads", DEFAULT_MAX_THREADS), server.deadlines
    )
    own_limits(server)
    if not provides(make, IRequestHandler):
        return
    if not provides(make, IHTTPRequestHandler) and not handler_kind(make).is_coroutine:
        return
    name, kind = unwrap(make).__qualname__, type(server).__qualname__
    check_carrier(handler_kind(make), name, carrier_of_server(server))
    if getattr(server, "socket_type", None) == socket.SOCK_DGRAM:
        raise ConfigurationError(
            f"handler {name}: {kind} serves datagrams, by plain methods; use DatagramRequestService"
        )
    if not threads:
        raise ConfigurationError(
            f"handler {name}: {kind} serves on the thread that calls serve_forever, which such a"
            " handler does not run on; add ThreadingMixIn"
        )


def carrier_of_server(server: Any) -> str | None:
    """As L{check_carrier<sockserve.core.handler_kinds.check_carrier>} takes it."""
    if getattr(server, "socket_type", None) == socket.SOCK_DGRAM:
        return "in datagrams"
    if getattr(server, "address_family", None) == getattr(socket, "AF_UNIX", None):
        return "over UNIX sockets"
    return "over TLS" if isinstance(getattr(server, "socket", None), ssl.SSLSocket) else None


def own_limits(server: object, default: object = None) -> dict[str, Any]:
    """
    The limits that a server object has.

    @param default: has those that the object does not have.
    @return: by name, those of L{DropInLimits}.
    @raise ConfigurationError: one of them cannot be.
    """
    limits = {}
    for name in LIMITS:
        if hasattr(DropInLimits, name) and (hasattr(server, name) or hasattr(default, name)):
            limits[name] = value = getattr(server, name, getattr(default, name, None))
            check_limit(name, value)
    return limits


def own_deadlines(server: object) -> Deadlines | None:
    """The deadlines that the program has given a server object; None if it has not."""
    deadlines = getattr(server, "deadlines", None)
    if isinstance(deadlines, Deadlines) and deadlines is not DEFAULT_DEADLINES:
        return deadlines
    return None
