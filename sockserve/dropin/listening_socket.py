"""
The listening socket of a server object, as far as others than the object use it.

This room owns how it is asked whether it is open, and how it ends before the object is closed.  It
must not know when that is.
"""

from __future__ import annotations

import os
import socket
import time

from sockserve.dropin.overriding import is_overridden
from sockserve.dropin.server_object import ServerObject

__all__ = ["is_open", "stop_listening", "wait_for_children"]

#: How long children that have just been forked are waited for.  1 s: on a busy machine they run by
#: then.
CHILD_SECONDS = 1.0

#: How often it is looked whether they have, in seconds.  0.001: mostly they have at once.
_LOOK_SECONDS = 0.001


def wait_for_children(server: ServerObject, seconds: float = CHILD_SECONDS) -> None:
    """
    Wait until the children of a C{ForkingMixIn} have let go of the socket that the server listens
    on, which is the first that a child does.  While one holds it, it listens, and who comes
    meanwhile is reset when the child runs. (accept thread)

    @param seconds: how long at most.
    """
    until = time.monotonic() + seconds
    children = tuple(getattr(server, "active_children", None) or ())
    while any(_holds(pid, server.fileno()) for pid in children) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)


def _holds(pid: int, descriptor: int) -> bool:
    """Whether a child holds what has this descriptor here, by the same number."""
    try:
        return os.path.samestat(os.stat(f"/proc/{pid}/fd/{descriptor}"), os.fstat(descriptor))
    except OSError:  # it does not, or it has ended, or there is no way to tell
        return False


def stop_listening(server: ServerObject) -> None:
    """
    Have new clients refused, if the server listens for connections.  Its socket is another one from
    here on, which listens to nobody, and is the server's to close. (accept thread)
    """
    listening: object = getattr(server, "socket", None)
    if not isinstance(listening, socket.socket) or listening.type != socket.SOCK_STREAM:
        return
    if listening.family == socket.AF_UNIX and is_overridden(server, "server_close"):
        return  # which may ask it for the name to be unlinked
    if listening.fileno() >= 0:
        try:
            unbound = socket.socket(listening.family, listening.type)
        except OSError:  # no descriptor: it listens until it is closed
            return
        with unbound:
            os.dup2(unbound.fileno(), listening.fileno(), inheritable=False)


def is_open(server: ServerObject) -> bool:
    """
    Whether a server still has its socket; one that is closed would never let a loop wait.
    (any thread)
    """
    try:
        return bool(server.fileno() >= 0)
    except (OSError, ValueError):
        return False
