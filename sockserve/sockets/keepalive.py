"""
Keepalive: what the kernel does by itself to find out that a peer is no more; and what it is not
to do, wait for an acknowledgement before it sends.

This room owns the socket options of that.  It must not know who listens, or what is served.
"""

from __future__ import annotations

import math
import socket

from sockserve.core.deadlines import KEEPALIVE_PROBES, Deadlines

__all__ = ["keep_alive", "send_at_once"]

#: The largest values that Linux takes for a time between probes, in seconds (include/net/tcp.h:
#: MAX_TCP_KEEPIDLE), and for TCP_USER_TIMEOUT, in milliseconds.
_MAX_KEEPALIVE_SECONDS = 32767
_MAX_USER_TIMEOUT_MILLISECONDS = 2**31 - 1

#: By their names, as not all systems have them.  (macOS calls the first one TCP_KEEPALIVE.)
_IDLE = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))
_INTERVAL = getattr(socket, "TCP_KEEPINTVL", None)
_COUNT = getattr(socket, "TCP_KEEPCNT", None)
_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)


def keep_alive(sock: object, deadlines: Deadlines) -> None:
    """
    Have the kernel ask after a silent peer, and give up one that acknowledges nothing; where
    C{sock} is a TCP socket, and nobody has set these options on it before. (any thread)

    @param sock: a connection, or what listens: what that accepts inherits its options.
    """
    if not isinstance(sock, socket.socket) or sock.type != socket.SOCK_STREAM:
        return
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    try:
        if deadlines.keepalive is not None:
            _ask_after_silent(sock, deadlines.keepalive)
        if deadlines.user_timeout is not None:
            _give_up_dead(sock, deadlines.user_timeout)
    except OSError:  # closed, or of some other protocol
        pass


def _ask_after_silent(sock: socket.socket, seconds: float) -> None:
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (_IDLE, seconds),
            (_INTERVAL, seconds / KEEPALIVE_PROBES),
            (_COUNT, KEEPALIVE_PROBES),
        ):
            if option is not None:
                value = min(math.ceil(value), _MAX_KEEPALIVE_SECONDS)
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _give_up_dead(sock: socket.socket, seconds: float) -> None:
    if _USER_TIMEOUT is None or sock.getsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT):
        return
    milliseconds = min(math.ceil(seconds * 1000), _MAX_USER_TIMEOUT_MILLISECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, milliseconds)


def send_at_once(connection: socket.socket) -> None:
    """Set TCP_NODELAY: a body that follows its head waits 40 ms for an acknowledgement, else."""
    if connection.type == socket.SOCK_STREAM and connection.family in (
        socket.AF_INET,
        socket.AF_INET6,
    ):
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        except OSError:  # the client has gone
            pass
