"""
Serving: the services that a command has started, until they have ended.

This room owns their start and end on the reactor, and what of Django's goes around each request.
It must not know whence the options come, nor which thread waits for the end.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.python.failure import Failure

from sockserve.core.logs import Topic, logger
from sockserve.core.reactors import IReactor
from sockserve.django.connections import close_idle_connections, with_connections
from sockserve.dropin.service import SocketServerService
from sockserve.executors.base import BoundedExecutor
from sockserve.executors.threads import ThreadExecutor
from sockserve.listeners.service import listeners_of
from sockserve.tap import Options, makeService

__all__ = ["Serving"]

_log = logger(Topic.SERVICE)


class _Stage(Enum):
    """The stage of a serving."""

    #: It has not been asked to stop.
    SERVING = "serving"
    #: Its services are being stopped.
    STOPPING = "stopping"
    #: They have stopped.
    ENDED = "ended"


class Serving:
    """
    The services of a command, as the C{ready} of its caller is given them.

    @ivar service: the services, in a tree.
    @ivar addresses: where its listeners listen, in the order of the options: C{(HOST, PORT)}, or
        the path of a UNIX socket.
    """

    def __init__(self, reactor: IReactor, options: Options) -> None:
        """
        Make the services. (reactor thread, or before it runs)

        @raise ConfigurationError: one cannot be made.
        """
        self._reactor = reactor
        self.service = makeService(options)
        self._listeners = list(listeners_of(self.service))
        for executor in {each.server.concurrency for each in self._listeners}:
            if isinstance(executor, BoundedExecutor):
                executor.serve = with_connections(executor.serve)
            if isinstance(executor, ThreadExecutor):
                executor.at_thread_end = close_idle_connections
        self.addresses: list[Any] = []
        self._ended: list[Deferred[None]] = []
        self._stage = _Stage.SERVING

    def start(self) -> None:
        """
        Begin to serve. (reactor thread, or before it runs)

        @raise ConfigurationError: one of the services cannot be started.
        """
        try:
            self.service.privilegedStartService()
            self.service.startService()
        except BaseException:
            self._stop()
            reactor: Any = self._reactor
            if not reactor.running:
                # Ports close, and sockets' names go, in its next turn, which will not come.
                reactor.runUntilCurrent()
            raise
        found = [each.server.server_address for each in self._listeners]
        self.addresses = [address for address in found if address is not None]
        objects = [each for each in self._listeners if isinstance(each, SocketServerService)]
        if len(objects) == len(self._listeners):
            shut_down = DeferredList([each.shut_down for each in objects])
            shut_down.addCallback(lambda _: self._stop())

    def stop(self) -> None:
        """Listen no more, and let requests end within the C{drain} deadline, as SIGTERM does; the
        command returns after that. (any thread)"""
        self._reactor.callFromThread(self._stop)

    def stopped(self) -> Deferred[None]:
        """
        Stop, as L{stop}.

        @return: a Deferred that fires when all is gone. (reactor thread)
        """
        ended = self.ended()
        self._stop()
        return ended

    def ended(self) -> Deferred[None]:
        """
        Wait for the end.

        @return: a Deferred that fires then. (reactor thread)
        """
        ended: Deferred[None] = Deferred()
        if self._stage is _Stage.ENDED:
            ended.callback(None)
        else:
            self._ended.append(ended)
        return ended

    def _stop(self) -> None:
        """Have the services stopped, once. (reactor thread)"""
        if self._stage is _Stage.SERVING:
            self._stage = _Stage.STOPPING
            maybeDeferred(self.service.stopService).addErrback(_log_failure).addCallback(self._end)

    def _end(self, _: object) -> None:
        """All services have stopped. (reactor thread)"""
        self._stage = _Stage.ENDED
        for ended in self._ended:
            ended.callback(None)


def _log_failure(failure: Failure) -> None:
    """Log why the services did not stop as they should."""
    _log.failure("the services did not stop", failure)
