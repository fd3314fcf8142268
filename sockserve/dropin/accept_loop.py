"""
The accept loop of a server object: C{serve_forever}.

This room owns waiting for requests and for the word to stop, without polling for the latter,
and bringing connections over TLS to the server only once their handshake is done.  It must
not know what the server does with a request.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from errno import errorcode
from math import inf
from typing import Any

from sockserve.core.deadlines import Deadlines
from sockserve.core.forking import (
    end_child,
    is_child,
    listening_socket_owners,
)
from sockserve.core.logs import Topic, standard_logger
from sockserve.core.reactors import IReactor
from sockserve.dropin.background_reactor import running_reactor
from sockserve.dropin.listening_socket import is_open, stop_listening, wait_for_children
from sockserve.dropin.overriding import StandardMethods
from sockserve.dropin.server_object import ServerObject
from sockserve.dropin.serving_thread import ServingThread
from sockserve.dropin.tls_accept import accept_tls
from sockserve.dropin.tls_handshake import TLSHandshake
from sockserve.dropin.verifying import verify_and_take
from sockserve.listeners.gate import (
    ACCEPT_RETRY_SECONDS,
    CALM_SECONDS,
    OUT_OF_RESOURCES,
    QUEUE_LENGTH,
)

__all__ = ["POLL_SECONDS", "AcceptLoop"]

_connections_log = standard_logger(Topic.CONNECTIONS)

#: How often C{service_actions} is called at least, in seconds, where nobody says by a
#: C{poll_interval}.  0.5: C{serve_forever}'s default.
POLL_SECONDS = 0.5


def _poll_for(readable: Any) -> select.poll:
    """A poll that tells when a socket, or a server, can be read from."""
    poll = select.poll()
    poll.register(readable, select.POLLIN)
    return poll


class _LoopState(Enum):
    """
    The stand of an accept loop.  (What the server itself is told by C{shutdown} is asked of that,
    as programs set it by themselves.)
    """

    #: It serves, or is about to.
    OPEN = "open"
    #: It was told to take who waits already, and nobody after that.
    LAST = "last"
    #: It was told to stop, and has yet to see that.
    STOPPED = "stopped"
    #: It serves no more, and has let go of all that was open for it.
    CLOSED = "closed"


_OPEN = _LoopState.OPEN  # looked up once (see L{sockserve.core.lifecycle})


class AcceptLoop:
    """
    One run of C{serve_forever}, on the thread that calls L{run}.  It only goes forward, from open
    over what it is told (to take the last, or to stop), or not, to closed.

    @param deadlines: as L{TLSHandshake}'s.
    @param failed: called in the C{except} block when one of the server's methods has raised,
        which then does not end the loop.
    @param is_full: whether to take no more requests for now, given how many connections are
        not the server's yet; it is asked whenever something has happened.
    @param reactor: where handshakes are done; by default, one that runs.
    @param handshake_failed: called with the address of a client whose handshake has come to
        nothing, and why: on the thread of C{reactor}, or on any where that is not given.
    @ivar jobs: has what this thread is to serve besides, if set.
    """

    jobs: ServingThread | None = None

    def __init__(
        self,
        server: ServerObject,
        deadlines: Deadlines,
        failed: Callable[[], object] | None = None,
        is_full: Callable[[int], bool] | None = None,
        reactor: IReactor | None = None,
        handshake_failed: Callable[[object, Exception], object] | None = None,
    ) -> None:
        """
        @raise OSError: there are no descriptors to be had.
        """
        # For good
        self._process = os.getpid()
        self._server = server
        self._standard = StandardMethods(server)
        self._deadlines = deadlines
        self._handshake_failed = handshake_failed
        self._failed = failed
        self._is_full = is_full
        self._reactor = reactor
        #: What wakes the loop: the one end is written to, the other waited for.
        self._inner, self._outer = socket.socketpair()
        self._inner.setblocking(False)
        self._outer.setblocking(False)
        #: When it last found no descriptor to accept with; None once that is long ago.
        self._shortage_at: float | None = None
        # The lock is held where one of these changes, and while what is open is used
        self._lock = threading.RLock()
        self._state = _LoopState.OPEN
        #: When the last that wait are to be taken at the latest; None for no limit.
        self._last_until: float | None = None
        listening_socket_owners.add(self)
        #: Connections whose handshake is under way, and those that the server is to verify.
        self._shaking: set[ssl.SSLSocket] = set()
        self._accepted: deque[tuple[Any, object]] = deque()

    def run(self, poll_interval: float | None) -> None:
        """
        Serve until L{stop} or L{take_last}, or until the server is told to shut down; that is
        asked whenever something has happened. (accept thread)

        @param poll_interval: how often C{service_actions} is called at least, in seconds; None to
            call it only when something has happened.
        """
        server = self._server
        poll_interval = inf if poll_interval is None else max(poll_interval, 0)
        poll = _poll_for(self._outer)  # it takes no descriptor of its own
        try:
            listening = server.fileno()
            poll.register(listening, select.POLLIN)
            takes = True
            while not self._is_over():
                if takes != (self._has_room() and is_open(server)):
                    takes = not takes
                    if takes:
                        listening = server.fileno()
                        poll.register(listening, select.POLLIN)
                    else:
                        poll.unregister(listening)
                ready = poll.poll(self._milliseconds_to_wait(poll_interval))
                self._end_child()  # a handler of a signal may have forked
                if self._is_over():
                    break
                woken = requested = False
                for descriptor, _ in ready:
                    if descriptor == listening:
                        requested = True
                    else:
                        woken = True
                self._call_server(self._turn, woken, requested)
            self._take_waiting()
        finally:
            if self.jobs is not None:
                self.jobs.tell_end()
            self.close()

    def _turn(self, woken: bool, requested: bool) -> None:
        """
        Do what is to be done, a piece of each kind. (accept thread)

        @param woken: whether the loop was told that there is something to do.
        @param requested: whether the server has a request to accept.
        """
        if woken:
            self._empty_wake_ups()
        if self._accepted:
            self._take_accepted()
        if requested and self._has_room():
            self._take_request()
        if self.jobs is not None and not self._is_over():
            self._end_child()
            self.jobs.serve_one()
        self._server.service_actions()

    def _take_waiting(self) -> None:
        """
        Take the clients that wait in the kernel's queue, which would reset them, if told to.  All
        are accepted, and the socket is let go of, before the first is processed: if a child is made
        for each, say, as many others would come meanwhile. (accept thread)
        """
        accepts_first = getattr(self._server, "socket_type", None) == socket.SOCK_STREAM
        take = self._accept if accepts_first else self._take_request
        if accepts_first and self._takes_last():
            wait_for_children(self._server)
        poll = _poll_for(self._server) if is_open(self._server) else select.poll()
        for _ in range(QUEUE_LENGTH):  # others may come as fast
            if not (self._takes_last() and self._has_room() and is_open(self._server)):
                break
            if not poll.poll(0):
                break
            self._call_server(take)
        if accepts_first and self._takes_last():
            stop_listening(self._server)
        shaking_until = time.monotonic() + (self._deadlines.quiet or 0)
        while self._takes_last():
            if self._accepted:
                self._call_server(self._take_accepted)
            elif self._shaking and time.monotonic() < shaking_until:
                self._wait_for_wake_up(shaking_until - time.monotonic())
            else:
                break

    def _takes_last(self) -> bool:
        """Whether who waits is to be taken, and there is time for that."""
        until = self._last_until
        is_late = until is not None and time.monotonic() >= until
        is_told = self._server._BaseServer__shutdown_request
        return self._state is _LoopState.LAST and not is_told and not is_late

    def _call_server(self, do: Callable[..., object], *arguments: Any) -> None:
        """Call C{do}, and C{failed} if one of the server's methods raises in it. (accept thread)"""
        try:
            do(*arguments)
        except Exception:
            if self._failed is None:
                raise
            self._failed()
        self._end_child()

    def _end_child(self) -> None:
        """End a child that one of the server's methods has made, and that goes on as a server."""
        # One that has made this loop is a server itself.
        if is_child() and os.getpid() != self._process:
            end_child()

    def listening_descriptors(self) -> Iterator[int]:
        """
        The descriptor that the server listens on, if it does, and those of connections that it has
        yet to get. (any thread)
        """
        # A datagram is answered by the socket that it came to.
        if getattr(self._server, "socket_type", None) == socket.SOCK_STREAM:
            yield self._server.fileno()
            for request in (*self._shaking, *(request for request, _ in self._accepted)):
                yield request.fileno()

    def take_last(self, seconds: float | None) -> None:
        """
        Have L{run} return once it has taken who waits already. (any thread)

        @param seconds: how long that may take; None for as long as it does.
        """
        with self._lock:
            if self._state is _LoopState.OPEN:
                self._last_until = None if seconds is None else time.monotonic() + seconds
                self._state = _LoopState.LAST
                self.wake()

    def stop(self) -> None:
        """Have L{run} return. (any thread)"""
        with self._lock:
            if self._state is not _LoopState.CLOSED:
                self._state = _LoopState.STOPPED
                self.wake()

    def wake(self) -> None:
        """Have the loop ask again what it asks whenever something has happened. (any thread)"""
        with self._lock:
            if self._state is not _LoopState.CLOSED:
                try:
                    self._inner.send(b"\0")
                except BlockingIOError:  # it has enough to wake up for
                    pass

    def _is_over(self) -> bool:
        # What shutdown sets, and programs set by themselves on the thread that serves.
        return self._state is not _OPEN or self._server._BaseServer__shutdown_request

    def _milliseconds_to_wait(self, poll_interval: float) -> float:
        if self._accepted or (self.jobs is not None and self.jobs.has_ready()):
            return 0
        seconds = poll_interval
        if self._shortage_at is not None:
            # If the pause is over by now, the socket is not polled yet: it must not take for ever.
            seconds = min(self._seconds_to_retry() or ACCEPT_RETRY_SECONDS, seconds)
        return -1 if seconds == inf else seconds * 1000

    def _seconds_to_retry(self) -> float:
        """The seconds that it has yet to pause for a lack of descriptors; 0 for none."""
        if self._shortage_at is None:
            return 0
        since = time.monotonic() - self._shortage_at
        if since >= CALM_SECONDS:
            self._shortage_at = None
        return max(ACCEPT_RETRY_SECONDS - since, 0)

    def _has_room(self) -> bool:
        if self._shortage_at is not None and self._seconds_to_retry():
            return False
        if self._is_full is None:
            return True
        with self._lock:
            return not self._is_full(len(self._shaking) + len(self._accepted))

    def _take_request(self) -> None:
        self._accept()
        if self._accepted:
            self._take_accepted()

    def _take_accepted(self) -> None:
        request, client_address = self._accepted.popleft()
        verify_and_take(self._server, request, client_address)

    def _accept(self) -> None:
        """Accept a request, which is then among L{_accepted}, or is to shake hands before."""
        server, standard, accepted = self._server, self._standard, None
        try:
            if type(getattr(server, "socket", None)) is not socket.socket:  # of TLS, perhaps
                accepted = accept_tls(server, standard, self._lost)
            if accepted is None:
                if standard.handle_request_noblock != server._handle_request_noblock:
                    server._handle_request_noblock()
                    return
                taken = server.get_request()
        except OSError as error:
            if error.errno in OUT_OF_RESOURCES:
                self._descriptors_exhausted(error)
            return
        if accepted is None:
            self._accepted.append(taken)
        else:
            self._shake_hands(*accepted)

    def _descriptors_exhausted(self, error: OSError) -> None:
        """There was no descriptor to accept with: try again soon."""
        if self._shortage_at is None:
            _connections_log.error(
                "%s: cannot accept connections (%s), which wait; trying again every %s s; raise"
                " the limit of open files (ulimit -n)",
                type(self._server).__qualname__,
                errorcode.get(error.errno or 0, str(error)),
                ACCEPT_RETRY_SECONDS,
            )
        self._shortage_at = time.monotonic()

    def _lost(self, address: object, fault: Exception) -> None:
        """A client has gone before its handshake could begin."""
        if self._handshake_failed is None:
            return
        if self._reactor is None:
            self._handshake_failed(address, fault)
        else:
            self._reactor.callFromThread(self._handshake_failed, address, fault)

    def _shake_hands(self, request: ssl.SSLSocket, address: object) -> None:
        """Have a connection's handshake done on the reactor."""
        try:
            reactor = running_reactor() if self._reactor is None else self._reactor
        except OSError:  # no descriptors for one; as if there had been none for the connection
            request.close()
            return

        def ended(fault: Exception | None) -> None:
            """(reactor thread)"""
            with self._lock:
                self._shaking.discard(request)
                if self._state is _LoopState.CLOSED:
                    request.close()
                elif fault is None:
                    self._accepted.append((request, address))
                elif self._handshake_failed is not None:
                    self._handshake_failed(address, fault)
                self.wake()

        self._shaking.add(request)
        reactor.callFromThread(TLSHandshake, reactor, request, ended, self._deadlines)

    def _wait_for_wake_up(self, seconds: float) -> None:
        _poll_for(self._outer).poll(max(seconds, 0) * 1000)
        self._empty_wake_ups()

    def _empty_wake_ups(self) -> None:
        try:
            self._outer.recv(4096)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """
        Let go of what is open for the loop; connections that have shaken hands, or are about to,
        are ended, unless this is a child, where they are the parent's. (any thread)
        """
        if os.getpid() != self._process:
            # Without the lock: the thread that may have held it is not here.
            for sock in (
                self._inner,
                self._outer,
                *self._shaking,
                *(it for it, _ in self._accepted),
            ):
                sock.close()
            return
        with self._lock:
            self._state = _LoopState.CLOSED
            for request in self._shaking:
                try:
                    socket.socket.shutdown(request, socket.SHUT_RDWR)
                except OSError:  # the client has gone
                    pass
            self._inner.close()
            self._outer.close()
        for request, _ in self._accepted:
            request.close()
