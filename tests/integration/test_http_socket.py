"""A connection that changes hands between the reactor and blocking HTTP handlers."""

import http.server
import socket
import threading

import pytest

from sockserve import Deadlines
from sockserve.executors import make_executor
from sockserve.http import HTTPRequestHandler
from tests.integration.servers import (
    LOOPBACK,
    PROXY_HEADER,
    connect,
    in_thread,
    read_all,
    reset,
    serving,
    until,
)
from tests.integration.web import Conversation, answers_in, get, post, said

pytestmark = pytest.mark.usefixtures("no_leaks")

#: Seconds; no system's default.
KEEPIDLE_SECONDS = 4321


class SetsOption:
    """Sets an option of TCP's, and answers with what the server's own socket has then."""

    def do_GET(self):
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPIDLE_SECONDS)
        (connection,) = self.server.connections
        transport = connection.transport
        while not hasattr(transport, "socket"):
            transport = transport.transport
        body = b"%d" % transport.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Own(SetsOption, HTTPRequestHandler):
    pass


class Stock(SetsOption, http.server.BaseHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.mark.parametrize("handler", [Own, Stock])
@pytest.mark.parametrize(
    ("description", "header"), [(LOOPBACK, b""), (f"haproxy:{LOOPBACK}", PROXY_HEADER)]
)
async def test_options_of_tcp_are_set_on_the_connection(handler, description, header):
    answers = await said(handler, header + get(), description=description)
    (answer,) = answers_in(answers, "GET")
    assert answer.body == b"%d" % KEEPIDLE_SECONDS


class Upper(HTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read().upper()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.parametrize("description", [LOOPBACK, f"haproxy:{LOOPBACK}"])
async def test_deadlines_guard_the_second_request_as_the_first(description):
    def client(address):
        with Conversation(address) as conversation:
            if description != LOOPBACK:
                conversation.send(PROXY_HEADER)
            first = conversation.ask(post(b"one"))
            second = conversation.ask(post(b"two")[:-1])
            return first.body, second.status, conversation.rest()

    async with serving(Upper, description, deadlines=Deadlines(body=0.3)) as server:
        assert await in_thread(client, server.server_address) == (b"ONE", 408, b"")


@pytest.mark.parametrize(
    ("description", "header"), [(LOOPBACK, b""), (f"haproxy:{LOOPBACK}", PROXY_HEADER)]
)
async def test_client_that_leaves_while_its_request_waits_for_a_thread(description, header):
    from twisted.internet import reactor

    class Waits(HTTPRequestHandler):
        def do_GET(self):
            self.server.go_on.wait()
            self.send_response(204)
            self.end_headers()

    concurrency = make_executor(reactor, "serial")
    async with serving(Waits, description, concurrency=concurrency) as server:
        server.go_on = threading.Event()
        try:
            first = await in_thread(connect, server.server_address)
            first.sendall(header + get(version="HTTP/1.0"))
            await until(lambda: concurrency.running == 1)
            second = await in_thread(connect, server.server_address)
            second.sendall(header + get())
            await until(lambda: concurrency.waiting == 1)
            reset(second)  # a half-close is no reason to go without an answer
            await until(lambda: server.statistics.active == 1)
            assert concurrency.waiting == 0
        finally:
            server.go_on.set()
        with first:
            assert (await in_thread(read_all, first)).startswith(b"HTTP/1.1 204 ")
