"""
The listener of a server object: its accept loop, from the start to the end of its requests.

This room owns how the loop of such an object runs, is suspended and ends, and when the object is
closed, for the machine of all listeners (L{sockserve.listeners.machine}).  It must not know
services, nor how requests are served (L{sockserve.dropin.dispatcher}).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import socketserver
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from sockserve.core.logs import Topic, log_raised, logger
from sockserve.dropin.connection import Intake
from sockserve.dropin.dispatcher import RequestDispatcher
from sockserve.dropin.listening_socket import is_open
from sockserve.dropin.loop_thread import AcceptLoopThread
from sockserve.dropin.overriding import accepts_takeover, is_overridden, take_over
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.sockets.keepalive import keep_alive

__all__ = ["ServerObjectListener"]

_log = logger(Topic.SERVICE)


class _Takeover(Enum):
    """The stand of an object's requests with sockserve."""

    #: The object processes them by itself.
    REFUSED = "refused"
    #: They are brought here from the first start on.
    POSSIBLE = "possible"
    DONE = "done"


class _State(Enum):
    """The stand of an object's accept loop, as the reactor knows it."""

    #: There is none.
    STOPPED = "stopped"
    #: It takes requests, as far as the caps let it.
    LISTENING = "listening"
    #: It takes none for now.
    SUSPENDED = "suspended"
    #: It has returned; requests, and then the object's own end, are waited for.
    DRAINING = "draining"


class ServerObjectListener:
    """
    A L{sockserve.listeners.machine.Listener} of a server object's requests; its port is the
    object's accept loop, on a thread of its own.

    What becomes of the loop.  (The machine is ahead of this when it calls C{close}, which asks
    the loop to return; and behind it after C{shutdown}, of which it hears when the loop has.)  ::

        STOPPED -- opened --> LISTENING <-- suspend, resume --> SUSPENDED
         ^   ^                    |                                 |
         |   |                    +----------------+----------------+
         |   |                                     |
         |   |                                     | _drain: the loop has returned
         |   |                                     v
         |   +---------- _end, _give_up ------- DRAINING
         |
         +---- _give_up, from LISTENING and SUSPENDED: the loop does not return
    """

    def __init__(
        self,
        dispatcher: RequestDispatcher,
        description: str,
        poll_interval: float,
        shut_down: Callable[[], object],
    ) -> None:
        """
        @param dispatcher: serves the requests, and has the object.
        @param description: names the listener in the log.
        @param poll_interval: how often C{service_actions} is called at least, in seconds.
        @param shut_down: called when the loop has ended by itself. (reactor thread)
        """
        # For good
        self._dispatcher = dispatcher
        self._object = dispatcher.server
        self._factory = dispatcher.factory
        self._deadlines = dispatcher.factory.deadlines
        self._description = description
        self._poll_interval = poll_interval
        self._shut_down = shut_down
        #: Whether handlers answer by the object's own socket, which is closed after them.
        self._shares_socket = getattr(self._object, "socket_type", None) == socket.SOCK_DGRAM
        possible = accepts_takeover(self._object)
        self._takeover = _Takeover.POSSIBLE if possible else _Takeover.REFUSED
        #: How many connections it may have; None for as many as come.
        self._cap = self._factory.admission.max_connections
        if self._shares_socket:  # it has no connections
            self._cap = self._factory.max_datagrams
        if not possible:
            self._cap = None

        # From listen to the end of its requests
        #: Tells the loop that runs from one that has been left behind.
        self._run: object = None
        self._loop: AcceptLoopThread | None = None
        self._state = _State.STOPPED
        #: Fires when the loop takes no more requests.
        self.loop_returned: Deferred[None] = succeed(None)
        #: Fires when all is over.
        self._all_over: Deferred[None]
        #: The deadline of the end.
        self._overdue: IDelayedCall | None = None

    # What the service and the machine call (reactor thread)

    def listen(self) -> AcceptLoopThread:
        """
        Start the loop. (reactor thread)

        @return: the port, for the machine.
        @raise OSError: there are no descriptors, or no thread, to be had.
        """
        if self._takeover is _Takeover.POSSIBLE:
            take_over(self._object, self._dispatcher.take)
            self._takeover = _Takeover.DONE
            self._install_joinable()
        if not is_overridden(self._object, "handle_error"):
            log = partial(StreamFactory.handle_error, self._factory)
            self._object.handle_error = log  # type: ignore[method-assign]
        keep_alive(getattr(self._object, "socket", None), self._deadlines)
        self.loop_returned = Deferred()
        self._all_over = Deferred()
        self._factory.intake = Intake.SERVED
        self._factory.drain_notice.take_back()
        if isinstance(self._object, socketserver.ForkingMixIn):
            self._factory.drain_notice.reach_children()
        self._run = run = object()
        return AcceptLoopThread(
            self._object,
            self._factory.reactor,
            self._deadlines,
            partial(self._loop_ended, run),
            self._is_full,
            self._poll_interval,
            self._factory.handshake_failed,
            self._factory.drain_notice,
        )

    def opened(self, port: AcceptLoopThread) -> None:
        """Take part in the caps with C{port}, which runs. (reactor thread)"""
        self._loop = port
        self._state = _State.LISTENING
        self._factory.begin_watch()
        if self._cap is not None:
            self._factory.admission.gates.add(port)
            self._dispatcher.on_request_finished = port.reopen

    def suspend(self) -> None:
        """Take no more requests. (reactor thread)"""
        if self._state is _State.LISTENING:
            self._state = _State.SUSPENDED

    def resume(self) -> None:
        """Take requests again. (reactor thread)"""
        if self._state is _State.SUSPENDED:
            self._state = _State.LISTENING
            assert self._loop is not None
            self._loop.reopen()

    def close(self) -> Deferred[Any]:
        """
        End the loop, once it has taken the clients that wait already, have requests finish within
        the C{drain} deadline, and close the object.
        What does not end within twice C{Deadlines.abandon} after that, be it the object's own
        C{server_close}, is left behind. (reactor thread)

        @return: a Deferred that fires when all that is done.
        """
        if self._state is not _State.STOPPED:
            assert self._loop is not None
            self.resume()  # clients that wait meanwhile are not to be lost
            self._factory.intake = Intake.DRAINED
            self._loop.stop(self._deadlines.drain)
            self._factory.drain()
            self._arm_shutdown_deadline()
        return self._all_over

    def _is_full(self, coming: int) -> bool:
        """Whether no more requests may be taken. (accept thread)"""
        is_suspended = self._state is _State.SUSPENDED
        if is_suspended or self._cap is None:
            return is_suspended
        # Not opened yet by the reactor, and so not in its count.
        coming += self._dispatcher.active - len(self._factory.connections)
        return self._factory.admission.active + coming >= self._cap

    # The end, in its order

    def _loop_ended(self, run: object, by_itself: bool) -> None:
        """The loop has returned. (accept thread)"""
        if run is not self._run:  # it had been left behind
            if self._state is _State.STOPPED:
                self._close()
            return
        self._factory.reactor.callFromThread(self._factory.drain)
        if not by_itself and not self._shares_socket:
            # Of a serial server this thread would have served them, and server_close called last;
            # its own lets nothing go but the socket, where new clients would wait in vain.
            is_serial = not isinstance(self._object, socketserver.ThreadingMixIn)
            if is_serial and is_overridden(self._object, "server_close"):
                self._dispatcher.wait()
            self._close()
            if is_serial:
                self._dispatcher.wait()
        self._factory.reactor.callFromThread(self._drain, run, by_itself)

    def _drain(self, run: object, by_itself: bool) -> None:
        """Wait for requests, and let go of everything. (reactor thread)"""
        if run is not self._run:
            return
        self._state = _State.DRAINING
        self.loop_returned.callback(None)
        self._arm_shutdown_deadline()
        assert self._loop is not None
        self._factory.admission.gates.discard(self._loop)
        drained = self._requests_finished()
        if by_itself or self._shares_socket:
            # Who has called shutdown may be about to close the object, and answer somebody.
            drained.addCallback(lambda _: self._factory.disk.call(self._close))
        drained.addCallback(lambda _: self._dispatcher.release())
        drained.addErrback(_log_failure)
        drained.addCallback(lambda _: self._end(run))
        if by_itself:
            self._shut_down()

    def _requests_finished(self) -> Deferred[object]:
        """
        Wait for requests, but not for ever. (reactor thread)

        @return: a Deferred that fires when there is none, or no time left.
        """
        finished: Deferred[object] = Deferred()
        self._factory.drained().addCallback(lambda _: finished.callback(None))
        seconds, abandon = self._deadlines.drain, self._deadlines.abandon
        if seconds is not None and abandon is not None:
            # What is no connection is under no deadline, and is left behind as others are.
            finished.addTimeout(seconds + abandon, self._factory.clock)
            finished.addErrback(lambda failure: failure.trap(TimeoutError))
        return finished

    def _end(self, run: object) -> None:
        """All is over, or left behind. (reactor thread)"""
        if run is not self._run:  # it had been left behind
            return
        self._run = self._loop = None
        self._state = _State.STOPPED
        self._factory.end_watch()
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        self._all_over.callback(None)

    # Its deadline

    def _arm_shutdown_deadline(self) -> None:
        """From now on the end has the C{drain} deadline, and little more. (reactor thread)"""
        seconds = self._deadlines.drain
        if seconds is not None and self._overdue is None:
            self._overdue = self._factory.clock.callLater(seconds, self._kill_children)

    def _kill_children(self) -> None:
        """C{drain} has passed. (reactor thread)"""
        for pid in list(getattr(self._object, "active_children", None) or ()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        seconds = self._deadlines.abandon
        if seconds is None:
            self._overdue = None
        else:
            # Handlers are abandoned after the first; server_close, which may wait for them, has
            # as long to follow.
            self._overdue = self._factory.clock.callLater(2 * seconds, self._give_up)

    def _give_up(self) -> None:
        """A method of the object has not returned: leave it behind. (reactor thread)"""
        self._overdue = None
        culprit = "server_close"
        if self._state is not _State.DRAINING:
            culprit = "verify_request, server_close or another method"
            assert self._loop is not None
            self._factory.admission.gates.discard(self._loop)
            self._dispatcher.release()
        _log.warn(
            "{server}: {culprit} does not return; it is left behind",
            server=self._description,
            culprit=culprit,
        )
        self._end(self._run)

    # Closing the object

    def _install_joinable(self) -> None:
        """Have the object's C{server_close} wait for requests as for threads of its own."""
        server = self._object
        if self._shares_socket or not (
            self._takeover is _Takeover.DONE and isinstance(server, socketserver.ThreadingMixIn)
        ):
            return
        vars(server).pop("_threads", None)
        if server.block_on_close and not server.daemon_threads:
            server._threads = self._dispatcher  # type: ignore[attr-defined]

    def _close(self) -> None:
        """Close the object, unless the program has. (any thread)"""
        self._install_joinable()
        try:
            if is_open(self._object):
                self._object.server_close()
        except BaseException:  # SystemExit, too
            log_raised(_log, "{server}: server_close raised", server=self._description)


def _log_failure(failure: Failure) -> None:
    _log.failure("the end of a served server object failed", failure)
