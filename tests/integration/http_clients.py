"""HTTP clients for the tests here that say what they like, byte by byte.  All of them block."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

from tests.integration.servers import connect_as, read_all

#: Statuses whose responses end with their head.
_BODILESS = (204, 304)


class Answer(NamedTuple):
    """A response."""

    status: int
    headers: Any
    body: bytes


class Client:
    """One connection, which may be used for several requests."""

    def __init__(self, kind: str, address: Any) -> None:
        self.socket = connect_as(kind, address)
        self._file: IO[bytes] = self.socket.makefile("rb")

    def say(self, data: bytes, end: bool = False) -> None:
        self.socket.sendall(data)
        if end:
            self.socket.shutdown(socket.SHUT_WR)

    def ask(self, data: bytes, method: str = "GET") -> Answer:
        """Say C{data}; the next answer."""
        self.say(data)
        return self.answer(method)

    def answer(self, method: str = "GET") -> Answer:
        """The next one, interim ones too."""
        line = self._file.readline()
        assert line.startswith(b"HTTP/1."), line
        status = int(line.split()[1])
        headers = http.client.parse_headers(self._file)
        if status < 200 or status in _BODILESS or method == "HEAD":
            return Answer(status, headers, b"")
        if headers.get("Transfer-Encoding") == "chunked":
            return Answer(status, headers, b"".join(self._chunks()))
        length = headers.get("Content-Length")
        return Answer(status, headers, self._file.read(-1 if length is None else int(length)))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._file.readline(), 16):
            yield self._file.read(size)
            self._file.readline()
        self._file.readline()

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        return self._file.read()

    def close(self) -> None:
        self._file.close()
        self.socket.close()


@contextmanager
def client(address: Any, kind: str = "tcp") -> Iterator[Client]:
    """A L{Client}, closed in the end."""
    one = Client(kind, address)
    try:
        yield one
    finally:
        one.close()


def whole(address: Any, data: bytes, kind: str = "tcp", end: bool = False) -> bytes:
    """What the server says up to its end of the connection to a client that says C{data}."""
    with connect_as(kind, address) as sock:
        sock.sendall(data)
        if end:
            sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


def get(target: str = "/", *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    """A request without a body."""
    lines = [f"{method} {target} HTTP/{version}", "Host: localhost", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def post(body: bytes, *fields: str, target: str = "/", method: str = "POST") -> bytes:
    """A request with one."""
    return get(target, f"Content-Length: {len(body)}", *fields, method=method) + body


def chunked(*pieces: bytes, target: str = "/") -> bytes:
    """A request whose body comes in chunks."""
    head = get(target, "Transfer-Encoding: chunked", method="POST")
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))
