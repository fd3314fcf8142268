"""TLS listeners: clients that speak plain HTTP, and when a folder of certificates is read."""

import os
from pathlib import Path

import pytest
from OpenSSL import SSL
from twisted.internet.defer import succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from sockserve.listeners.certificates import read_folder
from sockserve.listeners.tls import LOOK_SECONDS, CertificateFolder, TLSEndpoint
from tests.integration.servers import certificate_file

pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")


class Listening:
    """
    An endpoint in memory.

    @ivar factory: makes its connections.
    """

    def listen(self, factory):
        self.factory = factory
        return succeed(None)


class Transport(StringTransport):
    """A transport whose output can end before it."""

    def loseWriteConnection(self):
        """Do nothing: the client does not look."""


def connection_in_plain_http(clock, linger):
    """A connection whose client has been told that it speaks plain HTTP; and its transport."""
    below = Listening()
    TLSEndpoint(clock, below, CertificateOptions(), linger).listen(Factory.forProtocol(Protocol))
    connection, transport = below.factory.buildProtocol(None), Transport()
    connection.makeConnection(transport)
    connection.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
    assert transport.value().startswith(b"HTTP/1.1 400 ")
    return connection, transport


# A client that speaks plain HTTP


def test_it_may_go_on_for_as_long_as_linger_says():
    """5 s after the answer, whatever comes meanwhile."""
    clock = Clock()
    connection, transport = connection_in_plain_http(clock, 5)
    clock.advance(4.5)
    connection.dataReceived(b"x" * 100_000)
    assert not transport.disconnecting
    clock.advance(0.5)
    assert transport.disconnecting


def test_without_linger_it_is_waited_for():
    clock = Clock()
    connection, transport = connection_in_plain_http(clock, None)
    assert clock.getDelayedCalls() == []
    connection.dataReceived(b"more")
    assert not transport.disconnecting
    connection.readConnectionLost()
    assert transport.disconnecting


def test_one_that_is_lost_meanwhile_leaves_no_call_behind():
    clock = Clock()
    connection, _ = connection_in_plain_http(clock, 5)
    connection.connectionLost(Failure(ConnectionLost()))
    assert clock.getDelayedCalls() == []


# A folder of certificates


class Folder:
    """
    A folder of certificates, and a client that asks for one.

    @ivar reads: how often its files have been read.
    """

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self._folder = CertificateFolder(self.clock, str(path))
        self.reads = 1

        def counted(directory, password):
            self.reads += 1
            return read_folder(directory, password)

        # It reads first, and what it finds wrong is not read by Twisted any more.
        monkeypatch.setattr("sockserve.listeners.tls.read_folder", counted)
        factory = TLSMemoryBIOFactory(self._folder, False, Factory(), self.clock)
        self._protocol = TLSMemoryBIOProtocol(factory, Protocol())

    def ask(self, name: str, after: float = LOOK_SECONDS) -> str:
        """The common name in the certificate that a client gets C{after} so many seconds."""
        self.clock.advance(after)
        client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD))
        client.set_tlsext_host_name(name.encode())
        client.set_connect_state()
        server = self._folder.serverConnectionForTLS(self._protocol)
        server.set_accept_state()
        for here, there in [(client, server), (server, client)] * 2:
            try:
                here.do_handshake()
            except SSL.WantReadError:
                pass
            there.bio_write(here.bio_read(2**16))
        certificate = client.get_peer_certificate(as_cryptography=True)
        assert certificate is not None
        return certificate.subject.rdns[0].rfc4514_string().removeprefix("CN=")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    certificate_file(tmp_path)
    return Folder(tmp_path, monkeypatch)


def test_names_that_are_not_there_have_nothing_read(folder):
    assert folder.reads == 1
    for name in ["other.example", "another.example", "other.example"]:
        assert folder.ask(name) == "localhost"
    assert folder.reads == 1


def test_a_new_file_is_found_after_a_second(folder, tmp_path):
    certificate_file(tmp_path, "late")
    assert folder.ask("late", LOOK_SECONDS / 2) == "localhost"
    assert folder.ask("late", LOOK_SECONDS / 2) == "late"
    assert folder.ask("later") == "localhost"
    assert folder.reads == 2


def test_a_file_that_is_written_again_is_read_again(folder, tmp_path):
    certificate_file(tmp_path, "late").replace(tmp_path / "localhost.pem")
    assert folder.ask("late") == "late"
    (tmp_path / "localhost.pem").write_bytes(certificate_file(tmp_path, "latest").read_bytes())
    (tmp_path / "latest.pem").unlink()
    assert folder.ask("latest") == "latest"
    assert folder.reads == 3


def test_a_link_that_leads_elsewhere_is_read_again(tmp_path, monkeypatch):
    """As C{certbot} and Kubernetes renew certificates; the link in the folder stays the same."""
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        certificate_file(tmp_path / version, version).rename(tmp_path / version / "it.pem")
    (tmp_path / "live").mkdir()
    (tmp_path / "current").symlink_to("one")
    (tmp_path / "live" / "it.pem").symlink_to("../current/it.pem")
    folder = Folder(tmp_path / "live", monkeypatch)
    assert folder.ask("one") == "one"
    (tmp_path / "next").symlink_to("two")
    os.replace(tmp_path / "next", tmp_path / "current")
    assert folder.ask("two") == "two"


def test_other_files_do_not_count(folder, tmp_path):
    (tmp_path / "README").write_text("about these files")
    folder.ask("other.example")
    assert folder.reads == 1


def test_a_wrong_file_is_read_once_and_told(folder, tmp_path):
    (tmp_path / "half.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    with capturedLogs() as events:
        for _ in range(3):
            assert folder.ask("late") == "localhost"
    assert folder.reads == 2
    assert "those read before are used" in formatEvent(events[0])
    certificate_file(tmp_path, "late").replace(tmp_path / "half.pem")
    assert folder.ask("late") == "late"


def test_a_folder_that_is_gone_leaves_what_was_read(folder, tmp_path):
    (tmp_path / "localhost.pem").unlink()
    tmp_path.rmdir()
    with capturedLogs() as events:
        assert folder.ask("other.example") == folder.ask("localhost") == "localhost"
    assert "those read before are used" in formatEvent(events[0])
    tmp_path.mkdir()
    certificate_file(tmp_path, "other.example")
    assert folder.ask("other.example") == "other.example"
