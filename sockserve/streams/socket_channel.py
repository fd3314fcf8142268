"""
The channel of a blocking handler, however that holds its connection: the common part.

This room owns the way of such a connection to a thread or a child, and from there to its end.  It
must not know how a connection came about. (reactor thread, but where a method says otherwise)
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

from typing_extensions import override
from zope.interface import implementer

from sockserve.core.handler_kinds import speaks_http
from sockserve.core.lifecycle import serve
from sockserve.executors.fork import ForkExecutor
from sockserve.interfaces import IClientJob, IExecutor, Outcome, Phase
from sockserve.sockets.hangups import Hangup, hangup_of
from sockserve.streams.channel import Channel, ChannelOwner, Pending

__all__ = ["SocketChannel"]


@implementer(IClientJob)
class SocketChannel(Channel):
    """The channel of a blocking handler, on a thread or in a child: the part both share."""

    def __init__(self, protocol: ChannelOwner) -> None:
        super().__init__(protocol)
        concurrency = self.factory.concurrency
        assert concurrency is not None
        self._concurrency: IExecutor = concurrency
        #: The process that has the connection: the server's, which a child is not.
        self._process = os.getpid()
        #: Whether the service stops.
        self._draining = False
        # While it waits for a place
        self._is_queued = False
        #: Its descriptor, while the kernel tells of a reset by L{HangupWatch}.
        self._watched = -1

    @override
    def start(self) -> None:
        self._queued_at = self.timer.seconds()
        self._is_queued = True
        self._concurrency.run(self)
        client = self.client_socket() if self._is_queued else None
        if client is not None:
            watch = self.factory.hangups.watch
            self._watched = watch(self.factory.reactor, client, self._hung_up)

    def client_socket(self) -> socket.socket | None:
        """The client's connection, below all wrapping; None where it is no socket."""
        raise NotImplementedError

    def has_left(self) -> bool:
        """
        Whether the client has gone, and no answer can reach it: it has broken the connection, or
        has closed it, which TCP does not tell from the end of its side.
        """
        client = self.client_socket()
        if client is None:
            return False
        hangup = hangup_of(client)
        if hangup is Hangup.HUNG_UP and self.serves_regardless():
            return self.has_said_nothing()
        return hangup.is_final

    def serves_regardless(self) -> bool:
        """
        Whether what came before the client closed the connection is served all the same: it may
        be all that the client wanted to say.  A request of HTTP wants an answer.
        """
        wants_answer = speaks_http(self.factory.RequestHandlerClass)
        return not (wants_answer and self.factory.handler_cancellation)

    def has_said_nothing(self) -> bool:
        """Whether nothing has come for a handler to read."""
        raise NotImplementedError

    def _hung_up(self) -> None:
        """
        The kernel has told something of a connection that waits for a place, or of another.
        """
        if self._is_queued and self.has_left():
            self.stop_waiting()

    def stop_waiting(self) -> None:
        """The client has gone: do not wait for a place any longer."""
        if self._is_queued and self._concurrency.withdraw(self):
            self.client_left()

    def client_left(self) -> None:
        """The client has gone, and the handler will not run. (reactor thread)"""
        self._leave_queue()
        self.protocol.record.outcome = Outcome.LOST
        self.factory.shutdown_request(self.request)

    def _leave_queue(self) -> None:
        """The connection does not wait for a place, or not any more."""
        self._is_queued = False
        if self._watched >= 0:
            self.factory.hangups.forget(self._watched)
            self._watched = -1

    @override
    def request_closing(self) -> None:
        if self._is_queued:  # so this is the reactor's thread
            self._leave_queue()

    def started(self) -> None:
        """There is a place for the handler. (reactor thread)"""
        self._leave_queue()
        if isinstance(self._concurrency, ForkExecutor):
            self.factory.drain_notice.reach_children()
        self._handler_began()
        self.protocol.record.phases["queue"] = self.timer.seconds() - self._queued_at

    def runs_long(self) -> None:
        """Expected: a handler keeps its thread as long as its connection."""

    def serve(self) -> Outcome:
        """Serve the connection, on a thread or in a child. (worker thread)"""
        if os.getpid() != self._process:
            self.serve_in_child()
        address = self.protocol.client_address
        with self.factory.drain_notice.for_this_thread():
            return serve(self.factory, self.request, address, self.record_traffic)

    def record_traffic(self) -> None:
        """Note what only the connection itself can tell of the traffic: the handler has
        finished. (any thread)"""

    @property
    def descriptors(self) -> tuple[int, int]:
        """The descriptors of the parent's that a child needs."""
        return self.request.fileno(), self.factory.drain_notice.descriptor()

    def serve_in_child(self) -> None:
        """Adapt to being a child's own copy. (worker thread)"""

    def forked(self) -> None:
        """A child has a copy of the connection; the parent's goes. (reactor thread)"""
        self._process = 0  # the child's; what it moves is not known here
        self.factory.close_request(self.request)

    def ended(self, outcome: Outcome) -> None:
        """The handler has finished. (reactor thread)"""
        self._handler_finished(outcome)
        self._part_ended(Pending.HANDLER)

    def failed(self, error: OSError) -> None:
        """There is no thread or process to be had. (reactor thread)"""
        self._handler_finished(Outcome.ERROR)
        self.parts &= ~Pending.HANDLER
        try:
            raise error
        except OSError:
            self.factory.handle_error(self.request, self.protocol.client_address)
        self.factory.shutdown_request(self.request)

    @override
    def deadline_passed(self, phase: Phase) -> None:
        if self.parts & Pending.HANDLER:
            if not self._concurrency.kill(self):
                self.interrupt()
        else:
            self.abort()

    @override
    def abort(self) -> None:
        if self.parts & Pending.HANDLER:
            if not self._concurrency.kill(self):
                self.interrupt()
        elif self._concurrency.withdraw(self):
            self._leave_queue()
            self.factory.shutdown_request(self.request)
        else:  # served by means of an override's own
            self.interrupt()

    @override
    def drain(self) -> None:
        self._draining = True
        self._ends_when_quiet()

    def _ends_when_quiet(self) -> bool:
        """
        While the service stops: end the handler's input as soon as its client has been
        quiet for a while, as far as that can be told.

        @return: whether that is waited for, in the place of C{idle}.
        """
        limit = self.deadlines.quiet
        if not self._draining or limit is None:
            return False
        quiet = self.quiet_seconds()
        if quiet is None:
            pass
        elif quiet >= limit:
            self.end_input()
        else:
            self.timer.arm(Phase.IDLE, limit - quiet)
        return True

    def quiet_seconds(self) -> float | None:
        """Seconds since the client last sent a byte; None where that cannot be told."""
        raise NotImplementedError

    def end_input(self) -> None:
        """End the handler's input; its output still leaves."""
        raise NotImplementedError

    @override
    def owned_descriptors(self) -> Iterator[int]:
        yield from super().owned_descriptors()
        yield self.request.fileno()

    def interrupt(self) -> None:
        """Wake the handler wherever it is blocked on its socket, with an end of file."""
        raise NotImplementedError
