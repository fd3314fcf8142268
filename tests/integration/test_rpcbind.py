"""A program that this machine's rpcbind is told of, and rpcinfo that asks it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockserve.sunrpc.messages import AcceptStat, accepted, make_call
from sockserve.sunrpc.records import fragments
from tests.integration.servers import PATIENCE_SECONDS
from tests.tools import need_tool

TWISTD = Path(sys.executable).with_name("twistd")
SOCKET = Path("/run/rpcbind.sock")

#: Programs that no other test uses.
BOTH, DRAINED = 0x3F00A001, 0x3F00A002

LISTEN = ("tcp:0:interface=127.0.0.1", "udp:0:interface=127.0.0.1", r"tcp6:0:interface=\:\:1")

HANDLER = """
from sockserve.sunrpc import Int, RPCRequestHandler, procedure
from twisted.internet.defer import Deferred

class Adder(RPCRequestHandler):
    program = {program}

    @procedure(1, version=(1, 3))
    async def add(self, a: Int, b: Int) -> Int:
        return a + b
"""


def answers(path: Path) -> bool:
    """Whether something listens there: an rpcbind that was killed leaves its socket."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


@pytest.fixture
def rpcinfo() -> str:
    """The program of this name, on a machine whose rpcbind runs."""
    path = need_tool("rpcinfo")
    need_tool("rpcbind")
    if not answers(SOCKET):
        if os.environ.get("CI"):
            pytest.fail("rpcbind does not run, and CI is to start it: see .ci/run")
        pytest.skip("needs rpcbind, running")
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator["Server"]:
    server = Server(tmp_path)
    yield server
    server.end()


class Server:
    """twistd, with a handler of its own."""

    process: "subprocess.Popen[bytes] | None" = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, program: int, *options: str) -> None:
        (self.folder / "adder.py").write_text(HANDLER.format(program=program))
        log = self.folder / "log"
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [TWISTD, "-n", "--pidfile=", "sockserve", "--handler", "adder:Adder", *options],
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        give_up = time.monotonic() + PATIENCE_SECONDS
        while log.read_text().count(": serving ") < options.count("--listen"):
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.02)

    def end(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(PATIENCE_SECONDS) == -signal.SIGTERM
            self.process = None


def said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    return done.stdout


def registered(rpcinfo: str, program: int) -> set[str]:
    """The netids of a program, each with a version."""
    lines = [line.split() for line in said(rpcinfo).splitlines()]
    return {f"{line[2]} {line[1]}" for line in lines if line[0] == str(program)}


def registered_port(rpcinfo: str, program: int) -> int:
    """That of a program with one, which the last two numbers of its address are."""
    lines = [line.split() for line in said(rpcinfo).splitlines()]
    (address,) = {line[3] for line in lines if line[0] == str(program)}
    high, low = map(int, address.split(".")[-2:])
    return high << 8 | low


def test_clients_find_a_program_until_it_ends(rpcinfo: str, server: Server) -> None:
    listen = [word for where in LISTEN for word in ("--listen", where)]
    server.start(BOTH, *listen, "--rpcbind")
    assert registered(rpcinfo, BOTH) == {
        f"{netid} {version}" for netid in ("tcp", "udp", "tcp6") for version in (1, 3)
    }
    for option in ("-t", "-u"):
        answer = said(rpcinfo, option, "127.0.0.1", str(BOTH))
        assert "version 1 ready and waiting" in answer
        assert "version 2 is not available" in answer
        assert "version 3 ready and waiting" in answer
    server.end()
    assert registered(rpcinfo, BOTH) == set()


def test_the_registration_goes_while_a_server_drains(rpcinfo: str, server: Server) -> None:
    """The connection is in the middle of a call, so it is waited for."""
    server.start(DRAINED, "--listen", LISTEN[0], "--rpcbind", "--timeout", "drain=60")
    assert registered(rpcinfo, DRAINED) == {"tcp 1", "tcp 3"}
    port = registered_port(rpcinfo, DRAINED)
    assert server.process is not None
    with socket.create_connection(("127.0.0.1", port)) as client:
        (null,) = fragments(make_call(1, DRAINED, 1, 0))
        client.sendall(null + null[:6])  # in one packet: what is answered tells that all has come
        assert client.recv(100)[4:] == accepted(1, AcceptStat.SUCCESS)
        server.process.send_signal(signal.SIGTERM)
        give_up = time.monotonic() + PATIENCE_SECONDS
        while registered(rpcinfo, DRAINED):
            assert time.monotonic() < give_up
        assert server.process.poll() is None
    assert server.process.wait(PATIENCE_SECONDS) == -signal.SIGTERM
    server.process = None
    assert registered(rpcinfo, DRAINED) == set()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--handler", "sockserve:StreamRequestHandler", "--rpcbind"], "rpcbind: handler Stream"),
        (["--handler", "bad:Bad"], "program: 4294967296 is out of range"),
        (["--handler", "wrong:x"], "wrong.x:2: no type is called colour"),
        (["--handler", "adder:Adder", "--rpcbind", "--listen", "tls:0:privateKey=k"], "tls"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, options: list[str], words: str) -> None:
    (tmp_path / "adder.py").write_text(HANDLER.format(program=5))
    (tmp_path / "bad.py").write_text(HANDLER.format(program=2**32).replace("Adder", "Bad"))
    (tmp_path / "wrong.x").write_text("struct a {\n  colour b;\n};")
    (tmp_path / "wrong.py").write_text("from sockserve.sunrpc import load; x = load('wrong.x')")
    command = [TWISTD, "-n", "--pidfile=", "sockserve", *options, "--listen", "tcp:0"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert words in line
