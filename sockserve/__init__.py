"""
Request handlers on Twisted: write a class with C{setup}, C{handle} and C{finish}; the
server makes one instance of it for each request.
"""

from sockserve.core.deadlines import Deadlines
from sockserve.handlers import (
    BaseRequestHandler,
    DatagramRequestHandler,
    StreamRequestHandler,
)
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
    "ClientGone",
    "ConfigurationError",
    "DatagramRequestHandler",
    "DeadlineExpired",
    "Deadlines",
    "HandshakeFailed",
    "PeerError",
    "Phase",
    "RequestAborted",
    "SockserveError",
    "StreamRequestHandler",
]
