"""
Transports: one end of a stream connection, as far as any room needs it.

This room owns the name of all that is asked of Twisted's transports, be they TCP's, UNIX
sockets', TLS' or wrapped behind a PROXY header.  It must not know what they carry.
"""

from __future__ import annotations

import socket
from typing import TypeAlias

from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from zope.interface import Attribute

__all__ = ["IStreamTransport"]

_Socket: TypeAlias = socket.socket  # whose name is an attribute's below


class IStreamTransport(ITransport, IConsumer, IPushProducer):
    """
    The transport of a stream connection.

    It is for type checkers: Twisted's transports have all of this, and declare only the parts.
    """

    disconnecting: bool = Attribute("Whether it was told to end.")

    def loseWriteConnection() -> None:
        """End the output when all that was written has left.  TLS cannot."""

    def abortConnection() -> None:
        """End the connection now."""

    def setTcpNoDelay(enabled: bool) -> None:
        """Send small pieces at once, or gather them.  TCP only."""

    def startTLS(context: object) -> None:
        """Speak TLS from here on.  TCP only."""

    # Of a transport that is nothing but a socket (L{sockserve.sockets.lending.is_lendable})

    socket: _Socket = Attribute("The socket.")
    bufferSize: int = Attribute("How many bytes are read at once, at most, by Twisted's own.")

    def getHandle() -> _Socket:
        """The socket."""

    def startReading() -> None:
        """Have the reactor read it."""

    def stopReading() -> None:
        """Have the reactor read it no more."""

    def startWriting() -> None:
        """Have the reactor ask for more output as soon as there is room."""

    def stopWriting() -> None:
        """Have the reactor write it no more."""
