"""What names stand for, and the line that says what is wrong with one."""

import functools
import os
import socketserver
import sys
import textwrap

import pytest

from sockserve import ConfigurationError, StreamRequestHandler
from sockserve.run.loading import load_handler, load_server


class Coroutine(StreamRequestHandler):
    async def handle(self):
        pass


class Blocking(StreamRequestHandler):
    def handle(self):
        pass


class Mixed(StreamRequestHandler):
    async def setup(self):
        pass

    def handle(self):
        pass


class NeverAwaited(socketserver.StreamRequestHandler):
    async def handle(self):
        pass


class Outer:
    Inner = Blocking


bound = functools.partial(Blocking)
NOT_CALLABLE = 7


def here(name):
    return f"{__name__}:{name}"


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Write modules into the current folder; they are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(**sources):
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Echo", "handler 'Echo': write MODULE:CLASS"),
        (":Echo", "handler ':Echo': write MODULE:CLASS"),
        ("echo:", "handler 'echo:': write MODULE:CLASS"),
        ("no_such:Echo", "handler 'no_such:Echo': no module 'no_such'"),
        ("no.such.Echo", "handler 'no.such.Echo': no module 'no'"),
        ("email.nomod:Echo", "handler 'email.nomod:Echo': no module 'email.nomod'"),
        ("..echo:Echo", "handler '..echo:Echo': write MODULE:CLASS"),
        ("echo.py:Echo", "handler 'echo.py:Echo': write MODULE:CLASS; a module's name is what"),
        ("../echo:Echo", "handler '../echo:Echo': write MODULE:CLASS; a module's name is what"),
        (
            here("Blockin"),
            f"handler '{here('Blockin')}': no 'Blockin' in {__name__}; did you mean 'Blocking'?",
        ),
        (here("Outer.Iner"), f"no 'Iner' in {__name__}.Outer; did you mean 'Inner'?"),
        (here("NOT_CALLABLE"), f"handler '{here('NOT_CALLABLE')}': 7 is not a class or callable"),
        (
            here("Mixed"),
            "handler Mixed: setup is async def but handle is not; a request runs in one place,",
        ),
        (
            here("NeverAwaited"),
            "handler NeverAwaited: handle is async def, which socketserver's classes never await;",
        ),
    ],
)
def test_a_wrong_handler(name, message):
    with pytest.raises(ConfigurationError) as caught:
        load_handler(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise ValueError('a\\n  b')", "importing it raised ValueError: a b"),
        ("1/0", "importing it raised ZeroDivisionError: division by zero"),
        ("def f(:", "importing it raised SyntaxError: invalid syntax (broken.py, line 1)"),
        ("import no_such_thing", "importing it: No module named 'no_such_thing'"),
        ("from os import nothing", "importing it raised ImportError: cannot import name 'nothing'"),
        ("import sys; sys.exit('bye')", "importing it raised SystemExit: bye"),
    ],
)
def test_a_handlers_module_that_cannot_be_imported(modules, source, message):
    modules(broken=source)
    with pytest.raises(ConfigurationError) as caught:
        load_handler("broken:Handler")
    assert f"handler 'broken:Handler': {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cause", ["json.loads('{')", "os.stat('/nowhere')", "{}['a']"])
def test_the_line_of_the_users_own_is_named(modules, cause):
    text = f"import json, os\n\ndef read():\n    return {cause}\n"
    modules(own=text, broken="import own\n\nown.read()\n")
    with pytest.raises(ConfigurationError) as caught:
        load_handler("broken:Handler")
    assert str(caught.value).endswith(" (own.py:4)")


def test_a_folder_that_cannot_be_read_has_no_hint(modules, monkeypatch):
    def refuse(path="."):
        raise PermissionError(path)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(ConfigurationError) as caught:
        load_handler("a_module_of_nobodys:Page")
    assert str(caught.value) == (
        "handler 'a_module_of_nobodys:Page': no module 'a_module_of_nobodys'"
    )


@pytest.mark.parametrize("name", ["echo:Echo", "echo.Echo"])
def test_a_handlers_module_is_found_in_the_current_folder(modules, name):
    modules(echo="class Echo:\n    def __init__(self, request, address, server): pass")
    assert load_handler(name).__name__ == "Echo"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Outer.Inner", Blocking), ("bound", bound), ("Coroutine", Coroutine)],
)
def test_a_handler_may_be_nested_or_any_callable(name, expected):
    assert load_handler(here(name)) is expected


SERVERS = """
import socketserver

class Server(socketserver.TCPServer):
    def __init__(self, address=("127.0.0.1", 0)):
        super().__init__(address, socketserver.BaseRequestHandler)

def fail():
    raise OSError("no such device")

async def make():
    pass

def closed():
    server = Server()
    server.server_close()
    return server

made = Server()
number = 3
"""


def test_a_server_or_what_returns_one(modules):
    modules(servers=SERVERS)
    with load_server("servers:made") as made, load_server("servers:Server") as called:
        assert type(made) is type(called)
        assert made is load_server("servers.made")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("servers:number", "3 is not a socketserver.BaseServer, nor returns one"),
        ("servers:fail", "calling it raised OSError: no such device"),
        ("servers:make", " is not a socketserver.BaseServer, nor returns one"),
        ("servers:closed", "server 'servers:closed': its socket is closed"),
        ("servers:mad", "no 'mad' in servers; did you mean 'made'?"),
        ("servers", "server 'servers': write MODULE:OBJECT"),
        ("nosuchmodule:x", "server 'nosuchmodule:x': no module 'nosuchmodule'"),
    ],
)
def test_what_is_no_server_object(modules, name, message):
    modules(servers=SERVERS)
    with pytest.raises(ConfigurationError) as caught:
        load_server(name)
    if "servers" in sys.modules:
        sys.modules["servers"].made.server_close()
    assert message in str(caught.value)
