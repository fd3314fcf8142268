"""
Errors of XDR: values that are not of a type, and bytes that are no value of one.

This room owns the errors, and how often types may be nested.  It must not know types.
"""

from __future__ import annotations

from sockserve.interfaces import PeerError, SockserveError

__all__ = ["MAX_DEPTH", "DecodeError", "EncodeError", "XDRError"]

#: How many values of types that contain themselves may be inside one another, but for the last
#: field of a list's element, which may be followed for ever.  128: a balanced tree of that depth
#: has more leaves than any packet, and Python's own limit, 1,000 calls, is not met.
MAX_DEPTH = 128


class XDRError(SockserveError, ValueError):
    """The root of the errors of XDR."""


class EncodeError(XDRError):
    """The error of a value that is not of the type it is to be packed as: a program's mistake."""


class DecodeError(XDRError, PeerError):
    """The error of bytes that are no value of the type they are unpacked as: a peer's fault."""
