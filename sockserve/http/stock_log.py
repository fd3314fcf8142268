"""
The stock log: what C{http.server}'s handlers write of requests, where they have not been asked.

This room owns the lines of requests that the server has refused before a handler was made: as the
handler would have written them, by its own methods.  It must not know connections.
"""

from __future__ import annotations

import contextlib
from http.server import BaseHTTPRequestHandler
from typing import Any

from sockserve.http.responses import Response

__all__ = ["log_refusal"]


def log_refusal(cls: Any, server: object, client_address: object, response: Response) -> None:
    """
    Have a handler log that its server has refused a request. (reactor thread)

    @param cls: the handler's class; one that is none of C{http.server}'s has no such log.
    @param server: the server object that it would see.
    """
    if not (isinstance(cls, type) and issubclass(cls, BaseHTTPRequestHandler)):
        return
    # Its own methods may look for what one that serves has.
    with contextlib.suppress(Exception):
        handler = object.__new__(cls)
        head = response.request
        handler.client_address, handler.server = client_address, server  # type: ignore[assignment]
        handler.requestline, handler.request_version = head.request_line, "HTTP/1.1"
        handler.command, handler.path = head.method, head.target
        handler.log_error("code %d, message %s", response.status, response.reason)
        if head.method:  # there is a request line to be shown
            handler.log_request(response.status)
