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

__all__ = [
    "Hangup",
    "HangupWatch",
    "connection_below",
    "hangup_of",
    "has_left",
    "peer_is_gone",
    "socket_below",
]


class Hangup(Enum):
    """What the kernel knows of a peer's end of a connection."""

    NONE = "none"
    #: The peer has ended its output, and may still read.
    ENDED = "ended"
    #: The connection has ended in both directions, in good order.
    HUNG_UP = "hung up"
    #: The connection was reset, or has broken.
    BROKEN = "broken"

    @property
    def is_final(self) -> bool:
        """
        Whether the connection is of no more use; one whose peer has only ended its own side is.
        (any thread)
        """
        return self is Hangup.HUNG_UP or self is Hangup.BROKEN


def hangup_of(sock: socket.socket) -> Hangup:
    """What the kernel knows of the other end of C{sock}.  Never blocks, takes no bytes.
    (any thread)"""
    ended = select.POLLRDHUP if sys.platform == "linux" else 0
    events = _poll(sock, ended)
    if events & (select.POLLERR | select.POLLNVAL):
        return Hangup.BROKEN
    if events & select.POLLHUP:
        return Hangup.HUNG_UP
    return Hangup.ENDED if events & ended else Hangup.NONE


def _poll(sock: socket.socket, wanted: int) -> int:
    """What the kernel tells of C{sock} now: the events C{wanted}, and errors. (any thread)"""
    try:
        poll = select.poll()
        poll.register(sock, wanted)
        ready = poll.poll(0)
    except (OSError, ValueError):
        return select.POLLNVAL
    return ready[0][1] if ready else 0


def has_left(sock: socket.socket) -> bool:
    """
    Whether a client has gone and has left nothing to be read: it has broken the connection, or has
    closed it and there is nothing of it here.  Never blocks, takes no bytes. (any thread)
    """
    hangup = hangup_of(sock)
    return hangup is Hangup.BROKEN or (hangup is Hangup.HUNG_UP and not has_unread(sock))


def peer_is_gone(request: object) -> bool:
    """
    Whether the peer has ended or broken a handler's connection, so that an error of
    that handler's is the peer's doing.  Never blocks, takes no bytes. (any thread)

    @param request: where this side may know more than the socket does, it has a method
        C{client_is_gone}.
    """
    if not isinstance(request, socket.socket):
        return False
    ask = getattr(request, "client_is_gone", None)
    known: bool | None = None if ask is None else ask()
    if known is not None:
        return known
    # Before any look at what came: a reset leaves that to be read.
    if hangup_of(request).is_final:
        return True
    # Of an end alone not every system tells.  A socket with a timeout would be waited for.
    if not _poll(request, select.POLLIN):
        return False
    try:
        # Not by an override: TLS knows no flags.
        return not socket.socket.recv(request, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except (OSError, ValueError):
        return True


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
        urgent: bool = False,
    ) -> int:
        """
        Call C{hung_up}, once, when the peer hangs up or the connection breaks.  It asks by
        itself what has happened (L{hangup_of}): it may be nothing.

        @param reactor: what reads the C{epoll}; the same for all of them.
        @param ended: whether to call it also when the peer has only ended its output.
        @param urgent: whether to call it also when a byte of TCP's urgent data has come.
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
        events = (select.EPOLLRDHUP if ended else 0) | (select.EPOLLPRI if urgent else 0)
        self._epoll.add(descriptor, hung_up, events)
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
