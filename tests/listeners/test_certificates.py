"""PEM files of listeners: what can be used, and the one line that each mistake in them gets."""

import os
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from OpenSSL import SSL
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

from sockserve import ConfigurationError, Deadlines
from sockserve.listeners.certificates import options_from_files, password_of
from sockserve.listeners.endpoints import stream_endpoint
from sockserve.listeners.tls import CertificateFolder, TLSEndpoint
from tests.integration.servers import certificate_pem

pytestmark = pytest.mark.filterwarnings("ignore:Passing method:DeprecationWarning")

PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL
NO_PASSPHRASE = serialization.NoEncryption()
PASSPHRASE = serialization.BestAvailableEncryption(b"secret")
MARK = b"-----BEGIN CERTIFICATE-----"


def split(pem: bytes) -> tuple[bytes, bytes]:
    """The key and the certificate of one text."""
    key, mark, certificate = pem.partition(MARK)
    return key, mark + certificate


def without_names(key: rsa.RSAPrivateKey) -> bytes:
    """A certificate for C{key} that is for no host."""
    own = certificate_pem()
    model = x509.load_pem_x509_certificate(split(own)[1])
    return (
        x509.CertificateBuilder()
        .subject_name(model.subject)
        .issuer_name(model.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(model.not_valid_before_utc)
        .not_valid_after(model.not_valid_after_utc)
        .sign(key, hashes.SHA256())
        .public_bytes(PEM)
    )


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    """Contents by name."""
    pem = certificate_pem()
    key, certificate = split(pem)
    loaded = serialization.load_pem_private_key(key, None)
    weak = rsa.generate_private_key(65537, 1024)
    weak_key = weak.private_bytes(PEM, PKCS8, NO_PASSPHRASE)
    nameless = rsa.generate_private_key(65537, 2048)
    return {
        "key.pem": key,
        "cert.pem": certificate,
        "both.pem": pem,
        "reversed.pem": certificate + key,
        "other-key.pem": split(certificate_pem("other"))[0],
        "encrypted.pem": loaded.private_bytes(PEM, PKCS8, PASSPHRASE),
        "encrypted-old.pem": loaded.private_bytes(PEM, TRADITIONAL, PASSPHRASE),
        "ed25519.pem": ed25519.Ed25519PrivateKey.generate().private_bytes(
            PEM, PKCS8, NO_PASSPHRASE
        ),
        "public.pem": loaded.public_key().public_bytes(
            PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
        "der.pem": x509.load_pem_x509_certificate(certificate).public_bytes(
            serialization.Encoding.DER
        ),
        "parameters.pem": b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n"
        b"-----END EC PARAMETERS-----\n" + key,
        "text.pem": b"hello\n",
        "empty.pem": b"",
        "half-key.pem": key[:100],
        "half-cert.pem": certificate[:200],
        "damaged-key.pem": key.replace(b"MIG", b"AAA"),
        "weak-key.pem": weak_key,
        "weak.pem": without_names(weak),
        "nameless.pem": nameless.private_bytes(PEM, PKCS8, NO_PASSPHRASE) + without_names(nameless),
        "bad-dh.pem": b"-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n",
    }


@pytest.fixture
def here(tmp_path, monkeypatch, files):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def endpoint(description):
    return stream_endpoint(MemoryReactorClock(), description, lambda _: True, Deadlines())


def fault(description, capfd):
    """What is said of a description; nothing else is, not even a question for a passphrase."""
    with pytest.raises(ConfigurationError) as caught:
        endpoint(description)
    text = str(caught.value)
    start = f"listen {description!r}: "
    assert text.startswith(start)
    assert "\n" not in text
    assert capfd.readouterr() == ("", "")
    return text.removeprefix(start)


@pytest.mark.parametrize(
    "words",
    [
        "privateKey=key.pem:certKey=cert.pem",
        "privateKey=both.pem",
        "privateKey=reversed.pem",
        "privateKey=parameters.pem:certKey=cert.pem",
        "privateKey=cert.pem:certKey=key.pem",  # Twisted never minded
        "privateKey=key.pem:certKey=cert.pem:extraCertChain=both.pem",
        "privateKey=key.pem:certKey=cert.pem:sslmethod=TLS_METHOD",
        "key.pem:cert.pem",
    ],
)
@pytest.mark.usefixtures("here")
def test_files_that_belong_together_are_taken(words):
    assert isinstance(endpoint(f"ssl:0:{words}"), TLSEndpoint)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "privateKey 'server.pem', as none is given: No such file or directory"),
        ("privateKey=no.pem", "privateKey 'no.pem': No such file or directory"),
        ("privateKey=no.pem:certKey=cert.pem", "privateKey 'no.pem': No such file"),
        ("privateKey=key.pem:certKey=no.pem", "certKey 'no.pem': No such file or directory"),
        ("privateKey=folder:certKey=cert.pem", "privateKey 'folder': Is a directory"),
        ("privateKey=key.pem:certKey=folder", "certKey 'folder': Is a directory"),
        ("privateKey=a\0b", "privateKey 'a\\x00b': a path has no NUL within it"),
        ("privateKey=key.pem", "privateKey 'key.pem', and no certKey: no certificate in it"),
        ("privateKey=cert.pem", "privateKey 'cert.pem': no private key in it"),
        ("privateKey=public.pem:certKey=cert.pem", "'public.pem': no private key in it"),
        ("privateKey=key.pem:certKey=key.pem", "certKey 'key.pem': no certificate in it"),
        ("privateKey=text.pem:certKey=cert.pem", "privateKey 'text.pem': it is not a PEM file: "),
        ("privateKey=key.pem:certKey=text.pem", "certKey 'text.pem': it is not a PEM file: "),
        ("privateKey=empty.pem:certKey=cert.pem", "privateKey 'empty.pem': it is empty: "),
        ("privateKey=key.pem:certKey=der.pem", "certKey 'der.pem': it is not a PEM file but a DER"),
        ("privateKey=half-key.pem:certKey=cert.pem", "'half-key.pem': the private key in it is d"),
        ("privateKey=damaged-key.pem:certKey=cert.pem", "the private key in it is damaged"),
        ("privateKey=key.pem:certKey=half-cert.pem", "'half-cert.pem': a certificate in it is d"),
        (
            "privateKey=encrypted.pem:certKey=cert.pem",
            "'encrypted.pem': the private key in it is",
        ),
        (
            "privateKey=encrypted-old.pem:certKey=cert.pem",
            "in it is encrypted; take its",
        ),
        (
            "privateKey=other-key.pem:certKey=cert.pem",
            "'other-key.pem': it is not the key of the certificate of certKey 'cert.pem'",
        ),
        ("privateKey=ed25519.pem:certKey=cert.pem", "'ed25519.pem': it is not the key of the cert"),
        ("privateKey=weak-key.pem:certKey=weak.pem", "certKey 'weak.pem': OpenSSL refuses it: "),
        ("privateKey=both.pem:extraCertChain=no.pem", "extraCertChain 'no.pem': No such file"),
        (
            "privateKey=both.pem:extraCertChain=text.pem",
            "'text.pem' doesn't contain any valid ",
        ),
        (
            "privateKey=both.pem:extraCertChain=half-cert.pem",
            "extraCertChain 'half-cert.pem': ",
        ),
        ("privateKey=both.pem:dhParameters=no.pem", "dhParameters 'no.pem': No such file"),
        ("privateKey=both.pem:dhParameters=key.pem", "'key.pem': no DH PARAMETERS in it"),
        ("privateKey=both.pem:dhParameters=bad-dh.pem", "the DH PARAMETERS in it are damaged"),
        ("privateKey=both.pem:sslmethod=SSLv2_METHOD", "sslmethod 'SSLv2_METHOD' is not one of "),
        ("privateKey=both.pem:sslmethod=Context", "sslmethod 'Context' is not one of "),
        ("privatekey=both.pem", "unknown word 'privatekey'; did you mean 'privateKey'? Write ssl:"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_file_that_cannot_be_used_is_named_with_its_fault(words, message, capfd):
    assert message in fault(f"ssl:0:{words}" if words else "ssl:0", capfd)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["text.pem"], "folder/text.pem is not a PEM file"),
        (["both.pem", "encrypted.pem"], "folder/encrypted.pem: the private key in it is encrypted"),
        (["encrypted-old.pem", "cert.pem"], "folder/encrypted-old.pem: the private key in it is e"),
        (["both.pem", "half-cert.pem"], "folder/half-cert.pem: a certificate in it is damaged"),
        (["both.pem", "damaged-key.pem"], "folder/damaged-key.pem: the private key in it is damag"),
        (["parameters.pem", "cert.pem"], "folder/parameters.pem: what is called EC PARAMETERS the"),
        (
            ["other-key.pem", "cert.pem"],
            "no private key in 'folder' is that of a certificate",
        ),
        (["nameless.pem"], "no certificate in 'folder' names a host as subjectAltName"),
    ],
)
def test_a_folders_file_is_named_with_its_fault(here, names, message, capfd):
    for name in names:
        os.replace(here / name, here / "folder" / name)
    assert message in fault("tls:0:folder", capfd)


def test_what_is_no_file_in_a_folder_is_named(here, capfd):
    (here / "folder" / "a.pem").symlink_to("nowhere")
    assert fault("tls:0:folder", capfd) == (
        "certificates in 'folder': a.pem: No such file or directory"
    )


@pytest.mark.parametrize("description", ["tls:443", "tls:"])
def test_a_folder_that_is_not_said_is_asked_for(here, description, capfd):
    assert "there is no such folder, or no port; write tls:PORT:DIRECTORY" in fault(
        description, capfd
    )


def test_the_certificates_behind_the_first_are_sent_with_it(here):
    """As for other servers, one file has the whole chain."""
    _, authority = split(certificate_pem("other"))
    (here / "chain.pem").write_bytes((here / "cert.pem").read_bytes() + authority)
    options = options_from_files({"privateKey": "key.pem", "certKey": "chain.pem"})
    server = SSL.Connection(options.getContext())
    client = SSL.Connection(SSL.Context(SSL.TLS_METHOD))
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(2):
        for near, far in ((client, server), (server, client)):
            with suppress(SSL.WantReadError):
                near.do_handshake()
            with suppress(SSL.WantReadError):
                far.bio_write(near.bio_read(2**16))
    client.do_handshake()
    chain = [each.to_cryptography() for each in client.get_peer_cert_chain() or ()]
    assert [each.subject.rfc4514_string() for each in chain] == ["CN=localhost", "CN=other"]


def test_an_elliptic_key_of_the_old_form_is_taken(here):
    (here / "old.pem").write_bytes(
        serialization.load_pem_private_key((here / "key.pem").read_bytes(), None).private_bytes(
            PEM, TRADITIONAL, NO_PASSPHRASE
        )
    )
    assert isinstance(endpoint("ssl:0:privateKey=old.pem:certKey=cert.pem"), TLSEndpoint)


@pytest.fixture
def secret(here, monkeypatch):
    """The password of the keys, in a file and in the environment; and others."""
    (here / "secret.txt").write_text("secret\n")
    (here / "windows.txt").write_bytes(b"secret\r\nfurther lines\r\n")
    (here / "wrong.txt").write_text("sekret\n")
    (here / "nothing.txt").write_text("\n")
    monkeypatch.setenv("KEY_PASSWORD", "secret")
    monkeypatch.setenv("NO_PASSWORD", "")
    return here


@pytest.mark.parametrize("key", ["encrypted.pem", "encrypted-old.pem", "key.pem"])
@pytest.mark.parametrize(
    "word", ["passwordFile=secret.txt", "passwordFile=windows.txt", "passwordEnv=KEY_PASSWORD"]
)
@pytest.mark.usefixtures("secret")
def test_an_encrypted_key_is_opened_by_its_password(key, word, capfd):
    made = endpoint(f"ssl:0:privateKey={key}:certKey=cert.pem:{word}")
    assert isinstance(made, TLSEndpoint)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("word", ["passwordFile=secret.txt", "passwordEnv=KEY_PASSWORD"])
def test_an_encrypted_key_of_a_folder_is_used(secret, word, capfd):
    for name in ("encrypted.pem", "cert.pem"):
        os.replace(secret / name, secret / "folder" / name)
    assert isinstance(endpoint(f"tls:0:folder:{word}"), TLSEndpoint)
    password = password_of(dict([word.split("=")]))
    certificates = CertificateFolder(MemoryReactorClock(), "folder", password)
    factory = TLSMemoryBIOFactory(certificates, False, Factory(), MemoryReactorClock())
    server = certificates.serverConnectionForTLS(TLSMemoryBIOProtocol(factory, Protocol()))
    client = SSL.Connection(SSL.Context(SSL.TLS_METHOD))
    server.set_accept_state()
    client.set_connect_state()
    for one, other in [(client, server), (server, client)] * 2:
        with suppress(SSL.WantReadError):
            one.do_handshake()
        with suppress(SSL.WantReadError):
            other.bio_write(one.bio_read(2**16))
    own = x509.load_pem_x509_certificate((secret / "folder" / "cert.pem").read_bytes())
    assert client.get_peer_certificate(as_cryptography=True) == own
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("passwordFile=wrong.txt", "the private key in it is not opened by passwordFile 'wrong."),
        ("passwordFile=no.txt", "passwordFile 'no.txt': No such file or directory"),
        ("passwordFile=folder", "passwordFile 'folder': Is a directory"),
        ("passwordFile=nothing.txt", "passwordFile 'nothing.txt': there is no password in it"),
        ("passwordEnv=NO_SUCH_NAME", "passwordEnv 'NO_SUCH_NAME': there is no such variable"),
        ("passwordEnv=NO_PASSWORD", "passwordEnv 'NO_PASSWORD': there is no password in it"),
        ("passwordEnv=A:passwordFile=b", "passwordFile and passwordEnv: give one of them"),
        ("passwordfile=secret.txt", "did you mean 'passwordFile'?"),
    ],
)
@pytest.mark.parametrize(
    "kind", ["ssl:0:privateKey=encrypted.pem:certKey=cert.pem", "tls:0:folder"]
)
def test_a_password_that_opens_nothing_is_told(secret, words, kind, message, capfd):
    for name in ("encrypted.pem", "cert.pem"):
        (secret / "folder" / name).write_bytes((secret / name).read_bytes())
    said = fault(f"{kind}:{words}", capfd)
    assert message in said
    assert "sekret" not in said


def test_a_certificate_without_its_key_is_told(here, capfd):
    said = fault("ssl:0:certKey=cert.pem", capfd)
    assert said.startswith("certKey 'cert.pem': its key is missing; write privateKey=FILE")
    own = certificate_pem("other")
    for name, content, message in (
        ("other.pem", split(own)[1], "folder/other.pem: no private key in 'folder' is that of its"),
        ("other.pem", split(own)[0], "folder/other.pem: no certificate in 'folder' is that of its"),
    ):
        (here / "folder" / "both.pem").write_bytes((here / "both.pem").read_bytes())
        (here / "folder" / name).write_bytes(content)
        assert fault("tls:0:folder", capfd).startswith(message)
