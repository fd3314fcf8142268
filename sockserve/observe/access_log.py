"""
The access log: a line for each request that has ended.

This room owns the line's two forms and the file it goes to.  It must not know how
requests are served.
(reactor thread)
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType
from typing import IO, Any, cast

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import FileLogObserver, ILogObserver, LogEvent, LogLevel
from typing_extensions import override

from sockserve.core.logs import Topic, logger
from sockserve.core.messages import one_line
from sockserve.core.statistics import HTTPRequestRecord, RequestRecord
from sockserve.interfaces import ConfigurationError

__all__ = ["LOG_FORMATS", "AccessLog", "format_combined", "format_json", "peer_in_words"]

_log = logger(Topic.ACCESS)


def format_combined(event: LogEvent) -> str:
    """
    Format an event's record as a line of text.

    An HTTP request has the combined log format to the letter.  (Apache's
    C{%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-agent}i"}; time in UTC, of the end.)  What had
    no request line that can be shown has the reason for that in its place.

    Any other request has a line in its manner: client, two dashes, time, handler, outcome,
    bytes received and sent, and the seconds of each phase.
    """
    record: RequestRecord = event["record"]
    when = f"[{datetime.fromtimestamp(event['log_time'], UTC):%d/%b/%Y:%H:%M:%S %z}]"
    if isinstance(record, HTTPRequestRecord):
        host = record.peer[0] if isinstance(record.peer, tuple) else peer_in_words(record.peer)
        line = record.request_line
        if line == "-" and record.reason is not None:
            line = f"- ({record.reason})"
        return (
            f'{host} - - {when} "{_quoted(line)}" {record.status or "-"}'
            f' {record.sent or "-"} "{_quoted(record.referer)}" "{_quoted(record.user_agent)}"\n'
        )
    phases = " ".join(f"{name}={seconds:.6f}" for name, seconds in record.phases.items())
    reason = "" if record.reason is None else f" ({_quoted(record.reason)})"
    line = (
        f"{peer_in_words(record.peer)} - - {when} {record.handler}"
        f' "{record.outcome}{reason}" {_count(record.received)} {_count(record.sent)} {phases}'
    )
    return line.rstrip() + "\n"


def format_json(event: LogEvent) -> str:
    """
    Format an event's record as one JSON object on a line.

    A member is C{null} where the number of bytes is not known, or the client has not sent
    the field.
    """
    record: RequestRecord = event["record"]
    when = datetime.fromtimestamp(event["log_time"], UTC)
    shown = {
        "time": when.isoformat(),
        "listener": event["listener"],
        "peer": peer_in_words(record.peer),
        "handler": record.handler,
        "outcome": record.outcome,
        "reason": record.reason,
        "received": record.received,
        "sent": record.sent,
        "phases": {name: round(seconds, 6) for name, seconds in record.phases.items()},
    }
    if isinstance(record, HTTPRequestRecord):
        shown |= _http_members(record)
    return json.dumps(shown) + "\n"


#: The formats by the names that users write.
LOG_FORMATS: dict[str, Callable[[LogEvent], str]] = {
    "combined": format_combined,
    "json": format_json,
}


def peer_in_words(address: object) -> str:
    """A client's address, as a socket gives it, as one word."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if not address:
        return "-"
    # A UNIX client chooses its own name, and must not forge lines with it.
    if isinstance(address, str) and address.isprintable() and " " not in address:
        return address
    return repr(address).replace(" ", r"\x20")


def _http_members(record: HTTPRequestRecord) -> dict[str, object]:
    """The members that only the JSON of an HTTP request has."""
    words = record.request_line.split()
    method, target, protocol = None, None, None
    if len(words) > 1:
        method, target = words[:2]
    if len(words) > 2:  # a request line of HTTP/0.9 has no version
        protocol = words[2]
    return {
        "method": method,
        "target": target,
        "protocol": protocol,
        "status": record.status or None,
        "referer": None if record.referer == "-" else record.referer,
        "user_agent": None if record.user_agent == "-" else record.user_agent,
    }


#: The characters that would end a quoted string or a line, or that a terminal would obey, by
#: how they are written instead: as Apache's C{ap_escape_logitem} does.
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0x100))} | {
    ord('"'): r"\"",
    ord("\\"): r"\\",
}


def _quoted(text: str) -> str:
    """Escape a client's words, decoded as Latin-1, to stand between quotation marks."""
    return text.translate(_ESCAPES)


def _count(size: int | None) -> str:
    return "-" if size is None else str(size)


class AccessLog(Service):
    """
    The service that writes the log to a file, or to standard output.

    It reopens the file on SIGUSR1, so that the file can be rotated.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        path: str,
        log_format: str = "combined",
        word: str = "access-log",
    ) -> None:
        """
        @param reactor: the reactor on whose thread lines are written and the file is
            reopened.
        @param path: the file's name, or C{-} for standard output.
        @param log_format: a name in L{LOG_FORMATS}.
        @param word: the option that has asked for it, for messages.
        @raise ConfigurationError: the file cannot be written.
        """
        self._reactor = reactor
        self._path = path
        self._word = word
        self._format = LOG_FORMATS[log_format]
        self._file: IO[str] | None = None
        self._previous: Any = None
        self._log = logger(Topic.ACCESS, cast(ILogObserver, self._write))
        if path != "-":
            self._open().close()

    def observer(self, listener: str) -> Callable[[RequestRecord], None]:
        """
        Make an observer that logs the requests of one listener.

        @param listener: the listener's description, for JSON.
        @return: a function to add to a server's C{observers}.
        """

        def observe(record: RequestRecord) -> None:
            self._log.emit(LogLevel.info, "{record}", record=record, listener=listener)

        return observe

    @override
    def privilegedStartService(self) -> None:
        """Open the file before C{twistd} gives up its privileges."""
        self._start_writing()

    @override
    def startService(self) -> None:
        """Open the file, and reopen it on SIGUSR1 from now on."""
        super().startService()
        self._start_writing()
        # Only the main thread may set a handler of signals.
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGUSR1, self._signalled)

    @override
    def stopService(self) -> None:
        """Close the file."""
        super().stopService()
        if self._previous is not None:
            signal.signal(signal.SIGUSR1, self._previous)
            self._previous = None
        self._stop_writing()

    def reopen(self) -> None:
        """
        Close the file and open one of the same name, which may be a new one.  If that
        cannot be opened, log this, and go on writing to the old one.
        """
        if self._file is not None and self._path != "-":
            old = self._file
            self._file = None
            try:
                self._start_writing()
            except ConfigurationError as error:
                self._file = old
                _log.error("cannot rotate: {error}", error=error)
            else:
                old.close()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        # A signal comes between any two bytecodes, so perhaps in the middle of a line.
        self._reactor.callFromThread(self.reopen)
        if callable(self._previous):
            self._previous(number, frame)

    def _open(self) -> IO[str]:
        try:
            return open(self._path, "a", encoding="utf-8", buffering=1)
        except (OSError, ValueError) as error:  # a name with a NUL is the latter
            why = getattr(error, "strerror", None) or one_line(error)
            raise ConfigurationError(f"{self._word} {self._path!r}: {why}", self._word) from None

    def _start_writing(self) -> None:
        if self._file is None:
            file = cast(IO[str], sys.__stdout__) if self._path == "-" else self._open()
            self._file = file
            self._observer = FileLogObserver(file, self._format)

    def _stop_writing(self) -> None:
        if self._file is not None and self._path != "-":
            self._file.close()
        self._file = None

    def _write(self, event: LogEvent) -> None:
        if self._file is not None:
            self._observer(event)
            if self._path == "-":
                self._file.flush()
