"""
Programs from the package index, started by their own commands, with C{python} and with C{python -m
sockserve}: clients get the same answers, and the programs end the same way.
"""

import base64
import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jsonrpclib
import pytest
from dnslib import DNSRecord
from dulwich import porcelain
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import build_msg

from tests.integration.servers import PATIENCE_SECONDS, connect, read_all, read_exactly
from tests.integration.socketservers import eventually
from tests.ports import free_port
from tests.processes import children_of
from tests.programs.test_relays import WebSocket

pytestmark = pytest.mark.usefixtures("no_leaks")

HERE = Path(__file__).parent


# What listens


def descendants(pid):
    """A process, its children, their children."""
    return [str(pid), *(each for child in children_of(pid) for each in descendants(child))]


def ports_of(pid, is_udp):
    """The ports that a process and its children listen on, or have for datagrams."""
    inodes = set()
    for each in descendants(pid):
        with contextlib.suppress(OSError):
            for fd in os.scandir(f"/proc/{each}/fd"):
                with contextlib.suppress(OSError):
                    inodes.add(os.readlink(fd.path))
    if not any(inode.startswith("socket:") for inode in inodes):
        return set()
    table, state = ("udp", "07") if is_udp else ("tcp", "0A")
    lines = [line.split() for line in Path("/proc/net", table).read_text().splitlines()[1:]]
    return {
        int(words[1].rpartition(":")[2], 16)
        for words in lines
        if words[3] == state and f"socket:[{words[9]}]" in inodes
    }


# What clients ask


def ask(port, method, path, body=None, **headers):
    """A request, and all that is said in answer to it but for the time and the port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        with connection.sock.dup() as sock:
            response = connection.getresponse()
            said = [(name, value) for name, value in response.getheaders() if name != "Date"]
            answer = (response.status, response.reason, response.version, said, response.read())
            # A server may still be busy with the request until it has closed the connection.
            # (Werkzeug's reads what is left of the request's body, to the end of file.)
            if response.will_close:
                with contextlib.suppress(OSError):  # it may be gone
                    sock.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    assert sock.recv(1) == b""
    return eval(repr(answer).replace(str(port), "PORT"))


def ask_bottle(port):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    return [
        ask(port, "GET", "/hello/you"),
        ask(port, "POST", "/post", "name=x", **form),
        ask(port, "GET", "/none"),
    ]


def ask_for_upload(port):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="new.txt"\r\n\r\n'
        b"uploaded\r\n--x--\r\n"
    )
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    return [
        ask(port, "GET", "/a.txt"),
        ask(port, "GET", "/upload"),
        ask(port, "POST", "/upload", body, **form),
        ask(port, "GET", "/new.txt")[-1],
    ]


def ask_for_ranges(port):
    return [ask(port, "GET", "/a.txt"), ask(port, "GET", "/a.txt", Range="bytes=1-3")]


def ask_with_password(port):
    word = base64.b64encode(b"user:secret").decode()
    return [ask(port, "GET", "/a.txt"), ask(port, "GET", "/a.txt", Authorization=f"Basic {word}")]


def ask_for_packages(port):
    return [
        ask(port, "GET", path)
        for path in ("/", "/simple/", "/simple/thing/", "/packages/thing-1.0.tar.gz")
    ]


def ask_for_repository(port):
    with connect(("127.0.0.1", port)) as client:
        request = b"git-upload-pack repository\0host=localhost\0"
        client.sendall(b"%04x%b" % (len(request) + 4, request) + b"0000")
        return read_all(client)


EVENT = """BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nBEGIN:VEVENT\r\nUID:1\r\n\
DTSTAMP:20250101T000000Z\r\nDTSTART:20250101T000000Z\r\nSUMMARY:a\r\nEND:VEVENT\r\n\
END:VCALENDAR\r\n"""


def ask_for_calendar(port):
    who = {"Authorization": "Basic " + base64.b64encode(b"user:x").decode()}
    return [
        ask(port, "MKCALENDAR", "/user/c/", **who)[:3],
        ask(port, "PUT", "/user/c/1.ics", EVENT, **who)[:3],
        ask(port, "GET", "/user/c/1.ics", **who)[-1],
        ask(port, "PROPFIND", "/user/c/", Depth="1", **who)[:3],
        ask(port, "DELETE", "/user/c/1.ics", **who)[:3],
    ]


def ask_for_name(port):
    question = DNSRecord.question("a.test")
    question.header.id = 7
    return [
        question.send("127.0.0.1", port, timeout=PATIENCE_SECONDS),
        DNSRecord.parse(DNSRecord.question("b.test").send("127.0.0.1", port)).header.rcode,
    ]


def looks_for_its_threads(pid):
    """Whether dnserver's main thread wakes up again and again to see that its servers run."""
    threads = Path(f"/proc/{pid}/task")
    looks = []
    if len(list(threads.iterdir())) > 2:
        for _ in range(3):
            status = (threads / str(pid) / "status").read_text()
            looks += re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)
            time.sleep(0.3)
    return len(set(looks)) == 3


def ask_for_echo(port):
    client = WebSocket(SimpleNamespace(address=("127.0.0.1", port)))
    client.send(b"hello")
    answer = client.receive()
    client.send(b"", 8)
    client.drop()
    return answer


def ask_json(port):
    proxy = jsonrpclib.ServerProxy(f"http://127.0.0.1:{port}")
    answers = [proxy.pow(2, 5), proxy.turn("abc")]
    with pytest.raises(jsonrpclib.ProtocolError) as fault:
        proxy.none()
    proxy("close")()
    return [*answers, str(fault.value)]


def ask_osc(port):
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE_SECONDS)
        client.connect(("127.0.0.1", port))
        client.send(b"no message")
        client.send(build_msg("/add", [1, 2, 3]).dgram)
        return OscMessage(client.recv(1000)).params


def ask_paste(port):
    return [ask(port, "GET", "/a"), ask(port, "POST", "/b", b"x" * 100_000)]


def ask_modbus(port):
    answers = []
    with connect(("127.0.0.1", port)) as client:
        for pdu in (b"\6\0\1\0\7", b"\3\0\0\0\2", b"\3\0\x63\0\1"):
            client.sendall(struct.pack(">HHHB", 1, 0, len(pdu) + 1, 1) + pdu)
            head = read_exactly(client, 7)
            answers.append(head + read_exactly(client, head[5] - 1))
    return answers


def ask_robot(port):
    with xmlrpc.client.ServerProxy(f"http://127.0.0.1:{port}") as proxy:
        return [
            proxy.get_keyword_names(),
            proxy.run_keyword("add_all", ["1", "2", "3"]),
            proxy.run_keyword("add_all", ["x"])["status"],
        ]


def ask_for_page(port):
    return [ask(port, "GET", "/"), ask(port, "GET", "/none")[:3], ask(port, "POST", "/", b"x")[:3]]


class Case(NamedTuple):
    """
    A program.

    @ivar command: what follows C{python}; PORT stands for one that is free.
    @ivar ask: a client: given the port, it gives what is to be the same.
    @ivar udp: whether that port is of UDP.
    @ivar ready: whether a process, given its id, has come to where it expects an interrupt.
    """

    command: str
    ask: Callable[[int], object]
    udp: bool = False
    ready: Callable[[int], bool] = lambda pid: True


CASES = {
    "bottle": Case("-m bottle --bind 127.0.0.1:0 bottled", ask_bottle),
    "django": Case("manage.py runserver 127.0.0.1:0", ask_for_page),
    "dnserver": Case(
        "-m dnserver zones.toml --port 0 --no-upstream",
        ask_for_name,
        udp=True,
        ready=looks_for_its_threads,
    ),
    "dulwich": Case("-m dulwich daemon -l 127.0.0.1 -p PORT", ask_for_repository),
    "flask": Case("-m flask --app flask_hello run --port 0", ask_for_page),
    "http.server": Case("-m http.server --bind 127.0.0.1 0", ask_for_page),
    "jsonrpclib": Case("json_rpc.py", ask_json),
    "paste": Case("pasted.py", ask_paste),
    "pypiserver": Case(
        "-m pypiserver run -i 127.0.0.1 -p 0 --disable-fallback --server wsgiref packages",
        ask_for_packages,
    ),
    "python-osc": Case("osc.py", ask_osc, udp=True),
    "radicale": Case(
        "-m radicale --config= --server-hosts 127.0.0.1:PORT --auth-type none"
        " --storage-filesystem-folder store --logging-level error",
        ask_for_calendar,
    ),
    "RangeHTTPServer": Case("-m RangeHTTPServer --bind 127.0.0.1 0", ask_for_ranges),
    "robotremoteserver": Case("robot_library.py", ask_robot),
    "sauth": Case("-m sauth user secret 127.0.0.1 0 --thread", ask_with_password),
    "umodbus": Case("umodbus_server.py", ask_modbus),
    "uploadserver": Case("-m uploadserver --bind 127.0.0.1 0", ask_for_upload),
    "websocket-server": Case("websocket_echo.py", ask_for_echo),
}


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A folder with what the programs serve, and those that are files here."""
    folder = tmp_path_factory.mktemp("site")
    for name in {word for case in CASES.values() for word in case.command.split()}:
        if (HERE / name).is_file() and name.endswith(".py"):
            shutil.copy(HERE / name, folder)
    for name in ("bottled.py", "flask_hello.py"):
        shutil.copy(HERE / name, folder)
    (folder / "a.txt").write_text("0123456789\n")
    (folder / "packages").mkdir()
    (folder / "packages" / "thing-1.0.tar.gz").write_text("x")
    (folder / "zones.toml").write_text(
        '[[zones]]\nhost = "a.test"\ntype = "A"\nanswer = "192.0.2.7"\n'
    )
    (folder / "repository").mkdir()
    repository = folder / "repository"
    porcelain.init(repository).close()
    who = b"a <a@a.test>"
    porcelain.commit(repository, message=b"first", author=who, committer=who, commit_timestamp=0)
    return folder


class Running:
    """A program that runs, in a copy of the folder."""

    def __init__(self, case, site, folder, stack, *before):
        shutil.copytree(site, folder)
        words = [word.replace("PORT", str(free_port())) for word in case.command.split()]
        self.case = case
        self.log = log = tempfile.TemporaryFile()  # noqa: SIM115
        stack.enter_context(log)
        self.process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, *before, *words],
                cwd=folder,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )
        stack.callback(self.kill)

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def ask(self):
        ports = set()

        def is_there():
            assert self.process.poll() is None, self.said()
            ports.update(ports_of(self.process.pid, self.case.udp))
            return ports

        eventually(is_there)
        return self.case.ask(min(ports))

    def interrupt(self):
        """Ctrl-C; gives the status that it ends with."""
        eventually(lambda: self.case.ready(self.process.pid))
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(PATIENCE_SECONDS)

    def said(self):
        self.log.seek(0)
        return self.log.read().decode()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_its_clients_cannot_tell(case, site, tmp_path):
    with contextlib.ExitStack() as stack:
        plain = Running(case, site, tmp_path / "plain", stack)
        ours = Running(case, site, tmp_path / "ours", stack, "-m", "sockserve", "--explain")
        assert ours.ask() == plain.ask(), ours.said()
        assert ours.interrupt() == plain.interrupt(), ours.said()
        said = ours.said()
        assert "socketserver and http.server are replaced by sockserve's\n" in said
        assert re.search(r"^sockserve(\[\d+\])?: \S+ on \S+, with \S+: ", said, re.MULTILINE), said
