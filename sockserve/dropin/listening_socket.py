"""
The listening socket of a server object, as far as others than the object use it.

This room owns how it is asked whether it is open, and how it ends before the object is closed.  It
must not know when that is.
"""

from __future__ import annotations

import os
import socket

from sockserve.dropin.overriding import is_overridden
from sockserve.dropin.server_object import ServerObject

__all__ = ["is_open", "stop_listening"]


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
