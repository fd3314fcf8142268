"""
Addresses: a client's, as every other room sees it.

This room owns how an address is written: as a socket gives it, whoever else has named it, and
one address in one way only.  It must not know connections or who is admitted.
"""

from __future__ import annotations

import os
import socket
from typing import Any, TypeAlias

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from sockserve.core.messages import printable

__all__ = [
    "Addresses",
    "SocketAddress",
    "canonical_address",
    "scope_of",
    "shown_address",
    "socket_address",
    "twisted_address",
]

#: An address as a socket gives it: a pair or a quadruple for IP; for UNIX sockets the path, bytes
#: for an abstract name, or an empty string where there is none.
SocketAddress: TypeAlias = tuple[str, int] | tuple[str, int, int, int | str] | str | bytes

#: The client's address and the server's.
Addresses: TypeAlias = tuple[SocketAddress, SocketAddress]

#: The first bytes of an IPv4 address that is mapped into IPv6 (RFC 4291, 2.5.5.2): how the
#: kernel writes an IPv4 client of a dual-stack socket.
_MAPPED = b"\0" * 10 + b"\xff\xff"


def socket_address(address: object) -> SocketAddress:
    """A Twisted address as a socket gives it; of IP, as L{canonical_address}."""
    if isinstance(address, IPv4Address):
        return (address.host, address.port)
    if isinstance(address, IPv6Address):
        canonical: SocketAddress = canonical_address(
            (address.host, address.port, address.flowInfo, address.scopeID)
        )
        return canonical
    name: bytes | None = getattr(address, "name", None)
    if name is None:
        return ""
    # Linux's abstract names are bytes there, too.
    return name if name.startswith(b"\0") else os.fsdecode(name)


def twisted_address(address: SocketAddress) -> IPv4Address | IPv6Address | UNIXAddress:
    """An address of a socket's as Twisted has it: the other way than L{socket_address}."""
    if not isinstance(address, tuple):
        return UNIXAddress(os.fsencode(address) if address else None)
    if ":" in address[0]:
        return IPv6Address("TCP", *address[:4])
    return IPv4Address("TCP", *address[:2])


def shown_address(address: object) -> str:
    """
    An address in a line of the log: of IP as it is written in URLs.  A client of UNIX chooses its
    own, or has none.
    """
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return printable(str(address)) or "without a name"


def canonical_address(address: Any) -> Any:
    """
    The one spelling of an address that a socket, a proxy or a program gives.

    @return: for IPv4, also when it is mapped into IPv6, a pair with the dotted quad; for IPv6
        a quadruple with the shortest form of the host, and the zone as scope id only.  What is
        no IP address is given back as it is.
    """
    if not isinstance(address, tuple) or len(address) < 2 or not isinstance(address[0], str):
        return address
    host, _, zone = address[0].partition("%")
    if ":" not in host:
        return address
    try:
        packed = socket.inet_pton(socket.AF_INET6, host)
    except (OSError, ValueError):
        return address
    if packed.startswith(_MAPPED):
        return (socket.inet_ntop(socket.AF_INET, packed[len(_MAPPED) :]), address[1])
    flow, scope = (*address[2:4], 0, 0)[:2]
    if not isinstance(scope, int):  # Twisted's may be a name
        zone, scope = str(scope or zone), 0
    if zone and not scope:
        try:
            scope = scope_of(zone)
        except OSError:  # an interface that is gone, or another machine's
            pass
    return (socket.inet_ntop(socket.AF_INET6, packed), address[1], flow, scope)


def scope_of(zone: str) -> int:
    """
    The scope id of a zone, as C{eth0} in C{fe80::1%eth0}.

    @param zone: an interface's name or number.
    @raise OSError: there is no such interface.
    """
    return int(zone) if zone.isascii() and zone.isdigit() else socket.if_nametoindex(zone)
