"""
Bounded executors: a limited number of places for jobs, and the queue for them.

This room owns what every place for blocking handlers has in common.  It must not know what
a job serves, or what runs it.

All bookkeeping happens on the reactor thread, so there is no lock on it: a job begins only
when there is a place for it, and its end is heard of on the reactor thread, which begins
the next.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from operator import methodcaller

from sockserve.core.logs import Topic, log_raised, logger
from sockserve.interfaces import IClientJob, IJob, Outcome

__all__ = ["BoundedExecutor", "call_excepthook", "serve_logged"]

_log = logger(Topic.WORKERS)
_handlers_log = logger(Topic.HANDLERS)


class BoundedExecutor:
    """
    A limited number of places, and jobs that wait for one. (reactor thread)

    @ivar limit: how many jobs run at once, at most.
    @ivar running: how many run now.
    @ivar serve: serves a job where it runs.  A program may put one of its own around it, for what
        each request needs of its thread or child. (worker thread)
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self.serve: Callable[[IJob], Outcome] = methodcaller("serve")
        self._waiting: deque[IJob] = deque()

    @property
    def waiting(self) -> int:
        """How many jobs wait for a place."""
        return len(self._waiting)

    def run(self, job: IJob) -> None:
        """Start the job, or queue it until there is a place."""
        # One that comes while another ends does not overtake those that wait: a client that sends
        # many requests at once would keep all others out.
        if self.running < self.limit and not self._waiting:
            self._begin(job)
        else:
            self._waiting.append(job)
            self._job_queued()

    def withdraw(self, job: IJob) -> bool:
        """
        Take a job back that still waits.

        @return: false when it has started, or was never run.
        """
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
        except Exception:  # those that have ended with it must hear of it, too
            _log.failure("a job raised when it was told of its end")
        finally:
            if self._waiting:
                self._begin_waiting()

    def _begin_waiting(self) -> None:
        while self._waiting and self.running < self.limit:
            job = self._waiting.popleft()
            # Its client may have gone in this very turn of the reactor.
            if IClientJob.providedBy(job) and job.has_left():
                self._drop(job)
            else:
                self._begin(job)

    def _drop(self, job: IClientJob) -> None:
        """Let go of a job that nobody wants any more."""
        try:
            job.client_left()
        except Exception:  # others wait
            _log.failure("a job raised when it was told that its client has left")

    def _job_queued(self) -> None:
        """A job has to wait for a place. (reactor thread)"""

    def _start(self, job: IJob) -> None:
        """
        Have the job served, and L{_ended} called after that.

        @raise OSError: the system has no thread or process for it.
        """
        raise NotImplementedError


def call_excepthook() -> None:
    """Report what nobody has caught, as a thread of the program's own does. (any thread)"""
    kind, value, traceback = sys.exc_info()
    assert kind is not None
    threading.excepthook(
        threading.ExceptHookArgs((kind, value, traceback, threading.current_thread()))
    )


def serve_logged(job: IJob, serve: Callable[[IJob], Outcome] = methodcaller("serve")) -> Outcome:
    """
    Serve a job, and log what it raises: its thread must outlive that, and a child leave by its own
    door. (worker thread)

    @param serve: as L{BoundedExecutor.serve}.
    """
    try:
        return serve(job)
    except SystemExit:  # as threading: a thread may end itself silently
        return Outcome.OK
    except BaseException:
        log_raised(_handlers_log, "serving a request raised past its server's handle_error")
        return Outcome.ERROR
