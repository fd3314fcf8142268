"""
Load: the jobs of a pool, looked at from one moment to the next.

This room owns telling jobs that take long from those that are over in a moment, and whether
more threads would make anything faster.  It must not know threads or what a job serves.
(reactor thread)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IReactorTime

from sockserve.core.clock import clock_of
from sockserve.interfaces import IJob

__all__ = ["BUSY_SHARE", "SHORT_SECONDS", "STALL_SECONDS", "PoolLoad"]

#: Jobs that take less than this are not worth a thread of their own.
SHORT_SECONDS = 0.00025

#: The share of a moment in which the process used the processor that counts as busy: more
#: threads would not make anything faster then.
BUSY_SHARE = 0.8

#: How long jobs may wait for threads that are about to serve and do not.  Ten times as long as a
#: thread may keep the interpreter from others (C{sys.getswitchinterval}).
STALL_SECONDS = 0.05


class PoolLoad:
    """
    The jobs that a pool has begun and not ended, looked at once every moment.

    A job is I{recent} until two looks in a row have found it being served; then it is I{slow}.
    (At the first it may have begun just now.)  Jobs that wait for a thread are recent, too.

    @param clock: where time comes from.
    @param processor_seconds: how much of the processor the process has used.
    @ivar slow: jobs that take long.
    """

    __slots__ = (
        "_clock",
        "_ended",
        "_ended_then",
        "_processor_seconds",
        "_processor_then",
        "_recent",
        "_served",
        "_stalled_since",
        "_then",
        "slow",
    )

    def __init__(self, clock: IReactorTime, processor_seconds: Callable[[], float]) -> None:
        self._clock: IReactorTime = clock_of(clock)
        self._processor_seconds = processor_seconds
        # Jobs that have not ended
        self._recent: set[IJob] = set()
        self.slow: set[IJob] = set()
        #: How many have.
        self._ended = 0
        # At the last look: recent jobs that were being served, how many had ended, the time,
        # and the processor's
        self._served: set[IJob] = set()
        self._ended_then = 0
        self._then = 0.0
        self._processor_then = 0.0
        #: Since when jobs have waited, and none has ended or was found to be served.
        self._stalled_since: float | None = None

    @property
    def has_recent(self) -> bool:
        """Whether there are jobs that may yet turn out to be slow."""
        return bool(self._recent)

    def job_began(self, job: IJob) -> None:
        """A thread will take the job, now or when it is free."""
        self._recent.add(job)

    def job_ended(self, job: IJob) -> bool:
        """
        A thread is done with the job.

        @return: whether that is new.
        """
        jobs = self._recent if job in self._recent else self.slow
        if job not in jobs:
            return False
        self._ended += 1
        jobs.remove(job)
        return True

    def recent_except(self, waiting: Iterable[IJob]) -> set[IJob]:
        """Recent jobs that are being served, when C{waiting} are those that are not."""
        return self._recent.difference(waiting)

    def turn_slow(self, served: set[IJob]) -> set[IJob]:
        """
        Look which jobs take long.

        @param served: jobs that were being served a moment ago and have not been heard of
            since.
        @return: those that are slow from now on.
        """
        served &= self._recent
        stuck = served & self._served
        self._served = served - stuck
        self._recent -= stuck
        self.slow |= stuck
        return stuck

    def remember(self) -> None:
        """Let L{wants_more_threads} count from this moment."""
        self._ended_then = self._ended
        self._then = self._clock.seconds()
        self._processor_then = self._processor_seconds()

    def wants_more_threads(self, waiting: int, at_work: int, served: int) -> bool:
        """
        Whether jobs that wait had better get threads of their own; to be asked at each look.

        @param waiting: how many jobs wait.
        @param at_work: how many threads serve jobs that are not slow, or are about to.
        @param served: how many jobs were found to be served, those that have just turned out to be
            slow among them.
        """
        ended, now = self._ended - self._ended_then, self._clock.seconds()
        since, self._stalled_since = self._stalled_since, None
        if not waiting:
            return False
        # If no thread has come free for them since the last look, they had
        # 1. if those that there are serve, or have turned out to be slow;
        # 2. if those that are about to serve do not come to it.  For a while they may not have had
        #    the processor, and more threads would have it later still.
        if not ended:
            if served > 0 or at_work <= 0:
                return True
            if since is None:
                since = now
            is_stalled = now - since >= STALL_SECONDS
            self._stalled_since = None if is_stalled else since
            return is_stalled
        # Else they had not if
        # 1. jobs are so short that to wake a thread costs more than to wait for one,
        elapsed = now - self._then
        if elapsed * at_work / ended < SHORT_SECONDS:
            return False
        # 2. it is the processor that jobs wait for.
        return self._processor_seconds() - self._processor_then < BUSY_SHARE * elapsed
