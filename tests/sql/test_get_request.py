"""
A server of C{socketserver}'s shape whose C{get_request} returns an entry of an SQL table, as that
module's own text proposes; served by the standard library, and by C{SocketServerService}.
"""

import os
import socketserver
import sqlite3
import threading
import time
from typing import Any, ClassVar

import pytest
from twisted.internet import reactor
from twisted.internet.task import deferLater

from sockserve.service import SocketServerService
from tests.sql.conftest import Table

pytestmark = pytest.mark.usefixtures("no_leaks")


class TableServer(socketserver.BaseServer):
    """Its requests are rows.  A pipe makes it readable, with a byte in it for each."""

    def __init__(self, path: str, handler: Any) -> None:
        super().__init__(path, handler)
        self.database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._readable, self._writable = os.pipe()

    def add(self, payload: str) -> None:
        self.database.execute("INSERT INTO jobs (payload) VALUES (?)", (payload,))
        os.write(self._writable, b"!")

    def fileno(self) -> int:
        return self._readable

    def get_request(self) -> tuple[Any, Any]:
        os.read(self._readable, 1)
        row = self.database.execute(
            "DELETE FROM jobs WHERE id = (SELECT min(id) FROM jobs) RETURNING id, payload"
        ).fetchone()
        return row, f"jobs/{row[0]}"

    def server_close(self) -> None:
        self.database.close()
        os.close(self._readable)
        os.close(self._writable)
        self._readable = -1


class ThreadingTableServer(socketserver.ThreadingMixIn, TableServer):
    pass


class Handler(socketserver.BaseRequestHandler):
    seen: ClassVar[list[Any]] = []

    def handle(self) -> None:
        self.seen.append((self.request[1], self.client_address))


@pytest.fixture(params=[TableServer, ThreadingTableServer])
def server(request: pytest.FixtureRequest, sqlite_table: Table) -> TableServer:
    Handler.seen.clear()
    made: TableServer = request.param(sqlite_table.path, Handler)
    return made


ROWS = [("a", "jobs/1"), ("b", "jobs/2"), ("c", "jobs/3")]


def test_the_standard_library_serves_it(server: TableServer) -> None:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    for payload in "abc":
        server.add(payload)
    deadline = time.monotonic() + 10
    while len(Handler.seen) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    server.shutdown()
    thread.join()
    server.server_close()
    assert sorted(Handler.seen) == ROWS


async def test_a_service_serves_it(server: TableServer) -> None:
    service = SocketServerService(server, reactor)
    service.startService()
    for payload in "abc":
        server.add(payload)
    deadline = time.monotonic() + 10
    while service.server.statistics.requests < 3 and time.monotonic() < deadline:
        await deferLater(reactor, 0.01)
    await service.stopService()
    assert sorted(Handler.seen) == ROWS
    assert service.server.statistics.errors == 0
