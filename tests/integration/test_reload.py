"""The option C{--reload} as a user has it: files that change, clients that notice nothing."""

import http.client
import os
import pty
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockserve.tap import Options
from tests.integration.test_command import PATIENCE_SECONDS, ROOT, Command, fetch, started
from tests.processes import children_of

HTTP = """
import asyncio
import os

from sockserve import StreamRequestHandler
from sockserve.http import HTTPRequestHandler


class Hello(HTTPRequestHandler):
    def do_GET(self):
        if self.path == "/crash":
            os._exit(3)
        if self.path == "/wait":
            with open("waiting", "wb") as waiting:
                waiting.write(b"x")
            with open("go", "rb") as go:
                go.read()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ANSWER")
"""

OTHERS = """
from sockserve import DatagramRequestHandler, StreamRequestHandler


class Stream(StreamRequestHandler):
    async def handle(self):
        self.wfile.write(b"ANSWER")


class Datagram(DatagramRequestHandler):
    async def handle(self):
        self.wfile.write(b"ANSWER")
"""


class Edited:
    """A file of a handler's, and its answer."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self.answer("one")

    def answer(self, answer: str) -> None:
        """Have it answer otherwise, as an editor saves it: in the place of the file."""
        self.write(self._text.replace("ANSWER", answer))

    def write(self, text: str) -> None:
        beside = self._path.with_name(f".{self._path.name}.swp")
        beside.write_text(text)
        beside.rename(self._path)


@pytest.fixture
def hello(tmp_path: Path) -> Edited:
    return Edited(tmp_path / "hello.py", HTTP)


def serving_url(command: Command) -> str:
    return command.wait_for(r"Hello: (http://\S+)")[1]


class Clients(threading.Thread):
    """Clients that connect one after the other, and what they have seen."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._has_ended = threading.Event()
        self.has_asked = threading.Event()
        self.answers: list[bytes] = []
        self.faults: list[Exception] = []

    def run(self) -> None:
        while True:  # once at least
            try:
                self.answers.append(fetch(self._url))
            except Exception as fault:
                self.faults.append(fault)
            self.has_asked.set()
            if self._has_ended.is_set():
                break

    def __enter__(self) -> "Clients":
        self.start()
        return self

    def __exit__(self, *of: object) -> None:
        self._has_ended.set()
        self.join()


def test_clients_notice_nothing_of_a_reload_or_a_mistake(tmp_path: Path, hello: Edited) -> None:
    with started(tmp_path, "hello:Hello", "--port", "0", "--reload") as command:
        url = serving_url(command)
        with Clients(url) as clients:
            assert clients.has_asked.wait(PATIENCE_SECONDS)
            hello.answer("two")
            command.wait_for(r"\nreloaded: hello\.py changed\n")
            assert fetch(url) == b"two"
            hello.write("def (\n")
            command.wait_for(r"\nnot reloaded: hello\.py changed, but cannot be served; what was")
            assert "SyntaxError: invalid syntax (hello.py, line 1)" in command.said
            assert fetch(url) == b"two"
            hello.answer("three")
            command.wait_for(r"\nreloaded: [\s\S]*\nreloaded: hello\.py changed\n")
            assert fetch(url) == b"three"
        assert clients.faults == []
        order = list(dict.fromkeys(clients.answers))
        assert order in ([b"one", b"two", b"three"], [b"one", b"two"])
        command.process.send_signal(signal.SIGTERM)
        assert command.end() == 0
    assert command.said.count("http://") == 1, "where it listens is said once"
    assert {path.name for path in tmp_path.iterdir()} == {"hello.py"}


def test_a_request_under_way_finishes_where_it_has_begun(tmp_path: Path, hello: Edited) -> None:
    os.mkfifo(tmp_path / "waiting")
    os.mkfifo(tmp_path / "go")
    answers: list[bytes] = []
    with started(tmp_path, "hello:Hello", "--port", "0", "--reload") as command:
        url = serving_url(command)
        client = threading.Thread(target=lambda: answers.append(fetch(f"{url}wait")))
        client.start()
        assert (tmp_path / "waiting").read_bytes() == b"x"
        hello.answer("two")
        command.wait_for(r"\nreloaded: ")
        assert fetch(url) == b"two"
        (tmp_path / "go").write_bytes(b"x")
        client.join()
        assert answers == [b"one"]


def ask(family: int, kind: int, address: object, mine: str = "") -> bytes:
    with socket.socket(family, kind) as client:
        client.settimeout(PATIENCE_SECONDS)
        if mine:
            client.bind(mine)
        client.connect(address)  # type: ignore[arg-type]
        if kind == socket.SOCK_DGRAM:
            client.send(b"x")
        answer = client.recv(10)
    if mine:
        os.unlink(mine)
    return answer


def test_names_and_ports_of_all_kinds_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = Edited(tmp_path / "others.py", OTHERS)
    config = Edited(
        tmp_path / "s.toml",
        "[[server]]\nhandler = 'others:Stream'\nlisten = ['unix:s.sock', 'unix:ANSWER.sock',"
        " 'haproxy:tcp:0:interface=127.0.0.1']\n[[server]]\nhandler = 'others:Datagram'\n"
        "listen = ['udp:0', 'udp:0:interface=127.0.0.1', 'unixgram:g.sock']\n",
    )
    monkeypatch.chdir(tmp_path)
    stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
    with started(tmp_path, "-c", "s.toml", "--reload") as command:
        command.wait_for(r"unixgram:g\.sock\n")
        ports = [int(each) for each in map(str, _ports(command.said))]

        def answers() -> set[bytes]:
            wildcard, one = ports[1:]
            return {
                ask(socket.AF_UNIX, stream, "s.sock"),
                ask(socket.AF_INET, datagram, ("127.0.0.1", wildcard)),
                ask(socket.AF_INET, datagram, ("127.0.0.1", one)),
                ask(socket.AF_UNIX, datagram, "g.sock", "mine"),
            }

        assert answers() == {b"one"}
        before = [os.stat(name).st_ino for name in ("s.sock", "g.sock")]
        others.answer("two")
        command.wait_for(r"\nreloaded: others\.py changed\n")
        assert answers() == {b"two"}
        assert [os.stat(name).st_ino for name in ("s.sock", "g.sock")] == before
        assert os.readlink("s.sock.lock") == str(command.process.pid)
        with socket.create_connection(("127.0.0.1", ports[0]), PATIENCE_SECONDS) as client:
            client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
            assert client.recv(10) == b"two"

        assert stat.S_ISSOCK(os.stat("one.sock").st_mode)
        config.answer("new")  # another name, in the place of one
        command.wait_for(r"\nStream: unix:new\.sock\n[\s\S]*reloaded: s\.toml changed\n")
        assert ask(socket.AF_UNIX, stream, "new.sock") == b"two"
        assert answers() == {b"two"}
        command.process.send_signal(signal.SIGINT)
        assert command.end() == 0
    assert {path.name for path in tmp_path.iterdir()} == {"others.py", "s.toml"}


def test_what_cannot_listen_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Edited(tmp_path / "others.py", OTHERS)
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = "[[server]]\nhandler = 'others:Stream'\nlisten = 'unix:s.sock'\n"
        config = Edited(tmp_path / "s.toml", text)
        with started(tmp_path, "-c", "s.toml", "--reload") as command:
            command.wait_for(r"unix:s\.sock\n")
            config.write(
                "[[server]]\nhandler = 'others:Stream'\n"
                f"listen = ['unix:s.sock', 'unix:new.sock', 'tcp:{port}:interface=127.0.0.1']\n"
            )
            command.wait_for(r"\nnot reloaded: s\.toml changed")
            assert f"'tcp:{port}:interface=127.0.0.1': Address already in use\n" in command.said
            assert ask(socket.AF_UNIX, socket.SOCK_STREAM, "s.sock") == b"one"
            assert os.readlink("s.sock.lock") == str(command.process.pid)
            assert not os.path.lexists("new.sock")
            assert not os.path.lexists("new.sock.lock")


def _ports(said: str) -> Iterator[int]:
    for line in said.splitlines():
        if " (port " in line:
            yield int(line.rpartition(" ")[2].removesuffix(")"))


#: Starts the command on a terminal of its own, which is its standard output.
ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(1, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "sockserve", *sys.argv[1:]])
"""


def test_ctrl_c_on_a_terminal_ends_all_with_status_0(tmp_path: Path, hello: Edited) -> None:
    near, far = pty.openpty()
    words = ["hello:Hello", "--unix", "s.sock", "--reload"]
    with subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, *words],
        cwd=tmp_path,
        stdin=far,
        stdout=far,
        stderr=far,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    ) as process:
        os.close(far)
        command = Command(process, near)
        try:
            command.wait_for(r"Hello: unix:s\.sock  \(on uvloop; Ctrl-C to stop\)\n")
            hello.answer("two")
            command.wait_for(r"\nreloaded: ")
            os.write(near, b"\x03")
            assert command.end() == 0
        finally:
            process.kill()
            os.close(near)
    assert command.said.count("Received SIGINT") == 1, "one key is one signal"
    assert "Traceback" not in command.said
    assert {path.name for path in tmp_path.iterdir()} == {"hello.py"}


def test_one_that_was_replaced_and_has_a_request_yet_keeps_quiet(
    tmp_path: Path, hello: Edited
) -> None:
    os.mkfifo(tmp_path / "waiting")
    os.mkfifo(tmp_path / "go")
    answers: list[bytes] = []
    with started(tmp_path, "hello:Hello", "--port", "0", "--reload") as command:
        url = serving_url(command)
        client = threading.Thread(target=lambda: answers.append(fetch(f"{url}wait")))
        client.start()
        assert (tmp_path / "waiting").read_bytes() == b"x"
        hello.answer("two")
        command.wait_for(r"\nreloaded: ")
        command.process.send_signal(signal.SIGTERM)
        command.wait_for(r"\nwaiting for 1 request, oldest GET /wait .*; SIGTERM again to end it\n")
        (tmp_path / "go").write_bytes(b"x")
        client.join()
        assert command.end() == 0
    assert answers == [b"one"]
    assert command.said.count("Received SIGTERM, shutting down.\n") == 1, "one has served"


def test_the_second_signal_ends_at_once(tmp_path: Path, hello: Edited) -> None:
    os.mkfifo(tmp_path / "waiting")
    os.mkfifo(tmp_path / "go")
    with started(tmp_path, "hello:Hello", "--port", "0", "--reload") as command:
        address = serving_url(command).removeprefix("http://").rstrip("/").split(":")
        with socket.create_connection((address[0], int(address[1]))) as client:
            client.sendall(b"GET /wait HTTP/1.0\r\n\r\n")
            assert (tmp_path / "waiting").read_bytes() == b"x"
            command.process.send_signal(signal.SIGINT)
            command.wait_for(r"\nwaiting for 1 request, oldest GET /wait")
            command.process.send_signal(signal.SIGINT)
            assert command.end() == 130


def test_what_it_has_started_ends_with_it(tmp_path: Path, hello: Edited) -> None:
    with started(tmp_path, "hello:Hello", "--unix", "s.sock", "--reload") as command:
        command.wait_for(r"Hello: ")
        (child,) = children_of(command.process.pid)
        its_end = os.pidfd_open(int(child))
        command.process.kill()
        ended, _, _ = select.select([its_end], [], [], PATIENCE_SECONDS)
        os.close(its_end)
        assert ended
    assert {path.name for path in tmp_path.iterdir()} == {"hello.py"}


def test_clients_wait_for_the_change_after_a_crash(tmp_path: Path, hello: Edited) -> None:
    with started(tmp_path, "hello:Hello", "--port", "0", "--reload") as command:
        url = serving_url(command)
        with pytest.raises(http.client.RemoteDisconnected):
            fetch(f"{url}crash")
        command.wait_for(r"\nthe server has ended with status 3; waiting for a change\n")
        with Clients(url) as clients:
            hello.answer("two")
            command.wait_for(r"\nreloaded: ")
            assert fetch(url) == b"two"
        assert clients.faults == []
        assert set(clients.answers) == {b"two"}


def test_the_first_start_has_to_be_right(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text("def (\n")
    with started(tmp_path, "wrong:Hello", "--reload") as command:
        assert command.end() == 1
    assert command.said.startswith("sockserve: handler 'wrong:Hello': importing it raised Syntax")
    assert command.said.count("\n") == 1


def test_without_watchfiles_one_line_says_what_to_install(tmp_path: Path, hello: Edited) -> None:
    (tmp_path / "watchfiles.py").write_text("raise ImportError\n")
    with started(tmp_path, "hello:Hello", "--reload") as command:
        assert command.end() == 1
    assert command.said == (
        "sockserve: reload: watchfiles is not installed; pip install watchfiles, or"
        " 'sockserve[reload]'\n"
    )


OBJECTS = """
import socketserver
import sys


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        packet = isinstance(self.request, tuple)
        send = self.request[1].sendto if packet else self.request.sendall
        send(b"ANSWER", *([self.client_address] if packet else []))


class Unbound(socketserver.TCPServer):
    def server_bind(self):
        self.socket.bind(self.server_address)


def make(kind):
    return getattr(socketserver, kind, Unbound)(("127.0.0.1", 0), Handler)


def threads():
    return make("ThreadingTCPServer")


def packets():
    return make("UDPServer")


def unbound():
    return make("Unbound")
"""


@pytest.mark.parametrize(
    ("name", "kind"), [("threads", socket.SOCK_STREAM), ("packets", socket.SOCK_DGRAM)]
)
def test_a_server_object_keeps_its_port(tmp_path: Path, name: str, kind: int) -> None:
    objects = Edited(tmp_path / "objects.py", OBJECTS)
    with started(tmp_path, "--server", f"objects:{name}", "--reload") as command:
        port = int(command.wait_for(r"Server on \('127\.0\.0\.1', (\d+)\)")[1])
        assert ask(socket.AF_INET, kind, ("127.0.0.1", port)) == b"one"
        objects.answer("two")
        command.wait_for(r"\nreloaded: objects\.py changed\n")
        assert ask(socket.AF_INET, kind, ("127.0.0.1", port)) == b"two"
        objects.write("def (\n")
        command.wait_for(r"\nnot reloaded: objects\.py changed")
        assert ask(socket.AF_INET, kind, ("127.0.0.1", port)) == b"two"
        command.process.send_signal(signal.SIGTERM)
        assert command.end() == 0


def test_a_server_object_that_binds_by_itself_is_refused_in_a_line(tmp_path: Path) -> None:
    Edited(tmp_path / "objects.py", OBJECTS)
    with started(tmp_path, "--server", "objects:unbound", "--reload") as command:
        assert command.end() == 1
    assert command.said.startswith("sockserve: server: Unbound does not go with --reload, which")
    assert command.said.count("\n") == 1


def test_check_checks_and_ends(tmp_path: Path, hello: Edited) -> None:
    with started(tmp_path, "hello:Hello", "--reload", "--check") as command:
        assert command.end() == 0
    assert command.said.startswith("listen tcp:8000:interface=127.0.0.1: Hello on threads\n")


def test_twistd_says_whose_option_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Options().parseOptions(["--reload"])
    assert capfd.readouterr().err == (
        "sockserve: option --reload not recognized; it is one of the command sockserve, without"
        " twistd\n"
    )
