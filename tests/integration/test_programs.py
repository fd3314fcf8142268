"""Real programs, unmodified, with our modules in place of the stdlib's: each with its client."""

import contextlib
import json
import socket
import struct
import subprocess
import sys
import xmlrpc.client
from pathlib import Path

import pytest

from tests.integration.servers import certificate_file, read_exactly
from tests.tools import need_tool

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60

pytestmark = pytest.mark.parametrize("modules", ["stdlib", "sockserve"])


@contextlib.contextmanager
def running(program, modules, *arguments):
    """A program: its port, and the process."""
    words = [sys.executable, "-m", "tests.integration.programs.serve", program, modules, *arguments]
    with subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            port = process.stdout.readline().strip()
            assert port.isdigit(), process.stderr.read().decode()
            yield int(port), process
        finally:
            process.kill()


def output(*words):
    need_tool(words[0])
    return subprocess.run(
        words, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True
    ).stdout


def curl(*words):
    return output("curl", "--silent", "--show-error", *words)


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_dnslib_answers_dig(modules, kind):
    with running("dns", modules, kind) as (port, _):
        way = ["+tcp"] if kind == "tcp" else []
        printed = output("dig", "@127.0.0.1", "-p", str(port), "+short", *way, "a.test", "A")
    assert printed == "192.0.2.7\n"


@pytest.mark.parametrize("processes", ["", "2"])
def test_flask_on_werkzeugs_server(modules, processes):
    with running("flask", modules, processes) as (port, _):
        url = f"http://127.0.0.1:{port}/"
        assert curl(url, url) == "hello world" * 2
        assert curl("-F", "name=x", url) == "hello x"
        assert curl("-o", "/dev/null", "-w", "%{http_code}", f"{url}fail") == "500"


def test_djangos_runserver(modules):
    with running("django", modules) as (port, _):
        url = f"http://127.0.0.1:{port}/"
        assert curl(url, url) == "hello GET" * 2
        assert curl("-o", "/dev/null", "-w", "%{http_code}", f"{url}none") == "404"


@pytest.mark.parametrize("secure", [False, True])
def test_prometheus_client(modules, secure, tmp_path):
    certificate = str(certificate_file(tmp_path)) if secure else ""
    with running("prometheus", modules, certificate) as (port, process):
        scheme = "https" if secure else "http"
        page = curl("--insecure", f"{scheme}://127.0.0.1:{port}/metrics")
        assert "program_total 1.0" in page
        process.stdin.close()  # its cue to shut its server down
        assert process.stdout.readline() == b"down\n"


def test_xmlrpc(modules):
    with (
        running("xmlrpc", modules) as (port, _),
        xmlrpc.client.ServerProxy(f"http://127.0.0.1:{port}/") as proxy,
    ):
        assert [proxy.pow(2, number) for number in range(3)] == [1, 2, 4]
        assert "pow" in proxy.system.listMethods()
        with pytest.raises(xmlrpc.client.Fault, match="TypeError"):
            proxy.pow("x", 1)


def test_wsgiref(modules):
    with running("wsgiref", modules) as (port, _):
        page = curl("-d", "x=y", f"http://127.0.0.1:{port}/a?b=c")
    assert page.startswith("Hello world!")
    assert "QUERY_STRING = 'b=c'" in page
    assert "REQUEST_METHOD = 'POST'" in page


def test_logging_config_listen(modules):
    with running("logging_listen", modules) as (port, process):
        config = json.dumps({"version": 1, "loggers": {"configured": {"level": 17}}}).encode()
        with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as client:
            client.sendall(struct.pack(">L", len(config)) + config)
            client.recv(1)  # it is done when it ends the connection
        process.stdin.close()
        assert process.stdout.readline() == b"17\n"


def test_a_tunnel(modules):
    with (
        socket.create_server(("127.0.0.1", 0)) as target,
        running("forward", modules, str(target.getsockname()[1])) as (port, _),
        socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as client,
    ):
        inside, _ = target.accept()
        with inside:
            for size in (1, 5000):
                client.sendall(b"a" * size)
                assert read_exactly(inside, size) == b"a" * size
                inside.sendall(b"b" * size)
                assert read_exactly(client, size) == b"b" * size
        assert client.recv(1) == b""
