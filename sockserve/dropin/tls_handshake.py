"""
Handshakes: TLS handshakes of accepted sockets, on the reactor, so that a client that says
nothing holds up nobody.

This room owns one handshake of a socket of the C{ssl} module (L{TLSHandshake}).  It must not
know what becomes of the socket.  Everything runs on the reactor thread.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReadWriteDescriptor
from zope.interface import implementer

__all__ = ["TLSHandshake"]


@implementer(IReadWriteDescriptor)
class TLSHandshake:
    """
    One handshake.

    @param sock: what was accepted, with its handshake to be done.
    @param ended: called once with whether it is done; if not, the socket is closed.
    @param seconds: how long it may take in all; None for ever.
    """

    def __init__(
        self,
        reactor: Any,
        sock: ssl.SSLSocket,
        ended: Callable[[bool], object],
        seconds: float | None,
    ) -> None:
        self._reactor = reactor
        self._socket = sock
        self._ended = ended
        self._timeout = sock.gettimeout()
        self._late: IDelayedCall | None = None
        sock.setblocking(False)
        if seconds is not None:
            self._late = reactor.callLater(seconds, self._expired)
        self._go_on()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """For Twisted's log."""
        return "TLS handshake"

    def doRead(self) -> None:
        """The client has said something."""
        self._go_on()

    def doWrite(self) -> None:
        """There is room for what is to be said to it."""
        self._go_on()

    def connectionLost(self, reason: Any) -> None:
        """The connection broke."""
        self._end(False)

    def _go_on(self) -> None:
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            self._reactor.removeWriter(self)
            self._reactor.addReader(self)
        except ssl.SSLWantWriteError:
            self._reactor.removeReader(self)
            self._reactor.addWriter(self)
        except (OSError, ValueError):  # the client's doing
            self._end(False)
        else:
            self._end(True)

    def _expired(self) -> None:
        self._late = None
        self._end(False)

    def _end(self, done: bool) -> None:
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if done:
            self._socket.settimeout(self._timeout)
        else:
            self._socket.close()
        self._ended(done)
