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

from sockserve.core.addresses import canonical_address, scope_of
from sockserve.interfaces import ConfigurationError

__all__ = ["Admission", "Network", "Reopenable", "parse_network"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: The IPv6 network that IPv4 is mapped into (RFC 4291, 2.5.5.2).
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def parse_network(text: str) -> Network:
    """
    The network that C{text} names.

    @param text: an address or a network, C{192.0.2.7} or C{2001:db8::/32}.  One that is mapped
        into IPv6, C{::ffff:192.0.2.0/120}, is the same as the IPv4 one.  A link-local one may
        have a zone, C{fe80::%eth0/64}: it is that interface's then.
    @raise ConfigurationError: it is neither.
    """
    try:
        return _canonical_network(ipaddress.ip_network(text))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"network {text!r}: {error}; write an address or ADDRESS/PREFIX"
        ) from None


def _canonical_network(network: Network) -> Network:
    """
    The same network as the canonical addresses in it are written.

    (An IPv6 network that holds all mapped addresses and more, such as C{::/0}, is one of IPv6
    clients only.)

    @raise ValueError: it has a zone, and is not link-local.
    @raise OSError: there is no such interface.
    """
    if isinstance(network, ipaddress.IPv4Network):
        return network
    base = network.network_address
    if base.scope_id is not None:
        if not network.is_link_local:
            raise ValueError("only a link-local network has a zone")
        try:
            scope = scope_of(base.scope_id)
        except OSError:
            raise OSError(f"there is no interface {base.scope_id!r}") from None
        plain = ipaddress.IPv6Address(int(base))
        return ipaddress.IPv6Network(f"{plain}%{scope}/{network.prefixlen}")
    if network.subnet_of(_MAPPED):
        packed = base.packed[-4:]
        return ipaddress.IPv4Network((packed, network.prefixlen - _MAPPED.prefixlen))
    return network


def _is_within(address: _Address, scope: int, networks: Iterable[Network]) -> bool:
    """Whether an address is in any of the networks; in one with a zone, by that interface."""
    for network in networks:
        if address in network:
            base = network.network_address
            if isinstance(base, ipaddress.IPv4Address) or base.scope_id in (None, str(scope)):
                return True
    return False


class Reopenable(Protocol):
    """A door for connections, which is closed while there is no room."""

    def reopen(self) -> None:
        """Take connections again: there may be room."""


class Admission:
    """
    The caps and networks that one or several listeners share.

    @ivar active: connections accepted now.
    @ivar gates: the doors that are reopened when one of these is closed.
    @ivar has_networks: whether there are networks that may, or may not, be served; without them
        L{allows} need not be asked.
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
        @raise ConfigurationError: a cap is less than 1, or a network has a zone that is none.
        """
        for name, cap in (
            ("max_connections", max_connections),
            ("max_connections_per_peer", max_connections_per_peer),
        ):
            if cap is not None and cap < 1:
                raise ConfigurationError(f"{name}: {cap} is less than 1")
        self.max_connections = max_connections
        self.max_connections_per_peer = max_connections_per_peer
        try:
            self.allow = tuple(map(_canonical_network, allow))
            self.deny = tuple(map(_canonical_network, deny))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"network: {error}") from None
        self.has_networks = bool(self.allow or self.deny)
        self.active = 0
        self._peers: Counter[tuple[str, int]] = Counter()
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
            client = _client(client_address)
            if client is not None:
                self._peers[client] -= 1
                if self._peers[client] <= 0:
                    del self._peers[client]
        self.active -= 1
        if not self.full():
            for gate in self.gates:
                gate.reopen()

    def refusal(self, client_address: object) -> str | None:
        """
        Why a client may not be served: C{"network"} or C{"peer"}; None when it may.
        """
        if not self.allows(client_address):
            return "network"
        cap = self.max_connections_per_peer
        if cap is not None:
            client = _client(client_address)
            if client is not None and self._peers[client] >= cap:
                return "peer"
        return None

    def admit(self, client_address: object) -> str | None:
        """
        Count a client's host, until L{closed}, unless the client may not be served.

        @return: as L{refusal}.
        """
        refusal = self.refusal(client_address)
        if refusal is None and self.max_connections_per_peer is not None:
            client = _client(client_address)
            if client is not None:
                self._peers[client] += 1
        return refusal

    def allows(self, client_address: object) -> bool:
        """Whether the client's network may be served; UNIX sockets' clients have none."""
        if not self.has_networks:
            return True
        client = _client(client_address)
        if client is None:
            return True
        host, scope = client
        address = ipaddress.ip_address(host)
        if _is_within(address, scope, self.deny):
            return False
        return not self.allow or _is_within(address, scope, self.allow)


def _client(client_address: object) -> tuple[str, int] | None:
    """
    The client's IP address and scope id: an address that is link-local is another client's on
    each interface.
    """
    address = canonical_address(client_address)
    if not isinstance(address, tuple):
        return None
    return str(address[0]), int(address[3]) if len(address) == 4 else 0
