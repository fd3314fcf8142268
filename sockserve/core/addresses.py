"""
Addresses: a client's, as every other room sees it.

This room owns how an address of Twisted's is written as a socket gives it.  It must not know
sockets or who is admitted.
"""

from __future__ import annotations

import os
from typing import TypeAlias

from twisted.internet.address import IPv4Address, IPv6Address

__all__ = ["Addresses", "SocketAddress", "socket_address"]

#: An address as a socket gives it: a pair or a quadruple for IP; for UNIX sockets the path, bytes
#: for an abstract name, or an empty string where there is none.
SocketAddress: TypeAlias = tuple[str, int] | tuple[str, int, int, int | str] | str | bytes

#: The client's address and the server's.
Addresses: TypeAlias = tuple[SocketAddress, SocketAddress]


def socket_address(address: object) -> SocketAddress:
    """A Twisted address as a socket gives it."""
    if isinstance(address, IPv4Address):
        return (address.host, address.port)
    if isinstance(address, IPv6Address):
        return (address.host, address.port, address.flowInfo, address.scopeID)
    name: bytes | None = getattr(address, "name", None)
    if name is None:
        return ""
    # Linux's abstract names are bytes there, too.
    return name if name.startswith(b"\0") else os.fsdecode(name)
