"""
HTTP settings: what all HTTP connections of one server share.

This room owns what is decided once for each server: the deadlines, which methods block, and the
box in which answers are put together.  It must not know connections.
"""

from __future__ import annotations

from typing import Any

from sockserve.core.handler_kinds import HandlerKind, provides, unwrap
from sockserve.executors.fork import ForkExecutor
from sockserve.http.h1.head import RequestHead
from sockserve.interfaces import IHTTPRequestHandler
from sockserve.streams.writer import Outbox

__all__ = ["HTTPSettings"]


class HTTPSettings:
    """
    What is decided once for a server.

    @ivar deadlines: the server's, with the handler's own C{timeout}.
    @ivar outbox: sends the answers of one turn of the reactor together.
    @ivar may_block: whether a request may have to be answered on a thread, or in a child.
    @ivar is_stock: whether the handler is one of C{http.server}'s.
    @ivar forks: whether blocking handlers run in children.
    """

    def __init__(self, server: Any) -> None:
        self._handler = cls = unwrap(server.RequestHandlerClass)
        self.deadlines = server.deadlines.capped(getattr(cls, "timeout", None), "idle", "header")
        self.outbox = Outbox(server.reactor)
        self.is_stock = server.kind is HandlerKind.HTTP_STOCK
        self.forks = isinstance(server.concurrency, ForkExecutor)
        self.may_block = not server.kind.is_coroutine
        #: By HTTP method, whether the handler's must run on a thread; those it has.
        self._blocking_methods: dict[str, bool] = {}
        if provides(cls, IHTTPRequestHandler):
            self._blocking_methods = {name: cls.blocks(name) for name in cls.commands()}

    def blocks(self, head: RequestHead) -> bool:
        """Whether a request must be; asked only where one L{may_block}."""
        if self.is_stock:
            return True
        known = self._blocking_methods.get(head.method)
        return bool(self._handler.blocks(head.method)) if known is None else known
