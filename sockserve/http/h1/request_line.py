"""
Request lines: a method, a target and a version (RFC 9112 section 3).

This room owns their grammar.  It must not know what follows a request line.
"""

from __future__ import annotations

import re

from sockserve.http.h1.framing import RemoteProtocolError

__all__ = ["HOST_NAME", "HTTP_1_1", "TOKEN", "parse_request_line"]

#: The version of nearly all requests: always this very object.
HTTP_1_1 = (1, 1)
_VERSION = re.compile(rb"HTTP/([0-9])\.([0-9])")
#: A token (RFC 9110 section 5.6.2).
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: A host: RFC 3986 section 3.2.2 as far as the characters go.
HOST_NAME = rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[A-Za-z0-9.:_~!$&'()*+,;=-]+\])"
#: The forms of a target (RFC 9112 section 3.2): origin and absolute; and for two methods
#: those that only they have.
_TARGET = re.compile(rb"/[\x21-\x7e]*|[A-Za-z][A-Za-z0-9+.-]*://[\x21-\x7e]+")
_OWN_TARGETS = {
    b"CONNECT": re.compile(HOST_NAME + rb":[0-9]+"),
    b"OPTIONS": re.compile(_TARGET.pattern + rb"|\*"),
}
_LENIENT_TARGET = re.compile(rb"[\x21-\x7e]+")


def parse_request_line(
    line: bytes, lenient: bool, simple: bool = False
) -> tuple[bytes, bytes, tuple[int, int]]:
    """
    Parse a request line.

    @param line: with its end.
    @param lenient: as L{sockserve.http.h1.head.HeadParser}'s; so is C{simple}.
    @return: the method, the target and the version.
    @raise RemoteProtocolError: it is malformed, or of a version that is not 1.1 or 1.0.
    """
    if line.endswith(b"\r\n"):
        text = line[:-2]
    elif lenient:
        text = line[:-1]
    else:
        raise RemoteProtocolError(400, "a line ends with CR and LF")
    words = text.split(b" ")
    if lenient:
        words = text.split()
    if len(words) == 2 and words[0] == b"GET" and (simple or lenient):
        version = (0, 9)
    elif len(words) == 3:
        version = _parse_version(words[2])
    else:
        raise RemoteProtocolError(400, "a request line has a method, a target and a version")
    method, target = words[:2]
    if not target.isascii():
        # RFC 9112 section 3.2: not to be guessed at; one server reads UTF-8, another Latin-1.
        raise RemoteProtocolError(400, "a target is ASCII; other characters are percent-encoded")
    if not TOKEN.fullmatch(method) or not line.startswith(method):
        raise RemoteProtocolError(400, "a request line begins with a method, which is a token")
    target_form = _LENIENT_TARGET if lenient else _OWN_TARGETS.get(method, _TARGET)
    if not target_form.fullmatch(target):
        raise RemoteProtocolError(400, "the target is not one, or not of this method")
    return method, target, version


def _parse_version(version: bytes) -> tuple[int, int]:
    found = _VERSION.fullmatch(version)
    if found is None:
        raise RemoteProtocolError(400, "the version is not one of HTTP's")
    if found[1] != b"1":
        raise RemoteProtocolError(505, "the version is not 1.1 or 1.0")
    # A higher minor version is treated as the highest known (RFC 9110 section 2.5).
    return (1, 0) if found[2] == b"0" else HTTP_1_1
