"""
The process that C{twistd} makes: the files that it writes, and whoever waits for its start.

This room owns where a daemon says why it cannot start, and that it leaves no pid file then.  It
must not know what is served.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from sockserve.core.logs import Topic, logger
from sockserve.core.messages import printable
from sockserve.interfaces import ConfigurationError
from sockserve.run.served_files import OwnFile

__all__ = ["TwistdProcess", "end_with"]

_log = logger(Topic.SERVICE)

#: What a daemon hands to C{twistd} where it has said itself why it cannot start.
_TOLD = "(sockserve has said why)"

#: The names that C{twistd} gives its files where nobody does.
_LOGFILE = "twistd.log"
_PIDFILE = "twistd.pid"


class TwistdProcess:
    """
    A process of C{twistd}'s.

    @ivar named_files: the files that it writes and that somebody has named.
    @ivar usual_files: those that have C{twistd}'s own names.  They are in whatever is the current
        folder, and so often in one that is served, as this is by default.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        """
        @param options: C{twistd}'s; none where the service is part of another application.
        """
        self._options = options
        self._is_daemon = bool(options) and not options.get("nodaemon")
        #: The standard error of the process that waits for the daemon.
        self._foreground: IO[str] | None = None
        self.named_files: list[OwnFile] = []
        self.usual_files: list[str] = []
        for word, path, own in self._files():
            if os.path.abspath(path) == os.path.abspath(own):
                self.usual_files.append(os.path.abspath(path))
            else:
                self.named_files.append(OwnFile(f"{word} {path!r}", path))

    def _files(self) -> list[tuple[str, str, str]]:
        """Each file's option, its name, and C{twistd}'s own name for it."""
        if not self._options:
            return []
        log = self._options.get("logfile") or (_LOGFILE if self._is_daemon else "-")
        pidfile = self._options.get("pidfile") or "-"
        files = [("logfile", log, _LOGFILE), ("pidfile", pidfile, _PIDFILE)]
        return [each for each in files if each[1] != "-"]

    def check_files(self) -> None:
        """
        Check that it will be able to write the files that somebody has named.

        @raise ConfigurationError: it will not.
        """
        for own in self.named_files:
            folder = os.path.dirname(os.path.abspath(own.path))
            if os.path.isdir(own.path):
                code = errno.EISDIR
            elif not os.path.isdir(folder):
                code = errno.ENOENT
            elif not os.access(own.path if os.path.exists(own.path) else folder, os.W_OK):
                code = errno.EACCES
            else:
                continue
            raise ConfigurationError(f"{own.named}: {os.strerror(code)}")

    def keep_foreground(self) -> None:
        """Keep a copy of standard error, which a daemon is about to leave behind."""
        stream = sys.__stderr__
        if not self._is_daemon or stream is None:
            return
        try:
            copy = os.dup(stream.fileno())
        except (OSError, ValueError):  # it is no file
            return
        self._foreground = os.fdopen(copy, "w", buffering=1, errors="backslashreplace")
        if not isinstance(stream, _WithoutTwistds):
            sys.__stderr__ = _WithoutTwistds(stream)  # type: ignore[misc, assignment]

    def started(self) -> None:
        """Let go of what was kept for telling why it does not start."""
        if self._foreground is not None:
            self._foreground.close()

    def fail(self, message: str) -> NoReturn:
        """End, and say why: a daemon in its log and where it was started."""
        if not self._is_daemon:
            end_with(message)
        _log.error("{message}", message=message)
        if self._foreground is not None:
            self._foreground.write(_line(message))
            self._foreground.close()
        waiting = self._options.get("statusPipe")
        if waiting is not None:  # which whoever has started it reads
            os.write(waiting, f"1 {_TOLD}".encode())
        sys.exit(1)

    def remove_pidfile(self) -> None:
        """Remove the pid file, where C{twistd} does not come to that."""
        if pidfile := self._options.get("pidfile"):
            try:
                os.unlink(pidfile)
            except OSError:
                pass


class _WithoutTwistds:
    """
    The standard error of the process that waits for its daemon's start, without what C{twistd} says
    there, in two lines, of a mistake that the daemon has told itself.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, unless it is that."""
        if _TOLD in text:
            return len(text)
        return self._stream.write(text)


def end_with(message: str) -> NoReturn:
    """End with a message, on the standard error that the process began with."""
    # twistd has made sys.stderr a part of its log by the time it listens.
    if sys.__stderr__ is not None:
        sys.__stderr__.write(_line(message))
    sys.exit(1)


def _line(message: str) -> str:
    return f"sockserve: {printable(message)}\n"
