"""
The TLS context of a server of HTTPS, as the standard library's makes it.

This room owns which ciphers it offers.  It must not know who listens.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from sockserve.core.tls import CIPHERS

if TYPE_CHECKING:
    from _typeshed import StrOrBytesPath

__all__ = ["https_context"]


def https_context(
    certfile: StrOrBytesPath,
    keyfile: StrOrBytesPath | None,
    password: Any,
    alpn_protocols: list[str],
) -> ssl.SSLContext:
    """The context that C{http.server.HTTPSServer} makes of its arguments, with L{CIPHERS}."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join(CIPHERS))
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.load_cert_chain(certfile, keyfile, password)
    context.set_alpn_protocols(alpn_protocols)
    return context
