"""A reactor whose turns a test makes, beside threads that run as they like."""

import queue
import socket
import socketserver
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.testing import MemoryReactorClock

from tests.patience import PATIENCE_SECONDS


class SteppedReactor(MemoryReactorClock):
    """
    A reactor in memory that runs on the test's thread.

    @ivar from_threads: calls that threads have asked for, and that are not made yet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.running = True
        self.from_threads: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

    def callFromThread(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        self.from_threads.put(partial(function, *args, **kwargs))

    def run_until(self, condition: Callable[[], object]) -> None:
        """Make the calls that are due, and those of threads, until C{condition} holds."""
        self.advance(0)
        while not condition():
            self.from_threads.get(timeout=PATIENCE_SECONDS)()
            self.advance(0)


class Server(socketserver.ThreadingTCPServer):
    """A server that has never listened; it notes what handlers raise."""

    def __init__(self, handler: Any) -> None:
        super().__init__(("127.0.0.1", 0), handler, bind_and_activate=False)
        self.errors: list[Any] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        import sys

        self.errors.append((client_address, sys.exc_info()[1]))


class Noting(socketserver.BaseRequestHandler):
    """Notes its request."""

    def handle(self) -> None:
        self.server.requests.append(self.request)  # type: ignore[attr-defined]


class Bytes(socketserver.ThreadingMixIn, socketserver.BaseServer):
    """
    A server that listens on one end of a socketpair, and takes a byte for a request.

    @ivar near: the end that it listens on.
    @ivar far: the other end.
    @ivar requests: what its handlers have noted.
    @ivar closed: called when it is closed.
    @ivar client_address: whom requests are from.
    """

    closed: Callable[[], object] = staticmethod(lambda: None)
    client_address: Any = "client"

    def __init__(self) -> None:
        super().__init__("memory", Noting)
        self.near, self.far = socket.socketpair()
        self.requests: list[Any] = []

    def fileno(self) -> int:
        return self.near.fileno()

    def get_request(self) -> Any:
        return self.near.recv(1), self.client_address

    def server_close(self) -> None:
        super().server_close()
        self.near.close()
        self.far.close()
        self.closed()
