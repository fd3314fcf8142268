"""
The watch of a reactor: a thread that asks it again and again whether it still turns.

This room owns when that thread runs, and when the reactor's own is marked as that for the children
that handlers fork on it; and what is found out by asking: that the reactor does not turn, and where
it is stuck, which is logged; and that the system's clock was set back, which its clock
(L{sockserve.core.clock}) has to know.  It must not know what is served.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.base import ReactorBase

from sockserve.core.clock import MonotonicClock, clock_of
from sockserve.core.forking import ThreadRole, mark_thread, this_thread
from sockserve.core.logs import Topic, logger, standard_logger

__all__ = ["STUCK_SECONDS", "ReactorWatch", "StretchCounter", "Watch", "watch_of"]

#: How long the reactor may take for a turn before that is logged.  1 s: what a person notices.
STUCK_SECONDS = 1.0

#: How often the reactor is asked.  A quarter of that, so that what is stuck a little longer is
#: found; it takes a ten-thousandth of a processor.
ASK_SECONDS = 0.25

#: The share of a time in which the process did not run, but the reactor's thread did, by which
#: one knows that it let nobody else run.
HELD_SHARE = 0.5

_log = logger(Topic.SERVICE)
_standard_log = standard_logger(Topic.SERVICE)


class Watch(Protocol):
    """The watch of a reactor, kept as long as it is held. (reactor thread, or before it runs)"""

    def hold(self) -> None:
        """Watch, from when the reactor runs."""

    def release(self) -> None:
        """Undo one L{hold}."""


class _NoWatch:
    """The watch of a clock that stands for a reactor."""

    def hold(self) -> None:
        """Do nothing."""

    def release(self) -> None:
        """Do nothing."""


class StretchCounter:
    """
    The time in which the reactor has not answered, counted by one who looks every so often.

    That one may itself be kept from looking.  If the whole process was stopped meanwhile, or the
    machine slept, that time is nobody's fault, and does not count; if it was the reactor's thread
    that computed, and let no other run, it does.

    @param seconds: gives the time.
    @param used: gives how much of the processor the reactor's thread has used, in seconds.
    @ivar stuck: how many seconds this stretch has lasted.
    @ivar is_held: whether it is such that no other thread has run.
    """

    def __init__(self, seconds: Callable[[], float], used: Callable[[], float]) -> None:
        self._seconds = seconds
        self._used = used
        self._looked_at = seconds()
        self._used_then = used()
        self._told = False
        self.stuck = 0.0
        self.is_held = False

    def look(self, answered: bool) -> bool:
        """
        Look once more.

        @param answered: whether the reactor has answered since the last look.
        @return: whether it has just been stuck for too long; once a stretch.
        """
        now, used = self._seconds(), self._used()
        elapsed, computed = now - self._looked_at, used - self._used_then
        self._looked_at, self._used_then = now, used
        is_late = elapsed >= 2 * ASK_SECONDS
        self.is_held = is_late and computed >= HELD_SHARE * elapsed
        if answered:
            self.stuck = 0.0
            self._told = False
        # Nobody could look since: if it has answered, then before that.
        if self.is_held or not (answered or is_late):
            self.stuck += elapsed
        if self.stuck < STUCK_SECONDS or self._told:
            return False
        self._told = True
        return True


class ReactorWatch:
    """The watch of a real reactor."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._clock = clock_of(reactor)
        self._holders = 0
        # While it is held, and the reactor runs
        #: The reactor's; 0 at other times.
        self._reactors_thread = 0
        #: What the reactor's thread did before: a handler may run one.
        self._role_before: ThreadRole | None = None
        #: The one that asks; None also when there was none to be had.
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        #: Whether the reactor has turned since it was last asked; set by it, and cleared by the
        #: thread that asks.
        self._answered = True

    def hold(self) -> None:
        """Watch, from when the reactor runs. (reactor thread, or before it runs)"""
        self._holders += 1
        if self._holders == 1:
            self._reactor.callWhenRunning(self._begin)

    def release(self) -> None:
        """Undo one L{hold}. (reactor thread, or before it runs)"""
        self._holders -= 1
        if self._holders or not self._reactors_thread:
            return
        mark_thread(self._role_before)
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._thread = None
        self._reactors_thread = 0

    def _begin(self) -> None:
        """Begin to watch: the reactor runs."""
        if not self._holders or self._reactors_thread:
            return
        self._reactors_thread = threading.get_ident()
        self._role_before = this_thread.role
        mark_thread(ThreadRole.REACTOR)
        self._begin_to_ask()

    def _begin_to_ask(self) -> None:
        self._ended = threading.Event()
        self._answered = True
        thread = threading.Thread(target=self._ask, name="sockserve watch", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there is no thread to be had, and requests need them more
            return
        self._thread = thread

    def _turned(self) -> None:
        """Note that the reactor turns. (reactor thread)"""
        self._answered = True
        if isinstance(self._clock, MonotonicClock):
            self._clock.look_for_step()

    def _ask(self) -> None:
        """Ask, until nobody holds the watch or the reactor has ended. (worker thread)"""
        ended = self._ended
        counter = StretchCounter(time.monotonic, _processor_seconds(self._reactors_thread))
        while not ended.wait(ASK_SECONDS) and self._reactor.running:
            answered = self._answered
            if counter.look(answered) and (counter.is_held or not self._answered):
                self._report(counter.stuck)
            if answered:
                self._answered = False
                self._reactor.callFromThread(self._turned)

    def _report(self, seconds: float) -> None:
        """Log where the reactor is. (worker thread)"""
        frame = sys._current_frames().get(self._reactors_thread)
        if frame is None or not self._reactor.running:
            return
        stack = "".join(traceback.format_stack(frame)).rstrip()
        if sys.modules.get("twisted.internet.reactor") is self._reactor:
            _log.warn(
                "the reactor has not turned for {seconds:.1f} s, and serves nobody; it is at\n"
                "{stack}",
                seconds=seconds,
                stack=stack,
            )
        else:  # a program that knows nothing of Twisted's log
            _standard_log.warning(
                "the reactor has not turned for %.1f s, and serves nobody; it is at\n%s",
                seconds,
                stack,
            )


def _processor_seconds(thread: int) -> Callable[[], float]:
    """How much of the processor a thread has used, where the system tells."""
    try:
        clock = time.pthread_getcpuclockid(thread)
        time.clock_gettime(clock)
    except (AttributeError, OSError):
        return lambda: 0.0
    return lambda: time.clock_gettime(clock)


def watch_of(reactor: Any) -> Watch:
    """The watch of a reactor: the same one for all who ask. (reactor thread, or before it runs)"""
    if not isinstance(reactor, ReactorBase):
        return _NoWatch()
    watch = _watches.get(reactor)
    if watch is None:
        watch = _watches[reactor] = ReactorWatch(reactor)
    return watch


#: Of each reactor, which lasts as long as its process.
_watches: dict[ReactorBase, ReactorWatch] = {}
