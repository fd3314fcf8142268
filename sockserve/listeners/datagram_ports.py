"""
Ports of datagram listeners, and the sockets that handlers answer with.

This room owns reading and writing packets.  It must not know requests.

The ports are Twisted's own with another way of reading and writing: a packet that is too
long is told from a whole one, and on a wildcard address each answer leaves from the
address that its request came to (C{IP_PKTINFO}); with a plain C{sendto} the routing table
would choose.
(reactor thread, but where a method says otherwise)
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
from socket import AddressFamily
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from twisted.internet import udp, unix
from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.addresses import SocketAddress

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "Ancillary",
    "DatagramReply",
    "PacketReceiver",
    "ReplySocket",
    "UDPPort",
    "UNIXDatagramPort",
    "WildcardUDPPort",
]

#: Ancillary data of a packet, as C{socket.recvmsg} gives it: level, kind and content.
Ancillary: TypeAlias = list[tuple[int, int, bytes]]

#: The most packets that are read in a row before other connections get their turn.
_READS_PER_TURN = 64

_IN_PKTINFO = struct.Struct("I4s4s")  # struct in_pktinfo: interface, source, destination
_IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8)
_sendto = socket.socket.sendto


class PacketReceiver(Protocol):
    """The datagram server as its port knows it."""

    def received(self, data: bytes, address: SocketAddress, arrived_at: Ancillary | None) -> bool:
        """A packet has come; gives whether to read on."""


class ReplySocket(socket.socket):
    """
    The listening socket as handlers get it: while a thread serves a request, the answers
    that the thread sends leave from the address the request came to.

    @ivar replying: the thread's request: C{arrived_at} is the ancillary data that sends
        an answer from where it came to, or None.
    """

    __slots__ = ("replying",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.replying = threading.local()

    @override
    def sendto(self, data: ReadableBuffer, *rest: Any) -> int:
        arrived_at = getattr(self.replying, "arrived_at", None)
        if arrived_at is None:
            return super().sendto(data, *rest)
        flags, address = rest if len(rest) == 2 else (0, *rest)
        return self.sendmsg([data], arrived_at, flags, address)


class DatagramReply:
    """
    The second half of a coroutine handler's request, by which it answers.

    @ivar sent: how many bytes have been sent with it.
    """

    __slots__ = ("_arrived_at", "_socket", "sent")

    def __init__(self, sock: socket.socket, arrived_at: Ancillary | None) -> None:
        self._socket = sock
        self._arrived_at = arrived_at
        self.sent = 0

    def sendto(self, data: bytes, address: SocketAddress) -> int:
        """
        Send a packet without waiting: one that finds the kernel's buffer full is lost, as
        networks lose packets.

        @param address: as C{socket.sendto} takes it.
        @return: the number of bytes in C{data}.
        @raise OSError: the system refuses the packet, for example as too long.
        """
        try:
            if self._arrived_at is None:
                # Not ReplySocket's, which looks for the request that its thread serves.
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
    The reading and writing half of a port, UDP or UNIX.

    The socket is blocking, for handlers on threads; the reactor's own calls say
    C{MSG_DONTWAIT}.
    """

    protocol: PacketReceiver
    socket: socket.socket
    addressFamily: AddressFamily
    maxPacketSize: int

    def createInternetSocket(self) -> ReplySocket:
        """Make the socket, not bound yet."""
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
                if error.errno == ECONNREFUSED:  # an earlier answer was not delivered
                    continue
                raise
            if not received(data, address, None):
                return

    def reply_maker(self) -> Callable[[Ancillary | None], DatagramReply]:
        """
        A function that makes the reply of one packet.  It takes the ancillary data that
        sends the answer from where the packet came to.
        """
        return functools.partial(DatagramReply, self.socket)


class UDPPort(_PortMixin, udp.Port):
    """A UDP port bound to one address."""


class WildcardUDPPort(UDPPort):
    """A UDP port bound to all addresses: each answer leaves from the one it was sent to."""

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
            if not self.protocol.received(data, address, _reply_ancillary(ancillary)):
                return


def _reply_ancillary(ancillary: Ancillary) -> Ancillary | None:
    """The ancillary data that sends an answer from the address a request came to."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            _, source, _ = _IN_PKTINFO.unpack(data[: _IN_PKTINFO.size])
            return [(level, kind, _IN_PKTINFO.pack(0, source, b"\0\0\0\0"))]
        if level == socket.IPPROTO_IPV6:
            return [(level, kind, data)]
    return None


class UNIXDatagramPort(_PortMixin, unix.DatagramPort):
    """A UNIX datagram socket, whose name is removed when it closes."""

    @override
    def _bindSocket(self) -> None:
        _remove_stale(self.port)
        super()._bindSocket()
        self.socket.setblocking(True)

    @override
    def connectionLost(self, reason: Failure | None = None) -> None:
        # First: the rest calls back code that may listen under this name again.
        if not _is_abstract(self.port):
            try:
                os.unlink(self.port)
            except FileNotFoundError:
                pass
        super().connectionLost(reason)


def _is_abstract(path: str | bytes) -> bool:
    """Whether a name is one of Linux's abstract ones, which are no files."""
    return os.fsencode(path).startswith(b"\0")


def _remove_stale(path: str | bytes) -> None:
    """Remove the name of a socket that no process listens on any more."""
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
