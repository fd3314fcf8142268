"""
Objects: server objects of C{socketserver}'s kind as parts of a Twisted application.

This room owns when the loop of such an object runs, what its end means, and who is admitted to
it.  It must not know option strings, nor how requests are served (L{sockserve.dropin.dispatcher}).
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import socketserver
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.deadlines import Deadlines
from sockserve.core.logs import Topic, logger
from sockserve.core.statistics import RequestRecord
from sockserve.dropin.accept_loop import AcceptLoopThread, is_open
from sockserve.dropin.dispatcher import RequestDispatcher
from sockserve.dropin.overriding import accepts_takeover, take_over
from sockserve.executors.threads import DEFAULT_THREADS
from sockserve.interfaces import ConfigurationError

__all__ = ["SocketServerService", "why_not_served"]

_log = logger(Topic.SERVICE)


def why_not_served(server: Any) -> str | None:
    """Why a server object cannot be served as it stands; None if it can."""
    served: Any = server
    if not isinstance(server, socketserver.BaseServer):
        return f"{server!r} is not a socketserver.BaseServer"
    try:
        closed = served.fileno() < 0
    except (AttributeError, OSError):
        return "it has no socket"
    if closed:
        return "its socket is closed"
    sock = getattr(server, "socket", None)
    if not isinstance(sock, socket.socket) or sock.type != socket.SOCK_STREAM:
        return None
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return None
    return "it does not listen; call its server_bind and server_activate"


def _is_ip_address(client_address: Any) -> bool:
    try:
        ipaddress.ip_address(client_address[0].partition("%")[0])
    except (AttributeError, LookupError, TypeError, ValueError):
        return False
    return isinstance(client_address, tuple)


class _State(Enum):
    STOPPED = "stopped"
    SERVING = "serving"
    #: The loop takes no requests.
    SUSPENDED = "suspended"
    #: The loop has ended, and requests come to their end.
    ENDING = "ending"


_RUNNING = (_State.SERVING, _State.SUSPENDED)


class SocketServerService(Service):
    """
    A server object of C{socketserver}'s kind, the standard library's or ours, as a service.
    It serves as it stands, on a thread of its own in place of the one that would call
    C{serve_forever}; requests are served by sockserve's threads (one, without
    C{ThreadingMixIn}) under its deadlines and caps, unless it has C{ForkingMixIn}, or a
    C{process_request} of its own that does not leave them to C{super()}.

    @ivar server: what counts and observes: C{server.statistics}.
    @ivar shut_down: fires when the object has ended by itself: the program has called its
        C{shutdown}.  It takes no more requests then; those under way come to their end within
        the C{drain} deadline, and it is closed.  A start after that makes another.
    """

    def __init__(
        self,
        server: Any,
        reactor: Any,
        *,
        threads: int = DEFAULT_THREADS,
        deadlines: Deadlines | None = None,
        **options: Any,
    ) -> None:
        """
        @param server: the server object, bound and listening.
        @param threads: the most handlers at once, if it has C{ThreadingMixIn}.
        @param deadlines: by default, C{Deadlines()}.
        @param options: as L{StreamFactory.__init__}.
        @raise ConfigurationError: it, or its handler, cannot be served, or not so.
        """
        fault = why_not_served(server)
        if fault is not None:
            raise ConfigurationError(f"{type(server).__qualname__}: {fault}")
        self._object = server
        self.description = f"{type(server).__qualname__} on {server.server_address}"
        self._deadlines = Deadlines() if deadlines is None else deadlines
        if not isinstance(server, socketserver.ThreadingMixIn):
            threads = 1
        self._dispatcher = RequestDispatcher(
            server,
            reactor,
            threads=threads,
            option="threads",
            deadlines=self._deadlines,
            **options,
        )
        #: Whether handlers answer by the server's own socket, which is closed after them.
        self._shares_socket = getattr(server, "socket_type", None) == socket.SOCK_DGRAM
        #: Whether its requests are brought here.
        self._takes = accepts_takeover(server)
        self._state = _State.STOPPED
        self._loop: AcceptLoopThread
        #: Tells the loop that runs from one that has been left behind.
        self._run: object = None
        #: The object's own, once L{_verify_network} has its place.
        self._verify_request: Callable[[Any, Any], object] | None = None
        self._stopped: list[Deferred[None]] = []
        self._overdue: IDelayedCall | None = None
        self.shut_down: Deferred[None] = Deferred()
        self.server = self._dispatcher.factory
        #: How many connections it may have; None for as many as come.
        self._cap = self.server.admission.max_connections
        if self._shares_socket or not self._takes:
            self._cap = None
        self.server.server_address = server.server_address
        self.server.statistics.listener = self.description

    @override
    def startService(self) -> None:
        """
        Serve.

        @raise ConfigurationError: the object is closed, or has not come to its end.
        @raise OSError: there are no descriptors for it.
        """
        fault = why_not_served(self._object)
        if self._state is not _State.STOPPED:
            fault = "it has not ended yet; wait for what stopService returned"
        if fault is not None:
            raise ConfigurationError(f"{self.description}: {fault}")
        if self._verify_request is None:
            self._verify_request = self._object.verify_request
            self._take_over()
        if self.shut_down.called:
            self.shut_down = Deferred()
        seconds = self._deadlines.handshake
        self._run = run = object()
        self._loop = AcceptLoopThread(
            self._object,
            self.server.reactor,
            seconds,
            partial(self._loop_ended, run),
            self._is_full,
        )
        if self._cap is not None:
            self.server.admission.gates.add(self._loop)
            self._dispatcher.on_request_finished = self._loop.reopen
        self._state = _State.SERVING
        super().startService()
        _log.info("{server}: starting", server=self.description)

    @override
    def stopService(self) -> Deferred[None]:
        """
        Stop listening, and let requests come to their end within the C{drain} deadline.
        Fires when all is gone.  What does not end within twice C{Deadlines.abandon} after that,
        be it the object's own C{server_close}, is left behind.
        """
        super().stopService()
        if self._state is _State.STOPPED:
            return succeed(None)
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        if self._state in _RUNNING:
            self._loop.stop()
            self.server.drain()
            self._arm_shutdown_deadline()
        return stopped

    def suspend(self) -> None:
        """Take no more requests, but keep listening: clients wait in the kernel's queue."""
        if self._state is _State.SERVING:
            self._state = _State.SUSPENDED

    def resume(self) -> None:
        """Undo L{suspend}."""
        if self._state is _State.SUSPENDED:
            self._state = _State.SERVING
            self._loop.reopen()

    # Taking requests

    def _take_over(self) -> None:
        """From now on who takes the object's requests asks here."""
        if self._takes:
            take_over(self._object, self._dispatcher.take)
        self._install_joinable()
        if self.server.admission.allow or self.server.admission.deny:
            self._object.verify_request = self._verify_network

    def _is_full(self, coming: int) -> bool:
        """Whether no more requests may be taken.  The loop's thread."""
        if self._cap is None:
            return self._state is _State.SUSPENDED
        # Not opened yet by the reactor, and so not in its count.
        coming += self._dispatcher.active - len(self.server.connections)
        full = self.server.admission.active + coming >= self._cap
        return full or self._state is _State.SUSPENDED

    def _verify_network(self, request: Any, client_address: Any) -> bool:
        """The networks, then the object's own C{verify_request}.  The loop's thread."""
        if self._is_allowed(request, client_address):
            assert self._verify_request is not None
            return bool(self._verify_request(request, client_address))
        self.server.reactor.callFromThread(self._refuse_network, client_address)
        return False

    def _is_allowed(self, request: Any, client_address: Any) -> bool:
        """Whether a client's network may be served.  The loop's thread."""
        address = client_address
        if not _is_ip_address(address):  # a program may call its client whatever it likes
            try:
                address = request.getpeername()
            except (AttributeError, OSError):
                if getattr(self._object, "address_family", None) != socket.AF_UNIX:
                    return False  # nobody knows
        return self.server.admission.allows(address)

    def _refuse_network(self, client_address: Any) -> None:
        """Account for a request that has not been taken.  Reactor thread."""
        factory, refused = self.server, "refused: network"
        factory.request_accepted()
        factory.count_refusal("network")
        factory.request_finished(
            RequestRecord(client_address, factory.handler_name, outcome=refused)
        )

    # The end

    def _loop_ended(self, run: object, by_itself: bool) -> None:
        """The loop's thread."""
        if run is not self._run:  # it had been left behind
            if self._state is _State.STOPPED:
                self._close()
            return
        self.server.reactor.callFromThread(self.server.drain)
        if not by_itself and not self._shares_socket:
            if not isinstance(self._object, socketserver.ThreadingMixIn):
                self._dispatcher.join()  # otherwise this thread would have served them
            self._close()
        self.server.reactor.callFromThread(self._end, run, by_itself)

    def _end(self, run: object, by_itself: bool) -> None:
        """Reactor thread."""
        if run is not self._run:
            return
        self._state = _State.ENDING
        self._arm_shutdown_deadline()
        self.server.admission.gates.discard(self._loop)
        ended = self._drained()
        if by_itself or self._shares_socket:
            # Who has called shutdown may be about to close the object, and answer somebody.
            ended.addCallback(lambda _: self.server.disk.call(self._close))
        ended.addCallback(lambda _: self._dispatcher.release())
        ended.addErrback(_log_failure)
        ended.addCallback(lambda _: self._ended(run))
        if by_itself:
            _log.info("{server}: it has shut down", server=self.description)
            self.shut_down.callback(None)

    def _arm_shutdown_deadline(self) -> None:
        """From now on the end has the C{drain} deadline, and little more."""
        seconds = self._deadlines.drain
        if seconds is not None and self._overdue is None:
            self._overdue = self.server.reactor.callLater(seconds, self._kill_children)

    def _kill_children(self) -> None:
        """C{drain} has passed."""
        for pid in list(getattr(self._object, "active_children", None) or ()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        seconds = self._deadlines.abandon
        if seconds is None:
            self._overdue = None
        else:
            # Handlers are abandoned after the first; server_close, which may wait for them, has
            # as long to follow.
            self._overdue = self.server.reactor.callLater(2 * seconds, self._give_up)

    def _give_up(self) -> None:
        """A method of the object has not returned."""
        self._overdue = None
        culprit = "server_close"
        if self._state in _RUNNING:
            culprit = "verify_request, server_close or another method"
            self.server.admission.gates.discard(self._loop)
            self._dispatcher.release()
        _log.warn(
            "{server}: {culprit} does not return; it is left behind",
            server=self.description,
            culprit=culprit,
        )
        self._ended(self._run)

    def _drained(self) -> Deferred[Any]:
        """Fires when requests have come to their end."""
        drained: Deferred[Any] = Deferred()
        self.server.drained().addCallback(lambda _: drained.callback(None))
        seconds, abandon = self._deadlines.drain, self._deadlines.abandon
        if seconds is not None and abandon is not None:
            # What is no connection is under no deadline, and is left behind as others are.
            drained.addTimeout(seconds + abandon, self.server.reactor)
            drained.addErrback(lambda failure: failure.trap(TimeoutError))
        return drained

    def _install_joinable(self) -> None:
        """Have the object's C{server_close} wait for requests as for threads of its own."""
        server = self._object
        if self._shares_socket or not (
            self._takes and isinstance(server, socketserver.ThreadingMixIn)
        ):
            return
        vars(server).pop("_threads", None)
        if server.block_on_close and not server.daemon_threads:
            server._threads = self._dispatcher  # type: ignore[attr-defined]

    def _close(self) -> None:
        """Close the object, unless the program has.  The loop's thread, or one of the disk's."""
        self._install_joinable()
        try:
            if is_open(self._object):
                self._object.server_close()
        except BaseException:  # SystemExit, too
            _log.failure("{server}: server_close raised", server=self.description)

    def _ended(self, run: object) -> None:
        """Reactor thread."""
        if run is not self._run:  # it had been left behind
            return
        self._run = None
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        self._state = _State.STOPPED
        stopped, self._stopped = self._stopped, []
        for each in stopped:
            each.callback(None)


def _log_failure(failure: Failure) -> None:
    _log.failure("the end of a served server object failed", failure)
