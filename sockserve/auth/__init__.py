"""
Mix-ins by which handlers have the identity of their clients, or turn to TLS, on portals and
checkers of C{twisted.cred}.
"""

from sockserve.auth.addresses import AddressAuthMixIn
from sockserve.auth.certificates import TLSClientAuthMixIn
from sockserve.auth.checkers import (
    AddressChecker,
    CertificateChecker,
    IUser,
    User,
    UserRealm,
    make_portal,
)
from sockserve.auth.credentials import IAddressCredentials, ICertificateCredentials
from sockserve.auth.identity import Identity
from sockserve.auth.sasl import SASLMixIn
from sockserve.auth.starttls import PlaintextPipelined, StartTLSMixIn
from sockserve.interfaces import NotAuthenticated, Refusal

__all__ = [
    "AddressAuthMixIn",
    "AddressChecker",
    "CertificateChecker",
    "IAddressCredentials",
    "ICertificateCredentials",
    "IUser",
    "Identity",
    "NotAuthenticated",
    "PlaintextPipelined",
    "Refusal",
    "SASLMixIn",
    "StartTLSMixIn",
    "TLSClientAuthMixIn",
    "User",
    "UserRealm",
    "make_portal",
]
