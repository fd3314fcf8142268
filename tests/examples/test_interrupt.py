"""The terminals of C{examples/interrupt}: a long command, and clients who interrupt it."""

import os
import pty
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.examples.running import PATIENCE_SECONDS, Example
from tests.tools import need_tool

IAC, IP, DM = b"\xff", b"\xf4", b"\xf2"


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Example]:
    example = Example("howto/urgent-data.md", tmp_path)
    try:
        example.wait_for(": serving ")
        yield example
    finally:
        example.end()


def read_until(client: socket.socket, words: bytes) -> bytes:
    said = b""
    while not said.endswith(words):
        piece = client.recv(1)
        assert piece, said
        said += piece
    return said


def test_a_synch_interrupts_a_command(terminals: Example) -> None:
    with socket.create_connection(("127.0.0.1", terminals.port), PATIENCE_SECONDS) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        client.sendall(b"count\r\n")
        read_until(client, b"\r\n2\r\n")
        client.sendall(b"typed ahead\r\n" + IAC + IP + IAC)
        client.send(DM, socket.MSG_OOB)
        client.sendall(b"hello\r\n")
        said = read_until(client, IAC + DM + b"interrupted\r\n")
        assert said.count(b"\r\n") < 100
        assert read_until(client, b"\r\n") == b"there is no hello\r\n"
        client.sendall(b"quit\r\n")
        assert client.recv(1) == b""


def test_one_that_comes_while_no_command_runs_is_no_harm(terminals: Example) -> None:
    with socket.create_connection(("127.0.0.1", terminals.port), PATIENCE_SECONDS) as client:
        read_until(client, b"quit\r\n")
        client.sendall(b"half a li" + IAC + IP + IAC)
        client.send(DM, socket.MSG_OOB)
        client.sendall(b"hello\r\n")
        assert read_until(client, b"\r\n") == b"there is no hello\r\n"


def test_a_program_may_mark_the_byte_before_the_data_mark(terminals: Example) -> None:
    """As those do that descend from BSD's."""
    with socket.create_connection(("127.0.0.1", terminals.port), PATIENCE_SECONDS) as client:
        read_until(client, b"quit\r\n")
        client.sendall(IAC + IP)
        client.send(IAC, socket.MSG_OOB)
        client.sendall(DM + b"hello\r\n")
        assert read_until(client, b"\r\n") == b"there is no hello\r\n"


class Terminal:
    """A program on a terminal of its own, as who types there sees it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def type(self, keys: bytes) -> None:
        os.write(self._descriptor, keys)

    def read_until(self, words: bytes) -> bytes:
        said = b""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not said.endswith(words):
            left = max(0.0, give_up - time.monotonic())
            ready, _, _ = select.select([self._descriptor], [], [], left)
            assert ready, said
            assert left, said
            said += os.read(self._descriptor, 1)
        return said


@contextmanager
def running(*command: str) -> Iterator[tuple[subprocess.Popen[bytes], Terminal]]:
    """A program on a terminal."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        ) as process:
            try:
                yield process, Terminal(ours)
            finally:
                process.kill()
    finally:
        os.close(ours)
        os.close(theirs)


def test_telnet_interrupts_a_command(terminals: Example) -> None:
    """By the keys that the page names."""
    with running(need_tool("telnet"), "127.0.0.1", str(terminals.port)) as (process, terminal):
        terminal.read_until(b"quit\r\n")
        terminal.type(b"count\r")
        terminal.read_until(b"\r\n3\r\n")
        terminal.type(b"\x1d")
        terminal.read_until(b"telnet> ")
        terminal.type(b"send ip\r")
        terminal.read_until(b"send ip\r\n")
        # What it shows again tells that it takes keys for itself again, Ctrl-] among them.
        terminal.read_until(b"\r\n")
        terminal.type(b"\x1d")
        terminal.read_until(b"telnet> ")
        terminal.type(b"send synch\r")
        terminal.read_until(b"\r\ninterrupted\r\n")
        terminal.type(b"hello\r")
        terminal.read_until(b"there is no hello\r\n")
        terminal.type(b"quit\r")
        terminal.read_until(b"closed by foreign host.\r\n")
        assert process.wait(PATIENCE_SECONDS) in (0, 1)
