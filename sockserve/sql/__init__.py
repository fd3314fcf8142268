"""
Requests from an SQL table: each row is served by a handler, and removed when that has succeeded.

This page shows what its rooms own: the source, the service and the server object of rows, the
handler class that can have the row's transaction, and what those need who fill the table.
"""

from sockserve.sql.awaitable import AwaitableConnection
from sockserve.sql.handlers import SQLRequestHandler
from sockserve.sql.queue import dead_rows, enqueue, requeue
from sockserve.sql.rows import DeadRow, Row
from sockserve.sql.schema import schema
from sockserve.sql.server import SQLServer
from sockserve.sql.service import SQLRequestService
from sockserve.sql.settings import RetryPolicy, SourceSettings
from sockserve.sql.source import SQLSource
from sockserve.sql.store import LeaseLost, StoreAway, StoreBusy, StoreError

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
