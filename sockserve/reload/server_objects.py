"""
Sockets of server objects, which make them by themselves, and from one process to the next.

This room owns what an object gets in the place of the socket that it is about to bind.  It must not
know how sockets come from one process to another.
"""

from __future__ import annotations

import socket
import socketserver

from sockserve.listeners.kept_sockets import SocketKeeper, place_of

__all__ = ["ObjectSockets"]

#: How long an object waits for a client that another process has taken meanwhile.  0.1 s: it is
#: one in the moment in which both serve.
_PATIENCE_SECONDS = 0.1


class ObjectSockets:
    """The sockets of this process' server objects, of TCP and UDP."""

    def __init__(self, keeper: SocketKeeper) -> None:
        self._keeper = keeper
        self._bind = socketserver.TCPServer.server_bind
        self._servers: list[object] = []

    def install(self) -> None:
        """Have all objects that are made from now on get their sockets here: those whose class
        leaves that to C{socketserver}."""

        def server_bind(server: socketserver.TCPServer) -> None:
            self._bound(server)

        socketserver.TCPServer.server_bind = server_bind  # type: ignore[assignment, method-assign]

    def has(self, server: object) -> bool:
        """Whether an object has its socket from here."""
        return any(each is server for each in self._servers)

    def _bound(self, server: socketserver.TCPServer) -> None:
        """Bind an object's socket, or give it that of before."""
        if server.address_family not in (socket.AF_INET, socket.AF_INET6):
            self._bind(server)
            return
        kind = f"{server.socket_type} object"
        place = place_of(kind, *server.server_address[:2])
        descriptor = self._keeper.take(place)
        if descriptor is None:
            self._bind(server)
            self._keeper.keep(place, server.socket)
        else:
            server.socket.close()
            server.socket = socket.socket(fileno=descriptor)
            server.server_address = server.socket.getsockname()
        server.socket.settimeout(_PATIENCE_SECONDS)
        self._servers.append(server)
