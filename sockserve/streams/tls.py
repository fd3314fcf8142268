"""
Twisted's TLS options, as those of servers are here where nobody says.

This room owns what is changed about them.  It must not know endpoints.
"""

from __future__ import annotations

import os
from functools import cache
from typing import overload
from weakref import WeakKeyDictionary

import attrs
from OpenSSL import SSL
from twisted.internet.ssl import Certificate, CertificateOptions, trustRootFromCertificates

from sockserve.core.messages import one_line
from sockserve.core.tls import CIPHERS
from sockserve.interfaces import ConfigurationError

__all__ = [
    "ClientAuthority",
    "load_client_authority",
    "with_client_authority",
    "with_usual_ciphers",
]

_PEM_END = b"-----END CERTIFICATE-----"

#: C{SSL_OP_NO_RENEGOTIATION}.  (pyOpenSSL has it with OpenSSL from 1.1.0h on.)
_NO_RENEGOTIATION = 1 << 30

#: By options, the ones with the usual ciphers; a context is made but once for each.
_changed: WeakKeyDictionary[CertificateOptions, CertificateOptions] = WeakKeyDictionary()


@cache
def _twisteds_own() -> CertificateOptions:
    return CertificateOptions()


@overload
def with_usual_ciphers(context: CertificateOptions) -> CertificateOptions: ...


@overload
def with_usual_ciphers(context: object) -> object: ...


def with_usual_ciphers(context: object) -> object:
    """
    The same TLS options with L{CIPHERS} and without renegotiation, where they are
    C{CertificateOptions} that leave ciphers and versions to Twisted; else C{context} itself.

    @param context: what C{ITLSTransport.startTLS} takes.
    """
    # Twisted has no public word for the order of preference.  These two have had their names
    # since 14.0.
    if type(context) is not CertificateOptions:
        return context
    own = _twisteds_own()
    if context._cipherString != own._cipherString or own._options & ~context._options:
        return context
    changed = _changed.get(context)
    if changed is None:
        changed = _changed[context] = CertificateOptions.__new__(CertificateOptions)
        vars(changed).update(vars(context), _context=None, _cipherString=":".join(CIPHERS))
        changed._options &= ~SSL.OP_CIPHER_SERVER_PREFERENCE
        changed._options |= _NO_RENEGOTIATION
    return changed


@attrs.frozen
class ClientAuthority:
    """
    The authority that signs clients' certificates.

    @ivar path: the file it was read from.
    @ivar certificates: its certificates, one or more.
    @ivar is_required: whether a client without a certificate of it is turned away.
    """

    path: str
    certificates: tuple[Certificate, ...]
    is_required: bool


def load_client_authority(path: str | os.PathLike[str], is_required: bool) -> ClientAuthority:
    """
    Read the certificates of an authority from a PEM file.

    @raise ConfigurationError: the file cannot be read, or has none.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            pieces = file.read().split(_PEM_END)
        found = tuple(Certificate.loadPEM(piece + _PEM_END) for piece in pieces[:-1])
    except OSError as error:
        raise ConfigurationError(f"client authority {name!r}: {error.strerror}") from None
    except Exception as error:
        raise ConfigurationError(f"client authority {name!r}: {one_line(error)}") from None
    if not found:
        raise ConfigurationError(f"client authority {name!r}: there is no certificate in it")
    return ClientAuthority(name, found, is_required)


def with_client_authority(
    options: CertificateOptions, authority: ClientAuthority
) -> CertificateOptions:
    """The same TLS options, by which clients are asked for a certificate of C{authority}."""
    changed = CertificateOptions.__new__(CertificateOptions)
    vars(changed).update(
        vars(options),
        _context=None,
        verify=True,
        requireCertificate=authority.is_required,
        trustRoot=trustRootFromCertificates(authority.certificates),
    )
    return changed
