"""What tests of blocking handlers share: handlers, an executor that is stepped, and the ends."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from twisted.logger import capturedLogs, formatEvent

from sockserve.executors.base import serve_logged
from sockserve.http import HTTPRequestHandler
from tests.http.connections import Connection
from tests.streams.owner import SteppedExecutor


class Echo(HTTPRequestHandler):
    """Answers with the body it has read."""

    def do_POST(self) -> None:
        body = self.rfile.read()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<" + body + b">")

    do_GET = do_POST


class StockEcho(BaseHTTPRequestHandler):
    """The same, as one of the standard library's."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer(self, b"<" + body + b">")

    do_GET = do_POST

    def log_message(self, *arguments: Any) -> None:
        pass


# What handlers do


def begin(handler: Any, length: int) -> None:
    """Send the head of an answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()


def answer(handler: Any, body: bytes = b"answer") -> None:
    begin(handler, len(body))
    handler.wfile.write(body)


def answer_now(handler: Any) -> None:
    """Do not have the answer held back."""
    answer(handler)
    handler.wfile.flush()


# What tests do, and see


class Executor(SteppedExecutor):
    """
    One in which a test finds what waits.

    @ivar limit: with 0 all jobs wait.
    """

    def begin(self) -> None:
        """There is a place for what waits."""
        self.limit = 1
        for job in self.jobs:
            job.started()

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """The handler runs on a thread meanwhile, which the end waits for, and finishes then."""
        (job,) = self.jobs
        outcomes: list[Any] = []
        thread = threading.Thread(target=lambda: outcomes.append(serve_logged(job)), daemon=True)
        thread.start()
        yield
        thread.join(10)
        assert outcomes, "the thread is held"
        self.jobs.remove(job)
        job.ended(outcomes[0])

    def refuse(self, error: OSError) -> None:
        """There is a place, but no thread."""
        self.begin()
        self.jobs.pop().failed(error)


both = pytest.mark.parametrize("plain", [True, False], ids=["lent", "pumped"])
each_kind = pytest.mark.parametrize("handler", [Echo, StockEcho])
owning_or_not = pytest.mark.parametrize("owns", [True, False], ids=["direct", "held"])

#: Makes a connection: C{serve} in L{tests.http.conftest}.
Serve = Callable[..., Connection]


def assert_last(client: Connection) -> None:
    """The connection has ended with what was answered, and what followed is not served."""
    assert client.ended
    assert client.executor.jobs == []


def assert_refused(client: Connection, status: int) -> None:
    """No handler serves the request, and the connection ends with its client."""
    assert client.status() == (status, "close")
    assert client.executor.jobs == []
    client.end()
    assert client.ended


@contextmanager
def no_more_descriptors() -> Iterator[list[str]]:
    """Nothing can be opened; gives what is logged of that, at the end."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(2)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    lines: list[str] = []
    try:
        with capturedLogs() as logged:
            yield lines
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    lines += map(formatEvent, logged)


def step_logged(client: Connection) -> str:
    """The handler runs; gives what is logged of that."""
    with capturedLogs() as logged:
        client.executor.step()
    return "\n".join(map(formatEvent, logged))
