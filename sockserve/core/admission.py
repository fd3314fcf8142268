"""
Admission: who may connect, and how many at once.

This room owns the caps and networks, and a listening socket that keeps to them.  It
must not know protocols or handlers.  Everything runs on the reactor thread.

Over C{max_connections} nobody is accepted and dropped: accepting stops, later clients
wait in the kernel's queue, and accepting goes on when a connection ends.  The same
happens for a while when the process runs out of descriptors.
"""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from errno import EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM, errorcode
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from sockserve.interfaces import ConfigurationError

__all__ = ["Admission", "Gate", "Network", "parse_network"]

#: How long to wait before accepting again when there was no descriptor to accept
#: with.  0.1: ranch's C{ranch_acceptor}.
ACCEPT_RETRY_SECONDS = 0.1

#: A lack of descriptors that comes back within so many seconds is still the same one.
CALM_SECONDS = 1.0

#: How the kernel writes an IPv4 address of a dual-stack socket (RFC 4291, 2.5.5.2).
_MAPPED = "::ffff:"

_OUT_OF_RESOURCES = (EMFILE, ENFILE, ENOBUFS, ENOMEM)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_network(text: str) -> Network:
    """
    @param text: an address or a network, C{192.0.2.7} or C{2001:db8::/32}.
    @raise ConfigurationError: it is neither.
    """
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigurationError(
            f"network {text!r}: {error}; write an address or ADDRESS/PREFIX"
        ) from None


class _Source(Protocol):
    """What takes connections while they are admitted."""

    def reopen(self) -> None:
        """There may be room again."""


class Admission:
    """
    The caps and networks that one or several listeners share.

    @ivar active: connections admitted now.
    @ivar gates: what takes the connections.
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
        self.gates: set[_Source] = set()

    def full(self) -> bool:
        """Whether no more connections may be accepted."""
        return self.max_connections is not None and self.active >= self.max_connections

    def opened(self) -> None:
        """A connection was accepted."""
        self.active += 1

    def closed(self) -> None:
        """One that was accepted is gone."""
        self.active -= 1
        if not self.full():
            for gate in self.gates:
                gate.reopen()

    def refusal(self, client_address: Any) -> str | None:
        """
        Why a client may not be served: C{"network"} or C{"peer"}; None when it may.
        Its host is counted by L{enter} then, and until L{leave}.
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

    def enter(self, client_address: Any) -> None:
        """The client is served from now on."""
        if self.max_connections_per_peer is not None:
            host = _host(client_address)
            if host is not None:
                self._peers[host] += 1

    def leave(self, client_address: Any) -> None:
        """The client that L{enter} counted is gone."""
        if self.max_connections_per_peer is not None:
            host = _host(client_address)
            if host is not None:
                self._peers[host] -= 1
                if self._peers[host] <= 0:
                    del self._peers[host]

    def allows(self, client_address: Any) -> bool:
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


def _host(client_address: Any) -> str | None:
    """The client's IP address; an IPv4 client of a dual-stack socket by its IPv4 one."""
    if not isinstance(client_address, tuple):
        return None
    host = str(client_address[0])
    return host.removeprefix(_MAPPED) if host.startswith(_MAPPED) and "." in host else host


class Gate:
    """
    Stands between a listening port of Twisted's and its socket: it decides, before a
    connection is taken from the kernel, whether one may be.

    It replaces the port's socket by one whose C{accept} asks; Twisted's own answer to
    having no descriptor is to accept and drop.

    @param port: the C{IListeningPort} of a stream endpoint.
    @param clock: for retrying.
    @param refused: called with C{"descriptors"} each time accepting stops for want of
        descriptors.
    """

    _log = Logger()

    def __init__(
        self,
        port: Any,
        admission: Admission,
        clock: IReactorTime,
        refused: Callable[[str], object],
    ) -> None:
        self._port = port
        self._admission = admission
        self._clock = clock
        self._refused = refused
        self._retry: IDelayedCall | None = None
        self._complained = False
        self._exhausted_at = 0.0
        listening = port.socket
        gated = _GatedSocket(
            listening.family, listening.type, listening.proto, fileno=listening.detach()
        )
        gated.setblocking(False)
        gated.gate = self
        port.socket = gated
        port.fileno = gated.fileno
        admission.gates.add(self)

    def may_accept(self) -> bool:
        """Whether to take one more; stops the port when not."""
        if self._admission.full():
            self._port.stopReading()
            self.caught_up()
            return False
        return True

    def caught_up(self) -> None:
        """Nobody waits for a descriptor: if that lasts, the next complaint is a new one."""
        if self._complained and self._clock.seconds() - self._exhausted_at >= CALM_SECONDS:
            self._complained = False

    def exhausted(self, error: OSError) -> None:
        """There was nothing to accept with: stop, and try again soon."""
        self._port.stopReading()
        self._refused("descriptors")
        self._exhausted_at = self._clock.seconds()
        if not self._complained:
            self._complained = True
            self._log.error(
                "cannot accept connections ({error}), which wait; trying again every"
                " {seconds} s; raise the limit of open files (ulimit -n) or lower"
                " max-connections",
                error=errorcode.get(error.errno or 0, str(error)),
                seconds=ACCEPT_RETRY_SECONDS,
            )
        if self._retry is None:
            self._retry = self._clock.callLater(ACCEPT_RETRY_SECONDS, self._try_again)

    def reopen(self) -> None:
        """There may be room again."""
        if self._retry is None and not self._port.disconnecting and self._port.connected:
            self._port.startReading()

    def suspend(self) -> None:
        """Take no connections until L{resume}; they wait in the kernel's queue."""
        self.close()
        self._port.stopReading()

    def resume(self) -> None:
        """Take connections again."""
        self._admission.gates.add(self)
        self._try_again()

    def close(self) -> None:
        """The port stops listening."""
        self._admission.gates.discard(self)
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _try_again(self) -> None:
        self._retry = None
        if not self._admission.full():
            self.reopen()


class _GatedSocket(socket.socket):
    """A listening socket that asks its gate before it accepts."""

    __slots__ = ("gate",)

    gate: Gate

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.gate.may_accept():
            raise BlockingIOError(EAGAIN, "no more connections are admitted just now")
        try:
            return super().accept()
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                self.gate.exhausted(error)
                raise BlockingIOError(EAGAIN, "no descriptor to accept with") from error
            if isinstance(error, BlockingIOError):
                self.gate.caught_up()
            raise
