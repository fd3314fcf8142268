"""
Twisted's TLS options, as those of servers are here where nobody says.

This room owns what is changed about them.  It must not know endpoints.
"""

from __future__ import annotations

from functools import cache
from typing import overload
from weakref import WeakKeyDictionary

from OpenSSL import SSL
from twisted.internet.ssl import CertificateOptions

from sockserve.core.tls import CIPHERS

__all__ = ["with_usual_ciphers"]

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
