"""HTTP clients that send what they like and read answers strictly, for the tests here."""

import io
import socket
from http.client import HTTPMessage, HTTPResponse
from types import TracebackType
from typing import Any, NamedTuple

from tests.integration.servers import connect, in_thread, read_all, serving

HOST = b"Host: localhost\r\n"


class Answer(NamedTuple):
    """A response that was read to its end."""

    status: int
    headers: HTTPMessage
    body: bytes


class Conversation:
    """A connection of a client, whose answers are read one after another."""

    def __init__(self, where: Any) -> None:
        """
        @param where: a server's address, or a connection there is.
        """
        self.socket: socket.socket = where if isinstance(where, socket.socket) else connect(where)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send C{data} as it is."""
        self.socket.sendall(data)

    def end(self) -> None:
        """End this side; answers can still be read."""
        self.socket.shutdown(socket.SHUT_WR)

    def answer(self, method: str = "GET") -> Answer:
        """
        The next answer, by C{http.client}.

        @raise http.client.IncompleteRead: it is cut off.
        @raise http.client.RemoteDisconnected: there is none.
        """
        response = HTTPResponse(_Kept(self._file), method=method)  # type: ignore[arg-type]
        response.begin()
        return Answer(response.status, response.headers, response.read())

    def ask(self, data: bytes, method: str = "GET") -> Answer:
        """Send and read."""
        self.send(data)
        return self.answer(method)

    def read(self, size: int) -> bytes:
        """So many bytes, or fewer at end of file."""
        return self._file.read(size)

    def line(self) -> bytes:
        """A line with its end."""
        return self._file.readline()

    def rest(self) -> bytes:
        """Everything up to end of file."""
        return self._file.read()


class _Kept:
    """What C{HTTPResponse} takes for a socket, and leaves open."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file

    def makefile(self, mode: str) -> "_Kept":
        return self

    def close(self) -> None:
        """The next answer is read from it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def get(target: str = "/", *fields: str, version: str = "HTTP/1.1", method: str = "GET") -> bytes:
    """A request without a body."""
    lines = [f"{method} {target} {version}", "Host: localhost", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def post(body: bytes, *fields: str, target: str = "/") -> bytes:
    """A request with a body of this length."""
    return get(target, f"Content-Length: {len(body)}", *fields, method="POST") + body


def chunked(*pieces: bytes) -> bytes:
    """A body in chunks, to its end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def talk(address: Any, data: bytes) -> bytes:
    """Send, end this side, and read to the server's end.  Blocks."""
    with connect(address) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return read_all(client)


async def said(handler: Any, data: bytes, **options: Any) -> bytes:
    """What a server of C{handler} says to a client that sends C{data} and ends its side."""
    async with serving(handler, **options) as server:
        return await in_thread(talk, server.server_address, data)


async def conversing(handler: Any, client: Any, **options: Any) -> Any:
    """What C{client}, called with a L{Conversation} on a thread, returns."""

    def converse(address: Any) -> Any:
        with Conversation(address) as conversation:
            return client(conversation)

    async with serving(handler, **options) as server:
        return await in_thread(converse, server.server_address)


def answers_in(data: bytes, *methods: str) -> list[Answer]:
    """
    The answers to requests of these methods.

    @raise AssertionError: something follows them.
    """
    file = io.BufferedReader(io.BytesIO(data))  # type: ignore[type-var]
    found = []
    for method in methods:
        response = HTTPResponse(_Kept(file), method=method)  # type: ignore[arg-type]
        response.begin()
        found.append(Answer(response.status, response.headers, response.read()))
    rest = file.read()
    assert rest == b""
    return found
