"""What the tests here serve with: a service on real sockets, and blocking clients for it."""

import datetime
import functools
import os
import select
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from sockserve import Deadlines
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.service import RequestService
from tests.patience import PATIENCE_SECONDS

LOOPBACK = "tcp:0:interface=127.0.0.1"

ROOT = Path(__file__).parents[2]

#: Whom the PROXY header of the tests' clients names.
PROXIED_CLIENT = ("192.0.2.7", 4711)
PROXIED_SERVER = ("192.0.2.80", 80)
PROXY_HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.80 4711 80\r\n"


# Serving


@asynccontextmanager
async def running(service: RequestService) -> AsyncIterator[RequestService]:
    """Start a service and stop it in the end."""
    service.startService()
    try:
        yield service
    finally:
        await service.stopService()


@asynccontextmanager
async def serving(
    handler: Callable[..., Any], description: str = LOOPBACK, **options: Any
) -> AsyncIterator[StreamFactory]:
    """Serve C{handler}; gives the server object."""
    from twisted.internet import reactor

    service = RequestService.from_description(reactor, description, handler, **options)
    async with running(service):
        yield service.server


async def until(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for what only shows from outside when it has happened, such as a counter."""
    from twisted.internet import reactor

    deadline = reactor.seconds() + seconds
    while not condition():
        assert reactor.seconds() < deadline, f"did not come true within {seconds} s"
        await deferLater(reactor, 0.01)


def link_local_address() -> tuple[str, str]:
    """
    A link-local address of this machine's and its interface; what is sent there by the machine
    itself never leaves it.  Where there is none, the test is skipped.
    """
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        lines = []
    for host, _, _, _, flags, interface in map(str.split, lines):
        is_usable = not int(flags, 16) & 0x68  # IFA_F_DADFAILED, _DEPRECATED, _TENTATIVE
        if host.startswith("fe80") and is_usable:
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(host)), interface
    pytest.skip("no interface has a link-local address")


def in_thread(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """Run a blocking client beside the reactor."""
    return deferToThread(function, *arguments)


def counts(server: StreamFactory) -> dict[str, Any]:
    """The counters that say how requests ended, without those that are 0."""
    shown = server.statistics.snapshot()
    names = ("accepted", "active", "refused", "requests", "errors", "expiries", "abandoned")
    return {name: shown[name] for name in names if shown[name]}


# Clients


def connect(address: Any, *, bound_to: str | None = None) -> socket.socket:
    """A blocking client of the server at C{address}, which is as C{server_address}."""
    if isinstance(address, (str, bytes)):
        client = socket.socket(socket.AF_UNIX)
    else:
        client = socket.socket(socket.AF_INET6 if len(address) == 4 else socket.AF_INET)
    try:
        client.settimeout(PATIENCE_SECONDS)
        if bound_to is not None:
            client.bind((bound_to, 0))
        client.connect(address)
    except BaseException:
        client.close()
        raise
    return client


def read_all(client: socket.socket) -> bytes:
    """Everything up to end of file."""
    parts = []
    while part := client.recv(2**16):
        parts.append(part)
    return b"".join(parts)


def read_exactly(client: socket.socket, size: int) -> bytes:
    """C{size} bytes, or fewer at end of file."""
    parts = []
    while size and (part := client.recv(min(size, 2**16))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_line(client: socket.socket) -> bytes:
    """A line, and nothing behind it."""
    line = b""
    while not line.endswith(b"\n") and (byte := client.recv(1)):
        line += byte
    return line


def is_ended(client: socket.socket) -> bool:
    """Wait for the server's end of the connection, in order or by a reset."""
    try:
        while client.recv(2**16):
            pass
    except ConnectionError:
        pass
    return True


def turned_away(address: Any, said: bytes = b"", *, bound_to: str | None = None) -> bool:
    """Whether the server ends the connection at once, however far a client comes with it."""
    try:
        with connect(address, bound_to=bound_to) as client:
            client.sendall(said)
            return is_ended(client)
    except ConnectionError:
        return True


def reset(client: socket.socket) -> None:
    """Close so that the server gets an RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def come_and_go(kind: str, address: Any, count: int) -> None:
    """
    Clients, one after another, that go at once, after a piece of a message, and while the
    answer comes; in order and by a reset.
    """
    for number in range(count):
        client = connect_as(kind, address)
        if number % 3:
            client.sendall(b"mess")
        if number % 3 == 2:
            client.sendall(b"age\n" * 5000)
        if number % 2:
            reset(client)
        else:
            client.close()


# TLS


@functools.cache
def certificate_pem(name: str = "localhost") -> bytes:
    """A key and a certificate that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)


def certificate_file(folder: Path, name: str = "localhost") -> Path:
    """L{certificate_pem} as a file."""
    path = folder / f"{name}.pem"
    path.write_bytes(certificate_pem(name))
    return path


def trusting(certificate: Path | None = None) -> ssl.SSLContext:
    """A client's context that takes any server; with a certificate of its own or none."""
    # Not the default one, which reads all authorities of the machine, 30 ms each time.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context


def connect_tls(address: Any, certificate: Path | None = None) -> ssl.SSLSocket:
    """L{connect} and the handshake."""
    return secure(connect(address), certificate)


def secure(client: socket.socket, certificate: Path | None = None) -> ssl.SSLSocket:
    """The handshake, on a connection there is."""
    try:
        return trusting(certificate).wrap_socket(client, suppress_ragged_eofs=False)
    except BaseException:
        client.close()
        raise


# One table of transports


def description(kind: str, folder: Path) -> str:
    """
    @param kind: C{tcp}, C{tcp6}, C{unix}, C{ssl}, C{tls}, or one of these behind
        C{haproxy:}.
    """
    if kind.startswith("haproxy:"):
        return "haproxy:" + description(kind.removeprefix("haproxy:"), folder)
    if kind == "tcp":
        return LOOPBACK
    if kind == "tcp6":
        return "tcp6:0:interface=\\:\\:1"
    if kind == "unix":
        return f"unix:{folder / 'socket'}"
    pem = certificate_file(folder)
    if kind == "ssl":
        return f"ssl:0:privateKey={pem}:certKey={pem}:interface=127.0.0.1"
    if kind == "tls":
        return f"tls:0:{folder}:interface=127.0.0.1"
    raise ValueError(kind)


def connect_as(kind: str, address: Any) -> socket.socket:
    """A client for a server that listens on L{description} of C{kind}."""
    if kind.startswith("haproxy:"):
        behind = kind.removeprefix("haproxy:")
        client = connect(address)
        client.sendall(PROXY_HEADER)
        return secure(client) if behind in ("ssl", "tls") else client
    if kind in ("ssl", "tls"):
        client = connect(address)
        context = trusting()
        return context.wrap_socket(client, server_hostname="localhost")
    return connect(address)


# Servers in a process of their own


class Child:
    """
    A server in a process of its own, by L{tests.integration.child}.

    @ivar address: where it listens.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._heard = ""
        assert process.stdout is not None
        listening = process.stdout.readline()
        if not listening:
            raise AssertionError(f"the server did not start: {self.log()}")
        self.address: Any = eval(listening)  # what the child printed with repr

    @property
    def pid(self) -> int:
        return self._process.pid

    def memory(self, name: str) -> int:
        """A size in its C{/proc/PID/status} in bytes, such as C{VmRSS}."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        raise KeyError(name)

    def forget_peak(self) -> int:
        """Let C{VmHWM} begin anew; gives what is resident now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self.memory("VmRSS")

    def log(self) -> str:
        """Stop it (again has no effect); everything it logged."""
        self._process.terminate()
        if not hasattr(self, "_log"):
            self._log = self._heard + self._process.communicate(timeout=PATIENCE_SECONDS)[1]
        return self._log

    def wait_for_log(self, text: str) -> None:
        """Wait until it has logged C{text}."""
        assert self._process.stderr is not None
        stderr = self._process.stderr.fileno()  # below the buffer, which L{log} passes by, too
        while text not in self._heard:
            ready, _, _ = select.select([stderr], [], [], PATIENCE_SECONDS)
            assert ready, f"it did not log {text!r} within {PATIENCE_SECONDS} s: {self._heard}"
            part = os.read(stderr, 2**16)
            assert part, f"it ended before it logged {text!r}: {self._heard}"
            self._heard += part.decode(errors="replace")


@contextmanager
def child(
    where: str, handler: str, *options: str, wrapper: tuple[str, ...] = (), **popen: Any
) -> Iterator[Child]:
    """
    Serve C{handler}, the name of a class in L{tests.integration.handlers}.  Blocks.

    @param wrapper: a command to run the command with.
    """
    command = [*wrapper, sys.executable, "-m", "tests.integration.child", where, handler, *options]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **popen,
    ) as process:
        server = None
        try:
            server = Child(process)
            yield server
        finally:
            if server is not None:
                server.log()
            process.kill()


def short(**seconds: float | None) -> Deadlines:
    """Deadlines with a short C{drain}, for handlers that do not come to their end."""
    return Deadlines(**{"drain": 0.5, **seconds})
