"""
Requests from an SQL table: each row is served by a handler, and removed when that has succeeded.

This page shows what its rooms own: the source, the service and the server object of rows, the
handler class that can have the row's transaction, and what those need who fill the table.
"""

from typing import TYPE_CHECKING

from sockserve.core.late import show_late
from sockserve.sql.schema import schema  # now: an import of that room later would take the name

if TYPE_CHECKING:
    from sockserve.sql.awaitable import AwaitableConnection
    from sockserve.sql.handlers import SQLRequestHandler
    from sockserve.sql.queue import dead_rows, enqueue, requeue
    from sockserve.sql.rows import DeadRow, Row
    from sockserve.sql.server import SQLServer
    from sockserve.sql.service import SQLRequestService
    from sockserve.sql.settings import RetryPolicy, SourceSettings
    from sockserve.sql.source import SQLSource
    from sockserve.sql.store import LeaseLost, StoreAway, StoreBusy, StoreError
else:  # each is imported when a program asks for it
    show_late(
        __name__,
        {
            "AwaitableConnection": "sockserve.sql.awaitable",
            "DeadRow": "sockserve.sql.rows",
            "LeaseLost": "sockserve.sql.store",
            "RetryPolicy": "sockserve.sql.settings",
            "Row": "sockserve.sql.rows",
            "SQLRequestHandler": "sockserve.sql.handlers",
            "SQLRequestService": "sockserve.sql.service",
            "SQLServer": "sockserve.sql.server",
            "SQLSource": "sockserve.sql.source",
            "SourceSettings": "sockserve.sql.settings",
            "StoreAway": "sockserve.sql.store",
            "StoreBusy": "sockserve.sql.store",
            "StoreError": "sockserve.sql.store",
            "dead_rows": "sockserve.sql.queue",
            "enqueue": "sockserve.sql.queue",
            "requeue": "sockserve.sql.queue",
        },
    )

__all__ = [
    "AwaitableConnection",
    "DeadRow",
    "LeaseLost",
    "RetryPolicy",
    "Row",
    "SQLRequestHandler",
    "SQLRequestService",
    "SQLServer",
    "SQLSource",
    "SourceSettings",
    "StoreAway",
    "StoreBusy",
    "StoreError",
    "dead_rows",
    "enqueue",
    "requeue",
    "schema",
]
