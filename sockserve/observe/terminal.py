"""
The terminal: what the command C{sockserve} tells whoever has started it.

This room owns how the log and each request look there.  It must not know how requests are served.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO, cast

from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    formatEventAsClassicLogText,
)
from zope.interface import provider

from sockserve.core.logs import is_twisteds
from sockserve.core.messages import printable
from sockserve.core.statistics import HTTPRequestRecord, RequestRecord
from sockserve.observe.access_log import peer_in_words

__all__ = ["Terminal"]

#: How much of a request's target is shown: a line or two of a terminal.
_SHOWN_CHARACTERS = 200

#: By the first digit of a status, or the kind of an outcome: green, cyan, yellow, red.
_COLOURS = {"2": "32", "3": "36", "4": "33", "5": "31", "ok": "32"}
_OTHER_COLOUR = "31"

#: The phases of a record that are of the request, and not of the connection before it.
_PHASES = ("queue", "handle", "write")


class Terminal:
    """
    Standard error, for a person or for whatever keeps a service's lines.

    @ivar is_terminal: whether a person looks at it.
    """

    def __init__(self, stream: TextIO, environ: Mapping[str, str]) -> None:
        """
        @param environ: C{NO_COLOR} that is not empty, and C{TERM=dumb}, mean no colours.
        """
        self._stream = stream
        self.is_terminal = stream.isatty()
        self._has_colours = (
            self.is_terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        )

    def log_observer(self, verbosity: int) -> ILogObserver:
        """
        The observer that shows the log.

        @param verbosity: 0: what sockserve and the program say, and all warnings and errors; 1:
            what Twisted says, too, and all with its time; 2: and what is for debugging.
        """
        least = LogLevel.debug if verbosity > 1 else LogLevel.info

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            level = event.get("log_level", LogLevel.info)
            if level < least:
                return
            if verbosity:
                self._write(formatEventAsClassicLogText(event) or "")
            elif level >= LogLevel.warn or not is_twisteds(event):
                self._write(self._told(event, level))

        return cast(ILogObserver, observe)

    def tell(self, text: str) -> None:
        """Show a line that is no part of the log."""
        self._write(f"{printable(text)}\n")

    def request_ended(self, record: RequestRecord) -> None:
        """Tell of a request, as an observer of a server's."""
        seconds = sum(record.phases.get(phase, 0.0) for phase in _PHASES)
        if isinstance(record, HTTPRequestRecord):
            words = record.request_line.split()[:2]
            first = " ".join(words) if len(words) == 2 else record.request_line or "-"
            status = str(record.status or "-")
            colour = _COLOURS.get(status[0], _OTHER_COLOUR)
            size = _size(record.sent)
        else:
            first = f"{record.handler} {peer_in_words(record.peer)}"
            status, colour = record.outcome, _COLOURS.get(record.outcome, _OTHER_COLOUR)
            size = f"{_size(record.received)} in, {_size(record.sent)} out"
        parts = [printable(first[:_SHOWN_CHARACTERS]), self._coloured(status, colour), size]
        parts.append(_duration(seconds))
        if isinstance(record, HTTPRequestRecord) and record.outcome != "ok":
            parts.append(record.outcome)
        if record.reason is not None and not record.outcome.startswith("expired"):
            parts.append(printable(record.reason))
        self._write("  ".join(parts) + "\n")

    def _told(self, event: LogEvent, level: object) -> str:
        """An event without its time: what keeps the lines of a service has that."""
        text = formatEvent(event)
        if level in (LogLevel.error, LogLevel.critical):
            text = f"{self._coloured('error:', '31')} {text}"
        elif level is LogLevel.warn:
            text = f"{self._coloured('warning:', '33')} {text}"
        failure = event.get("log_failure")
        return f"{text}\n" if failure is None else f"{text}\n{failure.getTraceback()}"

    def _coloured(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._has_colours else text

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # whoever has looked at it has gone
            pass


def _size(count: int | None) -> str:
    """A number of bytes in a few characters."""
    if count is None:
        return "-"
    if count < 1024:
        return f"{count} B"
    power = 1
    while power < 4 and count >= 1000 * 1024**power:
        power += 1
    return f"{count / 1024**power:.1f} {' KMGT'[power]}iB"


def _duration(seconds: float) -> str:
    """A length of time in a few characters."""
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
