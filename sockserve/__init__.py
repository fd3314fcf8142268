"""
Request handlers on Twisted: write a class with C{setup}, C{handle} and C{finish}; the
server makes one instance of it for each request.
"""

from sockserve.core.deadlines import Deadlines
from sockserve.core.version import __version__
from sockserve.handlers import (
    BaseRequestHandler,
    BlockingStreamRequestHandler,
    DatagramRequestHandler,
    StreamRequestHandler,
)
from sockserve.http.handlers import BlockingHTTPRequestHandler, HTTPRequestHandler
from sockserve.interfaces import (
    ClientGone,
    ConfigurationError,
    DeadlineExpired,
    HandshakeFailed,
    PeerError,
    Phase,
    RequestAborted,
    SockserveError,
)

__all__ = [
    "BaseRequestHandler",
    "BlockingHTTPRequestHandler",
    "BlockingStreamRequestHandler",
    "ClientGone",
    "ConfigurationError",
    "DatagramRequestHandler",
    "DeadlineExpired",
    "Deadlines",
    "HTTPRequestHandler",
    "HandshakeFailed",
    "PeerError",
    "Phase",
    "RequestAborted",
    "SockserveError",
    "StreamRequestHandler",
    "__version__",
]
