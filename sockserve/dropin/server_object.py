"""
The server object of a drop-in server: the part of C{socketserver.BaseServer} that sockserve uses.

This room owns names only.  It must not know who calls them.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol

__all__ = ["ServerObject"]


class ServerObject(Protocol):
    """
    A server of C{socketserver}'s kind, the standard library's or sockserve's, with whatever a
    program overrides.  A request is a connected socket, a datagram with its socket, or whatever
    else C{get_request} gives; a client's address is whatever the program calls it.

    @ivar server_address: the address it listens on.
    @ivar RequestHandlerClass: makes a handler, which serves while it is made.
    """

    server_address: Any
    RequestHandlerClass: Any

    #: C{socketserver}'s own: C{shutdown} sets the one, and waits for the other.
    _BaseServer__shutdown_request: bool
    _BaseServer__is_shut_down: threading.Event

    def fileno(self) -> int:
        """The listening socket's descriptor; -1 when that is closed."""

    def service_actions(self) -> None:
        """Called once a turn of the loop. (accept thread)"""

    def get_request(self) -> tuple[Any, Any]:
        """Accept a request: gives it and the client's address. (accept thread)"""

    def _handle_request_noblock(self) -> None:
        """Take a request, verify and process it. (accept thread)"""

    def verify_request(self, request: Any, client_address: Any) -> Any:
        """Whether a request may be served. (accept thread)"""

    def process_request(self, request: Any, client_address: Any) -> None:
        """Have a request served. (accept thread)"""

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Make the handler, which serves. (handler's thread)"""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Called while an exception of the handler is being handled. (handler's thread)"""

    def shutdown_request(self, request: Any) -> None:
        """End a request's output, then call L{close_request}. (handler's thread)"""

    def close_request(self, request: Any) -> None:
        """Close a request. (handler's thread)"""

    def server_close(self) -> None:
        """Close the listening socket. (any thread)"""
