"""
Testing: run request handlers without a network, for users' own tests.

This room owns memory stand-ins for connections and the recording of what was called.
It must not know services or options.

    from sockserve.testing import run_stream

    def test_echo():
        exchange = run_stream(Echo, b"one\\ntwo\\n")
        assert exchange.sent == b"one\\ntwo\\n"
        assert exchange.trace == LIFECYCLE
"""

from __future__ import annotations

import functools
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from typing_extensions import override
from zope.interface import implementer

from sockserve.concurrency import serve_guarded
from sockserve.deadlines import Deadlines, DeadlineTimer
from sockserve.interfaces import DeadlineExpired, IConcurrency, IJob, Phase
from sockserve.lifecycle import is_coroutine_handler, offer, serve, serve_coroutine
from sockserve.readers import StreamReader
from sockserve.servers import RequestServer
from sockserve.streams import StreamConnection
from sockserve.tasks import Task
from sockserve.writers import StreamWriter

__all__ = [
    "LIFECYCLE",
    "Exchange",
    "InlineConcurrency",
    "StreamExchange",
    "run_datagram",
    "run_stream",
]

#: The trace of a request that nothing went wrong with.
LIFECYCLE = [
    "verify_request",
    "process_request",
    "finish_request",
    "setup",
    "handle",
    "finish",
    "shutdown_request",
    "close_request",
]

_CLIENT_ADDRESS = ("127.0.0.1", 54321)
_SERVER_ADDRESS = ("127.0.0.1", 12345)

#: The client's threads end when the handler's end is closed; one that was detached and
#: kept open is not waited for longer.
_CLIENT_SECONDS = 10.0


@implementer(IConcurrency)
class InlineConcurrency:
    """Runs blocking handlers where they are, at once; a memory L{IConcurrency}."""

    limit = 1
    running = 0
    waiting = 0

    def run(self, job: IJob) -> None:
        """Serve the job before returning."""
        self.running += 1
        job.started()
        outcome = serve_guarded(job)
        self.running -= 1
        job.ended(outcome)

    def withdraw(self, job: IJob) -> bool:
        """Nothing ever waits."""
        return False

    def kill(self, job: IJob) -> bool:
        """Nothing runs that could be killed."""
        return False

    def stop(self) -> Deferred[None]:
        """Nothing is kept."""
        return succeed(None)


class Exchange:
    """
    What a handler did.

    @ivar trace: the names of the server's and the handler's methods, as they were
        called.  (The handler's three only when it is a class or a partial of one.)
    @ivar error: what the handler raised, or None.
    """

    def __init__(self) -> None:
        self.trace: list[str] = []
        self.error: BaseException | None = None
        self._output: list[bytes] = []
        self._datagrams: list[tuple[bytes, Any]] = []

    @property
    def sent(self) -> bytes:
        """Everything sent to the client, as one piece."""
        return b"".join(self._output)

    @property
    def datagrams(self) -> list[tuple[bytes, Any]]:
        """The datagrams sent, each with its destination."""
        return self._datagrams


def run_stream(
    handler: Callable[..., Any],
    data: bytes = b"",
    *,
    client_address: Any = _CLIENT_ADDRESS,
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
    if is_coroutine_handler(handler):
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
                result._output.append(piece)
        except OSError:
            pass

    client = [threading.Thread(target=target, daemon=True) for target in (send, receive)]
    for thread in client:
        thread.start()
    with theirs:
        with ours:
            offer(_MemoryServer(handler, result, attributes), ours, client_address)
        for thread in client:
            thread.join(_CLIENT_SECONDS)
    return result


def run_datagram(
    handler: Callable[..., Any],
    data: bytes,
    *,
    client_address: Any = _CLIENT_ADDRESS,
    attributes: Mapping[str, Any] | None = None,
) -> Exchange:
    """
    Serve one datagram; its answers are in L{Exchange.datagrams}.

    @raise AssertionError: a coroutine handler did not come to its end.
    """
    result = Exchange()
    server = _MemoryServer(handler, result, attributes)

    server.datagrams = True
    offer(server, (data, _MemoryAnswer(result)), client_address)
    if server.task is not None:
        raise AssertionError("the handler still waits")
    return result


class StreamExchange(Exchange):
    """
    A connection to a coroutine handler, step by step, on a clock that stands still.

    @ivar clock: the L{Clock} its deadlines run on.
    @ivar done: whether the request is over.
    @ivar expired: the phase whose deadline passed, or None.
    """

    def __init__(
        self,
        handler: Callable[..., Any],
        *,
        client_address: Any = _CLIENT_ADDRESS,
        deadlines: Deadlines | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """
        @param deadlines: by default L{Deadlines}'s own.
        @raise ValueError: the handler is not a coroutine handler.
        """
        super().__init__()
        if not is_coroutine_handler(handler):
            raise ValueError("step by step goes with async def handle only; use run_stream")
        self.clock = Clock()
        self.done = False
        self.expired: Phase | None = None
        self._timer = DeadlineTimer(self.clock, self._passed)
        deadlines = Deadlines() if deadlines is None else deadlines
        self._transport = transport = _MemoryTransport(self)
        self._reader = StreamReader(transport, deadlines, self._timer)
        self._writer = StreamWriter(transport, False, deadlines, self._timer)
        request = StreamConnection(
            transport,
            self._reader,
            self._writer,
            (client_address, _SERVER_ADDRESS),
            self._closed,
            _no_tls,
        )
        self._server = _MemoryServer(handler, self, attributes)
        self._timer.arm(Phase.HANDLE, deadlines.handle)
        self._timer.arm(Phase.LIFETIME, deadlines.lifetime)
        offer(self._server, request, client_address)

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
        self._writer.fail(BrokenPipeError("the connection broke"))

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    def take_sent(self) -> bytes:
        """What was sent since the last time, and forget it."""
        sent = self.sent
        self._output.clear()
        return sent

    def _passed(self, phase: Phase) -> None:
        if not self._reader.passed(phase):
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


class _MemoryServer(RequestServer):
    """Serves one request at once and records what is called."""

    datagrams = False
    task: Task | None = None

    def __init__(
        self, handler: Callable[..., Any], result: Exchange, attributes: Mapping[str, Any] | None
    ) -> None:
        self._result = result
        concurrency = None if is_coroutine_handler(handler) else InlineConcurrency()
        super().__init__(_traced(handler, result.trace), reactor=Clock(), concurrency=concurrency)
        self.server_address = _SERVER_ADDRESS
        for name, value in (attributes or {}).items():
            setattr(self, name, value)

    @override
    def verify_request(self, request: Any, client_address: Any) -> bool:
        self._result.trace.append("verify_request")
        return super().verify_request(request, client_address)

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        self._result.trace.append("process_request")
        if self.coroutine:
            writer = None if self.datagrams else request.wfile
            self.task = Task(serve_coroutine(self, request, client_address), self._ended, writer)
            self.task.start()
        else:
            serve(self, request, client_address)

    @override
    def finish_request(self, request: Any, client_address: Any) -> Any:
        self._result.trace.append("finish_request")
        return super().finish_request(request, client_address)

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        self._result.trace.append("handle_error")
        self._result.error = sys.exc_info()[1]

    @override
    def shutdown_request(self, request: Any) -> None:
        self._result.trace.append("shutdown_request")
        if self.datagrams:
            self.close_request(request)
        else:
            super().shutdown_request(request)

    @override
    def close_request(self, request: Any) -> None:
        self._result.trace.append("close_request")
        if not self.datagrams:
            super().close_request(request)

    def _ended(self, result: Any, error: BaseException | None) -> None:
        self.task = None
        if error is not None:
            self._result.error = error


def _traced(handler: Callable[..., Any], trace: list[str]) -> Callable[..., Any]:
    """C{handler} with its three methods recorded, when it is a class or a partial of one."""
    if isinstance(handler, functools.partial):
        inner = _traced(handler.func, trace)
        return functools.partial(inner, *handler.args, **handler.keywords)
    cls: Any = handler
    if not isinstance(cls, type):
        return handler

    def recorded(name: str) -> Callable[..., Any]:
        original = getattr(cls, name)

        def method(self: Any) -> Any:
            trace.append(name)
            return original(self)

        async def coroutine_method(self: Any) -> Any:
            trace.append(name)
            return await original(self)

        chosen = coroutine_method if is_coroutine_handler(cls) and name == "handle" else method
        return functools.wraps(original)(chosen)

    methods = {name: recorded(name) for name in ("setup", "handle", "finish") if hasattr(cls, name)}
    return type(cls.__name__, (cls,), {**methods, "__qualname__": cls.__qualname__})


class _MemoryAnswer:
    """Where a datagram handler's answers go."""

    def __init__(self, result: Exchange) -> None:
        self._result = result

    def sendto(self, data: bytes, address: Any) -> int:
        self._result._datagrams.append((bytes(data), address))
        self._result._output.append(bytes(data))
        return len(data)


class _MemoryTransport:
    """Where a coroutine's output goes."""

    def __init__(self, result: Exchange) -> None:
        self._result = result

    def write(self, data: bytes) -> None:
        self._result._output.append(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Memory is never full."""

    def unregisterProducer(self) -> None:
        """Memory is never full."""

    def pauseProducing(self) -> None:
        """The test sends when it likes."""

    def resumeProducing(self) -> None:
        """The test sends when it likes."""

    def loseWriteConnection(self) -> None:
        """The end of the output is the end of what is recorded."""


def _no_tls(context: Any) -> Deferred[None]:
    raise RuntimeError("start_tls: there is no TLS in memory; test that over a real connection")
