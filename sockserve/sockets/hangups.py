"""
Hang-ups: clients that go while nobody reads from them.

A reactor that does not read a connection (it is paused, the client has ended its side, its handler
waits for a thread) does not hear of a reset either.  The kernel tells that of every descriptor in
an C{epoll}, and an C{epoll} is a descriptor that a reactor can read.  This room owns the one that
has a server's connections of that kind, and what the kernel says of one.  It must not know
handlers or deadlines. (reactor thread, but where a method says otherwise)
"""

from __future__ import annotations

import select
import socket
import sys
from collections.abc import Callable, Iterator
from enum import Enum

from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.reactors import IReactor
from sockserve.sockets.lending import has_unread

__all__ = ["Hangup", "HangupWatch", "connection_below", "hangup_of", "has_left", "socket_below"]


class Hangup(Enum):
    """What the kernel knows of a peer's end of a connection."""

    NONE = "none"
    #: The peer has ended its output, and may still read.
    ENDED = "ended"
    #: The connection has ended in both directions, in good order.
    HUNG_UP = "hung up"
    #: The connection was reset, or has broken.
    BROKEN = "broken"


def hangup_of(sock: socket.socket) -> Hangup:
    """What the kernel knows of the other end of C{sock}.  Never blocks, takes no bytes.
    (any thread)"""
    ended = select.POLLRDHUP if sys.platform == "linux" else 0
    try:
        poll = select.poll()
        poll.register(sock, ended)
        ready = poll.poll(0)
    except (OSError, ValueError):
        return Hangup.BROKEN
    events = ready[0][1] if ready else 0
    if events & (select.POLLERR | select.POLLNVAL):
        return Hangup.BROKEN
    if events & select.POLLHUP:
        return Hangup.HUNG_UP
    return Hangup.ENDED if events & ended else Hangup.NONE


def has_left(sock: socket.socket) -> bool:
    """
    Whether a client that waits to be served has gone: it has broken the connection, or has closed
    it and there is nothing of it to be read.  Never blocks, takes no bytes. (any thread)
    """
    hangup = hangup_of(sock)
    return hangup is Hangup.BROKEN or (hangup is Hangup.HUNG_UP and not has_unread(sock))


def connection_below(transport: object) -> tcp.Connection | None:
    """The connection that a transport is, or wraps; None if that is no socket's."""
    while transport is not None and not isinstance(transport, tcp.Connection):
        transport = getattr(transport, "transport", None)
    return transport


def socket_below(transport: object) -> socket.socket | None:
    """The socket of L{connection_below}; None if there is none, or not any more."""
    return getattr(connection_below(transport), "socket", None)


class HangupWatch:
    """
    The connections of one server that are watched while nobody reads them.

    It holds a descriptor while there are any.  (Systems without C{epoll} are not asked: there a
    hang-up is noticed when the connection is next used.)
    """

    def __init__(self) -> None:
        self._epoll: _Epoll | None = None

    def watch(
        self,
        reactor: IReactor,
        sock: socket.socket,
        hung_up: Callable[[], object],
        *,
        ended: bool = False,
    ) -> int:
        """
        Call C{hung_up}, once, when the peer hangs up or the connection breaks.  It asks by
        itself what has happened (L{hangup_of}): it may be nothing.

        @param reactor: what reads the C{epoll}; the same for all of them.
        @param ended: whether to call it also when the peer has only ended its output.
        @return: the descriptor, for L{forget}; -1 if it is not watched.
        """
        descriptor = sock.fileno()
        if sys.platform != "linux" or descriptor < 0:
            return -1
        if self._epoll is None:
            try:
                self._epoll = _Epoll(reactor)
            except OSError:  # no descriptor to be had
                return -1
        self._epoll.add(descriptor, hung_up, select.EPOLLRDHUP if ended else 0)
        return descriptor

    def forget(self, descriptor: int) -> None:
        """Watch a descriptor no longer, which may have been closed just now."""
        if self._epoll is not None and self._epoll.remove(descriptor):
            self._epoll.close()
            self._epoll = None

    def descriptors(self) -> Iterator[int]:
        """The descriptor that it holds, if it does."""
        if self._epoll is not None:
            yield self._epoll.fileno()


class _Epoll(FileDescriptor):
    """An C{epoll} that a reactor reads."""

    def __init__(self, reactor: IReactor) -> None:
        """
        @raise OSError: there is no descriptor to be had.
        """
        super().__init__(reactor)
        self._call_later = reactor.callLater
        self._poller = select.epoll()
        self._calls: dict[int, Callable[[], object]] = {}
        self.connected = 1
        self.startReading()

    @override
    def fileno(self) -> int:
        return -1 if self._poller.closed else self._poller.fileno()

    def add(self, descriptor: int, call: Callable[[], object], events: int) -> None:
        """Watch C{descriptor} for C{events}, and for the end of the connection."""
        known = descriptor in self._calls
        self._calls[descriptor] = call
        if known:
            return
        # Once: a copy in a child that was forked keeps the connection from being forgotten
        # with its descriptor, and would be told of again and again.
        events |= select.EPOLLONESHOT
        try:
            self._poller.register(descriptor, events)
        except FileExistsError:  # it was told of before
            self._poller.modify(descriptor, events)
        except (OSError, ValueError):
            pass  # there is no room: the reactor hears of the end later

    def remove(self, descriptor: int) -> bool:
        """
        Watch C{descriptor} no longer.

        @return: whether none is left.
        """
        self._calls.pop(descriptor, None)
        try:
            self._poller.unregister(descriptor)
        except (OSError, ValueError):  # closed
            pass
        return not self._calls

    @override
    def doRead(self) -> None:
        for descriptor, _ in self._poller.poll(0):
            call = self._calls.pop(descriptor, None)
            if call is not None:
                call()

    def close(self) -> None:
        """Let go of the descriptor."""
        self.stopReading()
        # After this turn: what the reactor has yet to say of it must not hit another.
        self._call_later(0, self._poller.close)

    @override
    def connectionLost(self, reason: Failure) -> None:
        """The reactor lets go of all descriptors."""
        super().connectionLost(reason)
        self._poller.close()
