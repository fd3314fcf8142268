"""
The witness of drop-in servers: hears of each as it is made, and as it begins to serve.

This room owns the place where a witness is put, of which there is one for all servers.  It must
not know what that makes of it.
"""

from __future__ import annotations

from sockserve.dropin.server_object import ServerObject

__all__ = ["Witness", "call_witness", "witness"]


class Witness:
    """A witness that says nothing."""

    def server_made(self, server: ServerObject) -> None:
        """A server object has been made; its class' own constructor may go on. (any thread)"""

    def serving_began(self, server: ServerObject, is_loop: bool) -> None:
        """
        A server begins to take requests. (accept thread)

        @param is_loop: whether it serves until it is told otherwise (C{serve_forever}), or takes
            one request (C{handle_request}).
        """


_called = Witness()


def witness() -> Witness:
    """The witness that was called last."""
    return _called


def call_witness(called: Witness) -> None:
    """Have another witness hear of servers from now on."""
    global _called
    _called = called
