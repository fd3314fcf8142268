"""
The TLS handshake of an accepted socket, on the reactor, so that a client that says nothing holds
up nobody; or where it is called, when there is nothing else to do meanwhile.

This room owns one handshake of a socket of the C{ssl} module (L{TLSHandshake}, L{shake_hands}), and
the answer to a client that speaks plain HTTP.  It must not know what becomes of the socket.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable
from enum import Enum

from twisted.internet.interfaces import IDelayedCall, IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from sockserve.core.clock import clock_of
from sockserve.core.deadlines import Deadlines
from sockserve.core.reactors import IReactor
from sockserve.core.tls import Opening, answer_to_plain_http, handshake_fault, opening_of
from sockserve.interfaces import DeadlineExpired, HandshakeFailed, Phase

__all__ = ["TLSHandshake", "shake_hands"]


class _Step(Enum):
    """The event that a handshake waits for next."""

    READ = "read"
    WRITE = "write"
    #: The client has been told that it speaks plain HTTP, and is to hang up.
    HANG_UP = "hang up"
    DONE = "done"


class _Steps:
    """The steps of one handshake, whoever waits in between."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._socket = sock
        #: What has come while it may be plain HTTP; None once it is not.
        self._first: bytes | None = b""
        self._is_answered = False

    def next(self) -> _Step:
        """
        Go as far as it gets without waiting.

        @raise HandshakeFailed: it gets nowhere.
        """
        try:
            if self._is_answered:
                return self._discard()
            if self._first is not None:
                self._look()
            if self._is_answered:
                return _Step.HANG_UP
            self._socket.do_handshake()
        except (ssl.SSLWantReadError, BlockingIOError):
            return _Step.READ
        except ssl.SSLWantWriteError:
            return _Step.WRITE
        except (OSError, ValueError) as error:  # the client's doing
            raise HandshakeFailed(handshake_fault(error)) from error
        return _Step.DONE

    def overdue(self) -> Exception:
        """
        Why it has come to nothing, when there is no time left for the next step.

        @return: an exception of its own for each handshake: what raises one is held by it.
        """
        if self._is_answered:
            return HandshakeFailed(Opening.PLAIN_HTTP.value)
        return DeadlineExpired(Phase.HANDSHAKE)

    def _look(self) -> None:
        """
        Look what the client speaks, before OpenSSL gets it.

        @raise BlockingIOError: that takes more of it.
        """
        # What C{ssl}'s class has in the place of these is for TLS.
        raw = socket.socket
        first = self._first or b""
        if not first and opening_of(raw.recv(self._socket, 1, socket.MSG_PEEK)) is Opening.TLS:
            self._first = None
            return
        while opening_of(first) is Opening.UNKNOWN:  # which has an end
            data = raw.recv(self._socket, 2**16)
            if not data:
                raise HandshakeFailed("closed by the client")
            first = self._first = first + data
        if opening_of(first) is not Opening.PLAIN_HTTP:
            raise HandshakeFailed("not TLS")
        self._is_answered = True
        raw.send(self._socket, answer_to_plain_http(first))
        raw.shutdown(self._socket, socket.SHUT_WR)

    def _discard(self) -> _Step:
        """Throw away a piece of what has come: a client may send as fast as that is read."""
        if socket.socket.recv(self._socket, 2**16):
            return _Step.READ
        raise self.overdue()


def shake_hands(sock: ssl.SSLSocket, deadlines: Deadlines) -> None:
    """
    Shake hands with the client of an accepted socket, or close it. (accept thread)

    @param deadlines: C{handshake} is for all of it, and after an answer to plain HTTP C{linger} is
        in its place, if it is set.
    @raise HandshakeFailed: the client did not.
    @raise DeadlineExpired: it took too long.
    """
    timeout = sock.gettimeout()
    sock.setblocking(False)
    seconds = deadlines.handshake
    until = None if seconds is None else time.monotonic() + seconds
    steps = _Steps(sock)
    try:
        while (step := steps.next()) is not _Step.DONE:
            if step is _Step.HANG_UP and deadlines.linger is not None:
                until = time.monotonic() + deadlines.linger
            poll = select.poll()
            poll.register(sock.fileno(), select.POLLOUT if step is _Step.WRITE else select.POLLIN)
            left = None if until is None else (until - time.monotonic()) * 1000
            if (left is not None and left <= 0) or not poll.poll(left):
                raise steps.overdue()
    except BaseException:
        sock.close()
        raise
    sock.settimeout(timeout)


@implementer(IReadWriteDescriptor)
class TLSHandshake:
    """
    One handshake, from when it is made. (reactor thread)

    @param sock: the accepted socket, with its handshake to be done.
    @param ended: called once, with None when it is done; if not, with why, and the socket is
        closed.
    @param deadlines: as L{shake_hands}'s.
    """

    def __init__(
        self,
        reactor: IReactor,
        sock: ssl.SSLSocket,
        ended: Callable[[Exception | None], object],
        deadlines: Deadlines,
    ) -> None:
        self._reactor = reactor
        self._socket = sock
        self._deadlines = deadlines
        self._ended = ended
        #: The program's own, restored when the handshake is done.
        self._timeout = sock.gettimeout()
        self._overdue: IDelayedCall | None = None
        self._steps = _Steps(sock)
        sock.setblocking(False)
        self._expire_in(deadlines.handshake)
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
        assert reason.value is not None
        self._end(HandshakeFailed(handshake_fault(reason.value)))

    def _continue(self) -> None:
        try:
            step = self._steps.next()
        except HandshakeFailed as fault:
            self._end(fault)
            return
        if step is _Step.DONE:
            self._end(None)
        elif step is _Step.WRITE:
            self._reactor.removeReader(self)
            self._reactor.addWriter(self)
        else:
            self._reactor.removeWriter(self)
            self._reactor.addReader(self)
            if step is _Step.HANG_UP:
                self._expire_in(self._deadlines.linger)

    def _expire_in(self, seconds: float | None) -> None:
        """Wait so long from now on; None changes nothing."""
        if seconds is not None:
            self._cancel()
            self._overdue = clock_of(self._reactor).callLater(seconds, self._expired)

    def _expired(self) -> None:
        self._overdue = None
        self._end(self._steps.overdue())

    def _cancel(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _end(self, fault: Exception | None) -> None:
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._cancel()
        if fault is None:
            self._socket.settimeout(self._timeout)
        else:
            self._socket.close()
        self._ended(fault)
