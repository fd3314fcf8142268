"""HTTP: request handlers for it, served over any stream listener, and the errors they may meet."""

from sockserve.http.files.handler import FileRequestHandler
from sockserve.http.h1.framing import LocalProtocolError, RemoteProtocolError
from sockserve.http.handlers import HTTPRequestHandler

__all__ = [
    "FileRequestHandler",
    "HTTPRequestHandler",
    "LocalProtocolError",
    "RemoteProtocolError",
]
