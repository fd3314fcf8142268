"""
Gathering: how a blocking handler gets an HTTP request that has arrived, and no thread
before that.

This room owns the request's bytes while they gather, the socket and the files the handler
sees, and what becomes of them when it is over.  It must not know deadlines, or what comes
after the request.  Everything runs on the reactor thread but what says otherwise.

Two kinds of handler are served so: the plain methods of sockserve's own class, and
C{http.server}'s handlers as they are.  One of the latter makes an instance for each
request: it reads the request from C{rfile} as it would from its socket, and where it looks
for another one, that is taken for its consent to keep the connection.
"""

from __future__ import annotations

import io
import re
import socket
import tempfile
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler

from twisted.logger import Logger
from typing_extensions import override
from zope.interface import implementer

from sockserve.http.framing import Event, LocalProtocolError, RemoteProtocolError
from sockserve.http.heads import RequestHead
from sockserve.http.responses import BlockingResponse, ResponseFile, answer_error
from sockserve.http.wire import RequestReader
from sockserve.interfaces import IJob, Outcome
from sockserve.lending import SocketIdentity
from sockserve.lifecycle import answer, handler_class
from sockserve.pumping import PumpedSocket

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Gathering", "RequestSocket", "is_gathered"]

#: A body larger than this waits in a temporary file.  512 KiB: waitress'
#: C{inbuf_overflow}.
SPOOL_BYTES = 512 * 1024

#: What C{http.server} asks of C{readline} where a request line or a header field is due
#: (C{_MAXLINE} + 1), and no handler has a reason to.
_HEAD_LINE_BYTES = 65537

#: What of a handler decides how requests are read.
_LOOP = ("handle", "handle_one_request", "parse_request", "handle_expect_100")
_STOCK = (BaseHTTPRequestHandler, WSGIRequestHandler)

_EXPECT = re.compile(rb"(?im)^expect:[^\n]*\n")
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})")

_log = Logger()


def is_gathered(handler: Any) -> bool:
    """
    Whether what C{handler} makes is one of C{http.server}'s handlers and reads requests as
    those do, so that it can be given one that has arrived.
    """
    cls = handler_class(handler)
    return (
        isinstance(cls, type)
        and issubclass(cls, BaseHTTPRequestHandler)
        and all(
            any(getattr(cls, name) is getattr(stock, name) for stock in _STOCK) for name in _LOOP
        )
    )


class RequestSocket(PumpedSocket):
    """
    The connection as a blocking HTTP handler has it: a real socket, whose C{makefile}
    gives the request that was gathered.  Any thread: the handler's.
    """

    __slots__ = ("gathering",)

    gathering: Gathering | None

    def __init__(
        self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
    ) -> None:
        super().__init__(family, type, proto, fileno)
        self.gathering = None

    @override
    def makefile(self, mode: str = "r", *arguments: Any, **words: Any) -> Any:
        if self.gathering is not None and mode == "rb":
            return self.gathering.rfile
        return super().makefile(mode, *arguments, **words)  # type: ignore[call-overload]

    @override
    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        if self.gathering is not None:
            self.gathering.sending(data)
        super().sendall(data, flags)

    @override
    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        if self.gathering is not None:
            self.gathering.sending(data)
        return super().send(data, flags)

    @property
    def head(self) -> RequestHead:
        """The request's head."""
        assert self.gathering is not None
        return self.gathering.head

    @property
    def response(self) -> BlockingResponse:
        """What answers the request."""
        assert self.gathering is not None
        return self.gathering.response

    @property
    def rfile(self) -> Any:
        """The request's body."""
        assert self.gathering is not None
        return self.gathering.rfile

    @property
    def wfile(self) -> ResponseFile:
        """Where the response's body is written."""
        return ResponseFile(self.response)


class _StockInput:
    """
    The C{rfile} of one of C{http.server}'s handlers: one request, from its first byte to
    its last.  A handler's thread.

    @ivar head_size: where the body begins.
    @ivar wants_next: whether the handler has looked for another request.
    """

    head_size = 0
    wants_next = False

    def readline(self, size: int | None = -1) -> bytes:
        """A line; where another request would begin, end of file."""
        if size == _HEAD_LINE_BYTES and self.tell() >= self.head_size:  # type: ignore[attr-defined]
            self.wants_next = True
            return b""
        line: bytes = super().readline(size)  # type: ignore[misc]
        return line


class _StockBytes(_StockInput, io.BytesIO):
    pass


class _StockFile(_StockInput, io.BufferedReader):
    pass


@implementer(IJob)
class Gathering:
    """
    One request on its way to a blocking handler, and with it.

    @ivar head: its head.
    @ivar response: what answers it; of a handler of C{http.server}'s, only what can be
        seen of that.
    @ivar close: whether the connection ends with the answer.
    @ivar request: the socket, once the handler has it.
    """

    request: RequestSocket
    rfile: Any

    def __init__(
        self, serving: Any, requests: RequestReader, head: RequestHead, stock: bool, limit: int
    ) -> None:
        """
        @param serving: told what happens: C{gathered()}, C{handler_began()},
            C{handler_ended()} and C{handler_failed()}.
        @param requests: where the body comes from.
        @param stock: whether the handler is one of C{http.server}'s.
        @param limit: the largest body in bytes.
        """
        self._serving = serving
        self._factory = serving.factory
        self._requests = requests
        self.head = head
        self._stock = stock
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._file: io.FileIO | None = None
        self._head_size = 0
        #: Taken by whoever is the first to send: the handler, or a deadline.
        self._turn = [None]
        self._interrupted = False
        self.sent = 0
        self.response = BlockingResponse(head, self._send)
        if stock:
            raw = head.raw
            if head.expects_continue:  # it has been answered, and is not to be again
                raw = _EXPECT.sub(b"", raw)
            self._head_size = len(raw)
            self._keep(raw)

    @property
    def switches(self) -> bool:
        """Whether the handler may come to speak another protocol on the connection."""
        return self.head.method == "CONNECT" or self.head.upgrades

    # Until it is complete

    def read_on(self) -> None:
        """
        Take what has come of the body; tell when that is all.

        @raise RemoteProtocolError: the body is malformed, or too large.
        """
        if self.head.length is not None and self.head.length > self._limit:
            raise RemoteProtocolError(413, f"the body is larger than {self._limit} bytes")
        requests = self._requests
        if self.head.length != 0:
            chunks = self._stock and self.head.length is None
            while (event := requests.next_event()) is not None:
                if event is Event.END:
                    if chunks:
                        self._keep(b"0\r\n\r\n")
                    break
                piece: bytes = event  # type: ignore[assignment]
                if self._size + len(piece) > self._limit + self._head_size:
                    raise RemoteProtocolError(413, f"the body is larger than {self._limit} bytes")
                # A handler that knows chunks takes them apart by itself.
                self._keep(b"%x\r\n%b\r\n" % (len(piece), piece) if chunks else piece)
            else:
                return
        self._open()
        self._serving.gathered()

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._file is None and self._size > SPOOL_BYTES:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it outlives this call
            self._file.write(b"".join(self._parts))
            self._parts.clear()
        if self._file is None:
            self._parts.append(piece)
        else:
            view = memoryview(piece)
            while view:
                view = view[self._file.write(view) :]

    def _open(self) -> None:
        """Make C{rfile} of what was kept."""
        if self._file is None:
            data = b"".join(self._parts)
            self.rfile = _StockBytes(data) if self._stock else io.BytesIO(data)
        else:
            self._file.seek(0)
            self.rfile = _StockFile(self._file) if self._stock else io.BufferedReader(self._file)
        if self._stock:
            self.rfile.head_size = self._head_size
        self._parts.clear()

    def forget(self) -> None:
        """Nobody will read it: let go of what was kept."""
        self._parts.clear()
        if self._file is not None:
            self._file.close()

    # With the handler

    def lend(self, request: RequestSocket, identity: SocketIdentity, rest: bytes | None) -> None:
        """
        What the handler's socket is.

        @param rest: what the client has sent after the request, when the handler is to
            read on from the socket by itself; None otherwise.
        """
        self.request = request
        self._identity = identity
        request.gathering = self
        request.settimeout(socket.getdefaulttimeout())
        if rest is not None:
            before = self.rfile.read() if self._stock else b""
            live = socket.socket.makefile(request, "rb", buffering=0)
            self.rfile = io.BufferedReader(_Prefixed(before + rest, live))

    def withdrawn(self) -> None:
        """The handler has it no longer."""
        self.request.gathering = None
        self.forget()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the child needs."""
        files = () if self._file is None else (self._file.fileno(),)
        return (self.request.fileno(), *files)

    def started(self) -> None:
        """A thread was found."""
        self._serving.handler_began()

    def forked(self) -> None:
        """The parent keeps the connection, which the child only answers on."""

    def serve(self) -> Outcome:
        """Runs on the worker thread or in the child."""
        factory, request = self._factory, self.request
        client_address = self._serving.protocol.client_address
        error = answer(factory, request, client_address)
        outcome = Outcome.OK if error is None else factory.outcome_of(request, error)
        if self._stock:
            if error is not None:
                self.response.close = True
            return outcome
        try:
            self._finish(error)
        except LocalProtocolError as broken:
            _log.error("{handler}: {error}", handler=factory.handler_name, error=broken)
            self.response.close = True
            return Outcome.ERROR
        except (OSError, ValueError):  # the client is gone, or the handler closed the socket
            self.response.close = True
        return outcome

    def _finish(self, error: Exception | None) -> None:
        """Send what is left to send.  The worker thread."""
        response = self.response
        if error is not None or not response.started:
            if response.begun:
                # The client can tell by the connection's end only.
                response.close = True
                return
            if error is None:
                _log.error(
                    "{handler}: it has sent no response to {request!r}",
                    handler=self._factory.handler_name,
                    request=self.head,
                )
            response.forget()
            answer_error(response, 500)
        response.finish()

    def ended(self, outcome: Outcome) -> None:
        """The handler is done."""
        response = self.response
        if self._stock:
            wants_next = getattr(self.rfile, "wants_next", False)
            response.close = response.close or not wants_next
        self.withdrawn()
        self._serving.handler_ended(outcome)

    def failed(self, error: OSError) -> None:
        """There is no thread or process to be had."""
        self.withdrawn()
        self._serving.handler_failed(error)

    # Sending.  The handler's thread.

    def sending(self, data: ReadableBuffer) -> None:
        """
        The handler is about to send.

        @raise BrokenPipeError: a deadline has answered in its stead.
        """
        view = memoryview(data)
        self.sent += view.nbytes
        if self.response.status == 0 and self._stock:
            found = _STATUS.match(bytes(view[:16]))
            if found is not None and found[1] != b"100":
                self.response.status = int(found[1])
        try:
            self._turn.pop()
        except IndexError:
            if self._interrupted:
                raise BrokenPipeError("a deadline has passed") from None

    def _send(self, data: bytes) -> None:
        self.request.sendall(data)

    # The reactor's thread again

    def interrupt(self, status: int | None = None, reset: bool = False) -> None:
        """
        Wake the handler wherever it is blocked on its socket, with an end of file.

        @param status: what to answer if the handler has sent nothing.
        @param reset: let the kernel forget what the client has not taken.
        """
        self._interrupted = True
        if status is not None:
            try:
                self._turn.pop()
            except IndexError:
                pass
            else:
                self.response.status = status
                self._answer_instead(status)
        self._identity.shutdown(socket.SHUT_RDWR, reset=reset)

    def _answer_instead(self, status: int) -> None:
        kept = bytearray()
        response = BlockingResponse(self.head, kept.extend)
        response.close = True
        answer_error(response, status)
        response.finish()
        try:
            socket.socket.send(self.request, kept, socket.MSG_DONTWAIT)
        except (OSError, ValueError):
            pass


class _Prefixed(io.RawIOBase):
    """Bytes that were read too early, then a raw file."""

    def __init__(self, prefix: bytes, rest: Any) -> None:
        self._prefix = prefix
        self._rest = rest

    @override
    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        """As C{io.RawIOBase}'s."""
        if not self._prefix:
            count: int | None = self._rest.readinto(buffer)
            return count
        size = min(len(buffer), len(self._prefix))
        buffer[:size] = self._prefix[:size]
        self._prefix = self._prefix[size:]
        return size

    @override
    def close(self) -> None:
        super().close()
        self._rest.close()
