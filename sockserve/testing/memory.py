"""
Memory: stand-ins for the reactor and for a connection.

This room owns the server's end of a connection, the clock, and the sockets that blocking
handlers have.  It must not know HTTP.
"""

from __future__ import annotations

import select
import socket
import threading
from asyncio import _get_running_loop
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableDescriptor,
    IReadDescriptor,
    IWriteDescriptor,
)
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.addresses import SocketAddress, twisted_address
from sockserve.executors.base import serve_logged
from sockserve.testing.exchanges import SERVER_ADDRESS, Exchange, InlineExecutor

__all__ = ["AttendedExecutor", "MemoryReactor", "ServerTransport"]

#: What L{MemoryReactor} sends to the thread that serves its sockets.
_WAKE_UP, _END = b"!", b"."


class ServerTransport:
    """
    The server's end of a connection: it records what is sent.

    @ivar disconnecting: whether the connection is lost, or about to be.
    """

    def __init__(
        self, exchange: Exchange, clock: Clock, protocol: Protocol, client_address: SocketAddress
    ) -> None:
        """
        @param exchange: where what is sent goes.
        @param protocol: told of the end of the connection.
        @param client_address: as a socket gives it.
        """
        self._exchange = exchange
        self._clock = clock
        self._protocol = protocol
        self._client_address = client_address
        self.disconnecting = False

    def write(self, data: bytes) -> None:
        """Send: the client has it at once."""
        self._exchange.output.append(data)

    def getPeer(self) -> IAddress:
        """The client's address, as Twisted has it."""
        return twisted_address(self._client_address)

    def getHost(self) -> IAddress:
        """The server's address, as Twisted has it."""
        return twisted_address(SERVER_ADDRESS)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing: memory delays nothing."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Do nothing: memory is never full, so no producer is ever paused."""

    def unregisterProducer(self) -> None:
        """Do nothing, as L{registerProducer} does."""

    def pauseProducing(self) -> None:
        """Do nothing: the test sends when it likes."""

    def resumeProducing(self) -> None:
        """Do nothing, as L{pauseProducing} does."""

    def loseWriteConnection(self) -> None:
        """Do nothing: the record of what was sent has no end of its own."""

    def loseConnection(self) -> None:
        """End the connection."""
        self._lose(ConnectionDone())

    def abortConnection(self) -> None:
        """End the connection; nothing is on its way."""
        self._lose(ConnectionAborted())

    def break_off(self) -> None:
        """End the connection as a client does that is cut off."""
        self._lose(ConnectionLost())

    def _lose(self, reason: Exception) -> None:
        if not self.disconnecting:
            self.disconnecting = True
            self._clock.callLater(0, self._protocol.connectionLost, Failure(reason))


class MemoryReactor(Clock):
    """
    A clock that stands still, and the sockets of handlers that run: one end of each
    (L{sockserve.sockets.pumping}) is the reactor's.  Where a test runs on an event loop of
    asyncio's, so does this.
    """

    def __init__(self) -> None:
        super().__init__()
        self._asyncioEventloop = _get_running_loop()
        self._readers: set[IReadDescriptor] = set()
        self._writers: set[IWriteDescriptor] = set()
        #: One end of a pair of sockets, to wake the thread that L{turning} starts.
        self._waker: socket.socket | None = None

    def addReader(self, reader: IReadDescriptor) -> None:
        """Call C{reader.doRead} from now on when there is something to read."""
        self._readers.add(reader)
        self._wake()

    def addWriter(self, writer: IWriteDescriptor) -> None:
        """Call C{writer.doWrite} from now on when there is room."""
        self._writers.add(writer)
        self._wake()

    def removeReader(self, reader: IReadDescriptor) -> None:
        """Call C{reader.doRead} no more."""
        self._readers.discard(reader)

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        """Call C{writer.doWrite} no more."""
        self._writers.discard(writer)

    def turn(self) -> None:
        """Make the calls that are due now."""
        self.advance(0)

    @contextmanager
    def turning(self) -> Iterator[None]:
        """Serve the sockets, on a thread of its own, while the handler has this one."""
        waker, wake = socket.socketpair()
        self._waker = waker
        thread = threading.Thread(target=self._turn, args=(wake,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            # Not by closing it: the thread may be about to wake itself.
            waker.send(_END)
            thread.join()
            self._waker = None
            waker.close()
            wake.close()

    def _wake(self) -> None:
        if self._waker is not None:
            self._waker.send(_WAKE_UP)

    def _turn(self, wake: socket.socket) -> None:
        """Serve the sockets until told to end. (the thread that L{turning} starts)"""
        while True:
            readers = {reader.fileno(): reader for reader in list(self._readers)}
            writers = {writer.fileno(): writer for writer in list(self._writers)}
            poll = select.poll()  # select() knows the first thousand descriptors only
            for descriptor in {*readers, *writers}:
                reading = select.POLLIN if descriptor in readers else 0
                writing = select.POLLOUT if descriptor in writers else 0
                poll.register(descriptor, reading | writing)
            poll.register(wake, select.POLLIN)
            for descriptor, events in poll.poll():
                if descriptor == wake.fileno():
                    if _END in wake.recv(4096):
                        return
                elif events & select.POLLOUT:
                    self._do_write(writers[descriptor])
                elif descriptor in readers:
                    self._do_read(readers[descriptor])
                else:  # there will be no room, which the write is to say
                    self._do_write(writers[descriptor])

    # As the reactors of Twisted's do

    def _do_write(self, writer: IWriteDescriptor) -> None:
        lost = writer.doWrite()
        if isinstance(lost, Exception):
            self._disconnect(writer, lost)

    def _do_read(self, reader: IReadDescriptor) -> None:
        lost = reader.doRead()
        if isinstance(lost, ConnectionDone) and IHalfCloseableDescriptor.providedBy(reader):
            self._readers.discard(reader)
            reader.readConnectionLost(Failure(lost))
        elif isinstance(lost, Exception):
            self._disconnect(reader, lost)

    def _disconnect(self, selectable: IReadDescriptor | IWriteDescriptor, lost: Exception) -> None:
        self._readers.discard(selectable)
        self._writers.discard(selectable)
        selectable.connectionLost(Failure(lost))


class AttendedExecutor(InlineExecutor):
    """
    An L{IExecutor} that runs each blocking handler at once, where it is called, while a
    thread plays the reactor and the client.
    """

    def __init__(self, reactor: MemoryReactor) -> None:
        self._reactor = reactor

    @override
    def run(self, job: Any) -> None:
        self.running += 1
        job.started()
        # A handler that reads on from the socket would wait for ever.  (The socket's own
        # shutdown() would ask for the connection itself.)
        socket.socket.shutdown(job.request, socket.SHUT_RD)
        with self._reactor.turning():
            outcome = serve_logged(job)
        self.running -= 1
        job.ended(outcome)
