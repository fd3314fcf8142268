"""
Kinds of handlers: which base classes serve what, and nothing else.

This room owns the table of them.  It must not know who asks.
"""

from __future__ import annotations

import socketserver

from sockserve.handlers import DatagramRequestHandler, StreamRequestHandler
from sockserve.http.gateway import GatewayRequestHandler
from sockserve.http.handlers import HTTPRequestHandler

__all__ = ["HANDLERS_OF_DATAGRAMS", "HANDLERS_OF_STREAMS", "derives"]

#: The classes whose handlers serve streams, and nothing else; and datagrams likewise.
HANDLERS_OF_STREAMS = (
    StreamRequestHandler,
    socketserver.StreamRequestHandler,
    HTTPRequestHandler,
    GatewayRequestHandler,
)
HANDLERS_OF_DATAGRAMS = (DatagramRequestHandler, socketserver.DatagramRequestHandler)


def derives(cls: object, *bases: type) -> bool:
    """Whether a handler is a class that derives from one of C{bases}."""
    return isinstance(cls, type) and issubclass(cls, bases)
