"""
Places: where to listen, in shorter ways than a description is written.

This room owns those ways, which are those of other servers, and how a text is put into a
description.  It must not know what a description says besides (L{sockserve.listeners}).
"""

from __future__ import annotations

import re

__all__ = ["OTHER_KINDS", "canonical", "quoted"]

#: Kinds of description that there are not, by what is likely to be meant.
OTHER_KINDS = {"http": "tcp", "https": "tls", "uds": "unix"}

#: What is no description, but says where: C{8080}, C{:8080}, C{HOST:8080}, C{[::1]:8080}.  A host
#: is an address or a name with a dot, as any other might be a kind.
_HOST_AND_PORT = re.compile(
    r"(?:(?P<host>|\[[^\[\]/]*\]|[^:\[\]/\\=]*\.[^:\[\]/\\=]*|localhost|\*):)?(?P<port>[0-9]+)",
    re.ASCII,
)
#: Likewise, a URL; the port may be left out.
_URL = re.compile(
    r"(?P<scheme>[a-z]+)://(?P<host>\[[^\[\]/]*\]|[^:\[\]/\\]*)(?::(?P<port>[0-9]+))?(?P<rest>.*)",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)
_URL_PORTS = {"http": "80", "tcp": None}


def canonical(description: str) -> str:
    """
    A description as it is written in full, of what says where in a shorter way: C{8080} or
    C{:8080} is C{tcp:8080}, and C{127.0.0.1:8080}, C{[::1]:8080} and C{http://127.0.0.1:8080/} have
    their address as C{interface}.  Any other stays as it is.

    @raise ValueError: it is a URL that is no place to listen at.
    """
    kind, colon, rest = description.partition(":")
    if kind.lower() == "haproxy" and colon:
        return f"{kind}:{canonical(rest)}"
    url = _URL.fullmatch(description)
    if url is not None:
        return _of_url(url)
    found = _HOST_AND_PORT.fullmatch(description)
    if found is None:
        return description
    return _stream_description((found["host"] or "").replace("*", ""), found["port"])


def _stream_description(host: str, port: str | int) -> str:
    """
    The description of a TCP port.

    @param host: an address, one of IPv6 perhaps in brackets, or a name; empty for all of IPv4.
    """
    host = host.removeprefix("[").removesuffix("]")
    kind = "tcp6" if ":" in host else "tcp"
    return f"{kind}:{port}:interface={quoted(host)}" if host else f"{kind}:{port}"


def quoted(text: str) -> str:
    """A text as it is written within a description."""
    return text.replace("\\", "\\\\").replace(":", "\\:")


def _of_url(url: re.Match[str]) -> str:
    scheme, port = url["scheme"].lower(), url["port"]
    if scheme == "https":
        raise ValueError(
            f"https needs a certificate: write tls:{port or 443}:FOLDER, or"
            f" ssl:{port or 443}:privateKey=FILE:certKey=FILE, or name it by certfile beside port"
        )
    if scheme not in _URL_PORTS:
        raise ValueError(f"a URL of {scheme} is no place to listen at; write tcp:PORT")
    if url["rest"] not in ("", "/"):
        raise ValueError(f"{url['rest']!r} is no part of where to listen; leave it out")
    port = port or _URL_PORTS[scheme]
    if port is None:
        raise ValueError("the port is missing")
    return _stream_description(url["host"], port)
