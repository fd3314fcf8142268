"""HTTP request handlers, which any stream listener can serve."""

from sockserve.http.files.handler import FileRequestHandler
from sockserve.http.handlers import HTTPRequestHandler

__all__ = ["FileRequestHandler", "HTTPRequestHandler"]
