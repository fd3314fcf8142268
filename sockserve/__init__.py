"""
Request handlers on Twisted: write a class with C{setup}, C{handle} and C{finish}; the
server makes one instance of it for each request.
"""

from typing import TYPE_CHECKING

from sockserve.core.late import show_late
from sockserve.core.version import __version__

if TYPE_CHECKING:
    from sockserve.core.deadlines import Deadlines
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
else:  # each is imported when a program asks for it: the drop-in modules need none
    show_late(
        __name__,
        {
            "BaseRequestHandler": "sockserve.handlers",
            "BlockingHTTPRequestHandler": "sockserve.http.handlers",
            "BlockingStreamRequestHandler": "sockserve.handlers",
            "ClientGone": "sockserve.interfaces",
            "ConfigurationError": "sockserve.interfaces",
            "DatagramRequestHandler": "sockserve.handlers",
            "DeadlineExpired": "sockserve.interfaces",
            "Deadlines": "sockserve.core.deadlines",
            "HTTPRequestHandler": "sockserve.http.handlers",
            "HandshakeFailed": "sockserve.interfaces",
            "PeerError": "sockserve.interfaces",
            "Phase": "sockserve.interfaces",
            "RequestAborted": "sockserve.interfaces",
            "SockserveError": "sockserve.interfaces",
            "StreamRequestHandler": "sockserve.handlers",
        },
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
