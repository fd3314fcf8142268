"""What becomes of the listening socket of a server object, beside the children it has forked."""

import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from sockserve.dropin.listening_socket import wait_for_children

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def server() -> Iterator[socketserver.ForkingTCPServer]:
    address = ("127.0.0.1", 0)
    with socketserver.ForkingTCPServer(address, socketserver.BaseRequestHandler) as server:
        yield server


def child(*descriptors: int) -> "subprocess.Popen[bytes]":
    """One that keeps these until it is spoken to, and lives on until its input ends."""
    code = f"import os; os.read(0, 1); [os.close(each) for each in {descriptors}]; os.read(0, 1)"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, pass_fds=descriptors
    )


def test_a_child_that_has_not_let_go_is_waited_for(
    server: socketserver.ForkingTCPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)  # however busy the machine is
    with child(server.fileno()) as held, child() as other:
        assert held.stdin is not None
        server.active_children = {held.pid, other.pid}
        waiting = threading.Thread(target=wait_for_children, args=(server,))
        waiting.start()
        path = f"/proc/{held.pid}/fd/{server.fileno()}"
        assert os.path.exists(path)
        assert waiting.is_alive()
        held.stdin.write(b"x")
        held.stdin.flush()
        waiting.join(15)
        assert not os.path.exists(path)
        held.stdin.close()
        assert other.stdin is not None
        other.stdin.close()


def test_a_child_that_never_does_is_not_waited_for_for_ever(
    server: socketserver.ForkingTCPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0, 0.5, 2.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    with child(server.fileno()) as held:
        assert held.stdin is not None
        server.active_children = {held.pid}
        wait_for_children(server)
        assert list(times) == []
        held.stdin.close()


def test_children_of_a_server_that_does_not_fork_are_none() -> None:
    address = ("127.0.0.1", 0)
    with socketserver.TCPServer(address, socketserver.BaseRequestHandler) as server:
        wait_for_children(server)
