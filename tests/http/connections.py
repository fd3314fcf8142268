"""Connections in memory to HTTP handlers of any kind, on a reactor that is stepped."""

import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from sockserve.core.deadlines import Deadlines
from sockserve.core.statistics import RequestRecord
from sockserve.listeners.stream_factory import StreamFactory
from tests.streams.owner import SteppedExecutor
from tests.transports import SteppedReactor

CLIENT = ("192.0.2.1", 50000)
SERVER = ("192.0.2.2", 7000)

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"

#: No deadline but the one a test is about.
NEVER = dict.fromkeys(["handshake", "idle", "header", "body", "body_rate", "write", "drain"])


class _PlainTransport(tcp.Connection):
    """A real socket, whatever its family, with the addresses of a TCP connection."""

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", *CLIENT)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", *SERVER)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """A UNIX socket delays nothing."""


class _WrappedTransport(StringTransport):
    """
    More than a socket.  It ends as TCP does: in the next turn.

    @ivar ended: C{closed} or C{aborted}, once it is, or is about to be.
    """

    ended: str | None = None
    protocol: Any

    def __init__(self, reactor: SteppedReactor) -> None:
        super().__init__(IPv4Address("TCP", *SERVER), IPv4Address("TCP", *CLIENT))
        self._reactor = reactor

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Memory delays nothing."""

    def unregisterProducer(self) -> None:
        """As Twisted's transports, which do not mind when there is none."""
        self.producer = None

    def loseWriteConnection(self) -> None:
        """What was sent has no end of its own."""

    def loseConnection(self) -> None:
        self.end("closed", ConnectionDone())

    def abortConnection(self) -> None:
        self.end("aborted", ConnectionAborted())

    def end(self, how: str, reason: Exception) -> None:
        if self.ended is None:
            self.ended = how
            self._reactor.callLater(0, self.protocol.connectionLost, Failure(reason))


class Server(StreamFactory):
    """
    A server object.

    @ivar raised: what handlers have raised.
    @ivar records: what observers are told of requests.
    @ivar connection: the only one.
    """

    connection: "Connection"

    def __init__(self, handler: Any, **options: Any) -> None:
        super().__init__(handler, **options)
        self.raised: list[BaseException | None] = []
        self.records: list[RequestRecord] = []
        self.observers.append(self.records.append)

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.raised.append(sys.exc_info()[1])


class Connection:
    """
    A client's connection to a handler.

    A blocking one runs when the test says so, on the test's own thread: what the test has
    happen meanwhile, its handler calls.
    """

    def __init__(
        self,
        handler: Any,
        *,
        plain: bool = True,
        executor: Any = None,
        max_body_bytes: int | None = None,
        **deadlines: Any,
    ) -> None:
        """
        @param plain: whether the transport is nothing but a socket, or one in memory with
            something in between.
        @param deadlines: those not given are never.
        """
        self.reactor = SteppedReactor()
        self.executor = executor
        self.server = Server(
            handler,
            reactor=self.reactor,
            deadlines=Deadlines(**(NEVER | deadlines)),
            concurrency=executor,
        )
        self.server.connection = self
        if max_body_bytes is not None:
            self.server.max_body_bytes = max_body_bytes
        self.protocol = self.server.buildProtocol(None)
        self.transport: Any
        self._said = b""
        self._ended = False
        self._client: socket.socket | None = None
        if plain:
            self._socket, self._client = socket.socketpair()
            self._socket.setblocking(False)
            self._client.setblocking(False)
            self.transport = _PlainTransport(self._socket, self.protocol, self.reactor)
            self.transport.connected = True
            self.transport.startReading()
        else:
            self.transport = _WrappedTransport(self.reactor)
            self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)
        self.turn()

    # What the client does

    def send(self, data: bytes) -> None:
        if self._client is None:
            self.protocol.dataReceived(data)
        else:
            self._client.sendall(data)
        self.turn()

    def ask(self, request: bytes = GET) -> None:
        """The client sends a request, and a blocking handler serves it."""
        self.send(request)
        self.executor.step()

    def end(self) -> None:
        """The client ends its side."""
        if self._client is None:
            self.protocol.readConnectionLost()
        else:
            self._client.shutdown(socket.SHUT_WR)
        self.turn()

    def lose(self) -> None:
        """The connection breaks."""
        if self._client is None:
            self.transport.end("lost", ConnectionLost())
        else:
            self.transport.connectionLost(Failure(ConnectionLost()))
        self.turn()

    def _receive(self) -> None:
        if self._client is None:
            self._said = self.transport.value()
            self._ended = self.transport.ended is not None
            return
        try:
            while data := self._client.recv(65536):
                self._said += data
                self.turn()
        except BlockingIOError:
            return
        except ConnectionResetError:
            pass
        self._ended = True

    @property
    def said(self) -> bytes:
        """All that the client has got."""
        self.turn()
        self._receive()
        return self._said

    @property
    def ended(self) -> bool:
        """Whether the client has seen the end of what it gets."""
        self.turn()
        self._receive()
        return self._ended

    def status(self) -> tuple[int, str | None]:
        """Of the first response: its status, and what it says of the connection."""
        head = self.said.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        values = [line[12:] for line in head if line.startswith("Connection: ")]
        return int(head[0].split()[1]), values[0] if values else None

    @property
    def body(self) -> bytes:
        """Of the first response, as it was sent, and what follows."""
        return self.said.partition(b"\r\n\r\n")[2]

    # What the server has come to

    @property
    def is_finished(self) -> bool:
        return bool(self.protocol.is_finished)

    @property
    def raised(self) -> list[type]:
        """The kinds of what handlers have raised."""
        return [type(error) for error in self.server.raised]

    @property
    def expiries(self) -> dict[str, int]:
        return dict(self.server.statistics.expiries)

    # What a test does

    def turn(self) -> None:
        """Let everything happen that can."""
        self.reactor.turn()

    def advance(self, seconds: int) -> None:
        """Second by second, so that what follows from an expiry has its time."""
        for _ in range(seconds):
            self.reactor.advance(1)
            self.turn()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        elif not self.is_finished:
            self.lose()
        self.turn()
        if self._client is not None and not self.is_finished:
            self.lose()
        if not self.is_finished and isinstance(self.executor, SteppedExecutor):
            for _ in list(self.executor.jobs):
                self.executor.step()
        self.turn()


def connections() -> Iterator[Callable[..., Connection]]:
    """Makes connections, and lets go of all they have."""
    made: list[Connection] = []

    def make(*arguments: Any, **options: Any) -> Connection:
        made.append(Connection(*arguments, **options))
        return made[-1]

    yield make
    for connection in made:
        connection.close()
        assert connection.is_finished
        assert connection.server.statistics.active == 0
        assert connection.reactor.readers == connection.reactor.writers == set()
        assert connection.reactor.getDelayedCalls() == []
