"""
The channels of blocking handlers: stream connections served on a thread or in a child.

This room owns the two ways such a handler holds its connection while the reactor keeps
the deadlines: L{LentSocketChannel} and L{PumpedSocketChannel}.  It must not know how a connection
came about. (reactor thread, but where a method says otherwise)
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from enum import Enum

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.addresses import Addresses
from sockserve.interfaces import IStreamServer, Outcome, Phase
from sockserve.sockets.hangups import socket_below
from sockserve.sockets.lending import (
    SocketIdentity,
    TransferCounts,
    has_unread,
    is_lendable,
    lend,
    tcp_traffic,
)
from sockserve.sockets.output_watch import OutputWatch
from sockserve.sockets.pumped_socket import PumpedSocket, impersonate
from sockserve.sockets.pumping import Pump
from sockserve.streams.channel import ChannelOwner, MakeChannel, Pending
from sockserve.streams.parting import Parting, lose_connection
from sockserve.streams.socket_channel import SocketChannel

__all__ = ["LentSocketChannel", "PumpedSocketChannel", "socket_channel_maker"]


class LentSocketChannel(SocketChannel):
    """
    The channel of a blocking handler that has the connection's own socket.

    @param ask_kernel: tells what has moved on a socket, where that is known.
    """

    request: socket.socket

    def __init__(
        self,
        protocol: ChannelOwner,
        ask_kernel: Callable[[socket.socket | None], TransferCounts | None] = tcp_traffic,
    ) -> None:
        super().__init__(protocol)
        self._ask_kernel = ask_kernel
        self.request = lend(self.transport)
        self._identity = SocketIdentity(self.request)
        # The transport is not heard of again: let go of it, and of its cycle with us.
        self.transport = protocol.transport = None
        # Until the kernel was asked; a child does not tell.
        protocol.record.received = protocol.record.sent = None
        self.timer.arm(Phase.IDLE, self.deadlines.idle)
        self._output_watch = OutputWatch(self.deadlines, self.timer, ask_kernel)

    @override
    def ended(self, outcome: Outcome) -> None:
        self.parts &= ~Pending.CONNECTION
        super().ended(outcome)

    @override
    def client_socket(self) -> socket.socket:
        return self.request

    @override
    def has_said_nothing(self) -> bool:
        return not has_unread(self.request)

    @override
    def abandon(self) -> None:
        super().abandon()
        self._part_ended(Pending.CONNECTION)

    @override
    def record_traffic(self) -> None:
        received, sent = self.traffic()
        if received is not None:
            self.protocol.record.received, self.protocol.record.sent = received, sent

    @override
    def traffic(self) -> tuple[int | None, int | None]:
        counts = self._ask_kernel(self.request)
        return (None, None) if counts is None else (counts.received, counts.sent)

    @override
    def request_closing(self) -> None:
        super().request_closing()
        if self._process == os.getpid() and self.protocol.record.received is None:
            # Closed by the handler itself, refused, withdrawn, or served by an override's means.
            self.record_traffic()
        if not self.parts & Pending.HANDLER:
            self.factory.reactor.callFromThread(self._part_ended, Pending.CONNECTION)

    @override
    def deadline_applies(self, phase: Phase) -> bool:
        """
        The reactor does not see a lent connection's bytes; the kernel does.  Where it
        does not tell, C{idle} and C{write} do not apply.
        """
        if phase is Phase.WRITE:
            return not self._output_watch.takes_output(self.request)
        if phase is not Phase.IDLE:
            return True
        left = None if self._ends_when_quiet() else self._idle_seconds()
        if left is not None and left > 0:
            self.timer.arm(phase, left)
        return left is not None and left <= 0

    def _idle_seconds(self) -> float | None:
        """How long until C{idle} could pass; None for never. (any thread)"""
        counts, limit = self._ask_kernel(self.request), self.deadlines.idle
        return None if counts is None or limit is None else counts.idle_seconds(limit)

    @override
    def serve_in_child(self) -> None:
        # The parent has closed its copy and can ask the kernel nothing.
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """Keep C{idle} and C{write} where no reactor does: a thread of the child's own."""
        while True:
            left = self._idle_seconds(), self._output_watch.seconds_left(self.request)
            known = [seconds for seconds in left if seconds is not None]
            if not known:
                return
            if min(known) <= 0:
                self.interrupt()
                return
            time.sleep(min(known))

    @override
    def quiet_seconds(self) -> float | None:
        counts = self._ask_kernel(self.request)
        return None if counts is None else counts.since_received

    @override
    def end_input(self) -> None:
        self._identity.shutdown(socket.SHUT_RD)

    @override
    def deadline_passed(self, phase: Phase) -> None:
        if phase is Phase.WRITE or phase is Phase.DRAIN:
            self._identity.shutdown(socket.SHUT_RDWR, reset=True)
        super().deadline_passed(phase)

    @override
    def interrupt(self) -> None:
        self._identity.shutdown(socket.SHUT_RDWR)


class _End(Enum):
    """
    The stand of a pumped connection with its end, as far as this side makes it.  (The client may
    end its side at any time.)
    """

    #: The handler may write, or not all that it wrote has left.
    OPEN = "open"
    #: It has ended its output, all of which has left; it may read on.
    HALF_CLOSED = "half-closed"
    #: Its end is gone, and not all that it wrote has left.
    FLUSHING = "flushing"
    #: All has left; what the client still sends is thrown away.
    LINGERING = "lingering"


class PumpedSocketChannel(SocketChannel):
    """The channel of a blocking handler that has one end of a socketpair."""

    request: socket.socket

    def __init__(self, protocol: ChannelOwner, addresses: Addresses) -> None:
        """
        @raise OSError: there is no descriptor to be had.
        """
        super().__init__(protocol)
        inner, outer = socket.socketpair()
        request = PumpedSocket(fileno=inner.detach())
        impersonate(request, self.transport, addresses)
        request.settimeout(socket.getdefaulttimeout())
        reactor, transport = self.factory.reactor, self.transport
        self._output_watch = OutputWatch(self.deadlines, self.timer)
        self._pump = Pump(
            reactor,
            transport,
            request,
            outer,
            deadlines=self.deadlines,
            timer=self.timer,
            end_connection=self._end_connection,
        )
        self.request = self._pump.request
        self._end = _End.OPEN
        self._client_has_ended = False
        #: Over TLS, from when the handler's end is gone.
        self._parting: Parting | None = None
        protocol.set_receiver(self._pump.feed)

    @override
    def ended(self, outcome: Outcome) -> None:
        super().ended(outcome)
        self._pump.handler_finished()

    @override
    def client_socket(self) -> socket.socket | None:
        return socket_below(self.transport)

    @override
    def has_said_nothing(self) -> bool:
        return False  # as far as is known: it may be on its way to the handler

    @override
    def client_left(self) -> None:
        super().client_left()
        self._abort_connection()

    @override
    def serve_in_child(self) -> None:
        self._pump.request.forked()

    @override
    def request_closing(self) -> None:
        super().request_closing()
        if not self.parts & Pending.HANDLER:
            self.factory.reactor.callFromThread(self._pump.handler_finished)

    @override
    def owned_descriptors(self) -> Iterator[int]:
        yield from super().owned_descriptors()
        yield self._pump.fileno()

    @override
    def eof_received(self) -> None:
        self._client_has_ended = True
        if self._end is _End.OPEN or self._end is _End.HALF_CLOSED:
            self._pump.feed_eof()
        else:
            self.transport.loseConnection()

    def _end_connection(self, unread: bool) -> None:
        """The handler's end is gone: end the connection after what is on its way."""
        if not unread or self._client_has_ended or ISSLTransport.providedBy(self.transport):
            self._parting = lose_connection(self.transport, self.deadlines, self.timer)
            return
        # What nobody has read would be answered with a reset, which overtakes that.
        self.protocol.set_receiver(_throw_away)
        if self._end is _End.HALF_CLOSED:
            self._linger()
        else:
            self._end = _End.FLUSHING
            self.transport.loseWriteConnection()

    @override
    def output_ended(self) -> None:
        if self._end is _End.OPEN:
            self._end = _End.HALF_CLOSED
        elif self._end is _End.FLUSHING:
            self._linger()

    def _linger(self) -> None:
        self._end = _End.LINGERING
        self.timer.arm(Phase.WRITE, self.deadlines.linger)

    @override
    def connection_lost(self, reason: Failure) -> None:
        self.protocol.record.received = self._pump.received
        self.protocol.record.sent = self._pump.sent
        self._pump.transport_lost()
        # A client that is gone takes and says nothing, for which its handler is not ended.
        self.timer.disarm(Phase.WRITE)
        self.timer.disarm(Phase.IDLE)
        self.parts &= ~Pending.CONNECTION
        if not reason.check(ConnectionDone):
            self.stop_waiting()
        super().connection_lost(reason)

    @override
    def deadline_applies(self, phase: Phase) -> bool:
        if phase is Phase.WRITE and self._parting is not None:
            return self._parting.write_applies()
        if phase is Phase.WRITE and self._end is _End.LINGERING:
            self.transport.loseConnection()
            return False
        if phase is Phase.WRITE and self._end is _End.OPEN and self._pump.has_written_all():
            return not self._output_watch.takes_output(self.client_socket())
        return not (phase is Phase.IDLE and self._ends_when_quiet())

    @override
    def drain(self) -> None:
        if self.deadlines.quiet is not None:
            self._pump.idle = self.deadlines.quiet  # each byte puts the next look off by that
        super().drain()

    @override
    def quiet_seconds(self) -> float | None:
        return self._pump.quiet()

    @override
    def end_input(self) -> None:
        self._pump.feed_eof()

    @override
    def abort(self) -> None:
        super().abort()
        self._abort_connection()

    @override
    def deadline_passed(self, phase: Phase) -> None:
        super().deadline_passed(phase)
        if phase in (Phase.WRITE, Phase.DRAIN):  # nothing more is waited for
            self._abort_connection()

    def _abort_connection(self) -> None:
        if self.parts & Pending.CONNECTION:  # Twisted's TLS cannot stand it afterwards
            self.transport.abortConnection()

    @override
    def interrupt(self) -> None:
        self._pump.interrupt()


def _throw_away(data: bytes) -> None:
    """Drop bytes that a client sends to a handler that has gone."""


def socket_channel_maker(server: IStreamServer) -> MakeChannel:
    """The maker of the channels of a server whose handlers block."""
    return _make_socket_channel


def _make_socket_channel(protocol: ChannelOwner, addresses: Addresses) -> SocketChannel:
    """Lends a plain connection, pumps any other."""
    if is_lendable(protocol.transport):
        return LentSocketChannel(protocol)
    return PumpedSocketChannel(protocol, addresses)
