"""The terminals of C{examples/interrupt}: a long command, and clients who interrupt it."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.running import PATIENCE_SECONDS, Example

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
