"""A folder of certificates: when its files are read, and what a client gets meanwhile."""

import os
from pathlib import Path

import pytest
from OpenSSL import SSL
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.protocols._sni import PEMObjects
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

from sockserve.listeners.tls import LOOK_SECONDS, CertificateFolder
from tests.integration.servers import certificate_file

# Twisted's own calls of pyOpenSSL.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning"),
]


class Folder:
    """
    A folder of certificates, and a client that asks for one.

    @ivar reads: how often its files have been read.
    """

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads = 0
        read = PEMObjects.fromDirectory

        def counted(directory):
            self.reads += 1
            return read(directory)

        monkeypatch.setattr(PEMObjects, "fromDirectory", counted)
        self.clock = Clock()
        self._folder = CertificateFolder(self.clock, str(path))
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
