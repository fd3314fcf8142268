"""``python -m sockserve.http.server``: what it serves, with curl, and what it says."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization

from tests.integration.servers import PATIENCE_SECONDS, ROOT, certificate_file, certificate_pem
from tests.tools import need_tool

#: Those of CPython 3.15, which has no --cgi any more.
OPTIONS = {
    *("-h", "--help", "-b", "--bind", "-d", "--directory", "-p", "--protocol"),
    *("--content-type", "-H", "--header", "--tls-cert", "--tls-key", "--tls-password-file"),
}


def command(module, *options):
    return [sys.executable, "-m", module, *map(str, options)]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


class Running:
    """
    The command while it runs.

    @ivar announced: the line it prints when it serves.
    """

    def __init__(self, process):
        self.process = process
        self.announced = process.stdout.readline()
        assert self.announced, process.stderr.read()
        self.host, self.port, self.url = re.fullmatch(
            r"Serving HTTPS? on (\S+) port (\d+) \((\S+)\) \.\.\.\n", self.announced
        ).groups()

    def interrupt(self):
        """End it with C{SIGINT}; gives the status, and what it printed and logged."""
        self.process.send_signal(signal.SIGINT)
        printed, logged = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, printed, logged


@contextlib.contextmanager
def running(*options, **popen):
    with subprocess.Popen(
        command("sockserve.http.server", *options, 0),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **popen,
    ) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def failing(*options):
    """Run the command, which does not come to serve anything."""
    return subprocess.run(
        command("sockserve.http.server", *options),
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def curl(*words):
    return subprocess.run(
        [need_tool("curl"), "--silent", "--show-error", "--max-time", "15", *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "hello.txt").write_text("hello\n")
    return path


@pytest.fixture
def pem(tmp_path):
    """A certificate with its key."""
    return certificate_file(tmp_path)


@pytest.fixture
def parts(tmp_path, pem):
    """A certificate, its key, encrypted, and the password, in files of their own."""
    key = serialization.load_pem_private_key(pem.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    encrypted = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    certificate = pem.read_bytes().partition(b"-----BEGIN CERTIFICATE")
    files = {
        "certificate": b"".join(certificate[1:]),
        "key": encrypted,
        "password": b"secret\n",
        "wrong": b"Secret\n",
        "other key": certificate_pem("other.test"),
        "no pem": b"hello\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in files}


# What it serves


def test_the_current_folder_until_it_is_interrupted(folder):
    with running("-b", "127.0.0.1", cwd=folder) as server:
        assert (server.host, server.url) == ("127.0.0.1", f"http://127.0.0.1:{server.port}/")
        assert curl(server.url + "hello.txt") == "hello\n"
        assert "hello.txt" in curl(server.url)
        status, printed, logged = server.interrupt()
    assert (status, printed) == (0, "\nKeyboard interrupt received, exiting.\n")
    assert '"GET /hello.txt HTTP/1.1" 200 -' in logged
    assert "Traceback" not in logged


def test_another_folder(folder, tmp_path):
    with running("-b", "127.0.0.1", "-d", folder, cwd=tmp_path) as server:
        assert curl(server.url + "hello.txt") == "hello\n"


@pytest.mark.parametrize(("options", "said"), [([], "1 1 1"), (["-p", "HTTP/1.1"], "1.1 1 0")])
def test_the_protocol(folder, options, said):
    with running("-b", "127.0.0.1", "-d", folder, *options) as server:
        url = server.url + "hello.txt"
        written = ["--write-out", "%{http_version} %{num_connects} ", "--output", os.devnull]
        assert curl(*written, url, "--output", os.devnull, url).split() == (
            f"{said.split()[0]} {said.split()[1]} {said.split()[0]} {said.split()[2]}".split()
        )


@pytest.mark.parametrize("options", [[], ["-b", "::"]], ids=["default", "ipv6"])
def test_all_addresses_are_those_of_both_families(folder, options):
    if options and not socket.has_dualstack_ipv6():
        pytest.skip("needs IPv6")
    with running("-d", folder, *options) as server:
        assert curl(f"http://127.0.0.1:{server.port}/hello.txt") == "hello\n"
        if server.host == "::":
            assert server.url == f"http://[::]:{server.port}/"
            assert curl(f"http://[::1]:{server.port}/hello.txt") == "hello\n"
        else:
            assert (options, server.host) == ([], "0.0.0.0")


def test_tls(folder, pem):
    with running("-b", "127.0.0.1", "-d", folder, "--tls-cert", pem) as server:
        assert server.announced.startswith("Serving HTTPS on ")
        assert server.url == f"https://127.0.0.1:{server.port}/"
        url = f"https://localhost:{server.port}/hello.txt"
        assert curl("--ipv4", "--cacert", pem, url) == "hello\n"
        assert server.interrupt()[0] == 0


def test_tls_with_an_encrypted_key(folder, parts):
    options = [
        *("--tls-cert", parts["certificate"], "--tls-key", parts["key"]),
        *("--tls-password-file", parts["password"]),
    ]
    with running("-b", "127.0.0.1", "-d", folder, *options) as server:
        url = f"https://localhost:{server.port}/hello.txt"
        assert curl("--ipv4", "--cacert", parts["certificate"], url) == "hello\n"


def test_fields_and_the_type_of_files_whose_names_do_not_tell(folder):
    """Each way to write a field; only answers of status 200 have them, and a list is one."""
    (folder / "unknown").write_text("what")
    (folder / "known.txt").write_text("text")
    (folder / "below").mkdir()
    fields = [
        *("-H", "X-One", "1", "--header", "X-Two", "a: b", "-H", "X-Three: 3"),
        *("--header=X-Four:4", "-H", "X-One", "again"),
    ]
    sent = ["X-One: 1", "X-Two: a: b", "X-Three: 3", "X-Four: 4", "X-One: again"]
    with running("-b", "127.0.0.1", "-d", folder, *fields, "--content-type", "text/x") as server:

        def ask(path, *more):
            lines = curl("--head", *more, server.url + path).splitlines()
            return [line for line in lines if line.startswith(("X-", "Content-type"))]

        assert ask("unknown") == ["Content-type: text/x", *sent]
        assert ask("known.txt") == ["Content-type: text/plain", *sent]
        encoding = sys.getfilesystemencoding()
        assert ask("below/") == [f"Content-type: text/html; charset={encoding}", *sent]
        assert ask("below") == []
        assert not any(line.startswith("X-") for line in ask("none"))
        assert ask("unknown", "--header", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT") == []


# What it says


def test_the_options_are_those_of_python_3_15_on_every_python():
    def options(module):
        text = subprocess.run(command(module, "--help"), capture_output=True, text=True, check=True)
        listed = text.stdout.partition("options:")[2]
        return set(re.findall(r"(?<![\w-])--?[A-Za-z][a-z-]*", listed))

    given = options("sockserve.http.server")
    assert given == OPTIONS
    assert given >= options("http.server") - {"--cgi"}


@pytest.mark.parametrize(
    "options",
    [
        ("-H", "X-One"),
        ("--header", "X One", "1"),
        ("--header", "", "1"),
        ("-H", "X-One", "1\r\nX-Two: 2"),
        ("-H", "X-One", "\N{SNOWMAN}"),
        ("--header", ":1"),
        ("--content-type", "text/x\n"),
        ("--cgi",),
    ],
)
def test_what_cannot_be_a_field_is_refused(options):
    done = subprocess.run(
        command("sockserve.http.server", *options), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert options[0] in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "culprit", "why"),
    [
        (["--tls-key", "key"], "--tls-key", "requires --tls-cert to be set"),
        (
            ["--tls-password-file", "password"],
            "--tls-password-file",
            "requires --tls-cert to be set",
        ),
        (["70000"], "argument port", "70000 is not one of 0 to 65535"),
        (["http"], "argument port", "invalid int value: 'http'"),
    ],
)
def test_options_that_do_not_go_together(options, culprit, why):
    ended = failing(*options)
    assert (ended.returncode, ended.stdout) == (2, "")
    usage, _, said = ended.stderr.rpartition("python -m sockserve.http.server: error: ")
    assert usage.startswith("usage: ")
    assert said.startswith(culprit)
    assert said.endswith(f"{why}\n")


@pytest.mark.parametrize(
    ("options", "culprit", "why"),
    [
        (["--tls-cert", "nosuch"], "--tls-cert nosuch", "No such file or directory"),
        (["--tls-cert", "no pem"], "--tls-cert {no pem}", "there is no certificate in it"),
        (
            ["--tls-cert", "certificate"],
            "--tls-cert {certificate}",
            "there is no private key in it",
        ),
        (
            ["--tls-cert", "certificate", "--tls-key", "nosuch"],
            "--tls-key nosuch",
            "No such file or directory",
        ),
        (
            ["--tls-cert", "certificate", "--tls-key", "no pem"],
            "--tls-key {no pem}",
            "there is no private key in it",
        ),
        (
            ["--tls-cert", "certificate", "--tls-key", "other key"],
            "--tls-key {other key}",
            "it is not the key of {certificate}",
        ),
        (
            ["--tls-cert", "certificate", "--tls-key", "key", "--tls-password-file", "nosuch"],
            "--tls-password-file nosuch",
            "No such file or directory",
        ),
        (
            ["--tls-cert", "certificate", "--tls-key", "key", "--tls-password-file", "wrong"],
            "--tls-password-file {wrong}",
            "it is not the password of {key}",
        ),
        (["-b", "nosuch.invalid"], "--bind nosuch.invalid", ""),
    ],
)
def test_what_cannot_be_read_or_found(parts, options, culprit, why):
    ended = failing("-b", "127.0.0.1", *(parts.get(each, each) for each in options), 0)
    assert (ended.returncode, ended.stdout) == (1, "")
    start = f"python -m sockserve.http.server: {culprit.format(**parts)}: {why.format(**parts)}"
    assert ended.stderr.startswith(start)
    assert ended.stderr.count("\n") == 1


def test_an_encrypted_key_without_its_password(parts):
    ended = failing("--tls-cert", parts["certificate"], "--tls-key", parts["key"], 0)
    assert ended.returncode == 1
    assert f"--tls-key {parts['key']}: it is encrypted, and needs --tls" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("bind", [[], ["-b", "127.0.0.1"]], ids=["all", "one"])
def test_a_busy_port(bind):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        ended = failing(*bind, port)
    host = "127.0.0.1 " if bind else ""
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"python -m sockserve.http.server: {host}port {port}: Address already in use\n"
    )
