"""What programs do with http.server: files, CGI, documentation, HTTPS of their own, streams."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.integration.servers import certificate_file, connect
from tests.programs.running import (
    connections_of,
    curl,
    on_both,
    running,
    running_module,
    status_of,
)
from tests.tools import need_tool

pytestmark = [pytest.mark.usefixtures("no_leaks"), on_both]


def ask_for_files(program, folder):
    """A folder with C{data.bin}, C{index/index.html} and C{list}; as HTTP/1.1."""
    url = program.url
    data = (folder / "data.bin").read_text()
    assert curl(f"{url}/data.bin") == data
    head = curl("--head", f"{url}/data.bin")
    assert head.startswith("HTTP/1.1 200 OK\n")
    assert f"Content-Length: {len(data)}\n" in head
    # It knows no ranges, so curl takes what it gets.
    assert curl("--range", "5-9", f"{url}/data.bin") == data
    same = ["--time-cond", folder / "data.bin"]
    assert status_of(*same, f"{url}/data.bin") == "304"
    assert curl("--location", f"{url}/index") == "an index\n"
    assert status_of(f"{url}/index") == "301"
    assert 'href="%C3%A4.txt"' in curl(f"{url}/list/")
    assert curl(f"{url}/list/%C3%A4.txt") == "a umlaut\n"
    assert status_of(f"{url}/none") == "404"
    assert status_of("--path-as-is", f"{url}/../../../../../../etc/passwd") == "404"
    assert status_of("--data", "x", f"{url}/data.bin") == "501"
    assert connections_of(f"{url}/data.bin?[1-3]") == ["1", "0", "0"]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    for name, content in (
        ("data.bin", "0123456789" * 20_000),
        ("index/index.html", "an index\n"),
        ("list/ä.txt", "a umlaut\n"),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.mark.parametrize("kind", ["plain", "threading"])
def test_files(modules, kind, folder):
    with running("files", modules, kind, folder, "HTTP/1.1") as program:
        ask_for_files(program, folder)
        program.interrupt()
        assert '"GET /data.bin HTTP/1.1" 200 -\n' in program.log
        assert '"GET /none HTTP/1.1" 404 -\n' in program.log


def test_files_from_the_command_line(modules, folder):
    module = {"stdlib": "http.server", "sockserve": "sockserve.http.server"}[modules]
    words = ["--bind", "127.0.0.1", "--directory", str(folder), "--protocol", "HTTP/1.1", "0"]
    with running_module(module, *words) as program:
        ask_for_files(program, folder)
        assert program.interrupt() == "\nKeyboard interrupt received, exiting.\n"


SCRIPT = """#!/bin/sh
echo "Content-Type: text/plain"
echo
echo "$REQUEST_METHOD $QUERY_STRING $PATH_INFO $CONTENT_TYPE"
[ -z "$CONTENT_LENGTH" ] || head -c "$CONTENT_LENGTH"
exit 3
"""


@pytest.fixture
def cgi_folder():
    """One that also C{nobody} may enter, who runs the scripts when root serves."""
    with tempfile.TemporaryDirectory() as name:
        script = Path(name, "cgi-bin", "script")
        script.parent.mkdir()
        script.write_text(SCRIPT)
        for path in (name, script.parent, script):
            os.chmod(path, 0o755)
        yield name


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="Python 3.15 has no CGIHTTPRequestHandler")
@pytest.mark.parametrize("kind", ["plain", "threading"])
def test_cgi(modules, kind, cgi_folder):
    with running("cgi_scripts", modules, kind, cgi_folder) as program:
        url = f"{program.url}/cgi-bin/script"
        assert curl(f"{url}/more?a=b") == "GET a=b /more text/plain\n"
        body = "x" * 100_000
        form = "application/x-www-form-urlencoded"
        assert curl("--data-binary", "@-", url, input=body) == f"POST   {form}\n{body}"
        assert status_of(f"{program.url}/cgi-bin/none") == "404"
        assert status_of("--data", "x", f"{program.url}/script") == "501"
        program.interrupt()
        assert "CGI script exit code 3\n" in program.log


def test_pydocs_browser(modules):
    with running("pydoc_browser", modules) as program:
        assert curl(f"{program.url}/topics.html") == "text/html /topics.html"
        assert curl(f"{program.url}/a.css") == "text/css /a.css"
        assert program.interrupt() == "serving False\n"


@pytest.mark.parametrize("where", ["listener", "get_request", "finish_request", "setup", "handle"])
def test_connections_are_wrapped_for_tls(modules, where, tmp_path):
    certificate = certificate_file(tmp_path)
    with running("tls_wrapping", modules, certificate, where) as program:
        trust = ["--cacert", certificate]
        url = program.secure_url
        assert curl(*trust, f"{url}/", f"{url}/") == "GET SSLSocket TLSv1.3\n" * 2
        assert connections_of(*trust, f"{url}/[1-3]") == ["1", "0", "0"]
        body = ["--data-binary", "@-"]
        posted = curl(*trust, *body, f"{url}/", input="x" * 2_000_000)
        assert posted == "POST SSLSocket TLSv1.3\n"
        with connect(program.address) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert curl(*trust, f"{url}/") == "GET SSLSocket TLSv1.3\n"


def test_starttls(modules, tmp_path):
    certificate = certificate_file(tmp_path)
    mail = "\n".join(["Subject: x", "", *["line"] * 1000, ""])
    words = ["--mail-from", "a@a.test", "--mail-rcpt", "b@b.test", "--upload-file", "-"]
    with running("starttls", modules, certificate) as program:
        url = f"smtp://localhost:{program.port}"
        curl(url, *words, input=mail)
        assert program.read_line() == "secured=False lines=1003 bytes=5014"
        curl(url, *words, "--ssl-reqd", "--cacert", certificate, input=mail)
        assert program.read_line() == "secured=True lines=1003 bytes=5014"


def test_server_sent_events(modules):
    with running("events", modules) as program:
        words = [need_tool("curl"), "--silent", "--no-buffer", f"{program.url}/events"]
        listeners = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(5)]
        try:
            for listener in listeners:
                assert listener.stdout.readline() == ": welcome\n"
                assert listener.stdout.readline() == "\n"
            assert curl(f"{program.url}/listening/5") == "5"
            for number in range(3):
                curl("--data", f"event {number}", program.url)
                for listener in listeners:
                    lines = [listener.stdout.readline() for _ in range(3)]
                    assert lines == [f"id: {number}\n", f"data: event {number}\n", "\n"]
            assert curl(f"{program.url}/poll/1") == '"event 1"'
            with subprocess.Popen(
                [*words[:-1], f"{program.url}/poll/3"], stdout=subprocess.PIPE, text=True
            ) as polling:
                curl("--data", "event 3", program.url)
                assert polling.stdout.read() == '"event 3"'
        finally:
            for listener in listeners:
                listener.kill()
                listener.communicate()
        # Who has gone is noticed when there is something to be said, at the second attempt.
        while curl(f"{program.url}/listening/0") != "0":
            curl("--data", "x", program.url)
        assert program.interrupt().count("gone before") == 5
