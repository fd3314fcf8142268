"""
Command lines and files at random, of good and bad words: each is taken, or has one line that says
what is wrong with it.
"""

import contextlib
import io
import os
import random
import socket
import sys

import pytest
from twisted.internet.testing import MemoryReactorClock

from sockserve import ConfigurationError
from sockserve.core.messages import printable
from sockserve.tap import Options

#: How many are tried.  The same ones each time, unless more are asked for.
TRIES = int(os.environ.get("FUZZ_EXAMPLES", "3000"))
SEED = os.environ.get("FUZZ_SEED", "sockserve")

HANDLERS = [
    "socketserver:StreamRequestHandler", "socketserver:DatagramRequestHandler",
    "sockserve.http.server:SimpleHTTPRequestHandler", "sockserve:StreamRequestHandler",
    "http.server.BaseHTTPRequestHandler", "os:path", "os:getcwd", "nowhere:X", "a.b", "x", ":", ".",
    "..", "os:", ":os", "os:path:x", "../x.py", "x.py:Y", "os path:x", "a\0b:C", "\udcff:C", "é:Ü",
    "builtins:int", "builtins:None", "this_is:not.there", "sys:argv", "a\nb:c",
]  # fmt: skip
SERVERS = ["os:getcwd", "os:path", "builtins:object", "nowhere:x", "builtins:exit", "a\0:b", ":"]
NUMBERS = [
    "0", "1", "-1", "7", "99999999999999999999", "1e3", "0x10", "1_000", "٣", "", " ", "none",
    "nan",
    "inf", "-inf", "1.5", "9" * 5000, "\0", "\udcff", "1\n2",
]  # fmt: skip
PATHS = [
    ".", "/", "nowhere", "/nowhere/x", "/dev/null", "a\0b", "\udcff", "", "a\nb", "x" * 5000, "é",
    "/dev/full", "file", "folder", "~", "-",
]  # fmt: skip
NETWORKS = [
    "::1", "192.0.2.0/24", "192.0.2.1/24", "::/0", "::ffff:192.0.2.0/120", "300.1.1.1", "x", "/",
    "",
    "fe80::1%eth0", "1", "\0", "\udcff", "192.0.2.0/33", "::1/129", "0.0.0.0/0.0.0.255",
]  # fmt: skip
HOSTS = [
    "127.0.0.1", "::1", "[::1]", "localhost", "0.0.0.0", "::", "lo", "1.2.3.4:5", "300.1.1.1", "",
    "a\0b", "\udcff", "fe80::1", "x" * 5000, ":", "a b",
]  # fmt: skip
SHORT = [
    "8080", ":8080", "127.0.0.1:0", "[::1]:0", "http://127.0.0.1:0/", "https://x/", "ftp://", "://",
    "http://x/y", "*:0", "[]:1", "::1:0", "haproxy:0", "http://[::1", "http://\0:1", "[\udcff]:1",
]  # fmt: skip
KINDS = [
    "tcp", "tcp6", "unix", "ssl", "tls", "udp", "udp6", "unixgram", "fd", "haproxy", "systemd",
    "stdio",
    "TCP", "tpc", "", "\0", "\udcff", "http",
]  # fmt: skip
PARTS = [
    "0", "80", "-1", "65536", "99999999", "x", "", "backlog=1", "backlog=-1", "backlog=x",
    "backlog=99999999999", "interface=127.0.0.1", "interface=\\:\\:1", "interface=x", "mode=666",
    "mode=999", "mode=77777", "lockfile=0", "lockfile=x", "privateKey=key.pem",
    "privateKey=nowhere",
    "privateKey=a\0b", "certKey=key.pem", "certKey=bad.pem", "extraCertChain=bad.pem",
    "dhParameters=bad.pem", "sslmethod=x", "sslmethod=TLSv1_2_METHOD", "domain=INET", "index=0",
    "index=-1", "name=x", "path=x", "port=1", "=", "a=b=c", "\\", "folder", "\0", "\udcff", "é",
    "unix:x", "tcp:0", "ssl:0", "haproxy:tcp:0", "٣", "s.sock", "\\:", "#",
]  # fmt: skip
WORDS = [
    "listen", "port", "host", "unix", "handler", "path", "server", "concurrency",
    "threads", "max-children", "max-connections",
    "max-connections-per-peer", "timeout", "allow", "deny", "proxy-from", "access-log",
    "log-format", "stats-log",
]  # fmt: skip
CHOICES = ["serial", "threads", "fork", "combined", "json", "Json", "", "\0", "\udcff", "x\ny"]
PHASES = [
    "handshake", "idle", "header", "body", "handle", "write", "lifetime", "drain", "abandon",
    "idel",
    "", "\0", "\udcff",
]  # fmt: skip


class Maker:
    """Words at random."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.pick = self.random.choice

    def description(self):
        parts = [self.pick(PARTS) for _ in range(self.random.randrange(4))]
        return ":".join([self.pick(KINDS), *parts])

    def value(self, word):
        """A text that may be meant as the value of C{word}, most of the time."""
        if self.random.random() < 0.05:
            word = self.pick(WORDS)
        if word == "listen":
            good = ["tcp:0", "udp:0", "unix:s.sock", "haproxy:tcp6:1:interface=\\:\\:1"]
            form = self.random.random()
            return (
                self.pick(good)
                if form < 0.3
                else self.pick(SHORT)
                if form < 0.4
                else self.description()
            )
        if word == "timeout":
            return f"{self.pick(PHASES)}{self.pick(['=', '=', '=', '', ':'])}{self.pick(NUMBERS)}"
        choices = {
            "handler": HANDLERS, "server": SERVERS, "path": PATHS, "access-log": PATHS,
            "stats-log": PATHS, "unix": PATHS, "host": HOSTS,
            "allow": NETWORKS,
            "deny": NETWORKS, "proxy-from": NETWORKS, "concurrency": CHOICES, "log-format": CHOICES,
        }  # fmt: skip
        return self.pick(choices.get(word, NUMBERS))

    def arguments(self):
        """A command line."""
        arguments = []
        for _ in range(self.random.randrange(5)):
            word = self.pick(WORDS)
            if self.random.random() < 0.05:
                word = self.pick(["lisen", "", "config", "check", "\0", "\udcff", "a\nb", "-"])
            given = self.value(word)
            form = self.random.random()
            if form < 0.6:
                arguments += [f"--{word}", given]
            elif form < 0.95:
                arguments.append(f"--{word}={given}")
            else:
                arguments.append(given)
        if self.random.random() < 0.5:
            arguments.append("--check")
        return arguments

    def environment(self):
        """Variables, which have no NUL."""
        variables = {}
        for _ in range(self.random.randrange(4)):
            word = self.pick([*WORDS, "config", "rpcbind", "maxconnections", "home"])
            name = f"SOCKSERVE_{word.replace('-', '_').upper()}"
            values = [self.value(word) for _ in range(self.random.randrange(1, 3))]
            variables[name] = self.pick([" ", ",", "'"]).join(values).replace("\0", "")
        return variables

    def toml(self):
        """A file, nearly always of good TOML."""
        lines = []
        for _ in range(self.random.randrange(3)):
            lines.append(
                self.pick(["[[server]]", "[[server]]", "[[server]]", "[server]", "[x]", ""])
            )
            for _ in range(self.random.randrange(4)):
                word = self.pick(WORDS)
                lines.append(f"{self.key(word)} = {self.written(word)}")
            if self.random.random() < 0.2:
                lines += [
                    "[server.timeout]",
                    f"{self.pick(PHASES[:10])} = {self.written('threads')}",
                ]
        text = self.pick(["\n", "\r\n", "\n"]).join(lines)
        if self.random.random() < 0.1:
            cut = self.random.randrange(len(text) + 1)
            text = (
                text[:cut]
                + self.pick(["", "\0", "\ufeff", '"', "[" * 5000, "\t", "é"])
                + text[cut:]
            )
        content = text.encode(
            self.pick(["utf-8"] * 9 + ["utf-8-sig", "utf-16", "latin-1"]), "replace"
        )
        return content

    def key(self, word):
        return self.pick([word, word, word, f'"{word}"', f"'{word}'", f"{word}.x", f"x-{word}"])

    def written(self, word):
        """A value as TOML writes it."""
        form = self.random.random()
        if form < 0.6:
            return self.quoted(self.value(word))
        if form < 0.8:
            return f"[{', '.join(self.quoted(self.value(word)) for _ in range(3))}]"
        return self.pick([
            "0", "1", "7", "-1", "9223372036854775807", "1.5", "nan", "inf", "-inf", "true",
            "1979-05-27",
            "07:32:00", "{}", "{ idle = 5 }", "{ idle = { x = 1 } }", "[[]]", "[{}]", "[1, 'x']",
            "'''\nx'''", "[" * 50 + "]" * 50, "1e999", "{ 'i d' = 1 }", '{ "\\u0000" = 1 }',
        ])  # fmt: skip

    def quoted(self, text):
        """A string of TOML, which has no surrogates."""
        text = text.replace("\udcff", "ÿ").replace("\\", "\\\\").replace('"', '\\"')
        shown = "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in text)
        return f'"{shown}"'


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with what some of the words name."""
    from tests.integration.servers import certificate_pem

    (tmp_path / "key.pem").write_bytes(certificate_pem())
    (tmp_path / "bad.pem").write_text("-----BEGIN NOTHING-----\n")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def said_of(arguments, parent=None):
    """
    What a command line leads to: the status it exits with, and the lines on standard error; None
    and none where its services could be made.
    """
    error = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True)
    output = io.TextIOWrapper(io.BytesIO(), "ascii", "strict", write_through=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(output))
        stack.callback(setattr, sys, "__stderr__", sys.__stderr__)
        sys.__stderr__ = error
        try:
            options = Options()
            options.parent = parent
            options.parseOptions(list(arguments))
            for server in options.servers:
                server.build(MemoryReactorClock())
        except SystemExit as exit_:
            return exit_.code, error.buffer.getvalue().decode().split("\n")[:-1]
        except ConfigurationError as mistake:  # makeService tells it so
            return 1, [f"sockserve: {printable(str(mistake))}"]
    return None, []


def check(said, about):
    status, lines = said
    assert status in (None, 0, 1), about
    assert len(lines) == (status or 0), about
    for line in lines:
        assert line.startswith("sockserve: "), about
        assert len(line) > len("sockserve: "), about
        assert "Traceback" not in line, about


# Making certificates' contexts and the like takes a while.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_random_command_line_is_taken_or_has_one_line(place):
    seen = {None: 0, 0: 0, 1: 0}
    for number in range(TRIES):
        arguments = Maker(f"{SEED} {number}").arguments()
        said = said_of(arguments)
        check(said, arguments)
        seen[said[0]] += 1
    # Else what is tried would not tell.
    assert all(count > TRIES / 100 for count in seen.values()), seen


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_random_file_is_taken_or_has_one_line(place):
    seen = {None: 0, 0: 0, 1: 0}
    path = place / "random.toml"
    for number in range(TRIES):
        maker = Maker(f"{SEED} file {number}")
        content = maker.toml()
        path.write_bytes(content)
        options = maker.pick([[], ["--check"], maker.arguments()])
        said = said_of(["--config", path.name, *options])
        check(said, (content, options))
        seen[said[0]] += 1
    assert all(count > TRIES / 100 for count in seen.values()), seen


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_random_environment_is_taken_or_has_one_line(place, monkeypatch):
    """With a command line beside it."""
    seen = {None: 0, 0: 0, 1: 0}
    monkeypatch.setattr("sockserve.tap.restore_environment", lambda: None)
    for number in range(TRIES // 3):
        maker = Maker(f"{SEED} environment {number}")
        arguments, environ = maker.arguments()[:4], maker.environment()
        monkeypatch.setattr("sockserve.tap.os.environ", environ)
        said = said_of(arguments, parent={"nodaemon": True})
        check(said, (arguments, environ))
        seen[said[0]] += 1
    assert all(count > TRIES / 300 for count in seen.values()), seen


@pytest.mark.parametrize("name", ["a\0b", "\udcff", "nowhere", "folder", "socket", "a\nb", ""])
def test_a_file_that_is_none_has_one_line(place, name):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        status, lines = said_of(["--config", name])
    assert status == 1
    (line,) = lines
    assert line.startswith(f"sockserve: config {name!a}: ")
