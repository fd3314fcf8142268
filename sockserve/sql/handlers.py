"""
Handlers of rows: the base class of users' handlers for requests from a table.

This room owns what such a handler has of its own.  It must not know databases, or whether a
reactor, a thread or a child runs it. (handler's thread)
"""

from __future__ import annotations

from typing import Any, ClassVar

from sockserve.handlers import BaseRequestHandler, ServerT
from sockserve.sql.rows import Row

__all__ = ["SQLRequestHandler"]


class SQLRequestHandler(BaseRequestHandler[Row, ServerT]):
    """
    A handler of one row.  Any other handler class serves rows as well; this one can have its
    success and the row's removal be one transaction.

    A row whose C{handle} returns is removed from the table; one that raises is tried again later,
    and set aside when it has been too often.  It may be served twice, when a process or the
    database dies in between: C{self.request.idempotency_key} is the same then.

    @cvar transaction: whether the row is removed in a transaction that is C{self.connection}:
        what the handler does there, and the removal, happen both or not at all.  It is committed
        when C{finish} has returned, and each row has one of its own.
    @ivar request: the L{sockserve.sql.Row}.
    @ivar connection: with L{transaction}, the database's own: a C{sqlite3.Connection} or a
        C{psycopg.Connection} for a blocking handler, an L{sockserve.sql.AwaitableConnection} for
        a coroutine.  Else None.
    """

    transaction: ClassVar[bool] = False

    def __init__(self, request: Any, client_address: Any, server: Any) -> None:
        super().__init__(request, client_address, server)
        self.connection: Any = request.connection
