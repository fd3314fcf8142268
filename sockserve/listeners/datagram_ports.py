"""
Ports: the sockets datagram listeners listen with.

This room owns reading and writing packets.  It must not know requests.

The ports are Twisted's own with another way of reading and writing: packets longer than
they may be are told from whole ones, and on a wildcard address each answer leaves from
the address its request came to (C{IP_PKTINFO}), which a plain C{sendto} would leave to
the routing table.
"""

from __future__ import annotations

import functools
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable
from errno import EAGAIN, ECONNREFUSED, EWOULDBLOCK
from typing import Any

from twisted.internet import udp, unix
from typing_extensions import override

__all__ = ["DatagramReply", "ReplySocket", "UDPPort", "UNIXDatagramPort", "WildcardUDPPort"]

#: How many packets are read in a row before other connections get their turn.
_READS_PER_TURN = 64

_IN_PKTINFO = struct.Struct("I4s4s")  # struct in_pktinfo: interface, source, destination
_IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8)


_sendto = socket.socket.sendto


class ReplySocket(socket.socket):
    """
    The listening socket, as handlers get it: while a thread serves a request, what it
    sends to that request's client leaves from the address the request came to.
    """

    __slots__ = ("serving",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.serving = threading.local()

    @override
    def sendto(self, data: Any, *rest: Any) -> int:
        arrived_at = getattr(self.serving, "arrived_at", None)
        if arrived_at is None:
            return super().sendto(data, *rest)
        flags, address = rest if len(rest) == 2 else (0, *rest)
        return self.sendmsg([data], arrived_at, flags, address)


class DatagramReply:
    """
    What a coroutine handler answers with: the second half of its request.

    @ivar sent: bytes sent.
    """

    __slots__ = ("_arrived_at", "_socket", "sent")

    def __init__(self, sock: socket.socket, arrived_at: Any) -> None:
        self._socket = sock
        self._arrived_at = arrived_at
        self.sent = 0

    def sendto(self, data: bytes, address: Any) -> int:
        """
        Send a packet, never waiting: when the kernel's buffer is full it is lost, as
        networks lose packets.

        @return: the number of bytes in C{data}.
        @raise OSError: the system refuses it, for example as too long.
        """
        try:
            if self._arrived_at is None:
                # The socket's own sendto looks for the request its thread serves.
                _sendto(self._socket, data, socket.MSG_DONTWAIT, address)
            else:
                self._socket.sendmsg([data], self._arrived_at, socket.MSG_DONTWAIT, address)
        except (BlockingIOError, ConnectionRefusedError):
            pass
        size = len(data)
        self.sent += size
        return size


class _PortMixin:
    """
    Reading and writing for both kinds of port.  The socket is blocking, for handlers on
    threads; the reactor's own calls say C{MSG_DONTWAIT}.
    """

    protocol: Any
    socket: Any
    addressFamily: Any
    maxPacketSize: int

    def createInternetSocket(self) -> ReplySocket:
        """The socket, not bound yet."""
        sock = ReplySocket(self.addressFamily, socket.SOCK_DGRAM)
        sock.setblocking(True)  # whatever socket.setdefaulttimeout says
        if self.addressFamily == socket.AF_INET6:
            # udp6:5300 beside udp:5300
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        return sock

    def doRead(self) -> None:
        receive = self.socket.recvfrom
        size = self.maxPacketSize + 1
        flags = socket.MSG_DONTWAIT
        received = self.protocol.received
        for _ in range(_READS_PER_TURN):
            try:
                data, address = receive(size, flags)
            except OSError as error:
                if error.errno in (EAGAIN, EWOULDBLOCK):
                    return
                if error.errno == ECONNREFUSED:  # an earlier answer's doing
                    continue
                raise
            if not received(data, address, None):
                return

    def answering(self) -> Callable[[Any], DatagramReply]:
        """Makes what a coroutine answers a packet with, from where the packet came to."""
        return functools.partial(DatagramReply, self.socket)


class UDPPort(_PortMixin, udp.Port):
    """A UDP port bound to one address."""


class WildcardUDPPort(UDPPort):
    """A UDP port bound to all addresses: it notes which one each packet came to."""

    @override
    def createInternetSocket(self) -> ReplySocket:
        sock = super().createInternetSocket()
        if self.addressFamily == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        return sock

    @override
    def doRead(self) -> None:
        receive = self.socket.recvmsg
        size = self.maxPacketSize + 1
        space = socket.CMSG_SPACE(20)  # struct in6_pktinfo, the larger of the two
        for _ in range(_READS_PER_TURN):
            try:
                data, ancillary, _, address = receive(size, space, socket.MSG_DONTWAIT)
            except OSError as error:
                if error.errno in (EAGAIN, EWOULDBLOCK):
                    return
                if error.errno == ECONNREFUSED:
                    continue
                raise
            if not self.protocol.received(data, address, _wait_for_data(ancillary)):
                return


def _wait_for_data(ancillary: Any) -> Any:
    """The ancillary data that sends an answer from where the request came to."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            _, source, _ = _IN_PKTINFO.unpack(data[: _IN_PKTINFO.size])
            return [(level, kind, _IN_PKTINFO.pack(0, source, b"\0\0\0\0"))]
        if level == socket.IPPROTO_IPV6:
            return [(level, kind, data)]
    return None


class UNIXDatagramPort(_PortMixin, unix.DatagramPort):
    """A UNIX datagram socket; its name goes when it does."""

    @override
    def _bindSocket(self) -> None:
        _remove_stale(self.port)
        super()._bindSocket()
        self.socket.setblocking(True)

    @override
    def connectionLost(self, reason: Any = None) -> None:
        # First, as what follows tells those who wait to listen here anew.
        if not _is_abstract(self.port):
            try:
                os.unlink(self.port)
            except FileNotFoundError:
                pass
        super().connectionLost(reason)


def _is_abstract(path: str | bytes) -> bool:
    return os.fsencode(path).startswith(b"\0")


def _remove_stale(path: str | bytes) -> None:
    """Remove the name of a socket that nobody listens on any more."""
    if _is_abstract(path):
        return
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except OSError:
        pass
