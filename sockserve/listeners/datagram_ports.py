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

import errno
import functools
import os
import socket
import struct
import threading
from collections.abc import Callable
from socket import AddressFamily
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from twisted.internet import udp, unix
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.addresses import SocketAddress, scope_of
from sockserve.core.buffers import bytes_of
from sockserve.listeners.kept_sockets import Place, keeper_of, place_of
from sockserve.listeners.unix_names import is_abstract, remove_stale

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

    def received(
        self, data: bytes, address: SocketAddress | None, arrived_at: Ancillary | None
    ) -> bool:
        """A packet has come; gives whether to read on."""


#: How long an answer of a thread's waits for a UNIX client whose queue is full, in seconds; then
#: it is lost, and so are further ones that find it so.  1: more than a client needs that reads
#: at all, and one that does not has a thread no longer.
_FULL_QUEUE_SECONDS = 1
_TIMEVAL = struct.Struct("@ll")

#: The most clients that are known not to read; more are forgotten, and waited for again.
_MAX_DEAF_CLIENTS = 1000

#: Why an answer does not reach its client, as far as that is the client's fault or the way's.
_LOST = frozenset(
    (
        # Its queue, or the kernel's, is full.
        errno.EAGAIN,
        errno.EWOULDBLOCK,
        # It has gone, or does not read any more.
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EPIPE,
        # Its name has gone, or is that of something else by now, or does not lead there from here.
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.EPROTOTYPE,
        # It, or a firewall, does not let us.
        errno.EACCES,
        errno.EPERM,
        # It has called from UDP's port 0, which nothing can be sent to.
        errno.EINVAL,
        # No way leads back.
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
    )
)


class ReplySocket(socket.socket):
    """
    The listening socket as handlers get it: while a thread serves a request, the answers
    that the thread sends leave from the address the request came to, and one that does not
    reach the request's client is lost, as networks lose packets.

    @ivar replying: the thread's request: C{client_address}, while there is one, and
        C{arrived_at}, the ancillary data that sends an answer from where it came to, or None.
    """

    __slots__ = ("_deaf_clients", "replying")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.replying = threading.local()
        self._deaf_clients: set[SocketAddress | None] = set()

    @override
    def sendto(self, data: ReadableBuffer, *rest: Any) -> int:
        if len(rest) not in (1, 2):
            return super().sendto(data, *rest)  # which says what is wrong
        flags, address = rest if len(rest) == 2 else (0, *rest)
        replying = self.replying.__dict__
        if "client_address" in replying and address == replying["client_address"]:
            return self._answer(data, flags, address)
        while True:
            try:
                return self._send(data, flags, address)
            except BlockingIOError:
                # Whoever is no client is waited for as long as the handler wants.
                if flags & socket.MSG_DONTWAIT or self.gettimeout() is not None:
                    raise

    def _answer(self, data: ReadableBuffer, flags: int, address: Any) -> int:
        """Send a packet to the client of the thread's request, or lose it."""
        if address in self._deaf_clients:
            flags |= socket.MSG_DONTWAIT
        try:
            if address:  # an unnamed UNIX socket has none
                self._send(data, flags, address)
            self._deaf_clients.discard(address)
        except OSError as error:
            if error.errno not in _LOST:
                raise
            if error.errno == errno.EAGAIN:
                if len(self._deaf_clients) >= _MAX_DEAF_CLIENTS:
                    self._deaf_clients.clear()
                self._deaf_clients.add(address)
        return memoryview(data).nbytes

    def _send(self, data: ReadableBuffer, flags: int, address: Any) -> int:
        arrived_at = getattr(self.replying, "arrived_at", None)
        if arrived_at is None:
            return super().sendto(data, flags, address)
        return self.sendmsg([data], arrived_at, flags, address)


class DatagramReply:
    """
    The second half of a coroutine handler's request, by which it answers.

    @ivar sent: how many bytes have been sent with it.
    """

    __slots__ = ("_arrived_at", "_client_address", "_socket", "sent")

    def __init__(
        self,
        sock: socket.socket,
        arrived_at: Ancillary | None,
        client_address: SocketAddress | None,
    ) -> None:
        self._socket = sock
        self._arrived_at = arrived_at
        self._client_address = client_address
        self.sent = 0

    def sendto(self, data: ReadableBuffer, address: SocketAddress | None) -> int:
        """
        Send a packet without waiting: one that finds the kernel's buffer full, or its client
        gone, is lost, as networks lose packets.

        @param address: as C{socket.sendto} takes it; or the request's C{client_address}, even
            if it is None, as that of an unnamed UNIX socket: nobody is answered.
        @return: the number of bytes in C{data}.
        @raise OSError: the system refuses the packet, for example as too long.
        """
        if type(data) is not bytes:
            data = bytes_of(data)
        size = len(data)
        if not address and address == self._client_address:
            return size
        try:
            if self._arrived_at is None:
                # Not ReplySocket's, which looks for the request that its thread serves.
                # (Another address that is None is a TypeError.)
                _sendto(self._socket, data, socket.MSG_DONTWAIT, address)  # type: ignore[arg-type]
            else:
                self._socket.sendmsg([data], self._arrived_at, socket.MSG_DONTWAIT, address)
        except (BlockingIOError, ConnectionRefusedError):
            pass
        except OSError as error:
            if address != self._client_address or error.errno not in _LOST:
                raise
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
    reactor: Any

    def kept_socket(self, place: Place) -> ReplySocket | None:
        """The socket that is there already, bound by a process before this one."""
        keeper = keeper_of(self.reactor)
        descriptor = None if keeper is None else keeper.take(place)
        return None if descriptor is None else ReplySocket(fileno=descriptor)

    def keep_socket(self, place: Place, sock: ReplySocket) -> None:
        """Have a socket that was bound here outlive this process, if that is wanted."""
        keeper = keeper_of(self.reactor)
        if keeper is not None:
            keeper.keep(place, sock)

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
                if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
                    return
                if error.errno == errno.ECONNREFUSED:  # an earlier answer was not delivered
                    continue
                raise
            if not received(data, address, None):
                return

    def reply_maker(self) -> Callable[[Ancillary | None, SocketAddress | None], DatagramReply]:
        """
        A function that makes the reply of one packet.  It takes the ancillary data that
        sends the answer from where the packet came to, and the client's address.
        """
        return functools.partial(DatagramReply, self.socket)


class UDPPort(_PortMixin, udp.Port):
    """A UDP port bound to one address; a link-local one has a zone, as C{fe80::1%eth0}."""

    @override
    def _bindSocket(self) -> None:
        place = place_of("udp", self.interface, self.port)
        sock = self.kept_socket(place)
        if sock is None:
            sock = self._bound()
            self.keep_socket(place, sock)
        self._preexistingSocket = sock  # type: ignore[assignment]
        super()._bindSocket()

    def _bound(self) -> ReplySocket:
        """
        Make the socket, and bind it.

        @raise CannotListenError: that cannot be.
        """
        sock = self.createInternetSocket()
        try:
            if self.addressFamily == socket.AF_INET6:
                host, _, zone = self.interface.partition("%")
                sock.bind((host, self.port, 0, scope_of(zone) if zone else 0))
            else:
                sock.bind((self.interface, self.port))
        except OSError as error:
            sock.close()
            raise CannotListenError(self.interface, self.port, error) from error
        return sock


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
                if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
                    return
                if error.errno == errno.ECONNREFUSED:
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
        sock = self.kept_socket(self._place()) if self._is_there() else None
        if sock is None:
            sock = self._bound()
            self.keep_socket(self._place(), sock)
        self.connected = 1
        self.socket = sock
        self.fileno = sock.fileno  # type: ignore[method-assign]

    def _place(self) -> Place:
        """The place that the socket is kept by."""
        return place_of("unixgram", self.port)

    def _is_there(self) -> bool:
        """Whether the name still is."""
        return is_abstract(self.port) or os.path.exists(self.port)

    def _bound(self) -> ReplySocket:
        """
        Make the socket, and bind its name.

        @raise CannotListenError: that cannot be.
        """
        remove_stale(self.port, socket.SOCK_DGRAM)
        sock = self.createInternetSocket()
        try:
            sock.bind(self.port)
            if not is_abstract(self.port):
                os.chmod(self.port, self.mode)
            sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(_FULL_QUEUE_SECONDS, 0)
            )
        except OSError as error:
            sock.close()
            raise CannotListenError(None, self.port, error) from error
        return sock

    @override
    def connectionLost(self, reason: Failure | None = None) -> None:
        # First: the rest calls back code that may listen under this name again.
        keeper = keeper_of(self.reactor)
        is_owned = keeper is None or keeper.owns_name(self._place())
        if is_owned and not is_abstract(self.port):
            try:
                os.unlink(self.port)
            except FileNotFoundError:
                pass
        super().connectionLost(reason)
