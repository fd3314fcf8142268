"""
The gate: a listening socket that accepts no more connections than are admitted.

This room owns when a port accepts.  It must not know who is admitted
(L{sockserve.core.admission}), protocols or handlers.  (reactor thread)

Over C{max_connections} nobody is accepted and dropped: accepting stops, later clients
wait in the kernel's queue, and accepting goes on when a connection ends.  The same
happens for a while when the process runs out of descriptors.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from errno import EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM, errorcode
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from sockserve.core.admission import Admission
from sockserve.core.logs import Topic, logger

__all__ = ["Gate"]

_log = logger(Topic.LISTENERS)

#: How long to wait before accepting again when there was no descriptor to accept
#: with.  0.1: ranch's C{ranch_acceptor}.
ACCEPT_RETRY_SECONDS = 0.1

#: A lack of descriptors that comes back within so many seconds is still the same one.
CALM_SECONDS = 1.0

_OUT_OF_RESOURCES = (EMFILE, ENFILE, ENOBUFS, ENOMEM)


class Gate:
    """
    Stands between a listening port of Twisted's and its socket: it decides, before a
    connection is taken from the kernel, whether one may be.

    It replaces the port's socket by one whose C{accept} asks; Twisted's own answer to
    having no descriptor is to accept and drop.

    @param port: the C{IListeningPort} of a stream endpoint.
    @param clock: for retrying.
    @param refused: called with C{"descriptors"} each time accepting stops for want of
        descriptors.
    """

    def __init__(
        self,
        port: Any,
        admission: Admission,
        clock: IReactorTime,
        refused: Callable[[str], object],
    ) -> None:
        self._port = port
        self._admission = admission
        self._clock = clock
        self._refused = refused
        self._retry: IDelayedCall | None = None
        self._complained = False
        self._exhausted_at = 0.0
        listening = port.socket
        gated = _GatedSocket(
            listening.family, listening.type, listening.proto, fileno=listening.detach()
        )
        gated.setblocking(False)
        gated.gate = self
        port.socket = gated
        port.fileno = gated.fileno
        admission.gates.add(self)

    def may_accept(self) -> bool:
        """Whether to take one more; stops the port when not."""
        if self._admission.full():
            self._port.stopReading()
            self.caught_up()
            return False
        return True

    def caught_up(self) -> None:
        """Nobody waits for a descriptor: if that lasts, the next complaint is a new one."""
        if self._complained and self._clock.seconds() - self._exhausted_at >= CALM_SECONDS:
            self._complained = False

    def exhausted(self, error: OSError) -> None:
        """There was nothing to accept with: stop, and try again soon."""
        self._port.stopReading()
        self._refused("descriptors")
        self._exhausted_at = self._clock.seconds()
        if not self._complained:
            self._complained = True
            _log.error(
                "cannot accept connections ({error}), which wait; trying again every"
                " {seconds} s; raise the limit of open files (ulimit -n) or lower"
                " max-connections",
                error=errorcode.get(error.errno or 0, str(error)),
                seconds=ACCEPT_RETRY_SECONDS,
            )
        if self._retry is None:
            self._retry = self._clock.callLater(ACCEPT_RETRY_SECONDS, self._try_again)

    def reopen(self) -> None:
        """There may be room again."""
        if self._retry is None and not self._port.disconnecting and self._port.connected:
            self._port.startReading()

    def suspend(self) -> None:
        """Take no connections until L{resume}; they wait in the kernel's queue."""
        self.close()
        self._port.stopReading()

    def resume(self) -> None:
        """Take connections again."""
        self._admission.gates.add(self)
        self._try_again()

    def close(self) -> None:
        """The port stops listening."""
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
            return super().accept()
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                self.gate.exhausted(error)
                raise BlockingIOError(EAGAIN, "no descriptor to accept with") from error
            if isinstance(error, BlockingIOError):
                self.gate.caught_up()
            raise
