"""
The transport of a connection that a program has accepted, as the reactor has it.

This room owns a transport for such a socket.  It must not know what the connection is for.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IProtocol, IReactorFDSet
from typing_extensions import override

from sockserve.core.addresses import twisted_address

__all__ = ["AdoptedConnection"]


def _is_address(family: socket.AddressFamily | int, address: Any) -> bool:
    """
    Whether C{address} is one as a socket gives them: of IP, in either version, whoever is connected
    over it; else of a UNIX socket.
    """
    if family not in (socket.AF_INET, socket.AF_INET6):
        return isinstance(address, (str, bytes))
    try:
        ip_address(address[0].partition("%")[0])
        return isinstance(address, tuple) and isinstance(address[1], int)
    except (AttributeError, TypeError, ValueError, LookupError):
        return False


class AdoptedConnection(tcp.Connection):
    """
    An adopted connection, once C{protocol.makeConnection} is called with it. (reactor thread)

    @ivar request: its socket, as the program knows it.
    @ivar client_address: the client's address, or whatever else the program calls it.
    @ivar timeout: the timeout that the program has set on it, in seconds; None for none.
    """

    def __init__(
        self,
        request: socket.socket,
        client_address: object,
        protocol: IProtocol,
        reactor: IReactorFDSet,
        name: str,
    ) -> None:
        """
        @param name: the name in Twisted's log.
        @raise OSError: the socket is closed.
        """
        self.request = request
        self.client_address = client_address
        self.timeout = request.gettimeout()
        self._host = request.getsockname()
        # A program may call its client whatever it likes.
        claimed = _is_address(request.family, client_address)
        self._peer: Any = client_address if claimed else request.getpeername()
        super().__init__(request, protocol, reactor)
        self.logstr = name
        self.connected = 1

    def keep_open(self) -> None:
        """
        Have the program's C{close} of the request end nothing while the reactor reads it, as it
        does not while a thread has an C{rfile} of it.
        """
        self.socket._io_refs += 1  # type: ignore[attr-defined]

    @override
    def _closeSocket(self, orderly: bool) -> None:
        super()._closeSocket(orderly)
        self.socket._decref_socketios()  # type: ignore[attr-defined]  # keep_open

    def getPeer(self) -> IPv4Address | IPv6Address | UNIXAddress:
        """The client's address."""
        return twisted_address(self._peer)

    def getHost(self) -> IPv4Address | IPv6Address | UNIXAddress:
        """The server's address, on this connection."""
        return twisted_address(self._host)
