"""
Request handlers: the classes users derive from.

This room owns what a handler has and what its C{setup} and C{finish} do.  It must not
know transports, or whether a reactor, a thread or a child runs it beyond what its own
request shows.

A class whose C{handle} is C{async def} is served on the reactor; one whose C{handle}
is plain is served on a thread or in a child, with a real socket, exactly as
C{socketserver}'s classes of the same names are.
"""

from __future__ import annotations

import socket
import socketserver
from io import BytesIO
from typing import Any, ClassVar

from zope.interface import implementer

from sockserve.interfaces import IRequestHandler

__all__ = ["BaseRequestHandler", "DatagramRequestHandler", "StreamRequestHandler"]


@implementer(IRequestHandler)
class BaseRequestHandler:
    """
    One instance serves one request.

    Unlike C{socketserver.BaseRequestHandler}'s, the constructor only stores; the
    server calls C{setup}, C{handle} and C{finish}.

    @ivar request: a socket (plain C{handle}), a
        L{sockserve.streams.connection.StreamConnection} (C{async def handle}), or for datagrams a
        pair of the data and something with a C{sendto}.
    @ivar client_address: the client's address as a socket gives it.
    @ivar server: the server object.
    """

    def __init__(self, request: Any, client_address: Any, server: Any) -> None:
        self.request = request
        self.client_address = client_address
        self.server = server

    def setup(self) -> Any:
        """Runs first; may be C{async def} when C{handle} is."""

    def handle(self) -> Any:
        """Serve the request.  Override, plain or C{async def}."""

    def finish(self) -> Any:
        """Runs after C{handle}, even if that raised; may be C{async def} when C{handle} is."""


class StreamRequestHandler(BaseRequestHandler):
    """
    Adds C{self.rfile} and C{self.wfile}: awaitable streams
    (L{sockserve.streams.reader.StreamReader}, L{sockserve.streams.writer.StreamWriter}) for a
    coroutine handler, files over the socket for a blocking one.

    @cvar rbufsize: the buffer size of a blocking handler's C{rfile}, as in C{open}.
    @cvar wbufsize: the same of C{wfile}; 0 sends every write at once.
    @cvar timeout: seconds a read may wait for a byte; None for the server's C{idle}
        deadline (coroutine) or for ever (blocking).
    @cvar disable_nagle_algorithm: set TCP_NODELAY.  The server has done so already.
    """

    rbufsize: ClassVar[int] = -1
    wbufsize: ClassVar[int] = 0
    timeout: float | None = None
    disable_nagle_algorithm: bool = False

    rfile: Any
    wfile: Any

    def setup(self) -> Any:
        """Make C{connection}, C{rfile} and C{wfile}."""
        if isinstance(self.request, socket.socket):
            socketserver.StreamRequestHandler.setup(self)  # type: ignore[arg-type]
        else:
            self.connection = self.request
            self.rfile = self.request.rfile
            self.wfile = self.request.wfile
            if self.timeout is not None:
                self.request.settimeout(self.timeout)

    def finish(self) -> Any:
        """Send what C{wfile} holds back."""
        if isinstance(self.request, socket.socket):
            socketserver.StreamRequestHandler.finish(self)  # type: ignore[arg-type]

    async def start_tls(self, context: Any) -> None:
        """L{sockserve.streams.connection.StreamConnection.start_tls} (coroutine handlers)."""
        await self.request.start_tls(context)


class DatagramRequestHandler(BaseRequestHandler):
    """
    Adds C{self.rfile}, the datagram, and C{self.wfile}, whose content is the answer.

    @cvar answer_empty: whether a C{wfile} nothing was written to answers with an empty
        datagram, as the stdlib's does.
    @ivar packet: the datagram's bytes.
    @ivar socket: what answers, with C{sendto}.
    """

    answer_empty: ClassVar[bool] = True

    def setup(self) -> Any:
        """Make C{packet}, C{socket}, C{rfile} and C{wfile}."""
        self.packet, self.socket = self.request
        self.rfile = BytesIO(self.packet)
        self.wfile = BytesIO()

    def finish(self) -> Any:
        """Send the answer."""
        answer = self.wfile.getvalue()
        if answer or self.answer_empty:
            self.socket.sendto(answer, self.client_address)
