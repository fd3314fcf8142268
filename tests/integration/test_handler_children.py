"""Children that handlers fork: they are no servers, and end with their part in the handler."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.servers import PATIENCE_SECONDS, Child, child, connect, read_all
from tests.integration.socketservers import eventually
from tests.integration.test_children import sockets
from tests.processes import children_of

pytestmark = pytest.mark.usefixtures("no_leaks")

STREAMS = ["BlockingParent", "CoroutineParent", "StockHTTPParent", "BlockingHTTPParent"]
STREAMS += ["CoroutineHTTPParent", "WaitingParent", "WaitingHTTPParent"]
DATAGRAMS = ["DatagramParent", "CoroutineDatagramParent"]


@contextmanager
def asked(name: str, word: str, *options: str) -> Iterator[Child]:
    """A server whose handler has been asked to do something with processes."""
    is_datagram = name in DATAGRAMS
    where = "udp:0:interface=127.0.0.1" if is_datagram else "tcp:0:interface=127.0.0.1"
    request = b"GET /%s HTTP/1.0\r\n\r\n" % word.encode()
    with child(where, name, *options) as server:
        if is_datagram:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(request, server.address)
                yield server
        else:
            with connect(server.address) as client:
                client.sendall(request)
                yield server


def pid_of_child(server: Child) -> int:
    """The child that the handler has forked."""
    server.wait_for_log("child is ")
    found = re.search(r"child is (\d+)\n", server._heard)
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("name", STREAMS + DATAGRAMS)
@pytest.mark.parametrize(("word", "status"), [("return", 0), ("raise", 1)])
def test_a_child_that_comes_back_ends(name: str, word: str, status: int) -> None:
    with asked(name, word) as server:
        server.wait_for_log(f"child ended with {status}\n")
        assert children_of(server.pid) == set()


@pytest.mark.parametrize("name", ["BlockingParent", "StockHTTPParent", "CoroutineParent"])
def test_a_child_that_exits_ends(name: str) -> None:
    with asked(name, "exit") as server:
        server.wait_for_log("child ended with ")
        assert children_of(server.pid) == set()


@pytest.mark.parametrize("name", STREAMS + DATAGRAMS)
def test_a_child_is_ended_by_the_usual_signals(name: str) -> None:
    """The reactor's own handlers would do nothing where no reactor runs."""
    with asked(name, "stay") as server:
        os.kill(pid_of_child(server), signal.SIGTERM)
        server.wait_for_log(f"child ended with {-signal.SIGTERM}\n")


@pytest.mark.parametrize("name", STREAMS)
def test_a_child_does_not_listen(name: str) -> None:
    """Its server can be started again while it lives."""
    with asked(name, "stay") as server:
        pid = pid_of_child(server)
        (listening,) = _listening(server.address[1])
        assert listening in sockets(server.pid)
        eventually(lambda: listening not in sockets(pid))  # it may not have run yet
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("name", STREAMS + DATAGRAMS)
def test_multiprocessing_works(name: str) -> None:
    with asked(name, "processes") as server:
        server.wait_for_log(f"processes: 3 {-signal.SIGTERM} [1, 2]\n")


def test_a_child_of_a_child_ends() -> None:
    with asked("BlockingParent", "return", "concurrency=fork") as server:
        server.wait_for_log("child ended with 0\n")


def _listening(port: int) -> set[str]:
    """The inodes of the sockets that listen on a port."""
    hexadecimal = f":{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {line[9] for line in lines if line[1].endswith(hexadecimal) and line[3] == "0A"}


DROP_IN = """
import os, sys, threading, signal
from sockserve import socketserver
from sockserve.http import server as http_server
from tests.integration import handlers

handler = getattr(handlers, sys.argv[1])
class Server({package}.{server}):
    def verify_request(self, request, client_address):
        print("verified", flush=True)
        return True
server = Server(("127.0.0.1", 0), handler)
print(server.server_address[1], flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.read(0, 1)  # sys.stdin has a lock, which a child would not get
server.shutdown()
server.server_close()
"""


THREADING = [
    ("BlockingParent", "socketserver.ThreadingTCPServer"),
    ("StockHTTPParent", "http_server.ThreadingHTTPServer"),
    ("CoroutineParent", "socketserver.ThreadingTCPServer"),
    ("CoroutineHTTPParent", "http_server.ThreadingHTTPServer"),
]
SERIAL = [
    ("BlockingParent", "socketserver.TCPServer"),
    ("StockHTTPParent", "socketserver.TCPServer"),
    ("StockHTTPParent", "http_server.HTTPServer"),
]


@contextmanager
def drop_in_asked(name: str, server: str, word: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A drop-in server, and its port, whose handler has been asked to do something."""
    package, _, cls = server.partition(".")
    with subprocess.Popen(
        [sys.executable, "-c", DROP_IN.format(package=package, server=cls), name],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    ) as program:
        assert program.stdout is not None
        # With a child that has not ended.
        patience = threading.Timer(PATIENCE_SECONDS, os.killpg, (program.pid, signal.SIGKILL))
        patience.start()
        port = int(program.stdout.readline())
        with connect(("127.0.0.1", port)) as client:
            client.sendall(b"GET /%s HTTP/1.0\r\n\r\n" % word.encode())
            yield port, program
        output, _ = program.communicate()
        patience.cancel()
        patience.join()
        assert output == "verified\n"  # and not a second time, by a copy of the server


@pytest.mark.parametrize(("name", "server"), THREADING + SERIAL)
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("return", "child ended with 0"),
        ("raise", "child ended with 1"),
        ("exit", "child ended with "),
        ("processes", "processes: 3 -15 [1, 2]"),
    ],
)
def test_a_drop_in_servers_child_ends(name: str, server: str, word: str, said: str) -> None:
    with drop_in_asked(name, server, word) as (_, program):
        assert program.stderr is not None
        assert any(said in line for line in program.stderr)


@pytest.mark.parametrize(("name", "server"), THREADING + SERIAL)
def test_a_drop_in_servers_child_does_not_listen(name: str, server: str) -> None:
    with drop_in_asked(name, server, "stay") as (port, program):
        assert program.stderr is not None
        found = next(filter(None, (re.search(r"child is (\d+)", line) for line in program.stderr)))
        pid = int(found[1])
        (listening,) = _listening(port)
        assert listening in sockets(program.pid)
        eventually(lambda: listening not in sockets(pid))  # it may not have run yet
        os.kill(pid, signal.SIGKILL)


REACTOR = """
import os
from twisted.internet import reactor
from sockserve import socketserver
from sockserve.core.watch import watch_of

class Handler(socketserver.BaseRequestHandler):
    runs_reactor = True

    def handle(self):
        if Handler.runs_reactor:
            Handler.runs_reactor = False
            watch = watch_of(reactor)  # as a service does
            watch.hold()
            reactor.callWhenRunning(reactor.callLater, 0, reactor.stop)
            reactor.run(installSignalHandlers=False)
            watch.release()
        forks = self.request.recv(1) == b"f"
        may_end, ends = os.pipe()
        if forks and not os.fork():
            os.read(may_end, 1)  # for what it comes back to shuts the connection down
            return
        self.request.sendall(b"the parent's answer")
        os.write(ends, b"x")
        if forks:
            print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)

with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
    print(server.server_address[1], flush=True)
    server.serve_forever()
"""


@pytest.mark.parametrize("words", [[b"f", b"f", b"n"], [b"n", b"n", b"f"]])
def test_a_handler_that_runs_a_reactor_is_told_from_its_child(words: list[bytes]) -> None:
    """On the thread of C{serve_forever}, which is another thread to us then."""
    with subprocess.Popen(
        [sys.executable, "-c", REACTOR],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    ) as program:
        # With a child that has not ended.
        patience = threading.Timer(PATIENCE_SECONDS, os.killpg, (program.pid, signal.SIGKILL))
        patience.start()
        try:
            assert program.stdout is not None
            port = int(program.stdout.readline())
            for word in words:
                with connect(("127.0.0.1", port)) as client:
                    client.sendall(word)
                    assert read_all(client) == b"the parent's answer"
                    if word == b"f":
                        assert program.stdout.readline() == "0\n"
        finally:
            patience.cancel()
            patience.join()
            os.killpg(program.pid, signal.SIGKILL)
        _, log = program.communicate()
        assert not log
