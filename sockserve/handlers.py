"""
Request handlers: the base classes of users' handlers for streams and datagrams.

This room owns the attributes of a handler, and what its C{setup} and C{finish} do.  It must
not know transports, or more than its own request shows of whether a reactor, a thread or a
child runs it.

A class whose C{handle} is C{async def} is served on the reactor; one whose C{handle}
is plain is served on a thread or in a child, with a real socket, exactly as
C{socketserver}'s classes of the same names are.  Two base classes of one behaviour tell type
checkers which of both it is.
(handler's thread)
"""

from __future__ import annotations

import socket
import socketserver
from collections.abc import Callable
from io import BufferedIOBase, BytesIO
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol

from typing_extensions import TypeVar, override
from zope.interface import implementer

from sockserve.core.addresses import SocketAddress
from sockserve.interfaces import IRequestHandler
from sockserve.streams.connection import StreamConnection
from sockserve.streams.reader import StreamReader
from sockserve.streams.writer import StreamWriter

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "BaseRequestHandler",
    "BlockingStreamRequestHandler",
    "DatagramRequestHandler",
    "DatagramSocket",
    "HandlerServer",
    "RequestT",
    "ServerT",
    "StreamRequestHandler",
]


class HandlerServer(Protocol):
    """
    A server object as every handler knows it, be it sockserve's or C{socketserver}'s.

    @ivar server_address: the address listened on, as C{socket.getsockname()} gives it.
    @ivar RequestHandlerClass: what makes a handler of a request, an address and the server.
    """

    server_address: Any
    RequestHandlerClass: Callable[..., Any]


class DatagramSocket(Protocol):
    """A socket as the handler of a datagram knows it, whatever it is."""

    def sendto(self, data: ReadableBuffer, address: Any, /) -> int:
        """Send a datagram; return its length."""


RequestT = TypeVar("RequestT", default=StreamConnection)
ServerT = TypeVar("ServerT", default=HandlerServer)
ReaderT = TypeVar("ReaderT", default=StreamReader)
WriterT = TypeVar("WriterT", default=StreamWriter)


@implementer(IRequestHandler)
class BaseRequestHandler(Generic[RequestT, ServerT]):
    """
    The base class of all handlers: one instance serves one request.

    Unlike C{socketserver.BaseRequestHandler}'s, the constructor only stores; the
    server calls C{setup}, C{handle} and C{finish}.

    For type checkers it is generic: in what C{request} is, and in the server object's class.

    @ivar request: a socket (plain C{handle}), a
        L{sockserve.streams.connection.StreamConnection} (C{async def handle}), or for datagrams a
        pair: the packet's bytes, and an object whose C{sendto} answers.
    @ivar client_address: the client's address as a socket gives it.
    @ivar server: the server object.
    @cvar handler_cancellation: whether a coroutine is cancelled where it waits (L{ClientGone
        <sockserve.interfaces.ClientGone>}) when its client has gone, and whether a blocking
        handler of HTTP does not begin when its client has closed a UNIX connection meanwhile.
        False for work that must not be cut.  (aiohttp's word.)
    @cvar allow_half_close: whether a client that has ended its output still waits for an answer,
        so that it has gone only when a write fails.  False where no client does that: then it
        has gone at once.  (Node's C{allowHalfOpen}.)
    """

    handler_cancellation: ClassVar[bool] = True
    allow_half_close: ClassVar[bool] = True

    def __init__(self, request: Any, client_address: Any, server: Any) -> None:
        self.request: RequestT = request
        self.client_address: SocketAddress = client_address
        self.server: ServerT = server

    @classmethod
    def prepare_server(cls, server: Any) -> None:
        """
        Get ready for the requests of a server object; called once for each that has handlers of
        this class, when it is made.  By default does nothing.

        @raise ConfigurationError: it cannot have these.
        """

    def setup(self) -> Any:
        """
        Prepare; called first.  May be C{async def} when C{handle} is.  If it raises, neither
        C{handle} nor C{finish} is called.
        """

    def handle(self) -> Any:
        """Serve the request; override it, plain or C{async def}.  By default does nothing."""

    def finish(self) -> Any:
        """
        Clean up; called after C{handle}, even if that raised.  May be C{async def} when
        C{handle} is.
        """


class StreamRequestHandler(
    BaseRequestHandler[RequestT, ServerT], Generic[ServerT, RequestT, ReaderT, WriterT]
):
    """
    A handler of one stream connection, with C{self.rfile} and C{self.wfile}.

    They are awaitable streams (L{sockserve.streams.reader.StreamReader},
    L{sockserve.streams.writer.StreamWriter}) in a coroutine handler, and files over the
    socket in a blocking one.

    For type checkers it is a coroutine handler, and generic in the server object's class.  A
    blocking one derives from L{BlockingStreamRequestHandler}.

    @ivar rfile: the stream to read from.
    @ivar wfile: the stream to write to.
    @ivar connection: the same as C{self.request}.
    @cvar rbufsize: the buffer size of a blocking handler's C{rfile} in bytes, as C{open}
        takes it.
    @cvar wbufsize: the buffer size of its C{wfile}; 0 sends every write at once.
    @cvar timeout: seconds a read may wait for a byte; None for the server's C{idle}
        deadline (coroutine) or for ever (blocking).
    @cvar disable_nagle_algorithm: set TCP_NODELAY.  The server has done so already.
    """

    rbufsize: ClassVar[int] = -1
    wbufsize: ClassVar[int] = 0
    timeout: float | None = None
    disable_nagle_algorithm: bool = False

    connection: RequestT
    rfile: ReaderT
    wfile: WriterT

    @override
    def setup(self) -> Any:
        """Make C{connection}, C{rfile} and C{wfile}."""
        request: Any = self.request
        if isinstance(request, socket.socket):
            socketserver.StreamRequestHandler.setup(self)  # type: ignore[arg-type]
        else:
            self.connection = request
            self.rfile = request.rfile
            self.wfile = request.wfile
            if self.timeout is not None:
                request.settimeout(self.timeout)

    @override
    def finish(self) -> Any:
        """Send what is left in C{wfile}'s buffer, and close both files of a blocking handler."""
        if isinstance(self.request, socket.socket):
            socketserver.StreamRequestHandler.finish(self)  # type: ignore[arg-type]

    async def start_tls(self: BaseRequestHandler[StreamConnection, Any], context: object) -> None:
        """
        Speak TLS from here on (coroutine handlers only).

        @param context: as L{sockserve.streams.connection.StreamConnection.start_tls}, which
            also says what is raised.
        """
        await self.request.start_tls(context)


class BlockingStreamRequestHandler(
    StreamRequestHandler[ServerT, socket.socket, BufferedIOBase, BufferedIOBase]
):
    """
    A handler of one stream connection whose C{handle} is plain.  It does as its base class does,
    and tells type checkers that C{request} is a socket, C{rfile} and C{wfile} are files.
    """


class DatagramRequestHandler(BaseRequestHandler[tuple[bytes, DatagramSocket], ServerT]):
    """
    A handler of one datagram, with C{self.rfile} and C{self.wfile}.

    @cvar answer_empty: whether to send an empty datagram when nothing was written to
        C{wfile}, as the stdlib does.
    @ivar packet: the datagram's bytes.
    @ivar socket: the object whose C{sendto} sends further answers.
    @ivar rfile: the datagram as a file.
    @ivar wfile: a file whose content C{finish} sends as the answer.
    """

    answer_empty: ClassVar[bool] = True

    packet: bytes
    socket: DatagramSocket
    rfile: BytesIO
    wfile: BytesIO

    @override
    def setup(self) -> Any:
        """Make C{packet}, C{socket}, C{rfile} and C{wfile}."""
        self.packet, self.socket = self.request
        self.rfile = BytesIO(self.packet)
        self.wfile = BytesIO()

    @override
    def finish(self) -> Any:
        """
        Send the answer; none to a client without an address, an unnamed UNIX socket.

        @raise OSError: the system refuses it, for example as too long.
        """
        answer = self.wfile.getvalue()
        if self.client_address and (answer or self.answer_empty):
            self.socket.sendto(answer, self.client_address)
