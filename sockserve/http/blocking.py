"""
The cycle of a blocking handler: one HTTP request that the reactor gathers, that is answered on a
thread or in a child, and that leaves the connection to the reactor again.

This room owns what the reactor does for such a request, and which deadline means what while a
handler has it.  It must not know what the handler sees (L{sockserve.http.buffered_request}), how
the connection changes hands (L{sockserve.http.lease}), or what comes after the request.
(reactor thread)
"""

from __future__ import annotations

from collections.abc import Callable
from errno import ECONNRESET
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from sockserve.core.logs import Topic, logger
from sockserve.core.tasks import Task
from sockserve.http.buffered_request import BufferedRequest
from sockserve.http.cycle import CycleOwner
from sockserve.http.h1.framing import RemoteProtocolError
from sockserve.http.h1.head import RequestHead
from sockserve.http.handler_socket import OutputMode
from sockserve.http.refusals import body_too_large, status_for
from sockserve.http.request_stage import RequestStage, stage_word
from sockserve.interfaces import DeadlineExpired, IClientJob, Outcome, Phase
from sockserve.streams.channel import Pending

__all__ = ["BlockingCycle"]

# Looked up once (see L{sockserve.core.lifecycle}).
_BUFFERED = OutputMode.BUFFERED
_STREAMED = OutputMode.STREAMED
_DIRECT = OutputMode.DIRECT
_CLOSED = OutputMode.CLOSED
_GATHERED = RequestStage.GATHERED
_QUEUED = RequestStage.QUEUED
_RUNNING = RequestStage.RUNNING
_ABANDONED = RequestStage.ABANDONED
_OVER = RequestStage.OVER
_HANDLER = Pending.HANDLER
_NOT_HANDLER = ~_HANDLER

_log = logger(Topic.HTTP)

_NO_ROOM = "the server has no room for the request"


@implementer(IClientJob)
class BlockingCycle(BufferedRequest):
    """One request that a blocking handler answers, as the reactor sees it."""

    __slots__ = ("_has_lost_output", "_lease", "_queued_at", "_stage")

    def __init__(
        self, channel: CycleOwner, head: RequestHead, began: float, *, is_stock: bool = False
    ) -> None:
        # super() takes twice that before CPython 3.12
        BufferedRequest.__init__(self, channel, head, began, is_stock=is_stock)
        self._lease = channel.lease_connection()
        self._queued_at = 0.0
        self._stage = _GATHERED
        #: Whether some of its response is lost, by this side's fault.
        self._has_lost_output = False

    # Gathering the request

    def stage(self) -> str:
        """What is under way."""
        return stage_word(self._stage)

    @property
    def wants_body(self) -> bool:
        """Whether to be given the body: all of it, before the handler is."""
        return self._stage is _GATHERED

    def start(self) -> None:
        """The head has come: gather the body, if there is one."""
        channel = self._channel
        if channel.is_draining:
            self.drain()
        if channel.settings.forks:
            self.response.close = True
        if self.head.length == 0:
            self._request_complete()
        else:
            self._gather_body()

    def _gather_body(self) -> None:
        channel, head = self._channel, self.head
        limit = channel.settings.limits.max_body_bytes
        is_too_large = limit is not None and (head.length or 0) > limit
        if head.expects_continue and not is_too_large:
            self.response.is_continued = True
            channel.ask_for_body()
        channel.resume()  # what is left of it may have been held back
        channel.timer.arm(Phase.BODY, self.body_seconds(self.began))
        if is_too_large:
            self.body_failed(body_too_large(limit))
        else:
            channel.read_body()

    def body_ended(self) -> None:
        """The body is complete."""
        self.close_body()
        self._request_complete()

    def body_failed(self, error: Exception) -> None:
        """The rest of the body will not come: answer that, if nobody else does."""
        if isinstance(error, RemoteProtocolError) and self._stage is _GATHERED:
            self._refuse(error)

    def _refuse(self, error: RemoteProtocolError) -> None:
        self.close()
        self._lease.close()
        self._channel.refuse(error, self.head, self.began)

    def _request_complete(self) -> None:
        writer = self._channel.writer
        if not writer.is_empty():  # the answers before this one
            Task(writer.emptied(), self._emptied).start()
        else:
            self._queue()

    def _emptied(self, result: Any, error: BaseException | None) -> None:
        if error is None and self._channel.cycle is self:
            self._queue()

    def _queue(self) -> None:
        """Let a handler have the request, as soon as there is a place."""
        channel = self._channel
        try:
            request = self._lease.open()
        except OSError as error:
            channel.factory.log_shortage(channel.client_address, error)
            self._refuse(RemoteProtocolError(503, _NO_ROOM))
            return
        self.lend(request)
        self._stage = _QUEUED
        if self.switches and not self.ends_with_connection:
            channel.pause()  # what follows is the handler's, however it reads it
        if channel.settings.forks:
            self._grant()
        self._queued_at = channel.timer.seconds()
        channel.factory.concurrency.run(self)

    # The job

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The handler's socket, which a child needs."""
        return (self.request.fileno(),)

    def started(self) -> None:
        """There is a place for it."""
        channel = self._channel
        channel.parts |= _HANDLER
        self._stage = _RUNNING
        waited = channel.timer.seconds() - self._queued_at
        channel.factory.statistics.observe_duration("queue", waited)
        if channel.deadlines.handle is not None:
            channel.timer.arm(Phase.HANDLE, channel.deadlines.handle)

    def has_left(self) -> bool:
        """Whether the client has gone while the request waited for a place."""
        return self._channel.has_left()

    def client_left(self) -> None:
        """The client has gone, and no handler will have the request."""
        self._stage = RequestStage.DROPPED
        if self.mode is _DIRECT:
            self._lease.take_back()
        self._channel.client_left()

    def runs_long(self) -> None:
        """The handler takes its time: let the client have what there is."""
        if self.mode is _BUFFERED:
            self.output_waits()

    def forked(self) -> None:
        """The parent keeps the connection, which the child only answers on."""

    def ended(self, outcome: Outcome) -> None:
        """The handler has finished: the connection is the reactor's again."""
        channel = self._channel
        if self._instead is not None:
            self._instead.phases = self.response.phases
            self._instead.is_mistaken = self.response.is_mistaken
            self.response = self._instead
        elif self._is_stock and not self.rfile.wants_next:
            self.response.close = True
        self.close()
        response = self.response
        if channel.deadlines.handle is not None:
            channel.timer.disarm(Phase.HANDLE)
        direct = self.mode is _DIRECT
        output = self.take_output(_CLOSED)
        stage, self._stage = self._stage, _OVER
        if stage is _ABANDONED:
            channel.factory.statistics.abandoned -= 1
            channel.account(response, outcome, self.began)
            channel.cycle = None
            self._lease.close()
            return
        channel.parts &= _NOT_HANDLER  # before the next request has one
        if direct:
            self._lease.sent += self.sent_directly
            response.close |= not self._lease.take_back() or self.switches
        else:
            self._give_to_writer(output)
        if response.is_mistaken or self._has_lost_output:
            outcome = Outcome.ERROR
        self._lease.close()
        if response.switches or not channel.writer.is_open:
            response.close = True
        channel.request_finished(response, outcome, self.began)
        channel.read_next()

    def failed(self, error: OSError) -> None:
        """There is no thread or process to be had."""
        channel = self._channel
        self.close()
        self._stage = _OVER
        channel.parts &= ~Pending.HANDLER
        channel.timer.disarm(Phase.HANDLE)
        if self.mode is _DIRECT:
            self._lease.take_back()
        self._lease.close()
        try:
            raise error
        except OSError:
            channel.factory.handle_error(channel.request, channel.client_address)
        channel.refuse(RemoteProtocolError(503, _NO_ROOM), self.head, self.began)

    # What the handler sends

    @override
    def output_waits(self) -> None:
        Task(self._send_streamed(), self._sent).start()

    async def _send_streamed(self) -> None:
        """Send what the handler sends, as long as there is something, as the client takes it."""
        while self._give_to_writer(self.stream_output()):
            await self._channel.writer.drain()

    def _give_to_writer(self, pieces: list[bytes | memoryview]) -> bool:
        """Send C{pieces}, which nobody else keeps; gives whether there are any."""
        if not pieces:
            return False
        writer = self._channel.writer
        writer.corked = True
        for piece in pieces:
            writer.write_at_turn_end(piece)
        writer.corked = False
        writer.outbox.send(writer)
        return True

    async def _flush(self) -> None:
        """Send what the handler has sent, and wait until the client has taken it."""
        self._give_to_writer(self.stream_output())
        await self._channel.writer.emptied()

    def _sent(self, result: Any, error: BaseException | None) -> None:
        """All is sent, or the connection has broken, which is told by itself; or we have failed."""
        if error is not None and not self._channel.writer.is_broken():
            _log.failure("sending a response raised", Failure(error))
            self._output_failed()

    @override
    def output_lost(self, error: OSError) -> None:
        _log.error("a response cannot be sent: {error}", error=error)
        self._output_failed()

    def _output_failed(self) -> None:
        """Some of the response is lost: cut it off."""
        self._has_lost_output = True
        self._channel.writer.discard(BrokenPipeError("some of the response is lost"))
        self._channel.abort_transport()

    def _drop_output(self) -> None:
        """Let nothing more leave of what the handler has sent, and sends."""
        queue = self._streamed
        if queue is not None:
            queue.discard()
        self.take_output(_CLOSED)

    @override
    def hand_over(self, granted: Callable[[], object]) -> None:
        channel = self._channel
        if channel.cycle is not self or self.mode not in (_BUFFERED, _STREAMED):
            granted()
            return

        def emptied(result: Any, error: BaseException | None) -> None:
            try:
                self._sent(result, error)
                if (
                    error is None
                    and channel.cycle is self
                    and self.mode is _STREAMED
                    and not channel.writer.is_broken()
                ):
                    self._grant()
            finally:  # whatever happens, a thread waits for this
                granted()

        Task(self._flush(), emptied).start()

    def _grant(self) -> None:
        """The handler has the connection from now on."""
        channel, lease = self._channel, self._lease
        lease.grant(self.switches)
        if self.switches:  # nobody can tell what is said from here on
            self.rest = channel.switch(lease.feed)
            if channel.input.eof:
                lease.feed_eof()
        self.take_output(_DIRECT)

    def eof_received(self) -> None:
        """The client has ended its side: the handler hears of it by its socket."""
        self._lease.feed_eof()

    # Ends

    def running_task(self) -> None:
        """No drive: the handler runs on a thread or in a child."""

    def reads_on(self) -> bool:
        """Whether the request is served though its client has closed the connection: not one
        that waits for a place."""
        return self._stage not in (RequestStage.QUEUED, RequestStage.DROPPED)

    def input_taken(self) -> int:
        """No bytes, as far as is known: the handler reads what was gathered before."""
        return 0

    def has_connection(self) -> bool:
        """Whether the handler has the connection itself."""
        return self.mode is _DIRECT

    def deadline_applies(self, phase: Phase) -> bool | None:
        """Whether a deadline has really passed; None if that is the connection's to say."""
        if phase is Phase.BODY:
            left = self.body_seconds(self._channel.timer.seconds())
            if left is not None and left > 0:
                self._channel.timer.arm(phase, left)
                return False
        elif phase is Phase.IDLE:
            return self.response.switches and self._lease.deadline_applies(phase)
        elif phase is Phase.WRITE:
            return self._lease.deadline_applies(phase) if self.mode is _DIRECT else None
        return True

    def deadline_passed(self, phase: Phase) -> None:
        """A deadline has passed: bring the request to an end."""
        channel, executor = self._channel, self._channel.factory.concurrency
        hard = phase is Phase.WRITE or phase is Phase.DRAIN
        if self._stage is _RUNNING:
            if not executor.kill(self):
                self._interrupt(None if hard else 504, reset=hard)
        elif self._stage is _GATHERED or executor.withdraw(self):
            if self.mode is _DIRECT:
                self._lease.take_back()
            error = DeadlineExpired(phase)
            if hard:
                self._withdrawn()
                channel.writer.discard(error)
                channel.abort_transport()
            else:
                self._refuse(RemoteProtocolError(status_for(error), str(error)))

    def _interrupt(self, status: int | None, reset: bool = False) -> None:
        """
        End the connection under a handler, which goes on without it.

        @param status: what to answer if the handler has sent nothing.
        @param reset: let the kernel forget what the client has not taken.
        """
        channel = self._channel
        self.cut_off = ConnectionAbortedError("a deadline has ended the connection")
        if self.mode is _DIRECT:
            if status is not None and not self.sent:
                self._lease.send_last(self.answer_instead(status))
            self._lease.interrupt(reset)
        elif self.mode is not _CLOSED:
            begun = self.mode is _STREAMED and self.sent > 0
            self._drop_output()
            if status is None or begun:
                channel.writer.discard(BrokenPipeError("a deadline has passed"))
                channel.abort_transport()
            else:
                channel.writer.write(self.answer_instead(status))
                channel.shut_down()

    def connection_lost(self, reason: Failure) -> bool:
        """The transport is gone; true if no handler has the request, and none will."""
        if self.cut_off is None and not reason.check(ConnectionDone):
            self.cut_off = ConnectionResetError(ECONNRESET, "the client has cut it off")
        stage = self._stage
        if stage is _QUEUED and not self._channel.factory.concurrency.withdraw(self):
            return False
        if stage is _RUNNING or stage is _ABANDONED:
            if not self._lease.outlives_connection():
                self._drop_output()
            return False
        self._withdrawn()
        return True

    def _withdrawn(self) -> None:
        """The request is over, and was not answered."""
        self._stage = _OVER
        self.close()
        self._lease.close()
        self._channel.cycle = None

    def drain(self) -> None:
        """The service stops: let the response be the last, unless a request has come after it."""
        self.response.is_followed = self._channel.has_next_request

    def abort(self) -> None:
        """End the connection now, also under a handler."""
        if self._stage is _RUNNING:
            self._interrupt(None)
        else:
            self._channel.abort_transport()

    def abandon(self) -> bool:
        """The handler has not come to its end in time, and goes on without anybody waiting."""
        channel = self._channel
        if self._stage is not _RUNNING:
            return False
        self._stage = _ABANDONED
        channel.factory.statistics.abandoned += 1
        if channel.parts & Pending.CONNECTION:
            if self.mode is _DIRECT:
                self._lease.abandon()
            else:  # it may still be at its last words
                channel.abort_transport()
        return True
