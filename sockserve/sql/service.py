"""
The service of a source: serves a table's rows, as a part of a Twisted application.

This room owns when the database is connected to, and the order in which serving it ends.  It must
not know option strings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from typing_extensions import override

from sockserve.interfaces import ConfigurationError
from sockserve.listeners.service import ListenerService
from sockserve.sql.server import SQLServer
from sockserve.sql.source import SQLSource

__all__ = ["SQLListener", "SQLRequestService"]


class SQLListener:
    """A L{sockserve.listeners.machine.Listener} of rows."""

    def __init__(self, server: SQLServer) -> None:
        self.server = server

    def opened(self, port: SQLSource) -> None:
        """Begin to serve the rows of C{port}, a source that is open."""
        self.server.begin()

    def suspend(self) -> None:
        """Claim no more rows."""
        self.server.suspend()

    def resume(self) -> None:
        """Claim rows again."""
        self.server.resume()

    def close(self) -> Deferred[Any]:
        """
        Claim no more rows, have those that are served finish within the C{drain} deadline, and
        tell the database of them.

        @return: a Deferred that fires when that is done.
        """
        return self.server.finish()


class SQLRequestService(ListenerService):
    """
    The rows of a table, served as a service of a Twisted application.

    @ivar source: the table.
    @ivar server: the server object.
    """

    server: SQLServer

    def __init__(
        self,
        source: SQLSource,
        RequestHandlerClass: Callable[..., Any],
        *,
        factory: Callable[..., SQLServer] = SQLServer,
        **options: Any,
    ) -> None:
        """
        @param source: the table.
        @param RequestHandlerClass: the handler of each row.
        @param factory: the server object's class.
        @param options: as L{SQLServer.__init__}.
        @raise ConfigurationError: one of these cannot be.
        """
        server = factory(RequestHandlerClass, source=source, **options)
        super().__init__(SQLListener(server), source.description)
        self.source = source
        self.server = server
        server.statistics.listener = self.description

    @override
    def privilegedStartService(self) -> None:
        """
        Look for the table, so that what is wrong with it is told before anything is served.  (The
        connection is made without the privileges that there may be now.)

        @raise ConfigurationError: the database refuses, or has no such table.
        """
        if self._machine.is_stopped():
            self.source.check()

    @override
    def startService(self) -> None:
        """
        Connect, and serve.

        @raise ConfigurationError: the database refuses, or has no such table.
        """
        if not self._machine.is_stopped():
            raise ConfigurationError(
                f"source {self.description!r}: it is stopping still; wait for what stopService"
                " returned"
            )
        self.source.open()
        super().startService()
        self._machine.opened(self.source)
