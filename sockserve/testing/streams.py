"""
Testing handlers of streams and datagrams, without a network.

This room owns the server, and the client, of one such request.  It must not know services,
options or HTTP.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from typing_extensions import override

from sockserve.core.deadlines import Deadlines, DeadlineTimer
from sockserve.core.handler_kinds import handler_kind
from sockserve.core.lifecycle import serve, serve_coroutine, verify_and_process
from sockserve.core.tasks import Task
from sockserve.interfaces import DeadlineExpired, Phase
from sockserve.listeners.server import RequestServer
from sockserve.streams.connection import StreamConnection
from sockserve.streams.reader import StreamReader
from sockserve.streams.writer import StreamWriter
from sockserve.testing.exchanges import (
    CLIENT_ADDRESS,
    SERVER_ADDRESS,
    Exchange,
    InlineExecutor,
    MemoryTransport,
    Recording,
)

__all__ = ["StreamExchange", "run_datagram", "run_stream"]

#: The client's threads end when the handler's end is closed; one that was detached and
#: kept open is not waited for longer.
_CLIENT_SECONDS = 10.0


def run_stream(
    handler: Callable[..., Any],
    data: bytes = b"",
    *,
    client_address: Any = CLIENT_ADDRESS,
    attributes: Mapping[str, Any] | None = None,
) -> Exchange:
    """
    Serve one connection whose client sends C{data}, ends its side and reads until the
    server closes.

    A blocking handler gets a real socket, and its client two threads; a coroutine must not
    wait for anything but its streams (L{StreamExchange} is for those that do).

    @param handler: a handler class of sockserve's or the stdlib's, or any callable that
        makes a handler.
    @param attributes: attributes of the server the handler sees.
    @raise AssertionError: the coroutine did not come to its end.
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
        """Runs on a thread of its own, so that neither side's buffer is a limit."""
        try:
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def receive() -> None:
        """Likewise."""
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
            verify_and_process(_MemoryServer(handler, result, attributes), ours, client_address)
        for thread in client:
            thread.join(_CLIENT_SECONDS)
    return result


def run_datagram(
    handler: Callable[..., Any],
    data: bytes,
    *,
    client_address: Any = CLIENT_ADDRESS,
    attributes: Mapping[str, Any] | None = None,
) -> Exchange:
    """
    Serve one datagram; its answers are in L{Exchange.datagrams}.

    @raise AssertionError: a coroutine handler did not come to its end.
    """
    result = Exchange()
    server = _MemoryServer(handler, result, attributes)

    server.datagrams = True
    verify_and_process(server, (data, _MemoryAnswer(result)), client_address)
    if server.task is not None:
        raise AssertionError("the handler still waits")
    return result


class StreamExchange(Exchange):
    """
    A connection to a coroutine handler, step by step, on a clock that stands still.

    @ivar clock: the C{Clock} its deadlines run on.
    @ivar done: whether the request is over.
    @ivar expired: the phase whose deadline passed, or None.
    """

    def __init__(
        self,
        handler: Callable[..., Any],
        *,
        client_address: Any = CLIENT_ADDRESS,
        deadlines: Deadlines | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """
        @param deadlines: by default L{Deadlines}'s own.
        @raise ValueError: the handler is not a coroutine handler.
        """
        super().__init__()
        if not handler_kind(handler).is_coroutine:
            raise ValueError("step by step goes with async def handle only; use run_stream")
        self.clock = Clock()
        self.done = False
        self.expired: Phase | None = None
        self._timer = DeadlineTimer(self.clock, self._deadline_passed)
        deadlines = Deadlines() if deadlines is None else deadlines
        self._transport = transport = MemoryTransport(self)
        self._reader = StreamReader(transport, deadlines, self._timer)
        self._writer = StreamWriter(transport, False, deadlines, self._timer)
        request = StreamConnection(
            transport,
            self._reader,
            self._writer,
            (client_address, SERVER_ADDRESS),
            self._closed,
            _no_tls,
        )
        self._server = _MemoryServer(handler, self, attributes)
        self._timer.arm(Phase.HANDLE, deadlines.handle)
        self._timer.arm(Phase.LIFETIME, deadlines.lifetime)
        verify_and_process(self._server, request, client_address)

    def receive(self, data: bytes) -> None:
        """The client sends C{data}."""
        if data:
            self._reader.feed(data)

    def end(self) -> None:
        """The client ends its side."""
        self._reader.feed_eof()

    def lose(self) -> None:
        """The connection breaks."""
        self._reader.fail(ConnectionResetError("the connection broke"))
        self._writer.discard(BrokenPipeError("the connection broke"))

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    def take_sent(self) -> bytes:
        """What was sent since the last time, and forget it."""
        sent = self.sent
        self.output.clear()
        return sent

    def _deadline_passed(self, phase: Phase) -> None:
        if not self._reader.deadline_applies(phase):
            return
        self.expired = phase
        error = DeadlineExpired(phase)
        if phase in (Phase.HANDLE, Phase.LIFETIME) and self._server.task is not None:
            self._server.task.cancel(error)
        self._reader.fail(error)

    def _closed(self) -> None:
        self._writer.close()
        self._timer.stop()
        self.done = True


class _OneRequest(RequestServer):
    """Serves one request at once."""

    exchange: Exchange
    datagrams = False
    task: Task | None = None

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        if self.kind.is_coroutine:
            writer = None if self.datagrams else request.wfile
            self.task = Task(serve_coroutine(self, request, client_address), self._ended, writer)
            self.task.start()
        else:
            serve(self, request, client_address)

    @override
    def shutdown_request(self, request: Any) -> None:
        if self.datagrams:
            self.close_request(request)
        else:
            super().shutdown_request(request)

    @override
    def close_request(self, request: Any) -> None:
        if not self.datagrams:
            super().close_request(request)

    def _ended(self, result: Any, error: BaseException | None) -> None:
        self.task = None
        if error is not None:
            self.exchange.error = error


class _MemoryServer(Recording, _OneRequest):
    """The same, recorded."""

    def __init__(
        self, handler: Callable[..., Any], exchange: Exchange, attributes: Mapping[str, Any] | None
    ) -> None:
        concurrency = None if handler_kind(handler).is_coroutine else InlineExecutor()
        super().__init__(handler, exchange, attributes, reactor=Clock(), concurrency=concurrency)


class _MemoryAnswer:
    """Where a datagram handler's answers go."""

    def __init__(self, result: Exchange) -> None:
        self._result = result

    def sendto(self, data: bytes, address: Any) -> int:
        self._result._datagrams.append((bytes(data), address))
        self._result.output.append(bytes(data))
        return len(data)


def _no_tls(context: Any) -> Deferred[None]:
    raise RuntimeError("start_tls: there is no TLS in memory; test that over a real connection")
