"""C{twistd sockserve} as a user runs it: a process, its output, its clients, its end."""

import contextlib
import json
import logging
import logging.handlers
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.integration.servers import (
    PATIENCE_SECONDS,
    certificate_file,
    connect,
    link_local_address,
    read_all,
    read_exactly,
    read_line,
    secure,
)
from tests.tools import need_tool
from tests.warm import WarmPython

pytestmark = pytest.mark.usefixtures("no_leaks")

RUN_TWISTD = "from twisted.scripts.twistd import run; run()"
TWISTD = [sys.executable, "-c", RUN_TWISTD]

HANDLERS = """
import os, socketserver, sockserve, time
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

class Echo(sockserve.StreamRequestHandler):
    async def handle(self):
        async for line in self.rfile:
            self.wfile.write(line)

class BlockingEcho(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)

class Deaf(sockserve.StreamRequestHandler):
    async def handle(self):
        self.wfile.write(b"begun")
        await self.wfile.drain()
        await Deferred()

class Slow(sockserve.StreamRequestHandler):
    async def handle(self):
        self.wfile.write(b"begun")
        await self.wfile.drain()
        from twisted.internet import reactor
        await deferLater(reactor, 1)
        self.wfile.write(b"done")

class Sleeps(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"begun")
        time.sleep(60)

class Spins(sockserve.StreamRequestHandler):
    async def handle(self):
        self.wfile.write(b"begun")
        self.wfile.flush()
        while True:
            pass

class Tidy(sockserve.StreamRequestHandler):
    async def handle(self):
        self.wfile.write(b"begun")
        await self.wfile.drain()
        try:
            await Deferred()
        finally:
            print("tidied up")

class Packet(socketserver.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.read())

class Either(socketserver.BaseRequestHandler):
    def handle(self):
        if isinstance(self.request, tuple):
            data, sock = self.request
            sock.sendto(data, self.client_address)
        else:
            self.request.sendall(self.request.recv(100))

class Quits(BlockingEcho):
    def handle(self):
        self.wfile.write(self.rfile.readline())
        if self.rfile.readline() == b"quit\\n":
            self.server.shutdown()
            self.wfile.write(b"bye\\n")

def make_server():
    return socketserver.ThreadingTCPServer(("127.0.0.1", 0), Quits)

class Tells(BlockingEcho):
    def handle(self):
        self.wfile.write(b"%d\\n" % os.getpid())
        super().handle()

def make_forking_server():
    return socketserver.ForkingTCPServer(("127.0.0.1", 0), Tells)

class Waits(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"begun\\n")
        self.request.recv(100)
        self.request.sendall(b"%d\\n" % self.server.is_closed)

def make_waiting_server():
    class Server(socketserver.ThreadingTCPServer):
        is_closed = False
        def server_close(self):
            super().server_close()
            self.is_closed = True
    return Server(("127.0.0.1", 0), Waits)

def make_told_server():
    class Told(socketserver.TCPServer):
        def server_close(self):
            super().server_close()
            print("closed")
    return Told(("127.0.0.1", 0), Quits)

def make_careful_server():
    class Careful(socketserver.ThreadingTCPServer):
        def server_close(self):
            self.shutdown()
            super().server_close()
    return Careful(("127.0.0.1", 0), Quits)
"""


def eventually(condition):
    """Wait for what another process brings about."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)
    return result


class Twistd:
    """A running C{twistd -n}: it is up when it says so."""

    def __init__(self, folder, *arguments, up):
        self.folder = folder
        self._output = folder / "output"
        self._errors = folder / "errors"
        with self._output.open("w") as output, self._errors.open("w") as errors:
            self.process = subprocess.Popen(
                [*TWISTD, "-n", "--pidfile=", *arguments],
                cwd=folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )
        try:
            eventually(lambda: self.log.count(up[0]) >= up[1] or self.process.poll() is not None)
            assert self.process.poll() is None, self.log + self.errors
        except BaseException:
            self.kill()
            raise

    @property
    def log(self):
        return self._output.read_text()

    @property
    def errors(self):
        return self._errors.read_text()

    def line_with(self, text):
        return eventually(lambda: next((x for x in self.log.splitlines() if text in x), None))

    def port(self, kind="tcp"):
        """The only port of a kind it has, as the system sees it."""
        (port,) = self.ports(kind)
        return port

    def ports(self, kind):
        inodes = set()
        for path in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since
                inodes.add(os.readlink(path).removeprefix("socket:[").removesuffix("]"))
        unconnected = {"tcp": "0A", "udp": "07"}[kind[:3]]
        rows = Path(f"/proc/{self.process.pid}/net/{kind}").read_text().splitlines()[1:]
        return [
            int(row.split()[1].rpartition(":")[2], 16)
            for row in rows
            if row.split()[3] == unconnected and row.split()[9] in inodes
        ]

    def end(self, number=signal.SIGTERM):
        """Have it stop as C{systemctl stop} does; it is to end well and to complain of nothing."""
        self.process.send_signal(number)
        self.ended_by(number)

    def ended_by(self, number):
        """Twisted ends a program by the signal that asked for it once all is stopped."""
        assert self.process.wait(PATIENCE_SECONDS * 2) == -number
        assert self.errors == ""
        assert "Traceback" not in self.log
        assert "Unhandled" not in self.log

    def kill(self):
        self.process.kill()
        self.process.wait()


def environment():
    return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "handlers.py").write_text(HANDLERS)
    return tmp_path


@pytest.fixture
def twistd(folder):
    """Start servers; they are killed at the end if they have not ended."""
    started = []

    def start(*arguments, listeners=1):
        started.append(Twistd(folder, "sockserve", *arguments, up=(": serving ", listeners)))
        return started[-1]

    def start_tac(source, up):
        (folder / "service.tac").write_text(textwrap.dedent(source))
        started.append(Twistd(folder, "-y", "service.tac", up=up))
        return started[-1]

    start.tac = start_tac
    yield start
    for server in started:
        server.kill()


def run(*command, folder=None, **options):
    """Run a command to its end."""
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        capture_output=True,
        timeout=PATIENCE_SECONDS * 2,
        **options,
    )


def echoes(client, line=b"hello\n"):
    client.sendall(line)
    return read_exactly(client, len(line)) == line


TCP = "tcp:0:interface=127.0.0.1"
UDP = "udp:0:interface=127.0.0.1"


# Serving


def port_is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
        return True


def test_bare_it_serves_the_current_folder_and_says_where(twistd, folder):
    if not port_is_free(8000):
        pytest.skip("somebody has port 8000, the default")
    (folder / "hello.txt").write_text("Hello, world!")
    server = twistd()
    url = server.line_with("serving ").split()[-1]
    assert url == "http://127.0.0.1:8000/"
    fetched = run(need_tool("curl"), "-sS", "-i", f"{url}hello.txt")
    assert fetched.stdout.startswith(b"HTTP/1.1 200 OK\r\n")
    assert fetched.stdout.endswith(b"Hello, world!")
    assert b"Content-Type: text/plain" in fetched.stdout
    assert b"hello.txt" in run(need_tool("curl"), "-sS", url).stdout
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(PATIENCE_SECONDS)


def test_another_folder(twistd, folder):
    (folder / "site").mkdir()
    (folder / "site" / "page").write_text("here")
    server = twistd("--path", "site", "--listen", TCP)
    url = server.line_with("serving ").split()[-1]
    assert url == f"http://127.0.0.1:{server.port()}/"
    assert run(need_tool("curl"), "-sS", f"{url}page").stdout == b"here"


def test_the_url_of_a_link_local_address_has_its_zone(twistd, folder):
    address, zone = link_local_address()
    written = address.replace(":", "\\:") + f"%{zone}"
    (folder / "page").write_text("here")
    server = twistd("--listen", f"tcp6:0:interface={written}")
    url = server.line_with("serving ").split()[-1]
    assert url == f"http://[{address}%25{zone}]:{server.port('tcp6')}/"
    assert run(need_tool("curl"), "-sS", f"{url}page").stdout == b"here"


@pytest.mark.parametrize("handler", ["handlers:Echo", "handlers.BlockingEcho"])
def test_one_handler_on_several_listeners(twistd, folder, handler):
    server = twistd(
        *("--listen", TCP, "-l", "unix:stream"),
        *("-l", "tcp6:0:interface=\\:\\:1", "-H", handler),
        listeners=3,
    )
    with (
        connect(("127.0.0.1", server.port())) as tcp,
        connect(("::1", server.port("tcp6"), 0, 0)) as tcp6,
        connect(str(folder / "stream")) as unix,
    ):
        for client in (tcp, tcp6, unix):
            assert echoes(client)
    server.end()
    assert not (folder / "stream").exists()


def test_one_handler_over_streams_and_datagrams(twistd, folder):
    server = twistd(
        *("-l", TCP, "-l", UDP, "-l", "unixgram:packets:mode=600", "-H", "handlers:Either"),
        listeners=3,
    )
    with connect(("127.0.0.1", server.port())) as client:
        assert echoes(client)
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE_SECONDS)
        client.connect(("127.0.0.1", server.port("udp")))
        client.send(b"packet")
        assert client.recv(100) == b"packet"
    path = folder / "packets"
    assert path.stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE_SECONDS)
        client.bind(str(folder / "client"))
        client.connect(str(path))
        client.send(b"packet")
        assert client.recv(100) == b"packet"
    server.end()
    assert not path.exists()


@pytest.mark.parametrize("concurrency", ["serial", "threads", "fork"])
def test_concurrency(twistd, concurrency):
    server = twistd("-l", TCP, "-H", "handlers:BlockingEcho", "--concurrency", concurrency)
    for _ in range(3):
        with connect(("127.0.0.1", server.port())) as client:
            assert echoes(client)
    server.end()


def test_a_file_with_two_servers(twistd, folder):
    (folder / "s.toml").write_text(
        f"""
        [[server]]
        listen = "{TCP}"
        handler = "handlers:Echo"

        [[server]]
        listen = ["{UDP}"]
        handler = "handlers:Packet"
        """
    )
    server = twistd("--config", "s.toml", listeners=2)
    with connect(("127.0.0.1", server.port())) as client:
        assert echoes(client)
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE_SECONDS)
        client.connect(("127.0.0.1", server.port("udp")))
        client.send(b"packet")
        assert client.recv(100) == b"packet"
    server.end()


def test_simple_http_over_ssl_for_curl(twistd, folder):
    pem = certificate_file(folder)
    site = folder / "site"
    site.mkdir()
    (site / "page").write_text("secret")
    where = f"ssl:0:privateKey={pem}:certKey={pem}:interface=127.0.0.1"
    server = twistd("-l", where, "-p", str(site))
    url = server.line_with("serving ").split()[-1]
    assert url == f"https://127.0.0.1:{server.port()}/"
    fetched = run(need_tool("curl"), "-sSk", f"{url}page")
    assert (fetched.stdout, fetched.stderr) == (b"secret", b"")


@pytest.mark.parametrize("handler", ["Echo", "BlockingEcho"])
def test_openssl_s_client(twistd, folder, handler):
    certificate_file(folder)
    server = twistd("-l", "tls:0:.:interface=127.0.0.1", "-H", f"handlers:{handler}")
    where = f"127.0.0.1:{server.port()}"
    command = [need_tool("openssl"), "s_client", "-connect", where, "-quiet", "-servername"]
    with subprocess.Popen(
        [*command, "localhost"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as client:
        try:
            client.stdin.write(b"hello\n")
            client.stdin.flush()
            assert client.stdout.readline() == b"hello\n"
        finally:
            client.kill()
    server.end()


@pytest.mark.parametrize("handler", ["Echo", "BlockingEcho"])
def test_socat_gets_its_answers_after_it_has_ended_its_own_side(twistd, handler):
    server = twistd("-l", TCP, "-H", f"handlers:{handler}")
    lines = b"".join(b"line %d\n" % number for number in range(1000))
    done = run(need_tool("socat"), "-t", "10", "-", f"TCP:127.0.0.1:{server.port()}", input=lines)
    assert (done.stdout, done.stderr) == (lines, b"")
    server.end()


# Its end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_within_drain_though_a_client_stays(twistd, number):
    server = twistd("-l", TCP, "-H", "handlers:Deaf", "--timeout", "drain=0.5")
    with connect(("127.0.0.1", server.port())) as client:
        assert read_exactly(client, 5) == b"begun"
        server.end(number)


def test_a_request_under_way_is_served_to_its_end(twistd):
    server = twistd("-l", TCP, "-H", "handlers:Slow")
    port = server.port()
    with connect(("127.0.0.1", port)) as client:
        assert read_exactly(client, 5) == b"begun"
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: port_is_free(port))
        assert read_all(client) == b"done"
    server.ended_by(signal.SIGTERM)


def test_it_ends_though_a_thread_waits_for_its_client(twistd):
    server = twistd("-l", TCP, "-H", "handlers:BlockingEcho", "--timeout", "drain=0.2")
    with connect(("127.0.0.1", server.port())) as client:
        assert echoes(client)
        server.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("handler", ["Deaf", "Sleeps", "Spins"])
def test_the_second_signal_ends_it_at_once(twistd, number, handler):
    """Be it that a coroutine waits, a thread, or the reactor itself."""
    server = twistd("-l", TCP, "-H", f"handlers:{handler}")
    with connect(("127.0.0.1", server.port())) as client:
        assert read_exactly(client, 5) == b"begun"
        server.process.send_signal(number)
        if handler != "Spins":
            again = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
            line = server.line_with(f"waiting for 1 request, oldest {handler} ")
            assert line.endswith(f" s; {again} again to end it")
        else:
            time.sleep(0.1)
        began = time.monotonic()
        server.process.send_signal(number)
        if handler == "Spins":  # which tells nothing: two that it had not heard of yet were one
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.process.wait(2)
            server.process.send_signal(number)
        assert server.process.wait(PATIENCE_SECONDS) == 128 + number
        assert time.monotonic() - began < 5
    assert server.errors == ""
    assert "Traceback" not in server.log
    assert "Unhandled" not in server.log


def test_an_aborted_coroutine_cleans_up_before_the_end(twistd):
    server = twistd("-l", TCP, "-H", "handlers:Tidy")
    with connect(("127.0.0.1", server.port())) as client:
        assert read_exactly(client, 5) == b"begun"
        server.process.send_signal(signal.SIGTERM)
        server.line_with("waiting for 1 request")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
    assert "tidied up" in server.log


def test_other_signals_do_not_end_it(twistd):
    server = twistd("-l", TCP, "-H", "handlers:Echo")
    server.process.send_signal(signal.SIGUSR1)
    server.process.send_signal(signal.SIGHUP)
    server.line_with("Received SIGHUP: nothing is reloaded")
    with connect(("127.0.0.1", server.port())) as client:
        assert echoes(client)
    server.end()


# The access log


def test_the_access_log_on_standard_output(twistd):
    server = twistd(
        *("-l", TCP, "-H", "handlers:Echo", "--access-log", "-", "--log-format", "json")
    )
    with connect(("127.0.0.1", server.port())) as client:
        assert echoes(client)
        host, port = client.getsockname()
    record = json.loads(server.line_with('"outcome"'))
    assert record["listener"] == TCP
    assert record["peer"] == f"{host}:{port}"
    assert record["handler"] == "Echo"
    assert record["outcome"] == "ok"
    assert (record["received"], record["sent"]) == (6, 6)
    assert "handle" in record["phases"]
    server.end()


def test_both_logs_of_requests_are_rotated(twistd, folder):
    server = twistd(
        *("-l", TCP, "-H", "handlers:Echo"),
        *("--access-log", "access.log", "--stats-log", "stats.log"),
    )
    logs = [folder / name for name in ("access.log", "stats.log")]
    rotated = [log.with_suffix(".1") for log in logs]

    def request():
        with connect(("127.0.0.1", server.port())) as client:
            assert echoes(client)

    def counts(paths):
        return [len(path.read_text().splitlines()) if path.exists() else 0 for path in paths]

    request()
    eventually(lambda: counts(logs) == [1, 1])
    for log, moved in zip(logs, rotated, strict=True):
        log.rename(moved)
    request()
    eventually(lambda: counts(rotated) == [2, 2])
    server.process.send_signal(signal.SIGUSR1)
    eventually(lambda: all(log.exists() for log in logs))
    request()
    eventually(lambda: counts(logs) == [1, 1])
    assert counts(rotated) == [2, 2]
    access, stats = (log.read_text() for log in logs)
    assert ' Echo "ok" 6 6 handle=' in access
    assert json.loads(stats).keys() >= {"peer", "outcome", "phases"}
    server.end()


# --check


def test_check_says_what_would_run(folder):
    done = run(
        *TWISTD, "-n", "sockserve", "--check", *("-l", "tcp:1:interface=192.0.2.1", "-l", "udp:1"),
        *("-H", "handlers:Either", "--timeout", "idle=none"),
        folder=folder,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    first, second, deadlines = done.stdout.decode().splitlines()
    assert first == "listen tcp:1:interface=192.0.2.1: Either on threads"
    assert second == "listen udp:1: Either on threads"
    assert " idle=none " in deadlines
    assert not (folder / "twistd.pid").exists()


def test_check_of_a_file(folder):
    (folder / "s.toml").write_text("[[server]]\nlisten = 'tcp:1'\nthread = 4\n")
    done = run(*TWISTD, "-n", "sockserve", "--check", "-c", "s.toml", folder=folder)
    assert done.returncode == 1
    assert done.stderr == b"sockserve: s.toml:3:1: unknown word 'thread'; did you mean 'threads'?\n"


# Wrong input

MISTAKES = {
    "unknown option": (
        ["--lisen", "tcp:0"],
        "option --lisen not recognized; did you mean '--listen'?",
    ),
    "unknown short option": (["-x"], "option -x not recognized"),
    "an argument": (["handlers:Echo"], "'handlers:Echo'"),
    "option without its value": (["--handler"], "option --handler requires argument"),
    "handler without a class": (["-H", "Echo"], "handler 'Echo': write MODULE:CLASS"),
    "no such module": (["-H", "nothing:Echo"], "handler 'nothing:Echo': no module 'nothing'"),
    "no such class": (
        ["-H", "handlers:Ecko"],
        "handler 'handlers:Ecko': no 'Ecko' in handlers; did you mean 'Echo'?",
    ),
    "a module that raises": (
        ["-H", "broken:Echo"],
        "handler 'broken:Echo': importing it raised RuntimeError: not today",
    ),
    "a module that ends the program": (
        ["-H", "leaves:Echo"],
        "handler 'leaves:Echo': importing it raised SystemExit: 0",
    ),
    "no such folder": (["-p", "nowhere"], "nowhere': not a directory"),
    "unknown word in a file": (
        ["-c", "unknown.toml"],
        "unknown.toml:2:1: unknown word 'lisen'; did you mean 'listen'?",
    ),
    "wrong value in a file": (["-c", "wrong.toml"], "wrong.toml:3:11: threads: 0 is less than 1"),
    "bad description in a file": (
        ["-c", "description.toml"],
        "description.toml:3:10: listen 'tpc:0'",
    ),
    "not TOML": (["-c", "not.toml"], "not.toml:2:8: Expected '=' after a key in a key/value pair"),
    "no such file": (["-c", "nowhere.toml"], "config 'nowhere.toml': No such file or directory"),
    "option beside a file": (["-c", "good.toml", "-p", "nowhere"], "nowhere': not a directory"),
    "busy port": (["-l", "{busy}"], "listen '{busy}': Address already in use"),
    "busy second port": (
        ["-l", TCP, "-l", "{busy}"],
        "listen '{busy}': Address already in use",
    ),
    "busy port after a socket file": (
        ["-l", "unix:left", "-l", "{busy}"],
        "listen '{busy}': Address already in use",
    ),
    "busy port after a datagram socket file": (
        ["-l", "unixgram:left", "-l", "{busy}", "-H", "handlers:Either"],
        "listen '{busy}': Address already in use",
    ),
    "busy udp port": (
        ["-l", "{busy_udp}", "-H", "handlers:Packet"],
        "listen '{busy_udp}': Address already in use",
    ),
    "no certificates": (
        ["-l", "tls:0:nowhere"],
        "listen 'tls:0:nowhere': certificates in 'nowhere': No such file or directory",
    ),
    "garbage for certificates": (
        ["-l", "tls:0:garbage"],
        "listen 'tls:0:garbage': garbage/x.pem is not a PEM file",
    ),
    "broken certificates": (["-l", "tls:0:half"], "listen 'tls:0:half': "),
    "a key without its certificate": (
        ["-l", "tls:0:key", "-H", "handlers:Echo"],
        "listen 'tls:0:key': no certificate in 'key'",
    ),
    "no certificate for ssl": (
        ["-l", "ssl:0:privateKey=no.pem"],
        "listen 'ssl:0:privateKey=no.pem': ",
    ),
    "garbage for ssl": (
        ["-l", "ssl:0:privateKey=garbage/x.pem"],
        "listen 'ssl:0:privateKey=garbage/x.pem': ",
    ),
    "a name of a socket that is too long": (
        ["-l", "unix:" + "x" * 108],
        "AF_UNIX path too long: it has 108 bytes, and 107 are the most",
    ),
    "a link-local address without its zone": (
        ["-l", r"tcp6:0:interface=fe80\:\:1", "--check"],
        "interface 'fe80::1' is link-local and needs its zone, as interface=fe80",
    ),
    "a network interface for an address": (
        ["-l", "tcp:0:interface=lo", "--check"],
        "interface 'lo' is not an address, but the name of a network interface",
    ),
    "a NUL for an address": (
        ["-c", "nul.toml", "--check"],
        "nul.toml:2:10: listen 'tcp:0:interface=a\\x00b': interface 'a\\x00b' is not an address",
    ),
    "a domain that there is not": (
        ["-l", "systemd:domain=BOGUS:index=0"],
        "domain 'BOGUS' is not one of INET, INET6, UNIX",
    ),
    "a key that is encrypted": (
        ["-l", "ssl:0:privateKey=encrypted.txt:certKey=half/x.pem", "-H", "handlers:Echo"],
        "privateKey 'encrypted.txt': the private key in it is encrypted; take its passphrase away",
    ),
    "unknown kind of listener": (["-l", "tpc:0"], "listen 'tpc:0': "),
    "unknown word in a description": (["-l", "tcp:0:interfaec=::1"], "listen 'tcp:0:interfaec="),
    "port out of range": (["-l", "tcp:65536"], "listen 'tcp:65536': "),
    "negative port": (["-l", "tcp:-1"], "listen 'tcp:-1': "),
    "udp port out of range": (
        ["-l", "udp:65536", "-H", "handlers:Packet"],
        "listen 'udp:65536': port 65536 is not within 0 to 65535",
    ),
    "port that is no number": (["-l", "tcp:http"], "listen 'tcp:http': "),
    "missing folder of a socket file": (
        ["-l", "unix:no/sock"],
        "listen 'unix:no/sock': No such file or directory",
    ),
    "missing folder of a datagram socket file": (
        ["-l", "unixgram:no/sock", "-H", "handlers:Packet"],
        "listen 'unixgram:no/sock': No such file or directory",
    ),
    "somebody else's address": (
        ["-l", "tcp:0:interface=192.0.2.1"],
        "listen 'tcp:0:interface=192.0.2.1': Cannot assign requested address",
    ),
    "somebody else's address for udp": (
        ["-l", "udp:0:interface=192.0.2.1", "-H", "handlers:Packet"],
        "listen 'udp:0:interface=192.0.2.1': Cannot assign requested address",
    ),
    "bad network": (["--allow", "10.0.0.0/33"], "allow: network '10.0.0.0/33': "),
    "bad network to deny": (["--deny", "localhost"], "deny: network 'localhost': "),
    "bad network of proxies": (["--proxy-from", "x"], "proxy-from: network 'x': "),
    "bad number": (["--threads", "many"], "threads: 'many' is not a whole number"),
    "bad count": (["--max-connections", "0"], "max-connections: 0 is less than 1"),
    "bad phase": (
        ["--timeout", "idel=5"],
        "timeout: 'idel' is not one of handshake, idle, header,",
    ),
    "bad seconds": (["--timeout", "idle=soon"], "timeout idle: 'soon' is not a number of seconds"),
    "bad choice": (["--concurrency", "thread"], "did you mean 'threads'?"),
    "bad log format": (["--log-format", "jsno"], "log-format: 'jsno' is not one of combined, json"),
    "access log that cannot be": (
        ["--access-log", "no/such.log"],
        "access-log 'no/such.log': No such file or directory",
    ),
    "statistics log that cannot be": (
        ["--stats-log", "no/such.log"],
        "stats-log 'no/such.log': No such file or directory",
    ),
    "coroutine on threads": (
        ["-H", "handlers:Echo", "--threads", "4"],
        "threads: handler Echo is async def and runs on the reactor; leave threads out",
    ),
    "datagram handler on tcp": (
        ["-H", "handlers:Packet", "-l", TCP],
        f"listen '{TCP}': handler Packet serves datagrams; listen on udp:, udp6: or unixgram:",
    ),
    "stream handler on udp": (
        ["-H", "handlers:Echo", "-l", UDP],
        f"listen '{UDP}': handler Echo serves streams; listen on tcp:, tls: or unix:",
    ),
}


def lay_out(folder):
    """The files that C{MISTAKES} speak of."""
    pem = certificate_file(folder).read_bytes()
    key, _, _ = pem.partition(b"-----BEGIN CERTIFICATE")
    contents = {
        "broken.py": b"raise RuntimeError('not today')",
        "leaves.py": b"import sys; sys.exit(0)",
        "unknown.toml": b"[[server]]\nlisen = 'tcp:0'\n",
        "wrong.toml": b"[[server]]\n\nthreads = 0\n",
        "description.toml": b"[[server]]\n\nlisten = 'tpc:0'\n",
        "not.toml": b"[[server]]\nlisten tcp\n",
        "good.toml": b"[[server]]\n",
        "nul.toml": b'[[server]]\nlisten = "tcp:0:interface=a\\u0000b"\n',
        "encrypted.txt": b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIF\n",
        "garbage/x.pem": b"garbage",
        "half/x.pem": b"-----BEGIN CERTIFICATE-----\ngarbage\n-----END CERTIFICATE-----\n" + key,
        "key/x.pem": key,
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.fixture
def busy():
    """Two ports that somebody has."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        udp.bind(("127.0.0.1", 0))
        yield {
            "busy": f"tcp:{tcp.getsockname()[1]}:interface=127.0.0.1",
            "busy_udp": f"udp:{udp.getsockname()[1]}:interface=127.0.0.1",
        }


@pytest.fixture(scope="session")
def warm_python():
    """It has imported what C{twistd sockserve} does, for those that end soon."""
    python = WarmPython("twisted.scripts.twistd", "sockserve.tap", environ=environment())
    yield python
    python.end()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_it(warm_python, folder, busy, mistake):
    lay_out(folder)
    before = sorted(folder.iterdir())
    arguments, message = MISTAKES[mistake]
    arguments = [argument.format(**busy) for argument in arguments]
    if "-l" not in arguments and "-c" not in arguments:
        arguments = ["-l", UDP if "handlers:Packet" in arguments else TCP, *arguments]
    words = ["-n", "sockserve", *arguments]
    done = warm_python.run(RUN_TWISTD, *words, folder=folder, patience=PATIENCE_SECONDS * 2)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("sockserve: ")
    assert message.format(**busy) in done.stderr
    assert "Traceback" not in done.stdout
    # No twistd.pid and no socket's name is left.
    assert sorted(path for path in folder.iterdir() if path.name != "__pycache__") == before


def test_a_daemon_that_cannot_listen_says_so_where_it_was_started(folder, busy):
    before = sorted(folder.iterdir())
    done = run(*TWISTD, "sockserve", "-l", busy["busy"], folder=folder)
    assert done.returncode == 1
    said = f"listen '{busy['busy']}': Address already in use\n"
    assert done.stderr.decode() == f"sockserve: {said}"
    # The daemon says why it ends before it removes its file.
    eventually(lambda: not (folder / "twistd.pid").exists())
    left = {path.name for path in folder.iterdir()} - {path.name for path in before}
    assert left <= {"twistd.log"}
    log = (folder / "twistd.log").read_text()
    assert said in log
    assert "Traceback" not in log


def test_a_daemon(folder):
    done = run(*TWISTD, "sockserve", "-l", TCP, "--access-log", "accesses", folder=folder)
    pid_file = folder / "twistd.pid"
    try:
        assert (done.returncode, done.stderr) == (0, b"")
        eventually(pid_file.exists)
        eventually(lambda: "serving http://127.0.0.1:" in (folder / "twistd.log").read_text())
        url = (folder / "twistd.log").read_text().partition("serving ")[2].split()[0]
        listing = run(need_tool("curl"), "-sS", url).stdout
        assert b"handlers.py" in listing
        # It serves the folder that it writes these into, and not them.
        assert b"twistd" not in listing
        assert b"accesses" not in listing
        log = (folder / "twistd.log").read_text()
        assert "access-log 'accesses': clients get 404 for it" in log
        for name in ("twistd.pid", "twistd.log", "accesses"):
            head = run(need_tool("curl"), "-sSI", url + name).stdout
            assert head.startswith(b"HTTP/1.1 404 ")
    finally:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not pid_file.exists())
        eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert "Traceback" not in (folder / "twistd.log").read_text()


def test_a_daemon_waits_for_a_server_objects_requests(folder):
    """Though the object was made in another process."""
    options = ("--server", "handlers:make_waiting_server")
    done = run(*TWISTD, "--logfile=log", "sockserve", *options, folder=folder)
    assert (done.returncode, done.stderr) == (0, b"")
    pid_file, log = folder / "twistd.pid", folder / "log"
    eventually(pid_file.exists)
    pid = int(pid_file.read_text())
    try:
        eventually(lambda: "serving " in log.read_text())
        port = int(re.search(r"'127\.0\.0\.1', (\d+)", log.read_text())[1])
        with connect(("127.0.0.1", port)) as client:
            assert read_line(client) == b"begun\n"
            os.kill(pid, signal.SIGTERM)
            eventually(lambda: "Received SIGTERM" in log.read_text())
            client.sendall(b"go on\n")
            assert read_all(client) == b"0\n"
        eventually(lambda: not pid_file.exists())
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    assert "Traceback" not in log.read_text()


def test_help_names_every_option():
    done = run(*TWISTD, "sockserve", "--help")
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    for option in (
        *("listen", "handler", "path", "concurrency", "threads", "max-children", "timeout"),
        *("max-connections", "max-connections-per-peer", "allow", "deny", "proxy-from"),
        *("access-log", "log-format", "stats-log", "config", "check"),
    ):
        assert f"--{option}" in text


# As a part of an application


def test_a_handler_beside_an_applications_other_services(twistd, folder):
    server = twistd.tac(
        """
        from twisted.application.internet import StreamServerEndpointService
        from twisted.application.service import Application
        from twisted.internet import endpoints, protocol, reactor

        from handlers import Echo
        from sockserve import Deadlines
        from sockserve.service import RequestService

        class Greeter(protocol.Protocol):
            def connectionMade(self):
                self.transport.write(b"greetings")
                self.transport.loseConnection()

        application = Application("greeter")
        StreamServerEndpointService(
            endpoints.serverFromString(reactor, "unix:greeter"),
            protocol.Factory.forProtocol(Greeter),
        ).setServiceParent(application)

        RequestService.from_description(
            reactor, "unix:echo", Echo, deadlines=Deadlines(idle=60)
        ).setServiceParent(application)
        """,
        up=("Greeter", 0),
    )
    eventually((folder / "echo").exists)
    with connect(str(folder / "greeter")) as client:
        assert read_all(client) == b"greetings"
    with connect(str(folder / "echo")) as client:
        assert echoes(client)
    server.end()
    assert not (folder / "echo").exists()


def test_the_command_as_a_part_of_an_application(twistd, folder):
    server = twistd.tac(
        """
        from twisted.application.service import Application
        from sockserve.tap import Options, makeService

        options = Options()
        options.parseOptions(["--listen", "unix:echo", "--handler", "handlers:Echo"])
        application = Application("echo")
        makeService(options).setServiceParent(application)
        """,
        up=(": serving ", 1),
    )
    with connect(str(folder / "echo")) as client:
        assert echoes(client)
    server.end()


# Server objects


@pytest.mark.parametrize("make", ["make_server", "make_careful_server"])
def test_a_server_object(twistd, make):
    server = twistd("--server", f"handlers:{make}", "--timeout", "idle=60", "--access-log", "log")
    with connect(("127.0.0.1", server.port())) as client:
        assert echoes(client)
    server.end()


def test_a_server_object_that_shuts_down_ends_the_program(twistd, folder):
    """What is being answered is answered."""
    server = twistd("--server", "handlers:make_server")
    address = "127.0.0.1", server.port()
    with connect(address) as client, connect(address) as other:
        assert echoes(client)
        assert echoes(other)
        client.sendall(b"quit\n")
        assert read_all(client) == b"bye\n"
        server.line_with("has shut down")
        other.sendall(b"go on\n")
        assert read_all(other) == b""
    assert server.process.wait(PATIENCE_SECONDS) == 0
    assert server.errors == ""
    assert "Traceback" not in server.log


def test_children_of_a_server_object_are_ended_as_usual(twistd):
    """They have not the reactor's handlers, which would wait for it."""
    server = twistd("--server", "handlers:make_forking_server", "--timeout", "drain=0.5")
    address = "127.0.0.1", server.port()
    for number in (signal.SIGTERM, signal.SIGINT):
        with connect(address) as client, client.makefile("rb") as answers:
            child = int(answers.readline())
            assert echoes(client)
            os.kill(child, number)
            assert answers.read() == b""
    with connect(address) as client:
        assert read_line(client)
        server.end()  # by force, after half a second
        assert read_all(client) == b""


def test_a_server_object_is_closed_when_it_is_only_checked(folder):
    checked = run(
        *TWISTD, "sockserve", "--server", "handlers:make_told_server", "--check", folder=folder
    )
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.splitlines()[-1] == b"closed"


def test_a_server_object_among_others_ends_alone(twistd, folder):
    (folder / "s.toml").write_text(
        f'[[server]]\nserver = "handlers:make_server"\n[[server]]\nlisten = "{TCP}"\n'
    )
    server = twistd("--config", "s.toml", listeners=2)
    web = int(server.line_with("http://").rstrip("/").rpartition(":")[2])
    [port] = [port for port in server.ports("tcp") if port != web]
    with connect(("127.0.0.1", port)) as client:
        assert echoes(client)
        client.sendall(b"quit\n")
        assert read_all(client) == b"bye\n"
    eventually(lambda: server.ports("tcp") == [web])
    server.end()


# The receiver of the logging cookbook

RECEIVER = """
import pickle
import logging
import logging.handlers
import socketserver
import struct


class LogRecordStreamHandler(socketserver.StreamRequestHandler):
    '''Handler for a streaming logging request.

    This basically logs the record using whatever logging policy is
    configured locally.
    '''

    def handle(self):
        '''
        Handle multiple requests - each expected to be a 4-byte length,
        followed by the LogRecord in pickle format. Logs the record
        according to whatever policy is configured locally.
        '''
        while True:
            chunk = self.connection.recv(4)
            if len(chunk) < 4:
                break
            slen = struct.unpack('>L', chunk)[0]
            chunk = self.connection.recv(slen)
            while len(chunk) < slen:
                chunk = chunk + self.connection.recv(slen - len(chunk))
            obj = self.unPickle(chunk)
            record = logging.makeLogRecord(obj)
            self.handleLogRecord(record)

    def unPickle(self, data):
        return pickle.loads(data)

    def handleLogRecord(self, record):
        # if a name is specified, we use the named logger rather than the one
        # implied by the record.
        if self.server.logname is not None:
            name = self.server.logname
        else:
            name = record.name
        logger = logging.getLogger(name)
        # N.B. EVERY record gets logged. This is because Logger.handle
        # is normally called AFTER logger-level filtering. If you want
        # to do filtering, do it at the client end to save wasting
        # cycles and network bandwidth!
        logger.handle(record)
"""

RECEIVER_TAC = """
import logging
from twisted.application.service import Application
from twisted.internet import reactor

from receiver import LogRecordStreamHandler
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.service import RequestService

logging.basicConfig(filename="received", format="%(name)s %(levelname)s %(message)s")

class LogRecordSocketReceiver(StreamFactory):
    logname = None

application = Application("receiver")
RequestService.from_description(
    reactor, {description!r}, LogRecordStreamHandler, factory=LogRecordSocketReceiver
).setServiceParent(application)
"""


class TLSSocketHandler(logging.handlers.SocketHandler):
    def makeSocket(self, timeout=PATIENCE_SECONDS):
        return secure(super().makeSocket(timeout))

    def close(self):
        # The session tickets of TLS 1.3 are still unread, and closing a socket with unread data
        # resets the connection, which may cost what was sent last. An orderly end reads them.
        if self.sock is not None:
            self.sock.unwrap()
        super().close()


@pytest.mark.parametrize(
    ("kind", "client"), [("tcp", logging.handlers.SocketHandler), ("ssl", TLSSocketHandler)]
)
def test_the_logging_cookbooks_receiver(twistd, folder, kind, client):
    (folder / "receiver.py").write_text(RECEIVER)
    pem = certificate_file(folder)
    description = TCP if kind == "tcp" else f"ssl:0:privateKey={pem}:certKey={pem}"
    server = twistd.tac(RECEIVER_TAC.format(description=description), up=("starting up", 1))
    eventually(lambda: server.ports("tcp"))

    texts = ["Quick zephyrs blow, vexing daft Jim.", "x" * 200_000, "Jail zesty vixen."]
    port, rounds = server.port(), 20
    for _ in range(rounds):
        sending = client("127.0.0.1", port)
        logger = logging.Logger("myapp.area1")
        logger.addHandler(sending)
        try:
            for text in texts:
                logger.warning("%s", text)
        finally:
            sending.close()

    received = folder / "received"
    lines = len(texts) * rounds
    eventually(lambda: received.exists() and received.read_text().count("\n") == lines)
    assert sorted(received.read_text().splitlines()) == sorted(
        f"myapp.area1 WARNING {text}" for text in texts * rounds
    )
    server.end()
    assert "deadline expired" not in server.log  # no handler was left waiting
