"""
Identities: the names that clients have shown to be theirs.

This room owns what is known of that, and how it is read from a certificate.  It must not know
how it was shown, or to whom.
"""

from __future__ import annotations

import attrs
from cryptography import x509
from cryptography.x509.oid import NameOID

__all__ = ["CertificateNames", "Identity", "certificate_names"]


@attrs.frozen
class Identity:
    """
    The identity of a client, as a handler's C{self.identity}.

    @ivar name: its name: of the avatar, in terms of C{twisted.cred}.
    @ivar method: how it was shown: C{certificate}, C{address} or a mechanism of SASL.
    @ivar subject: the subject of the client's certificate, as RFC 4514 writes it; an empty
        string without one.
    @ivar names: the names in that certificate besides (C{subjectAltName}): of hosts, mailboxes,
        addresses and URIs.
    @ivar avatar: what the portal's realm has given for it.
    """

    name: str
    method: str
    subject: str = ""
    names: tuple[str, ...] = ()
    avatar: object = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen
class CertificateNames:
    """
    The names in a certificate.

    @ivar subject: as of L{Identity}, as is C{names}.
    @ivar common_name: of the subject; an empty string if it has none, or several.
    """

    subject: str
    common_name: str
    names: tuple[str, ...]


def certificate_names(certificate: bytes) -> CertificateNames:
    """
    The names in a certificate.

    @param certificate: in DER.
    @raise ValueError: it cannot be read, or a name in it is not printable.
    """
    try:
        read = x509.load_der_x509_certificate(certificate)
        subject = read.subject.rfc4514_string()
        common = [
            str(each.value) for each in read.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        ]
        names = tuple(str(each.value) for each in _alternatives(read) if _is_text(each))
    except Exception as error:  # each extension's parser raises what it likes
        raise ValueError(f"the certificate cannot be read: {type(error).__name__}") from None
    common_name = common[0] if len(common) == 1 else ""
    if not all(each.isprintable() for each in (common_name, *names)):
        raise ValueError("a name in the certificate is not printable")
    return CertificateNames(subject, common_name, names)


def _alternatives(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return list(found.value)


def _is_text(name: x509.GeneralName) -> bool:
    """Whether a name is one that people write."""
    kinds = (x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier, x509.IPAddress)
    return isinstance(name, kinds)
