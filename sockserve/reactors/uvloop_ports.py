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

    _host: Any = None
    _peer: Any = None

    # Asked for with each request of HTTP; neither changes.

    @override
    def getHost(self) -> Any:
        if self._host is None:
            self._host = super().getHost()
        return self._host

    @override
    def getPeer(self) -> Any:
        if self._peer is None:
            self._peer = super().getPeer()
        return self._peer


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
