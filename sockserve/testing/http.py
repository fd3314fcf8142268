"""
HTTP: handlers for it run without a network.

This room owns an HTTP client in memory: the requests it sends, and the responses it reads.  The
server is the very one that serves HTTP elsewhere (L{sockserve.testing.connection}).  It must
not know services or options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from http.client import HTTPMessage, IncompleteRead
from http.client import HTTPResponse as ClientResponse
from io import BytesIO
from typing import Any

import attrs
from twisted.internet.task import Clock
from typing_extensions import override

from sockserve.core.addresses import SocketAddress
from sockserve.core.deadlines import Deadlines
from sockserve.core.handler_kinds import handler_kind
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.testing.connection import ConnectionExchange, MemoryFactory
from sockserve.testing.exchanges import CLIENT_ADDRESS, InlineExecutor
from sockserve.testing.memory import AttendedExecutor
from sockserve.testing.streams import run_stream

__all__ = ["HTTPExchange", "HTTPResponse", "run_http"]

#: Header fields, by name; or as pairs, when a name has several.
_Fields = Mapping[str, str] | Iterable[tuple[str, str]]

_HEAD_END = b"\r\n\r\n"


@attrs.frozen
class HTTPResponse:
    """
    The response that a client has read.

    @ivar status: the status; 0 when the connection ended without a response, or the
        response has no head (HTTP/0.9).
    @ivar reason: the reason phrase.
    @ivar headers: the header fields.
    @ivar body: the body, without the framing of chunks.  After a switch of protocols: the
        bytes that have come since.
    @ivar complete: whether the response came to the end that it announced.
    @ivar trace: as L{Exchange}'s, of the whole connection.
    @ivar error: what the handler raised, or None.
    """

    status: int = 0
    reason: str = ""
    headers: HTTPMessage = attrs.Factory(HTTPMessage)
    body: bytes = b""
    complete: bool = True
    trace: list[str] = attrs.Factory(list)
    error: BaseException | None = None


def run_http(
    handler: Callable[..., Any],
    method: str = "GET",
    path: str = "/",
    headers: _Fields = (),
    body: bytes = b"",
    *,
    raw: bytes | None = None,
    client_address: SocketAddress = CLIENT_ADDRESS,
    attributes: Mapping[str, object] | None = None,
) -> HTTPResponse:
    """
    Serve one connection whose client sends a request, ends its side and reads until the
    server closes.

    A coroutine method must not wait for anything but the request's body
    (L{HTTPExchange} is for those that do).  A blocking one runs where this is called, with
    a real socket, on which only its answer goes anywhere.

    @param handler: a handler class of sockserve's or of C{http.server}'s, or any callable
        that makes a handler.
    @param method: the request's, as are C{path} and C{body}.
    @param headers: header fields; C{Host} and C{Content-Length} are added where they are
        missing.
    @param raw: all bytes that the client sends, instead of C{method} to C{body}.
    @param client_address: the client's address, as a socket gives it.
    @param attributes: attributes of the server the handler sees.
    @return: the response to the request; to the first one, if C{raw} has several.
    @raise AssertionError: the coroutine did not finish.
    """
    data = _compose(method, path, headers, body) if raw is None else raw
    if not _speaks_http(handler):
        # It reads its requests by itself.
        ran = run_stream(handler, data, client_address=client_address, attributes=attributes)
        asked = data.partition(b" ")[0].decode("latin-1")
        taken = _take_response(ran.sent, asked, True)
        response = HTTPResponse(complete=False) if taken is None else taken[0]
        return attrs.evolve(response, trace=ran.trace, error=ran.error)
    exchange = HTTPExchange(handler, client_address=client_address, attributes=attributes)
    exchange.receive(data)
    exchange.end()
    if not exchange.done:
        exchange.lose()
        raise AssertionError(
            "the handler still waits, though its client has sent all and ended its side: it"
            " awaits something else than its request's body. Go through it step by step with"
            " HTTPExchange, and fire what it waits for, or advance() its clock"
        )
    responses = exchange.take_responses()
    if responses:
        return responses[0]
    return HTTPResponse(complete=False, trace=exchange.trace, error=exchange.error)


def _compose(method: str, path: str, headers: _Fields, body: bytes) -> bytes:
    """The bytes of a request."""
    fields = list(headers.items() if isinstance(headers, Mapping) else headers)
    names = {name.lower() for name, _ in fields}
    if "host" not in names:
        fields.insert(0, ("Host", "localhost"))
    if body and names.isdisjoint({"content-length", "transfer-encoding"}):
        fields.append(("Content-Length", str(len(body))))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _speaks_http(handler: Callable[..., Any]) -> bool:
    """Whether the reactor reads HTTP for the handler."""
    concurrency = None if handler_kind(handler).is_coroutine else InlineExecutor()
    return StreamFactory(handler, reactor=Clock(), concurrency=concurrency).kind.is_http


class HTTPExchange(ConnectionExchange):
    """
    A connection to an HTTP handler.

    A blocking handler runs within C{receive}, once its request has arrived.
    """

    def __init__(
        self,
        handler: Callable[..., Any],
        *,
        client_address: SocketAddress = CLIENT_ADDRESS,
        deadlines: Deadlines | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> None:
        """
        @param client_address: the client's address, as a socket gives it.
        @param deadlines: by default L{Deadlines}'s own.
        @param attributes: attributes of the server the handler sees.
        @raise ValueError: the handler reads its requests by itself.
        """
        super().__init__()
        #: The methods of the requests that are to be answered.
        self._asked: list[str] = []
        factory = _HTTPFactory(
            handler,
            self,
            attributes,
            asked=self._asked,
            reactor=self.clock,
            concurrency=None
            if handler_kind(handler).is_coroutine
            else AttendedExecutor(self._reactor),
            deadlines=deadlines,
        )
        if not factory.kind.is_http:
            raise ValueError(
                f"{factory.handler_name} reads its requests by itself; use run_http, or run_stream"
            )
        self._connect(factory, client_address)

    def request(
        self, method: str = "GET", path: str = "/", headers: _Fields = (), body: bytes = b""
    ) -> None:
        """The client sends a whole request, composed as L{run_http} does."""
        self.receive(_compose(method, path, headers, body))

    def take_responses(self) -> list[HTTPResponse]:
        """
        Take the responses that have come and were not taken before; once the connection
        has ended, also one that broke off.
        """
        data, responses = self.take_sent(), []
        while data:
            method = self._asked[0] if self._asked else "GET"
            taken = _take_response(data, method, self.done)
            if taken is None:
                break
            response, data = taken
            del self._asked[:1]
            responses.append(attrs.evolve(response, trace=self.trace, error=self.error))
        if data:
            self.output.append(data)
        return responses


class _Unclosed(BytesIO):
    """A file that stays open when C{http.client} has read a response to its end."""

    @override
    def close(self) -> None:
        """Do nothing: more may follow the response."""


class _Received:
    """The socket that C{http.client} reads from: as much of one as it asks for."""

    def __init__(self, file: BytesIO) -> None:
        self._file = file

    def makefile(self, mode: str) -> BytesIO:
        return self._file


def _take_response(data: bytes, method: str, ended: bool) -> tuple[HTTPResponse, bytes] | None:
    """
    Parse the first final response in C{data}.

    @param method: the request's.
    @param ended: whether no byte will follow C{data}.
    @return: the response and the bytes after it; None if it has not come yet.
    """
    if ended and not data.startswith(b"HTTP/"):
        return (HTTPResponse(body=data), b"") if data else None
    file = _Unclosed(data)
    while _HEAD_END in data[file.tell() :]:
        client = ClientResponse(_Received(file), method=method)  # type: ignore[arg-type]
        client.begin()
        if 100 <= client.status < 200 and client.status != 101:
            continue
        complete = True
        switches = client.status == 101 or (method == "CONNECT" and client.status < 300)
        ends_with_connection = client.length is None and not client.chunked
        if switches:
            body = file.read()
        elif ends_with_connection and not ended:
            return None
        else:
            try:
                body = client.read()
            except IncompleteRead as error:
                body, complete = error.partial, False
        if not (complete or ended):
            return None
        response = HTTPResponse(client.status, client.reason, client.headers, body, complete)
        return response, file.read()
    return (HTTPResponse(complete=False), b"") if ended else None


class _HTTPFactory(MemoryFactory):
    """The server object, which also notes the methods it is asked for."""

    def __init__(self, *arguments: Any, asked: list[str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._asked = asked

    @override
    def finish_request(self, request: Any, client_address: Any) -> Any:
        self._asked.append(request.head.method)
        return super().finish_request(request, client_address)
