"""What an import of sockserve changes for the rest of a program: nothing."""

import os
import pkgutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import sockserve
from tests.integration.servers import ROOT

pytestmark = pytest.mark.usefixtures("no_leaks")

PAGES = ["sockserve", "sockserve.server", "sockserve.service", "sockserve.http"]
PAGES += ["sockserve.testing", "sockserve.socketserver", "sockserve.http.server"]
PAGES += ["sockserve.tap"]
#: All of it, from the last room to the first, but for what imports Django, which leaves traces.
ALL = sorted(
    (
        module.name
        for module in pkgutil.walk_packages(sockserve.__path__, "sockserve.")
        if not module.name.startswith("sockserve.django")
    ),
    reverse=True,
)

#: What systemd tells, to the process that the command after it becomes.
HANDED_OVER = """
import os, sys
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
if sys.argv[1]:
    os.environ["LISTEN_FDNAMES"] = sys.argv[1]
if sys.argv[2]:
    os.dup2(int(sys.argv[2]), 3)
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""


def run_handed_over(
    *arguments: str, names: str = "web", number: int | None = None, path: str = str(ROOT)
) -> subprocess.CompletedProcess[str]:
    """Run Python as systemd would that hands over a socket."""
    handed_over = [names, "" if number is None else str(number), *arguments]
    return subprocess.run(
        [sys.executable, "-c", HANDED_OVER, *handed_over],
        env={**os.environ, "PYTHONPATH": path},
        cwd=ROOT,
        pass_fds=[] if number is None else [number],
        stdin=subprocess.DEVNULL,
        text=True,
        capture_output=True,
    )


@pytest.mark.parametrize("modules", [*([page] for page in PAGES), ALL], ids=lambda names: names[0])
def test_an_import_leaves_the_process_as_it_was(modules: list[str]) -> None:
    options = ["-W", "error", "-bb", "-m", "tests.integration.process_state"]
    done = run_handed_over(*options, *modules)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_program_that_takes_its_socket_does_so_after_the_import() -> None:
    program = """
import os, socket
from sockserve.socketserver import StreamRequestHandler, ThreadingTCPServer
assert os.environ.pop("LISTEN_PID") == str(os.getpid())
server = ThreadingTCPServer(None, StreamRequestHandler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.server_activate()
print(server.socket.getsockname()[1], flush=True)
"""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        done = run_handed_over("-c", program, number=listening.fileno())
        assert done.stdout.split() == [str(listening.getsockname()[1])], done.stderr


SERVER_OBJECT = """
import os, socket, socketserver

class Server(socketserver.ThreadingTCPServer):
    def server_bind(self):
        assert int(os.environ["LISTEN_PID"]) == os.getpid(), os.environ
        self.socket.close()
        self.socket = socket.socket(fileno=3)
        self.server_address = self.socket.getsockname()

server = Server(("127.0.0.1", 0), socketserver.StreamRequestHandler)
"""


@pytest.mark.parametrize("names", ["web", ""], ids=["with names", "without names"])
@pytest.mark.parametrize("before", ["", "import twisted.internet.endpoints; "], ids=["", "late"])
def test_a_server_object_takes_its_socket(tmp_path: Path, names: str, before: str) -> None:
    """
    Under C{twistd}, too, which imports Twisted's endpoints before all else when it makes its list
    of plugins anew.
    """
    (tmp_path / "objects.py").write_text(SERVER_OBJECT)
    twistd = (
        f"import sys; {before}sys.argv[0] = 'twistd'; import twisted.scripts.twistd as t; t.run()"
    )
    options = ["-n", "--pidfile=", "sockserve", "--server", "objects:server", "--check"]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        done = run_handed_over(
            *["-c", twistd, *options],
            names=names,
            number=listening.fileno(),
            path=f"{ROOT}{os.pathsep}{tmp_path}",
        )
        assert f"('127.0.0.1', {listening.getsockname()[1]})" in done.stdout, done


def test_the_environment_of_another_process_is_not_restored() -> None:
    """The variables of a process that has started this one are not for this one."""
    program = """
import os
if os.fork():
    os.wait()
else:
    from sockserve.core.environment import restore_environment
    os.environ.pop("LISTEN_PID")
    os.environ.pop("LISTEN_FDS")
    restore_environment()
    print("LISTEN_PID" in os.environ, "LISTEN_FDS" in os.environ, flush=True)
"""
    assert run_handed_over("-c", program).stdout == "False False\n"
