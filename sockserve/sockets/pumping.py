"""
Pumping: how a blocking handler gets a real socket for a connection that is more than a
socket: TLS, PROXY, or any other wrapped transport.

This room owns the socketpair whose one end the handler gets, and the traffic between the
other end and the transport, each side slowing the other down.  It must not know handlers
or servers.
"""

from __future__ import annotations

import socket
from errno import EAGAIN, EWOULDBLOCK
from typing import Any

from twisted.internet import abstract, tcp
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.deadlines import Deadlines, DeadlineTimer
from sockserve.interfaces import Phase

__all__ = ["Pump", "PumpedSocket", "impersonate"]

_OUTER_LEVELS = (socket.IPPROTO_TCP, socket.IPPROTO_IP, socket.IPPROTO_IPV6)


class PumpedSocket(socket.socket):
    """
    The handler's end of a pump.  A real socket in all respects, but it answers for
    the connection it stands for: both addresses are that connection's, and TCP's own
    options are set and read there.  Any thread: the handler's, as a socket.
    """

    __slots__ = ("_addresses", "_certificate", "_outer")

    def __init__(
        self,
        family: int = -1,
        type: int = -1,
        proto: int = -1,
        fileno: int | None = None,
    ) -> None:
        super().__init__(family, type, proto, fileno)
        self._addresses: tuple[Any, Any] | None = None
        self._outer: socket.socket | None = None
        self._certificate: bytes | None = None

    @override
    def getpeername(self) -> Any:
        return super().getpeername() if self._addresses is None else self._addresses[0]

    @override
    def getsockname(self) -> Any:
        return super().getsockname() if self._addresses is None else self._addresses[1]

    @override
    def setsockopt(self, level: int, optname: int, *value: Any) -> None:
        if level not in _OUTER_LEVELS or self._addresses is None:  # it stands for itself
            super().setsockopt(level, optname, *value)
        elif self._outer is not None and self._outer.fileno() >= 0:  # the client is here
            self._outer.setsockopt(level, optname, *value)

    @override
    def getsockopt(self, level: int, optname: int, *buflen: int) -> Any:
        if self._outer is not None and level in _OUTER_LEVELS:
            return self._outer.getsockopt(level, optname, *buflen)
        return super().getsockopt(level, optname, *buflen)

    def forked(self) -> None:
        """This is a child's copy: the connection itself is the parent's."""
        self._outer = None

    def getpeercert(self, binary_form: bool = True) -> bytes | None:
        """
        The client's certificate in DER, or None: it sent none, or this is not TLS.

        @raise ValueError: C{binary_form} is false; decode the DER yourself, for
            example with C{cryptography.x509}.
        """
        if not binary_form:
            raise ValueError("only the binary form (DER) of the certificate is at hand")
        return self._certificate


def impersonate(request: PumpedSocket, transport: Any, addresses: tuple[Any, Any]) -> None:
    """
    Let a socket answer for a transport.

    @param addresses: (peer, own) of the connection, as a socket gives them.
    """
    request._addresses = addresses
    request._outer = _socket_below(transport)
    if ISSLTransport.providedBy(transport):
        certificate: Any = transport.getPeerCertificate()
        if certificate is not None:
            from OpenSSL.crypto import FILETYPE_ASN1, dump_certificate

            request._certificate = dump_certificate(FILETYPE_ASN1, certificate)


class Pump(abstract.FileDescriptor):
    """
    The reactor's end of a socketpair, and the traffic between it and a transport.
    Everything runs on the reactor thread.

    @ivar request: the handler's end.
    @ivar received: bytes moved to the handler.
    @ivar sent: bytes moved from the handler.
    @ivar drained: whether the handler has ended its output and all of it was moved.
    """

    #: How much one C{recv} takes: as C{tcp.Connection.bufferSize}.
    bufferSize = 2**16

    def __init__(
        self,
        reactor: Any,
        transport: Any,
        request: PumpedSocket,
        outer: socket.socket,
        deadlines: Deadlines,
        timer: DeadlineTimer,
    ) -> None:
        """
        @param reactor: an C{IReactorFDSet} and C{IReactorTime}.
        @param request: the handler's end of a socketpair.
        @param outer: the other end, which is the pump's from now on.
        @param timer: C{idle} is kept re-armed by traffic either way, C{write} is armed
            while the peer does not take what waits for it.
        """
        super().__init__(reactor)
        self.request = request
        self._socket = outer
        self._socket.setblocking(False)
        self._transport = transport
        self._deadlines = deadlines
        self._timer = timer
        self.received = 0
        self.sent = 0
        self.drained = False
        self._served = False
        self._transport_is_lost = False
        self.connected = 1
        transport.registerProducer(self, True)
        self.registerProducer(transport, True)
        self.startReading()
        self._moved()

    @override
    def fileno(self) -> int:
        return self._socket.fileno()

    # From the peer to the handler

    def feed(self, data: bytes) -> None:
        """Bytes came from the peer."""
        self.received += len(data)
        self._moved()
        self.write(data)

    def feed_eof(self) -> None:
        """The peer ended its side: so does the handler's input, after what is queued."""
        self.unregisterProducer()
        if not self.disconnected:
            self.loseWriteConnection()

    @override
    def writeSomeData(self, data: bytes) -> int | BaseException:
        try:
            return self._socket.send(data)
        except OSError as error:
            if error.errno in (EAGAIN, EWOULDBLOCK):
                return 0
            # The handler reads no more, but what it wrote may still be on its way to
            # us: what the peer sends is dropped, and reading goes on to its end.
            if self.drained:
                return CONNECTION_DONE
            return len(data)

    @override
    def _closeWriteConnection(self) -> None:
        self._shutdown(socket.SHUT_WR)

    # From the handler to the peer

    @override
    def doRead(self) -> BaseException | None:
        try:
            data = self._socket.recv(self.bufferSize)
        except OSError as error:
            if error.errno in (EAGAIN, EWOULDBLOCK):
                return None
            # Linux: the handler closed its end without reading all that was queued.
            return CONNECTION_DONE
        if not data:
            return CONNECTION_DONE
        self.sent += len(data)
        self._moved()
        self._transport.write(data)
        return None

    def readConnectionLost(self, reason: Failure) -> None:
        """
        The handler ended its output, by C{shutdown} or by closing: so does the
        connection's, if it can end one side.

        Or somebody else's descriptor had the same number until just now, and this is the
        last the reactor has heard of that: it asks once for the events of a whole turn.
        """
        if not self._is_ended():
            self.startReading()
            return
        self.drained = True
        if self._transport_is_lost:
            self.connectionLost(reason)
            return
        self._transport.unregisterProducer()
        if self._served or ISSLTransport.providedBy(self._transport):
            self.connectionLost(reason)
        else:
            self._transport.loseWriteConnection()

    def pauseProducing(self) -> None:
        """The transport is full."""
        self._timer.arm(Phase.WRITE, self._deadlines.write)
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """The transport has room again."""
        self._timer.arm(Phase.WRITE, self._deadlines.write if self._served else None)
        super().resumeProducing()

    def quiet(self) -> float:
        """Seconds since a byte last moved, either way."""
        return self._timer.seconds() - self._moved_at

    def _moved(self) -> None:
        self._moved_at = self._timer.seconds()
        self._timer.arm(Phase.IDLE, self._deadlines.idle)

    # Ends

    @override
    def connectionLost(self, reason: Failure) -> None:
        """The handler's end is gone: close the connection after what is on its way."""
        if self.disconnected:
            return
        if not self.drained and not self._transport_is_lost:
            self._read_rest()
        paused = self.producer is not None and self.producerPaused
        self.unregisterProducer()
        super().connectionLost(reason)
        # A child that was forked for another request may hold a copy, too.
        self._shutdown(socket.SHUT_RDWR)
        # After this turn: what the reactor has yet to say of this descriptor must not hit
        # another of the same number.
        reactor: Any = self.reactor
        reactor.callLater(0, self._socket.close)
        self._timer.disarm(Phase.IDLE)
        if not self._transport_is_lost:  # Twisted's TLS cannot stand it then
            self._timer.arm(Phase.WRITE, self._deadlines.write)
            if paused:  # TLS waits for the peer's end, which it would not hear of
                self._transport.resumeProducing()
            self._transport.unregisterProducer()
            self._transport.loseConnection()

    def _is_ended(self) -> bool:
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _read_rest(self) -> None:
        """
        What the handler wrote before it closed, or left, where that is noticed in another
        way than by reading to its end; no more than a socketpair holds.
        """
        try:
            while data := self._socket.recv(self.bufferSize):
                self.sent += len(data)
                self._transport.write(data)
            self.drained = True
        except BlockingIOError:
            pass
        except OSError:
            self.drained = True

    def served(self) -> None:
        """
        The handler has returned.  A descriptor it kept open (C{detach}) is pumped on
        until it is closed.
        """
        self._served = True
        if self.drained:
            self.connectionLost(_DONE)

    def release(self) -> bool:
        """
        The handler has returned, and the connection goes on without it: pass on what it
        wrote, and end the pump alone.

        @return: whether the handler has left its output open.
        """
        if self.disconnected:
            return False
        if not self._transport_is_lost:
            self._read_rest()
            if self.producer is not None and self.producerPaused:
                self._transport.resumeProducing()
            self._transport.unregisterProducer()
        self._transport_is_lost = True
        self.unregisterProducer()
        self.connectionLost(_DONE)
        return not self.drained

    def transport_lost(self) -> None:
        """
        The connection is gone: what came is still the handler's to read, but what it
        writes goes nowhere, which it is told even where it is blocked in it.
        """
        self._transport_is_lost = True
        if not self.disconnected:
            # Else a pause it was asked for would keep this end from being closed.
            self.unregisterProducer()
            self._shutdown(socket.SHUT_RD)
            self.loseConnection()

    def interrupt(self) -> None:
        """End both directions of the handler's socket, which wakes it wherever it is blocked."""
        if not self.disconnected:
            self._shutdown(socket.SHUT_RDWR)

    def _shutdown(self, how: int) -> None:
        try:
            self._socket.shutdown(how)
        except OSError:
            pass


_DONE = Failure(CONNECTION_DONE)


def _socket_below(transport: Any) -> socket.socket | None:
    while not isinstance(transport, tcp.Connection):
        transport = getattr(transport, "transport", None)
        if transport is None:
            return None
    return transport.socket
