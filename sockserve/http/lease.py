"""
The lease of an HTTP connection: how a blocking handler gets it, and gives it back.

This room owns the handler's socket and the two ways in which the connection itself changes hands:
it is lent (L{LentLease}) or pumped (L{PumpedLease}).  It must not know requests, or why a handler
needs the connection. (reactor thread)
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from sockserve.core.addresses import Addresses
from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.deadlines import Deadlines
from sockserve.core.transports import IStreamTransport
from sockserve.http.handler_socket import RequestSocket
from sockserve.interfaces import IStreamServer, Phase
from sockserve.sockets.hangups import socket_below
from sockserve.sockets.lending import SocketIdentity, TransferCounts, tcp_traffic
from sockserve.sockets.output_watch import OutputWatch
from sockserve.sockets.pumped_socket import impersonate
from sockserve.sockets.pumping import Pump
from sockserve.streams.channel import Pending
from sockserve.streams.writer import StreamWriter

if TYPE_CHECKING:
    from _typeshed import MaybeNone

__all__ = ["ConnectionLease", "LentLease", "Lessor", "PumpedLease", "make_lease"]


class Lessor(Protocol):
    """The channel whose connection is leased."""

    factory: IStreamServer
    transport: IStreamTransport | MaybeNone
    writer: StreamWriter
    timer: DeadlineTimer
    deadlines: Deadlines
    addresses: Addresses
    parts: int
    is_paused: bool
    is_lendable: bool

    def resume(self) -> None:
        """Read what the client sends."""

    def own_socket(self) -> socket.socket:
        """
        The connection's socket, whose descriptor others may use from now on.

        @raise OSError: there is no descriptor to be had.
        """

    def give_up_transport(self) -> None:
        """Let go of the descriptor, which is another's business now."""


def make_lease(channel: Lessor) -> ConnectionLease:
    """The lease that a channel's connection allows."""
    return LentLease(channel) if channel.is_lendable else PumpedLease(channel)


class ConnectionLease:
    """
    One connection, as the requests have it that are answered on threads or in children.

    @ivar sent: how many bytes handlers have sent by themselves.
    """

    sent = 0

    def __init__(self, channel: Lessor) -> None:
        self._channel = channel

    def open(self) -> RequestSocket:
        """
        The handler's socket, for one request.

        @raise OSError: there is no descriptor for it.
        """
        raise NotImplementedError

    def grant(self, switches: bool) -> None:
        """
        The connection is the handler's from now on.

        @param switches: whether what follows the request is, too.
        """
        raise NotImplementedError

    def take_back(self) -> bool:
        """
        The connection is the reactor's again.

        @return: whether the handler has left one.
        """
        raise NotImplementedError

    def close(self) -> None:
        """The request is over, and its socket of no more use."""

    def feed(self, data: bytes) -> None:
        """The client has sent what the reactor knows nothing of."""

    def feed_eof(self) -> None:
        """The client has ended its side of what the reactor knows nothing of."""

    def deadline_applies(self, phase: Phase) -> bool:
        """Whether C{idle} or C{write} has really passed, while the handler has the connection."""
        return True

    def send_last(self, data: bytes) -> None:
        """Send as much as leaves at once, while the handler has the connection."""
        raise NotImplementedError

    def interrupt(self, reset: bool) -> None:
        """
        Wake the handler, which has the connection, wherever it is blocked on that.

        @param reset: let the kernel forget what the client has not taken.
        """
        raise NotImplementedError

    def descriptor_lost(self) -> None:
        """The transport's descriptor is closed."""

    def connection_lost(self) -> None:
        """The transport is gone, and the request under way knows why."""

    def abandon(self) -> None:
        """The handler, which has the connection, keeps it for good."""
        raise NotImplementedError

    def descriptors(self) -> Iterator[int]:
        """The descriptors that are open besides the transport's own."""
        yield from ()

    def outlives_connection(self) -> bool:
        """Whether the handler may still read, once the transport is gone."""
        return False


class LentLease(ConnectionLease):
    """
    A plain connection's.  The handler's socket has the transport's own descriptor, and is the
    same for all requests.

    @param ask_kernel: tells what has moved on a socket, where that is known.
    """

    _socket: RequestSocket | None = None
    _identity: SocketIdentity
    #: Of a handler's output, while that has the connection.
    _output_watch: OutputWatch

    def __init__(
        self,
        channel: Lessor,
        ask_kernel: Callable[[socket.socket | None], TransferCounts | None] = tcp_traffic,
    ) -> None:
        super().__init__(channel)
        self._ask_kernel = ask_kernel

    @override
    def open(self) -> RequestSocket:
        request = self._socket
        if request is None:
            own = self._channel.own_socket()
            request = RequestSocket(own.family, own.type, own.proto, own.fileno())
            self._socket = request
            self._identity = SocketIdentity(own)
        request.settimeout(socket.getdefaulttimeout())
        return request

    @override
    def grant(self, switches: bool) -> None:
        channel, request = self._channel, self._socket
        assert request is not None
        channel.transport.stopReading()
        self._output_watch = OutputWatch(channel.deadlines, channel.timer, self._ask_kernel)
        channel.timer.arm(Phase.IDLE, channel.deadlines.idle)
        request.become_blocking()

    @override
    def take_back(self) -> bool:
        channel, request = self._channel, self._socket
        assert request is not None
        channel.timer.arm(Phase.WRITE, channel.deadlines.write)
        # Else the handler has closed or detached it, if perhaps not with the last word.
        left: bool = request.fileno() >= 0 and not request.is_closed()
        if left:
            request.become_nonblocking()
            if not channel.is_paused:
                channel.transport.startReading()
        else:
            # A file the handler made may keep it open.
            self._identity.shutdown(socket.SHUT_RDWR)
            channel.give_up_transport()
            channel.writer.discard(BrokenPipeError("the handler has closed the connection"))
        return left

    @override
    def deadline_applies(self, phase: Phase) -> bool:
        """The reactor does not see a lent connection's bytes; the kernel does."""
        channel, sock = self._channel, socket_below(self._channel.transport)
        if phase is Phase.WRITE:
            return not self._output_watch.takes_output(sock)
        counts, limit = self._ask_kernel(sock), channel.deadlines.idle
        if counts is None or limit is None:
            return False
        left = counts.idle_seconds(limit)
        if left > 0:
            channel.timer.arm(phase, left)
        return left <= 0

    @override
    def send_last(self, data: bytes) -> None:
        self._identity.send(data)

    @override
    def interrupt(self, reset: bool) -> None:
        self._identity.shutdown(socket.SHUT_RDWR, reset=reset)

    @override
    def descriptor_lost(self) -> None:
        request, self._socket = self._socket, None
        if request is not None:
            socket.socket.detach(request)

    @override
    def abandon(self) -> None:
        # Whoever still has the descriptor closes it.
        self._channel.give_up_transport()

    @override
    def close(self) -> None:
        request = self._socket
        if request is not None and self._channel.transport is None:
            self._socket = None
            request.close()


class PumpedLease(ConnectionLease):
    """
    Any other connection's.  The handler's socket is one end of a pair, made for each request.
    """

    _request: RequestSocket | None = None
    _output_watch: OutputWatch
    #: The other end, until there is a pump for it.
    _outer: socket.socket | None = None
    _pump: Pump | None = None

    @override
    def open(self) -> RequestSocket:
        inner, self._outer = socket.socketpair()
        self._request = request = RequestSocket(fileno=inner.detach())
        impersonate(request, self._channel.transport, self._channel.addresses)
        request.settimeout(socket.getdefaulttimeout())
        return request

    @override
    def grant(self, switches: bool) -> None:
        channel, request, outer = self._channel, self._request, self._outer
        assert request is not None
        assert outer is not None
        channel.writer.detach()
        if switches:
            channel.resume()
        reactor, transport = channel.factory.reactor, channel.transport
        self._pump = Pump(reactor, transport, request, outer, channel.deadlines, channel.timer)
        self._outer = None
        self._output_watch = OutputWatch(channel.deadlines, channel.timer)
        request.become_blocking()

    @override
    def take_back(self) -> bool:
        channel, request, pump = self._channel, self._request, self._pump
        assert request is not None
        assert pump is not None
        self._pump = None
        left: bool = request.fileno() >= 0 and not request.is_closed()
        left = pump.release() and left
        if channel.parts & Pending.CONNECTION:
            channel.timer.arm(Phase.WRITE, channel.deadlines.write)
            channel.writer.wrapped()
        return left

    @override
    def close(self) -> None:
        outer, self._outer = self._outer, None
        if outer is not None:
            outer.close()
        request, self._request = self._request, None
        if request is not None:
            request.close()

    @override
    def feed(self, data: bytes) -> None:
        if self._pump is not None:
            self._pump.feed(data)

    @override
    def feed_eof(self) -> None:
        if self._pump is not None:
            self._pump.feed_eof()

    @override
    def deadline_applies(self, phase: Phase) -> bool:
        """Also the kernel's part of the output counts."""
        if phase is not Phase.WRITE or self._pump is None or not self._pump.has_written_all():
            return True
        return not self._output_watch.takes_output(socket_below(self._channel.transport))

    @override
    def send_last(self, data: bytes) -> None:
        self._channel.transport.write(data)

    @override
    def interrupt(self, reset: bool) -> None:
        if self._pump is not None:
            self._pump.interrupt()
        if reset:
            self._channel.transport.abortConnection()

    @override
    def connection_lost(self) -> None:
        if self._pump is not None:
            self._pump.transport_lost()
            self._channel.timer.disarm(Phase.WRITE)

    @override
    def abandon(self) -> None:
        # The handler may still be at its last words.
        self._channel.transport.abortConnection()

    @override
    def descriptors(self) -> Iterator[int]:
        if self._pump is not None:
            yield self._pump.fileno()
        if self._request is not None:
            yield socket.socket.fileno(self._request)

    @override
    def outlives_connection(self) -> bool:
        return self._pump is not None
