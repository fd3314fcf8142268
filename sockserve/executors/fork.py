"""
Forking: a child process for each blocking handler.

This room owns starting, watching and ending children.  It must not know what a job serves.
(reactor thread)
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol
from weakref import WeakSet

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from sockserve.core.forking import note_child
from sockserve.core.logs import Topic, logger
from sockserve.executors.base import BoundedExecutor, serve_logged
from sockserve.interfaces import ConfigurationError, IExecutor, IJob, Outcome

__all__ = ["DEFAULT_MAX_CHILDREN", "DescriptorOwner", "ForkExecutor"]

#: C{socketserver.ForkingMixIn.max_children}.
DEFAULT_MAX_CHILDREN = 40

_log = logger(Topic.WORKERS)


class DescriptorOwner(Protocol):
    """A holder of descriptors that are the parent's alone: a server, with its connections."""

    def descriptors(self) -> Iterator[int]:
        """All that are open now; a negative number is none. (reactor thread)"""


@implementer(IExecutor)
class ForkExecutor(BoundedExecutor):
    """
    A child process for each request.

    The child gets a copy of everything but touches nothing of the reactor's: it
    closes the descriptors the reactor watches, restores the signal handlers, serves,
    and leaves by C{os._exit}.  The parent learns of its end through a pidfd, so it
    works on any thread and leaves SIGCHLD alone.

    @param reactor: watches the pidfds.
    @param limit: the most children there are.
    @raise ConfigurationError: the system has no C{pidfd_open} (Linux 5.3).
    """

    def __init__(self, reactor: IReactorFDSet, limit: int = DEFAULT_MAX_CHILDREN) -> None:
        if not hasattr(os, "pidfd_open"):
            raise ConfigurationError(
                "concurrency fork: this system has no pidfd_open (Linux 5.3); use threads"
            )
        super().__init__(limit)
        self._reactor = reactor
        self._children: dict[IJob, _Child] = {}
        #: What has descriptors that the reactor does not always watch, given by its method
        #: C{descriptors}.
        self.owners: WeakSet[DescriptorOwner] = WeakSet()

    def kill(self, job: IJob) -> bool:
        """
        Kill the child that serves the job.

        @return: false when there is none.
        """
        child = self._children.get(job)
        if child is None:
            return False
        child.kill()
        return True

    def stop(self) -> Deferred[Any]:
        """Let go of idle children, of which there are none."""
        return DeferredList([])

    def _owned_descriptors(self) -> set[int]:
        """
        The descriptors that belong to the parent: other connections, and listening sockets,
        end when the parent ends them, so a child must not hold them open.
        """
        watched = {*self._reactor.getReaders(), *self._reactor.getWriters()}
        owned = {selectable.fileno() for selectable in watched}
        for owner in self.owners:
            owned.update(owner.descriptors())
        return {descriptor for descriptor in owned if descriptor >= 0}

    def _start(self, job: IJob) -> None:
        # What is buffered would otherwise be written twice.
        _flush()
        pid = os.fork()
        if pid == 0:
            _be_the_child(job, self.serve, self._owned_descriptors())
        try:
            child = _Child(pid, lambda outcome: self._reaped(job, outcome))
        except OSError:  # no descriptor to watch it by
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._children[job] = child
        self._reactor.addReader(child)
        job.forked()

    def _reaped(self, job: IJob, outcome: Outcome) -> None:
        self._reactor.removeReader(self._children[job])
        self._children.pop(job).close()
        self._ended(job, outcome)


#: The exit statuses of children.  0 and 1 are those of C{socketserver.ForkingMixIn}'s.
_STATUS = {Outcome.OK: 0, Outcome.ERROR: 1, Outcome.LOST: 2, Outcome.REFUSED: 3}
_OUTCOME = {status: outcome for outcome, status in _STATUS.items()}


@implementer(IReadDescriptor)
class _Child:
    """
    One child, as the reactor watches it: readable when it has ended.

    @param ended: called with the outcome that its exit status tells.
    """

    def __init__(self, pid: int, ended: Callable[[Outcome], None]) -> None:
        self._pid = pid
        self._descriptor = os.pidfd_open(pid)
        self._ended = ended
        self._killed = False

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return f"child {self._pid}"

    def doRead(self) -> None:
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if not pid:  # it was another's descriptor that the reactor has heard of
            return
        code = os.waitstatus_to_exitcode(status)
        if code not in _OUTCOME and not self._killed:
            _log.error("child {pid} ended with {code}", pid=self._pid, code=code)
        self._ended(_OUTCOME.get(code, Outcome.ERROR))

    def connectionLost(self, reason: Failure) -> None:
        """Let the child live on: the reactor ends, and watches it no more."""

    def kill(self) -> None:
        self._killed = True
        os.kill(self._pid, signal.SIGKILL)

    def close(self) -> None:
        os.close(self._descriptor)


def _be_the_child(job: IJob, serve: Callable[[IJob], Outcome], owned: set[int]) -> None:
    """
    Serve in a fresh child.  Does not return. (worker thread)

    @param owned: descriptors of the parent's to close.
    """
    note_child()
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        # The reactor's own table is left alone: the kernel side of it is shared.
        for descriptor in owned - {0, 1, 2, *getattr(job, "descriptors", ())}:
            try:
                os.close(descriptor)
            except OSError:
                pass
        status = _STATUS[serve_logged(job, serve)]
    except BaseException:
        _log.failure("a child came to no end of its own")
    finally:
        try:
            _flush()
        finally:
            os._exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # none, full, or closed
            pass
