"""
The channel of a coroutine handler: one stream connection that the reactor reads and writes.

This room owns what a coroutine on the reactor does when data, an end of file, a deadline or
the end of the service comes.  It must not know how a connection came about. (reactor thread)
"""

from __future__ import annotations

import functools
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import alsoProvides

from sockserve.core.addresses import Addresses
from sockserve.core.beginnings import Serve, served_on
from sockserve.core.lifecycle import serve_coroutine
from sockserve.core.logs import Topic, log_raised, logger
from sockserve.core.tasks import Task
from sockserve.core.tls import handshake_fault
from sockserve.interfaces import (
    DeadlineExpired,
    HandshakeFailed,
    IStreamServer,
    Outcome,
    Phase,
)
from sockserve.streams.channel import ChannelOwner, MakeChannel, Pending
from sockserve.streams.connection import StreamConnection
from sockserve.streams.outbox import Outbox
from sockserve.streams.reader import StreamReader
from sockserve.streams.transport_channel import TransportChannel

__all__ = ["CoroutineChannel"]

_log = logger(Topic.HANDLERS)


class CoroutineChannel(TransportChannel):
    """The channel of a coroutine on the reactor, which reads and writes the transport."""

    make_reader: ClassVar[type[StreamReader]] = StreamReader
    make_request: ClassVar[type[StreamConnection]] = StreamConnection

    def __init__(
        self,
        protocol: ChannelOwner,
        addresses: Addresses,
        serve: Serve = serve_coroutine,
        outbox: Outbox | None = None,
    ) -> None:
        """
        @param addresses: (peer, own) of the connection, as a socket gives them.
        @param serve: what serves the connection.
        @param outbox: sends what handlers write, of all connections together; by default one of its
            own.
        """
        super().__init__(protocol)
        self._serve = serve
        self.writer.outbox = Outbox(self.factory.reactor) if outbox is None else outbox
        transport = self.transport
        self._reader = self.make_reader(self, self.deadlines, self.timer)
        #: While the handler runs.
        self._task: Task | None = None
        #: Fires when the TLS handshake is through that the handler waits for.
        self._tls: Deferred[None] | None = None
        protocol.set_receiver(self._reader.feed)
        self.request = self.make_request(
            transport,
            self._reader,
            self.writer,
            addresses,
            self._close,
            self._start_tls,
            self.departure,
        )

    @classmethod
    @override
    def maker(cls, server: IStreamServer) -> MakeChannel:
        serve = served_on(server.reactor, serve_coroutine)
        return functools.partial(cls, serve=serve, outbox=Outbox(server.reactor))

    @override
    def start(self) -> None:
        self._handler_began()
        self._task = Task(
            self._serve(self.factory, self.request, self.protocol.client_address),
            self._ended,
            self.writer,
        )
        self._task.start()

    @override
    def eof_received(self) -> None:
        self._reader.feed_eof()
        super().eof_received()

    @override
    def traffic(self) -> tuple[int | None, int | None]:
        return self._reader.received, self.writer.sent

    @override
    def connection_lost(self, reason: Failure) -> None:
        super().connection_lost(reason)
        if isinstance(reason.value, ConnectionDone):
            self._reader.feed_eof()
        else:
            self._reader.fail(ConnectionResetError(reason.getErrorMessage()))
        if self._tls is not None:
            tls, self._tls = self._tls, None
            assert reason.value is not None
            fault = handshake_fault(reason.value)
            if self.protocol.record.outcome == "ok":
                self.factory.opening_failed(self.protocol.record, "handshake", fault)
            tls.errback(HandshakeFailed(fault))
        self.client_lost(reason)
        self._part_ended(Pending.CONNECTION)

    @override
    def answerer(self) -> CoroutineChannel:
        return self

    def running_task(self) -> Task | None:
        """The drive of the handler; None if it has finished."""
        return self._task

    def reads_on(self) -> bool:
        """Whether the handler waits for input, or has some to read that came before."""
        return self._reader.waiting() or self._reader.unread()

    def input_taken(self) -> int:
        """How many bytes of what has come the handler has taken."""
        return self._reader.taken

    def has_connection(self) -> bool:
        """Whether the handler has the connection itself: no, the reactor has."""
        return False

    @override
    def deadline_applies(self, phase: Phase) -> bool:
        return super().deadline_applies(phase) and self._reader.deadline_applies(phase)

    @override
    def deadline_passed(self, phase: Phase) -> None:
        error = DeadlineExpired(phase)
        # The handler may come to its end within these calls, in good order.
        task = self._task
        if self.departure.deadline_expired(phase) and task is not None:
            task.cancel(error)
        self._reader.fail(error)
        if phase in (Phase.WRITE, Phase.HANDSHAKE, Phase.DRAIN) or task is None:
            self.writer.discard(error)
            if self._tls is not None:
                tls, self._tls = self._tls, None
                tls.errback(error)
            self.abort()

    @override
    def drain(self) -> None:
        self._reader.end_between_messages()

    @override
    def discard_input(self) -> bool:
        return self._reader.discard()

    @override
    def input_ended(self) -> bool:
        return self._reader.at_eof()

    @override
    def abandon(self) -> None:
        self.abort()
        if self.departure.finishes_regardless():
            return
        task, self._task = self._task, None
        if task is not None:
            # Unlike a thread, a coroutine can be ended.
            task.abandon()
            told = self.departure.was_told()
            self._handler_finished(Outcome.LOST if told else Outcome.ERROR)
            self.protocol.finish()

    @override
    def handshake_completed(self) -> None:
        self.timer.disarm(Phase.HANDSHAKE)
        if self._tls is not None:
            tls, self._tls = self._tls, None
            tls.callback(None)

    def _ended(self, result: Outcome | None, error: BaseException | None) -> None:
        self._task = None
        if error is not None:
            log_raised(_log, "serving a request raised past its server's handle_error", error)
        outcome = Outcome.ERROR if result is None else result
        if outcome is Outcome.OK and self.departure.has_cancelled():
            outcome = Outcome.LOST
        self._handler_finished(outcome)
        self._part_ended(Pending.HANDLER)

    async def _start_tls(self, context: object) -> None:
        await self.writer.emptied()
        if self._reader.unread() or ISSLTransport.providedBy(self.transport):
            raise RuntimeError(
                "start_tls: this connection is TLS already, or bytes of the client's are unread"
            )
        tls: Deferred[None] = Deferred()
        self._tls = tls
        self.timer.arm(Phase.HANDSHAKE, self.deadlines.handshake)
        self.writer.detach()
        # Imported where there is TLS.
        from sockserve.streams.tls import with_usual_ciphers

        self.transport.startTLS(with_usual_ciphers(context))
        # One behind a PROXY header does not notice by itself.
        alsoProvides(self.transport, ISSLTransport)
        self.is_lendable = False
        self.writer.wrapped()
        await tls
