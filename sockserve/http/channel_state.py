"""
The states of an HTTP channel.

This room owns their names.  It must not know what leads from one to another
(L{sockserve.http.channel}).
"""

from __future__ import annotations

from enum import Enum

__all__ = ["ChannelState"]


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
