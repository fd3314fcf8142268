"""
C{sockserve run}: what a program can tell of how it was started is as by C{python}, in its children
too, but that it has sockserve's modules.
"""

import contextlib
import os
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

from sockserve.__main__ import main as sockserve
from sockserve.programs.command import (
    main,
    only_defines,
    program_command,
    program_environment,
)
from sockserve.programs.startup.sockserve_finder import split_command

#: How long a program may take at most: most of it is that of starting several interpreters.
LONG_SECONDS = 60.0

FACTS = """
import os, pickle, sys, inspect, signal

class Here:
    pass

def facts():
    main = sys.modules["__main__"]
    yield "argv", sys.argv
    yield "path", sys.path
    yield "names", sorted(vars(main))
    for name in ("__name__", "__file__", "__package__", "__cached__", "__doc__"):
        yield name, getattr(main, name, None)
    yield "spec", getattr(main.__spec__, "name", None)
    yield "loader", type(main.__loader__).__name__
    yield "pickled", pickle.loads(pickle.dumps(Here)) is Here
    yield "started by", sys.orig_argv[1:]
    yield "flags", sys.flags
    yield "options", sys._xoptions, sys.warnoptions
    yield "signals", [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    yield "here", os.getcwd()
    yield "site", "sitecustomize" in sys.modules, sorted(sys.path_importer_cache)
    yield "frames", len(inspect.stack())

if __name__ == "__main__":
    for fact in facts():
        print(fact)
"""


@contextlib.contextmanager
def started(*words, **options):
    """C{python WORDS} and C{python -m sockserve run WORDS}, side by side: their standard output."""
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as stack:
        commands = [[sys.executable, *words], [sys.executable, "-m", "sockserve", "run", *words]]
        yield [stack.enter_context(subprocess.Popen(each, **options)) for each in commands]


def ends(*words, **options):
    """How both end: status, standard output, standard error."""
    with started(*words, **options) as both:
        said = [process.communicate(timeout=LONG_SECONDS) for process in both]
        return [(process.returncode, *each) for process, each in zip(both, said, strict=True)]


@pytest.fixture
def folder(tmp_path):
    for name in ("facts.py", "script", "folder/__main__.py", "package/__main__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(FACTS)
    (tmp_path / "package/__init__.py").touch()
    (tmp_path / "package/inner.py").write_text(FACTS)
    zipapp.create_archive(tmp_path / "folder", tmp_path / "archive.pyz")
    (tmp_path / "link.py").symlink_to(tmp_path / "package/inner.py")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["facts.py", "a", "--explain", "-m"],
        ["./facts.py"],
        ["script"],
        ["link.py"],
        ["folder", "a b"],
        ["archive.pyz"],
        ["-m", "facts", "-x"],
        ["-m", "package"],
        ["-m", "package.inner"],
        ["-c", FACTS, "a"],
    ],
    ids=lambda words: " ".join(words[:2]).partition("\n")[0],
)
def test_it_is_started_as_by_python(folder, words):
    plain, ours = ends(*words, cwd=folder)
    assert ours == plain
    assert plain[0] == 0
    assert not plain[2]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import http.server; sys.exit(3)", 3),
        ("sys.exit('words')", 1),
        ("def f():\n    raise ValueError(1)\nf()", 1),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)", -15),
        ("import socketserver; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)", -2),
        ("atexit.register(print, 'end'); threading.Thread(target=print).start()", 0),
        ("threading.Thread(target=time.sleep, args=(99,), daemon=True).start(); os.abort()", -6),
        ("(", 1),
    ],
)
def test_it_ends_as_by_python(tmp_path, code, status):
    program = tmp_path / "program.py"
    program.write_text(f"import atexit, os, signal, sys, threading, time\n{code}\n")
    plain, ours = ends(str(program))
    assert ours == plain
    assert plain[0] == status


def test_what_python_cannot_start_is_its_to_say(tmp_path):
    for words in (["none.py"], ["-m", "none_such"], ["-m", "json"]):
        plain, ours = ends(*words, cwd=tmp_path)
        assert ours == plain
        assert plain[0]


def run(*words, cwd=None, **environment):
    """What C{python WORDS} prints."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LONG_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


WHOSE = "socketserver.TCPServer.serve_forever.__module__"

CHILDREN = """
import multiprocessing, os, sys, socketserver

class Server(socketserver.TCPServer):
    pass

def whose(server=Server):
    return server.serve_forever.__module__

if __name__ == "__main__":
    if len(sys.argv) > 1:
        print("again", whose())
    else:
        for method in multiprocessing.get_all_start_methods():
            with multiprocessing.get_context(method).Pool(1) as pool:
                print(method, pool.apply(whose), pool.apply(whose, [Server]))
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.argv, "again"])
"""


def test_its_children_have_the_modules_too(tmp_path):
    (tmp_path / "program.py").write_text(CHILDREN)
    lines = run("-m", "sockserve", "program.py", cwd=tmp_path).splitlines()
    assert {line.split()[0] for line in lines} >= {"fork", "spawn", "forkserver", "again"}
    for line in lines:
        assert set(line.split()[1:]) == {"sockserve.socketserver"}


def test_a_child_of_another_python_is_left_alone(tmp_path):
    code = f"import socketserver, sys; print({WHOSE}, 'sockserve' in sys.modules)"
    environment = program_environment(os.environ, explains=True)
    assert run("-c", code, **environment) == "sockserve.socketserver True\n"
    environment["_SOCKSERVE_PYTHON"] = "cpython-27 /usr"
    assert run("-c", code, **environment) == "socketserver False\n"


# What the program has of its own


def test_the_programs_own_modules_are_its_own(tmp_path):
    """Also where sockserve needs the standard library's of that name."""
    (tmp_path / "queue.py").write_text("mine = 1")
    (tmp_path / "signal.py").write_text("mine = 2")
    (tmp_path / "idna.py").write_text("mine = 3")
    (tmp_path / "httptools.py").write_text("mine = 4")  # of what serves
    program = tmp_path / "sockserve.py"
    program.write_text(
        "import queue, http.server, signal, idna, httptools\n"
        "class Server(http.server.HTTPServer): pass\n"
        "Server(('127.0.0.1', 0), http.server.BaseHTTPRequestHandler).server_close()\n"
        "print(queue.mine, signal.mine, idna.mine, httptools.mine, Server.shutdown.__module__)"
    )
    assert run("-m", "sockserve", str(program)) == "1 2 3 4 sockserve.socketserver\n"


@pytest.mark.parametrize("name", ["socketserver.py", "http/__init__.py"])
def test_its_own_module_of_a_replaced_name_is_its_own(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine = 1")
    program = tmp_path / "program.py"
    own = name.partition(".")[0].partition("/")[0]
    program.write_text(f"import {own}\nprint({own}.mine)")
    done = subprocess.run(
        [sys.executable, "-m", "sockserve", "--explain", program], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "1\n")
    if name == "socketserver.py":
        assert done.stderr == (
            f"sockserve: socketserver is not replaced: the program has {tmp_path / name}\n"
        )


def test_another_sitecustomize_has_its_turn(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('customized')")
    words = ["-m", "sockserve", "run", "-c", "import sitecustomize; print(sitecustomize.__file__)"]
    said = run(*words, PYTHONPATH=str(tmp_path))
    assert said == f"customized\ncustomized\n{tmp_path / 'sitecustomize.py'}\n"


# What the modules are


def test_the_modules_are_as_the_standard_librarys():
    program = Path(__file__).with_name("modules_in_place.py")
    assert run("-m", "sockserve", str(program)) == "as they are\n"


@pytest.mark.parametrize("first", ["sockserve.http.server", "wsgiref.simple_server"])
def test_the_modules_are_found_whatever_is_imported_first(first):
    code = (
        f"import {first}, socketserver, http.server;"
        f" print({WHOSE}, http.server.HTTPServer.shutdown.__module__)"
    )
    said = run("-m", "sockserve", "run", "-c", code)
    assert said == "sockserve.socketserver sockserve.socketserver\n"


def test_threads_that_import_at_once_all_get_the_modules(tmp_path):
    (tmp_path / "program.py").write_text(
        "import importlib, threading\n"
        "names = 'socketserver http.server wsgiref.simple_server json xmlrpc.server'.split()\n"
        "threads = [threading.Thread(target=importlib.import_module, args=[name])\n"
        "           for name in names * 3]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "import socketserver, wsgiref.simple_server\n"
        f"print({WHOSE}, wsgiref.simple_server.WSGIServer.shutdown.__module__)\n"
    )
    said = run("-m", "sockserve", str(tmp_path / "program.py"))
    assert said == "sockserve.socketserver sockserve.socketserver\n"


def test_nothing_is_imported_for_a_program_that_asks_for_neither():
    code = "import sys; print({name.partition('.')[0] for name in sys.modules})"
    imported = eval(run("-m", "sockserve", "run", "-c", code))
    assert imported.isdisjoint({"sockserve", "twisted", "http", "socketserver"})


def test_the_command_line_of_http_server_is_this_pythons():
    words = ["-m", "http.server", "--help"]
    assert run("-m", "sockserve", *words) == run(*words)


def test_sockserves_own_commands_are_as_ever():
    said = run("-m", "sockserve", "-m", "sockserve.http.server", "--help")
    assert said.startswith("usage: python -m sockserve.http.server [-h]")


# The command


@pytest.mark.parametrize(
    ("started_by", "options", "command"),
    [
        ("-m sockserve a.py", [], ["-m", "sockserve", "a.py"]),
        ("/bin/sockserve run a.py", [], ["/bin/sockserve", "run", "a.py"]),
        ("-u -X dev -m sockserve", ["-u", "-X", "dev"], ["-m", "sockserve"]),
        ("-uWerror -Xdev -bm sockserve x", ["-uWerror", "-Xdev", "-b"], ["-m", "sockserve", "x"]),
        ("-W m -msockserve c", ["-W", "m"], ["-m", "sockserve", "c"]),
        ("--check-hash-based-pycs no -c 1", ["--check-hash-based-pycs", "no"], ["-c", "1"]),
        ("-", [], ["-"]),
        ("-i", ["-i"], []),
    ],
)
def test_the_interpreters_options_are_the_programs(started_by, options, command):
    assert split_command(started_by.split()) == (options, command)
    started = ["python", *started_by.split()]
    assert program_command(["p.py", "-u"], started) == [sys.executable, *options, "p.py", "-u"]


def test_options_of_the_interpreter_reach_the_program():
    code = "import sys; print(sys.flags.optimize, sys.flags.utf8_mode, sys.warnoptions)"
    said = run("-OX", "utf8", "-Werror", "-m", "sockserve", "run", "-c", code)
    assert said == "1 1 ['error']\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no program"),
        (["--explain"], "no program"),
        (["-m"], "no program"),
        (["--explian", "a.py"], "--explian: no such option"),
    ],
)
def test_a_mistake_is_one_of_usage(arguments, says, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"sockserve run: {says}"


HANDLER = "import http.server\nclass Page(http.server.BaseHTTPRequestHandler):\n    pass\n"


def test_a_file_of_handlers_alone_is_not_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("web.py").write_text(f"'A page.'\n{HANDLER}port: int = 8000\n")
    assert sockserve(["web.py"]) == 1
    assert capsys.readouterr().err == (
        "sockserve: web.py: it makes no server of its own; did you mean 'sockserve web:Page'?\n"
    )


@pytest.mark.parametrize(
    "last", ["main()", "status = main()", "if True:\n    pass", "for each in []:\n    pass", "x ="]
)
def test_a_file_that_may_do_something_is_a_program(tmp_path, last):
    program = tmp_path / "web.py"
    program.write_text(f"{HANDLER}{last}\n")
    assert not only_defines(str(program))
    assert not only_defines(str(tmp_path / "none.py"))


def test_help_is_printed(capsys):
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: sockserve run [--explain] PROGRAM")


@pytest.mark.parametrize("option", ["-E", "-I", "-S"])
def test_an_interpreter_that_heeds_no_environment_is_refused(option):
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from sockserve.programs.command import main; sys.exit(main(['a.py']))"
    )
    done = subprocess.run([sys.executable, option, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "-E, -I and -S" in done.stderr
