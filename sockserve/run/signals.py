"""
Signals: what a process that serves does when it is sent one.

This room owns which signals are heeded, and what the first and the second of those that ask for an
end lead to.  It must not know how a service stops, or what is served.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from enum import Enum
from types import FrameType
from typing import Any

from twisted.application.service import IService

from sockserve.core.clock import clock_of
from sockserve.core.in_progress import RequestStatus
from sockserve.core.logs import Topic, logger
from sockserve.core.messages import printable
from sockserve.core.reactors import IReactor
from sockserve.listeners.service import listeners_of

__all__ = ["Signals", "leave_process", "stop_reactor"]

_log = logger(Topic.SERVICE)

#: How long the drain goes on before a line tells what it waits for.  0.2 s: most requests take
#: less.
TELL_AFTER_SECONDS = 0.2

#: How long handlers that were aborted have to clean up before the process ends.  0.5 s: at once, to
#: a person, and enough for what need not wait for others.
LEAVE_AFTER_SECONDS = 0.5

#: How much of a request's name is shown.  A line of a terminal.
_SHOWN_CHARACTERS = 80

#: As a shell tells that a signal has ended a process.
_STATUS_OF_SIGNALS = 128

_ENDS = (signal.SIGINT, signal.SIGTERM)


class _Stage(Enum):
    """The stage of a process on its way to its end."""

    #: No signal has asked for an end.
    SERVING = "serving"
    #: One has: no more is taken, and requests finish.
    DRAINING = "draining"
    #: Two have: requests are aborted, and the process ends.
    ENDING = "ending"


class Signals:
    """
    The signals of a process that serves.

    The first SIGINT or SIGTERM has the service drained, and a line of the log tells of the requests
    that are waited for.  The second aborts those, and ends the process within
    L{LEAVE_AFTER_SECONDS}; the third, in that time, ends it there and then.  A SIGHUP is only
    logged, and a SIGUSR1 is for those who have logs to reopen, and nothing without them.

    A handler of a program's own stays, and so does a signal that is ignored, as SIGHUP under
    C{nohup}.
    """

    def __init__(
        self,
        reactor: IReactor,
        service: IService,
        stop: Callable[[int], object],
        leave: Callable[[int], object] | None = None,
    ) -> None:
        """
        @param service: has the listeners whose requests are waited for, in a tree of any depth.
        @param stop: called with the first signal's number; it has the service stopped. (reactor
            thread)
        @param leave: called with the exit status after the second signal, to end the process; None
            where that is not ours: it goes on when the aborted requests have ended, and finds the
            status in L{exit_status}. (any thread)
        """
        # For good
        self._reactor = reactor
        self._service = service
        self._stop = stop
        self._leave = leave

        # From a signal on
        self._stage = _Stage.SERVING
        #: The exit status that the second signal asks for; None until then.
        self.exit_status: int | None = None

        # While they are heeded
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """
        Heed signals from now on, on the main thread: before services start, as what reopens its log
        calls the handler of SIGUSR1 that it finds.  SIGINT and SIGTERM are heeded again when the
        reactor has begun to run, which puts its own in their place.
        """
        self._heed(signal.SIGHUP, self._hung_up)
        self._heed(signal.SIGUSR1, _ignore)
        self._heed_ends()
        if not self._reactor.running:  # if it does, it may on another thread
            self._reactor.callWhenRunning(self._heed_ends)
        if self._leave is not None:
            self._reactor.addSystemEventTrigger("after", "shutdown", self._all_ended)

    def restore(self) -> None:
        """Heed them no more: what was there before does, on the main thread."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _heed_ends(self) -> None:
        """Heed the signals that ask for an end."""
        for number in _ENDS:
            self._heed(number, self._end_asked)

    def _heed(self, number: signal.Signals, heard: Callable[..., object]) -> None:
        """Have C{heard} called for a signal, if no handler of the program's own is."""
        before = signal.getsignal(number)
        if _is_nobodys(before):
            self._before.setdefault(number, before)
            signal.signal(number, heard)

    # Signals come between any two bytecodes of the main thread.

    def _end_asked(self, number: int, frame: FrameType | None) -> None:
        """SIGINT or SIGTERM has come."""
        if self._stage is _Stage.SERVING:
            self._stage = _Stage.DRAINING
            self._reactor.callFromThread(self._drain, number)
        elif self._stage is _Stage.DRAINING:
            self._stage = _Stage.ENDING
            self.exit_status = _STATUS_OF_SIGNALS + number
            self._reactor.callFromThread(self._abort, number)
            if self._leave is not None:
                self._leave_soon(self._leave, self.exit_status)
        elif self._leave is not None:
            os._exit(_STATUS_OF_SIGNALS + number)

    def _leave_soon(self, leave: Callable[[int], object], status: int) -> None:
        """Leave, whatever the reactor does: what keeps it from its turns is not waited for."""
        timer = threading.Timer(LEAVE_AFTER_SECONDS, leave, (status,))
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # the interpreter is about to end, and waits for other threads
            leave(status)

    def _hung_up(self, number: int, frame: FrameType | None) -> None:
        """SIGHUP has come."""
        self._reactor.callFromThread(
            _log.info, "Received SIGHUP: nothing is reloaded, start anew instead"
        )

    # On the reactor

    def _drain(self, number: int) -> None:
        """Have the service stopped. (reactor thread)"""
        self._stop(number)
        clock_of(self._reactor).callLater(TELL_AFTER_SECONDS, self._tell, number)

    def _tell(self, number: int) -> None:
        """Log what is waited for, if there is something. (reactor thread)"""
        found = [status for each in listeners_of(self._service) for status in each.requests()]
        awaited = [status for status in found if status.stage != "idle"]
        if awaited:
            _log.info(
                "waiting for {requests}; {again} again to end {them}",
                requests=_shown(awaited),
                again="Ctrl-C" if number == signal.SIGINT else _name(number),
                them="it" if len(awaited) == 1 else "them",
            )

    def _abort(self, number: int) -> None:
        """End all requests. (reactor thread)"""
        _log.warn("Received {name} again, ending at once.", name=_name(number))
        for each in listeners_of(self._service):
            each.abort_all()

    def _all_ended(self) -> None:
        """The reactor has stopped, and all services before. (reactor thread)"""
        for number in self._before:
            if number not in _ENDS:  # the interpreter on its way out resets what is not ignored
                signal.signal(number, signal.SIG_IGN)
        if self._leave is not None and self.exit_status is not None:
            self._leave(self.exit_status)


def _is_nobodys(handler: Any) -> bool:
    """Whether a handler is the system's, Python's or the reactor's, and not a program's own."""
    module = getattr(handler, "__module__", None) or ""
    return handler in (signal.SIG_DFL, signal.default_int_handler) or module.startswith("twisted.")


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing: a process without a log to reopen is not to end by SIGUSR1."""


def _name(number: int) -> str:
    """The name of a signal."""
    return signal.Signals(number).name


def _shown(requests: list[RequestStatus]) -> str:
    """Requests in words: how many, and the oldest of them."""
    oldest = max(requests, key=lambda status: status.seconds)
    name = " ".join(oldest.request.split()[:2]) or oldest.handler
    count = "1 request" if len(requests) == 1 else f"{len(requests)} requests"
    return f"{count}, oldest {printable(name[:_SHOWN_CHARACTERS])} {oldest.seconds:.0f} s"


def stop_reactor(reactor: Any) -> bool:
    """
    Stop a reactor, unless it does not run or is about to stop. (reactor thread)

    @return: whether it ran, and nothing had stopped it yet.
    """
    if not reactor.running or reactor._stopped:
        return False
    reactor.stop()
    return True


def leave_process(status: int) -> None:
    """End this process now, whatever its threads do, with what it has printed. (any thread)"""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()  # type: ignore[union-attr]
        except (AttributeError, OSError, ValueError):  # none, full, or closed
            pass
    os._exit(status)
