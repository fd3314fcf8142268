"""The system's clock is set while requests are served: no deadline notices."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.servers import PATIENCE_SECONDS, ROOT, connect, read_all
from tests.tools import need_tool

pytestmark = pytest.mark.usefixtures("no_leaks")

HEADER_SECONDS = 2

OWN = f"""
import sys
from twisted.scripts.twistd import run
sys.argv[1:] = [
    "-n", "--pidfile=", "sockserve", "--listen", "fd:" + sys.argv[1],
    "--handler", "tests.integration.handlers:CoroutineHTTPParent",
    "--timeout", "header={HEADER_SECONDS}", "--timeout", "handle=60",
]
run()
"""

#: A part of somebody else's application, whose reactor is left as it is.
COMPOSED = """
import sys, time
from twisted.internet import {reactor}reactor as chosen
chosen.install()
from twisted.internet import reactor
from sockserve import Deadlines
from sockserve.service import RequestService
from tests.integration.handlers import CoroutineHTTPParent
deadlines = Deadlines(header={seconds}, handle=60)
RequestService.from_description(
    reactor, "fd:" + sys.argv[1], CoroutineHTTPParent, deadlines=deadlines
).startService()
assert reactor.seconds is time.time
reactor.run()
"""

DROP_IN = f"""
import socket, sys
from sockserve import Deadlines
from sockserve.http.server import ThreadingHTTPServer
from tests.integration.handlers import StockHTTPParent
class Server(ThreadingHTTPServer):
    deadlines = Deadlines(header={HEADER_SECONDS}, handle=60)
server = Server(("127.0.0.1", 0), StockHTTPParent, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=int(sys.argv[1]))
server.serve_forever()
"""

PROGRAMS = {"twistd": OWN, "drop-in": DROP_IN}
for name in ("epoll", "poll", "select", "asyncio"):
    PROGRAMS[name] = COMPOSED.format(reactor=name, seconds=HEADER_SECONDS)


class FakedClock:
    """The system's clock as a program sees it; that which only goes on is left alone."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0)

    def set(self, ahead: int) -> None:
        """Have it ahead of the real one by so many seconds."""
        written = self._file.with_name("clock to be")
        written.write_text(f"{ahead:+d}\n")
        written.replace(self._file)  # whoever looks finds one or the other

    def environment(self) -> dict[str, str]:
        faketime = need_tool("faketime")
        told = subprocess.run(
            [faketime, "now", "printenv", "LD_PRELOAD"], capture_output=True, text=True, check=True
        )
        return {
            "LD_PRELOAD": told.stdout.strip(),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }


@contextmanager
def program(name: str, clock: FakedClock) -> Iterator[tuple[str, int]]:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        subprocess.Popen(
            [sys.executable, "-c", PROGRAMS[name], str(listening.fileno())],
            env={**os.environ, **clock.environment()},
            cwd=ROOT,
            pass_fds=[listening.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        try:
            yield listening.getsockname()
        finally:
            process.kill()


def be_served(address: tuple[str, int]) -> None:
    """Send a request, and wait for its answer."""
    with connect(address) as client:
        client.sendall(b"GET /nothing HTTP/1.0\r\n\r\n")
        assert read_all(client).startswith(b"HTTP/1.")


def seconds_until_late(address: tuple[str, int], clock: FakedClock, ahead: int) -> float:
    """How long a client is waited for that sends half a head, and then the clock is set."""
    with connect(address) as client:
        client.settimeout(PATIENCE_SECONDS)
        began = time.monotonic()
        client.sendall(b"GET / HT")
        be_served(address)  # so the half has been heard, which came before this
        clock.set(ahead)
        answer = read_all(client)
        assert answer.startswith(b"HTTP/1.1 408 "), answer
        return time.monotonic() - began


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_step_moves_no_deadline(name: str, tmp_path: Path) -> None:
    clock = FakedClock(tmp_path)
    with program(name, clock) as address:
        be_served(address)  # waits until it serves
        for ahead in (-3600, 7200, 0):
            taken = seconds_until_late(address, clock, ahead)
            # As ever, and not an hour late; a step back may be noticed a moment late.
            assert HEADER_SECONDS - 0.1 < taken < PATIENCE_SECONDS / 2
