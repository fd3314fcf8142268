"""
Admission: the caps and networks that say who may connect, and how many at once.

This room owns the policy.  It must not know protocols, handlers or sockets; what listens keeps
to it (L{sockserve.listeners.gate}). (reactor thread)
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from sockserve.interfaces import ConfigurationError

__all__ = ["Admission", "Network", "Reopenable", "parse_network"]

#: How the kernel writes an IPv4 address of a dual-stack socket (RFC 4291, 2.5.5.2).
_MAPPED = "::ffff:"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_network(text: str) -> Network:
    """
    The network that C{text} names.

    @param text: an address or a network, C{192.0.2.7} or C{2001:db8::/32}.
    @raise ConfigurationError: it is neither.
    """
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigurationError(
            f"network {text!r}: {error}; write an address or ADDRESS/PREFIX"
        ) from None


class Reopenable(Protocol):
    """A door for connections, which is closed while there is no room."""

    def reopen(self) -> None:
        """Take connections again: there may be room."""


class Admission:
    """
    The caps and networks that one or several listeners share.

    @ivar active: connections accepted now.
    @ivar gates: the doors that are reopened when one of these is closed.
    """

    def __init__(
        self,
        *,
        max_connections: int | None = None,
        max_connections_per_peer: int | None = None,
        allow: Iterable[Network] = (),
        deny: Iterable[Network] = (),
    ) -> None:
        """
        @param max_connections: the most connections at once; None for as many as there
            are descriptors.
        @param max_connections_per_peer: the most from one address.  UNIX sockets'
            clients have no address and are not counted.
        @param allow: only these networks, when any are given.
        @param deny: not these, even when allowed.
        @raise ConfigurationError: a cap is less than 1.
        """
        for name, cap in (
            ("max_connections", max_connections),
            ("max_connections_per_peer", max_connections_per_peer),
        ):
            if cap is not None and cap < 1:
                raise ConfigurationError(f"{name}: {cap} is less than 1")
        self.max_connections = max_connections
        self.max_connections_per_peer = max_connections_per_peer
        self.allow = tuple(allow)
        self.deny = tuple(deny)
        self._networks = self.allow + self.deny
        self.active = 0
        self._peers: Counter[str] = Counter()
        self.gates: set[Reopenable] = set()

    def full(self) -> bool:
        """Whether no more connections may be accepted."""
        return self.max_connections is not None and self.active >= self.max_connections

    def opened(self) -> None:
        """A connection was accepted."""
        self.active += 1

    def closed(self, client_address: object = None) -> None:
        """
        One that was accepted is gone.

        @param client_address: the client, if L{admit} has counted it.
        """
        if self.max_connections_per_peer is not None:
            host = _host(client_address)
            if host is not None:
                self._peers[host] -= 1
                if self._peers[host] <= 0:
                    del self._peers[host]
        self.active -= 1
        if not self.full():
            for gate in self.gates:
                gate.reopen()

    def refusal(self, client_address: object) -> str | None:
        """
        Why a client may not be served: C{"network"} or C{"peer"}; None when it may.
        """
        host = _host(client_address)
        if host is None:
            return None
        if not self.allows(client_address):
            return "network"
        cap = self.max_connections_per_peer
        if cap is not None and self._peers[host] >= cap:
            return "peer"
        return None

    def admit(self, client_address: object) -> str | None:
        """
        Count a client's host, until L{closed}, unless the client may not be served.

        @return: as L{refusal}.
        """
        refusal = self.refusal(client_address)
        if refusal is None and self.max_connections_per_peer is not None:
            host = _host(client_address)
            if host is not None:
                self._peers[host] += 1
        return refusal

    def allows(self, client_address: object) -> bool:
        """Whether the client's network may be served; UNIX sockets' clients have none."""
        if not self._networks:  # asked for every datagram
            return True
        host = _host(client_address)
        if host is None:
            return True
        address = ipaddress.ip_address(host.partition("%")[0])
        if any(address in network for network in self.deny):
            return False
        return not self.allow or any(address in network for network in self.allow)


def _host(client_address: object) -> str | None:
    """The client's IP address; an IPv4 client of a dual-stack socket by its IPv4 one."""
    if not isinstance(client_address, tuple):
        return None
    host = str(client_address[0])
    return host.removeprefix(_MAPPED) if host.startswith(_MAPPED) and "." in host else host
