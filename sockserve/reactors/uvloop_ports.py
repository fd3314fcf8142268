"""
Ports and connectors of the uvloop reactor, and what each makes.

This room owns which of Twisted's transports become L{LoopStream}s, and what is particular to UNIX
connections.  It must not know who runs the loop, nor servers. (reactor thread)
"""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IFileDescriptorReceiver
from typing_extensions import override

from sockserve.reactors.uvloop_streams import LoopStream

__all__ = ["TCPConnector", "TCPPort", "TCPServer", "UNIXConnector", "UNIXPort", "UNIXServer"]


class _ServerStream(LoopStream):
    """What was accepted: it is connected from the start."""

    _joins = True


class _ClientStream(LoopStream, tcp.BaseClient):
    """What connects."""

    @override
    def _connectDone(self) -> None:
        self._joins = True
        super()._connectDone()


class _UNIXStream(LoopStream):
    """
    A UNIX connection, which may carry descriptors: libuv does not, so then it is not libuv's.
    """

    _leaves = False

    @override
    def _join(self) -> None:
        if IFileDescriptorReceiver.providedBy(self.protocol):
            self._joins = False
        super()._join()

    def sendFileDescriptor(self, fileno: int) -> None:
        """As C{IUNIXTransport.sendFileDescriptor}."""
        self._leaves = True
        if not self._is_congested:
            self.leave_loop()
        super().sendFileDescriptor(fileno)  # type: ignore[misc]

    @override
    def flush(self) -> None:
        if self._leaves and self._uv is not None and not self._is_congested:
            self.leave_loop()
        else:
            super().flush()


class TCPServer(_ServerStream, tcp.Server):
    """A TCP connection that was accepted."""

    # Its addresses, kept when they are asked for again, as HTTP does with each request.
    _host: Any = None
    _peer: Any = None
    _asked_for_host = False
    _asked_for_peer = False

    @override
    def getHost(self) -> Any:
        host = self._host
        if host is None:
            host = super().getHost()
            if self._asked_for_host:
                self._host = host
            self._asked_for_host = True
        return host

    @override
    def getPeer(self) -> Any:
        peer = self._peer
        if peer is None:
            peer = super().getPeer()
            if self._asked_for_peer:
                self._peer = peer
            self._asked_for_peer = True
        return peer


class _TCPClient(_ClientStream, tcp.Client):
    """A TCP connection that was made from here."""


class UNIXServer(_ServerStream, _UNIXStream, unix.Server):
    """A UNIX connection that was accepted."""


class _UNIXClient(_ClientStream, _UNIXStream, unix.Client):
    """A UNIX connection that was made from here."""


class TCPPort(tcp.Port):
    """A TCP port."""

    transport = TCPServer


class UNIXPort(unix.Port):
    """A UNIX port."""

    transport = UNIXServer


class TCPConnector(tcp.Connector):
    """What makes a TCP connection, and again."""

    @override
    def _makeTransport(self) -> _TCPClient:
        return _TCPClient(self.host, self.port, self.bindAddress, self, self.reactor)


class UNIXConnector(unix.Connector):
    """What makes a UNIX connection, and again."""

    @override
    def _makeTransport(self) -> Any:
        return _UNIXClient(self.address, self, self.reactor, self.checkPID)
