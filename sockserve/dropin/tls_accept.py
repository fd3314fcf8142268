"""
Connections of a listening TLS socket, accepted with their handshakes to come.

This room owns how such a connection is taken without waiting for its client (L{accept_tls}).  It
must not know who shakes hands.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

from sockserve.dropin.overriding import StandardMethods
from sockserve.dropin.server_object import ServerObject
from sockserve.interfaces import HandshakeFailed

__all__ = ["accept_tls"]


def accept_tls(
    server: ServerObject,
    standard: StandardMethods,
    lost: Callable[[object, Exception], object],
) -> tuple[ssl.SSLSocket, object] | None:
    """
    Take a connection from a listening TLS socket and leave its handshake for later.
    (accept thread)

    @param standard: the server's.
    @param lost: called with the address of a client that has reset its connection already, and
        with that fault.
    @return: the connection and the client's address; None when the server does not listen
        for TLS in the usual way, and is to be asked by C{get_request}.
    @raise OSError: there is none to be had.
    """
    listening: object = getattr(server, "socket", None)
    if (
        not isinstance(listening, ssl.SSLSocket)
        or not listening.do_handshake_on_connect  # type: ignore[attr-defined]
        or standard.get_request != server.get_request
    ):
        return None
    accepted, address = socket.socket.accept(listening)
    try:
        accepted.getpeername()  # C{ssl} does not close one whose client has gone
        request = listening.context.wrap_socket(
            accepted,
            server_side=True,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=listening.suppress_ragged_eofs,  # type: ignore[attr-defined]
        )
    except OSError:
        accepted.close()
        lost(address, HandshakeFailed("reset by the client"))
        raise
    except BaseException:
        accepted.close()
        raise
    return request, address
