"""What a blocking HTTP handler does to its socket, and what the reactor finds of it."""

import os
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler

import pytest

from tests.integration.servers import in_thread, serving

pytestmark = pytest.mark.usefixtures("no_leaks")


class Impatient(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5.0

    def do_GET(self) -> None:
        body = repr(self.connection.gettimeout()).encode()
        if self.path == "/fileno":
            body += b" %d" % os.get_blocking(self.connection.fileno())
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("path", ["/", "/fileno"])
async def test_a_handlers_timeout_leaves_the_reactor_a_descriptor_that_does_not_block(
    path: str,
) -> None:
    async with serving(Impatient) as server:
        client = HTTPConnection(*server.server_address, timeout=10)

        def get() -> bytes:
            client.request("GET", path)
            return client.getresponse().read()

        for _ in range(3):
            assert (await in_thread(get)).startswith(b"5.0")
            (connection,) = server.connections
            assert not os.get_blocking(connection.transport.socket.fileno())
        client.close()
