"""
Credentials: the proofs that clients show of their identity, as C{twisted.cred} checks them.

This room owns the kinds of them.  It must not know how they came, or what is stored of users.
None has a secret in its C{repr}.
"""

from __future__ import annotations

from hmac import compare_digest

from twisted.cred.credentials import ICredentials, IUsernamePassword
from zope.interface import Attribute, Interface, implementer

from sockserve.auth.identity import CertificateNames

__all__ = [
    "AddressCredentials",
    "CertificateCredentials",
    "IAddressCredentials",
    "ICertificateCredentials",
    "PasswordCredentials",
]


class ICertificateCredentials(Interface):
    """A client's certificate, which TLS has verified."""

    certificate: bytes = Attribute("The certificate in DER.")
    names: CertificateNames = Attribute("The names in it.")
    wanted: str = Attribute("Whom the client says it is; an empty string if it does not say.")


class IAddressCredentials(Interface):
    """A client's address."""

    client_address: object = Attribute("The address, as a socket gives it.")


@implementer(IUsernamePassword)
class PasswordCredentials:
    """A name and a password, which are compared in a time that does not depend on them."""

    def __init__(self, username: bytes, password: bytes) -> None:
        self.username = username
        self.password = password

    def __repr__(self) -> str:
        return f"<PasswordCredentials {self.username!r}>"

    def checkPassword(self, password: bytes) -> bool:
        """Whether C{password} is the one that the client has shown."""
        return compare_digest(self.password, password)


@implementer(ICertificateCredentials, ICredentials)
class CertificateCredentials:
    """A client's certificate, as L{ICertificateCredentials}."""

    def __init__(self, certificate: bytes, names: CertificateNames, wanted: str = "") -> None:
        self.certificate = certificate
        self.names = names
        self.wanted = wanted


@implementer(IAddressCredentials, ICredentials)
class AddressCredentials:
    """A client's address, as L{IAddressCredentials}."""

    def __init__(self, client_address: object) -> None:
        self.client_address = client_address
