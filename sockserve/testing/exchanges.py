"""
Exchanges: records of what a handler did.

This room owns what the kits for streams and for HTTP share: the record of what was called
and sent, and an executor that runs blocking handlers at once.  It must not know connections.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, succeed
from typing_extensions import override
from zope.interface import implementer

from sockserve.core.addresses import SocketAddress
from sockserve.executors.base import serve_logged
from sockserve.interfaces import IExecutor, IJob
from sockserve.listeners.server import RequestServer

__all__ = [
    "CLIENT_ADDRESS",
    "LIFECYCLE",
    "SERVER_ADDRESS",
    "Exchange",
    "InlineExecutor",
    "Recording",
    "traced",
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

#: The addresses of the client, unless a test gives another, and of the server.
CLIENT_ADDRESS = ("127.0.0.1", 54321)
SERVER_ADDRESS = ("127.0.0.1", 12345)


@implementer(IExecutor)
class InlineExecutor:
    """An L{IExecutor} that runs each blocking handler at once, where it is called."""

    limit = 1
    running = 0
    waiting = 0

    def run(self, job: IJob) -> None:
        """Serve the job before returning."""
        self.running += 1
        job.started()
        outcome = serve_logged(job)
        self.running -= 1
        job.ended(outcome)

    def withdraw(self, job: IJob) -> bool:
        """Never: no job ever waits."""
        return False

    def kill(self, job: IJob) -> bool:
        """Never: no job runs beside its caller."""
        return False

    def stop(self) -> Deferred[None]:
        """Fire at once: there are no workers."""
        return succeed(None)


class Exchange:
    """
    The record of what a handler did.

    @ivar trace: the names of the server's and the handler's methods, as they were
        called.  (The handler's three only when it is a class or a partial of one.)
    @ivar error: what the handler raised, or None.
    @ivar output: what was sent to the client, in the pieces it was sent in.
    @ivar datagrams: the datagrams sent, each with its destination.
    """

    def __init__(self) -> None:
        self.trace: list[str] = []
        self.error: BaseException | None = None
        self.output: list[bytes] = []
        self.datagrams: list[tuple[bytes, SocketAddress]] = []

    @property
    def sent(self) -> bytes:
        """Everything sent to the client, as one piece."""
        return b"".join(self.output)


def traced(handler: Callable[..., Any], trace: list[str]) -> Callable[..., Any]:
    """
    A handler whose three methods are recorded in C{trace}, when it is a class or a partial
    of one; else C{handler} itself.

    The methods are recorded when they are looked up on an instance.  They remain what they
    are, so that the handler is still of the same kind.
    """
    if isinstance(handler, functools.partial):
        inner = traced(handler.func, trace)
        return functools.partial(inner, *handler.args, **handler.keywords)
    if not isinstance(handler, type):
        return handler
    cls: Any = handler  # no type checker can know a class of the user's

    class Traced(cls):  # type: ignore[misc]
        @override
        def __getattribute__(self, name: str) -> Any:
            if name in ("setup", "handle", "finish"):
                trace.append(name)
            return super().__getattribute__(name)

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(Traced, name, getattr(cls, name))
    return Traced


class Recording(RequestServer):
    """
    The recording half of a server object in memory: a class derives from this first, and
    then from the server that it records.

    @ivar exchange: the record.
    """

    def __init__(
        self,
        handler: Callable[..., Any],
        exchange: Exchange,
        attributes: Mapping[str, object] | None,
        **options: Any,
    ) -> None:
        """
        @param exchange: the record.
        @param attributes: attributes of the server the handler sees.
        @param options: as L{RequestServer.__init__}.
        """
        self.exchange = exchange
        super().__init__(traced(handler, exchange.trace), **options)
        self.server_address = SERVER_ADDRESS
        for name, value in (attributes or {}).items():
            setattr(self, name, value)

    @override
    def verify_request(self, request: Any, client_address: Any) -> bool:
        self.exchange.trace.append("verify_request")
        return super().verify_request(request, client_address)

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        self.exchange.trace.append("process_request")
        super().process_request(request, client_address)

    @override
    def finish_request(self, request: Any, client_address: Any) -> Any:
        self.exchange.trace.append("finish_request")
        return super().finish_request(request, client_address)

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        self.exchange.trace.append("handle_error")
        self.exchange.error = sys.exc_info()[1]

    @override
    def shutdown_request(self, request: Any) -> None:
        self.exchange.trace.append("shutdown_request")
        super().shutdown_request(request)

    @override
    def close_request(self, request: Any) -> None:
        self.exchange.trace.append("close_request")
        super().close_request(request)
