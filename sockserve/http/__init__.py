"""HTTP: request handlers for it, served over any stream listener."""

from sockserve.http.files.handler import FileRequestHandler
from sockserve.http.handlers import HTTPRequestHandler

__all__ = ["FileRequestHandler", "HTTPRequestHandler"]
