"""
HTTP connections with blocking handlers, each request of which is buffered by the reactor,
answered on a thread or in a child, and leaves the connection to the reactor again.

This room owns how the connection changes hands.  (reactor thread)
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.handler_kinds import HandlerKind
from sockserve.core.tasks import Task
from sockserve.executors.fork import ForkExecutor
from sockserve.http.buffered_request import BufferedRequest
from sockserve.http.channel import ChannelState
from sockserve.http.coroutine import CoroutineHTTPChannel
from sockserve.http.h1.framing import RemoteProtocolError, State
from sockserve.http.h1.head import RequestHead
from sockserve.http.handler_socket import OutputMode, RequestSocket
from sockserve.http.responses import status_for
from sockserve.interfaces import DeadlineExpired, Outcome, Phase
from sockserve.sockets.lending import SocketIdentity, is_lendable, tcp_traffic
from sockserve.sockets.pumping import Pump, impersonate
from sockserve.streams.channel import ChannelOwner, Pending

__all__ = ["BlockingHTTPChannel"]

# Looked up once (see L{sockserve.core.lifecycle}).
_ANSWERING = ChannelState.ANSWERING
_READING = ChannelState.READING
_CLOSING = ChannelState.CLOSING
_DIRECT = OutputMode.DIRECT


class BlockingHTTPChannel(CoroutineHTTPChannel):
    """One HTTP connection whose handler may block."""

    def __init__(self, protocol: ChannelOwner, addresses: tuple[Any, Any]) -> None:
        self._stock = protocol.factory.kind is HandlerKind.HTTP_STOCK
        super().__init__(protocol, addresses, lenient=self._stock)
        self._lendable = is_lendable(self.transport)
        self._forks = isinstance(self.factory.concurrency, ForkExecutor)
        self._buffered: BufferedRequest | None = None
        self._socket: RequestSocket | None = None
        self._outer: socket.socket | None = None
        self._identity: SocketIdentity | None = None
        self._pump: Pump | None = None
        self._queued_at = 0.0

    # Buffering a request

    @override
    def _answer(self, head: RequestHead) -> None:
        if not self._stock and not self.factory.method_blocks(head.method):
            return super()._answer(head)
        self._state = _ANSWERING
        self._answer_began = self.timer.seconds()
        limit = self.factory.max_body_bytes
        buffered = BufferedRequest(self, self._requests, head, self._stock, limit)
        if self._draining or self._forks:
            buffered.response.close = True
        self._buffered = buffered
        if head.expects_continue and (head.length or 0) <= self.factory.max_body_bytes:
            head.expects_continue = False
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if head.length != 0:
            self._resume()  # what is left of it may have been held back
            self.timer.arm(Phase.BODY, buffered.body_seconds(self._answer_began))
        buffered.read_on()

    @override
    def _read_on(self) -> None:
        if self._buffered is None or self._state is not _ANSWERING:
            return super()._read_on()
        if self._requests.state in (State.COUNTED_BODY, State.CHUNKED_BODY):
            try:
                self._buffered.read_on()
            except RemoteProtocolError as error:
                self._refuse(error)
        else:
            self._pause_when_full()

    @override
    def _refuse(self, error: RemoteProtocolError, head: RequestHead | None = None) -> None:
        buffered, self._buffered = self._buffered, None
        if buffered is not None:
            buffered.close()
            head = buffered.head
        super()._refuse(error, head)

    def request_complete(self) -> None:
        """The request is complete."""
        buffered = self._buffered
        assert buffered is not None
        self.timer.disarm(Phase.BODY)
        self._writer.flush()
        if self._writer.is_empty():
            self._lend(buffered)
        else:  # the answers before this one
            Task(self._writer.emptied(), self._emptied).start()

    def _emptied(self, result: Any, error: BaseException | None) -> None:
        if error is None and self._buffered is not None:
            self._lend(self._buffered)

    def _lend(self, buffered: BufferedRequest) -> None:
        """Let a handler have the request."""
        try:
            request = self._request_socket()
        except OSError as error:
            self.factory.log_shortage(self.protocol.client_address, error)
            self._refuse(RemoteProtocolError(503, "the server has no room for the request"))
            return
        buffered.lend(request)
        if buffered.switches and not buffered.ends_with_connection:
            self._pause()  # what follows is the handler's, however it reads it
        if self._forks:
            self._hand_over_now()
        self._queued_at = self.timer.seconds()
        self.factory.concurrency.run(buffered)

    def _request_socket(self) -> RequestSocket:
        """What the handler gets as its socket; OSError if there is no descriptor for it."""
        if not self._lendable:
            inner, self._outer = socket.socketpair()
            self._socket = RequestSocket(fileno=inner.detach())
            impersonate(self._socket, self.transport, self._addresses)
        elif self._socket is None:
            own = self.transport.socket
            self._socket = RequestSocket(own.family, own.type, own.proto, own.fileno())
            self._identity = SocketIdentity(own)
        self._socket.settimeout(socket.getdefaulttimeout())
        return self._socket

    # While a handler has it

    def handler_began(self) -> None:
        """There is a place for it."""
        self.parts |= Pending.HANDLER
        self.factory.statistics.observe_duration("queue", self.timer.seconds() - self._queued_at)
        self.timer.arm(Phase.HANDLE, self.deadlines.handle)

    def handler_runs_long(self) -> None:
        """It takes its time: send what it has sent."""
        if self._buffered is not None and self._buffered.mode is OutputMode.BUFFERED:
            self._writer.write(self._buffered.take_output(OutputMode.SENT))

    def hand_over(self, granted: Callable[[], object]) -> None:
        """The handler needs the connection itself; C{granted} is called in any case."""
        buffered = self._buffered
        if buffered is None or buffered.mode not in (OutputMode.BUFFERED, OutputMode.SENT):
            granted()
            return

        def emptied(result: Any, error: BaseException | None) -> None:
            usable = error is None and buffered is self._buffered and not self._writer.is_broken()
            try:
                if usable and buffered.mode is OutputMode.SENT:
                    self._hand_over_now()
            finally:  # whatever happens, a thread waits for this
                granted()

        self._writer.write(buffered.take_output(OutputMode.SENT))
        Task(self._writer.emptied(), emptied).start()

    def _hand_over_now(self) -> None:
        buffered, request = self._buffered, self._socket
        assert buffered is not None
        assert request is not None
        if self._lendable:
            self.transport.stopReading()
            self.timer.arm(Phase.WRITE, self.deadlines.write)
            self.timer.arm(Phase.IDLE, self.deadlines.idle)
        else:
            assert self._outer is not None
            self._writer.detach()
            if buffered.switches:
                self._resume()
            ends, limits = (request, self._outer), (self.deadlines, self.timer)
            self._pump = Pump(self.factory.reactor, self.transport, *ends, *limits)
            self._outer = None
        if buffered.switches:  # nobody can tell what is said from here on
            buffered.rest = self._requests.switch()
            self.protocol.set_receiver(self._feed_pump)
            if self._pump is not None and self._requests.eof:
                self._pump.feed_eof()
        request.become_blocking()
        buffered.take_output(OutputMode.DIRECT)

    def _feed_pump(self, data: bytes) -> None:
        self._received += len(data)
        if self._pump is not None:
            self._pump.feed(data)

    @override
    def eof_received(self) -> None:
        if self._pump is not None and self._buffered is not None and self._buffered.switches:
            self._requests.feed_eof()
            self._pump.feed_eof()
        else:
            super().eof_received()

    def handler_finished(self, outcome: Outcome) -> None:
        """The handler is done."""
        buffered = self._buffered
        assert buffered is not None
        self._buffered = None
        if self.deadlines.handle is not None:
            self.timer.disarm(Phase.HANDLE)
        direct = buffered.mode is _DIRECT
        held = buffered.take_output(OutputMode.CLOSED)
        if self.protocol.is_finished:  # it was given up
            self.factory.statistics.abandoned -= 1
            self._account(buffered.response, outcome)
            self._let_go_of_socket()
            return
        self.parts &= ~Pending.HANDLER  # before the next request has one
        self._sent += buffered.sent if direct else 0
        if direct:
            buffered.response.close |= not self._take_back() or buffered.switches
        elif held:
            self._writer.write_at_turn_end(held, self.factory.outbox)
        if not self._lendable:
            self._let_go_of_socket()
        now = self._account(buffered.response, outcome)
        last = buffered.response.close or self._writer.is_broken()
        if (
            last
            or self._state is ChannelState.CLOSING
            or (self._draining and self._requests.is_empty())
        ):
            self._shut_down()
        else:
            self._resume_when_low()
            self._await_next(now)
            if self._state is _READING and not self._requests.is_empty():
                self._read()
        self._part_ended(0)

    def handler_failed(self, error: OSError) -> None:
        """There is no thread or process to be had."""
        buffered = self._buffered
        assert buffered is not None
        self._buffered = None
        self.parts &= ~Pending.HANDLER
        self.timer.disarm(Phase.HANDLE)
        if buffered.mode is _DIRECT:
            self._take_back()
        try:
            raise error
        except OSError:
            self.factory.handle_error(self.request, self.protocol.client_address)
        self._refuse(RemoteProtocolError(503, "the server has no room for the request"))

    def _take_back(self) -> bool:
        """The reactor has the connection again; gives whether the handler has left one."""
        request = self._socket
        assert request is not None
        # Else the handler has closed or detached it, if perhaps not with the last word.
        left: bool = request.fileno() >= 0 and not request.is_closed()
        if self._pump is not None:
            pump, self._pump = self._pump, None
            left = pump.release() and left
            self.timer.disarm(Phase.WRITE)  # the pump's own
            if self.parts & Pending.CONNECTION:
                self._writer.wrapped()
            return left
        self.timer.disarm(Phase.WRITE)
        if left:
            request.become_nonblocking()
            if not self._paused:
                self.transport.startReading()
        else:
            if self._identity is not None:  # a file the handler made may keep it open
                self._identity.shutdown(socket.SHUT_RDWR)
            self._give_up_transport()
            self._writer.discard(BrokenPipeError("the handler has closed the connection"))
        return left

    def _give_up_transport(self) -> None:
        """The descriptor is another's business now: let go of the transport, and our cycle."""
        self.transport.socket.detach()
        self.transport = self.protocol.transport = None
        self.protocol.record.received = self._received
        self.protocol.record.sent = self._sent + self._writer.sent
        self.parts &= ~Pending.CONNECTION

    def _let_go_of_socket(self) -> None:
        """The handler's socket is of no more use."""
        outer, self._outer = self._outer, None
        if outer is not None:
            outer.close()
        request, self._socket = self._socket, None
        if request is not None:
            if self._lendable and self.transport is not None:
                request.detach()  # it is the transport's
            else:
                request.close()

    # Ends

    @override
    def deadline_applies(self, phase: Phase) -> bool:
        buffered = self._buffered
        if buffered is None:
            return super().deadline_applies(phase)
        if phase is Phase.BODY:
            left = buffered.body_seconds(self.timer.seconds())
            if left is not None and left > 0:
                self.timer.arm(phase, left)
                return False
        elif phase is Phase.IDLE:
            return buffered.response.switches and (
                not self._lendable or self._traffic_stalls(phase)
            )
        elif phase is Phase.WRITE and self._lendable and buffered.mode is _DIRECT:
            return self._traffic_stalls(phase)
        return True

    def _traffic_stalls(self, phase: Phase) -> bool:
        """The reactor does not see a lent connection's bytes; the kernel does."""
        counts, limit = tcp_traffic(self.transport.socket), getattr(self.deadlines, phase)
        if counts is None or limit is None:
            return False
        left = (counts.idle_seconds if phase is Phase.IDLE else counts.write_seconds)(limit)
        if left > 0:
            self.timer.arm(phase, left)
        return bool(left <= 0)

    @override
    def deadline_passed(self, phase: Phase) -> None:
        buffered, hard = self._buffered, phase in (Phase.WRITE, Phase.DRAIN)
        if buffered is None:
            super().deadline_passed(phase)
        elif self.parts & Pending.HANDLER:
            if not self.factory.concurrency.kill(buffered):
                self._interrupt(buffered, None if hard else 504, reset=hard)
        elif not buffered.lent or self.factory.concurrency.withdraw(buffered):
            if buffered.mode is _DIRECT:
                self._take_back()
            error = DeadlineExpired(phase)
            if hard:
                self._buffered = None
                buffered.close()
                self._writer.discard(error)
                self.abort()
            else:
                self._refuse(RemoteProtocolError(status_for(error), str(error)))

    def _interrupt(
        self, buffered: BufferedRequest, status: int | None, reset: bool = False
    ) -> None:
        """
        End the connection under a handler, which goes on without it.

        @param status: what to answer if the handler has sent nothing.
        @param reset: let the kernel forget what the client has not taken.
        """
        buffered.cut_off = ConnectionAbortedError("a deadline has ended the connection")
        if buffered.mode is _DIRECT:
            if status is not None and not buffered.sent:
                send = self.transport.write if self._identity is None else self._identity.send
                send(buffered.answer_instead(status))
            if self._pump is not None:
                self._pump.interrupt()
                if reset:
                    self.transport.abortConnection()
            elif self._identity is not None:
                self._identity.shutdown(socket.SHUT_RDWR, reset=reset)
        elif buffered.mode is not OutputMode.CLOSED:
            begun = buffered.mode is OutputMode.SENT and buffered.sent > 0
            buffered.take_output(OutputMode.CLOSED)
            if status is None or begun:
                self._writer.discard(BrokenPipeError("a deadline has passed"))
                self.transport.abortConnection()
            else:
                self._writer.write(buffered.answer_instead(status))
                self._shut_down()

    @override
    def drain(self) -> None:
        if self._buffered is not None:
            self._draining = True
            self._buffered.response.close = True
        else:
            super().drain()

    @override
    def connection_lost(self, reason: Failure) -> None:
        buffered = self._buffered
        # First of all: the number is about to be another's.
        if self._lendable and self._socket is not None:
            socket.socket.detach(self._socket)
            if buffered is None:
                self._socket = None
        if buffered is not None:
            buffered.connection_lost(reason)
        if self._pump is not None:
            self._pump.transport_lost()
        if buffered is not None:
            if self.parts & Pending.HANDLER:
                if self._pump is None:
                    buffered.take_output(OutputMode.CLOSED)
            elif not buffered.lent or self.factory.concurrency.withdraw(buffered):
                self._buffered = None
                buffered.close()
                if self._state is _ANSWERING:
                    self._state = _READING
        super().connection_lost(reason)
        self.protocol.record.sent = self._sent + self._writer.sent
        if self._buffered is None:
            self._let_go_of_socket()

    @override
    def abort(self) -> None:
        buffered = self._buffered
        if buffered is not None and self.parts & Pending.HANDLER:
            self._interrupt(buffered, None)
        elif self.transport is not None:
            super().abort()

    @override
    def abandon(self) -> None:
        self.abort()
        if self.parts & Pending.HANDLER and not self.protocol.is_finished:
            if self._task is not None:
                super().abandon()
                return
            self.factory.statistics.abandoned += 1
            if self.parts & Pending.CONNECTION:
                if self._lendable and self._buffered and self._buffered.mode is _DIRECT:
                    # Whoever still has the descriptor closes it.
                    self._give_up_transport()
                else:  # it may still be at its last words
                    self.transport.abortConnection()
            self.protocol.finish()

    @override
    def owned_descriptors(self) -> Iterator[int]:
        yield from super().owned_descriptors()
        if self._pump is not None:
            yield self._pump.fileno()
        if not self._lendable and self._socket is not None:
            yield socket.socket.fileno(self._socket)
