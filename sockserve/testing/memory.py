"""
Memory: what stands in for the reactor and for connections when HTTP is served in memory.

This room owns the server's end of a connection, the clock, and the sockets that blocking
handlers have.  It must not know HTTP.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.executors.base import serve_guarded
from sockserve.testing.exchanges import (
    SERVER_ADDRESS,
    Exchange,
    InlineExecutor,
    MemoryTransport,
)

__all__ = ["AttendedExecutor", "MemoryReactor", "ServerTransport"]


class ServerTransport(MemoryTransport):
    """The server's end of a connection."""

    def __init__(
        self, exchange: Exchange, clock: Clock, protocol: Any, client_address: Any
    ) -> None:
        super().__init__(exchange)
        self._clock = clock
        self._protocol = protocol
        self._client_address = client_address
        #: Whether the connection is over, or about to be.
        self.disconnecting = False

    def getPeer(self) -> Any:
        """The client's address, as Twisted has it."""
        return _twisted_address(self._client_address)

    def getHost(self) -> Any:
        """The server's, likewise."""
        return _twisted_address(SERVER_ADDRESS)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Memory delays nothing."""

    def loseConnection(self) -> None:
        """End the connection."""
        self.lose(ConnectionDone())

    def abortConnection(self) -> None:
        """End the connection; nothing is on its way."""
        self.lose(ConnectionAborted())

    def lose(self, reason: Exception) -> None:
        """The connection is over."""
        if not self.disconnecting:
            self.disconnecting = True
            self._clock.callLater(0, self._protocol.connectionLost, Failure(reason))


def _twisted_address(address: Any) -> Any:
    if not isinstance(address, tuple):
        return UNIXAddress(address or None)
    if len(address) == 2:
        return IPv4Address("TCP", *address)
    return IPv6Address("TCP", *address)


class MemoryReactor(Clock):
    """
    A clock that stands still, and the sockets of handlers that run: one end of each
    (L{sockserve.sockets.pumping}) is the reactor's.
    """

    def __init__(self) -> None:
        super().__init__()
        self._readers: set[Any] = set()
        self._writers: set[Any] = set()
        #: Wakes the thread that L{turning} starts.
        self._waker: socket.socket | None = None

    def addReader(self, reader: Any) -> None:
        """Call its C{doRead} when there is something."""
        self._readers.add(reader)
        self._wake()

    def addWriter(self, writer: Any) -> None:
        """Call its C{doWrite} when there is room."""
        self._writers.add(writer)
        self._wake()

    def removeReader(self, reader: Any) -> None:
        """Do not any more."""
        self._readers.discard(reader)

    def removeWriter(self, writer: Any) -> None:
        """Do not any more."""
        self._writers.discard(writer)

    def turn(self) -> None:
        """Do what is due now."""
        self.advance(0)

    @contextmanager
    def turning(self) -> Iterator[None]:
        """Serve the sockets, on a thread of its own, while the handler has this one."""
        self._waker, wake = socket.socketpair()
        thread = threading.Thread(target=self._turn, args=(wake,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._waker.close()
            self._waker = None
            thread.join()
            wake.close()

    def _wake(self) -> None:
        if self._waker is not None:
            self._waker.send(b"!")

    def _turn(self, wake: socket.socket) -> None:
        """Until the waker is closed.  The thread."""
        while True:
            readers = {reader.fileno(): reader for reader in list(self._readers)}
            writers = {writer.fileno(): writer for writer in list(self._writers)}
            poll = select.poll()  # select() knows the first thousand descriptors only
            for descriptor in {*readers, *writers}:
                events = select.POLLIN * (descriptor in readers)
                poll.register(descriptor, events | select.POLLOUT * (descriptor in writers))
            poll.register(wake, select.POLLIN)
            for descriptor, events in poll.poll():
                if descriptor == wake.fileno():
                    if not wake.recv(4096):
                        return
                elif events & select.POLLOUT:
                    self._do(writers[descriptor], "doWrite")
                elif descriptor in readers:
                    self._do(readers[descriptor], "doRead")

    def _do(self, selectable: Any, action: str) -> None:
        why = getattr(selectable, action)()
        if why is not None:
            self.removeReader(selectable)
            if action == "doRead" and isinstance(why, ConnectionDone):
                selectable.readConnectionLost(Failure(why))
            else:
                self.removeWriter(selectable)
                selectable.connectionLost(Failure(why))


class AttendedExecutor(InlineExecutor):
    """Runs blocking handlers at once, while a thread plays the reactor and the client."""

    def __init__(self, reactor: MemoryReactor) -> None:
        self._reactor = reactor

    @override
    def run(self, job: Any) -> None:
        self.running += 1
        job.started()
        # Whoever reads on from the socket would wait for ever.  (Its own method is a wish
        # to have the connection.)
        socket.socket.shutdown(job.request, socket.SHUT_RD)
        with self._reactor.turning():
            outcome = serve_guarded(job)
        self.running -= 1
        job.ended(outcome)
