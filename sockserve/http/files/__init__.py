"""The handler that serves the files of a folder, and its way to the disk."""

from sockserve.http.files.handler import FileRequestHandler

__all__ = ["FileRequestHandler"]
