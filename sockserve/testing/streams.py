"""
Streams and datagrams: handlers of theirs run without a network.

This room owns the server, and the client, of one such request.  It must not know services,
options or HTTP.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.task import Clock
from typing_extensions import override

from sockserve.core.addresses import SocketAddress
from sockserve.core.deadlines import Deadlines
from sockserve.core.handler_kinds import handler_kind
from sockserve.core.lifecycle import serve, serve_coroutine, verify_and_process
from sockserve.core.tasks import Task
from sockserve.listeners.server import RequestServer
from sockserve.testing.connection import ConnectionExchange, MemoryFactory
from sockserve.testing.exchanges import CLIENT_ADDRESS, Exchange, InlineExecutor, Recording

__all__ = ["StreamExchange", "run_datagram", "run_stream"]

#: How long the client's threads are waited for.  They end when the handler's end is closed,
#: unless a handler has detached its socket and keeps it open.
_CLIENT_SECONDS = 10.0


def run_stream(
    handler: Callable[..., Any],
    data: bytes = b"",
    *,
    client_address: SocketAddress = CLIENT_ADDRESS,
    attributes: Mapping[str, object] | None = None,
) -> Exchange:
    """
    Serve one connection whose client sends C{data}, ends its side and reads until the
    server closes.

    A blocking handler gets a real socket, and its client two threads; a coroutine must not
    wait for anything but its streams (L{StreamExchange} is for those that do).

    @param handler: a handler class of sockserve's or the stdlib's, or any callable that
        makes a handler.
    @param client_address: the client's address, as a socket gives it.
    @param attributes: attributes of the server the handler sees.
    @raise AssertionError: the coroutine did not finish.
    """
    if handler_kind(handler).is_coroutine:
        exchange = StreamExchange(handler, client_address=client_address, attributes=attributes)
        exchange.receive(data)
        exchange.end()
        if not exchange.done:
            raise AssertionError("the handler still waits, though its client has ended its side")
        return exchange
    result = Exchange()
    ours, theirs = socket.socketpair()

    def send() -> None:
        """Send all, on a thread of its own, so that neither side's buffer is a limit."""
        try:
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def receive() -> None:
        """Read until the server closes, on another thread."""
        try:
            while piece := theirs.recv(65536):
                result.output.append(piece)
        except OSError:
            pass

    client = [threading.Thread(target=target, daemon=True) for target in (send, receive)]
    for thread in client:
        thread.start()
    with theirs:
        with ours:
            verify_and_process(_OneRequestServer(handler, result, attributes), ours, client_address)
        for thread in client:
            thread.join(_CLIENT_SECONDS)
    return result


def run_datagram(
    handler: Callable[..., Any],
    data: bytes,
    *,
    client_address: SocketAddress | None = CLIENT_ADDRESS,
    attributes: Mapping[str, object] | None = None,
) -> Exchange:
    """
    Serve one datagram.

    @param handler: as L{run_stream}'s, as are C{client_address} and C{attributes}.
    @return: with the answers in L{Exchange.datagrams}.
    @raise AssertionError: the coroutine did not finish.
    """
    result = Exchange()
    server = _OneRequestServer(handler, result, attributes)
    server.is_datagram = True
    verify_and_process(server, (data, _MemoryReply(result)), client_address)
    if server.task is not None:
        raise AssertionError("the handler still waits")
    return result


class StreamExchange(ConnectionExchange):
    """A connection to a coroutine handler of streams."""

    def __init__(
        self,
        handler: Callable[..., Any],
        *,
        client_address: SocketAddress = CLIENT_ADDRESS,
        deadlines: Deadlines | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> None:
        """
        @param client_address: as a socket gives it.
        @param deadlines: by default L{Deadlines}'s own.
        @param attributes: attributes of the server the handler sees.
        @raise ValueError: the handler is not a coroutine handler.
        """
        super().__init__()
        if not handler_kind(handler).is_coroutine:
            raise ValueError("step by step goes with async def handle only; use run_stream")
        factory = MemoryFactory(handler, self, attributes, reactor=self.clock, deadlines=deadlines)
        self._connect(factory, client_address)


class _InlineServer(RequestServer):
    """
    A server object that serves a blocking stream handler or a datagram where it is called.

    @ivar exchange: where a coroutine's last error goes.
    @ivar is_datagram: whether its request is one.
    @ivar task: the coroutine that waits, or None.
    """

    exchange: Exchange
    is_datagram = False
    task: Task | None = None

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        if self.kind.is_coroutine:
            self.task = Task(serve_coroutine(self, request, client_address), self._ended)
            self.task.start()
        else:
            serve(self, request, client_address)

    @override
    def shutdown_request(self, request: Any) -> None:
        if self.is_datagram:
            self.close_request(request)
        else:
            super().shutdown_request(request)

    @override
    def close_request(self, request: Any) -> None:
        if not self.is_datagram:
            super().close_request(request)

    def _ended(self, result: object, error: BaseException | None) -> None:
        self.task = None
        if error is not None:
            self.exchange.error = error


class _OneRequestServer(Recording, _InlineServer):
    """The same, which records what is called of it."""

    def __init__(
        self,
        handler: Callable[..., Any],
        exchange: Exchange,
        attributes: Mapping[str, object] | None,
    ) -> None:
        concurrency = None if handler_kind(handler).is_coroutine else InlineExecutor()
        super().__init__(handler, exchange, attributes, reactor=Clock(), concurrency=concurrency)


class _MemoryReply:
    """The second half of a datagram request: it records what is sent with it."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def sendto(self, data: bytes, address: SocketAddress | None) -> int:
        """
        Record one datagram and where it goes, unless that is nowhere: a UNIX client's without a
        name.  Gives its size in bytes.
        """
        if address:
            self._exchange.datagrams.append((bytes(data), address))
            self._exchange.output.append(bytes(data))
        return len(data)
