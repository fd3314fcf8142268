"""
The buffered request: an HTTP request as its blocking handler has it.

This room owns the socket and the files that the handler sees, and what becomes of what it sends.
It must not know what the reactor does meanwhile (L{sockserve.http.blocking}), or what comes after
the request.  It is cut in two: what the reactor calls until the handler has it, and what runs
where the handler runs.

Two kinds of handler are served so: the plain methods of sockserve's own class, and
C{http.server}'s handlers as they are.  One of the latter makes an instance for each
request: it reads the request from C{rfile} as it would from its socket, and where it looks
for another one, that is taken for its consent to keep the connection.
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
from collections.abc import Callable
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any

from sockserve.core.buffers import bytes_of
from sockserve.core.lifecycle import serve_next
from sockserve.core.logs import Topic
from sockserve.http.cycle import CycleOwner
from sockserve.http.forks import served
from sockserve.http.h1.framing import LocalProtocolError
from sockserve.http.h1.head import RequestHead
from sockserve.http.handler_socket import ConnectionBody, OutputMode, RequestSocket
from sockserve.http.output import OutputQueue
from sockserve.http.refusals import absent_response, answer_error, body_too_large
from sockserve.http.responses import BlockingResponse
from sockserve.http.spool import Spool, StockSwitchingFile, SwitchingFile, stock_file
from sockserve.http.stock import body_may_end_with_connection
from sockserve.http.stock_output import StockResponse, status_in
from sockserve.interfaces import DeadlineExpired, Outcome, Phase
from sockserve.sockets.hangups import hangup_of
from sockserve.sockets.pumped_socket import PumpedSocket
from sockserve.streams.reader import HIGH_WATER_BYTES

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["BufferedRequest"]

_EXPECT = re.compile(rb"(?im)^expect:[^\n]*\n")

# Looked up once (see L{sockserve.core.lifecycle}).
_BUFFERED = OutputMode.BUFFERED
_STREAMED = OutputMode.STREAMED
_OK = Outcome.OK


def _never_sent(data: bytes) -> None:
    raise AssertionError("one of http.server's handlers answers by its socket")


def _ignore(data: bytes) -> None:
    """Drop bytes that come after the end of a connection."""


class BufferedRequest:
    """
    One request on its way to a blocking handler, and with it.

    @ivar head: its head.
    @ivar began: when that came.
    @ivar response: what answers it; of a handler of C{http.server}'s, only what can be
        seen of that.
    @ivar request: the socket, once the handler has it.
    @ivar rfile: what the handler reads.
    @ivar ends_with_connection: whether the body may go on until the client ends its side: one of
        C{http.server}'s handlers finds what follows the last request of a connection, if that
        says nothing of a length.
    @ivar switches: whether what follows on the connection may be the handler's, as that, or as
        another protocol that it speaks then.
    @ivar rest: what the client has sent after the request, once the handler has the
        connection, and what follows on it.
    @ivar mode: who has the connection.  Written under a lock.
    @ivar sent: how many bytes the handler has sent.
    @ivar sent_directly: how many of these by itself, while it had the connection.
    @ivar cut_off: why the connection has ended, if not by the client's own end.
    """

    __slots__ = (
        "__weakref__", "_arrived_at", "_channel", "_instead", "_is_stock", "_lock", "_output",
        "_raw", "_reactors_thread", "_spool", "_stock_response", "_streamed", "began", "cut_off",
        "ends_with_connection", "head", "mode", "request", "response", "rest", "rfile", "sent",
        "sent_directly", "switches",
    )  # fmt: skip
    request: RequestSocket
    rfile: Any

    def __init__(
        self, channel: CycleOwner, head: RequestHead, began: float, *, is_stock: bool = False
    ) -> None:
        """
        @param is_stock: whether the handler is one of C{http.server}'s.
        """
        self._channel = channel
        self.began = began
        self._is_stock = stock = is_stock
        self._reactors_thread = get_ident()
        # The request
        self.head = head
        self.ends_with_connection = stock and body_may_end_with_connection(head)
        self.switches = head.may_switch or self.ends_with_connection
        self.rest = b""
        self.cut_off: OSError | None = None
        self._spool: Spool | None = None
        self._arrived_at = began
        #: The head as a handler of C{http.server}'s reads it.
        self._raw = raw = head.raw if stock else b""
        if stock and head.expects_continue:  # it has been answered, and is not to be again
            self._raw = raw = _EXPECT.sub(b"", raw)
        if head.length != 0:
            self._spool = Spool()
            self._spool.write(raw)
        else:
            self.rfile = stock_file(raw) if stock else io.BytesIO()
            if self.switches:
                file = SwitchingFile(raw, self._follow)
                self.rfile = StockSwitchingFile(file) if stock else io.BufferedReader(file)
        # What the handler sends
        self._stock_response = StockResponse(head, _never_sent) if stock else None
        self.response: BlockingResponse = self._stock_response or channel.make_blocking_response(
            head, self._send
        )
        self._instead: BlockingResponse | None = None
        self.mode = _BUFFERED
        self.sent = self.sent_directly = 0
        self._output: list[bytes] = []
        self._streamed: OutputQueue | None = None
        self._lock = Lock()

    # What the reactor calls, until the handler has it

    def body_received(self, data: bytes) -> None:
        """
        A piece of the body has come. (reactor thread)

        @raise RemoteProtocolError: it is too large, or cannot be kept.
        """
        spool, limit = self._spool, self._channel.settings.limits.max_body_bytes
        assert spool is not None
        self._arrived_at = self._channel.timer.seconds()
        if self._is_stock and self.head.length is None:
            # A handler of the stdlib's that knows chunks takes them apart by itself.
            data = b"%x\r\n%b\r\n" % (len(data), data)
        spool.write(data)
        if limit is not None and spool.size > limit + len(self._raw):
            raise body_too_large(limit)

    def close_body(self) -> None:
        """
        The body is complete: make the file that the handler reads. (reactor thread)

        @raise RemoteProtocolError: it cannot be kept.
        """
        spool = self._spool
        assert spool is not None
        if self._is_stock and self.head.length is None:
            spool.write(b"0\r\n\r\n")
        self.rfile = spool.open_for_stock(self._raw) if self._is_stock else spool.open()

    def body_seconds(self, now: float) -> float | None:
        """How long from C{now} the body may go on without another byte. (reactor thread)"""
        deadlines = self._channel.deadlines
        idle = deadlines.idle
        if idle is not None:
            idle -= now - self._arrived_at
        received = 0 if self._spool is None else self._spool.size - len(self._raw)
        return deadlines.body_seconds(now - self.began, received, idle)

    def lend(self, request: RequestSocket) -> None:
        """Give the handler its socket. (reactor thread)"""
        self.request = request
        request.buffered = self
        request.response = self.response

    def take_output(self, mode: OutputMode) -> list[bytes | memoryview]:
        """Take what is left to send; C{mode} applies from now on. (reactor thread)"""
        with self._lock:
            self.mode = mode
            queue, self._streamed = self._streamed, None
            if queue is None:  # else they are the queue's
                data = b"".join(self._output)
                self._output.clear()
        if queue is not None:
            return self._take_from(queue.close)
        if data and self._is_stock:
            data = self._observe(data)
        return [data] if data else []

    def stream_output(self) -> list[bytes | memoryview]:
        """Likewise, what it has to send now, of a handler that has not finished."""
        with self._lock:
            if self.mode is _BUFFERED:
                self._start_streaming()
            queue = self._streamed
        return [] if queue is None else self._take_from(queue.take)

    def _take_from(self, take: Callable[[], list[bytes | memoryview]]) -> list[bytes | memoryview]:
        """The pieces of output that C{take} gives; none if some cannot be had."""
        try:
            return take()
        except OSError as error:  # no descriptor, or no memory
            self.output_lost(error)
            return []

    def answer_instead(self, status: int) -> bytes:
        """
        What a client gets whose handler was too slow, and which is what counts as the request's
        response then. (reactor thread)

        @return: all of it.
        """
        self._instead, page = self._make_page(status)
        return page

    def _make_page(self, status: int) -> tuple[BlockingResponse, bytes]:
        """The last response of a connection, that says no more than its status. (any thread)"""
        page = bytearray()
        response = self._channel.make_blocking_response(self.head, page.extend)
        response.close = True
        answer_error(response, status, self._channel.settings.handler)
        response.finish()
        return response, bytes(page)

    def close(self) -> None:
        """Let go of body and socket: nobody reads or answers any more. (reactor thread)"""
        self.response.detach()  # a cycle, otherwise
        if hasattr(self, "request"):  # a handler has had it, or was about to
            self.request.buffered = self.request.response = None
            if (self._is_stock or self.switches) and not self.rfile.closed:
                self.rfile.close()
        if self._spool is not None:
            self._spool.close()

    # Where the handler runs

    def output_waits(self) -> None:
        """There is something for L{stream_output}. (reactor thread)"""
        raise NotImplementedError

    def output_lost(self, error: OSError) -> None:
        """Some of what the handler has sent cannot be had any more. (reactor thread)"""
        raise NotImplementedError

    def hand_over(self, granted: Callable[[], object]) -> None:
        """Give the handler the connection; C{granted} is called in any case. (reactor thread)"""
        raise NotImplementedError

    def client_is_gone(self) -> bool:
        """Whether the client has broken the connection. (handler's thread)"""
        if self.mode is OutputMode.DIRECT:
            return hangup_of(self.request).is_final
        return self.mode is OutputMode.CLOSED or self._channel.writer.is_broken()

    def _follow(self) -> tuple[bytes, Any] | None:
        """The bytes that follow the request, and their file, if they are the handler's."""
        if self.ends_with_connection:
            return self._follow_body()
        if self._is_stock and self.mode is _BUFFERED:
            with self._lock:
                status = status_in(b"".join(self._output))
            if status is not None:
                self.response.status = status
        if not self.response.switches:
            return None
        if not self._is_stock:
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
            return self._channel.switch(_ignore), io.BytesIO()
        return self.rest, ConnectionBody(
            self.request, len(self.rest), self._patience, self._late, lambda: self.cut_off
        )

    def _patience(self, received: int, waited: float) -> float | None:
        """
        How long a body that ends with its connection may go on without another byte.

        @param waited: how long it has been waited for.
        """
        return self._channel.deadlines.connection_body_seconds(waited, received)

    def _late(self) -> DeadlineExpired:
        """Such a body has not come in time."""
        expiries = self._channel.factory.statistics.expiries
        self._channel.factory.reactor.callFromThread(expiries.update, [Phase.BODY])
        return DeadlineExpired(Phase.BODY)

    def serve(self) -> Outcome:
        """Have the handler answer the request. (worker thread)"""
        channel, request = self._channel, self.request
        factory = channel.factory
        makes_handler = channel.makes_handlers and not self._is_stock
        thread = get_ident()
        served[thread] = self
        try:
            error = serve_next(factory, request, channel.client_address, makes_handler)
        except BaseException:  # sys.exit(), or an error in handle_error
            self.response.close = True
            if served.get(thread) is self:  # else its child has left, and it is to answer yet
                self._answer_for_handler()
            raise
        finally:
            served.pop(thread, None)
        failed = error is not None
        outcome = _OK if error is None else factory.outcome_of(request, error)
        error = None  # its traceback leads to this frame: a cycle, otherwise
        if self._is_stock:
            if failed:
                self.response.close = True
            elif not self.sent and self.mode is _BUFFERED and self._instead is None:
                factory.log_fault(Topic.HTTP, absent_response(self.response))
            return outcome
        try:
            self._finish(failed)
        except LocalProtocolError as broken:
            factory.log_fault(Topic.HTTP, str(broken))
            self.response.close = True
            return Outcome.ERROR
        except (OSError, ValueError):  # the client is gone, or the handler closed the socket
            self.response.close = True
        return outcome

    def _answer_for_handler(self) -> None:
        """Answer 500 for a handler that has left by what nobody handles. (worker thread)"""
        with contextlib.suppress(LocalProtocolError, OSError, ValueError):  # as L{serve}
            if not self._is_stock:
                self._finish(failed=True)
            elif not self.sent:
                self.request.sendall(self._make_page(500)[1])

    def _finish(self, failed: bool) -> None:
        """
        Send what is left to send. (worker thread)

        @param failed: whether the handler raised.
        """
        response = self.response
        if failed or not response.started:
            if response.begun:
                # The client can tell by the connection's end only.
                response.close = True
                return
            if not failed and self._instead is None:
                self._channel.factory.log_fault(Topic.HTTP, absent_response(response))
            response.reset()
            answer_error(response, 500, self._channel.settings.handler)
        response.finish()

    # What the handler sends

    def buffer(self, data: ReadableBuffer) -> bool:
        """
        Hold C{data} back for the reactor to send. (handler's thread)

        @return: whether it is held; if not, the caller sends it itself.
        @raise BrokenPipeError: the connection has ended.
        @raise TypeError: C{data} is no bytes-like object.
        """
        kept = data if type(data) is bytes else bytes_of(data)
        if self._is_stock and not self.sent:
            self.rfile.answered()
        with self._lock:
            self.sent += len(kept)
            if self.mode is _BUFFERED:
                if self.sent <= HIGH_WATER_BYTES or self._is_on_reactors_thread():
                    self._output.append(kept)
                    return True
                self._start_streaming()
            queue = self._streamed
        if queue is not None:
            queue.write(self._observe(kept), self.request.gettimeout())
            return True
        self.acquire_connection()
        leaving = self._observe(kept)
        self.sent_directly += len(leaving)
        if leaving is kept:
            return False
        socket.socket.sendall(self.request, leaving)
        return True

    def _start_streaming(self) -> None:
        """From now on the reactor sends what the handler sends. (under the lock)"""
        output, allowance = self._output, self._channel.settings.spool_allowance
        if output:
            output[:] = [self._observe(b"".join(output))]
        self._streamed = OutputQueue(output, allowance, self._wake_reactor)
        self.mode = _STREAMED

    def _wake_reactor(self) -> None:
        self._channel.factory.reactor.callFromThread(self.output_waits)

    def _observe(self, data: bytes) -> bytes:
        """The bytes that leave for those that the handler sends. (any thread)"""
        response = self._stock_response
        if response is None:
            return data
        leaving = response.observe(data, self._refuse_output)
        if leaving is not data:
            self.sent += len(leaving) - len(data)
        return leaving

    def _refuse_output(self, fault: str) -> tuple[BlockingResponse, bytes]:
        """The page that leaves in the place of an answer that must not. (any thread)"""
        self._channel.factory.log_fault(Topic.HTTP, fault)
        return self._make_page(500)

    def acquire_connection(self) -> None:
        """
        Have the connection itself. (handler's thread)

        @raise BrokenPipeError: it has ended.
        """
        if self.mode is not OutputMode.DIRECT and self.mode is not OutputMode.CLOSED:
            if self._is_on_reactors_thread():
                self.hand_over(lambda: None)
            else:
                granted = Lock()
                granted.acquire()
                reactor = self._channel.factory.reactor
                reactor.callFromThread(self.hand_over, granted.release)
                granted.acquire()
        if self.mode is not OutputMode.DIRECT:
            raise BrokenPipeError("the connection has ended")

    def _is_on_reactors_thread(self) -> bool:
        return get_ident() == self._reactors_thread

    def _send(self, data: bytes) -> None:
        """Send a piece of the response. (handler's thread)"""
        if not self.buffer(data):
            PumpedSocket.sendall(self.request, data)
