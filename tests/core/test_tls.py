"""What is said about TLS: openings that are plain HTTP or not, and faults in words."""

import errno
import ssl

import pytest
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost

from sockserve.core.tls import (
    BY_SERVER,
    MAX_OPENING_BYTES,
    Opening,
    answer_to_plain_http,
    handshake_fault,
    opening_of,
)
from sockserve.interfaces import HandshakeFailed


@pytest.mark.parametrize(
    ("data", "opening"),
    [
        (b"", Opening.UNKNOWN),
        (b"G", Opening.UNKNOWN),
        (b"GET", Opening.UNKNOWN),
        (b"GET /", Opening.UNKNOWN),
        (b"GET / HTTP/1.1", Opening.UNKNOWN),
        (b"GET / HTTP/1.1\r", Opening.UNKNOWN),
        (b"\r\n", Opening.UNKNOWN),
        (b"GET / HTTP/1.1\r\n", Opening.PLAIN_HTTP),
        (b"GET / HTTP/1.1\n", Opening.PLAIN_HTTP),
        (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n", Opening.PLAIN_HTTP),
        (b"GET /\xc3\xa9 HTTP/1.0\r\n", Opening.PLAIN_HTTP),
        (b"PRI * HTTP/2.0\r\n", Opening.PLAIN_HTTP),
        (b"GET /\r\n", Opening.OTHER),
        (b"GET a b c\r\n", Opening.OTHER),
        (b"GET / SPDY/1\r\n", Opening.OTHER),
        (b"EHLO localhost\r\n", Opening.OTHER),
        (b"SSH-2.0", Opening.OTHER),
        (b"G\0", Opening.OTHER),
        (b"A" * 21, Opening.OTHER),
        (b"GET /" + b"a" * MAX_OPENING_BYTES, Opening.OTHER),
        (b"\n" * MAX_OPENING_BYTES, Opening.UNKNOWN),
        (b"\n" * MAX_OPENING_BYTES + b"\n", Opening.OTHER),
        (b"\x16\x03\x01", Opening.TLS),
        (b"\x80\x2e\x01", Opening.TLS),
        (b"get / HTTP/1.1\r\n", Opening.TLS),
        (b"\0", Opening.TLS),
    ],
)
def test_an_opening_is_plain_http_once_it_has_a_request_line(data, opening):
    assert opening_of(data) is opening


def test_the_answer_to_head_has_no_body():
    full = answer_to_plain_http(b"GET / HTTP/1.1\r\n")
    head, _, body = full.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert answer_to_plain_http(b"HEAD / HTTP/1.1\r\n").endswith(b"\r\n\r\n")


def error(reason):
    raised = ssl.SSLError(1, "x")
    raised.reason = reason
    return raised


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (error("NO_SHARED_CIPHER"), "no shared cipher"),
        (error("TLSV1_ALERT_UNKNOWN_CA"), "alert unknown ca"),
        (error("SSLV3_ALERT_BAD_CERTIFICATE"), "alert bad certificate"),
        (error("SSL/TLS_ALERT_BAD_CERTIFICATE"), "alert bad certificate"),
        (error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "alert certificate required"),
        (error("HTTP_REQUEST"), "plain HTTP"),
        (error("WRONG_VERSION_NUMBER"), "not TLS"),
        (error("PEER_DID_NOT_RETURN_A_CERTIFICATE"), "no client certificate"),
        (error("CERTIFICATE_VERIFY_FAILED"), "client certificate refused"),
        (error("BAD_EXTENSION"), "bad extension"),
        (Exception([("SSL routines", "", "no shared cipher")]), "no shared cipher"),
        (Exception([("a", "", "outer"), ("b", "", "tlsv1 alert internal error")]),
         "alert internal error"),
        (Exception([]), "[]"),
        (ssl.SSLEOFError(8, "EOF"), "closed by the client"),
        (ConnectionResetError(104, "reset"), "reset by the client"),
        (OSError(errno.ENOTCONN, "not connected"), "reset by the client"),
        (ConnectionDone(), "closed by the client"),
        (ConnectionLost(), "reset by the client"),
        (ConnectionAborted(), BY_SERVER),
        (HandshakeFailed("not TLS"), "not TLS"),
        (OSError(), "OSError"),
    ],
)  # fmt: skip
def test_a_fault_is_a_few_words(given, fault):
    assert handshake_fault(given) == fault
