"""
The gate: a listening socket that accepts no more connections than are admitted.

This room owns when a port accepts.  It must not know which clients are admitted
(L{sockserve.core.admission}), protocols or handlers.

Over C{max_connections} no client is accepted and dropped: accepting stops, later clients
wait in the kernel's queue, and accepting goes on when a connection ends; those that have
left by then take no place.  The same
happens for L{ACCEPT_RETRY_SECONDS} when the process runs out of descriptors.
(reactor thread)
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from errno import EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM, errorcode
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from sockserve.core.admission import Admission
from sockserve.core.clock import clock_of
from sockserve.core.logs import Topic, logger
from sockserve.sockets.hangups import has_left

__all__ = ["ACCEPT_RETRY_SECONDS", "CALM_SECONDS", "OUT_OF_RESOURCES", "Gate"]

_log = logger(Topic.LISTENERS)

#: The errors of C{accept} that say that the process or the system has no room for another
#: connection.
OUT_OF_RESOURCES = (EMFILE, ENFILE, ENOBUFS, ENOMEM)

#: The pause before accepting again after one of these.  0.1: ranch's C{ranch_acceptor}.  No
#: setting: clients that wait do not notice it, and with ten attempts in a second the processor is
#: free for what may make room.
ACCEPT_RETRY_SECONDS = 0.1

#: A lack of descriptors that comes back sooner than this is still the same one, and is not
#: logged again.  1: ten attempts, none of which may fail.  No setting: it decides of a line in
#: the log alone.
CALM_SECONDS = 10 * ACCEPT_RETRY_SECONDS

#: How many turns at most the kernel's queue has when the port is about to close; one takes one
#: client or more.  4096: Linux' C{somaxconn}.
QUEUE_LENGTH = 4096


class Gate:
    """
    A guard between one of Twisted's listening ports and its socket: it decides whether the
    next connection may be taken from the kernel.

    It replaces the port's socket by one whose C{accept} asks the gate.  (Twisted itself
    accepts and drops connections when there are no descriptors.)
    """

    def __init__(
        self,
        port: tcp.Port,
        admission: Admission,
        clock: IReactorTime,
        refused: Callable[[str], object],
    ) -> None:
        """
        @param port: the port of a stream endpoint, TCP or UNIX.
        @param admission: the caps; it reopens the gate when a connection ends.
        @param clock: for retrying.
        @param refused: called with C{"descriptors"} each time accepting stops for want of
            descriptors, and with C{"gone"} for each client that has left while it waited.
        """
        self._port = port
        self._admission = admission
        self._clock: IReactorTime = clock_of(clock)
        self._refused = refused
        self._retry: IDelayedCall | None = None
        #: When the shortage that has been logged was last noticed; None while there is none.
        self._shortage_at: float | None = None
        #: Whether clients have waited in the kernel's queue that may still be in it.
        self._clients_waited = False
        listening = port.socket
        gated = _GatedSocket(
            listening.family, listening.type, listening.proto, fileno=listening.detach()
        )
        gated.setblocking(False)
        gated.gate = self
        port.socket = gated
        port.fileno = gated.fileno  # type: ignore[method-assign]
        admission.gates.add(self)

    def may_accept(self) -> bool:
        """Whether one more connection may be accepted; if not, the port stops reading."""
        if self._admission.full():
            self._port.stopReading()
            self._clients_waited = True
            self._end_shortage()
            return False
        return True

    def lets_in(self, client: socket.socket) -> bool:
        """Whether a client that was accepted is served; not one that has waited, and has left."""
        if self._clients_waited and has_left(client):
            self._refused("gone")
            return False
        return True

    def queue_emptied(self) -> None:
        """No client waits."""
        self._clients_waited = False
        self._end_shortage()

    def _end_shortage(self) -> None:
        """
        No client waits for a descriptor: if that has been so for L{CALM_SECONDS}, the next
        shortage is a new one.
        """
        noticed_at = self._shortage_at
        if noticed_at is not None and self._clock.seconds() - noticed_at >= CALM_SECONDS:
            self._shortage_at = None

    def descriptors_exhausted(self, error: OSError) -> None:
        """There was no descriptor to accept with: stop accepting, and try again soon."""
        self._port.stopReading()
        self._clients_waited = True
        self._refused("descriptors")
        if self._shortage_at is None:
            _log.error(
                "cannot accept connections ({error}), which wait; trying again every"
                " {seconds} s; raise the limit of open files (ulimit -n) or lower"
                " max-connections",
                error=errorcode.get(error.errno or 0, str(error)),
                seconds=ACCEPT_RETRY_SECONDS,
            )
        self._shortage_at = self._clock.seconds()
        if self._retry is None:
            self._retry = self._clock.callLater(ACCEPT_RETRY_SECONDS, self._try_again)

    def reopen(self) -> None:
        """Accept again, unless the gate waits for descriptors or the port has closed."""
        is_listening = self._port.connected and not self._port.disconnecting
        if is_listening and self._retry is None:
            self._port.startReading()

    def suspend(self) -> None:
        """Take no connections until L{resume}; they wait in the kernel's queue."""
        self.close()
        self._clients_waited = True
        self._port.stopReading()

    def resume(self) -> None:
        """Take connections again."""
        self._admission.gates.add(self)
        self._try_again()

    def accept_waiting(self) -> None:
        """
        Accept the clients that wait in the kernel's queue, as far as they are admitted: when the
        port closes, the kernel resets them.
        """
        for _ in range(QUEUE_LENGTH):  # others may come as fast
            if self._admission.full() or self._retry is not None or not self._is_awaited():
                break
            self._port.doRead()

    def _is_awaited(self) -> bool:
        """Whether a client waits."""
        poll = select.poll()
        poll.register(self._port.socket, select.POLLIN)
        return any(events & select.POLLIN for _, events in poll.poll(0))

    def close(self) -> None:
        """Let go of the port, which stops listening."""
        self._admission.gates.discard(self)
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _try_again(self) -> None:
        self._retry = None
        if not self._admission.full():
            self.reopen()


class _GatedSocket(socket.socket):
    """A listening socket that asks its gate before it accepts."""

    __slots__ = ("gate",)

    gate: Gate

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.gate.may_accept():
            raise BlockingIOError(EAGAIN, "no more connections are admitted just now")
        try:
            accepted, address = super().accept()
            while not self.gate.lets_in(accepted):
                accepted.close()
                accepted, address = super().accept()
            return accepted, address
        except OSError as error:
            if error.errno in OUT_OF_RESOURCES:
                self.gate.descriptors_exhausted(error)
                raise BlockingIOError(EAGAIN, "no descriptor to accept with") from error
            if isinstance(error, BlockingIOError):
                self.gate.queue_emptied()
            raise
