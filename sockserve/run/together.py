"""
The check of all servers of a process against one another.

This room owns that no two listen on one address.  It must not know how a listener is opened.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address

import attrs

from sockserve.interfaces import ConfigurationError
from sockserve.listeners.descriptions import FORMS, kind_of, parse, words_of
from sockserve.listeners.endpoints import inherited_descriptor
from sockserve.listeners.unix_names import is_abstract, unix_name
from sockserve.run.server_config import ServerConfig

__all__ = ["check_together"]

#: The kinds that listen on IPv6's addresses.
_OF_IPV6 = ("tcp6", "tls", "udp6")


@attrs.frozen
class _InternetPort:
    """
    A port, on one address or on all.

    @ivar kind: the kind of the socket.
    @ivar address: where; all zeros for all of its family.
    @ivar port: the port's number.
    @ivar is_dual: whether all of IPv6's are all of IPv4's as well.
    """

    kind: socket.SocketKind
    address: IPv4Address | IPv6Address
    port: int
    is_dual: bool = False

    def covers(self, other: object) -> bool:
        """Whether this is on the address of another, too."""
        if not isinstance(other, _InternetPort):
            return False
        if (self.kind, self.port) != (other.kind, other.port):
            return False
        is_same = self.address.version == other.address.version
        if self.address.is_unspecified:
            return is_same or self.is_dual
        return self.address == other.address

    @property
    def shown(self) -> str:
        """It in a message."""
        return f"port {self.port}"


@attrs.frozen
class _Name:
    """
    A UNIX socket's name.

    @ivar name: the name, links on the way to a file followed.
    """

    name: str

    def covers(self, other: object) -> bool:
        """Whether this is the same as another."""
        return self == other

    @property
    def shown(self) -> str:
        """It in a message."""
        return "this name"


@attrs.frozen
class _Listener:
    """
    A listener of a server.

    @ivar shown: its description, quoted, or what it is.
    @ivar server: the server.
    @ivar item: its place among the server's; None for a server object's.
    @ivar descriptor: that of a socket which this process was handed.
    @ivar place: where it listens; None where that is not known.
    """

    shown: str
    server: ServerConfig
    item: int | None
    descriptor: int | None
    place: _InternetPort | _Name | None

    def fault_beside(self, other: _Listener) -> str | None:
        """The fault of this, where another is before it; None if there is none."""
        if self.descriptor is not None and self.descriptor == other.descriptor:
            return f"{other.shown} has this socket already; name it once"
        if self.place is None or other.place is None:
            return None
        if self.place.covers(other.place) or other.place.covers(self.place):
            return f"{self.place.shown} is that of {other.shown} already; write another"
        return None


def check_together(servers: Sequence[ServerConfig]) -> None:
    """
    Check the servers of a process against one another.

    @raise ConfigurationError: two of their listeners are on one address, or on one socket that the
        process was handed.
    """
    found: list[_Listener] = []
    for server in servers:
        for listener in _listeners(server):
            for other in found:
                if fault := listener.fault_beside(other):
                    word = "server" if server.server else "listen"
                    named = word if server.server else f"listen {listener.shown}"
                    error = ConfigurationError(f"{named}: {fault}", word, listener.item)
                    server.locate(error)
                    raise error
            found.append(listener)


def _listeners(server: ServerConfig) -> Iterator[_Listener]:
    if server.server is not None:
        held: socket.socket | None = getattr(server.server, "socket", None)
        if isinstance(held, socket.socket):
            yield _Listener("the server object", server, None, None, _place_of_socket(held))
        return
    for item, description in enumerate(server.listen):
        descriptor = inherited_descriptor(description)
        try:
            place = _place(description) if descriptor is None else _place_of_descriptor(descriptor)
        except (OSError, ValueError):  # it is told what is wrong when it is made
            place = None
        yield _Listener(repr(description), server, item, descriptor, place)


def _place_of_descriptor(descriptor: int) -> _InternetPort | _Name | None:
    with socket.socket(fileno=os.dup(descriptor)) as duplicate:
        return _place_of_socket(duplicate)


def _place_of_socket(held: socket.socket) -> _InternetPort | _Name | None:
    """The place that a socket is bound to; None where it is to none."""
    try:
        name = held.getsockname()
    except OSError:  # it is closed
        return None
    if held.family == socket.AF_UNIX and name:
        return _name(os.fsdecode(name))
    if held.family not in (socket.AF_INET, socket.AF_INET6) or not name[1]:
        return None
    is_dual = held.family == socket.AF_INET6 and not held.getsockopt(
        socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
    )
    return _InternetPort(held.type, _address(name[0]), name[1], is_dual)


def _place(description: str) -> _InternetPort | _Name | None:
    """
    The place where a description listens; None where that is not known before it does.

    @raise ValueError: the description is none, or a host has no address.
    """
    kind = kind_of(description)
    if kind == "haproxy":
        return _place(description.partition(":")[2])
    if kind in ("unix", "unixgram"):
        (_, *arguments), words = parse(description)
        if not arguments and "address" not in words:
            raise ValueError("it has no address")
        return _name(unix_name(words.get("address", *arguments[:1])))
    if kind in FORMS:
        (_, *arguments), words = parse(description)
        if not arguments:
            raise ValueError("it has no port")
        port, kind_of_socket = arguments[0], socket.SOCK_DGRAM
    elif kind in ("tcp", "tcp6", "ssl", "tls"):
        words = words_of(kind, description)
        port, kind_of_socket = words.get("port", "443"), socket.SOCK_STREAM
    else:
        return None
    if int(port) == 0:  # whichever is free
        return None
    is_ipv6 = kind in _OF_IPV6
    family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
    host = words.get("interface") or ("::" if is_ipv6 else "0.0.0.0")
    # Twisted takes the family of a literal address.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET if host[-1].isdecimal() else family
    found = socket.getaddrinfo(host, int(port), family, kind_of_socket)[0][4][0]
    is_dual = kind_of_socket is socket.SOCK_STREAM and family == socket.AF_INET6 and _is_dual()
    return _InternetPort(kind_of_socket, _address(str(found)), int(port), is_dual)


def _is_dual() -> bool:
    """Whether this system's sockets on all of IPv6's addresses are on all of IPv4's, too."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        return not probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def _address(text: str) -> IPv4Address | IPv6Address:
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _name(name: str) -> _Name:
    if is_abstract(name):
        return _Name(name)
    folder, file = os.path.split(name)
    return _Name(os.path.join(os.path.realpath(folder), file))
