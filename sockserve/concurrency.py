"""
Concurrency: the places where blocking handlers run: threads or child processes.

This room owns how many run at once, who waits, and starting and ending workers.  It
must not know what a job serves.  (Coroutine handlers need no place: they run where
the reactor runs.)

All bookkeeping happens on the reactor thread, so there is no lock on it: a job is
handed to a worker only when there is a free one, and the worker's last act is a call
back to the reactor, which hands out the next.
"""

from __future__ import annotations

import itertools
import os
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from sockserve.interfaces import ConfigurationError, IConcurrency, IJob, Outcome

__all__ = [
    "DEFAULT_MAX_CHILDREN",
    "DEFAULT_THREADS",
    "ForkConcurrency",
    "ThreadConcurrency",
    "make_concurrency",
    "serve_guarded",
]

#: A blocking stream handler keeps its thread as long as its connection lasts, so a
#: few hundred: what fits comfortably in memory (8 MiB of address space each, some
#: tens of KiB resident).
DEFAULT_THREADS = 256

#: C{socketserver.ForkingMixIn.max_children}.
DEFAULT_MAX_CHILDREN = 40

#: How long an idle worker thread is kept.  10 s: long enough to bridge the pauses of a
#: busy server, short enough that a burst's threads do not stay.
THREAD_IDLE_SECONDS = 10.0

#: How long a job may take before those behind it get threads of their own.  Some ten times
#: what a small HTTP request takes, and too short for a client to notice.
MOMENT_SECONDS = 0.001

_log = Logger()

#: Shared by all pools: a thread's name tells connections of several listeners apart.
_jobs = itertools.count(1)


class _Places:
    """Jobs waiting for one of a limited number of places.  Reactor thread only."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self._waiting: deque[IJob] = deque()

    @property
    def waiting(self) -> int:
        """How many jobs wait for a place."""
        return len(self._waiting)

    def run(self, job: IJob) -> None:
        """Start the job, or queue it until there is a place."""
        if self.running < self.limit:
            self._begin(job)
        else:
            self._waiting.append(job)

    def withdraw(self, job: IJob) -> bool:
        """Take a job back that still waits."""
        try:
            self._waiting.remove(job)
        except ValueError:
            return False
        return True

    def _begin(self, job: IJob) -> None:
        self.running += 1
        job.started()
        try:
            self._start(job)
        except OSError as error:  # no process or thread to be had
            self.running -= 1
            try:
                job.failed(error)
            except Exception:
                _log.failure("a job that found no place raised")

    def _ended(self, job: IJob, outcome: Outcome) -> None:
        self.running -= 1
        try:
            job.ended(outcome)
        finally:
            self._begin_waiting()

    def _begin_waiting(self) -> None:
        while self._waiting and self.running < self.limit:
            self._begin(self._waiting.popleft())

    def _start(self, job: IJob) -> None:
        raise NotImplementedError


@implementer(IConcurrency)
class ThreadConcurrency(_Places):
    """
    A private pool of daemon threads that grows on demand and shrinks when idle.

    (The reactor's own pool is shared with DNS look-ups and C{deferToThread}; blocking
    handlers that keep their thread for hours would starve those.)

    Most jobs of some kinds (an HTTP request) are over in a moment, and waking a thread for
    each costs more than they do.  So one thread takes one job after another, and only what
    is left after L{MOMENT_SECONDS} gets threads of its own.

    @param reactor: for C{callFromThread} and C{callLater}.
    @param limit: the most threads there are; 1 is C{serial}.
    """

    def __init__(self, reactor: Any, limit: int = DEFAULT_THREADS) -> None:
        super().__init__(limit)
        self._reactor = reactor
        #: Workers without a job.  They come by themselves, on their own threads; only the
        #: reactor's takes them.
        self.idle: list[_Worker] = []
        self._threads = 0
        #: Jobs to be served, which workers take; and those they are done with, which the
        #: reactor takes.  (Both ends of a deque are safe without a lock.)
        self.ready: deque[IJob] = deque()
        self.done: deque[tuple[IJob, Outcome]] = deque()
        #: Whether the reactor has been told of the latter.  Any thread.
        self.told = False
        #: Jobs begun since the last look, and those that have been served for longer.
        self._young: set[IJob] = set()
        self._lasting: set[IJob] = set()
        self._look: IDelayedCall | None = None

    def kill(self, job: IJob) -> bool:
        """A thread cannot be killed."""
        return False

    def stop(self) -> Deferred[Any]:
        """Let go of idle threads; fires when they are gone."""
        if self._look is not None and not self.running:
            self._look.cancel()
            self._look = None
        leaving = []
        while self.idle:
            worker = self.idle.pop()
            worker.inbox.put(False)
            leaving.append(worker)
        return DeferredList([worker.gone for worker in leaving])

    def collect(self) -> None:
        """Workers are done with jobs."""
        self.told = False
        while self.done:
            job, outcome = self.done.popleft()
            self._young.discard(job)
            self._lasting.discard(job)
            self._ended(job, outcome)

    def _start(self, job: IJob) -> None:
        self.ready.append(job)
        if self._threads - len(self.idle) <= len(self._lasting):  # nobody is about to take it
            try:
                self._wake()
            except OSError:
                self.ready.remove(job)
                raise
        self._young.add(job)
        if self._look is None:
            self._look = self._reactor.callLater(MOMENT_SECONDS, self._look_around)

    def _look_around(self) -> None:
        """A moment has passed: whoever still waits for a thread needs one of its own."""
        self._look = None
        # Before those who are done are collected: they tell by themselves if nothing is.
        left = set(self.ready)
        self.collect()
        for job in self._young - left:
            self._lasting.add(job)
            job.lasts()
        self._young &= left
        for _ in left:
            try:
                self._wake()
            except OSError:  # those there are will come to it
                break
        if self._young or self.ready:
            self._look = self._reactor.callLater(MOMENT_SECONDS, self._look_around)

    def _wake(self) -> None:
        """
        Have one more worker at work, if there may be one.

        @raise OSError: the system has no thread for it.
        """
        # The last that became idle first, so that those a burst left behind retire.
        if self.idle:
            self.idle.pop().inbox.put(True)
        elif self._threads < self.limit:
            worker = _Worker(self, self._reactor)
            try:
                worker.thread.start()
            except RuntimeError as error:
                raise OSError(f"no thread to be had: {error}") from error
            self._threads += 1

    def _bored(self, worker: _Worker) -> None:
        """A worker has had nothing to do for a while; it may have got something since."""
        if worker in self.idle:
            self.idle.remove(worker)
            worker.inbox.put(False)

    def _left(self, worker: _Worker) -> None:
        """A worker's thread is about to end."""
        self._threads -= 1
        worker.thread.join()
        worker.gone.callback(None)


class _Worker:
    """
    One thread of a pool.

    @ivar inbox: wakes it: true to look for jobs, false to leave.
    @ivar gone: fires when its thread has ended.
    """

    def __init__(self, pool: ThreadConcurrency, reactor: Any) -> None:
        self._pool = pool
        self._reactor = reactor
        self.inbox: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.gone: Deferred[None] = Deferred()
        self.thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        """The thread."""
        pool = self._pool
        tell = self._reactor.callFromThread
        while True:
            try:
                job = pool.ready.popleft()
            except IndexError:
                if self._wait():
                    continue
                tell(pool._left, self)
                return
            # Programs tell connections apart by the name of their thread.
            self.thread.name = f"sockserve-{next(_jobs)}"
            outcome = serve_guarded(job)
            pool.done.append((job, outcome))
            del job
            # While others are ready the reactor looks around by itself.
            if not pool.ready and not pool.told:
                pool.told = True
                tell(pool.collect)

    def _wait(self) -> bool:
        """Be idle until woken; false to leave.  The thread."""
        pool = self._pool
        pool.idle.append(self)
        if pool.ready:  # it came in between
            try:
                pool.idle.remove(self)
            except ValueError:  # somebody is waking this worker
                pass
            else:
                return True
        try:
            return self.inbox.get(timeout=THREAD_IDLE_SECONDS)
        except queue.Empty:
            self._reactor.callFromThread(pool._bored, self)
            return self.inbox.get()


def serve_guarded(job: IJob) -> Outcome:
    """
    Serve a job, whatever it raises.  Runs on a worker thread, which must outlive that, or
    in a child, which must leave by its own door.
    """
    try:
        return job.serve()
    except SystemExit:  # as threading: a thread may end itself silently
        return Outcome.OK
    except BaseException:
        _log.failure("serving a request raised past its server's handle_error")
        return Outcome.ERROR


@implementer(IConcurrency)
class ForkConcurrency(_Places):
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

    def __init__(self, reactor: Any, limit: int = DEFAULT_MAX_CHILDREN) -> None:
        if not hasattr(os, "pidfd_open"):
            raise ConfigurationError(
                "concurrency fork: this system has no pidfd_open (Linux 5.3); use threads"
            )
        super().__init__(limit)
        self._reactor = reactor
        self._children: dict[IJob, _Child] = {}
        #: Whoever has descriptors the reactor does not always watch: C{descriptors()}.
        self.owners: WeakSet[Any] = WeakSet()

    def kill(self, job: IJob) -> bool:
        """Kill the child that serves the job."""
        child = self._children.get(job)
        if child is None:
            return False
        child.kill()
        return True

    def stop(self) -> Deferred[Any]:
        """There are no idle children."""
        return DeferredList([])

    def _owned_descriptors(self) -> set[int]:
        """
        What belongs to the parent: other connections, and listening sockets, end when
        the parent ends them, so a child must not hold them open.
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
            _be_the_child(job, self._owned_descriptors())
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
_STATUS = {Outcome.OK: 0, Outcome.ERROR: 1, Outcome.LOST: 2}
_OUTCOME = {status: outcome for outcome, status in _STATUS.items()}


class _Child:
    """One child, as the reactor watches it: readable when it has ended."""

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
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code not in _OUTCOME and not self._killed:
            _log.error("child {pid} ended with {code}", pid=self._pid, code=code)
        self._ended(_OUTCOME.get(code, Outcome.ERROR))

    def connectionLost(self, reason: Any) -> None:
        """The reactor lets go of us at its own end."""

    def kill(self) -> None:
        self._killed = True
        os.kill(self._pid, signal.SIGKILL)

    def close(self) -> None:
        os.close(self._descriptor)


def _be_the_child(job: IJob, owned: set[int]) -> None:
    """Serve in a fresh child.  Does not return."""
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
        status = _STATUS[serve_guarded(job)]
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


def make_concurrency(
    reactor: Any, name: str, *, threads: int | None = None, max_children: int | None = None
) -> IConcurrency:
    """
    The place called C{name}.

    @param name: C{serial}, C{threads} or C{fork}.
    @raise ConfigurationError: there is none of that name.
    """
    if name == "serial":
        return ThreadConcurrency(reactor, 1)
    if name == "threads":
        return ThreadConcurrency(reactor, DEFAULT_THREADS if threads is None else threads)
    if name == "fork":
        return ForkConcurrency(
            reactor, DEFAULT_MAX_CHILDREN if max_children is None else max_children
        )
    raise ConfigurationError(f"concurrency {name!r}: choose serial, threads or fork")
