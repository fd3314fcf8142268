"""
Threads: the pool where blocking handlers run by default.

This room owns when a thread is started, woken and let go.  It must not know what a job
serves.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sockserve.executors.base import BoundedExecutor, serve_guarded
from sockserve.interfaces import IExecutor, IJob, Outcome

__all__ = ["DEFAULT_THREADS", "SLOW_JOB_SECONDS", "ThreadExecutor"]

#: A blocking stream handler keeps its thread as long as its connection lasts, so a
#: few hundred: what fits comfortably in memory (8 MiB of address space each, some
#: tens of KiB resident).
DEFAULT_THREADS = 256

#: How long an idle worker thread is kept.  10 s: long enough to bridge the pauses of a
#: busy server, short enough that a burst's threads do not stay.
THREAD_IDLE_SECONDS = 10.0

#: How long a job may take before those behind it get threads of their own.  Some ten times
#: what a small HTTP request takes, and too short for a client to notice.
SLOW_JOB_SECONDS = 0.001

#: Jobs that take less than this are not worth a thread of their own.
SHORT_SECONDS = 0.00025

#: The share of a moment in which the process used the processor that counts as busy: more
#: threads would not make anything faster then.
BUSY_SHARE = 0.8

_log = Logger()

_T = TypeVar("_T")

#: Shared by all pools: a thread's name tells connections of several listeners apart.
_jobs = itertools.count(1)


@implementer(IExecutor)
class ThreadExecutor(BoundedExecutor):
    """
    A private pool of daemon threads that grows on demand and shrinks when idle.

    (The reactor's own pool is shared with DNS look-ups and C{deferToThread}; blocking
    handlers that keep their thread for hours would starve those.)

    Most jobs of some kinds (an HTTP request) are over in a moment, and waking a thread for
    each costs more than they do.  So one thread takes one job after another, and what is
    left after L{SLOW_JOB_SECONDS} gets threads of its own: if that one thread is stuck, or the
    processor has time to spare.

    @param reactor: for C{callFromThread} and C{callLater}.
    @param limit: the most threads there are; 1 is C{serial}.
    """

    def __init__(self, reactor: Any, limit: int = DEFAULT_THREADS) -> None:
        super().__init__(limit)
        self._reactor = reactor
        #: Workers without a job.  They come by themselves, on their own threads; only the
        #: reactor's takes them.
        self.idle: list[_Worker] = []
        self._workers: set[_Worker] = set()
        #: Jobs to be served, which workers take; and those they are done with, which the
        #: reactor takes.  (Both ends of a deque are safe without a lock.)
        self.ready: deque[IJob] = deque()
        self.done: deque[tuple[IJob, Outcome]] = deque()
        #: Whether the reactor has been told of the latter.  Any thread.
        self.told = False
        #: Jobs begun since the last look, and those that have been served for longer.
        self._recent: set[IJob] = set()
        self._slow: set[IJob] = set()
        #: Of the young, those that were being served at the last look.
        self._running: set[IJob] = set()
        #: How many jobs have ended; and at the last look, the time and what the process had
        #: used of the processor.
        self._served = self._served_then = 0
        self._then = 0.0
        self._cpu_then = 0.0
        #: Whether it was stopped while jobs ran.
        self._retiring = False
        self._look: IDelayedCall | None = None
        self._waking: IDelayedCall | None = None

    @property
    def threads(self) -> int:
        """How many threads there are now."""
        return len(self._workers)

    def has_thread(self, thread: threading.Thread) -> bool:
        """Whether C{thread} is one of its own.  Any thread."""
        return any(worker.thread is thread for worker in tuple(self._workers))

    def kill(self, job: IJob) -> bool:
        """A thread cannot be killed."""
        return False

    def stop(self) -> Deferred[Any]:
        """
        Let go of threads, of those at work when they are done; fires when those that were
        idle are gone.
        """
        self._retiring = bool(self.running)
        if not self.running:
            for call in (self._look, self._waking):
                if call is not None:
                    call.cancel()
            self._look = self._waking = None
        # With no job left, those that are not idle yet are about to be.
        leaving = [] if self.running else list(self._workers)
        while (worker := self._take_idle()) is not None:
            if self.running:
                leaving.append(worker)
        for worker in leaving:
            worker.inbox.put(False)
        return DeferredList([worker.gone for worker in leaving])

    def join(self) -> None:
        """
        Wait until threads at work are done with what they are at.  Any thread, but only when
        the reactor does not run any more.
        """
        workers = [each for each in self._workers if each.thread is not threading.current_thread()]
        for worker in workers:
            worker.inbox.put(False)
        for worker in workers:
            worker.thread.join()

    def call(self, function: Callable[..., _T], *arguments: Any) -> Deferred[_T]:
        """
        Call a function that may block on one of the threads.  (What
        C{twisted.internet.threads.deferToThreadPool} does, without a thread woken for each
        call: three times as many small files a second.)

        @return: a Deferred that fires with what it returns or raises.
        """
        job = _Call(function, arguments)
        self.run(job)
        return job.result

    def collect(self) -> None:
        """Workers are done with jobs."""
        self.told = False
        while self.done:
            job, outcome = self.done.popleft()
            self._served += 1
            self._recent.discard(job)
            self._slow.discard(job)
            self._ended(job, outcome)
        if self._retiring and not self.running:
            self.stop()

    def _start(self, job: IJob) -> None:
        self._retiring = False
        if not self._workers:
            self._wake()
        self.ready.append(job)
        self._recent.add(job)
        if self._waking is None and len(self._workers) - len(self.idle) <= len(self._slow):
            # Nobody is about to take it.  A thread that is woken now would have to share the
            # interpreter with the rest of this turn.
            self._waking = self._reactor.callLater(0, self._wake_one)
        if self._look is None:
            self._remember()
            self._look = self._reactor.callLater(SLOW_JOB_SECONDS, self._rebalance)

    def _wake_one(self) -> None:
        self._waking = None
        if self.ready:
            try:
                self._wake()
            except OSError:  # those there are will come to it
                pass

    def _remember(self) -> None:
        """How things are at this moment."""
        self._served_then = self._served
        self._then = self._reactor.seconds()
        self._cpu_then = time.process_time()

    def _rebalance(self) -> None:
        """A moment has passed: who is stuck, and who waits because of that?"""
        self._look = None
        # Before those who are done are collected: they tell by themselves if nothing is.
        waiting = set(self.ready)
        served = self._recent - waiting
        self.collect()  # may begin others
        # Served now and a moment ago.
        served &= self._recent
        stuck = served & self._running
        self._running = served - stuck
        self._recent -= stuck
        for job in stuck:
            self._slow.add(job)
            try:
                job.runs_long()
            except Exception:
                _log.failure("a job raised when it was told that it lasts")
        if waiting and self._need_more():
            for _ in waiting.intersection(self.ready):
                try:
                    self._wake()
                except OSError:  # those there are will come to it
                    break
        self._remember()
        if self._look is None and (self._recent or self.ready):
            self._look = self._reactor.callLater(SLOW_JOB_SECONDS, self._rebalance)

    def _need_more(self) -> bool:
        """
        Whether those who wait had better get threads of their own: if nobody is done since
        the last look; or jobs take their time, and not the processor's.
        """
        served = self._served - self._served_then
        if not served:
            return True
        elapsed = self._reactor.seconds() - self._then
        at_work = len(self._workers) - len(self.idle) - len(self._slow)
        if elapsed * at_work / served < SHORT_SECONDS:
            return False
        return bool(time.process_time() - self._cpu_then < BUSY_SHARE * elapsed)

    def _wake(self) -> None:
        """
        Have one more worker at work, if there may be one.

        @raise OSError: the system has no thread for it.
        """
        idle = self._take_idle()
        if idle is not None:
            idle.inbox.put(True)
        elif len(self._workers) < self.limit:
            worker = _Worker(self, self._reactor)
            self._workers.add(worker)  # first: its job may ask L{has_thread} at once
            try:
                worker.thread.start()
            except RuntimeError as error:
                self._workers.discard(worker)
                raise OSError(f"no thread to be had: {error}") from error

    def _take_idle(self) -> _Worker | None:
        """One of the idle, who is told by C{inbox} what to do; none, if there is none."""
        try:
            # The last that became idle first, so that those a burst left behind retire.
            return self.idle.pop()
        except IndexError:
            return None

    def take_out(self, worker: _Worker) -> bool:
        """Take C{worker} out of the idle; false if another thread has.  Any thread."""
        try:
            self.idle.remove(worker)
        except ValueError:
            return False
        return True

    def _retire_idle(self, worker: _Worker) -> None:
        """A worker has had nothing to do for a while; it may have got something since."""
        if self.take_out(worker):
            worker.inbox.put(False)

    def _worker_exited(self, worker: _Worker) -> None:
        """A worker's thread is about to end."""
        self._workers.discard(worker)
        worker.thread.join()
        worker.gone.callback(None)


@implementer(IJob)
class _Call:
    """A function to be called on a thread."""

    __slots__ = ("_arguments", "_function", "_outcome", "result")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._function = function
        self._arguments = arguments
        self._outcome: Any = None
        self.result: Deferred[Any] = Deferred()

    def serve(self) -> Outcome:
        """The thread."""
        try:
            self._outcome = self._function(*self._arguments)
        except BaseException:
            self._outcome = Failure()
        return Outcome.OK

    def ended(self, outcome: Outcome) -> None:
        """It has returned, or raised."""
        self.result.callback(self._outcome)

    def failed(self, error: OSError) -> None:
        """There is no thread to be had."""
        self.result.errback(Failure(error))

    def started(self) -> None:
        """Nothing depends on it."""

    def runs_long(self) -> None:
        """Nothing depends on it."""

    def forked(self) -> None:
        """Threads do not."""


class _Worker:
    """
    One thread of a pool.

    @ivar inbox: wakes it: true to look for jobs, false to leave.
    @ivar gone: fires when its thread has ended.
    """

    def __init__(self, pool: ThreadExecutor, reactor: Any) -> None:
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
                tell(pool._worker_exited, self)
                return
            # Programs tell connections apart by the name of their thread.
            self.thread.name = f"sockserve-{next(_jobs)}"
            # As in a thread of its own: what one sets for its time the next does not see.
            outcome = Context().run(serve_guarded, job)
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
        # A job that came in between; unless somebody is waking this worker for it.
        if pool.ready and pool.take_out(self):
            return True
        try:
            woken = self.inbox.get(timeout=THREAD_IDLE_SECONDS)
        except queue.Empty:
            self._reactor.callFromThread(pool._retire_idle, self)
            woken = self.inbox.get()
        if not woken:
            pool.take_out(self)
        return woken
