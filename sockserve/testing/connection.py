"""
A connection in memory, with the very server on its one end that serves real ones.

This room owns the client's end: a test sends, breaks the connection and lets time pass.  It must
not know what the handler speaks, services or options.
"""

from __future__ import annotations

from typing_extensions import override

from sockserve.core.addresses import SocketAddress
from sockserve.core.beginnings import served_on
from sockserve.core.handler_kinds import HandlerKind
from sockserve.core.lifecycle import serve_coroutine
from sockserve.interfaces import Outcome, Phase
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.listeners.stream_protocol import StreamProtocol
from sockserve.streams.channel import Addresses, Channel
from sockserve.streams.coroutine import CoroutineChannel
from sockserve.testing.exchanges import Exchange, Recording
from sockserve.testing.memory import MemoryReactor, ServerTransport

__all__ = ["ConnectionExchange", "MemoryFactory"]


class ConnectionExchange(Exchange):
    """
    A connection to a handler, step by step, on a clock that stands still.

    @ivar clock: the C{Clock} its deadlines run on, and C{self.server.reactor}.
    @ivar done: whether the connection is over.
    @ivar expired: the phase whose deadline passed, or None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = self._reactor = MemoryReactor()

    def _connect(self, factory: MemoryFactory, client_address: SocketAddress) -> None:
        """Have C{factory} serve a connection from C{client_address}."""
        self._factory = factory
        self._protocol: StreamProtocol = factory.buildProtocol(None)
        self._transport = ServerTransport(self, self._reactor, self._protocol, client_address)
        self._protocol.makeConnection(self._transport)
        self._reactor.turn()

    @property
    def done(self) -> bool:
        """Whether the connection is over."""
        self._reactor.turn()  # a test may just have fired what the handler waited for
        return self._protocol.is_finished

    @property
    def expired(self) -> Phase | None:
        """The phase whose deadline passed, or None."""
        return next(iter(self._factory.statistics.expiries), None)

    def receive(self, data: bytes) -> None:
        """The client sends C{data}."""
        if data and not self._transport.disconnecting:
            self._protocol.dataReceived(data)
        self._reactor.turn()

    def end(self) -> None:
        """The client ends its side."""
        if not self._transport.disconnecting:
            self._protocol.readConnectionLost()
        self._reactor.turn()

    def lose(self) -> None:
        """The connection breaks."""
        self._transport.break_off()
        self._reactor.turn()

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self._reactor.advance(seconds)
        self._reactor.turn()

    def take_sent(self) -> bytes:
        """Take what was sent and not taken before, as it was sent."""
        self._reactor.turn()  # as `done` does
        sent = self.sent
        self.output.clear()
        return sent


class MemoryFactory(Recording, StreamFactory):
    """The server object of connections in memory, which records what is called of it."""

    @override
    def make_channel(self, protocol: StreamProtocol, addresses: Addresses) -> Channel:
        if self.kind is HandlerKind.COROUTINE:
            serve = served_on(self.reactor, serve_coroutine)
            channel = _CoroutineChannel(protocol, addresses, serve)
            channel.exchange = self.exchange
            return channel
        return super().make_channel(protocol, addresses)


class _CoroutineChannel(CoroutineChannel):
    """
    A coroutine's channel that records its last error, and has no TLS to start.

    @ivar exchange: where that goes.
    """

    exchange: Exchange

    @override
    def _ended(self, result: Outcome | None, error: BaseException | None) -> None:
        if error is not None:
            self.exchange.error = error
        super()._ended(result, error)

    @override
    async def _start_tls(self, context: object) -> None:
        raise RuntimeError("start_tls: there is no TLS in memory; test that over a real connection")
