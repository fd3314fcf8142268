"""
The parting of two sides over TLS: this one has said that it ends, and waits for the other.

This room owns how long the client's C{close_notify} is waited for, which many never send.  It must
not know what was said on the connection. (reactor thread)
"""

from __future__ import annotations

from enum import Enum

from twisted.internet import tcp
from twisted.internet.interfaces import ISSLTransport

from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.deadlines import Deadlines
from sockserve.core.transports import IStreamTransport
from sockserve.interfaces import Phase
from sockserve.sockets.hangups import connection_below

__all__ = ["Parting", "lose_connection"]


class _Stage(Enum):
    """The stage of a parting."""

    #: This side has said that it ends, and the client is to answer.
    AWAITED = "awaited"
    #: The connection is closed without an answer, once all has left.
    CLOSING = "closing"


class Parting:
    """
    The end of a connection over TLS, from when this side has said that it ends.

    @param below: the connection below TLS.
    """

    def __init__(self, below: tcp.Connection, deadlines: Deadlines, timer: DeadlineTimer) -> None:
        self._below = below
        self._deadlines = deadlines
        self._timer = timer
        self._began_at = timer.seconds()
        self._stage = _Stage.AWAITED
        timer.arm(Phase.WRITE, deadlines.linger)

    def write_applies(self) -> bool:
        """
        Close the connection of a client that only has not answered; it was given C{linger} for
        that since all that was sent has left.

        @return: whether the client takes nothing, for as long as C{write} allows.
        """
        write = self._deadlines.write
        if self._stage is _Stage.CLOSING:
            return True
        if self._below.dataBuffer or self._below._tempDataBuffer:
            if write is not None and self._timer.seconds() - self._began_at >= write:
                return True
            self._timer.arm(Phase.WRITE, self._deadlines.linger)
            return False
        self._stage = _Stage.CLOSING
        self._timer.arm(Phase.WRITE, write)
        self._below.loseConnection()
        return False


def lose_connection(
    transport: IStreamTransport, deadlines: Deadlines, timer: DeadlineTimer
) -> Parting | None:
    """
    Close a connection after what was written.

    @return: its parting, to be asked when C{write} passes; None without TLS.
    """
    timer.arm(Phase.WRITE, deadlines.write)
    below = connection_below(transport) if ISSLTransport.providedBy(transport) else None
    parting = None
    if below is not None and deadlines.linger is not None:
        parting = Parting(below, deadlines, timer)
    transport.loseConnection()
    return parting
