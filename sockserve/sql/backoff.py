"""
Back-off: the pauses between attempts to reach what is away.

This room owns how they grow.  It must not know what is attempted.
"""

from __future__ import annotations

__all__ = ["Backoff"]

#: The first pause: soon, as a database that restarts is away for a moment.
FIRST_SECONDS = 0.25

#: The longest.
LONGEST_SECONDS = 15.0


class Backoff:
    """Pauses, each twice as long as the one before."""

    def __init__(self) -> None:
        self._seconds = FIRST_SECONDS

    def next(self) -> float:
        """The seconds until the next attempt."""
        seconds = self._seconds
        self._seconds = min(2.0 * seconds, LONGEST_SECONDS)
        return seconds

    def reset(self) -> None:
        """An attempt has succeeded."""
        self._seconds = FIRST_SECONDS
