"""Programs that pass bytes on, or come to speak another protocol than they began with."""

import base64
import contextlib
import hashlib
import os
import socket
import ssl
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.integration.servers import (
    PATIENCE_SECONDS,
    certificate_file,
    connect,
    read_all,
    read_exactly,
    read_line,
)
from tests.programs.running import curl, on_both, running, status_of

pytestmark = [pytest.mark.usefixtures("no_leaks"), on_both]


def test_a_tunnel(modules):
    with (
        socket.create_server(("127.0.0.1", 0)) as target,
        running("tunnel", modules, target.getsockname()[1]) as program,
    ):
        target.settimeout(PATIENCE_SECONDS)
        # One after another, as they are tunnelled by threads of their own.
        with (
            connect(program.address) as client,
            target.accept()[0] as inside,
            connect(program.address) as second,
            target.accept()[0] as other,
        ):
            for near, far in ((client, inside), (inside, client)):
                for size in (1, 5000, 300_000):
                    data = os.urandom(size)
                    sender = threading.Thread(target=near.sendall, args=(data,))
                    sender.start()
                    assert read_exactly(far, size) == data
                    sender.join()
            # The one's end is not the other's.
            mine = client.getsockname()
            client.shutdown(socket.SHUT_WR)
            assert read_all(inside) == b""
            assert program.read_line() == f"Tunnel closed from {mine!r}"
            assert read_all(client) == b""
            # The server that is tunnelled to speaks first, and ends first.
            other.sendall(b"SSH-2.0-x\r\n")
            assert read_line(second) == b"SSH-2.0-x\r\n"
            other.close()
            assert read_all(second) == b""
            assert program.read_line().startswith("Tunnel closed from")
        # It listens no more, and nobody else is given its port.
        target.shutdown(socket.SHUT_RDWR)
        with connect(program.address) as third:
            assert read_all(third) == b""
            assert "failed: ConnectionRefusedError" in program.read_line()


class Origin(BaseHTTPRequestHandler):
    """What the proxy is asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"{self.command} {self.path} {self.headers.get('Via')}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.path = str(len(self.rfile.read(int(self.headers["Content-Length"]))))
        self.do_GET()

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def origin(certificate=None):
    with ThreadingHTTPServer(("127.0.0.1", 0), Origin) as server:
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_a_proxy(modules, tmp_path):
    certificate = certificate_file(tmp_path)
    with (
        running("http_proxy", modules) as program,
        origin() as port,
        origin(certificate) as secure_port,
        socket.socket() as nobody,
    ):
        proxy = ["--proxy", program.url, "--noproxy", ""]
        url, secure_url = f"http://127.0.0.1:{port}", f"https://localhost:{secure_port}"
        assert curl(*proxy, f"{url}/a", f"{url}/b") == "GET /a 1.1 program\nGET /b 1.1 program\n"
        body = ["--data-binary", "@-"]
        posted = curl(*proxy, *body, url, input="x" * 100_000)
        assert posted == "POST 100000 1.1 program\n"
        # CONNECT, for TLS and not.
        assert curl(*proxy, "--proxytunnel", f"{url}/a", f"{url}/b") == "GET /a None\nGET /b None\n"
        proxy += ["--cacert", certificate]
        assert curl(*proxy, f"{secure_url}/a") == "GET /a None\n"
        posted = curl(*proxy, *body, secure_url, input="x" * 2_000_000)
        assert posted == "POST 2000000 None\n"
        nobody.bind(("127.0.0.1", 0))  # and does not listen, nor does anybody else
        closed = f"https://127.0.0.1:{nobody.getsockname()[1]}"
        curl(*proxy, closed, status=56)
        assert status_of(*proxy, closed.replace("https", "http")) == "502"


class WebSocket:
    """A client's end."""

    def __init__(self, program, early=b""):
        self._connection = connect(program.address)
        key = base64.b64encode(os.urandom(16))
        self._connection.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n%b" % (key, early)
        )
        assert read_line(self._connection) == b"HTTP/1.1 101 Switching Protocols\r\n"
        lines = list(iter(lambda: read_line(self._connection), b"\r\n"))
        digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        assert b"Sec-WebSocket-Accept: %b\r\n" % base64.b64encode(digest) in lines

    @staticmethod
    def frame(data, opcode=1):
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[number % 4] for number, byte in enumerate(data))
        size = len(data)
        head = bytes([0x80 | opcode])
        head += bytes([0x80 | size]) if size < 126 else struct.pack(">BH", 0x80 | 126, size)
        return head + mask + masked

    def send(self, data, opcode=1):
        self._connection.sendall(self.frame(data, opcode))

    def receive(self):
        _, size = read_exactly(self._connection, 2)
        if size == 126:
            (size,) = struct.unpack(">H", read_exactly(self._connection, 2))
        return read_exactly(self._connection, size)

    def close(self):
        """In order: its close is answered, and then the connection ends."""
        self.send(b"", 8)
        assert self.receive() == b""
        assert read_all(self._connection) == b""
        self.drop()

    def drop(self):
        self._connection.close()


def test_websockets(modules):
    with running("websockets", modules) as program:
        assert status_of(program.url) == "426"
        # A client that does not wait for its answer.
        one = WebSocket(program, WebSocket.frame(b"early"))
        two = WebSocket(program)
        try:
            assert one.receive() == b"early"
            for size in (0, 5, 126, 60_000):
                two.send(b"x" * size)
                assert two.receive() == b"x" * size
            assert status_of("--data", "to all", program.url) == "204"
            assert one.receive() == two.receive() == b"to all"
            one.send(b"a")
            two.send(b"b")
            assert (two.receive(), one.receive()) == (b"b", b"a")
            one.close()
            assert status_of("--data", "to one", program.url) == "204"
            assert two.receive() == b"to one"
        finally:
            one.drop()
            two.drop()
