"""
Summaries: what C{--check} says would run.

This room owns how settings are worded there.  It must not know which settings there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sockserve.core.deadlines import Deadlines

__all__ = ["deadlines_line", "limits_line"]


def deadlines_line(deadlines: Deadlines, words: Iterable[str]) -> str:
    """The settings of C{deadlines} that C{words} name, with dashes or without."""
    return _line("deadlines", {word: getattr(deadlines, word.replace("-", "_")) for word in words})


def limits_line(limits: Mapping[str, int | None]) -> str:
    """The limits that are given."""
    return _line("limits", limits)


def _line(title: str, settings: Mapping[str, float | None]) -> str:
    return " ".join([title, *(f"{name}={_shown(value)}" for name, value in settings.items())])


def _shown(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
