"""
Serving: one stream request while it is being served.

This room owns what every way of serving has in common (L{Serving}), and the coroutine on
the reactor (L{CoroutineServing}): what it does when data, an end of file, a deadline or
the end of the service comes.  It must not know how a connection came about.  Everything
runs on the reactor thread but what says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Protocol

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import alsoProvides

from sockserve.core.deadlines import DeadlineTimer
from sockserve.core.lifecycle import serve_coroutine
from sockserve.core.statistics import RequestRecord
from sockserve.core.tasks import Task
from sockserve.interfaces import DeadlineExpired, Outcome, Phase
from sockserve.sockets.lending import is_lendable
from sockserve.streams.connection import StreamConnection
from sockserve.streams.reader import StreamReader
from sockserve.streams.writer import StreamWriter

__all__ = [
    "Connection",
    "CoroutineServing",
    "Part",
    "ReactorServing",
    "Serving",
    "transport_descriptors",
]

#: How long bytes a handler did not read are read and thrown away after its answer, so
#: that the kernel does not answer them with a reset which overtakes the answer.  2:
#: Apache's C{SECONDS_TO_LINGER} between reads; nginx's C{lingering_timeout} is 5.
LINGER_SECONDS = 2.0

_log = Logger()


def transport_descriptors(transport: Any) -> Iterator[int]:
    """The descriptors of a transport and those below it."""
    while transport is not None:
        if isinstance(transport, FileDescriptor):
            yield transport.fileno()
        transport = getattr(transport, "transport", None)


class Part:
    """
    What a request in service consists of, as bits; it is over when no part is left.

    (Plain numbers: an operation on members of C{enum.Flag} takes a microsecond.)
    """

    CONNECTION = 1
    HANDLER = 2


class Connection(Protocol):
    """What a request in service needs of its connection."""

    factory: Any
    transport: Any
    timer: DeadlineTimer
    record: RequestRecord
    client_address: Any
    settled: bool

    def deliver_to(self, receive: Callable[[bytes], object]) -> None:
        """What arrives from now on goes to C{receive}."""

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
        self.parts = Part.CONNECTION
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
        self._over(Part.CONNECTION)

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

    def owned_descriptors(self) -> Iterator[int]:
        """What is open for the connection in this process; -1 for what is not."""
        return transport_descriptors(self.transport)

    def abandon(self) -> None:
        """
        A deadline passed some time ago and the handler still runs: no longer wait for
        it.
        """
        self.abort()
        if self.parts & Part.HANDLER:
            self.factory.statistics.abandoned += 1
            self.protocol.settle()

    # Inside

    def _handler_began(self) -> None:
        self.parts |= Part.HANDLER
        self._began = self.timer.seconds()
        self.timer.arm(Phase.HANDLE, self.deadlines.handle)

    def _handler_ended(self, outcome: Outcome) -> None:
        now = self.timer.seconds()
        self.timer.disarm(Phase.HANDLE)
        self.protocol.handled(now - (now if self._began is None else self._began), outcome)
        if self.protocol.settled:
            self.factory.statistics.abandoned -= 1

    def _over(self, part: int) -> None:
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


class ReactorServing(Serving):
    """A connection that the reactor itself reads and writes: the part that ends it."""

    def __init__(self, protocol: Connection) -> None:
        super().__init__(protocol)
        transport = self.transport
        self._writer = StreamWriter(transport, is_lendable(transport), self.deadlines, self.timer)
        self._output = _Output.OPEN

    @override
    def lost(self, reason: Failure) -> None:
        self.protocol.record.sent = self._writer.sent
        # A handler may go on at what follows, and end: by then there must be nothing left
        # to close.
        self.parts &= ~Part.CONNECTION
        self._writer.fail(BrokenPipeError("the connection is gone"))

    @override
    def passed(self, phase: Phase) -> bool:
        if phase is Phase.WRITE and self._output is _Output.LINGERING:
            self._let_go()
            return False
        return True

    @override
    def read_ended(self) -> None:
        if self._output is _Output.LINGERING:
            self._let_go()

    @override
    def broken(self) -> bool:
        return self._writer.broken

    @override
    def abort(self) -> None:
        self.transport.abortConnection()

    def discard_input(self) -> bool:
        """
        Nobody reads any more: forget what has come and what comes.

        @return: whether the client may have sent, or be sending, what nobody has read.
        """
        raise NotImplementedError

    def input_ended(self) -> bool:
        """Whether the client has ended its side."""
        raise NotImplementedError

    def _close(self) -> None:
        if self._output is not _Output.OPEN or not self.parts & Part.CONNECTION:
            return
        self._output = _Output.ENDING
        self.timer.arm(Phase.WRITE, self.deadlines.write)
        lingers = self.discard_input() and is_lendable(self.transport)
        self._writer.finish(self._linger if lingers else self._let_go)

    def _linger(self) -> None:
        if self.input_ended():
            self._let_go()
        else:
            self._output = _Output.LINGERING
            self.timer.arm(Phase.WRITE, LINGER_SECONDS)

    def _let_go(self) -> None:
        # Not before all is written: TLS would forget what it has gathered.
        self._output = _Output.CLOSING
        self.timer.arm(Phase.WRITE, self.deadlines.write)
        self.transport.loseConnection()


class CoroutineServing(ReactorServing):
    """A coroutine on the reactor, reading and writing the transport."""

    def __init__(self, protocol: Connection, addresses: tuple[Any, Any]) -> None:
        super().__init__(protocol)
        transport = self.transport
        self._reader = StreamReader(transport, self.deadlines, self.timer)
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
        super().read_ended()

    @override
    def lost(self, reason: Failure) -> None:
        self.protocol.record.received = self._reader.received
        super().lost(reason)
        if reason.check(ConnectionDone):
            self._reader.feed_eof()
        else:
            self._reader.fail(ConnectionResetError(reason.getErrorMessage()))
        if self._tls is not None:
            tls, self._tls = self._tls, None
            tls.errback(ConnectionResetError(f"TLS handshake: {reason.getErrorMessage()}"))
        self._over(Part.CONNECTION)

    @override
    def passed(self, phase: Phase) -> bool:
        return super().passed(phase) and self._reader.passed(phase)

    @override
    def expire(self, phase: Phase) -> None:
        error = DeadlineExpired(phase)
        # The handler may come to its end within these calls, in good order.
        running = self._task is not None
        if phase in (Phase.HANDLE, Phase.LIFETIME, Phase.DRAIN) and self._task is not None:
            self._task.cancel(error)
        self._reader.fail(error)
        if phase in (Phase.WRITE, Phase.HANDSHAKE, Phase.DRAIN) or not running:
            self._writer.fail(error)
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
        task, self._task = self._task, None
        if task is not None:
            # Unlike a thread, a coroutine can be ended.
            task.abandon()
            self._handler_ended(Outcome.ERROR)
            self.protocol.settle()

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
        self._over(Part.HANDLER)

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
