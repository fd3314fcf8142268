"""A reactor that does not turn: the log says where it is."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.integration.servers import ROOT, child, connect, read_line

pytestmark = pytest.mark.usefixtures("no_leaks")

WHERE = "tcp:0:interface=127.0.0.1"


@pytest.mark.parametrize("how", ["wait", "compute"])
def test_a_stretch_is_logged_once_with_the_culprit(how: str) -> None:
    with child(WHERE, "Stuck") as server:
        with connect(server.address) as client:
            for _ in range(2):
                client.sendall(b"%s 4\n" % how.encode())
                read_line(client)
        log = server.log()
    assert len(re.findall(r"the reactor has not turned for [123]\.\d s", log)) == 2, log
    assert len(re.findall(rf"handlers\.py\", line \d+, in {how}\n", log)) == 2, log


def test_what_takes_less_is_not_logged() -> None:
    with child(WHERE, "Stuck") as server:
        with connect(server.address) as client:
            for _ in range(5):
                client.sendall(b"wait 0.1\n")
                read_line(client)
        assert "not turned" not in server.log()


def test_a_process_that_was_stopped_is_not_logged() -> None:
    """As by a debugger, a shell, or a machine that sleeps."""
    with child(WHERE, "Stuck") as server:
        with connect(server.address) as client:
            client.sendall(b"wait 0\n")
            read_line(client)
            for _ in range(3):
                os.kill(server.pid, signal.SIGSTOP)
                time.sleep(1.5)
                os.kill(server.pid, signal.SIGCONT)
                client.sendall(b"wait 0\n")
                read_line(client)
        assert "not turned" not in server.log()


DROP_IN = """
import logging, socket, threading
from sockserve.socketserver import ThreadingTCPServer
from tests.integration.handlers import Stuck

server = ThreadingTCPServer(("127.0.0.1", 0), Stuck)
thread = threading.Thread(target=server.serve_forever)
thread.start()
with socket.create_connection(server.server_address) as client:
    client.sendall(b"wait 2.5\\n")
    client.recv(100)
server.shutdown()
thread.join()
server.server_close()
print([thread.name for thread in threading.enumerate()])
"""


def test_a_drop_in_server_logs_in_the_standard_librarys_way() -> None:
    command = [sys.executable, "-c", DROP_IN]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "in wait\n" in done.stderr
    assert done.stderr.count("the reactor has not turned for") == 1
    assert done.stdout == "['MainThread', 'sockserve reactor']\n"
