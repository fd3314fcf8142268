"""
The supervisor of the process that serves, which is started anew when a file has changed.

This room owns the processes, the sockets that go from one to the next, and what signals lead to.
It must not know how requests are served, and imports nothing of the user's.

All that happens is told to one thread by a queue: signals, changes, messages and ends.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

import attrs
import msgspec

from sockserve.core.messages import printable
from sockserve.interfaces import ConfigurationError
from sockserve.reload.files import changed_at
from sockserve.reload.link import (
    VARIABLE,
    Closed,
    Failed,
    Go,
    Handed,
    Kept,
    Link,
    Loaded,
    Message,
    Ready,
    Stop,
)

if TYPE_CHECKING:
    from sockserve.reload.watching import Watch

__all__ = ["supervise"]

#: A listening socket by what it was asked for: its place, and its descriptor here.
_Socket: TypeAlias = tuple[tuple[str, ...], int]

_ENDS = (signal.SIGINT, signal.SIGTERM)
_PASSED_ON = (signal.SIGHUP, signal.SIGUSR1)

#: The number of signals that ask for the end after which children are killed.  They end by the
#: second.
_LAST_SIGNAL = 3

#: As a shell tells that a signal has ended a process.
_STATUS_OF_SIGNALS = 128

#: C{si_code} of a signal that the kernel has sent: a terminal's, to all processes on it.
_SI_KERNEL = 0x80


class _Stage(Enum):
    """The stage of a child."""

    #: It imports what it is to serve, and may be ended at any time.
    STARTING = "starting"
    #: It begins to listen, and may have taken connections.
    OPENING = "opening"
    SERVING = "serving"
    #: It drains, or was ended.
    ENDING = "ending"


@attrs.define(eq=False)
class _Child:
    """
    A process that is to serve, serves, or has served.

    @ivar reason: the change that it was started for, in words; empty for the first.
    @ivar started_at: when, as C{time.time} has it.
    @ivar sockets: those that it has made.
    @ivar replaced_for: the change for which another serves in its place, until it takes no more
        requests, and that is told; empty else.
    """

    process: subprocess.Popen[bytes]
    link: Link
    reason: str
    started_at: float
    stage: _Stage = _Stage.STARTING
    sockets: list[_Socket] = attrs.Factory(list)
    replaced_for: str = ""


def supervise(config: str | None) -> int:
    """
    Serve as this process' own command line says, by a child, and by a new one after each change.

    @param config: the configuration file; its changes count, too.
    @return: the exit status.
    @raise ConfigurationError: watchfiles is not installed.
    """
    try:
        from sockserve.reload.watching import Watch
    except ImportError:
        raise ConfigurationError(
            "reload: watchfiles is not installed; pip install watchfiles, or 'sockserve[reload]'"
        ) from None
    return _Supervisor(config, Watch).run()


class _Supervisor:
    """The processes of one command."""

    def __init__(self, config: str | None, watch: type[Watch]) -> None:
        # For good
        self._command = [sys.executable, *sys.orig_argv[1:]]
        self._config = [] if config is None else [os.path.realpath(config)]
        self._make_watch = watch
        self._events: SimpleQueue[Callable[[], object]] = SimpleQueue()

        # While it serves
        self._sockets: list[_Socket] = []
        #: Those that are no sockets' own.
        self._names: list[tuple[str, ...]] = []
        self._children: list[_Child] = []
        self._watch: Watch | None = None
        #: What has changed since the child that is L{_Stage.OPENING} was started.
        self._changed_meanwhile: list[str] = []

        # From a signal on
        self._signals_heard = 0

        #: The exit status, once there is one.
        self._status: int | None = None

    def run(self) -> int:
        """
        Serve until the end.

        @return: the exit status.
        """
        heeded = [
            each for each in (*_ENDS, *_PASSED_ON) if signal.getsignal(each) is not signal.SIG_IGN
        ]
        signal.pthread_sigmask(signal.SIG_BLOCK, heeded)
        threading.Thread(target=self._wait_for_signals, args=(heeded,), daemon=True).start()
        self._start("")
        while self._status is None or self._children:
            self._events.get()()
        if self._watch is not None:
            self._watch.end()
        return self._status

    # Threads that tell of what happens

    def _wait_for_signals(self, heeded: Iterable[signal.Signals]) -> None:
        while True:
            if sys.platform == "darwin":  # which does not tell whence; a terminal is most likely
                number = signal.sigwait(heeded)
                is_known = number == signal.SIGINT and os.isatty(0)
            else:
                found = signal.sigwaitinfo(heeded)
                number, is_known = found.si_signo, found.si_code == _SI_KERNEL
            self._events.put(partial(self._signalled, number, is_known))

    def _wait_for_messages(self, child: _Child) -> None:
        while (messages := child.link.receive()) is not None:
            for message, descriptor in messages:
                self._events.put(partial(self._told, child, message, descriptor))
        # Whatever it has forked may have the link still; this comes after what it has told.
        child.link.socket.close()

    def _wait_for_end(self, child: _Child, reader: threading.Thread) -> None:
        child.process.wait()
        child.link.end()
        reader.join()
        self._events.put(partial(self._ended, child))

    # Children

    def _start(self, reason: str) -> None:
        """
        Start a child.

        @raise ConfigurationError: the first cannot be started.
        """
        started_at = time.time()
        try:
            process, here = self._process(is_first=not reason)
        except OSError as error:
            why = f"no process can be started: {error.strerror}"
            if not reason:
                raise ConfigurationError(f"reload: {why}") from error
            self._not_reloaded(f"{reason}, but {why}")
            return
        child = _Child(process, Link(here), reason, started_at)
        self._children.append(child)
        reader = threading.Thread(target=self._wait_for_messages, args=(child,), daemon=True)
        reader.start()
        threading.Thread(target=self._wait_for_end, args=(child, reader), daemon=True).start()

    def _process(self, *, is_first: bool) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """
        A process that is to serve, and this end of its link.

        @raise OSError: the system has none.
        """
        here, there = socket.socketpair()
        handed = Handed(there.fileno(), self._sockets, self._names, is_first)
        inherited = [there.fileno(), *(descriptor for _, descriptor in self._sockets)]
        for descriptor in inherited:
            os.set_inheritable(descriptor, True)
        try:
            # What this process was handed itself goes on to the child, as all that is inheritable.
            process = subprocess.Popen(
                self._command,
                close_fds=False,
                env={**os.environ, VARIABLE: msgspec.json.encode(handed).decode()},
            )
        except OSError:
            here.close()
            raise
        finally:
            for descriptor in inherited:
                os.set_inheritable(descriptor, False)
            there.close()
        return process, here

    def _not_reloaded(self, why: str) -> None:
        """Say that a change has led to nothing."""
        goes_on = (
            "what was before goes on" if self._child(_Stage.SERVING) else "waiting for a change"
        )
        _say(f"not reloaded: {why}; {goes_on}")

    def _child(self, stage: _Stage) -> _Child | None:
        """The child at a stage, of which there is one at most."""
        return next((each for each in self._children if each.stage is stage), None)

    def _told(self, child: _Child, message: Message, descriptor: int | None) -> None:
        """A child has sent a message."""
        if isinstance(message, Loaded) and child.stage is _Stage.STARTING:
            child.stage = _Stage.OPENING
            child.link.send(Go())
        elif isinstance(message, Kept):
            assert descriptor is not None
            child.sockets.append((message.place, descriptor))
        elif isinstance(message, Failed):
            if not child.reason:
                return  # the command ends with it
            self._look_at(child, message.files, is_all=False)
        elif isinstance(message, Closed):
            self._closed(child)
        elif isinstance(message, Ready):
            self._ready(child, message)

    def _ready(self, child: _Child, message: Ready) -> None:
        """A child serves: it takes the place of the one before."""
        before = self._child(_Stage.SERVING)
        child.stage = _Stage.SERVING
        kept = []
        for place in message.adopted:
            found = next(each for each in self._sockets if each[0] == place)
            self._sockets.remove(found)
            kept.append(found)
        _close(self._sockets)
        self._sockets = [*kept, *child.sockets]
        child.sockets = []
        self._names = message.names
        if before is not None:
            before.stage = _Stage.ENDING
            before.replaced_for = child.reason
            places = [place for place, _ in self._sockets]
            before.link.send(Stop([*places, *self._names]))
        elif child.reason:
            _say(f"reloaded: {child.reason}")
        self._look_at(child, message.files, is_all=True)
        self._change_again()

    def _closed(self, child: _Child) -> None:
        """A child takes no more requests: all are another's."""
        if child.replaced_for:
            _say(f"reloaded: {child.replaced_for}")
            child.replaced_for = ""

    def _ended(self, child: _Child) -> None:
        """A child has ended."""
        self._closed(child)
        self._children.remove(child)
        _close(child.sockets)
        status = child.process.returncode
        if status < 0:
            status = _STATUS_OF_SIGNALS - status
        if child.stage is _Stage.ENDING or self._status is not None:
            return
        if self._signals_heard:
            if child.stage is _Stage.SERVING or not child.reason:
                self._status = status
        elif child.stage is not _Stage.SERVING:
            if not child.reason:
                self._status = status
            else:
                self._not_reloaded(f"{child.reason}, but cannot be served")
        elif status == 0:
            self._status = 0
            self._end_all(signal.SIGTERM)
        else:
            _say(f"the server has ended with status {status}; waiting for a change")
        self._change_again()

    def _end_all(self, number: int) -> None:
        """Send a signal to all children."""
        for child in self._children:
            child.process.send_signal(number)

    # What happens to them

    def _signalled(self, number: int, is_known: bool) -> None:
        """
        A signal has come.

        @param is_known: whether the children have it, too.
        """
        if number in _PASSED_ON:
            if not is_known:
                self._end_all(number)
            return
        self._signals_heard += 1
        if self._signals_heard >= _LAST_SIGNAL:
            self._end_all(signal.SIGKILL)
        elif not is_known:
            self._end_all(number)
        if not any(
            each.stage is _Stage.SERVING or not (each.reason or each.stage is _Stage.ENDING)
            for each in self._children
        ):  # nothing that serves, or is the first to serve, has a status
            self._status = 0

    def _changed(self, paths: Sequence[str]) -> None:
        """Files have changed."""
        if self._signals_heard or self._status is not None:
            return
        under_way = self._child(_Stage.STARTING) or self._child(_Stage.OPENING)
        if under_way is not None:
            paths = [path for path in paths if changed_at(path) > under_way.started_at]
            if not paths:  # it was told before
                return
            if under_way.stage is _Stage.OPENING:
                self._changed_meanwhile += paths
                return
            under_way.stage = _Stage.ENDING
            under_way.process.kill()
        first = paths[0].removeprefix(os.getcwd() + os.sep)
        others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        self._start(f"{first}{others} changed")

    def _change_again(self) -> None:
        """Heed what has changed while a child began to listen, now that it has ended that."""
        paths, self._changed_meanwhile = sorted(set(self._changed_meanwhile)), []
        if paths:
            self._changed(paths)

    def _look_at(self, child: _Child, files: Iterable[str], *, is_all: bool) -> None:
        """
        Watch the files that a child was made of.

        @param is_all: whether these are all that there are.
        """
        watched = self._watch.files if self._watch is not None else frozenset()
        wanted = {*files, *self._config}
        if not is_all:
            wanted |= watched
        if self._watch is not None:
            if wanted == watched:
                return
            self._watch.end()
        self._watch = self._make_watch(
            wanted,
            child.started_at,
            lambda paths: self._events.put(partial(self._changed, paths)),
            lambda why: _say(
                f"files cannot be watched: {why}; WATCHFILES_FORCE_POLLING=1 may help"
            ),
        )
        if not wanted:
            _say("no file of yours to watch; served files are read anew for each request")


def _close(sockets: Iterable[_Socket]) -> None:
    """Close sockets here; a child that has one keeps it."""
    for _, descriptor in sockets:
        os.close(descriptor)


def _say(text: str) -> None:
    """Print a line."""
    try:
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()
    except (OSError, ValueError):  # whoever has looked at it has gone
        pass
