"""
Lending: the very socket of a connection, which the reactor lets a blocking handler have.

A plain TCP or UNIX connection's own descriptor is I{lent}: the reactor stops reading and
writing it and keeps only its timers.  This room owns that, finding a lent socket again
whatever a handler does with it, and what the kernel can tell about it.  It must not know
handlers or servers.  (What is more than a socket is pumped: L{sockserve.sockets.pumping}.)
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EMFILE, ENFILE
from typing import NamedTuple

from twisted.internet import tcp

from sockserve.core.transports import IStreamTransport
from sockserve.reactors.uvloop_streams import LoopStream

__all__ = [
    "SocketIdentity",
    "TransferCounts",
    "UnsentBytes",
    "has_unread",
    "is_lendable",
    "lend",
    "own_socket",
    "tcp_traffic",
]


def is_lendable(transport: object) -> bool:
    """Whether the transport is nothing but a socket, so that the socket can be lent.
    (reactor thread)"""
    return isinstance(transport, tcp.Connection) and not transport.TLS


def own_socket(transport: object) -> socket.socket:
    """
    The socket of a transport that is lendable, for who reads or writes its descriptor: from now on
    that is no event loop's besides.  There must be nothing that the kernel has yet to take.

    @raise OSError: there is no descriptor to be had.
    """
    assert isinstance(transport, tcp.Connection)
    if isinstance(transport, LoopStream):
        transport.leave_loop()
    return transport.socket


def lend(transport: IStreamTransport) -> socket.socket:
    """
    Take the socket away from the reactor for good and make it blocking, as the
    stdlib's C{accept} returns it.

    The transport must have nothing to write.  It is not told of the connection's
    end: once its descriptor is closed by someone else, asking the reactor to forget
    it would search all descriptors, and what it would do besides is close the socket.
    (reactor thread)
    """
    transport.stopReading()
    transport.stopWriting()
    lent = own_socket(transport)
    lent.settimeout(socket.getdefaulttimeout())
    return lent


class SocketIdentity:
    """
    The way to find a socket again by its descriptor, whatever a handler has done with its
    socket object: closed it, or moved the descriptor elsewhere (C{detach},
    C{ssl.wrap_socket}).

    The descriptor's inode makes it safe: a number that was closed may belong to a stranger by
    now. (any thread)
    """

    __slots__ = ("_descriptor", "_inode")

    def __init__(self, sock: socket.socket) -> None:
        self._descriptor = sock.fileno()
        self._inode = os.fstat(self._descriptor).st_ino

    def shutdown(self, how: int, *, reset: bool = False) -> None:
        """
        End one direction or both, which wakes a thread that is blocked in C{recv}, C{send}
        or C{select} on it.

        @param how: as for C{socket.shutdown}.
        @param reset: let the close that follows drop what the peer has not taken.
        """
        with self._found() as sock:
            if sock is not None:
                try:
                    if reset:
                        linger = struct.pack("ii", 1, 0)
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    sock.shutdown(how)
                except OSError:
                    pass

    def send(self, data: bytes) -> None:
        """Send as much of C{data} as the kernel takes at once."""
        with self._found() as sock:
            if sock is not None:
                try:
                    sock.send(data, socket.MSG_DONTWAIT)
                except OSError:
                    pass

    @contextmanager
    def _found(self) -> Iterator[socket.socket | None]:
        """The socket for a moment; None, if it is no more."""
        try:
            # A duplicate cannot be closed under us between the look and the act.
            descriptor = os.dup(self._descriptor)
        except OSError as error:
            if error.errno not in (EMFILE, ENFILE):
                yield None
                return
            # None to be had, and connections that do not end are why: do without.
            descriptor = self._descriptor
        sock = None
        try:
            if os.fstat(descriptor).st_ino == self._inode:
                sock = socket.socket(fileno=descriptor)
        except OSError:
            pass
        try:
            yield sock
        finally:
            if sock is not None:
                sock.detach()
            if descriptor != self._descriptor:
                os.close(descriptor)


#: How soon a peer that takes too little is looked at again at the earliest.
_LEAST_LOOK_SECONDS = 1.0


class TransferCounts(NamedTuple):
    """
    The kernel's account of a TCP connection's traffic.

    @ivar received: bytes from the peer.
    @ivar sent: bytes to the peer, acknowledged or on their way.
    @ivar unsent: of these, bytes the peer has not acknowledged.
    @ivar since_received: seconds since a byte last came; at first, since accept.
    @ivar since_sent: seconds since a byte last went; likewise.
    """

    received: int
    sent: int
    unsent: int
    since_received: float
    since_sent: float

    def idle_seconds(self, limit: float) -> float:
        """How long until no byte has moved for C{limit} seconds."""
        return limit - min(self.since_sent, self.since_received)


class UnsentBytes:
    """
    What the kernel has of a connection's output that the peer has not taken, as two looks at it
    show.  (The time of the last transmission does not: a peer that is gone without a word is sent
    the same again and again.)

    While some waits, the peer has a credit of as many seconds as it may take nothing.  Each second
    costs one, and what it takes earns the time that it needs at the least rate; but no more than
    it had at first, so that no burst lets it trickle for ever.

    @param rate: the least rate, in bytes per second; None for any.
    """

    __slots__ = ("_credit", "_looked_at", "_rate", "_since", "_taken")

    def __init__(self, rate: float | None, now: float) -> None:
        self._rate = rate
        #: When it was last looked at.
        self._looked_at = now
        # What the peer had taken then, in bytes, none when all was; since when no more; its credit.
        self._taken: int | None = None
        self._since = now
        self._credit = 0.0

    def seconds_left(self, counts: TransferCounts, limit: float, now: float) -> float:
        """
        How long until the peer has taken nothing of what waits for C{limit} seconds, or may have
        taken too little. (any thread)
        """
        looked_at, self._looked_at = self._looked_at, now
        if not counts.unsent:
            self._taken = None
            return limit
        taken = counts.sent - counts.unsent
        before, self._taken = self._taken, taken
        if taken != before:
            self._since = max(looked_at, now - counts.since_sent)
        left = limit - (now - self._since)
        if self._rate is None:
            return left
        if before is None:
            self._credit = limit
        else:
            lost = now - looked_at - (taken - before) / self._rate
            self._credit = min(self._credit - lost, limit)
        return min(left, max(self._credit, _LEAST_LOOK_SECONDS) if self._credit > 0 else 0.0)


#: Offsets in Linux's C{struct tcp_info} (include/uapi/linux/tcp.h): the milliseconds
#: since data was last sent and last received, and the byte counters of Linux 4.1.
_LAST_DATA_SENT = 44
_LAST_DATA_RECEIVED = 52
_BYTES_ACKED = 120
_BYTES_RECEIVED = 128
_TCP_INFO_BYTES = 136
_SIOCOUTQ = 0x5411

#: By C{tcpi_state}: whether we have sent, and have received, a FIN (include/net/
#: tcp_states.h).
_FIN_COUNTED = {4: (1, 0), 5: (1, 0), 6: (1, 1), 8: (0, 1), 9: (1, 1), 11: (1, 1)}


def tcp_traffic(sock: socket.socket | None) -> TransferCounts | None:
    """
    Ask the kernel about a lent connection.

    @return: None where it does not say: UNIX sockets, other systems than Linux, a closed or
        detached socket, or one that was let go. (any thread)
    """
    if sys.platform != "linux" or sock is None:
        return None
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    import fcntl

    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        queued = struct.unpack("i", fcntl.ioctl(sock.fileno(), _SIOCOUTQ, b"\0\0\0\0"))[0]
    except (OSError, ValueError):
        return None
    if len(info) < _TCP_INFO_BYTES:
        return None
    # A FIN takes a number of its own and is counted with the bytes.
    sent_fin, received_fin = _FIN_COUNTED.get(info[0], (0, 0))
    (last_sent,) = struct.unpack_from("I", info, _LAST_DATA_SENT)
    (last_received,) = struct.unpack_from("I", info, _LAST_DATA_RECEIVED)
    acked, received = struct.unpack_from("QQ", info, _BYTES_ACKED)
    return TransferCounts(
        received - received_fin,
        acked + queued - sent_fin,
        queued,
        last_received / 1000,
        last_sent / 1000,
    )


def has_unread(sock: socket.socket) -> bool:
    """Whether bytes of the peer's have come that nobody has read.  Never blocks, takes none.
    (any thread)"""
    try:
        # Not by an override: TLS knows no flags.
        return bool(socket.socket.recv(sock, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except (OSError, ValueError):
        return False
