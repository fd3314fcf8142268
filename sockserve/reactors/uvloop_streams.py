"""
Streams on uvloop's transports: TCP and UNIX connections of the uvloop reactor.

This room owns when a connection is read and written by libuv, and what Twisted's transports are to
tell of that.  It must not know who runs the loop, nor servers.

Each is Twisted's own transport, whose socket is libuv's from soon after it is connected: bytes come
from libuv to C{dataReceived}, and what is written in one turn of the reactor leaves at its end, in
one piece.  Until then, and from L{LoopStream.leave_loop} on, it is a descriptor like any other.
(reactor thread)
"""

from __future__ import annotations

import socket
import struct
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from twisted.internet import tcp
from twisted.internet.error import ConnectionAborted
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python import context, log
from typing_extensions import override

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Iterable

__all__ = ["HandedOver", "LogContext", "LoopStream", "current_contexts"]

_RESET = struct.pack("ii", 1, 0)


def current_contexts() -> list[Any]:
    """Those of C{twisted.python.context} that the calling thread is in, the innermost last."""
    contexts: list[Any] = context.theContextTracker.currentContext().contexts
    return contexts


class HandedOver:
    """
    What uvloop takes for the socket of each connection: it looks at it once, and closes it when it
    has closed the descriptor by itself.  The connection's own is left alone.

    @ivar sock: the socket that is handed over just now.
    """

    sock: socket.socket

    @property
    def family(self) -> int:
        """Its family."""
        return self.sock.family

    @property
    def type(self) -> int:
        """Its type."""
        return self.sock.type

    def fileno(self) -> int:
        """Its descriptor."""
        return self.sock.fileno()

    def close(self) -> None:
        """It is closed."""


class LogContext:
    """
    What Twisted's log asks while a stream is given what has come: made when it does.

    @ivar stream: the one that is given it.
    """

    stream: LoopStream

    def __getitem__(self, key: object) -> object:
        if key is log.ILogContext:
            return {
                **context.defaultContextDict[log.ILogContext],
                "system": self.stream.logPrefix(),
            }
        raise KeyError(key)


class LoopStream(tcp.Connection):
    """
    A connection of the uvloop reactor, and its own C{asyncio.BufferedProtocol}.

    It is libuv's while C{_uv} is set, and is about to be while C{_opening} is; else it is the
    reactor's C{epoll}'s.

    @ivar is_reading: whether its protocol is given what comes.
    @ivar is_writing: whether there is something to send, or to be done when all is sent.
    """

    #: A L{sockserve.reactors.uvloop_ports.StreamReactor}, which knows streams.
    reactor: Any

    is_reading = False
    is_writing = False
    #: Whether it is to be libuv's as soon as it can be; and is tried to be soon.
    _joins: bool = False
    _join_is_due = False
    _opening: Coroutine[Any, Any, Any] | None = None
    _uv: asyncio.Transport | None = None
    #: Whether the kernel has not taken all that libuv was given.
    _is_congested = False

    # To libuv, and from it

    def _join_soon(self) -> None:
        if not self._join_is_due:
            self._join_is_due = True
            self.reactor.streams.add(self)
            self.reactor._asyncioEventloop.call_soon(self._join)

    def _join(self) -> None:
        """Have libuv read and write it from now on, if its protocol wants it read, and nothing
        waits to be written in the old way."""
        self._join_is_due = False
        if not self.is_reading or self._uv is not None or self._opening is not None:
            return
        if self.fileno() < 0:  # somebody has closed the socket
            return
        if not self._can_join():
            super().startReading()
            return
        super().stopReading()
        self.is_reading = True
        sock = self.socket
        is_tcp = sock.family != socket.AF_UNIX
        no_delay = is_tcp and self.getTcpNoDelay()
        loop = self.reactor._asyncioEventloop
        handed_over: Any = self.reactor.handed_over
        handed_over.sock = sock
        opening = loop.connect_accepted_socket(self._as_protocol, handed_over)
        try:
            waiter: asyncio.Future[None] = opening.send(None)
        except Exception:
            log.err(None, "uvloop does not take a connection, which is read without it")
            self._joins = False
            super().startReading()
            return
        del handed_over.sock
        self._opening = opening
        waiter.add_done_callback(partial(_opened, opening))
        if is_tcp and not no_delay:  # the loop has set it
            self.setTcpNoDelay(False)

    def is_of_loop(self) -> bool:
        """Whether it is libuv's, or is about to be."""
        return self._uv is not None or self._opening is not None

    def _can_join(self) -> bool:
        return self._joins and self.fileno() not in self.reactor._writes

    def _as_protocol(self) -> Any:
        return self

    def connection_made(self, transport: asyncio.Transport) -> None:
        """As C{asyncio.BaseProtocol.connection_made}."""
        if self._opening is None:  # it was lost, or has left
            transport.abort()
            return
        self._opening = None
        self._uv = transport
        transport.set_write_buffer_limits(0)
        if not self.is_reading:  # for libuv would read at once
            joins, self._joins = self._joins, False
            self.leave_loop()
            self._joins = joins
        elif self.is_writing:
            self.reactor.flush_soon(self)

    def leave_loop(self) -> None:
        """
        Have libuv know nothing of the socket from now on: for who reads or writes it by itself.
        The socket object stays the same, and has another descriptor.  There must be nothing that
        the kernel has yet to take.

        @raise OSError: there is no descriptor to be had.
        """
        self._joins = False
        reactor = self.reactor
        if self._uv is None and self._opening is None:
            if not self.is_reading:
                reactor.streams.discard(self)
            return
        # libuv closes its descriptor.  (There is no way to get it back.)
        sock = self.socket
        family, kind, protocol = sock.family, sock.type, sock.proto
        duplicate = sock.dup()
        socket.socket.detach(sock)
        socket.socket.__init__(sock, family, kind, protocol, duplicate.detach())
        sock.setblocking(False)
        uv, self._uv, self._opening = self._uv, None, None
        if uv is not None:
            uv.abort()
        reactor.streams.discard(self)
        if self.is_reading:
            super().startReading()
        if self.is_writing:
            super().startWriting()

    @override
    def _closeSocket(self, orderly: bool) -> None:
        self.reactor.streams.discard(self)
        uv, opening = self._uv, self._opening
        if uv is None and opening is None:
            super()._closeSocket(orderly)
            return
        self._uv = self._opening = None
        sock = self.socket
        try:
            if not orderly:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            elif self._shouldShutdown:
                sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        sock.detach()
        if uv is not None:
            uv.abort()

    # Reading

    @override
    def startReading(self) -> None:
        self.is_reading = True
        if self._uv is not None:
            self._uv.resume_reading()
        elif self._opening is None:
            if self._joins:
                self._join_soon()
            else:
                super().startReading()

    @override
    def stopReading(self) -> None:
        self.is_reading = False
        if self._uv is not None:
            self._uv.pause_reading()
        elif self._opening is None:
            super().stopReading()

    @property
    def get_buffer(self) -> Callable[[int], memoryview]:
        """As C{asyncio.BufferedProtocol.get_buffer}."""
        get_buffer: Callable[[int], memoryview] = self.reactor.get_buffer
        return get_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """As C{asyncio.BufferedProtocol.buffer_updated}."""
        # What log.callWithLogger does, with a fifth of the calls.
        reactor = self.reactor
        contexts = reactor.contexts
        contexts.append(reactor.log_context)
        reactor.log_context.stream = self
        try:
            receive = self.protocol.dataReceived  # which may be an attribute
            receive(reactor.read_buffer[:nbytes].tobytes())
        except BaseException as error:
            log.err()
            self._disconnect(error)
        finally:
            contexts.pop()

    def eof_received(self) -> bool:
        """As C{asyncio.BufferedProtocol.eof_received}."""
        self.is_reading = False
        log.callWithLogger(self, self._disconnect, CONNECTION_DONE, True)
        return True  # else uvloop would end it by itself

    def connection_lost(self, error: Exception | None) -> None:
        """As C{asyncio.BaseProtocol.connection_lost}."""
        if self._uv is not None:
            why = ConnectionAborted() if self._aborting else CONNECTION_LOST
            log.callWithLogger(self, self._disconnect, why)

    def _disconnect(self, why: BaseException, is_read: bool = False) -> None:
        if not self.disconnected:
            self.reactor._disconnectSelectable(self, why, is_read)

    # Writing

    @override
    def write(self, data: bytes) -> None:
        if self._uv is None or self.TLS or type(data) is not bytes:
            super().write(data)
        elif data and self.connected and not self._writeDisconnected:
            # What FileDescriptor.write does.
            self._tempDataBuffer.append(data)
            self._tempDataLen += len(data)
            if self._is_congested or self._tempDataLen > self.bufferSize:
                self._maybePauseProducer()
            if not self.is_writing:
                self.startWriting()

    @override
    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        if self._uv is None or self.TLS:
            super().writeSequence(iovec)
            return
        pieces = list(iovec)
        if any(type(piece) is not bytes for piece in pieces):
            super().writeSequence(pieces)
        else:
            self.write(b"".join(pieces))

    @override
    def startWriting(self) -> None:
        if self._uv is not None:
            if not self.is_writing:
                self.is_writing = True
                if not self._is_congested:
                    self.reactor.flush_soon(self)
        elif self._opening is not None:
            self.is_writing = True
        else:
            super().startWriting()

    @override
    def stopWriting(self) -> None:
        self.is_writing = False
        if self._uv is None and self._opening is None:
            super().stopWriting()
            if self._joins and self.is_reading:
                self._join_soon()

    def flush(self) -> None:
        """Send what was written in this turn."""
        uv = self._uv
        if uv is None or not self.is_writing or self._is_congested or self._aborting:
            return
        pieces = self._tempDataBuffer
        if pieces:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            self._tempDataLen = 0
            uv.write(data)
            if self._is_congested or uv.is_closing():
                return
        self.is_writing = False
        if self._producer_waits() or self.disconnecting or self._writeDisconnecting:
            log.callWithLogger(self, self._all_written)

    def pause_writing(self) -> None:
        """As C{asyncio.BaseProtocol.pause_writing}: some was left."""
        self._is_congested = True

    def resume_writing(self) -> None:
        """As C{asyncio.BaseProtocol.resume_writing}: all was taken."""
        self._is_congested = False
        if self._uv is not None:
            self.is_writing = True
            self.flush()

    def _producer_waits(self) -> bool:
        return self.producer is not None and (not self.streamingProducer or self.producerPaused)

    def _all_written(self) -> None:
        """What C{FileDescriptor.doWrite} does then."""
        why: BaseException | None = None
        try:
            if self._producer_waits():
                self.producerPaused = False
                cast(Any, self.producer).resumeProducing()
            elif self.disconnecting:
                why = self._postLoseConnection()
            elif self._writeDisconnecting:
                self._writeDisconnected = True
                self._closeWriteConnection()
        except BaseException as error:
            log.err()
            why = error
        if why is not None:
            self._disconnect(why)

    @override
    def _isSendBufferFull(self) -> bool:
        if self._uv is None or not self._is_congested:
            return bool(super()._isSendBufferFull())
        waiting = self._tempDataLen + self._uv.get_write_buffer_size()
        return waiting > self.bufferSize


def _opened(opening: Coroutine[Any, Any, Any], waiter: asyncio.Future[None]) -> None:
    """Run C{connect_accepted_socket} to its end: it has made its transport, and called back."""
    try:
        opening.send(None)
    except (StopIteration, RuntimeError):  # the latter if that was aborted meanwhile
        pass
