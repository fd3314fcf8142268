"""
HTTP settings: the decisions that all HTTP connections of one server share.

This room owns what is decided once for each server: its deadlines, the kind of its handler, and
the box in which answers are put together.  It must not know connections.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from sockserve.core.beginnings import begin_on
from sockserve.core.handler_kinds import HandlerKind, unwrap
from sockserve.core.statistics import RequestRecord
from sockserve.executors.fork import ForkExecutor
from sockserve.http.h1.head import HeadLimits, HeadParser, RequestHead
from sockserve.http.h1.reader import RequestParser
from sockserve.http.limits import HTTPLimits
from sockserve.http.output import SpoolAllowance
from sockserve.http.responses import Response
from sockserve.http.stock_log import log_refusal
from sockserve.interfaces import IStreamServer, Outcome
from sockserve.streams.outbox import Outbox

__all__ = ["BODY_READ_BYTES", "HEAD_READ_BYTES", "HTTPSettings"]

#: How much is read at once of a connection whose requests have had no body yet: what heads
#: take.  Twisted's 64 KiB, allocated for each read, take half a microsecond more.  (The uvloop
#: reactor reads all streams to one place, of 64 KiB.)
HEAD_READ_BYTES = 4096
BODY_READ_BYTES = 65536

#: The statuses of requests that are over a limit, of which there is a line already.
_OVER_LIMIT = (
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.REQUEST_URI_TOO_LONG,
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
)

# Looked up once (see L{sockserve.core.lifecycle}).
_ERROR = Outcome.ERROR
_REFUSED = Outcome.REFUSED


class HTTPSettings:
    """
    The decisions that hold for all HTTP connections of a server.

    @ivar kind: the kind of its handler.
    @ivar blocks: whether a request is answered on a thread, of a handler that is asked about each;
        None of others.
    @ivar handler: the class of that, in whose form errors are.
    @ivar is_lenient: whether requests are read as C{http.server} reads them, as far as that does
        no harm.
    @ivar is_simple: whether its handler has asked for requests of HTTP/0.9.
    @ivar limits: the server's, which may be set while it serves.
    @ivar deadlines: the server's, with the handler's own C{timeout}.
    @ivar outbox: sends the answers of one turn of the reactor together.
    @ivar spool_allowance: what may be kept in files of responses of blocking handlers.
    @ivar forks: whether blocking handlers run in children.
    @ivar begin: what begins the coroutine of a request.
    """

    def __init__(self, server: IStreamServer) -> None:
        assert isinstance(server, HTTPLimits)
        self.limits: HTTPLimits = server
        self._server: IStreamServer = server
        self.handler: Any = unwrap(server.RequestHandlerClass)
        self.kind: HandlerKind = server.kind
        self.blocks: Callable[[RequestHead], bool] | None = (
            self.handler.blocks if self.kind is HandlerKind.HTTP_MIXED else None
        )
        patience = getattr(self.handler, "timeout", None)
        self.is_lenient = self.kind is HandlerKind.HTTP_STOCK
        self.is_simple = getattr(self.handler, "default_request_version", None) == "HTTP/0.9"
        self.deadlines = server.deadlines.capped(patience, "idle", "header")
        self._heads = HeadParser(
            self.is_lenient,
            self.is_simple,
            HeadLimits(
                server.max_request_line_bytes, server.max_header_bytes, server.max_header_fields
            ),
        )
        self.outbox = Outbox(server.reactor)
        self.spool_allowance = SpoolAllowance(server.max_spool_bytes)
        self.forks = isinstance(server.concurrency, ForkExecutor)
        self.begin = begin_on(server.reactor)

    def make_parser(self) -> RequestParser:
        """The parser of a connection's requests."""
        return RequestParser(self._heads)

    def account(
        self, record: RequestRecord, response: Response, outcome: Outcome, seconds: float
    ) -> None:
        """
        Count a request that is over, and tell the observers of it. (reactor thread)

        @param record: of what it came on.
        @param seconds: how long it took.
        """
        server = self._server
        statistics = server.statistics
        statistics.responses[response.status // 100] += 1
        statistics.count_handled(outcome is _ERROR, seconds)
        if outcome is _REFUSED:
            self._log_refusal(record, response)
        if response.phases is not None:
            for phase, spent in response.phases.items():
                statistics.observe_duration(phase, spent)
        if server.observers:
            server.observe(response.record(record, server.handler_name, seconds, outcome))

    def _log_refusal(self, record: RequestRecord, response: Response) -> None:
        server = self._server
        if self.is_lenient:
            log_refusal(self.handler, server.handlers_server, record.peer, response)
        elif response.status not in _OVER_LIMIT and not server.logs_requests:
            server.log_client(record.peer, "sent a request that is none", response.reason or "")
