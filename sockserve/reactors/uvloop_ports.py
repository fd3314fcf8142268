"""
Ports and connectors of the uvloop reactor, what each makes, and the reactor as streams know it.

This room owns which of Twisted's transports become L{LoopStream}s, what is particular to UNIX
connections, and the list of all streams.  It must not know who runs the loop, nor servers.
(reactor thread)
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IFileDescriptorReceiver, IReactorFDSet
from twisted.internet.posixbase import PosixReactorBase
from typing_extensions import override
from zope.interface import implementer

from sockserve.reactors.uvloop_streams import HandedOver, LogContext, LoopStream, current_contexts

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "StreamReactor",
    "TCPConnector",
    "TCPPort",
    "TCPServer",
    "UNIXConnector",
    "UNIXPort",
    "UNIXServer",
]


@implementer(IReactorFDSet)
class StreamReactor(PosixReactorBase):
    """
    The part of the reactor that its streams know.  The rest is the epoll reactor's.

    @ivar streams: those that the loop has, or is about to have.
    @ivar read_buffer: where the loop puts what it reads of one of them.
    @ivar get_buffer: gives that, however many bytes are asked for.
    @ivar handed_over: what it is given for the socket of one.
    @ivar log_context: the context of what one has read.
    @ivar contexts: those of the thread that it runs on, the innermost last.
    """

    _writes: set[int]

    def __init__(self, eventloop: asyncio.AbstractEventLoop) -> None:
        #: By the name that Twisted's own asyncio reactor has it by.
        self._asyncioEventloop = eventloop
        self.streams: set[LoopStream] = set()
        self.read_buffer = buffer = memoryview(bytearray(LoopStream.bufferSize))
        # Asked for at each read, and always as many: a lookup takes a third of a call.
        self.get_buffer = defaultdict[int, memoryview](lambda: buffer).__getitem__
        self.handed_over = HandedOver()
        self.log_context = LogContext()
        self.contexts = current_contexts()
        #: Those with output to send at the end of this turn.
        self._unsent: list[LoopStream] = []
        super().__init__()

    @override
    def startRunning(self, *args: Any, **kwargs: Any) -> None:
        """As C{PosixReactorBase.startRunning}."""
        self.contexts = current_contexts()
        super().startRunning(*args, **kwargs)

    # Whoever speaks to the reactor instead of the transport is understood, too.

    @override
    def addReader(self, reader: Any) -> None:
        """As C{IReactorFDSet.addReader}."""
        if isinstance(reader, LoopStream) and reader.is_of_loop():
            reader.startReading()
        else:
            super().addReader(reader)

    @override
    def addWriter(self, writer: Any) -> None:
        """As C{IReactorFDSet.addWriter}."""
        if isinstance(writer, LoopStream) and writer.is_of_loop():
            writer.startWriting()
        else:
            super().addWriter(writer)

    @override
    def removeReader(self, reader: Any) -> None:
        """As C{IReactorFDSet.removeReader}."""
        if isinstance(reader, LoopStream):
            reader.is_reading = False
            if reader.is_of_loop():
                reader.stopReading()
                return
        super().removeReader(reader)

    @override
    def removeWriter(self, writer: Any) -> None:
        """As C{IReactorFDSet.removeWriter}."""
        if isinstance(writer, LoopStream) and writer.is_of_loop():
            writer.stopWriting()
        else:
            super().removeWriter(writer)

    def flush_soon(self, stream: LoopStream) -> None:
        """Call C{stream.flush} when this turn has heard all that it can hear."""
        if not self._unsent:
            self._asyncioEventloop.call_soon(self._flush)
        self._unsent.append(stream)

    def _flush(self) -> None:
        streams, self._unsent = self._unsent, []
        for stream in streams:
            stream.flush()

    @override
    def getReaders(self) -> list[Any]:
        """As C{IReactorFDSet.getReaders}."""
        return list({*super().getReaders(), *(each for each in self.streams if each.is_reading)})

    @override
    def getWriters(self) -> list[Any]:
        """As C{IReactorFDSet.getWriters}."""
        return list({*super().getWriters(), *(each for each in self.streams if each.is_writing)})

    @override
    def removeAll(self) -> list[Any]:
        """As C{IReactorFDSet.removeAll}."""
        streams = [each for each in self.streams if each.is_reading or each.is_writing]
        for stream in streams:
            stream.stopReading()
            stream.stopWriting()
        return list({*super().removeAll(), *streams})


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
    def _can_join(self) -> bool:
        takes_descriptors = IFileDescriptorReceiver.providedBy(self.protocol)
        return not takes_descriptors and super()._can_join()

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
