"""
The TLS handshake of an accepted socket, on the reactor, so that a client that says nothing holds
up nobody.

This room owns one handshake of a socket of the C{ssl} module (L{TLSHandshake}).  It must not
know what becomes of the socket. (reactor thread)
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from sockserve.core.clock import clock_of
from sockserve.core.reactors import IReactor

__all__ = ["TLSHandshake"]


@implementer(IReadWriteDescriptor)
class TLSHandshake:
    """
    One handshake, from when it is made. (reactor thread)

    @param sock: the accepted socket, with its handshake to be done.
    @param ended: called once with whether it is done; if not, the socket is closed.
    @param seconds: how long it may take in all; None for ever.
    """

    def __init__(
        self,
        reactor: IReactor,
        sock: ssl.SSLSocket,
        ended: Callable[[bool], object],
        seconds: float | None,
    ) -> None:
        self._reactor = reactor
        self._socket = sock
        self._ended = ended
        #: The program's own, restored when the handshake is done.
        self._timeout = sock.gettimeout()
        self._overdue: IDelayedCall | None = None
        sock.setblocking(False)
        if seconds is not None:
            self._overdue = clock_of(reactor).callLater(seconds, self._expired)
        self._continue()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """The name in Twisted's log."""
        return "TLS handshake"

    def doRead(self) -> None:
        """The client has sent something."""
        self._continue()

    def doWrite(self) -> None:
        """There is room for what is to be sent to it."""
        self._continue()

    def connectionLost(self, reason: Failure) -> None:
        """The connection is lost."""
        self._end(False)

    def _continue(self) -> None:
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
        self._overdue = None
        self._end(False)

    def _end(self, done: bool) -> None:
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        if done:
            self._socket.settimeout(self._timeout)
        else:
            self._socket.close()
        self._ended(done)
