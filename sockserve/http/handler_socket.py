"""
The handler's socket: the connection as a blocking HTTP handler has it.

This room owns a socket whose output is held back until the handler must have the connection
itself.  It must not know who has that meanwhile. (handler's thread, but where a method says
otherwise)
"""

from __future__ import annotations

import functools
import io
import socket
import time
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from typing_extensions import override

from sockserve.http.h1.head import RequestHead
from sockserve.http.responses import BlockingResponse
from sockserve.http.spool import StockInput
from sockserve.sockets.pumped_socket import URGENT, PumpedSocket

if TYPE_CHECKING:
    from _typeshed import MaybeNone, ReadableBuffer, WriteableBuffer

__all__ = ["ConnectionBody", "HandlerRequest", "OutputMode", "RequestSocket", "ResponseFile"]


class OutputMode(Enum):
    """The stand of a connection with its handler: the way that its output takes."""

    #: The reactor has it, and what the handler sends is held back for it to send.
    BUFFERED = "buffered"
    #: The reactor has it, and sends what the handler has sent as fast as the client takes it.
    STREAMED = "streamed"
    #: The handler has it.
    DIRECT = "direct"
    #: It has ended, or is about to.
    CLOSED = "closed"


def _directly(name: str) -> Callable[..., Any]:
    """A socket's method that needs the connection itself."""
    method = getattr(socket.socket, name)

    @functools.wraps(method)
    def call(self: RequestSocket, *arguments: Any, **words: Any) -> Any:
        if self.buffered is not None:
            self.buffered.acquire_connection()
        return method(self, *arguments, **words)

    return call


class HandlerRequest(Protocol):
    """The request that a socket is for, as the socket knows it."""

    mode: OutputMode
    head: RequestHead
    rfile: Any

    def buffer(self, data: ReadableBuffer) -> bool:
        """Hold C{data} back for the reactor to send; false if the caller must send it itself."""

    def acquire_connection(self) -> None:
        """Have the connection itself."""

    def client_is_gone(self) -> bool:
        """Whether the client has broken the connection."""


class ConnectionBody(socket.SocketIO):
    """
    The bytes that follow a request's head on its connection.

    @param received: how many bytes of it have come already.
    @param patience: how long the next may be waited for: given how many have come, and how
        many seconds they have been waited for.  None is for ever.
    @param late: makes the error when it has taken too long.
    @param cut_off: gives the error where that is no end of the client's.
    """

    def __init__(
        self,
        request: RequestSocket,
        received: int,
        patience: Callable[[int, float], float | None],
        late: Callable[[], TimeoutError],
        cut_off: Callable[[], OSError | None],
    ) -> None:
        super().__init__(request, "r")
        request._io_refs += 1  # type: ignore[attr-defined]  # as socket.makefile has it
        self._request = request
        self._received = received
        self._patience = patience
        self._late = late
        self._cut_off = cut_off
        self._waited = 0.0

    @override
    def readinto(self, buffer: WriteableBuffer) -> int | None:
        """As C{socket.SocketIO}'s."""
        own, seconds = self._request.gettimeout(), self._patience(self._received, self._waited)
        began = time.monotonic()
        try:
            if seconds is None or (own is not None and own <= seconds):
                count = super().readinto(buffer)
            else:
                count = self._read_within(seconds, buffer)
        finally:
            self._waited += time.monotonic() - began
        if count == 0 and (error := self._cut_off()) is not None:
            raise error
        self._received += count or 0
        return count

    def _read_within(self, seconds: float, buffer: WriteableBuffer) -> int | None:
        own = self._request.gettimeout()
        self._request.settimeout(max(seconds, 0.001))  # 0 would be not to wait at all
        try:
            return super().readinto(buffer)
        except TimeoutError:
            raise self._late() from None
        finally:
            self._request.settimeout(own)


class RequestSocket(PumpedSocket):
    """
    The connection as a blocking HTTP handler has it: a real socket, whose C{makefile}
    gives the buffered request.

    What is sent through it is held back, up to the high watermark, until the handler has
    finished or a moment has passed: the reactor sends it then, with what others have sent.  Any
    other use, such as its descriptor's, makes it an ordinary blocking socket first.

    @ivar buffered: the request it is for; None when it is for none.
    @ivar response: the response to that.
    """

    __slots__ = ("_timeout", "buffered", "response")

    buffered: HandlerRequest | None
    response: BlockingResponse | MaybeNone
    _timeout: float | None

    def __init__(
        self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
    ) -> None:
        self.buffered = None
        self._timeout = None
        super().__init__(family, type, proto, fileno)

    @override
    def makefile(self, mode: str = "r", *arguments: Any, **words: Any) -> Any:
        if self.buffered is not None and mode == "rb":
            rfile = self.buffered.rfile
            if isinstance(rfile, StockInput):
                rfile.hold_open(self)
            return rfile
        return super().makefile(mode, *arguments, **words)  # type: ignore[call-overload]

    @override
    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        buffered = self.buffered
        if buffered is not None and not flags:  # as _hold_back, without another call
            if not buffered.buffer(data):
                super().sendall(data)
        elif not self._hold_back(data, flags):
            super().sendall(data, flags)

    @override
    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        if not self._hold_back(data, flags):
            return super().send(data, flags)
        return memoryview(data).nbytes

    def _hold_back(self, data: ReadableBuffer, flags: int) -> bool:
        """Hold C{data} back; false if it is to be sent here, as what is urgent is."""
        if self.buffered is None:
            return False
        if flags & URGENT:
            self.buffered.acquire_connection()
            return False
        return self.buffered.buffer(data)

    @override
    def settimeout(self, value: float | None) -> None:
        if value is not None:
            value = float(value)
            if value < 0:
                raise ValueError("Timeout value out of range")
        self._timeout = value
        if self.buffered is not None and self.buffered.mode is OutputMode.DIRECT:
            super().settimeout(value)

    @override
    def setblocking(self, flag: bool) -> None:
        self.settimeout(None if flag else 0.0)

    @override
    def gettimeout(self) -> float | None:
        return self._timeout

    @override
    def getblocking(self) -> bool:
        return self._timeout != 0.0

    def client_is_gone(self) -> bool | None:
        """Whether the client has broken the connection; None when the socket itself tells."""
        return None if self.buffered is None else self.buffered.client_is_gone()

    def is_closed(self) -> bool:
        """Whether the handler has closed it, be it that a file keeps the descriptor open."""
        return bool(self._closed)  # type: ignore[attr-defined]

    def become_blocking(self) -> None:
        """Be in truth what L{gettimeout} says: it is the handler's now. (reactor thread)"""
        super().settimeout(self._timeout)

    def become_nonblocking(self) -> None:
        """Never block: it is the reactor's again. (reactor thread)"""
        super().setblocking(False)

    @override
    def close(self) -> None:
        # One that is closed already, perhaps because the client has gone, is closed for good
        # with the last of its files, and nobody needs to be asked.
        if self.buffered is not None and not self.is_closed():
            self.buffered.acquire_connection()
        super().close()

    detach = _directly("detach")
    fileno = _directly("fileno")
    recv = _directly("recv")
    recv_into = _directly("recv_into")
    recvfrom = _directly("recvfrom")
    recvfrom_into = _directly("recvfrom_into")
    recvmsg = _directly("recvmsg")
    recvmsg_into = _directly("recvmsg_into")
    sendmsg = _directly("sendmsg")
    sendto = _directly("sendto")
    shutdown = _directly("shutdown")

    @property
    def head(self) -> RequestHead:
        """The request's head."""
        assert self.buffered is not None
        return self.buffered.head

    @property
    def rfile(self) -> Any:
        """The request's body."""
        assert self.buffered is not None
        return self.buffered.rfile

    @property
    def wfile(self) -> ResponseFile:
        """Where the response's body is written."""
        return ResponseFile(self.response)


class ResponseFile(io.BufferedIOBase):
    """
    The C{wfile} of a blocking handler.  Writes send at once, when the handler has named a
    C{Content-Length} or the body has outgrown the high watermark; L{flush} sends in any
    case.
    """

    def __init__(self, response: BlockingResponse) -> None:
        self._response = response

    @override
    def writable(self) -> bool:
        return True

    @override
    def write(self, data: ReadableBuffer) -> int:
        return self._response.write(data)

    @override
    def flush(self) -> None:
        if not self.closed:
            self._response.flush()

    def __del__(self) -> None:
        # io's own would close it with its handler, and so flush what the response holds
        # back: there would never be a Content-Length.
        pass
