"""
The throttle of logins: the delays of clients whose logins fail.

This room owns the delays, by client.  It must not know what a login is, or how one waits.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict

__all__ = ["FIRST_DELAY_SECONDS", "LONGEST_DELAY_SECONDS", "LoginThrottle", "peer_key"]

#: How long the answer to a first failure takes.  1: a person who has mistyped hardly minds, and it
#: hides how long it took to find out.
FIRST_DELAY_SECONDS = 1.0

#: Each further one takes twice as long, up to this.  30: less than what clients wait for an answer
#: (RFC 5321, 4.5.3.2, has minutes).
LONGEST_DELAY_SECONDS = 30.0

#: For how long a failure counts.  600: a guesser has 40 tries in that, not thousands.
MEMORY_SECONDS = 600.0

#: Of how many clients failures are remembered: a few MiB.  Those that failed longest ago are
#: forgotten first.
MOST_PEERS = 10_000


class _Peer:
    """One client: how many logins have failed, when the last one did, and when the next may be."""

    __slots__ = ("failed_at", "failures", "next_at")

    def __init__(self) -> None:
        self.failures = 0
        self.failed_at = 0.0
        self.next_at = 0.0


class LoginThrottle:
    """
    The delays of clients whose logins fail.

    The answer to a failure waits, the longer the more there were; and so does the next login of
    the same client, on whatever connection, so that hanging up saves no time.  Times are seconds
    of a clock of the caller's. (any thread)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._peers: OrderedDict[object, _Peer] = OrderedDict()

    def begin(self, key: object, now: float) -> float | None:
        """
        A client wants to log in.

        @return: how long that has to wait; None when it would be for too long, and is refused.
        """
        with self._lock:
            peer = self._peers.get(key)
            if peer is None or now - peer.failed_at > MEMORY_SECONDS:
                return 0.0
            wait = max(0.0, peer.next_at - now)
            if wait > LONGEST_DELAY_SECONDS:
                return None
            # Those that come at the same time wait for one another.
            peer.next_at = max(peer.next_at, now) + _delay(peer.failures)
            return wait

    def failed(self, key: object, now: float) -> float:
        """
        A login has failed.

        @return: how long its answer has to wait.
        """
        with self._lock:
            peer = self._peers.get(key)
            if peer is None or now - peer.failed_at > MEMORY_SECONDS:
                peer = self._peers[key] = _Peer()
            self._peers.move_to_end(key)
            if len(self._peers) > MOST_PEERS:
                self._peers.popitem(last=False)
            peer.failures += 1
            peer.failed_at = now
            delay = _delay(peer.failures)
            peer.next_at = max(peer.next_at, now + delay)
            return delay

    def succeeded(self, key: object, now: float) -> None:
        """A login has not failed.  What failed before still counts: it may have been another's."""
        with self._lock:
            peer = self._peers.get(key)
            if peer is not None:
                peer.next_at = min(peer.next_at, now)


def _delay(failures: int) -> float:
    return min(FIRST_DELAY_SECONDS * 2.0 ** min(failures - 1, 10), LONGEST_DELAY_SECONDS)


def peer_key(client_address: object) -> object | None:
    """
    What a client is known by: its IPv4 address, the network of 64 bits that its IPv6 address is in,
    or the name of its UNIX socket; None for one without a name.
    """
    if not isinstance(client_address, tuple):
        return client_address or None
    try:
        address = ipaddress.ip_address(str(client_address[0]).partition("%")[0])
    except ValueError:
        return str(client_address[0])
    return address if address.version == 4 else int(address) >> 64
