"""
Threads: the pool where blocking handlers run by default.

This room owns when a thread is started, woken and let go, which is told of in L{ThreadExecutor}.
It must not know what a job serves, or how the load is judged (L{sockserve.executors.load}).
(reactor thread, but where a method says otherwise)
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
from zope.interface import implementer

from sockserve.core.clock import clock_of
from sockserve.core.forking import ThreadRole, end_child, is_child, mark_thread
from sockserve.core.logs import Topic, logger
from sockserve.core.reactors import Cancellable, IReactor, turn_end_of
from sockserve.executors.base import BoundedExecutor, serve_logged
from sockserve.executors.call import Call
from sockserve.executors.load import PoolLoad
from sockserve.interfaces import IExecutor, IJob, Outcome

__all__ = ["DEFAULT_THREADS", "SLOW_JOB_SECONDS", "THREAD_IDLE_SECONDS", "ThreadExecutor"]

#: A blocking stream handler keeps its thread as long as its connection lasts, so a
#: few hundred: what fits comfortably in memory (8 MiB of address space each, some
#: tens of KiB resident).
DEFAULT_THREADS = 256

#: How long an idle worker thread is kept, where nobody says by C{idle_seconds}.  10: long enough to
#: bridge the pauses of a busy server, short enough that a burst's threads do not stay.
THREAD_IDLE_SECONDS = 10.0

#: How long a job may take before those behind it get threads of their own.  Some ten times
#: what a small HTTP request takes, and too short for a client to notice.  No setting: nothing
#: ends by it, and what is short does not depend on clients.
SLOW_JOB_SECONDS = 0.001

_log = logger(Topic.WORKERS)

_T = TypeVar("_T")

#: Shared by all pools: a thread's name tells connections of several listeners apart.
_jobs = itertools.count(1)


def _do_nothing() -> None:
    """What is called where a program has set nothing else."""


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

    A worker's life; I{(r)} marks what the reactor thread does, the rest is the worker's own::

        (r) _wake: none is idle
                    |
                    v     no job is ready          idle_seconds have passed
                 AT WORK ----------------> IDLE ----------------------------> RETIRING
                    ^                      | |                                |      |
                    |      (r) _wake, or a | | (r) stop                       |      |
                    | job came in between  | |           (r) _retire_idle:    |      |
                    +----------------------+ |           nothing came since   |      |
                    ^                        v                                |      |
                    |                     LEAVING <---------------------------+      |
                    |                        | (r) _worker_exited                    |
                    |                        v                      (r) _wake before |
                    |                      GONE                         that         |
                    +----------------------------------------------------------------+

    AT WORK: it takes jobs from C{ready} and puts them into C{done}, which the reactor looks
    through.  IDLE and RETIRING: it waits at its C{inbox} for true, to work, or false, to leave.
    It is in C{idle} then, and is told to work only by the reactor having taken it out of there,
    so no two jobs count on it.  (C{stop} without a job left, and C{join}, tell all to leave,
    wherever they are.)

    @param reactor: the reactor that jobs come from.
    @param limit: the most threads there are; 1 is C{serial}.
    @param idle_seconds: how long a thread without a job is kept.
    @param processor_seconds: how much of the processor the process has used.
    """

    def __init__(
        self,
        reactor: IReactor,
        limit: int = DEFAULT_THREADS,
        *,
        idle_seconds: float = THREAD_IDLE_SECONDS,
        processor_seconds: Callable[[], float] = time.process_time,
    ) -> None:
        super().__init__(limit)
        self._reactor = reactor
        self._clock = clock_of(reactor)
        self._call_at_turn_end = turn_end_of(reactor)
        self.idle_seconds = idle_seconds

        # Shared with the workers, without a lock: both ends of a deque are safe, as are a
        # list's pop and remove.
        #: Workers without a job.  They come by themselves, on their own threads; only the
        #: reactor's takes them.
        self.idle: list[_Worker] = []
        #: Jobs to be served, which workers take.
        self.ready: deque[IJob] = deque()
        #: Jobs that workers are done with, which the reactor takes.
        self.done: deque[tuple[IJob, Outcome]] = deque()
        #: Whether the reactor has been told of these.
        self.told = False
        #: Called on each thread when that is about to end; a program may set one of its own.
        self.at_thread_end: Callable[[], object] = _do_nothing

        # The reactor thread's own
        self._workers: set[_Worker] = set()
        #: Those of them that have been told to leave.
        self._leaving: set[_Worker] = set()
        self._load = PoolLoad(reactor, processor_seconds)
        #: The next look at the load, while there may be something to see.
        self._look: IDelayedCall | None = None
        #: The end of this turn, when a worker is to be woken.
        self._waking: Cancellable | None = None
        #: Whether it was stopped while jobs ran.
        self._retiring = False

    @property
    def threads(self) -> int:
        """How many threads there are now."""
        return len(self._workers)

    def has_thread(self, thread: threading.Thread) -> bool:
        """Whether C{thread} is one of its own. (any thread)"""
        return any(worker.thread is thread for worker in tuple(self._workers))

    def kill(self, job: IJob) -> bool:
        """Answer that a thread cannot be killed. (reactor thread)"""
        return False

    def stop(self) -> Deferred[Any]:
        """
        Let go of threads, of those at work when they are done.

        @return: a Deferred that fires when those that were idle are gone. (reactor thread)
        """
        self._retiring = bool(self.running)
        if not self.running:
            calls: list[Cancellable | None] = [self._look, self._waking]
            for call in calls:
                if call is not None:
                    call.cancel()
            self._look = self._waking = None
        # With no job left, those that are not idle yet are about to be.
        leaving = [] if self.running else list(self._workers)
        while (worker := self._take_idle()) is not None:
            if self.running:
                leaving.append(worker)
        for worker in leaving:
            self._let_go(worker)
        return DeferredList([worker.gone for worker in leaving])

    def join(self) -> None:
        """
        Wait until threads at work are done with what they are at; only when the reactor does
        not run any more. (any thread)
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

        @return: a Deferred that fires with what it returns or raises. (reactor thread)
        """
        job = Call(function, arguments)
        self.run(job)
        return job.result

    def collect(self) -> None:
        """Take the jobs that workers are done with. (reactor thread)"""
        self.told = False
        while self.done:
            job, outcome = self.done.popleft()
            if self._load.job_ended(job):
                self._ended(job, outcome)
        if self._retiring and not self.running:
            self.stop()

    def _start(self, job: IJob) -> None:
        self._retiring = False
        if not self._workers:
            self._wake()
        self.ready.append(job)
        self._load.job_began(job)
        if self._waking is None and self._at_work() <= 0:
            # Nobody is about to take it.  A thread that is woken now would have to share the
            # interpreter with the rest of this turn.
            self._waking = self._call_at_turn_end(self._wake_one)
        if self._look is None:
            self._load.remember()
            self._look = self._clock.callLater(SLOW_JOB_SECONDS, self._look_around)

    def _at_work(self) -> int:
        """
        How many threads are about to take one more job: not idle, with no slow one, and not about
        to leave, which a program may make last.
        """
        others = len(self.idle) + len(self._load.slow) + len(self._leaving)
        return len(self._workers) - others

    def _wake_one(self) -> None:
        """Wake a worker at the end of a turn, if no other has taken all by then."""
        self._waking = None
        if self.ready:
            self._wake_for(1)

    def _look_around(self) -> None:
        """A moment has passed: tell jobs that are stuck, and help those that wait."""
        self._look = None
        # Before those who are done are collected: they tell by themselves if nothing is.
        waiting = set(self.ready)
        served = self._load.recent_except(waiting)
        serving = len(served)
        self.collect()  # may begin others
        for job in self._load.turn_slow(served):
            try:
                job.runs_long()
            except Exception:
                _log.failure("a job raised when it was told that it lasts")
        if self._load.wants_more_threads(len(waiting), self._at_work(), serving):
            self._wake_for(len(waiting.intersection(self.ready)))
        self._load.remember()
        if self._look is None and (self._load.has_recent or self.ready):
            self._look = self._clock.callLater(SLOW_JOB_SECONDS, self._look_around)

    def _wake_for(self, jobs: int) -> None:
        """Wake a worker for each of so many jobs, as far as the system has threads."""
        for _ in range(jobs):
            try:
                self._wake()
            except OSError:  # those there are will come to it
                break

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
        """One of the idle, for the caller to tell by its C{inbox} what to do; or None."""
        try:
            # The last that became idle first, so that those a burst left behind retire.
            return self.idle.pop()
        except IndexError:
            return None

    def take_out(self, worker: _Worker) -> bool:
        """
        Take C{worker} out of the idle.

        @return: false if the reactor has done so, and tells it what to do. (any thread)
        """
        try:
            self.idle.remove(worker)
        except ValueError:
            return False
        return True

    def _retire_idle(self, worker: _Worker) -> None:
        """Let a worker leave that has had nothing to do for a while, unless it has since."""
        if self.take_out(worker):
            self._let_go(worker)

    def _let_go(self, worker: _Worker) -> None:
        """Tell a worker to leave."""
        self._leaving.add(worker)
        worker.inbox.put(False)

    def _worker_exited(self, worker: _Worker) -> None:
        """Forget a worker whose thread is about to end."""
        self.collect()
        self.take_out(worker)  # it may have died there
        self._workers.discard(worker)
        self._leaving.discard(worker)
        worker.thread.join()
        worker.gone.callback(None)


class _WorkerThread(threading.Thread):
    """
    A worker's thread.  Programs tell connections apart by the name of their thread, so it has
    another one for each job: made when it is asked for.

    @ivar number: the job's.
    @ivar given_name: what the job has named it; None for nothing.
    """

    number = 0
    given_name: str | None = None

    @property
    def _name(self) -> str:
        """Where C{threading} keeps the name."""
        given = self.given_name
        return f"sockserve-{self.number}" if given is None else given

    @_name.setter
    def _name(self, name: str) -> None:
        self.given_name = name


class _Worker:
    """
    One thread of a pool; its life is drawn in L{ThreadExecutor}.

    @ivar inbox: ends its idleness: true to look for jobs, false to leave.
    @ivar gone: fires when its thread has ended.
    """

    def __init__(self, pool: ThreadExecutor, reactor: IReactor) -> None:
        self._pool = pool
        self._reactor = reactor
        self.inbox: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.gone: Deferred[None] = Deferred()
        self.thread = _WorkerThread(target=self._work, daemon=True)

    def _work(self) -> None:
        """Take jobs until there is nothing to do for too long. (worker thread)"""
        pool, thread = self._pool, self.thread
        tell = self._reactor.callFromThread
        mark_thread(ThreadRole.WORKER)
        job: IJob | None = None
        try:
            while True:
                try:
                    job = pool.ready.popleft()
                except IndexError:
                    if self._wait():
                        continue
                    break
                thread.number, thread.given_name = next(_jobs), None
                # As in a thread of its own: what one sets for its time the next does not see.
                outcome = Context().run(serve_logged, job, pool.serve)
                if is_child():  # the handler has forked it
                    end_child(outcome)
                pool.done.append((job, outcome))
                job = None
                # While others are ready the reactor looks around by itself.
                if not pool.ready and not pool.told:
                    pool.told = True
                    tell(pool.collect)
            try:
                pool.at_thread_end()
            except Exception:
                _log.failure("what was to be called at a thread's end raised")
        finally:  # another thread may raise something in this one, between any two steps
            if job is not None:  # told once more, perhaps, which is none then
                pool.done.append((job, Outcome.ERROR))
            tell(pool._worker_exited, self)

    def _wait(self) -> bool:
        """
        Be idle until woken.

        @return: false to leave. (worker thread)
        """
        pool = self._pool
        pool.idle.append(self)
        # A job that came in between; unless somebody is waking this worker for it.
        if pool.ready and pool.take_out(self):
            return True
        try:
            woken = self.inbox.get(timeout=pool.idle_seconds)
        except queue.Empty:
            self._reactor.callFromThread(pool._retire_idle, self)
            woken = self.inbox.get()
        if not woken:
            pool.take_out(self)
        return woken
