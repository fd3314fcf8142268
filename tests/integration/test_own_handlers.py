"""Handlers of sockserve's own under the drop-in servers: the way from one to the other."""

import http.client
import http.server
import socket
import ssl
import sys
import threading
import time
from contextlib import asynccontextmanager

import pytest

from sockserve import DatagramRequestHandler, StreamRequestHandler, socketserver
from sockserve.http import HTTPRequestHandler
from sockserve.http.server import HTTPServer, ThreadingHTTPServer, ThreadingHTTPSServer
from sockserve.interfaces import ConfigurationError
from tests.integration.servers import (
    certificate_file,
    connect,
    connect_tls,
    in_thread,
    is_ended,
    read_all,
    reset,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

LOOPBACK = ("127.0.0.1", 0)
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@asynccontextmanager
async def driven(server):
    """Have a thread call C{serve_forever}."""
    ended = in_thread(server.serve_forever)
    try:
        yield server
    finally:
        await in_thread(server.shutdown)
        await ended
        await in_thread(server.server_close)


def quiet(server_class):
    """Keeps what would be printed."""

    class Quiet(server_class):
        def __init__(self, *arguments, **words):
            self.raised = []
            self.shut = threading.Event()
            super().__init__(*arguments, **words)

        def handle_error(self, request, client_address):
            self.raised.append(sys.exc_info()[1])

        def shutdown_request(self, request):
            super().shutdown_request(request)
            self.shut.set()

    return Quiet


class Web(HTTPRequestHandler):
    """A plain method and one that is not."""

    def do_GET(self):
        self.answer(f"{type(self.server).__name__}, {threading.current_thread().name}")

    async def do_POST(self):
        self.answer((await self.rfile.read()).decode())

    def answer(self, text):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())


class AsyncWeb(HTTPRequestHandler):
    async def do_GET(self):
        self.send_response(200)
        self.end_headers()


class Echo(StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


class AsyncEcho(StreamRequestHandler):
    async def handle(self):
        async for line in self.rfile:
            self.wfile.write(line)


class AsyncDatagram(DatagramRequestHandler):
    async def handle(self):
        self.wfile.write(self.packet)


async def test_an_http_handler_has_methods_of_both_kinds_on_one_connection():
    def talk(server):
        client = http.client.HTTPConnection(*server.server_address, timeout=15)
        answers = []
        for arguments in (("GET", "/"), ("POST", "/", b"body"), ("GET", "/")):
            client.request(*arguments)
            answers.append(client.getresponse().read().decode())
        client.close()
        return answers

    async with driven(ThreadingHTTPServer(LOOPBACK, Web)) as server:
        first, posted, last = await in_thread(talk, server)
    assert posted == "body"
    assert first.startswith("ThreadingHTTPServer, sockserve-")
    assert last.startswith("ThreadingHTTPServer, sockserve-")
    assert first != last


@pytest.mark.parametrize("handler", [Echo, AsyncEcho])
async def test_a_stream_handler_echoes_with_and_without_a_thread(handler):
    def talk(server):
        with connect(server.server_address) as client:
            client.sendall(b"one\ntwo\n")
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

    async with driven(socketserver.ThreadingTCPServer(LOOPBACK, handler)) as server:
        assert await in_thread(talk, server) == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("server_class", "handler", "why"),
    [
        (HTTPServer, AsyncWeb, "add ThreadingMixIn"),
        (HTTPServer, Web, "add ThreadingMixIn"),
        (socketserver.TCPServer, AsyncEcho, "add ThreadingMixIn"),
        (socketserver.ForkingTCPServer, AsyncEcho, "add ThreadingMixIn"),
        (socketserver.UDPServer, AsyncDatagram, "plain methods"),
        (socketserver.ThreadingUDPServer, AsyncDatagram, "plain methods"),
    ],
)
def test_a_handler_that_cannot_be_served_is_refused_at_once(server_class, handler, why):
    with pytest.raises(ConfigurationError, match=why):
        server_class(LOOPBACK, handler)


@pytest.mark.parametrize("handler", [Web, AsyncWeb])
async def test_over_tls_such_a_handler_is_refused_and_the_client_is_not_kept(handler, tmp_path):
    certificate = certificate_file(tmp_path)

    def talk(server):
        with connect_tls(server.server_address, certificate) as client:
            client.sendall(REQUEST)
            try:
                return is_ended(client)
            except ssl.SSLError:  # without a goodbye
                return True

    server = quiet(ThreadingHTTPSServer)(LOOPBACK, handler, certfile=certificate)
    server.daemon_threads = False  # server_close waits for whoever is not over
    async with driven(server):
        assert await in_thread(talk, server)
    (error,) = server.raised
    assert isinstance(error, ConfigurationError)
    assert "SSLSocket" in str(error)


async def test_a_stock_handler_that_bears_with_a_gone_client_has_raised_nothing():
    waiting, gone = threading.Event(), threading.Event()
    borne = []

    class Patient(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            waiting.set()
            gone.wait(15)
            try:
                for _ in range(1500):
                    self.wfile.write(b"x")
                    time.sleep(0.01)  # until the server has heard of it
            except ConnectionError as error:
                borne.append(error)

    def talk(server):
        client = connect(server.server_address)
        client.sendall(REQUEST)
        waiting.wait(15)
        reset(client)
        gone.set()
        return server.shut.wait(15)

    server = quiet(ThreadingHTTPServer)(LOOPBACK, Patient)
    async with driven(server):
        assert await in_thread(talk, server)
    assert len(borne) == 1
    assert server.raised == []
