"""
TLS as servers speak it here: what they offer where nobody says, what becomes of a client that
speaks plain HTTP, and why a handshake has failed, in words.

This room owns these words.  It must not know sockets, nor which library shakes hands.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from enum import Enum
from errno import ENOTCONN

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost

from sockserve.core.messages import one_line
from sockserve.interfaces import HandshakeFailed

__all__ = [
    "BY_SERVER",
    "CIPHERS",
    "Opening",
    "answer_to_plain_http",
    "handshake_fault",
    "opening_of",
]

#: The ciphers of TLS 1.2, in OpenSSL's names: those of Mozilla's guideline 5.7, its intermediate
#: configuration.  All that TLS 1.3 has as OpenSSL comes are in that, too; 1.1 is not spoken, and
#: the client's order counts.  (Version 6.0 has the same but for the last three, which are offered
#: only where parameters for Diffie-Hellman are given.)
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "DHE-RSA-AES128-GCM-SHA256",
    "DHE-RSA-AES256-GCM-SHA384",
    "DHE-RSA-CHACHA20-POLY1305",
)

#: The fault of a connection that was ended here, before it came to a request.
BY_SERVER = "ended by the server"

#: The longest request line that is waited for, and the most of empty ones before it.  16 KiB: what
#: a record of TLS may have.
MAX_OPENING_BYTES = 2**14

_REQUEST_LINE = re.compile(rb"[A-Z]{1,20} [!-~\x80-\xff]+ HTTP/\d(?:\.\d)?\r?")
_PART_OF_ONE = re.compile(rb"[A-Z]{1,20}(?: [!-~\x80-\xff]*(?: [!-~]*\r?)?)?")

_ALERT = re.compile(r"(?:sslv3|tlsv1|tlsv13|ssl/tls) alert (.+)")
_FAULTS = {
    "http request": "plain HTTP",
    "https proxy request": "plain HTTP",
    "wrong version number": "not TLS",
    "unknown protocol": "not TLS",
    "unsupported protocol": "unsupported protocol version",
    "peer did not return a certificate": "no client certificate",
    "certificate verify failed": "client certificate refused",
    "no application protocol": "no shared application protocol",
    # What OpenSSL calls it where Twisted chooses none of a client's protocols.
    "internal error": "no shared application protocol",
}


class Opening(Enum):
    """The protocol that a client begins with, as its first bytes tell."""

    TLS = "TLS"
    PLAIN_HTTP = "plain HTTP"
    #: Neither.
    OTHER = "other"
    #: It takes more of them to tell.
    UNKNOWN = "unknown"


def opening_of(data: bytes) -> Opening:
    """The protocol of the client whose first bytes are C{data}."""
    if len(data) > MAX_OPENING_BYTES and not data.strip(b"\r\n"):
        return Opening.OTHER
    data = data.lstrip(b"\r\n")  # RFC 9112, section 2.2
    if not data:
        return Opening.UNKNOWN
    if not data[:1].isupper():  # a record of TLS begins with 22
        return Opening.TLS
    line, newline, _ = data.partition(b"\n")
    if newline:
        return Opening.PLAIN_HTTP if _REQUEST_LINE.fullmatch(line) else Opening.OTHER
    if len(line) <= MAX_OPENING_BYTES and _PART_OF_ONE.fullmatch(line):
        return Opening.UNKNOWN
    return Opening.OTHER


def answer_to_plain_http(data: bytes) -> bytes:
    """
    The answer to a client that speaks plain HTTP where TLS is spoken, in nginx's words.

    @param data: its first bytes.
    """
    body = b"400 The plain HTTP request was sent to HTTPS port\n"
    head = (
        "HTTP/1.1 400 Bad Request\r\n"
        f"Date: {formatdate(usegmt=True)}\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    is_head = data.lstrip(b"\r\n").startswith(b"HEAD ")
    return head.encode() + (b"" if is_head else body)


def handshake_fault(error: BaseException) -> str:
    """
    Why a handshake has failed, in a few words.

    @param error: what C{OpenSSL.SSL} or C{ssl} has raised, or how the connection has ended.
    """
    if isinstance(error, HandshakeFailed):
        return error.reason
    if isinstance(error, ConnectionAborted):
        return BY_SERVER
    if isinstance(error, ConnectionDone) or type(error).__name__ == "SSLEOFError":
        return "closed by the client"
    is_unconnected = isinstance(error, OSError) and error.errno == ENOTCONN
    if is_unconnected or isinstance(error, (ConnectionLost, ConnectionError)):
        return "reset by the client"
    words: object = getattr(error, "reason", None)  # of ssl's
    if words is None and error.args and isinstance(error.args[0], list) and error.args[0]:
        words = error.args[0][-1][-1]  # of OpenSSL's: (library, function, reason), the last
    if not isinstance(words, str):
        return one_line(error)
    words = words.replace("_", " ").lower()
    alert = _ALERT.fullmatch(words)
    if alert is not None:
        return f"alert {alert.group(1)}"
    return _FAULTS.get(words, words)
