"""
HTTP settings: the decisions that all HTTP connections of one server share.

This room owns what is decided once for each server: its deadlines, the kind of its handler, and
the box in which answers are put together.  It must not know connections.
"""

from __future__ import annotations

from sockserve.core.handler_kinds import HandlerKind, unwrap
from sockserve.executors.fork import ForkExecutor
from sockserve.http.h1.head import RequestHead
from sockserve.interfaces import IStreamServer
from sockserve.streams.writer import Outbox

__all__ = ["HTTPSettings"]


class HTTPSettings:
    """
    The decisions that hold for all HTTP connections of a server.

    @ivar kind: the kind of its handler.
    @ivar deadlines: the server's, with the handler's own C{timeout}.
    @ivar outbox: sends the answers of one turn of the reactor together.
    @ivar forks: whether blocking handlers run in children.
    """

    def __init__(self, server: IStreamServer) -> None:
        self._handler = unwrap(server.RequestHandlerClass)
        self.kind: HandlerKind = server.kind
        patience = getattr(self._handler, "timeout", None)
        self.deadlines = server.deadlines.capped(patience, "idle", "header")
        self.outbox = Outbox(server.reactor)
        self.forks = isinstance(server.concurrency, ForkExecutor)

    def kind_of(self, head: RequestHead) -> HandlerKind:
        """The kind one request is served as, of a handler asked about each. (reactor thread)"""
        return (
            HandlerKind.HTTP_BLOCKING if self._handler.blocks(head) else HandlerKind.HTTP_COROUTINE
        )
