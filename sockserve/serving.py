"""
Serving: one stream request while it is being served, in one of three ways.

This room owns what each way does when data, an end of file, a deadline or the end of
the service comes: L{CoroutineServing} on the reactor, L{LentServing} and
L{PumpedServing} on a thread or in a child.  It must not know how a connection came
about.  Everything runs on the reactor thread but what says otherwise.
"""

from __future__ import annotations

import os
import socket
from enum import Enum, Flag, auto
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import alsoProvides, implementer

from sockserve.deadlines import DeadlineTimer
from sockserve.interfaces import DeadlineExpired, IConcurrency, IJob, Outcome, Phase
from sockserve.lending import Pump, SocketIdentity, is_lendable, lend, transfer_counts
from sockserve.lifecycle import serve, serve_coroutine
from sockserve.readers import StreamReader
from sockserve.stats import RequestRecord
from sockserve.streams import StreamConnection
from sockserve.tasks import Task
from sockserve.writers import StreamWriter

__all__ = ["Connection", "CoroutineServing", "LentServing", "PumpedServing", "Serving"]

#: How long bytes a handler did not read are read and thrown away after its answer, so
#: that the kernel does not answer them with a reset which overtakes the answer.  2:
#: Apache's C{SECONDS_TO_LINGER} between reads; nginx's C{lingering_timeout} is 5.
LINGER_SECONDS = 2.0

#: A blocking handler's connection on which nothing came for so long is, as far as can be
#: told, between two messages when the service stops.
QUIET_SECONDS = 1.0


_log = Logger()


class _Part(Flag):
    """What a request in service consists of; it is over when no part is left."""

    NONE = 0
    CONNECTION = auto()
    HANDLER = auto()


class Connection(Protocol):
    """What a request in service needs of its connection."""

    factory: Any
    transport: Any
    timer: DeadlineTimer
    record: RequestRecord
    client_address: Any
    settled: bool

    def handled(self, seconds: float, outcome: Outcome) -> None:
        """The handler has come to its end."""

    def settle(self) -> None:
        """Nothing is left of the request."""

    def is_gone(self) -> bool:
        """Whether the client, or a deadline, has ended the connection."""


class Serving:
    """
    The ways' common part.

    @ivar request: what the handler sees as C{self.request}.
    @ivar parts: what is not over yet.
    """

    request: Any

    def __init__(self, protocol: Connection) -> None:
        self.protocol = protocol
        self.factory = protocol.factory
        self.timer = protocol.timer
        self.deadlines = protocol.factory.deadlines
        self.transport: Any = protocol.transport
        self.parts = _Part.CONNECTION
        self._began: float | None = None

    # What the protocol calls

    def process(self) -> None:
        """Start serving: C{process_request}, unless that is overridden."""
        raise NotImplementedError

    def read_ended(self) -> None:
        """The client has ended its side."""
        raise NotImplementedError

    def lost(self, reason: Failure) -> None:
        """The transport is gone."""
        self._over(_Part.CONNECTION)

    def passed(self, phase: Phase) -> bool:
        """Whether a deadline the timer says has passed really has."""
        return True

    def broken(self) -> bool:
        """Whether writing has shown that the client is gone.  Any thread."""
        return False

    def expire(self, phase: Phase) -> None:
        """A deadline has passed: bring the request to an end."""
        raise NotImplementedError

    def drain(self) -> None:
        """The service stops: end at the next pause between messages."""
        raise NotImplementedError

    def abort(self) -> None:
        """End the request now, whatever is under way."""
        raise NotImplementedError

    def measure(self) -> None:
        """The handler is done with the request, which is about to be ended.  Any thread."""

    def closing(self) -> None:
        """The server is about to close the request.  Any thread."""

    def abandon(self) -> None:
        """
        A deadline passed some time ago and the handler still runs: no longer wait for
        it.
        """
        self.abort()
        if _Part.HANDLER in self.parts:
            self.factory.statistics.abandoned += 1
            self.protocol.settle()

    # Inside

    def _handler_began(self) -> None:
        self.parts |= _Part.HANDLER
        self._began = self.timer.seconds()
        self.timer.arm(Phase.HANDLE, self.deadlines.handle)

    def _handler_ended(self, outcome: Outcome) -> None:
        now = self.timer.seconds()
        self.timer.disarm(Phase.HANDLE)
        self.protocol.handled(now - (now if self._began is None else self._began), outcome)
        if self.protocol.settled:
            self.factory.statistics.abandoned -= 1

    def _over(self, part: _Part) -> None:
        self.parts &= ~part
        if not self.parts:
            self.protocol.settle()


class _Output(Enum):
    """Where a coroutine's connection stands with its end."""

    OPEN = "open"
    #: No more is written, but not all has left.
    ENDING = "ending"
    #: All has left; what the client still sends is thrown away.
    LINGERING = "lingering"
    CLOSING = "closing"


class CoroutineServing(Serving):
    """A coroutine on the reactor, reading and writing the transport."""

    def __init__(self, protocol: Connection, addresses: tuple[Any, Any]) -> None:
        super().__init__(protocol)
        transport = self.transport
        self._reader = StreamReader(transport, self.deadlines, self.timer)
        self._writer = StreamWriter(transport, is_lendable(transport), self.deadlines, self.timer)
        self._output = _Output.OPEN
        self._task: Task | None = None
        self._tls: Deferred[None] | None = None
        self.feed = self._reader.feed
        self.request = StreamConnection(
            transport, self._reader, self._writer, addresses, self._close, self._start_tls
        )

    @override
    def process(self) -> None:
        self._handler_began()
        self._task = Task(
            serve_coroutine(self.factory, self.request, self.protocol.client_address),
            self._ended,
            self._writer,
        )
        self._task.start()

    @override
    def read_ended(self) -> None:
        self._reader.feed_eof()
        if self._output is _Output.LINGERING:
            self._let_go()

    @override
    def lost(self, reason: Failure) -> None:
        self.protocol.record.received = self._reader.received
        self.protocol.record.sent = self._writer.sent
        # The handler goes on at the first of these, and may end: by then there must be
        # nothing left to close.
        self.parts &= ~_Part.CONNECTION
        self._writer.fail(BrokenPipeError("the connection is gone"))
        if reason.check(ConnectionDone):
            self._reader.feed_eof()
        else:
            self._reader.fail(ConnectionResetError(reason.getErrorMessage()))
        if self._tls is not None:
            tls, self._tls = self._tls, None
            tls.errback(ConnectionResetError(f"TLS handshake: {reason.getErrorMessage()}"))
        super().lost(reason)

    @override
    def passed(self, phase: Phase) -> bool:
        if phase is Phase.WRITE and self._output is _Output.LINGERING:
            self._let_go()
            return False
        # The reader only ever arms this one.
        return phase is not Phase.IDLE or self._reader.between_messages()

    @override
    def broken(self) -> bool:
        return self._writer.broken

    @override
    def expire(self, phase: Phase) -> None:
        error = DeadlineExpired(phase)
        if phase in (Phase.HANDLE, Phase.LIFETIME, Phase.DRAIN) and self._task is not None:
            self._task.cancel(error)
        self._reader.fail(error)
        if phase in (Phase.WRITE, Phase.HANDSHAKE, Phase.DRAIN) or self._task is None:
            self._writer.fail(error)
            if self._tls is not None:
                tls, self._tls = self._tls, None
                tls.errback(error)
            self.abort()

    @override
    def drain(self) -> None:
        self._reader.end_between_messages()

    @override
    def abort(self) -> None:
        self.transport.abortConnection()

    @override
    def abandon(self) -> None:
        super().abandon()
        task, self._task = self._task, None
        if task is not None:
            task.abandon()

    def handshake_completed(self) -> None:
        """The TLS handshake that L{_start_tls} began is done."""
        self.timer.disarm(Phase.HANDSHAKE)
        if self._tls is not None:
            tls, self._tls = self._tls, None
            tls.callback(None)

    def _ended(self, result: Any, error: BaseException | None) -> None:
        self._task = None
        if error is not None:
            _log.failure("serving a request raised past its server's handle_error", Failure(error))
        self._handler_ended(result if error is None else Outcome.ERROR)
        self._over(_Part.HANDLER)

    async def _start_tls(self, context: Any) -> None:
        self._writer.flush()
        await self._writer.emptied()
        if self._reader.unread() or ISSLTransport.providedBy(self.transport):
            raise RuntimeError(
                "start_tls: this connection is TLS already, or bytes of the client's are unread"
            )
        tls: Deferred[None] = Deferred()
        self._tls = tls
        self.timer.arm(Phase.HANDSHAKE, self.deadlines.handshake)
        self._writer.detach()
        self.transport.startTLS(context)
        # One behind a PROXY header does not notice by itself.
        alsoProvides(self.transport, ISSLTransport)
        self._writer.wrapped()
        await tls

    def _close(self) -> None:
        if self._output is not _Output.OPEN or _Part.CONNECTION not in self.parts:
            return
        self._output = _Output.ENDING
        self.timer.arm(Phase.WRITE, self.deadlines.write)
        lingers = self._reader.discard() and is_lendable(self.transport)
        self._writer.finish(self._linger if lingers else self._let_go)

    def _linger(self) -> None:
        if self._reader.at_eof():
            self._let_go()
        else:
            self._output = _Output.LINGERING
            self.timer.arm(Phase.WRITE, LINGER_SECONDS)

    def _let_go(self) -> None:
        # Not before all is written: TLS would forget what it has gathered.
        self._output = _Output.CLOSING
        self.timer.arm(Phase.WRITE, self.deadlines.write)
        self.transport.loseConnection()


@implementer(IJob)
class _BlockingServing(Serving):
    """A blocking handler on a thread or in a child: the part both sockets share."""

    def __init__(self, protocol: Connection) -> None:
        super().__init__(protocol)
        concurrency = self.factory.concurrency
        assert concurrency is not None
        self._concurrency: IConcurrency = concurrency
        self._process = os.getpid()

    def process(self) -> None:
        self._queued_at = self.timer.seconds()
        self._concurrency.run(self)

    def started(self) -> None:
        self._handler_began()
        self.protocol.record.phases["queue"] = self.timer.seconds() - self._queued_at

    def serve(self) -> Outcome:
        """Runs on the worker thread or in the child."""
        if os.getpid() != self._process:
            # Copies of what waits for a child of its own: they would keep those
            # connections from ending before this child does.
            for waiting in self.factory._servings:
                if waiting is not self.request:
                    waiting.close()
        return serve(self.factory, self.request, self.protocol.client_address)

    def forked(self) -> None:
        self.factory.close_request(self.request)

    def ended(self, outcome: Outcome) -> None:
        self._handler_ended(outcome)
        self._over(_Part.HANDLER)

    def failed(self, error: OSError) -> None:
        self.parts &= ~_Part.HANDLER
        try:
            raise error
        except OSError:
            self.factory.handle_error(self.request, self.protocol.client_address)
        self.factory.shutdown_request(self.request)

    def expire(self, phase: Phase) -> None:
        if _Part.HANDLER in self.parts:
            if not self._concurrency.kill(self):
                self.interrupt()
        else:
            self.abort()

    def abort(self) -> None:
        if _Part.HANDLER in self.parts:
            if not self._concurrency.kill(self):
                self.interrupt()
        elif self._concurrency.withdraw(self):
            self.factory.shutdown_request(self.request)

    def interrupt(self) -> None:
        """Wake the handler wherever it is blocked on its socket, with an end of file."""
        raise NotImplementedError


class LentServing(_BlockingServing):
    """A blocking handler with the connection's own socket."""

    request: socket.socket

    def __init__(self, protocol: Connection) -> None:
        super().__init__(protocol)
        self.request = lend(self.transport)
        self._identity = SocketIdentity(self.request)
        # The transport is not heard of again: let go of it, and of its cycle with us.
        self.transport = protocol.transport = None
        # Until the kernel was asked; a child does not tell.
        protocol.record.received = protocol.record.sent = None
        self.timer.arm(Phase.IDLE, self.deadlines.idle)
        self.timer.arm(Phase.WRITE, self.deadlines.write)

    @override
    def ended(self, outcome: Outcome) -> None:
        self.parts &= ~_Part.CONNECTION
        super().ended(outcome)

    @override
    def measure(self) -> None:
        counts = transfer_counts(self.request)
        if counts is not None:
            self.protocol.record.received = counts.received
            self.protocol.record.sent = counts.sent

    @override
    def closing(self) -> None:
        if _Part.HANDLER not in self.parts:
            self.factory.reactor.callFromThread(self._over, _Part.CONNECTION)

    def passed(self, phase: Phase) -> bool:
        """
        The reactor does not see a lent connection's bytes; the kernel does.  Where it
        does not tell, C{idle} and C{write} do not apply.
        """
        if phase is Phase.IDLE:
            limit = self.deadlines.idle
        elif phase is Phase.WRITE:
            limit = self.deadlines.write
        else:
            return True
        counts = transfer_counts(self.request)
        if counts is None or limit is None:
            return False
        if phase is Phase.IDLE:
            lasted = min(counts.since_sent, counts.since_received)
        else:
            lasted = counts.since_sent if counts.unsent else 0.0
        if lasted < limit:
            self.timer.arm(phase, limit - lasted)
            return False
        return True

    @override
    def drain(self) -> None:
        counts = transfer_counts(self.request)
        if counts is not None and counts.since_received >= QUIET_SECONDS:
            self._identity.shutdown(socket.SHUT_RD)

    @override
    def interrupt(self) -> None:
        self._identity.shutdown(socket.SHUT_RDWR)


class PumpedServing(_BlockingServing):
    """A blocking handler with one end of a socketpair."""

    request: socket.socket

    def __init__(self, protocol: Connection, addresses: tuple[Any, Any]) -> None:
        """
        @raise OSError: there is no descriptor to be had.
        """
        super().__init__(protocol)
        self._pump = Pump(
            self.factory.reactor, self.transport, addresses, self.deadlines, self.timer
        )
        self.request = self._pump.request
        self.feed = self._pump.feed

    @override
    def ended(self, outcome: Outcome) -> None:
        super().ended(outcome)
        self._pump.served()

    @override
    def read_ended(self) -> None:
        self._pump.feed_eof()

    @override
    def lost(self, reason: Failure) -> None:
        self.protocol.record.received = self._pump.received
        self.protocol.record.sent = self._pump.sent
        self._pump.transport_lost()
        super().lost(reason)

    @override
    def drain(self) -> None:
        if self._pump.quiet() >= QUIET_SECONDS:
            self._pump.feed_eof()

    @override
    def abort(self) -> None:
        super().abort()
        self._abort_connection()

    @override
    def expire(self, phase: Phase) -> None:
        super().expire(phase)
        if phase in (Phase.WRITE, Phase.DRAIN):  # nothing more is waited for
            self._abort_connection()

    def _abort_connection(self) -> None:
        if _Part.CONNECTION in self.parts:  # Twisted's TLS cannot stand it afterwards
            self.transport.abortConnection()

    @override
    def interrupt(self) -> None:
        self._pump.interrupt()
