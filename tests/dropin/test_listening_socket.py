"""What becomes of the listening socket of a server object, beside the children it has forked."""

import os
import socketserver
import subprocess
import sys
import threading
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


def test_a_child_that_has_not_let_go_is_waited_for(server: socketserver.ForkingTCPServer) -> None:
    with child(server.fileno()) as held, child() as other:
        server.active_children = {held.pid, other.pid}
        path = f"/proc/{held.pid}/fd/{server.fileno()}"
        waiting = threading.Thread(target=wait_for_children, args=(server, 60.0))
        waiting.start()
        waiting.join(0.05)
        assert os.path.exists(path)
        assert waiting.is_alive()
        assert held.stdin is not None
        held.stdin.write(b"x")
        held.stdin.flush()
        waiting.join()
        assert not os.path.exists(path)


def test_a_child_that_never_does_is_not_waited_for_for_ever(
    server: socketserver.ForkingTCPServer,
) -> None:
    with child(server.fileno()) as held:
        server.active_children = {held.pid}
        wait_for_children(server, 0)
        assert os.path.exists(f"/proc/{held.pid}/fd/{server.fileno()}")
