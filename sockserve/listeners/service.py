"""
Listener services: listeners of all kinds as parts of a Twisted application.

This room owns when a listener's machine (L{sockserve.listeners.machine}) is told to stop, to
suspend and to resume.  It must not know how a listener is opened, nor descriptions.
(reactor thread)
"""

from __future__ import annotations

from collections.abc import Iterator

from twisted.application.service import IServiceCollection, Service
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.in_progress import RequestStatus
from sockserve.core.logs import Topic, logger
from sockserve.listeners.machine import Listener, ListenerData, ListenerMachine
from sockserve.listeners.server import RequestServer

__all__ = ["ListenerService", "listeners_of"]

_log = logger(Topic.SERVICE)


class ListenerService(Service):
    """
    A listener as a service: the part that all kinds share.

    @ivar server: the server object of its requests.
    @ivar description: names the listener in messages and statistics.
    """

    server: RequestServer

    def __init__(self, listener: Listener, description: str) -> None:
        self._data = ListenerData(listener)
        self._machine = ListenerMachine(self._data)
        self.description = description

    @override
    def stopService(self) -> Deferred[None]:
        """
        Stop listening, let requests finish within the C{drain} deadline, then abort them.

        @return: a Deferred that fires when all is gone.  A thread that does not end is counted
            as abandoned, and not waited for.
        """
        super().stopService()
        stopped = self._machine.stop().addCallback(lambda _: self.server.release())
        self._watch_draining()
        return stopped

    def suspend(self) -> None:
        """Take no more requests, but keep listening: clients wait in the kernel's queue."""
        self._machine.suspend()

    def resume(self) -> None:
        """Undo L{suspend}."""
        self._machine.resume()

    def requests(self) -> list[RequestStatus]:
        """The requests in progress, the oldest first.  (A datagram's is not among them when its
        coroutine never waits.)"""
        stands = [request.status() for request in self.server.in_progress()]
        return sorted(stands, key=lambda status: status.seconds, reverse=True)

    def abort(self, id: int) -> None:
        """
        End a request now, whatever is under way.  A thread that computes cannot be ended; it is
        waited for no longer C{Deadlines.abandon} seconds later.

        @param id: as L{requests} has it.
        @raise LookupError: there is no such request, or no longer.
        """
        for request in self.server.in_progress():
            if request.status().id == id:
                request.abort_by_operator()
                return
        raise LookupError(f"request {id} is not in progress")

    def abort_all(self) -> None:
        """End all requests now, each as L{abort} does."""
        for request in list(self.server.in_progress()):
            request.abort_by_operator()

    def _watch_draining(self) -> None:
        """Tell the machine when the draining has ended that it may just have begun."""
        draining, self._data.draining = self._data.draining, None
        if draining is not None:
            draining.addErrback(_log_failure).addCallback(lambda _: self._drained())

    def _drained(self) -> None:
        for stopping in self._machine.drained():
            stopping.callback(None)


def listeners_of(service: object) -> Iterator[ListenerService]:
    """All listeners in a tree of services."""
    if isinstance(service, ListenerService):
        yield service
    elif IServiceCollection.providedBy(service):
        for child in service:
            yield from listeners_of(child)


def _log_failure(failure: Failure) -> None:
    _log.failure("a listener failed", failure)
