"""
Incidents: what clients do that is worth a line of the log, but not one each time.

This room owns how often such a line is written.  It must not know what happens, nor where.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["IncidentLog"]

#: There is one line of a kind in so many seconds: a minute, so that a log read later shows how
#: long it has gone on.
SECONDS_BETWEEN_LINES = 60.0


class _Kind:
    """One kind of incident: when its next line may be, and how many have had none."""

    __slots__ = ("quiet_until", "untold")

    def __init__(self) -> None:
        self.quiet_until = float("-inf")
        self.untold = 0


class IncidentLog:
    """Incidents of a listener, each kind with at most one line in a minute."""

    def __init__(self, write: Callable[[str], object], seconds: Callable[[], float]) -> None:
        """
        @param write: writes a line to the log.
        @param seconds: the time, in seconds.
        """
        self._write = write
        self._seconds = seconds
        #: Held while these change.
        self._lock = threading.Lock()
        self._kinds: dict[str, _Kind] = {}

    def add(self, kind: str, line: str) -> None:
        """
        Write a line, with how many of its kind have had none, or count it as one of these.
        (any thread)
        """
        now = self._seconds()
        with self._lock:
            of_kind = self._kinds.setdefault(kind, _Kind())
            if now < of_kind.quiet_until:
                of_kind.untold += 1
                return
            untold, of_kind.untold = of_kind.untold, 0
            of_kind.quiet_until = now + SECONDS_BETWEEN_LINES
        self._write(f"{line} (and {untold} more like it before)" if untold else line)

    def close(self) -> None:
        """Write how many have had no line yet: there will be no further ones. (any thread)"""
        with self._lock:
            kinds, self._kinds = self._kinds, {}
        for kind, of_kind in kinds.items():
            if of_kind.untold:
                self._write(f"{kind}: {of_kind.untold} more like it before")
