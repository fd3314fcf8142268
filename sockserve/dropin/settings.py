"""
The settings of a server object: the class variables of sockserve's that a program may give it.

This room owns their defaults, which refuse nothing that the standard library takes, and their
checks.  It must not know what comes of them.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

from sockserve.core.deadlines import Deadlines
from sockserve.core.handler_kinds import check_carrier, handler_kind, provides, unwrap
from sockserve.core.limits import LIMITS, check_limit
from sockserve.http.limits import DropInHTTPLimits
from sockserve.interfaces import ConfigurationError, IHTTPRequestHandler, IRequestHandler

__all__ = [
    "DEFAULT_DEADLINES",
    "DEFAULT_MAX_THREADS",
    "DropInLimits",
    "carrier_of_server",
    "check_server",
    "check_settings",
    "keep_own_variables",
    "own_deadlines",
    "own_limits",
]

#: The deadlines of a server, where the program does not say.  One that waits for ever, waits
#: for ever; but a client that says nothing at all when TLS is spoken is not waited for.  10:
#: as L{Deadlines}.
DEFAULT_DEADLINES = Deadlines(
    handshake=10.0, idle=None, header=None, body_rate=None, write=None, drain=None
)


#: The most threads of a server, where the program does not say.  One that keeps a thread for
#: each connection, as all did, works as before with so many; a runaway one does not take the
#: machine with it.
DEFAULT_MAX_THREADS = 1000


class DropInLimits(DropInHTTPLimits):
    """
    The limits of a drop-in server, as class variables: a base for each protocol that has some.

    @cvar max_datagrams: the most datagrams served or waiting for a thread at once; others wait
        in the system's buffer.  By default, any number.
    """

    max_datagrams: int | None = None


def keep_own_variables(cls: type, standard: type | None) -> None:
    """
    Give a drop-in class those variables that the standard library's of its name does not take from
    its bases.  A program may set one on a base: C{TCPServer.allow_reuse_address = True} is not
    meant for C{UDPServer}, which has its own.
    """
    if standard is None or standard is cls:
        return
    for name, value in vars(standard).items():
        is_of_a_base = any(hasattr(base, name) for base in standard.__bases__)
        is_variable = value is None or isinstance(value, int)
        if is_variable and is_of_a_base and not name.startswith("_") and name not in vars(cls):
            setattr(cls, name, value)


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
