"""A user's program with a mistake in each line that is marked: a type checker names all of them."""
# pyright: strict

from sockserve import (
    BlockingHTTPRequestHandler,
    BlockingStreamRequestHandler,
    DatagramRequestHandler,
    HTTPRequestHandler,
    StreamRequestHandler,
)


class Stream(StreamRequestHandler):
    async def handle(self) -> None:
        self.rfile.readline().strip()  # wrong
        for line in self.rfile:  # wrong
            self.wfile.write(line)
        self.wfile.write("text")  # wrong
        self.request.recv(100)  # wrong
        self.server.greeting  # wrong
        self.client_adress  # wrong


class BlockingStream(BlockingStreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write("text")  # wrong
        self.wfile.drain()  # wrong
        self.request.gone()  # wrong
        self.rfile.readline() + "text"  # wrong


class Datagram(DatagramRequestHandler):
    def handle(self) -> None:
        self.packet + "text"  # wrong
        self.socket.sendall(b"")  # wrong


class HTTP(HTTPRequestHandler):
    async def do_GET(self) -> None:
        self.rfile.read() + b""  # wrong
        self.send_response("200")  # wrong
        self.wfile.write("text")  # wrong
        self.request.recv(1)  # wrong


class BlockingHTTP(BlockingHTTPRequestHandler):
    def do_GET(self) -> None:
        self.rfile.read() + "text"  # wrong
        self.wfile.drain()  # wrong
