"""
Certificates and keys of listeners: PEM files, read and checked before a client comes.

This room owns what each mistake in such a file is called: what is to be there and is not, what is
damaged, encrypted, or does not belong together.  It must not know descriptions, nor endpoints.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import attrs
from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.ssl import CertificateOptions, DiffieHellmanParameters
from twisted.python.filepath import FilePath

from sockserve.core.messages import one_line
from sockserve.interfaces import SockserveError

__all__ = [
    "FileError",
    "FileWords",
    "FolderContents",
    "Password",
    "check_context",
    "options_from_files",
    "password_of",
    "read_folder",
]

#: The key's file where C{ssl:} does not say one: Twisted's.
_DEFAULT_KEY_FILE = "server.pem"

_BEGIN = re.compile(rb"^(?=-----BEGIN )", re.MULTILINE)
_LABEL = re.compile(rb"-----BEGIN ([^\r\n]*?)-----")
_CERTIFICATES = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")


class FileError(SockserveError, ValueError):
    """
    The error of a file that cannot be used.

    @ivar word: the word that names it.
    """

    def __init__(self, message: str, word: str) -> None:
        super().__init__(message)
        self.word = word


@attrs.frozen
class FileWords:
    """
    The words that name the files of a certificate, as a user has them.

    @ivar certificate: that of the certificate.
    @ivar key: that of the private key.
    @ivar password_file: that of the key's password.
    @ivar password: all ways to name that, for messages.
    """

    certificate: str = "certKey"
    key: str = "privateKey"
    password_file: str = "passwordFile"
    password: str = "passwordFile=FILE or passwordEnv=VARIABLE"


def options_from_files(
    words: Mapping[str, str], names: FileWords = FileWords()
) -> CertificateOptions:
    """
    The TLS options that the words of an C{ssl:} description say: C{privateKey}, C{certKey} (in
    the same file by default), C{passwordFile} or C{passwordEnv}, C{extraCertChain},
    C{dhParameters} and C{sslmethod}.  The chain may be behind the certificate as well.

    @param names: what the words are called in messages.
    @raise FileError: the certificate or its key cannot be used, or they do not belong together.
    @raise ValueError: another file cannot be used.
    """
    key_file = words.get("privateKey", _DEFAULT_KEY_FILE)
    key_place, key_word = f"{names.key} {key_file!r}", names.key
    if "privateKey" not in words:
        if "certKey" in words and not os.path.exists(key_file):
            raise ValueError(
                f"certKey {words['certKey']!r}: its key is missing; write privateKey=FILE, be it"
                " the same file"
            )
        key_place += ", as none is given"
    place, word = f"{key_place}, and no certKey", key_word
    if "certKey" in words:
        place, word = f"{names.certificate} {words['certKey']!r}", names.certificate
    lacks_key = ""
    if key_file == words.get("certKey"):
        key_place, key_word, lacks_key = place, word, f"; name the file of its key by {names.key}"
    with _about(names.password_file):
        password = password_of(words, names)
    # As Twisted does, each is looked for in its own file first, and then in the other.
    with _about(key_word):
        key_pem = _read(key_place, key_file)
    with _about(word):
        pem = _read(place, words["certKey"]) if "certKey" in words else key_pem
    with _about(key_word):
        key = _first_key(key_place, key_pem, pem, password, names.password, lacks_key)
    with _about(word):
        certificate = _first_certificate(place, pem, key_pem)
    if not _belong_together(key, certificate):
        message = f"{key_place}: it is not the key of the certificate of {place}"
        if key_word == word:
            message = f"{place}: the private key in it is not that of its certificate"
        raise FileError(message, key_word)
    method, chain, dh = (
        words.get(each) for each in ("sslmethod", "extraCertChain", "dhParameters")
    )
    with _about(word):
        made = CertificateOptions(
            key,
            certificate,
            method=None if method is None else _method(method),
            extraCertChain=_behind(place, pem) if chain is None else _chain(chain),
            dhParameters=None if dh is None else _dh_parameters(dh),
        )
        check_context(place, made)
    return made


@contextmanager
def _about(word: str) -> Iterator[None]:
    """Have an error tell the word that names the file it is about."""
    try:
        yield
    except ValueError as error:
        raise FileError(str(error), word) from None


@attrs.frozen
class FolderContents:
    """
    The contents of a folder, each with its file.

    @ivar certificates: the certificates.
    @ivar keys: the private keys.
    """

    certificates: list[tuple[str, crypto.X509]] = attrs.Factory(list)
    keys: list[tuple[str, crypto.PKey]] = attrs.Factory(list)


@attrs.frozen
class Password:
    """
    The password of private keys.

    @ivar text: the password itself, which is in no message.
    @ivar place: whence it is, for messages.
    """

    text: bytes = attrs.field(repr=False)
    place: str


def password_of(words: Mapping[str, str], names: FileWords = FileWords()) -> Password | None:
    """
    The password that the words of a description lead to: the first line of C{passwordFile}, or the
    value of the variable C{passwordEnv}; None where there are none.

    @param names: what the words are called in messages.
    @raise ValueError: there is no such file or variable, or nothing in it; or both are given.
    """
    if "passwordFile" in words and "passwordEnv" in words:
        raise ValueError("passwordFile and passwordEnv: give one of them")
    if "passwordFile" in words:
        place = f"{names.password_file} {words['passwordFile']!r}"
        text = _read(place, words["passwordFile"]).partition(b"\n")[0].removesuffix(b"\r")
    elif "passwordEnv" in words:
        place = f"passwordEnv {words['passwordEnv']!r}"
        value = os.environ.get(words["passwordEnv"])
        if value is None:
            raise ValueError(f"{place}: there is no such variable in the environment")
        text = os.fsencode(value)
    else:
        return None
    if not text:
        raise ValueError(f"{place}: there is no password in it")
    return Password(text, place)


def check_context(place: str, options: CertificateOptions) -> None:
    """
    Check that OpenSSL takes the options: it would say so to the first client otherwise.

    @param place: what the options are from, for the message.
    @raise ValueError: it does not.
    """
    try:
        options.getContext()
    except SSL.Error as error:
        reasons = error.args[0] if error.args else None
        reason = reasons[-1][-1] if reasons else one_line(error)
        raise ValueError(f"{place}: OpenSSL refuses it: {reason}") from None


def read_folder(directory: str, password: Password | None = None) -> FolderContents:
    """
    Read and check the C{*.pem} files of a folder.

    @raise ValueError: one is damaged; or there is no certificate with its key in them, or one of
        both without the other.
    """
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".pem"))
    except (OSError, ValueError) as error:
        raise ValueError(f"certificates in {directory!r}: {_why(error)}") from None
    files = {}
    for name in names:
        path = os.path.join(directory, name)
        files[path] = _read(f"certificates in {directory!r}: {name}", path)
        if b"-----BEGIN" not in files[path]:
            raise ValueError(f"{path} is not a PEM file")
    if not files:
        raise ValueError(f"no *.pem file in {directory!r}")
    for part in ("certificate", "private key"):
        if not any(part.upper().encode() + b"-----" in each for each in files.values()):
            raise ValueError(f"no {part} in {directory!r}")
    found = FolderContents()
    for path, content in files.items():
        for label, block in _blocks(content):
            if label in _CERTIFICATES:
                found.certificates.append((path, _load_certificate(path, block)))
            elif label.endswith("PRIVATE KEY"):
                found.keys.append((path, _load_key(path, block, password)))
            else:
                raise ValueError(
                    f"{path}: what is called {label} there is neither a certificate nor a"
                    " private key"
                )
    _check_pairs(directory, found)
    return found


def _check_pairs(directory: str, found: FolderContents) -> None:
    """
    Check that what is in a folder belongs together.

    @raise ValueError: nothing does, or a host's certificate has no key, or a key no certificate.
    """
    public = {_public(key): path for path, key in found.keys}
    certified = {_public_of(certificate) for _, certificate in found.certificates}
    if not certified & set(public):
        raise ValueError(f"no private key in {directory!r} is that of a certificate there")
    authorities = _issuers(found)
    for path, certificate in found.certificates:
        is_left_over = _public_of(certificate) not in public
        if is_left_over and _is_a_hosts(certificate.to_cryptography(), authorities):
            raise ValueError(f"{path}: no private key in {directory!r} is that of its certificate")
    for key, path in public.items():
        if key not in certified:
            raise ValueError(f"{path}: no certificate in {directory!r} is that of its private key")


def _issuers(found: FolderContents) -> set[x509.Name]:
    """The names of those that have signed certificates of others."""
    certificates = [certificate.to_cryptography() for _, certificate in found.certificates]
    return {each.issuer for each in certificates if each.issuer != each.subject}


def _is_a_hosts(certificate: x509.Certificate, authorities: set[x509.Name]) -> bool:
    """Whether a certificate is for a host by its name."""
    try:
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return False
    return certificate.subject not in authorities


def _read(place: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise ValueError(f"{place}: {_why(error)}") from None


def _why(error: Exception) -> str:
    """Why a file cannot be read; of a ValueError, that its name cannot be one."""
    return getattr(error, "strerror", None) or "a path has no NUL within it"


def _blocks(content: bytes) -> list[tuple[str, bytes]]:
    """The parts of a PEM file with their labels, as Twisted finds them."""
    return [
        (label[1].decode("ascii", "backslashreplace"), block)
        for block in _BEGIN.split(content)
        if (label := _LABEL.match(block))
    ]


def _first_key(
    place: str, pem: bytes, other: bytes, password: Password | None, ways: str, hint: str
) -> crypto.PKey:
    """
    The first private key in a file, or else in the other.

    @param ways: how the password of an encrypted one is named.
    @param hint: what to do where there is none.
    """
    for label, block in (*_blocks(pem), *_blocks(other)):
        if label.endswith("PRIVATE KEY"):
            return _load_key(place, block, password, ways)
    raise ValueError(f"{place}: {_lack(pem)}no private key in it{hint}")


def _first_certificate(place: str, pem: bytes, other: bytes) -> crypto.X509:
    for label, block in (*_blocks(pem), *_blocks(other)):
        if label in _CERTIFICATES:
            return _load_certificate(place, block)
    raise ValueError(f"{place}: {_lack(pem)}no certificate in it")


def _lack(pem: bytes) -> str:
    """Why there is nothing in a file, to be put before what there is not."""
    if not pem:
        return "it is empty: "
    if b"-----BEGIN" in pem:
        return ""
    is_der = pem[:2] in (b"\x30\x82", b"\x30\x81")
    return f"it is not a PEM file{' but a DER one' if is_der else ''}: "


def _load_key(
    place: str, block: bytes, password: Password | None, ways: str = FileWords().password
) -> crypto.PKey:
    is_encrypted = b"BEGIN ENCRYPTED " in block or re.search(
        rb"^Proc-Type:.*ENCRYPTED", block, re.MULTILINE
    )
    if is_encrypted and password is None:
        raise ValueError(
            f"{place}: the private key in it is encrypted; take its passphrase away, as by"
            f" openssl pkey -in FILE -out FILE, or say where it is by {ways}"
        )
    try:
        # Without a passphrase OpenSSL might ask for one, on the terminal.
        text = password.text if is_encrypted and password is not None else b""
        return crypto.load_privatekey(crypto.FILETYPE_PEM, block, text)
    except (crypto.Error, ValueError, TypeError):
        if is_encrypted and password is not None:
            raise ValueError(
                f"{place}: the private key in it is not opened by {password.place}, or damaged"
            ) from None
        raise ValueError(
            f"{place}: the private key in it is damaged, or of a kind that TLS does not have"
        ) from None


def _load_certificate(place: str, block: bytes) -> crypto.X509:
    try:
        return crypto.load_certificate(crypto.FILETYPE_PEM, block)
    except (crypto.Error, ValueError):
        raise ValueError(f"{place}: a certificate in it is damaged") from None


def _belong_together(key: crypto.PKey, certificate: crypto.X509) -> bool:
    return _public_of(certificate) == _public(key)


def _public(key: crypto.PKey) -> bytes:
    return crypto.dump_publickey(crypto.FILETYPE_PEM, key)


def _public_of(certificate: crypto.X509) -> bytes | None:
    """The public key of a certificate; None where it is of an unknown kind."""
    try:
        return _public(certificate.get_pubkey())
    except (crypto.Error, ValueError):
        return None


def _method(name: str) -> int:
    methods = sorted(each for each in dir(SSL) if each.endswith("_METHOD"))
    if name not in methods:
        raise ValueError(f"sslmethod {name!r} is not one of {', '.join(methods)}")
    method: int = getattr(SSL, name)
    return method


def _behind(place: str, pem: bytes) -> list[crypto.X509]:
    """The certificates behind the first in a file: those that have signed it, one by the next."""
    found = [block for label, block in _blocks(pem) if label in _CERTIFICATES]
    return [_load_certificate(place, block) for block in found[1:]]


def _chain(path: str) -> list[crypto.X509]:
    place = f"extraCertChain {path!r}"
    pem = _read(place, path)
    blocks = [block for label, block in _blocks(pem) if label in _CERTIFICATES]
    if not blocks:
        raise ValueError(
            f"Specified chain file {path!r} doesn't contain any valid certificates in PEM format."
        )
    return [_load_certificate(place, block) for block in blocks]


def _dh_parameters(path: str) -> DiffieHellmanParameters:
    place = f"dhParameters {path!r}"
    pem = _read(place, path)
    if not any(label.endswith("DH PARAMETERS") for label, _ in _blocks(pem)):
        raise ValueError(f"{place}: {_lack(pem)}no DH PARAMETERS in it")
    try:
        SSL.Context(SSL.TLS_METHOD).load_tmp_dh(os.fsencode(path))
    except SSL.Error:
        raise ValueError(f"{place}: the DH PARAMETERS in it are damaged") from None
    parameters: DiffieHellmanParameters = DiffieHellmanParameters.fromFile(FilePath(path))
    return parameters
