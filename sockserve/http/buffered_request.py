"""
BufferedRequest: how a blocking handler gets an HTTP request that has arrived, and no thread
before that.

This room owns the request until its handler is over: the socket and the files the handler
sees, and what becomes of what it sends.  It must not know what is done when a deadline
passes, or what comes after the request.

Two kinds of handler are served so: the plain methods of sockserve's own class, and
C{http.server}'s handlers as they are.  One of the latter makes an instance for each
request: it reads the request from C{rfile} as it would from its socket, and where it looks
for another one, that is taken for its consent to keep the connection.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import threading
from errno import ECONNRESET
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from sockserve.core.lifecycle import serve_next
from sockserve.core.logs import Topic, logger
from sockserve.http.h1.framing import Event, LocalProtocolError, RemoteProtocolError
from sockserve.http.h1.head import RequestHead
from sockserve.http.h1.reader import RequestParser
from sockserve.http.handler_socket import ConnectionBody, OutputMode, RequestSocket
from sockserve.http.responses import BlockingResponse, answer_error
from sockserve.http.spool import Spool, StockSwitchingFile, SwitchingFile, stock_file
from sockserve.interfaces import DeadlineExpired, IJob, Outcome, Phase
from sockserve.sockets.lending import is_broken
from sockserve.streams.reader import HIGH_WATER_BYTES

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["BufferedRequest"]

#: No client sends a body with these that nobody could tell the end of.
_WITHOUT_BODY = frozenset(["GET", "HEAD"])

_EXPECT = re.compile(rb"(?im)^expect:[^\n]*\n")
#: The status of a final response, behind interim ones.
_STATUS = re.compile(
    rb"(?:HTTP/1\.[01] 1(?!01)[0-9]{2}[^\n]*\n(?:[^\r\n]+\r?\n)*\r?\n)*"
    rb"HTTP/1\.[01] (101|[2-9][0-9]{2})"
)

_log = logger(Topic.HTTP)


#: Looked up once, as L{sockserve.core.lifecycle} does.
_BUFFERED = OutputMode.BUFFERED
_OK = Outcome.OK


def _never_sent(data: bytes) -> None:
    raise AssertionError("one of http.server's handlers answers by its socket")


#: What a thread serves.
_served = threading.local()


def _before_fork() -> None:
    """A handler that forks has its connection itself: there is no reactor where its child is."""
    buffered = getattr(_served, "request", None)
    if buffered is not None:
        with contextlib.suppress(BrokenPipeError):
            buffered.acquire_connection()


os.register_at_fork(before=_before_fork)


@implementer(IJob)
class BufferedRequest:
    """
    One request on its way to a blocking handler, and with it.  Runs on the reactor thread,
    but where it says otherwise.

    @ivar head: its head.
    @ivar response: what answers it; of a handler of C{http.server}'s, only what can be
        seen of that.
    @ivar ends_with_connection: whether the body may go on until the client ends its side: one of
        C{http.server}'s handlers finds what follows the last request of a connection, if that
        says nothing of a length.
    @ivar switches: whether what follows on the connection may be the handler's, as that, or as
        another protocol that it speaks then.
    @ivar rest: what the client has sent after the request, once the handler has the
        connection, and what follows on it.
    @ivar cut_off: why the connection has ended, if not by the client's own end.
    @ivar hold: who has the connection.  Written under a lock.
    @ivar sent: how many bytes the handler has sent.
    @ivar request: the socket, once the handler has it.
    @ivar rfile: what the handler reads.
    """

    request: RequestSocket
    rfile: Any

    def __init__(
        self, owner: Any, requests: RequestParser, head: RequestHead, stock: bool, limit: int
    ) -> None:
        """
        @param owner: told what happens: C{request_complete()}, C{handler_began()},
            C{handler_runs_long()}, C{hand_over()}, C{handler_finished()}, C{handler_failed()}.
        @param requests: where the body comes from.
        @param stock: whether the handler is one of C{http.server}'s.
        @param limit: the largest body in bytes.
        """
        self._owner = owner
        self._factory = owner.factory
        self._requests = requests
        self.head = head
        self._stock = stock
        self._limit = limit
        self.cut_off: OSError | None = None
        self.mode = _BUFFERED
        self.sent = 0
        self._held: list[bytes] = []
        self._held_size = 0
        self._lock = threading.Lock()
        self._reactors_thread = threading.get_ident()
        # A stock handler sends by itself, and a cycle would be left to the garbage collector.
        self.response = BlockingResponse(head, _never_sent if stock else self._send)
        self.ends_with_connection = (
            stock
            and not head.keep_alive
            and head.length == 0
            and head.method not in _WITHOUT_BODY
            and head.field(b"content-length") is None
        )
        self.switches = self.ends_with_connection or (
            head.length == 0
            and (head.method == "CONNECT" or (b"\nupgrade:" in head.raw.lower() and head.upgrades))
        )
        self.rest = b""
        self._instead: BlockingResponse | None = None
        self._spool: Spool | None = None
        #: The head as a handler of C{http.server}'s reads it.
        self._raw = raw = head.raw if stock else b""
        if stock and head.expects_continue:  # it has been answered, and is not to be again
            self._raw = raw = _EXPECT.sub(b"", raw)
        if head.length != 0:
            self._spool = Spool()
            self._began = self._arrived_at = owner.timer.seconds()
            self._spool.write(raw)
        else:
            self.rfile = stock_file(raw) if stock else io.BytesIO()
            if self.switches:
                file = SwitchingFile(raw, self._follow)
                self.rfile = StockSwitchingFile(file) if stock else io.BufferedReader(file)

    # Until it is complete

    def read_on(self) -> None:
        """
        Take what has come of the body; tell when that is all.

        @raise RemoteProtocolError: the body is malformed, or too large.
        """
        head, spool = self.head, self._spool
        if spool is not None:
            limit = self._limit + len(self._raw)
            if head.length is not None and head.length > self._limit:
                raise RemoteProtocolError(413, f"the body is larger than {self._limit} bytes")
            self._arrived_at = self._owner.timer.seconds()
            # A handler of the stdlib's that knows chunks takes them apart by itself.
            chunks = self._stock and head.length is None
            while (event := self._requests.next_event()) is not Event.END:
                if event is None:
                    return
                piece: bytes = event  # type: ignore[assignment]
                try:
                    spool.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunks else piece)
                except OSError as error:  # no descriptor, or no room on the disk
                    _log.error("a request's body cannot be kept: {error}", error=error)
                    raise RemoteProtocolError(503, "the server has no room for it") from None
                if spool.size > limit:
                    raise RemoteProtocolError(413, f"the body is larger than {self._limit} bytes")
            if chunks:
                spool.write(b"0\r\n\r\n")
            self.rfile = spool.open_for_stock(self._raw) if self._stock else spool.open()
        self._owner.request_complete()

    def body_seconds(self, now: float) -> float | None:
        """How long from C{now} the body may go on without another byte."""
        deadlines = self._owner.deadlines
        idle = deadlines.idle
        if idle is not None:
            idle -= now - self._arrived_at
        received = 0 if self._spool is None else self._spool.size - len(self._raw)
        seconds: float | None = deadlines.body_seconds(now - self._began, received, idle)
        return seconds

    def connection_lost(self, reason: Failure) -> None:
        """The connection is gone."""
        if self.cut_off is None and not reason.check(ConnectionDone):
            self.cut_off = ConnectionResetError(ECONNRESET, "the client has cut it off")

    def close(self) -> None:
        """Nobody will read it any more."""
        if self.lent:
            self.request.buffered = None
            if (self._stock or self.switches) and not self.rfile.closed:
                self.rfile.close()
        if self._spool is not None:
            self._spool.close()

    # With the handler

    def lend(self, request: RequestSocket) -> None:
        """What the handler's socket is."""
        self.request = request
        request.buffered = self

    def answer_instead(self, status: int) -> bytes:
        """What a client gets whose handler was too slow; gives all of the response."""
        page = bytearray()
        self._instead = instead = BlockingResponse(self.head, page.extend)
        instead.close = True
        answer_error(instead, status)
        instead.finish()
        return bytes(page)

    def client_is_gone(self) -> bool:
        """Whether the client has broken the connection.  The handler's thread."""
        if self.mode is OutputMode.DIRECT:
            return is_broken(self.request)
        return self.mode is OutputMode.CLOSED or bool(self._owner.is_broken())

    def _follow(self) -> tuple[bytes, Any] | None:
        """What the client says after the request, if that is the handler's."""
        if self.ends_with_connection:
            return self._follow_body()
        if self._stock and self.mode is _BUFFERED:
            with self._lock:
                found = _STATUS.match(b"".join(self._held))
            if found is not None:
                self.response.status = int(found[1])
        if not self.response.switches:
            return None
        if not self._stock:
            self.response.flush()
        self.acquire_connection()
        return self.rest, socket.socket.makefile(self.request, "rb", buffering=0)

    def _follow_body(self) -> tuple[bytes, Any]:
        """The body of a request that ends with its connection."""
        try:
            self.acquire_connection()
        except BrokenPipeError:
            if self.cut_off is not None:
                raise
            # The client has ended a connection over TLS, which has no half ends.
            return self._requests.switch(), io.BytesIO()
        limits = self._patience, self._late, lambda: self.cut_off
        return self.rest, ConnectionBody(self.request, len(self.rest), *limits)

    def _patience(self, received: int, waited: float) -> float | None:
        """
        How long a body that ends with its connection may go on without another byte.

        @param waited: how long it has been waited for.
        """
        deadlines = self._owner.deadlines
        seconds: float | None = deadlines.body_seconds(waited, received, deadlines.idle)
        return seconds

    def _late(self) -> DeadlineExpired:
        """Such a body has not come in time."""
        expiries = self._factory.statistics.expiries
        self._factory.reactor.callFromThread(expiries.update, [Phase.BODY])
        return DeadlineExpired(Phase.BODY)

    @property
    def lent(self) -> bool:
        """Whether a handler has it, or is about to."""
        return hasattr(self, "request")

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a child needs."""
        return (self.request.fileno(),)

    def started(self) -> None:
        """There is a place for it."""
        self._owner.handler_began()

    def runs_long(self) -> None:
        """The handler takes its time: let the client have what there is."""
        self._owner.handler_runs_long()

    def forked(self) -> None:
        """The parent keeps the connection, which the child only answers on."""

    def serve(self) -> Outcome:
        """Runs on the worker thread or in the child."""
        factory, request = self._factory, self.request
        _served.request = self
        try:
            error = serve_next(factory, request, self._owner.protocol.client_address)
        except BaseException:  # sys.exit(), or an error in handle_error
            self.response.close = True
            raise
        finally:
            _served.request = None
        outcome = _OK if error is None else factory.outcome_of(request, error)
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
        """Send what is left to send.  The worker's thread."""
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
            response.reset()
            answer_error(response, 500)
        response.finish()

    def ended(self, outcome: Outcome) -> None:
        """The handler is done."""
        if self._instead is not None:
            self.response = self._instead
        elif self._stock and not getattr(self.rfile, "wants_next", False):
            self.response.close = True
        self.close()
        self._owner.handler_finished(outcome)

    def failed(self, error: OSError) -> None:
        """There is no thread or process to be had."""
        self.close()
        self._owner.handler_failed(error)

    # What the handler sends

    def buffer(self, data: ReadableBuffer) -> bool:
        """
        The handler sends C{data}; gives false when it is to do so by itself.  The
        handler's thread.

        @raise BrokenPipeError: the connection has ended.
        """
        kept = bytes(data)
        if self._stock:
            self.rfile.answered()
        with self._lock:
            self.sent += len(kept)
            if self.mode is _BUFFERED and self._held_size + len(kept) <= HIGH_WATER_BYTES:
                self._held.append(kept)
                self._held_size += len(kept)
                return True
        self.acquire_connection()
        if self._stock:
            self._observe(kept)
        return False

    def _observe(self, data: bytes) -> None:
        """Learn of a response of the stdlib's making what the log tells."""
        response = self.response
        found = None if response.sent else _STATUS.match(data)
        if found is not None:
            response.status = int(found[1])
            response.sent -= data.find(b"\r\n\r\n", found.end()) + 4  # its head
        response.sent += len(data)

    def acquire_connection(self) -> None:
        """
        Have the connection itself.  The handler's thread.

        @raise BrokenPipeError: it has ended.
        """
        if self.mode is not OutputMode.DIRECT and self.mode is not OutputMode.CLOSED:
            if threading.get_ident() == self._reactors_thread:
                self._owner.hand_over(lambda: None)
            else:
                granted = threading.Lock()
                granted.acquire()
                reactor = self._factory.reactor
                reactor.callFromThread(self._owner.hand_over, granted.release)
                granted.acquire()
        if self.mode is not OutputMode.DIRECT:
            raise BrokenPipeError("the connection has ended")

    def _send(self, data: bytes) -> None:
        """Send a piece of the response.  The handler's thread."""
        self.request.sendall(data)

    def take_output(self, mode: OutputMode) -> bytes:
        """What has been kept; from now on C{hold} applies."""
        with self._lock:
            self.mode = mode
            held, self._held = self._held, []
            self._held_size = 0
        data = b"".join(held)
        if data and self._stock:
            self._observe(data)
        return data
