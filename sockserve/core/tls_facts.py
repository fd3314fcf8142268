"""
The facts of a connection's TLS: the certificates that both ends have shown.

This room owns how a transport is asked for them.  It must not know who wants them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import attrs
from twisted.internet.interfaces import ISSLTransport

if TYPE_CHECKING:
    from OpenSSL.crypto import X509
    from OpenSSL.SSL import Connection

__all__ = ["TLSFacts", "tls_facts"]


@attrs.frozen
class TLSFacts:
    """
    The facts of a connection's TLS, once the handshake is done.

    @ivar certificate: the client's certificate in DER; None if it sent none.
    @ivar own_certificate: the server's, as the client got it; None if that is not known.
    """

    certificate: bytes | None
    own_certificate: bytes | None


class _TLSTransport(Protocol):
    """What is asked of a transport that provides C{ISSLTransport}."""

    def getHandle(self) -> Connection: ...

    def getPeerCertificate(self) -> X509 | None: ...


def tls_facts(transport: object) -> TLSFacts | None:
    """The facts of a transport's TLS; None for one without. (reactor thread)"""
    if not ISSLTransport.providedBy(transport):
        return None
    transport = cast(_TLSTransport, transport)
    return TLSFacts(
        _der(transport.getPeerCertificate()), _der(transport.getHandle().get_certificate())
    )


def _der(certificate: X509 | None) -> bytes | None:
    if certificate is None:
        return None
    # Imported where there is TLS.
    from OpenSSL.crypto import FILETYPE_ASN1, dump_certificate

    return dump_certificate(FILETYPE_ASN1, certificate)
