"""
What the tests of the drop-in modules share: the standard library's modules and ours, a loop on
a thread, programs in processes of their own.
"""

import functools
import http.server
import os
import socketserver
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

import sockserve.http.server
import sockserve.socketserver
from tests.integration.servers import PATIENCE_SECONDS, ROOT, in_thread

#: What a program in a process of its own may take.
PROGRAM_SECONDS = 60.0


class Modules(NamedTuple):
    """The two modules, from one hand."""

    socketserver: Any
    http: Any


STDLIB = Modules(socketserver, http.server)
OURS = Modules(sockserve.socketserver, sockserve.http.server)

#: Runs a test on the standard library's modules, which says what is right, and on ours.
BOTH = pytest.mark.parametrize("modules", [STDLIB, OURS], ids=["stdlib", "sockserve"])

#: The same for a program.
PACKAGES = pytest.mark.parametrize("package", ["", "sockserve."], ids=["stdlib", "sockserve"])


def blocking(test: Callable[..., None]) -> Callable[..., Any]:
    """A test that blocks, beside the reactor, which serves."""

    @functools.wraps(test)
    async def run(*arguments: Any, **words: Any) -> None:
        await in_thread(functools.partial(test, *arguments, **words))

    return run


@contextmanager
def looping(server: Any, poll_interval: float = 0.01) -> Iterator[threading.Thread]:
    """Have C{serve_forever} run on a thread of its own, which is given; closes the server."""
    thread = threading.Thread(target=server.serve_forever, args=(poll_interval,))
    thread.start()
    try:
        yield thread
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def eventually(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for what only shows from outside when it has happened.  Blocks."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not come true within {seconds} s"
        time.sleep(0.01)


_PREAMBLE = """
import http.client, os, select, signal, socket, sys, threading, time
import {package}socketserver as socketserver
import {package}http.server as http_server

class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)

class Web(http_server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *arguments):
        pass

def connect(server):
    return socket.create_connection(server.server_address, 15)

def say(server, line=b"x\\n"):
    with connect(server) as client:
        client.sendall(line)
        return client.makefile("rb").readline().decode().strip()

def say_on(client, line=b"x\\n"):
    client.sendall(line)
    return client.recv(100).decode().strip()

def background(server, **words):
    thread = threading.Thread(target=server.serve_forever, kwargs=words)
    thread.start()
    return thread
"""


def run_program(script: str, package: str = "sockserve.", stderr: str | None = "") -> list[str]:
    """
    The words a program prints.  It has no reactor of its own and must end by itself, well.

    @param package: whose modules it has: the standard library's are in C{""}.
    @param stderr: what it must say on standard error; None for whatever.
    """
    ran = subprocess.run(
        [sys.executable, "-c", _PREAMBLE.format(package=package) + textwrap.dedent(script)],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "ignore::DeprecationWarning"},  # fork with threads
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECONDS,
        check=False,
    )
    if stderr is not None:
        assert ran.stderr == stderr
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()
