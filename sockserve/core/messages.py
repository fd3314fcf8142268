"""
Messages: pieces of the one line that tells a user of a mistake.

This room owns how an error and a guess at what was meant are worded.  It must not know what
the words are about.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["nearest", "one_line", "printable"]


def nearest(word: str, words: Iterable[str]) -> str:
    """A hint at the valid word nearest to C{word}, or an empty string."""
    found = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def printable(text: str) -> str:
    """
    A text on one line of a terminal, whatever is in it: a user's own words can hold what ends a
    line, what a terminal obeys, and what no encoding has.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def one_line(error: BaseException) -> str:
    """An error's own words, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
