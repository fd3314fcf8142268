"""
The HTTP channel: requests one after another on one connection, each answered before the
next is looked at.

This room owns what a connection does between accept and end when HTTP/1 is spoken on it: which
deadline runs between requests, when a request is looked at, and what comes after a response.  It
must not know how a connection came about, or how a request is answered
(L{sockserve.http.cycle}). (reactor thread)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.in_progress import UnderWay
from sockserve.core.logs import Topic, logger
from sockserve.core.tasks import Task
from sockserve.http.channel_state import ChannelState, under_way
from sockserve.http.cycle import RequestCycle
from sockserve.http.cycles import MakeCycle, cycle_maker
from sockserve.http.h1.framing import Event, RemoteProtocolError, State
from sockserve.http.h1.head import RequestHead
from sockserve.http.lease import ConnectionLease, make_lease
from sockserve.http.refusals import make_refusal, status_for
from sockserve.http.requests import RequestConnection
from sockserve.http.responses import BlockingResponse, CoroutineResponse, Response
from sockserve.http.settings import BODY_READ_BYTES, HEAD_READ_BYTES, HTTPSettings
from sockserve.interfaces import DeadlineExpired, IStreamServer, Outcome, Phase
from sockserve.streams.channel import (
    ARRIVAL_SECONDS,
    Addresses,
    ChannelOwner,
    MakeChannel,
    Pending,
)
from sockserve.streams.reader import HIGH_WATER_BYTES, LOW_WATER_BYTES
from sockserve.streams.transport_channel import TransportChannel

__all__ = ["HTTPChannel"]

_log = logger(Topic.HTTP)


# Looked up once (see L{sockserve.core.lifecycle}).
_READING = ChannelState.READING
_ANSWERING = ChannelState.ANSWERING
_CLOSING = ChannelState.CLOSING
_IDLE = State.IDLE
_HEAD = State.HEAD
_COMPLETE = State.COMPLETE
_PHASE_IDLE = Phase.IDLE

#: Which deadlines apply to a connection that has had its last request.
_LAST_PHASES = (Phase.WRITE, Phase.LIFETIME, Phase.DRAIN)


class HTTPChannel(TransportChannel):
    """One HTTP/1 connection.  Its attributes are those of L{CycleOwner}."""

    # Else each would have a dictionary, and beyond 29 attributes one that shares nothing.
    __slots__ = (
        "_has_more", "_idle_since", "_make_cycle", "_received", "_seconds", "_state", "addresses",
        "client_address", "cycle", "input", "is_draining", "lease", "make_blocking_response",
        "make_response", "makes_handlers", "settings",
    )  # fmt: skip
    has_requests = True

    def __init__(
        self,
        protocol: ChannelOwner,
        addresses: Addresses,
        settings: HTTPSettings,
        make_cycle: MakeCycle,
    ) -> None:
        super().__init__(protocol)
        self.settings = settings
        self._make_cycle = make_cycle
        self.deadlines = settings.deadlines
        self._seconds = self.timer.seconds  # asked twice for every request
        # For the connection
        self.addresses = addresses
        self.client_address = protocol.client_address
        self.input = settings.make_parser()
        self.writer.outbox = settings.outbox
        self.request = RequestConnection(
            self.transport, self.writer, addresses, self._close, self.departure, self.factory
        )
        self.is_draining = False
        self._received = 0
        self._state = ChannelState.OFFERED
        self.make_response, self.make_blocking_response = CoroutineResponse, BlockingResponse
        self.makes_handlers = self.factory.makes_handlers()
        #: How blocking handlers get the connection; made for the first.
        self.lease: ConnectionLease | None = None
        # For the request being answered
        self.cycle: RequestCycle | None = None
        self._has_more = False  # behind the last one
        if self.is_lendable:
            self.transport.bufferSize = HEAD_READ_BYTES
        protocol.set_receiver(self.feed)

    @classmethod
    @override
    def maker(cls, server: IStreamServer) -> MakeChannel:
        settings = HTTPSettings(server)
        return functools.partial(cls, settings=settings, make_cycle=cycle_maker(settings))

    # What the protocol calls

    @override
    def start(self) -> None:
        self._state = _READING
        self._idle_since = now = self._seconds()
        self.timer.arm(_PHASE_IDLE, self.deadlines.idle, now)
        self._read()

    def feed(self, data: bytes) -> None:
        """Bytes have arrived: what they are answered with leaves together."""
        self._received += len(data)
        writer = self.writer
        writer.corked = True
        if self._state is _READING:
            self._read(data)
        else:
            self.input.feed(data)
            self.read_body()
        writer.corked = False
        if writer.queued_bytes:
            writer.outbox.send(writer)

    @override
    def eof_received(self) -> None:
        self.input.feed_eof()
        if self._state is _READING:
            self._read()
        elif self.input.state is State.SWITCHED and self.cycle is not None:
            self.cycle.eof_received()
        else:
            self.read_body()
        super().eof_received()

    @override
    def connection_lost(self, reason: Failure) -> None:
        # First of all: the descriptor's number is about to be another's.
        if self.lease is not None:
            self.lease.descriptor_lost()
        if self.cycle is not None and self.cycle.connection_lost(reason):
            self.cycle = None
            self._state = _READING
        if self.lease is not None:
            self.lease.connection_lost()
        super().connection_lost(reason)
        self.input.feed_eof()
        if self.cycle is not None:
            self.cycle.body_failed(ConnectionResetError(reason.getErrorMessage()))
        self.client_lost(reason)
        if self._state is not _ANSWERING:
            self.shut_down()
        self._part_ended(Pending.CONNECTION)

    @override
    def answerer(self) -> RequestCycle | None:
        return self.cycle

    @override
    def deadline_applies(self, phase: Phase) -> bool:
        if self._state is _CLOSING and phase not in _LAST_PHASES:
            return False
        if self.cycle is not None:
            applies = self.cycle.deadline_applies(phase)
            if applies is not None:
                return applies
        elif phase is _PHASE_IDLE:
            if self.is_draining:
                self._end_when_quiet()
                return False
            return self._state is _READING and self.input.state is _IDLE
        return super().deadline_applies(phase)

    @override
    def deadline_passed(self, phase: Phase) -> None:
        error = DeadlineExpired(phase)
        if self.cycle is not None:
            self.cycle.deadline_passed(phase)
        elif phase is Phase.WRITE or phase is Phase.DRAIN:
            self.writer.discard(error)
            self.abort_transport()
        elif self._state is _READING and self.input.state is _HEAD:
            self.refuse(RemoteProtocolError(status_for(error), str(error)))
        else:
            self.shut_down()

    @override
    def drain(self) -> None:
        self.is_draining = True
        if self.cycle is not None:
            self.cycle.drain()
        else:
            self._end_when_quiet()

    def _end_when_quiet(self) -> None:
        """While the service stops: end the connection once no request is likely to come."""
        if self._state is _READING and self.input.state is _IDLE:
            left = self._idle_since + (self.deadlines.quiet or 0) - self._seconds()
            if left <= 0 and not self.has_unread_input():
                self.shut_down()
            else:  # what has arrived is read in the next turn
                self.timer.arm(_PHASE_IDLE, max(left, ARRIVAL_SECONDS))

    def has_next_request(self) -> bool:
        """Whether a further request has begun to arrive. (any thread)"""
        return self.input.has_next_request() or self.has_unread_input()

    @override
    def request_closing(self) -> None:
        self._state = _CLOSING

    @override
    def traffic(self) -> tuple[int, int]:
        return self._received, self.writer.sent + (0 if self.lease is None else self.lease.sent)

    @override
    def under_way(self) -> UnderWay:
        return under_way(self._state, self.input.state, self.cycle)

    @override
    def discard_input(self) -> bool:
        parser = self.input
        unread = parser.buffered > 0 or parser.state not in (_IDLE, _COMPLETE, State.ENDED)
        self.protocol.set_receiver(lambda data: None)
        self.resume()
        return unread and not parser.eof

    @override
    def input_ended(self) -> bool:
        return self.input.eof

    @override
    def abort(self) -> None:
        if self.cycle is not None:
            self.cycle.abort()
        else:
            self.abort_transport()

    @override
    def abandon(self) -> None:
        self.abort()
        if self.cycle is not None and not self.protocol.is_finished and self.cycle.abandon():
            self.protocol.finish()

    @override
    def owned_descriptors(self) -> Iterator[int]:
        yield from super().owned_descriptors()
        if self.lease is not None:
            yield from self.lease.descriptors()

    # Reading requests

    def _read(self, data: bytes | None = None) -> None:
        """
        Take requests, as long as each is answered at once.

        @param data: what has arrived, and has not been given to the parser.
        """
        parser, make_cycle, seconds = self.input, self._make_cycle, self._seconds
        before = parser.state
        try:
            event = parser.next_event() if data is None else parser.receive(data)
            while event is not None:
                head: RequestHead = event  # type: ignore[assignment]
                if before is _HEAD:
                    self.timer.disarm(Phase.HEADER)
                    before = _IDLE
                if parser.state is not _COMPLETE:
                    self.transport.bufferSize = BODY_READ_BYTES
                self._state = _ANSWERING
                self.cycle = cycle = make_cycle(self, head, seconds())
                cycle.start()
                if self._state is not _READING or not self._has_more:
                    return
                event = parser.next_event()
        except RemoteProtocolError as error:
            self.refuse(error)
            return
        if self.is_paused:
            self.resume()
        state = parser.state
        if state is _HEAD:
            if before is not _HEAD:
                self.timer.arm(Phase.HEADER, self.deadlines.header)
        elif state is not _IDLE:
            self.shut_down()
        elif self.is_draining:  # no more than an empty line
            self._end_when_quiet()

    def read_body(self) -> None:
        """Take what has come of a body: of the request under way, or of one that is answered."""
        if self._state is ChannelState.DISCARDING:
            self._discard()
            if self._state is _READING:
                self._read()
            return
        parser, cycle = self.input, self.cycle
        if cycle is not None and self._state is _ANSWERING and cycle.wants_body:
            try:
                # Whoever reads may come to its end at each piece.
                while self.cycle is cycle and (event := parser.next_event()) is not None:
                    if event is Event.END:
                        self.timer.disarm(Phase.BODY)
                        cycle.body_ended()
                    else:
                        cycle.body_received(event)  # type: ignore[arg-type]
            except RemoteProtocolError as error:
                cycle.body_failed(error)
            if parser.state is not _COMPLETE:
                return
        # Again and again: whoever reads the body resumes without asking.
        if parser.buffered > HIGH_WATER_BYTES:
            self.pause()

    def ask_for_body(self) -> None:
        """Let a client send its body that waits to be asked."""
        self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.writer.flush()

    def switch(self, receive: Callable[[bytes], object]) -> bytes:
        """Give C{receive} what arrives from now on, which is no HTTP; gives what has arrived."""

        def feed(data: bytes) -> None:
            self._received += len(data)
            receive(data)

        self.protocol.set_receiver(feed)
        return self.input.switch()

    # Responses

    def lease_connection(self) -> ConnectionLease:
        """How a blocking handler gets the connection."""
        if self.lease is None:
            self.lease = make_lease(self)
        return self.lease

    # After a request

    def request_finished(
        self, response: Response, outcome: Outcome, began: float, breaks: bool = False
    ) -> None:
        """The handler has come to its end: await the next request, or end the connection."""
        seconds = self._seconds
        now = seconds()
        self.settings.account(self.protocol.record, response, outcome, now - began)
        self.cycle = None
        if breaks:
            self.writer.flush()
            self.abort_transport()
        if response.close or self._state is _CLOSING:
            self.shut_down()
        elif self.input.state is not _COMPLETE:
            self._state = ChannelState.DISCARDING
            self.timer.arm(Phase.BODY, self.deadlines.header)
            self._discard()
        else:
            self._await_next(now)

    def read_next(self) -> None:
        """A request that was not answered at once is now: go on with what has come meanwhile."""
        if self._state is _READING and not self.input.is_empty():
            self._read()
        if not self.parts:
            self.protocol.finish()

    def _discard(self) -> None:
        self.input.skip_body()
        if self.input.state is _COMPLETE:
            self.timer.disarm(Phase.BODY)
            self._await_next(self._seconds())
        elif self.input.can_skip_body():
            self.resume()
        else:
            self.shut_down()

    def _await_next(self, now: float) -> None:
        if self.is_paused and self.input.buffered <= LOW_WATER_BYTES:
            self.resume()
        self._has_more = self.input.next_request()
        # An idle connection keeps nothing of what it has served.
        request: Any = self.request
        request.cycle = request.response = request.wfile = None
        if self.writer.queued_bytes > HIGH_WATER_BYTES:
            # A client that asks on and on without reading is not answered on and on.
            self._state = ChannelState.FLUSHING
            Task(self.writer.emptied(), self._flushed).start()
            return
        self._state = _READING
        self._idle_since = now
        self.timer.arm(_PHASE_IDLE, self.deadlines.idle, now)
        if self.is_draining and not self._has_more:
            self._end_when_quiet()

    def _flushed(self, result: Any, error: BaseException | None) -> None:
        if error is None and self._state is ChannelState.FLUSHING:
            self.start()

    def refuse(
        self, error: RemoteProtocolError, head: RequestHead | None = None, began: float = 0.0
    ) -> None:
        """Answer what is no request, or (C{head}) not a good one, and end the connection."""
        self.cycle = None
        self.timer.disarm(Phase.HEADER)
        began = self._seconds() if head is None else began
        response = make_refusal(error, head, self.writer, self.settings)
        self.factory.log_over_limit(self.client_address, error.limit)
        self.account(response, Outcome.REFUSED, began)
        self.shut_down()

    def account(self, response: Response, outcome: Outcome, began: float) -> None:
        """Count a request that the connection ends with, and tell of it."""
        self.settings.account(self.protocol.record, response, outcome, self._seconds() - began)

    # The end

    def is_closing(self) -> bool:
        """Whether there will be no further request."""
        return self._state is _CLOSING

    def shut_down(self) -> None:
        """There will be no further request."""
        if self._state is not _CLOSING:
            self._state = _CLOSING
            self.timer.disarm_all_but(_LAST_PHASES)
            try:
                self.factory.shutdown_request(self.request)
            except Exception:  # an override's; the connection ends even so
                _log.failure("shutdown_request raised")
                if self.parts & Pending.CONNECTION:
                    self.abort()

    def give_up_transport(self) -> None:
        """Let go of the transport, and of its cycle with us: the descriptor is another's now."""
        self.forget_hangups()
        self.transport.socket.detach()
        self._below = self.transport = self.protocol.transport = None
        self.record_traffic()
        self.parts &= ~Pending.CONNECTION
