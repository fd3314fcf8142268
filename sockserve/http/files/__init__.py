"""The handler for files, and its way to the disk."""

from sockserve.http.files.handler import FileRequestHandler

__all__ = ["FileRequestHandler"]
