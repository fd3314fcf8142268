"""
HTTP connections with blocking handlers: each request gathers on the reactor, is answered on
a thread or in a child, and leaves the connection to the reactor again.

This room owns how the connection changes hands, and which deadline means what while a
handler has it.  It must not know how a request gathers (L{sockserve.http.gathering}).
Everything runs on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.concurrency import ForkConcurrency
from sockserve.deadlines import BODY_GRACE_SECONDS
from sockserve.http.framing import RemoteProtocolError, State
from sockserve.http.gathering import Gathering, RequestSocket, is_gathered
from sockserve.http.heads import RequestHead
from sockserve.http.protocol import HTTPServing, Stage, status_for
from sockserve.interfaces import DeadlineExpired, Outcome, Phase
from sockserve.lending import SocketIdentity, adopt, is_lendable, transfer_counts
from sockserve.pumping import Pump
from sockserve.serving import Connection, Part
from sockserve.tasks import Task

__all__ = ["BlockingHTTPServing"]


class BlockingHTTPServing(HTTPServing):
    """One HTTP connection whose handler may block."""

    def __init__(self, protocol: Connection, addresses: tuple[Any, Any]) -> None:
        self._stock = is_gathered(protocol.factory.RequestHandlerClass)
        self._identity: SocketIdentity | None = None
        if is_lendable(protocol.transport):
            self._identity = SocketIdentity(adopt(protocol.transport, RequestSocket))
        super().__init__(protocol, addresses, lenient=self._stock)
        self._gathering: Gathering | None = None
        #: The socket a handler has; None while the reactor has the connection.
        self._lent: RequestSocket | None = None
        self._pump: Pump | None = None
        self._body_began = 0.0
        self._body_base = 0
        self._arrived_at = 0.0

    # Gathering a request

    @override
    def _answer(self, head: RequestHead) -> None:
        if not self._stock and not self._handler.blocks(head.method):
            super()._answer(head)
            return
        self._stage = Stage.ANSWERING
        self._answer_began = self._body_began = self._arrived_at = self.timer.seconds()
        self._body_base = self._received - self._requests.buffered
        gathering = Gathering(self, self._requests, head, self._stock, self.factory.max_body_bytes)
        gathering.response.close |= self._draining or isinstance(
            self.factory.concurrency, ForkConcurrency
        )
        self._gathering = gathering
        if head.expects_continue and (head.length or 0) <= self.factory.max_body_bytes:
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if head.length != 0:
            self.timer.arm(Phase.BODY, self._body_seconds())
        gathering.read_on()

    @override
    def _read_on(self) -> None:
        if self._gathering is None or self._stage is not Stage.ANSWERING:
            super()._read_on()
            return
        if self._requests.state in (State.COUNTED_BODY, State.CHUNKED_BODY):
            self._arrived_at = self.timer.seconds()
            try:
                self._gathering.read_on()
            except RemoteProtocolError as error:
                self._refuse(error)
        else:
            self._pause_when_full()

    def _body_seconds(self) -> float | None:
        """How long from now the body may go on without another byte."""
        deadlines = self.deadlines
        now = self.timer.seconds()
        elapsed = now - self._body_began
        limits = []
        if deadlines.body is not None:
            limits.append(deadlines.body - elapsed)
        if deadlines.body_rate is not None:
            earned = (self._received - self._body_base) / deadlines.body_rate
            limits.append(max(BODY_GRACE_SECONDS, earned) - elapsed)
        if deadlines.idle is not None:
            limits.append(deadlines.idle - (now - self._arrived_at))
        return max(0.0, min(limits)) if limits else None

    def gathered(self) -> None:
        """The request is complete."""
        self.timer.disarm(Phase.BODY)
        self._writer.flush()
        if self._writer.is_empty():
            self._lend()
        else:  # the answers before this one
            Task(self._writer.emptied(), self._emptied).start()

    def _emptied(self, result: Any, error: BaseException | None) -> None:
        if error is None and self._gathering is not None:
            self._lend()

    def _lend(self) -> None:
        """Let a handler have the connection."""
        gathering = self._gathering
        assert gathering is not None
        if self._identity is not None:
            self.transport.stopReading()
            self._lent = lent = self.transport.socket
            identity = self._identity
        else:
            self._writer.detach()
            try:
                self._pump = Pump(
                    self.factory.reactor,
                    self.transport,
                    self._addresses,
                    self.deadlines,
                    self.timer,
                    RequestSocket,
                )
            except OSError as error:
                self._writer.wrapped()
                self.factory.complain(self.protocol.client_address, error)
                self._refuse(RemoteProtocolError(503, "the server has no room for the request"))
                return
            self._lent = lent = cast(RequestSocket, self._pump.request)
            identity = SocketIdentity(lent)
        rest = self._requests.switch() if gathering.switches else None
        if rest is not None and self._pump is not None:
            self._resume()
            self.protocol.deliver_to(self._feed_pump)
        gathering.lend(lent, identity, rest)
        self._queued_at = self.timer.seconds()
        self.factory.concurrency.run(gathering)

    def _feed_pump(self, data: bytes) -> None:
        self._received += len(data)
        if self._pump is not None:
            self._pump.feed(data)

    # While a handler has it

    def handler_began(self) -> None:
        """A thread was found."""
        self.parts |= Part.HANDLER
        self.factory.statistics.lasted("queue", self.timer.seconds() - self._queued_at)
        self.timer.arm(Phase.HANDLE, self.deadlines.handle)
        if self._identity is not None:
            self.timer.arm(Phase.WRITE, self.deadlines.write)

    def handler_ended(self, outcome: Outcome) -> None:
        """The handler is done."""
        gathering, lent = self._gathering, self._lent
        assert gathering is not None
        assert lent is not None
        self._gathering = self._lent = None
        self.timer.disarm(Phase.HANDLE)
        self.protocol.record.sent = (self.protocol.record.sent or 0) + gathering.sent
        if self.protocol.settled:  # it was given up
            self.factory.statistics.abandoned -= 1
            self._account(gathering.response, outcome)
            lent.close()
            return
        self._take_back(lent)
        now = self._account(gathering.response, outcome)
        last = gathering.response.close or gathering.switches or self._stage is Stage.CLOSING
        if last or (self._draining and self._requests.is_empty()):
            self._end()
        else:
            self._next(now)
            if self._stage is Stage.READING:
                self._read()
        self._over(Part.HANDLER)

    def handler_failed(self, error: OSError) -> None:
        """There is no thread or process to be had."""
        gathering, lent = self._gathering, self._lent
        assert gathering is not None
        assert lent is not None
        self._gathering = self._lent = None
        self.parts &= ~Part.HANDLER
        self.timer.disarm(Phase.HANDLE)
        self._take_back(lent)
        try:
            raise error
        except OSError:
            self.factory.handle_error(self.request, self.protocol.client_address)
        self._refuse(RemoteProtocolError(503, "the server has no room for the request"))

    def _take_back(self, lent: RequestSocket) -> None:
        """The reactor has the connection again, if the handler has left one."""
        if self._pump is not None:
            pump, self._pump = self._pump, None
            pump.release()
            if Part.CONNECTION in self.parts:
                self._writer.wrapped()
            return
        self.timer.disarm(Phase.WRITE)
        if lent.fileno() < 0:  # the handler has closed or detached it
            self._writer.fail(BrokenPipeError("the handler has closed the connection"))
            self.parts &= ~Part.CONNECTION
            self.protocol.record.received = self._received
            # The transport is not heard of again: let go of it, and of its cycle with us.
            self.transport = self.protocol.transport = None
            self._stage = Stage.READING
            self._end()
        else:
            lent.setblocking(False)
            self.transport.startReading()

    # Ends

    @override
    def passed(self, phase: Phase) -> bool:
        if self._gathering is None:
            return super().passed(phase)
        if self._lent is None:
            if phase is Phase.BODY:
                left = self._body_seconds()
                if left is not None and left > 0:
                    self.timer.arm(phase, left)
                    return False
                return True
            return phase is not Phase.IDLE
        if phase is Phase.WRITE and self._identity is not None:
            return self._write_passed()
        return phase is not Phase.IDLE or self._pump is not None

    def _write_passed(self) -> bool:
        """The reactor does not see a lent connection's bytes; the kernel does."""
        assert self._lent is not None
        counts, limit = transfer_counts(self._lent), self.deadlines.write
        if counts is None or limit is None:
            return False
        left = limit - counts.since_sent if counts.unsent else limit
        if left > 0:
            self.timer.arm(Phase.WRITE, left)
        return bool(left <= 0)

    @override
    def expire(self, phase: Phase) -> None:
        gathering = self._gathering
        if gathering is None:
            super().expire(phase)
        elif self._lent is None:
            self._gathering = None
            gathering.forget()
            if phase in (Phase.BODY, Phase.LIFETIME):
                error = DeadlineExpired(phase)
                self._refuse(RemoteProtocolError(status_for(error), str(error)))
            else:
                self._writer.fail(DeadlineExpired(phase))
                self.abort()
        elif Part.HANDLER in self.parts:
            if not self.factory.concurrency.kill(gathering):
                hard = phase in (Phase.WRITE, Phase.DRAIN)
                gathering.interrupt(None if hard else 504, reset=hard)
        else:
            self._withdraw(gathering, phase)

    def _withdraw(self, gathering: Gathering, phase: Phase) -> None:
        """A deadline passes while the request waits for a thread."""
        if self.factory.concurrency.withdraw(gathering):
            lent, self._gathering, self._lent = self._lent, None, None
            gathering.withdrawn()
            assert lent is not None
            self._take_back(lent)
            error = DeadlineExpired(phase)
            self._refuse(RemoteProtocolError(503 if phase is Phase.DRAIN else 504, str(error)))

    @override
    def drain(self) -> None:
        if self._gathering is not None:
            self._draining = True
            self._gathering.response.close = True
        else:
            super().drain()

    @override
    def lost(self, reason: Failure) -> None:
        if self._pump is not None:
            self._pump.transport_lost()
            self._stage = Stage.CLOSING
            self.factory.shutdown_request(self.request)
        elif self._gathering is not None:
            self._gathering.forget()
            self._gathering = None
            self._stage = Stage.READING
        super().lost(reason)

    @override
    def abort(self) -> None:
        if self._lent is not None:
            if self._gathering is not None:
                self._gathering.interrupt()
            if self._identity is not None:
                return
        if self.transport is not None:
            super().abort()

    @override
    def abandon(self) -> None:
        if self._lent is None:
            super().abandon()
            return
        self.abort()
        if Part.HANDLER in self.parts:
            self.factory.statistics.abandoned += 1
            self.protocol.settle()

    @override
    def owned_descriptors(self) -> Iterator[int]:
        yield from super().owned_descriptors()
        if self._pump is not None:
            yield self._pump.fileno()
            yield self._pump.request.fileno()
