"""The command C{sockserve} as a user has it: a process, on a terminal or not."""

import contextlib
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]

MODULE = """
import socketserver
import sys

from sockserve import DatagramRequestHandler, StreamRequestHandler
from sockserve.http import HTTPRequestHandler


class Hello(HTTPRequestHandler):
    async def do_GET(self):
        if self.path == "/raise":
            raise ValueError("on purpose")
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"Hello!")


class Echo(StreamRequestHandler):
    async def handle(self):
        self.wfile.write(await self.rfile.readline())


class Upper(DatagramRequestHandler):
    async def handle(self):
        self.wfile.write(self.packet.upper())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hello.py").write_text(MODULE)
    (tmp_path / "file.txt").write_text("a file\n")
    return tmp_path


class Command:
    """A process of the command, and what it has said."""

    def __init__(self, process: "subprocess.Popen[bytes]", output: int) -> None:
        self.process = process
        self._output = output
        self.said = ""

    def wait_for(self, pattern: str) -> "re.Match[str]":
        """Read until a pattern is there."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while (found := re.search(pattern, self.said)) is None:
            assert time.monotonic() < give_up, self.said
            assert self._read() or re.search(pattern, self.said), self.said
        return found

    def end(self) -> int:
        """Read to the end."""
        while self._read():
            pass
        return self.process.wait(PATIENCE_SECONDS)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._output], [], [], PATIENCE_SECONDS)
        assert ready, self.said
        try:
            found = os.read(self._output, 2**16)
        except OSError:  # a terminal without a process
            return False
        self.said += found.decode().replace("\r\n", "\n")
        return bool(found)


@contextlib.contextmanager
def started(
    folder: Path, *arguments: str, terminal: bool = False, environ: dict[str, str] | None = None
) -> Iterator[Command]:
    """The command, with standard output and error on a terminal or on a pipe."""
    near, far = pty.openpty() if terminal else os.pipe()
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [sys.executable, "-m", "sockserve", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=far,
        stderr=far,
        env={**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm", **(environ or {})},
    )
    os.close(far)
    try:
        yield Command(process, near)
    finally:
        process.kill()
        process.wait()
        os.close(near)


def fetch(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as response:
            return response.read()  # type: ignore[no-any-return]
    except urllib.error.HTTPError as error:
        with error:
            return error.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_handler_is_served_until_a_signal(folder: Path, number: signal.Signals) -> None:
    with started(folder, "hello:Hello", "--port", "0") as command:
        url = command.wait_for(r"^Hello: (http://127\.0\.0\.1:\d+/)\n")[1]
        assert fetch(url) == b"Hello!"
        command.process.send_signal(number)
        assert command.end() == 0
    assert "GET" not in command.said, "no lines of requests where nobody looks"
    assert "Traceback" not in command.said
    left = {path.name for path in folder.iterdir()}
    assert left - {"__pycache__"} == {"file.txt", "hello.py"}, "no file of twistd's"


def test_on_a_terminal_each_request_has_a_line(folder: Path) -> None:
    with started(
        folder, "hello:Hello", "--port", "0", "--reactor", "epoll", terminal=True
    ) as command:
        url = command.wait_for(r"^Hello: (http://\S+)  \(Ctrl-C to stop\)\n")[1]
        fetch(f"{url}a%20b?c=d")
        command.wait_for(r"\nGET /a%20b\?c=d  \x1b\[32m200\x1b\[0m  6 B  [\d.]+ m?s\n")
        fetch(f"{url}raise")
        command.wait_for(r"\nGET /raise  \x1b\[31m500\x1b\[0m  \d+ B  [\d.]+ m?s  error\n")
        assert "ValueError: on purpose" in command.said
        fetch(f"{url}missing")
        command.wait_for(r"\nGET /missing  \x1b\[33m404\x1b\[0m  .*\n")
        assert command.said.count("missing") == 1
        command.process.send_signal(signal.SIGINT)
        assert command.end() == 0


def test_what_a_client_sends_is_no_command_to_the_terminal(folder: Path) -> None:
    environ = {"NO_COLOR": "1"}
    with started(folder, "hello:Hello", "--port", "0", terminal=True, environ=environ) as command:
        port = command.wait_for(r":(\d+)/")[1]
        with socket.create_connection(("127.0.0.1", int(port)), PATIENCE_SECONDS) as client:
            client.sendall(b"GET /\x9b2J HTTP/1.0\r\n\r\n")
            client.recv(2**16)
        command.wait_for(r"\n-  400  \d+ B  ")
    assert "\x1b" not in command.said
    assert "\x9b" not in command.said


@pytest.mark.parametrize("log", ["none", "requests.log", "-"])
def test_an_access_log_takes_the_place_of_these_lines(folder: Path, log: str) -> None:
    with started(
        folder, "hello:Hello", "--port", "0", "--access-log", log, terminal=True
    ) as command:
        fetch(command.wait_for(r"http://\S+")[0])
        command.process.send_signal(signal.SIGTERM)
        assert command.end() == 0
    assert "GET /  " not in command.said
    assert ('"GET / HTTP/1.1" 200' in command.said) == (log == "-")
    assert (folder / "requests.log").exists() == (log == "requests.log")
    assert not (folder / "none").exists()


def test_a_handler_of_http_servers_prints_its_own_line_and_no_second(folder: Path) -> None:
    with started(
        folder, "http.server:SimpleHTTPRequestHandler", "--port", "0", terminal=True
    ) as command:
        fetch(command.wait_for(r"http://\S+")[0])
        command.process.send_signal(signal.SIGTERM)
        assert command.end() == 0
    assert command.said.count("GET /") == 1


def test_a_folder_is_served(folder: Path) -> None:
    with started(folder.parent, folder.name, "--port", "0") as command:
        url = command.wait_for(r"^FileRequestHandler: (http://\S+)\n")[1]
        assert fetch(f"{url}file.txt") == b"a file\n"


def test_streams_and_datagrams_are_served_by_port_or_socket(folder: Path) -> None:
    with started(folder, "hello:Echo", "--unix", "echo.sock", terminal=True) as command:
        command.wait_for(r"^Echo: unix:echo\.sock  \(on uvloop; Ctrl-C to stop\)\n")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(folder / "echo.sock"))
            client.sendall(b"one\n")
            assert client.recv(10) == b"one\n"
        command.wait_for(r"\nEcho \S+  \x1b\[32mok\x1b\[0m  4 B in, 4 B out  ")
    with started(folder, "--port=0", "hello:Upper") as command:
        port = command.wait_for(r"^Upper: udp:0:interface=127\.0\.0\.1 \(port (\d+)\)\n")[1]
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.sendto(b"one", ("127.0.0.1", int(port)))
            assert client.recv(10) == b"ONE"


def test_the_environment_overrides_a_file_and_an_option_both(folder: Path) -> None:
    (folder / "s.toml").write_text(
        "[[server]]\nhandler = 'hello:Echo'\nlisten = 'tcp:1'\nmax-connections = 5\n"
        "timeout = { idle = 1 }\n"
    )
    environ = {"SOCKSERVE_PORT": "2", "SOCKSERVE_TIMEOUT": "idle=2m header=none", "TERM": "dumb"}
    with started(folder, "-c", "s.toml", "--check", "--port", "3", environ=environ) as command:
        assert command.end() == 0
    assert command.said.startswith("listen tcp:3:interface=127.0.0.1: Echo on the reactor\n")
    assert " idle=120 header=none " in command.said


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"SOCKSERVE_THREADS": "many"}, "SOCKSERVE_THREADS: 'many' is not a whole number"),
        ({"SOCKSERVE_LISTEN": "tpc:0"}, "SOCKSERVE_LISTEN 'tpc:0': unknown kind 'tpc'"),
        ({"SOCKSERVE_MAX_CONECTIONS": "5"}, "did you mean 'SOCKSERVE_MAX_CONNECTIONS'?"),
        ({"SOCKSERVE_RPCBIND": "perhaps"}, "SOCKSERVE_RPCBIND: 'perhaps' is neither true nor"),
        ({"SOCKSERVE_ALLOW": "'::1"}, 'SOCKSERVE_ALLOW: "\'::1": No closing quotation'),
        ({"SOCKSERVE_CONFIG": "no.toml"}, "config 'no.toml': No such file or directory"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    folder: Path, environ: dict[str, str], message: str
) -> None:
    with started(folder, environ=environ) as command:
        assert command.end() == 1
    assert command.said.startswith("sockserve: ")
    assert command.said.count("\n") == 1
    assert message in command.said


def test_what_kubernetes_says_of_a_service_is_no_mistake(folder: Path) -> None:
    environ = {
        "SOCKSERVE_PORT": "tcp://10.0.0.1:80",
        "SOCKSERVE_SERVICE_HOST": "10.0.0.1",
        "SOCKSERVE_PORT_80_TCP_PROTO": "tcp",
        "SOCKSERVE_THREADS": "",
    }
    with started(folder, "--check", environ=environ) as command:
        assert command.end() == 0
    assert command.said.startswith("listen tcp:8000:interface=127.0.0.1: ")


def test_a_port_that_is_taken_is_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        places = ("-l", "unix:left", "-l", f"127.0.0.1:{port}")
        with started(folder, "hello:Hello", *places) as command:
            assert command.end() == 1
    assert command.said == (
        f"sockserve: listen 'tcp:{port}:interface=127.0.0.1': Address already in use\n"
    )
    assert not (folder / "left").exists()


def test_a_port_of_a_file_that_is_taken_is_told_with_its_place(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        (folder / "s.toml").write_text(
            f"[[server]]\nunix = 'left'\n[[server]]\nlisten = [\n  '{where}']\n"
        )
        with started(folder, "-c", "s.toml") as command:
            assert command.end() == 1
    assert command.said == f"sockserve: s.toml:5:3: listen '{where}': Address already in use\n"
    assert not (folder / "left").exists()


@pytest.mark.parametrize("reactor", ["auto", "uvloop", "select", "poll", "asyncio"])
def test_it_runs_on_the_reactor_that_is_asked_for(folder: Path, reactor: str) -> None:
    with started(folder, "hello:Hello", "--port", "0", "--reactor", reactor) as command:
        assert fetch(command.wait_for(r"http://\S+")[0]) == b"Hello!"
        command.process.send_signal(signal.SIGTERM)
        assert command.end() == 0


def test_a_module_that_installs_a_reactor_is_told_how_to_ask_for_it(folder: Path) -> None:
    (folder / "own.py").write_text(
        "from twisted.internet import selectreactor\n\nselectreactor.install()\n"
    )
    with started(folder, "own:Hello", "--port", "0") as command:
        assert command.end() == 1
    assert command.said == (
        "sockserve: handler 'own:Hello': it installs a reactor, and there is one; name that by"
        " --reactor instead (own.py:3)\n"
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [("", ""), ("aut", "; did you mean 'auto'?"), ("uvlop", "; did you mean 'uvloop'?")],
)
def test_a_reactor_that_is_none_is_told(folder: Path, name: str, hint: str) -> None:
    with started(folder, "hello:Hello", "--port", "0", "--reactor", name) as command:
        assert command.end() == 1
    assert command.said == (
        f"sockserve: reactor {name!r}: it is none of auto, asyncio, epoll, kqueue, poll, select,"
        f" uvloop, nor a plugin's{hint}\n"
    )


def test_v_shows_what_twisted_says_with_the_time(folder: Path) -> None:
    with started(folder, "hello:Hello", "--port", "0", "-v") as command:
        command.wait_for(r"\d\d:\d\d:\d\d\S* \[-\] StreamFactory starting on \d+\n")
        command.wait_for(r"^Hello: http://\S+\n|\nHello: http://\S+\n")


LOGGING = """
import logging

from sockserve.http import HTTPRequestHandler

if SET_UP:
    logging.basicConfig(format="mine: %(name)s: %(message)s", level=logging.INFO)


class Logs(HTTPRequestHandler):
    async def do_GET(self):
        logging.getLogger("shop").warning("sold out: %s", self.path)
        raise ValueError("on purpose")
"""


def test_what_a_program_logs_is_shown(folder: Path) -> None:
    (folder / "logs.py").write_text(LOGGING.replace("SET_UP", "False"))
    with started(folder, "logs:Logs", "--port", "0") as command:
        fetch(command.wait_for(r"http://\S+")[0])
        command.wait_for(r"\nwarning: sold out: /\n")
        command.wait_for(r"\nerror: Logs: .*GET /")


def test_a_program_that_has_set_up_logging_has_the_log_there(folder: Path) -> None:
    (folder / "logs.py").write_text(LOGGING.replace("SET_UP", "True"))
    with started(folder, "logs:Logs", "--port", "0") as command:
        fetch(command.wait_for(r"^Logs: (http://\S+)\n")[1])
        command.wait_for(r"\nmine: shop: sold out: /\n")
        command.wait_for(r"\nmine: sockserve\.handlers: Logs: .*GET /")
        command.wait_for(r"\nValueError: on purpose")
    assert command.said.count("sold out") == 1


@pytest.mark.parametrize("config", [False, True], ids=["option", "file"])
def test_v_shows_the_traceback_of_a_handler_that_cannot_be_imported(
    folder: Path, config: bool
) -> None:
    (folder / "broken.py").write_text("def divide():\n    return 1 / 0\n\n\ndivide()\n")
    (folder / "broken.toml").write_text("[[server]]\nhandler = 'broken:Broken'\n")
    named = ("--config", "broken.toml") if config else ("broken:Broken",)
    with started(folder, *named, "-v") as command:
        assert command.end() == 1
    traceback, line = command.said.split("\nsockserve: ")
    heading, first, *_ = traceback.splitlines()
    assert heading == "Traceback (most recent call last):"
    assert first.endswith('broken.py", line 5, in <module>')
    assert 'broken.py", line 2, in divide\n' in traceback
    assert "ZeroDivisionError: division by zero (broken.py:2)\n" in line
