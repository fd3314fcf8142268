"""
Durations: lengths of time as users write them.

This room owns the forms: a number of seconds, or numbers with units behind them.  It must not know
what lasts so long.
"""

from __future__ import annotations

import re

__all__ = ["EXAMPLES", "seconds_of"]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ms|s|m|h|d)", re.ASCII)

#: What a message about something else may say.
EXAMPLES = "500ms, 2m and 1h30m are times, too"


def seconds_of(text: str) -> float:
    """
    The seconds that C{text} says: C{60}, C{2.5}, C{500ms}, C{2m}, C{1h30m}.

    @raise ValueError: it is no length of time.
    """
    try:
        return float(text)
    except ValueError:
        pass
    parts: list[tuple[str, str]] = _PART.findall(text)
    if not parts or "".join(map("".join, parts)) != text:
        raise ValueError(f"{text!r} is not a length of time")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
