"""A user's program that is right: a type checker has nothing to say about it."""
# pyright: strict

import socket
from collections.abc import Callable
from typing import Any, assert_type

from typing_extensions import override

from sockserve import (
    BaseRequestHandler,
    BlockingHTTPRequestHandler,
    BlockingStreamRequestHandler,
    DatagramRequestHandler,
    Deadlines,
    HTTPRequestHandler,
    StreamRequestHandler,
    __version__,
)
from sockserve.server import StreamFactory
from sockserve.sql import Row

version: str = __version__
deadlines = Deadlines(idle=60)


class Echo(StreamRequestHandler):
    async def handle(self) -> None:
        host = self.client_address[0]
        async for line in self.rfile:
            assert_type(line, bytes)
            self.wfile.write(line.upper() + f"{host}".encode())
            await self.wfile.drain()
        assert_type(await self.rfile.readline(), bytes)
        await self.request.gone()
        assert_type(self.request.getpeername(), Any)


class Chat(StreamFactory):
    """A server object with something of its own."""

    greeting: bytes = b"hello\n"


class Greeter(StreamRequestHandler[Chat]):
    async def handle(self) -> None:
        self.wfile.write(self.server.greeting)


class Lines(BlockingStreamRequestHandler):
    @override
    def setup(self) -> None:
        super().setup()
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle(self) -> None:
        for line in self.rfile:
            assert_type(line, bytes)
            self.wfile.write(line.strip())
        assert_type(self.request.fileno(), int)


class Time(DatagramRequestHandler):
    def handle(self) -> None:
        self.wfile.write(self.packet + b"%d" % len(self.rfile.read()))
        self.socket.sendto(b"another", self.client_address)


class Job(BaseRequestHandler[Row]):
    async def handle(self) -> None:
        assert_type(self.request.attempts, int)


class Hello(HTTPRequestHandler):
    async def do_GET(self) -> None:
        who = self.headers.get("X-Who", "world")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"Hello, " + who.encode())
        await self.wfile.drain()

    async def do_POST(self) -> None:
        body = await self.rfile.read()
        assert_type(body, bytes)
        self.send_error(400, explain=f"{self.command} {self.path}")


class Report(BlockingHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read()
        assert_type(body, bytes)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)


handlers: list[Callable[..., object]] = [Echo, Greeter, Lines, Time, Job, Hello, Report]
