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


#: A user's module, which says what the garbage collector does when it is imported, and after.
WATCHFUL = """
import gc
from twisted.internet.protocol import Factory
from sockserve.handlers import BaseRequestHandler

class Handler(BaseRequestHandler):
    pass

everything = gc.get_objects()
print("enabled:", gc.isenabled())
print("Twisted is looked through:", any(each is Factory for each in everything))
print("this module is looked through:", any(each is Handler for each in everything))
"""


@pytest.mark.parametrize("command", ["sockserve", "twisted"])
def test_a_command_has_no_garbage_looked_for_in_its_own_modules(
    command: str, tmp_path: Path
) -> None:
    """A user's are looked through as ever."""
    (tmp_path / "watchful.py").write_text(WATCHFUL)
    words = ["--listen", "tcp:0", "--handler", "watchful:Handler", "--check"]
    start = ["sockserve"] if command == "sockserve" else ["twisted", "sockserve"]
    done = run_handed_over("-m", *start, *words, path=f"{ROOT}:{tmp_path}")
    assert done.stdout.splitlines()[:3] == [
        "enabled: True",
        "Twisted is looked through: False",
        "this module is looked through: True",
    ], done.stderr


# What the drop-in modules import, and when they import the rest

DROP_IN = pytest.mark.parametrize("module", ["sockserve.socketserver", "sockserve.http.server"])

#: Packages that are not the standard library's, and that a drop-in module does without until a
#: server is made: all but these.
LIGHT = {"attr", "attrs", "sockserve", "typing_extensions", "zope"}

#: What it does without of the standard library's.
HEAVY = {"asyncio", "multiprocessing", "ssl", "subprocess", "urllib.request"}


def run_program(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program that may wait for ever if something is wrong."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        text=True,
        capture_output=True,
        timeout=60,
    )


@DROP_IN
def test_a_drop_in_module_imports_neither_twisted_nor_tls(module: str) -> None:
    theirs = module.removeprefix("sockserve.")
    done = run_program(
        f"import sys, {theirs}\nbefore = set(sys.modules)\nimport {module}\n"
        "print(*sys.modules.keys() - before)"
    )
    imported = set(done.stdout.split())
    assert module in imported, done.stderr
    others = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert {name for name in others if not name.startswith("_")} - {"cython_runtime"} <= LIGHT
    assert imported & HEAVY == set()


@DROP_IN
def test_what_serves_is_imported_with_the_first_server(module: str) -> None:
    """Not only when it serves: a server that was made needs no file, nor a descriptor for one."""
    made = "ThreadingTCPServer" if module.endswith("socketserver") else "ThreadingHTTPServer"
    done = run_program(f"""
import sys, {module} as module
class Own(module.{made}):
    pass
print("sockserve.dropin.serving" in sys.modules)
with Own(("127.0.0.1", 0), module.Base{"" if made.endswith("TCPServer") else "HTTP"}RequestHandler):
    print("sockserve.dropin.serving" in sys.modules)
""")
    assert done.stdout.split() == ["False", "True"], done.stderr


#: Serves one request with the first server of the process.  (Its client connects by itself, as
#: C{socket.create_connection} would import C{encodings.idna}: a child that is forked meanwhile, by
#: another thread, would wait for that for ever, whatever serves.)
SERVE_ONE = """
import os, socket, sys, threading
from sockserve.socketserver import StreamRequestHandler, TCPServer, ThreadingTCPServer

class Shout(StreamRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.readline().upper())

def serve_one(word, make=ThreadingTCPServer):
    with make(("127.0.0.1", 0), Shout) as server:
        with socket.socket() as client:
            client.connect(server.server_address)
            client.sendall(word + b"\\n")
            server.handle_request()
            os.write(1, client.makefile("rb").readline())
"""


def test_the_first_servers_of_many_threads() -> None:
    done = run_program(f"""{SERVE_ONE}
together = threading.Barrier(8)
def serve():
    together.wait()
    serve_one(b"line")
threads = [threading.Thread(target=serve) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
""")
    assert (done.stdout, done.stderr) == ("LINE\n" * 8, "")


@pytest.mark.parametrize("make", ["TCPServer", "ThreadingTCPServer"])
def test_the_first_server_of_a_child(make: str) -> None:
    done = run_program(f"""{SERVE_ONE}
if os.fork():
    assert os.wait()[1] == 0
    assert "sockserve.dropin.serving" not in sys.modules
    serve_one(b"parent", {make})
else:
    serve_one(b"child", {make})
""")
    assert (done.stdout, done.stderr) == ("CHILD\nPARENT\n", "")


def test_a_child_that_is_forked_while_a_thread_makes_the_first_server() -> None:
    """It would wait for the thread, which it does not have."""
    done = run_program(f"""{SERVE_ONE}
begun = threading.Event()
class Noting:
    def find_spec(self, name, path, target=None):
        if name == "sockserve.dropin.dispatcher":
            begun.set()
sys.meta_path.insert(0, Noting())
thread = threading.Thread(target=serve_one, args=[b"thread"])
thread.start()
begun.wait()
child = os.fork()
if child:
    thread.join()
    assert os.wait()[1] == 0
else:
    assert "sockserve.dropin.serving" in sys.modules
    serve_one(b"child")
""")
    assert (sorted(done.stdout.split()), done.stderr) == (["CHILD", "THREAD"], "")


def test_the_first_server_of_a_program_that_ends() -> None:
    """On a thread that the interpreter waits for, and after all threads."""
    done = run_program(f"""{SERVE_ONE}
def late():
    threading.main_thread().join()
    serve_one(b"late")
threading.Thread(target=late).start()
""")
    assert (done.stdout, done.stderr) == ("LATE\n", "")
    done = run_program(f"""{SERVE_ONE}
import atexit
atexit.register(serve_one, b"last", TCPServer)
""")
    assert (done.stdout, done.stderr) == ("LAST\n", "")


# What a command imports

COMMAND = """
import io, sys
from sockserve.__main__ import main
out, sys.stdout = sys.stdout, io.StringIO()
assert main(sys.argv[1:]) == 0
print(*sys.modules, file=out)
"""


@pytest.mark.parametrize(
    ("arguments", "needless"),
    [
        (["run", "--help"], {"attrs", "msgspec", "twisted"}),
        (["--version"], {"importlib.metadata", "twisted"}),
        (["--help"], {"twisted"}),
        (
            ["tests.integration.handlers:Echo", "--check"],
            {
                *("shtab", "sockserve.auth", "sockserve.reload", "sockserve.sql.source"),
                *("sockserve.sunrpc", "twisted.application.reactors", "twisted.web", "watchfiles"),
            },
        ),
    ],
    ids=["a program", "the version", "the help", "a handler"],
)
def test_a_command_imports_what_it_needs(arguments: list[str], needless: set[str]) -> None:
    done = run_program(COMMAND, *arguments)
    imported = set(done.stdout.split())
    assert "sockserve.__main__" in imported, done.stderr
    assert imported & needless == set()


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
