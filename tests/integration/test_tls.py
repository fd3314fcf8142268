"""TLS: certificates, STARTTLS, and clients that do not keep to it."""

import socket
import socketserver
import ssl
import time

import pytest
from cryptography import x509
from twisted.internet import endpoints
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    trustRootFromCertificates,
)

from sockserve import DeadlineExpired, Deadlines, StreamRequestHandler
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.service import RequestService
from tests.integration.handlers import PIECE, BlockingEcho, Echo
from tests.integration.servers import (
    PROXY_HEADER,
    certificate_file,
    certificate_pem,
    connect,
    connect_tls,
    counts,
    description,
    in_thread,
    is_ended,
    read_all,
    read_exactly,
    read_line,
    running,
    secure,
    serving,
    until,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")


def server_context() -> CertificateOptions:
    return PrivateCertificate.loadPEM(certificate_pem()).options()


# The client's certificate


def common_name(certificate):
    return certificate.subject.rfc4514_string().removeprefix("CN=").encode()


class CommonName(StreamRequestHandler):
    async def handle(self):
        certificate = self.request.getPeerCertificate()
        if certificate is None:
            self.wfile.write(b"none")
        else:
            self.wfile.write(common_name(certificate.to_cryptography()))


class BlockingCommonName(socketserver.StreamRequestHandler):
    def handle(self):
        certificate = self.request.getpeercert()
        if certificate is None:
            self.wfile.write(b"none")
        else:
            self.wfile.write(common_name(x509.load_der_x509_certificate(certificate)))


@pytest.mark.parametrize("handler", [CommonName, BlockingCommonName])
@pytest.mark.parametrize("name", ["none", "alice"])
async def test_peer_certificate(handler, name, tmp_path):
    from twisted.internet import reactor

    alice = certificate_file(tmp_path, "alice")
    own = PrivateCertificate.loadPEM(certificate_pem())
    context = CertificateOptions(
        privateKey=own.privateKey.original,
        certificate=own.original,
        trustRoot=trustRootFromCertificates([Certificate.loadPEM(alice.read_bytes())]),
    )
    context.requireCertificate = False  # ask, but take clients without one
    endpoint = endpoints.SSL4ServerEndpoint(reactor, 0, context, interface="127.0.0.1")

    def talk(address):
        with connect_tls(address, alice if name == "alice" else None) as client:
            return read_exactly(client, len(name))

    async with running(
        RequestService(endpoint, StreamFactory(handler, reactor=reactor))
    ) as service:
        assert await in_thread(talk, service.server.server_address) == name.encode()


@pytest.mark.parametrize("handler", [CommonName, BlockingCommonName])
async def test_no_certificate_without_tls(handler):
    if handler is BlockingCommonName:
        pytest.skip("a lent socket is the kernel's, which knows of no certificates")

    def talk(address):
        with connect(address) as client:
            return read_all(client)

    async with serving(handler) as server:
        assert await in_thread(talk, server.server_address) == b"none"


# STARTTLS


class StartTLS(StreamRequestHandler):
    """As SMTP does."""

    async def handle(self):
        self.wfile.write(b"220 ready\n")
        assert await self.rfile.readline() == b"STARTTLS\n"
        self.wfile.write(b"220 go ahead\n")
        try:
            await self.start_tls(server_context())
        except Exception as error:
            self.server.caught = error
            raise
        async for line in self.rfile:
            self.wfile.write(b"secret " + line)


def start_tls(client):
    assert read_line(client) == b"220 ready\n"
    client.sendall(b"STARTTLS\n")
    assert read_line(client) == b"220 go ahead\n"


@pytest.mark.parametrize("kind", ["tcp", "unix", "haproxy:tcp"])
async def test_start_tls(kind, tmp_path):
    def talk(address):
        client = connect(address)
        if kind == "haproxy:tcp":
            client.sendall(PROXY_HEADER)
        start_tls(client)
        with secure(client) as secured:
            secured.sendall(b"hello\n")
            return read_exactly(secured, 13)

    async with serving(StartTLS, description(kind, tmp_path)) as server:
        assert await in_thread(talk, server.server_address) == b"secret hello\n"
        await until(lambda: not server.statistics.active)
        assert server.statistics.errors == 0


async def test_start_tls_behind_much_output():
    """What was written before leaves before, in clear."""

    class Handler(StreamRequestHandler):
        async def handle(self):
            self.wfile.write(PIECE * 128)
            await self.start_tls(server_context())
            self.wfile.write(b"secret")

    def talk(address):
        client = connect(address)
        time.sleep(0.2)
        assert read_exactly(client, len(PIECE) * 128) == PIECE * 128
        with secure(client) as secured:
            return read_exactly(secured, 6)

    async with serving(Handler) as server:
        assert await in_thread(talk, server.server_address) == b"secret"


async def test_start_tls_with_bytes_unread_is_refused(errors):
    """Who injects commands in clear before the handshake does not have them run behind it."""

    def talk(address):
        with connect(address) as client:
            assert read_line(client) == b"220 ready\n"
            client.sendall(b"STARTTLS\nINJECTED\n")
            return is_ended(client)

    async with serving(StartTLS) as server:
        assert await in_thread(talk, server.server_address)
    assert isinstance(server.caught, RuntimeError)
    assert len(errors) == 1
    errors.clear()


async def test_start_tls_is_under_the_handshake_deadline():
    """1 s (handshake), though idle is 300."""

    def talk(address):
        with connect(address) as client:
            start_tls(client)
            return is_ended(client)

    async with serving(StartTLS, deadlines=Deadlines(handshake=1)) as server:
        assert await in_thread(talk, server.server_address)
        await until(lambda: not server.statistics.active)
        assert counts(server)["expiries"] == {"handshake": 1}
    assert isinstance(server.caught, DeadlineExpired)
    assert server.caught.phase == "handshake"


async def test_start_tls_fails_with_its_client():
    def talk(address):
        with connect(address) as client:
            start_tls(client)

    async with serving(StartTLS) as server:
        await in_thread(talk, server.server_address)
        await until(lambda: not server.statistics.active)
        assert server.statistics.errors == 0
    assert isinstance(server.caught, ConnectionError)


# Clients that do not keep to it


@pytest.mark.parametrize("handler", [Echo, BlockingEcho])
@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01", b"GET / HTTP/1.0\r\n\r\n", b"\0" * 5000])
async def test_no_handshake_is_no_error(handler, said, tmp_path):
    def talk(address):
        with connect(address) as client:
            client.sendall(said)
            client.shutdown(socket.SHUT_WR)
            return is_ended(client)

    async with serving(handler, description("ssl", tmp_path)) as server:
        assert await in_thread(talk, server.server_address)
        await until(lambda: counts(server) == {"accepted": 1})


@pytest.mark.parametrize("handler", [Echo, BlockingEcho])
async def test_old_protocol_version_is_refused_without_an_error(handler, tmp_path):
    def talk(address):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED  # and the server's is not known
        with connect(address) as client, pytest.raises(ssl.SSLError):
            context.wrap_socket(client)

    async with serving(handler, description("ssl", tmp_path)) as server:
        await in_thread(talk, server.server_address)
        await until(lambda: server.statistics.accepted == 1 and not server.statistics.active)
        assert server.statistics.errors == 0


@pytest.mark.parametrize("handler", [Echo, BlockingEcho])
async def test_client_that_ends_tls_in_order_gets_its_answers(handler, tmp_path):
    def talk(address):
        with connect_tls(address) as client:
            client.sendall(b"hello\n")
            assert read_exactly(client, 6) == b"hello\n"
            return client.unwrap().recv(1)

    async with serving(handler, description("ssl", tmp_path)) as server:
        assert await in_thread(talk, server.server_address) == b""
        await until(lambda: counts(server) == {"accepted": 1, "requests": 1})


class Farewell(StreamRequestHandler):
    async def handle(self):
        self.wfile.write(PIECE * 64)


class BlockingFarewell(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(PIECE * 64)


@pytest.mark.parametrize("handler", [Farewell, BlockingFarewell])
async def test_client_that_never_confirms_the_end_is_aborted(handler, tmp_path):
    """After 3 s (write), though it has read everything."""

    def talk(address):
        client = connect_tls(address)
        time.sleep(0.3)  # so that the server has to wait with its output
        assert read_exactly(client, len(PIECE) * 64) == PIECE * 64
        return client

    deadlines = Deadlines(write=3)
    async with serving(handler, description("ssl", tmp_path), deadlines=deadlines) as server:
        client = await in_thread(talk, server.server_address)
        try:
            await until(lambda: not server.statistics.active)
        finally:
            client.close()


@pytest.mark.parametrize("handler", [Farewell, BlockingFarewell])
async def test_client_that_does_not_confirm_the_end_is_waited_for_as_long_as_one_that_lingers(
    handler, tmp_path
):
    """Not for C{write}, here for ever; and from when it has taken all, be it slow in that."""

    def talk(address):
        client = connect_tls(address)
        time.sleep(0.5)  # so that the server has to wait with its output for longer than that
        assert read_exactly(client, len(PIECE) * 64) == PIECE * 64
        return client

    deadlines = Deadlines(write=None, linger=0.1)
    records = []
    async with serving(handler, description("ssl", tmp_path), deadlines=deadlines) as server:
        server.observers.append(records.append)
        client = await in_thread(talk, server.server_address)
        with client:
            await until(lambda: not server.statistics.active)
            assert await in_thread(is_ended, client)
    assert [record.outcome for record in records] == ["ok"]


async def test_tls_behind_a_proxy_header(tmp_path):
    """The header comes before TLS, as proxies send it."""

    def talk(address):
        client = connect(address)
        client.sendall(PROXY_HEADER)
        with secure(client) as secured:
            secured.sendall(b"hello\n")
            return read_exactly(secured, 6)

    async with serving(Echo, "haproxy:" + description("ssl", tmp_path)) as server:
        assert await in_thread(talk, server.server_address) == b"hello\n"
