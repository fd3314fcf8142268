"""
HTTP connections with blocking handlers: each request gathers on the reactor, is answered on
a thread or in a child, and leaves the connection to the reactor again.

This room owns how the connection changes hands, and which deadline means what while a
handler has it.  It must not know how a request gathers (L{sockserve.http.buffered_request}).
Everything runs on the reactor thread.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.tasks import Task
from sockserve.executors.fork import ForkConcurrency
from sockserve.http.buffered_request import Gathering
from sockserve.http.channel import Stage
from sockserve.http.coroutine import CoroutineHTTPServing
from sockserve.http.h1.framing import RemoteProtocolError, State
from sockserve.http.h1.head import RequestHead
from sockserve.http.handler_socket import Hold, RequestSocket
from sockserve.http.responses import status_for
from sockserve.interfaces import DeadlineExpired, Outcome, Phase
from sockserve.sockets.lending import SocketIdentity, is_lendable, transfer_counts
from sockserve.sockets.pumping import Pump, stand_for
from sockserve.streams.channel import Connection, Part

__all__ = ["BlockingHTTPServing"]

#: Looked up once, as L{sockserve.core.lifecycle} does.
_ANSWERING = Stage.ANSWERING
_READING = Stage.READING
_DIRECT = Hold.DIRECT


class BlockingHTTPServing(CoroutineHTTPServing):
    """One HTTP connection whose handler may block."""

    def __init__(self, protocol: Connection, addresses: tuple[Any, Any]) -> None:
        self._stock = protocol.factory.stock
        super().__init__(protocol, addresses, lenient=self._stock)
        self._lendable = is_lendable(self.transport)
        self._forks = isinstance(self.factory.concurrency, ForkConcurrency)
        self._gathering: Gathering | None = None
        #: The handler's socket: for a lendable connection one for all requests, with the
        #: transport's own descriptor; else one end of a pair for each, and the other end.
        self._socket: RequestSocket | None = None
        self._outer: socket.socket | None = None
        self._identity: SocketIdentity | None = None
        self._pump: Pump | None = None
        self._queued_at = 0.0

    # Gathering a request

    @override
    def _answer(self, head: RequestHead) -> None:
        if not self._stock and not self.factory.method_blocks(head.method):
            super()._answer(head)
            return
        self._stage = _ANSWERING
        self._answer_began = self.timer.seconds()
        gathering = Gathering(self, self._requests, head, self._stock, self.factory.max_body_bytes)
        if self._draining or self._forks:
            gathering.response.close = True
        self._gathering = gathering
        if head.expects_continue and (head.length or 0) <= self.factory.max_body_bytes:
            head.expects_continue = False
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if head.length != 0:
            self._resume()  # what is left of it may have been held back
            self.timer.arm(Phase.BODY, gathering.body_seconds(self._answer_began))
        gathering.read_on()

    @override
    def _read_on(self) -> None:
        if self._gathering is None or self._stage is not _ANSWERING:
            super()._read_on()
            return
        if self._requests.state in (State.COUNTED_BODY, State.CHUNKED_BODY):
            try:
                self._gathering.read_on()
            except RemoteProtocolError as error:
                self._refuse(error)
        else:
            self._pause_when_full()

    @override
    def _refuse(self, error: RemoteProtocolError, head: RequestHead | None = None) -> None:
        gathering, self._gathering = self._gathering, None
        if gathering is not None:
            gathering.close()
            head = gathering.head
        super()._refuse(error, head)

    def gathered(self) -> None:
        """The request is complete."""
        gathering = self._gathering
        assert gathering is not None
        if gathering.head.length != 0:
            self.timer.disarm(Phase.BODY)
        self._writer.flush()
        if self._writer.is_empty():
            self._lend(gathering)
        else:  # the answers before this one
            Task(self._writer.emptied(), self._emptied).start()

    def _emptied(self, result: Any, error: BaseException | None) -> None:
        if error is None and self._gathering is not None:
            self._lend(self._gathering)

    def _lend(self, gathering: Gathering) -> None:
        """Let a handler have the request."""
        try:
            request = self._request_socket()
        except OSError as error:
            self.factory.complain(self.protocol.client_address, error)
            self._refuse(RemoteProtocolError(503, "the server has no room for the request"))
            return
        gathering.lend(request)
        if gathering.switches and not gathering.unending:
            self._pause()  # what follows is the handler's, however it reads it
        if self._forks:
            self._hand_over_now()
        self._queued_at = self.timer.seconds()
        self.factory.concurrency.run(gathering)

    def _request_socket(self) -> RequestSocket:
        """What the handler gets as its socket; OSError if there is no descriptor for it."""
        if not self._lendable:
            inner, self._outer = socket.socketpair()
            self._socket = RequestSocket(fileno=inner.detach())
            stand_for(self._socket, self.transport, self._addresses)
        elif self._socket is None:
            own = self.transport.socket
            self._socket = RequestSocket(own.family, own.type, own.proto, own.fileno())
            self._identity = SocketIdentity(own)
        self._socket.settimeout(socket.getdefaulttimeout())
        return self._socket

    # While a handler has it

    def handler_began(self) -> None:
        """There is a place for it."""
        self.parts |= Part.HANDLER
        self.factory.statistics.lasted("queue", self.timer.seconds() - self._queued_at)
        self.timer.arm(Phase.HANDLE, self.deadlines.handle)

    def handler_lasts(self) -> None:
        """It takes its time: send what it has sent."""
        if self._gathering is not None and self._gathering.hold is Hold.HELD:
            self._writer.write(self._gathering.take_held(Hold.EAGER))

    def hand_over(self, granted: Callable[[], object]) -> None:
        """The handler needs the connection itself; C{granted} is called in any case."""
        gathering = self._gathering
        if gathering is None or gathering.hold not in (Hold.HELD, Hold.EAGER):
            granted()
            return

        def emptied(result: Any, error: BaseException | None) -> None:
            usable = error is None and gathering is self._gathering and not self._writer.broken
            try:
                if usable and gathering.hold is Hold.EAGER:
                    self._hand_over_now()
            finally:  # whatever happens, a thread waits for this
                granted()

        self._writer.write(gathering.take_held(Hold.EAGER))
        Task(self._writer.emptied(), emptied).start()

    def _hand_over_now(self) -> None:
        gathering, request = self._gathering, self._socket
        assert gathering is not None
        assert request is not None
        if self._lendable:
            self.transport.stopReading()
            self.timer.arm(Phase.WRITE, self.deadlines.write)
            self.timer.arm(Phase.IDLE, self.deadlines.idle)
        else:
            assert self._outer is not None
            self._writer.detach()
            if gathering.switches:
                self._resume()
            reactor, transport = self.factory.reactor, self.transport
            self._pump = Pump(reactor, transport, request, self._outer, self.deadlines, self.timer)
            self._outer = None
        if gathering.switches:  # nobody can tell what is said from here on
            gathering.rest = self._requests.switch()
            self.protocol.deliver_to(self._feed_pump)
            if self._pump is not None and self._requests.eof:
                self._pump.feed_eof()
        request.become_blocking()
        gathering.take_held(Hold.DIRECT)

    def _feed_pump(self, data: bytes) -> None:
        self._received += len(data)
        if self._pump is not None:
            self._pump.feed(data)

    @override
    def read_ended(self) -> None:
        if self._pump is not None and self._gathering is not None and self._gathering.switches:
            self._requests.feed_eof()
            self._pump.feed_eof()
        else:
            super().read_ended()

    def handler_ended(self, outcome: Outcome) -> None:
        """The handler is done."""
        gathering = self._gathering
        assert gathering is not None
        self._gathering = None
        if self.deadlines.handle is not None:
            self.timer.disarm(Phase.HANDLE)
        direct = gathering.hold is _DIRECT
        held = gathering.take_held(Hold.OVER)
        if self.protocol.settled:  # it was given up
            self.factory.statistics.abandoned -= 1
            self._account(gathering.response, outcome)
            self._let_go_of_socket()
            return
        self.parts &= ~Part.HANDLER  # before the next request has one
        self._sent += gathering.sent if direct else 0
        if direct:
            gathering.response.close |= not self._take_back() or gathering.switches
        elif held:
            self._writer.post(held, self.factory.outbox)
        if not self._lendable:
            self._let_go_of_socket()
        now = self._account(gathering.response, outcome)
        last = gathering.response.close or self._writer.broken
        if last or self._stage is Stage.CLOSING or (self._draining and self._requests.is_empty()):
            self._end()
        else:
            self._resume_when_low()
            self._next(now)
            if self._stage is _READING and not self._requests.is_empty():
                self._read()
        self._over(0)

    def handler_failed(self, error: OSError) -> None:
        """There is no thread or process to be had."""
        gathering = self._gathering
        assert gathering is not None
        self._gathering = None
        self.parts &= ~Part.HANDLER
        self.timer.disarm(Phase.HANDLE)
        if gathering.hold is _DIRECT:
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
            if self.parts & Part.CONNECTION:
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
            self._writer.fail(BrokenPipeError("the handler has closed the connection"))
        return left

    def _give_up_transport(self) -> None:
        """The descriptor is another's business now: let go of the transport, and our cycle."""
        self.transport.socket.detach()
        self.transport = self.protocol.transport = None
        self.protocol.record.received = self._received
        self.protocol.record.sent = self._sent + self._writer.sent
        self.parts &= ~Part.CONNECTION

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
    def passed(self, phase: Phase) -> bool:
        gathering = self._gathering
        if gathering is None:
            return super().passed(phase)
        if phase is Phase.BODY:
            left = gathering.body_seconds(self.timer.seconds())
            if left is not None and left > 0:
                self.timer.arm(phase, left)
                return False
        elif phase is Phase.IDLE:
            return gathering.response.switches and (
                not self._lendable or self._traffic_stalls(phase)
            )
        elif phase is Phase.WRITE and self._lendable and gathering.hold is _DIRECT:
            return self._traffic_stalls(phase)
        return True

    def _traffic_stalls(self, phase: Phase) -> bool:
        """The reactor does not see a lent connection's bytes; the kernel does."""
        limit = self.deadlines.write if phase is Phase.WRITE else self.deadlines.idle
        counts = transfer_counts(self.transport.socket)
        if counts is None or limit is None:
            return False
        left = (counts.idle_seconds if phase is Phase.IDLE else counts.write_seconds)(limit)
        if left > 0:
            self.timer.arm(phase, left)
        return left <= 0

    @override
    def expire(self, phase: Phase) -> None:
        gathering = self._gathering
        hard = phase is Phase.WRITE or phase is Phase.DRAIN
        if gathering is None:
            super().expire(phase)
        elif self.parts & Part.HANDLER:
            if not self.factory.concurrency.kill(gathering):
                self._interrupt(gathering, None if hard else 504, reset=hard)
        elif not gathering.lent or self.factory.concurrency.withdraw(gathering):
            if gathering.hold is _DIRECT:
                self._take_back()
            error = DeadlineExpired(phase)
            if hard:
                self._gathering = None
                gathering.close()
                self._writer.fail(error)
                self.abort()
            else:
                self._refuse(RemoteProtocolError(status_for(error), str(error)))

    def _interrupt(self, gathering: Gathering, status: int | None, reset: bool = False) -> None:
        """
        End the connection under a handler, which goes on without it.

        @param status: what to answer if the handler has sent nothing.
        @param reset: let the kernel forget what the client has not taken.
        """
        gathering.cut_off = ConnectionAbortedError("a deadline has ended the connection")
        if gathering.hold is _DIRECT:
            if status is not None and not gathering.sent:
                send = self.transport.write if self._identity is None else self._identity.send
                send(gathering.answer_instead(status))
            if self._pump is not None:
                self._pump.interrupt()
                if reset:
                    self.transport.abortConnection()
            elif self._identity is not None:
                self._identity.shutdown(socket.SHUT_RDWR, reset=reset)
        elif gathering.hold is not Hold.OVER:
            begun = gathering.hold is Hold.EAGER and gathering.sent > 0
            gathering.take_held(Hold.OVER)
            if status is None or begun:
                self._writer.fail(BrokenPipeError("a deadline has passed"))
                self.transport.abortConnection()
            else:
                self._writer.write(gathering.answer_instead(status))
                self._end()

    @override
    def drain(self) -> None:
        if self._gathering is not None:
            self._draining = True
            self._gathering.response.close = True
        else:
            super().drain()

    @override
    def lost(self, reason: Failure) -> None:
        gathering = self._gathering
        # First of all: the number is about to be another's.
        if self._lendable and self._socket is not None:
            socket.socket.detach(self._socket)
            if gathering is None:
                self._socket = None
        if gathering is not None:
            gathering.lost(reason)
        if self._pump is not None:
            self._pump.transport_lost()
        if gathering is not None:
            if self.parts & Part.HANDLER:
                if self._pump is None:
                    gathering.take_held(Hold.OVER)
            elif not gathering.lent or self.factory.concurrency.withdraw(gathering):
                self._gathering = None
                gathering.close()
                if self._stage is _ANSWERING:
                    self._stage = _READING
        super().lost(reason)
        self.protocol.record.sent = self._sent + self._writer.sent
        if self._gathering is None:
            self._let_go_of_socket()

    @override
    def abort(self) -> None:
        gathering = self._gathering
        if gathering is not None and self.parts & Part.HANDLER:
            self._interrupt(gathering, None)
        elif self.transport is not None:
            super().abort()

    @override
    def abandon(self) -> None:
        self.abort()
        if self.parts & Part.HANDLER and not self.protocol.settled:
            if self._task is not None:
                super().abandon()
                return
            self.factory.statistics.abandoned += 1
            if self.parts & Part.CONNECTION:
                if self._lendable and self._gathering and self._gathering.hold is _DIRECT:
                    # Whoever still has the descriptor closes it.
                    self._give_up_transport()
                else:  # it may still be at its last words
                    self.transport.abortConnection()
            self.protocol.settle()

    @override
    def owned_descriptors(self) -> Iterator[int]:
        yield from super().owned_descriptors()
        if self._pump is not None:
            yield self._pump.fileno()
        if not self._lendable and self._socket is not None:
            yield socket.socket.fileno(self._socket)
