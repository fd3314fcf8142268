"""
The states of an HTTP channel.

This room owns their names, and how an operator is told of them.  It must not know what leads from
one to another (L{sockserve.http.channel}).
"""

from __future__ import annotations

from enum import Enum

from sockserve.core.in_progress import UnderWay
from sockserve.http.cycle import RequestCycle
from sockserve.http.h1.framing import State

__all__ = ["ChannelState", "under_way"]


class ChannelState(Enum):
    """The stand of an HTTP connection with its requests."""

    #: The server has not begun to process it.
    OFFERED = "offered"
    #: It waits for a request, or for the rest of its head.
    READING = "reading"
    #: A request is being answered.
    ANSWERING = "answering"
    #: It is answered; what its handler left unread is thrown away.
    DISCARDING = "discarding"
    #: It is answered; the client has yet to take much of it.
    FLUSHING = "flushing"
    #: There will be no further request.
    CLOSING = "closing"


def under_way(state: ChannelState, input_state: State, cycle: RequestCycle | None) -> UnderWay:
    """
    The stand of a channel's request, or of its connection between two.

    @param input_state: how far the request that is read has come.
    @param cycle: the request that is answered.
    """
    if cycle is not None:
        return UnderWay(cycle.stage(), cycle.response.request.request_line, cycle.began)
    if state in (ChannelState.OFFERED, ChannelState.READING):
        return UnderWay("header" if input_state is State.HEAD else "idle")
    return UnderWay("write")
