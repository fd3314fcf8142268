"""HTTP request handlers, which any stream listener can serve, and the errors they may meet."""

from typing import TYPE_CHECKING

from sockserve.core.late import show_late

if TYPE_CHECKING:
    from sockserve.http.files.handler import FileRequestHandler
    from sockserve.http.gateway import Environment, GatewayRequestHandler, WebHandler
    from sockserve.http.h1.framing import LocalProtocolError, RemoteProtocolError
    from sockserve.http.handlers import BlockingHTTPRequestHandler, HTTPRequestHandler
else:  # each is imported when a program asks for it: the module http.server needs none
    show_late(
        __name__,
        {
            "BlockingHTTPRequestHandler": "sockserve.http.handlers",
            "Environment": "sockserve.http.gateway",
            "FileRequestHandler": "sockserve.http.files.handler",
            "GatewayRequestHandler": "sockserve.http.gateway",
            "HTTPRequestHandler": "sockserve.http.handlers",
            "LocalProtocolError": "sockserve.http.h1.framing",
            "RemoteProtocolError": "sockserve.http.h1.framing",
            "WebHandler": "sockserve.http.gateway",
        },
    )

__all__ = [
    "BlockingHTTPRequestHandler",
    "Environment",
    "FileRequestHandler",
    "GatewayRequestHandler",
    "HTTPRequestHandler",
    "LocalProtocolError",
    "RemoteProtocolError",
    "WebHandler",
]
