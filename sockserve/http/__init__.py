"""HTTP request handlers, which any stream listener can serve, and the errors they may meet."""

from sockserve.http.files.handler import FileRequestHandler
from sockserve.http.gateway import Environment, GatewayRequestHandler, WebHandler
from sockserve.http.h1.framing import LocalProtocolError, RemoteProtocolError
from sockserve.http.handlers import BlockingHTTPRequestHandler, HTTPRequestHandler

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
