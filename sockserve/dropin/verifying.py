"""
A request that a server object has got: verified, and processed.

This room owns the order in which the server's methods are called then, and what a forking server's
child has to let go of.  It must not know how requests are waited for.
"""

from __future__ import annotations

import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sockserve.core.drain_notice import drain_notice
from sockserve.core.forking import ThreadRole, mark_thread
from sockserve.dropin.server_object import ServerObject
from sockserve.http.guarded import telling

__all__ = ["verify_and_take"]


def verify_and_take(server: ServerObject, request: Any, client_address: object) -> None:
    """
    Have a server verify and process a request, as C{BaseServer._handle_request_noblock} does.
    (accept thread)
    """
    try:
        verified = server.verify_request(request, client_address)
    except BaseException:
        close = getattr(request, "close", None)
        if close is not None:  # it is no packet, and nobody else has it
            close()
        raise
    if verified:
        try:
            if isinstance(server, socketserver.ForkingMixIn):
                with _handler_in_child(server, request):
                    server.process_request(request, client_address)
            else:
                server.process_request(request, client_address)
        except Exception:
            server.handle_error(request, client_address)
            server.shutdown_request(request)
        except BaseException:
            server.shutdown_request(request)
            raise
    else:
        server.shutdown_request(request)


@contextmanager
def _handler_in_child(server: ServerObject, request: object) -> Iterator[None]:
    """
    Have a child that a service's forking server makes for a request be a handler's: it does not
    listen, or clients would wait in vain once the parent has stopped; and its handler is guarded,
    whoever makes it there.
    """
    if drain_notice() is None:
        yield
        return
    mark_thread(ThreadRole.WORKER)
    try:
        with telling(server.RequestHandlerClass, request):
            yield
    finally:
        mark_thread(ThreadRole.ACCEPTING)
