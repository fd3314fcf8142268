"""
The accept loop of a server object: C{serve_forever}, on the thread that calls it or on one of its
own.

This room owns waiting for requests and for the word to stop, without polling for the latter,
and bringing connections over TLS to the server only once their handshake is done.  It must
not know what the server does with a request.
"""

from __future__ import annotations

import os
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from errno import errorcode
from functools import partial
from typing import Any

from typing_extensions import override

from sockserve.core.deadlines import Deadlines
from sockserve.core.forking import (
    ThreadRole,
    end_child,
    listening_socket_owners,
    mark_thread,
    this_thread,
)
from sockserve.core.logs import Topic, logger, standard_logger
from sockserve.core.reactors import IReactor
from sockserve.dropin.background_reactor import running_reactor
from sockserve.dropin.overriding import StandardMethods
from sockserve.dropin.server_object import ServerObject
from sockserve.dropin.serving_thread import ServingThread
from sockserve.dropin.tls_accept import accept_tls
from sockserve.dropin.tls_handshake import TLSHandshake
from sockserve.listeners.gate import ACCEPT_RETRY_SECONDS, CALM_SECONDS, OUT_OF_RESOURCES

__all__ = ["POLL_SECONDS", "AcceptLoop", "AcceptLoopThread", "is_open", "verify_and_take"]

_log = logger(Topic.SERVICE)
_connections_log = standard_logger(Topic.CONNECTIONS)

#: How often C{service_actions} is called at least, in seconds, where nobody says by a
#: C{poll_interval}.  0.5: C{serve_forever}'s default.
POLL_SECONDS = 0.5

#: The kind of selector.  C{socketserver}'s choice: it takes no descriptor of its own.
_Selector: type[selectors.BaseSelector] = getattr(
    selectors, "PollSelector", selectors.SelectSelector
)


def verify_and_take(server: ServerObject, request: Any, client_address: object) -> None:
    """
    Have a server verify and process a request, as C{BaseServer._handle_request_noblock} does.
    (accept thread)
    """
    try:
        verified = server.verify_request(request, client_address)
    except BaseException:
        request.close()  # nobody else has it
        raise
    if verified:
        try:
            server.process_request(request, client_address)
        except Exception:
            server.handle_error(request, client_address)
            server.shutdown_request(request)
        except BaseException:
            server.shutdown_request(request)
            raise
    else:
        server.shutdown_request(request)


def is_open(server: ServerObject) -> bool:
    """
    Whether a server still has its socket; one that is closed would never let a loop wait.
    (any thread)
    """
    try:
        return bool(server.fileno() >= 0)
    except (OSError, ValueError):
        return False


class _LoopState(Enum):
    """
    The stand of an accept loop.  (What the server itself is told by C{shutdown} is asked of that,
    as programs set it by themselves.)
    """

    #: It serves, or is about to.
    OPEN = "open"
    #: It was told to stop, and has yet to see that.
    STOPPED = "stopped"
    #: It serves no more, and has let go of all that was open for it.
    CLOSED = "closed"


class AcceptLoop:
    """
    One run of C{serve_forever}, on the thread that calls L{run}.  It only goes forward, from open
    over stopped, or not, to closed.

    @param deadlines: those of TLS handshakes, as of L{TLSHandshake}.
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
        listening_socket_owners.add(self)
        #: Connections whose handshake is under way, and those where it is done.
        self._shaking: set[ssl.SSLSocket] = set()
        self._shaken: deque[tuple[ssl.SSLSocket, object]] = deque()

    def run(self, poll_interval: float) -> None:
        """
        Serve until L{stop}, or until the server is told to shut down; that is asked whenever
        something has happened. (accept thread)

        @param poll_interval: how often C{service_actions} is called at least, in seconds.
        """
        server = self._server
        try:
            with _Selector() as selector:
                selector.register(server, selectors.EVENT_READ)
                selector.register(self._outer, selectors.EVENT_READ)
                takes = True
                while not self._is_over():
                    if takes != (self._has_room() and is_open(server)):
                        takes = not takes
                        if takes:
                            selector.register(server, selectors.EVENT_READ)
                        else:
                            selector.unregister(server)
                    seconds = self._seconds_to_wait(poll_interval)
                    ready = [key.fileobj for key, _ in selector.select(seconds)]
                    if self._is_over():
                        break
                    try:
                        if self._outer in ready:
                            self._empty_wake_ups()
                        if self._shaken:
                            verify_and_take(server, *self._shaken.popleft())
                        if server in ready and self._has_room():
                            self._take_request()
                        if self.jobs is not None and not self._is_over():
                            self.jobs.serve_one()
                        server.service_actions()
                    except Exception:
                        if self._failed is None:
                            raise
                        self._failed()
        finally:
            self.close()

    def listening_descriptors(self) -> Iterator[int]:
        """The descriptor that the server listens on, if it does. (any thread)"""
        # A datagram is answered by the socket that it came to.
        if getattr(self._server, "socket_type", None) == socket.SOCK_STREAM:
            yield self._server.fileno()

    def stop(self) -> None:
        """Have L{run} return. (any thread)"""
        with self._lock:
            if self._state is _LoopState.OPEN:
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
        # A method's child is no server itself; one that has made this loop is.
        if this_thread.is_child and os.getpid() != self._process:
            end_child()
        # What shutdown sets, and programs set by themselves on the thread that serves.
        is_told = bool(getattr(self._server, "_BaseServer__shutdown_request", False))
        return is_told or self._state is not _LoopState.OPEN

    def _seconds_to_wait(self, poll_interval: float) -> float:
        if self._shaken or self._has_job():
            return 0
        return min(poll_interval, self._seconds_to_retry() or poll_interval)

    def _seconds_to_retry(self) -> float:
        """How long it has yet to pause for a lack of descriptors; 0 when it has not."""
        if self._shortage_at is None:
            return 0
        since = time.monotonic() - self._shortage_at
        if since >= CALM_SECONDS:
            self._shortage_at = None
        return max(ACCEPT_RETRY_SECONDS - since, 0)

    def _has_room(self) -> bool:
        if self._seconds_to_retry():
            return False
        if self._is_full is None:
            return True
        with self._lock:
            return not self._is_full(len(self._shaking) + len(self._shaken))

    def _has_job(self) -> bool:
        return self.jobs is not None and self.jobs.has_ready()

    def _take_request(self) -> None:
        try:
            accepted = accept_tls(self._server, self._standard, self._lost)
        except OSError as error:
            if error.errno in OUT_OF_RESOURCES:
                self._descriptors_exhausted(error)
            return
        if accepted is None:
            self._server._handle_request_noblock()
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
                    self._shaken.append((request, address))
                elif self._handshake_failed is not None:
                    self._handshake_failed(address, fault)
                self.wake()

        self._shaking.add(request)
        reactor.callFromThread(TLSHandshake, reactor, request, ended, self._deadlines)

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
            for sock in (self._inner, self._outer, *self._shaking, *(it for it, _ in self._shaken)):
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
        for request, _ in self._shaken:
            request.close()


class _Ending(threading.Event):
    """
    The event that C{socketserver.BaseServer.shutdown} waits for, the end of a loop: waiting for
    it also asks for it.

    @param stop: has the loop end.
    """

    def __init__(self, stop: Callable[[], None], thread: threading.Thread) -> None:
        super().__init__()
        self._stop = stop
        self._thread = thread

    @override
    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the loop has ended, unless this is its thread. (any thread)"""
        self._stop()
        return threading.current_thread() is self._thread or super().wait(timeout)


class _Ender(Enum):
    """The side that has asked an accept loop on a thread of its own to end: the first that did."""

    #: Neither has; if it ends all the same, it could not go on.
    NOBODY = "nobody"
    #: The one that has started it, which also closes the server.
    OWNER = "owner"
    #: The program, by the server's C{shutdown}; whether that is closed is its own to say.
    PROGRAM = "program"


class AcceptLoopThread:
    """
    An accept loop on a thread of its own.  It also ends by the server's C{shutdown}.

    @param reactor: where handshakes are done.
    @param ended: called on that thread when the loop has ended, with whether it has done so by
        itself: by C{shutdown}, or because it could not go on.
    @param is_full: as L{AcceptLoop}'s.
    @param poll_interval: as L{AcceptLoop.run}'s.
    @param handshake_failed: as L{AcceptLoop}'s.
    """

    def __init__(
        self,
        server: ServerObject,
        reactor: IReactor,
        deadlines: Deadlines,
        ended: Callable[[bool], object],
        is_full: Callable[[int], bool] | None = None,
        poll_interval: float = POLL_SECONDS,
        handshake_failed: Callable[[Any, Exception], object] | None = None,
    ) -> None:
        """
        @raise OSError: there are no descriptors, or no thread, to be had.
        """
        self._loop = AcceptLoop(server, deadlines, self._failed, is_full, reactor, handshake_failed)
        self._server = server
        self._ended = ended
        self._poll_interval = poll_interval
        # Reentrant, as a signal's handler may call shutdown
        self._lock = threading.RLock()
        self._ender = _Ender.NOBODY
        thread = threading.Thread(target=self._run, name="sockserve loop", daemon=True)
        self._ending = _Ending(partial(self._end, _Ender.PROGRAM), thread)
        before = server._BaseServer__is_shut_down
        server._BaseServer__is_shut_down = self._ending
        try:
            thread.start()
        except RuntimeError as error:
            server._BaseServer__is_shut_down = before
            self._loop.close()
            raise OSError(str(error)) from error

    def reopen(self) -> None:
        """Ask again whether there is room. (any thread)"""
        self._loop.wake()

    def stop(self) -> None:
        """End the loop. (any thread)"""
        self._end(_Ender.OWNER)

    def _end(self, ender: _Ender) -> None:
        """End the loop for C{ender}, or for whom that was done before. (any thread)"""
        with self._lock:
            if self._ender is _Ender.NOBODY:
                self._ender = ender
        self._loop.stop()

    def _failed(self) -> None:
        # C{serve_forever} ends with what C{verify_request} raises; nobody would call it again.
        _log.failure("a method of the served server object raised")

    def _run(self) -> None:
        """(accept thread)"""
        mark_thread(ThreadRole.ACCEPTING)
        try:
            self._loop.run(self._poll_interval)
        except BaseException:
            _log.failure("the loop of a served server object has failed")
        by_itself = self._ender is not _Ender.OWNER
        self._server._BaseServer__shutdown_request = False  # it may serve again
        self._ending.set()
        self._ended(by_itself)
