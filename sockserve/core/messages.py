"""
Messages: pieces of the one line that tells a user of a mistake.

This room owns how an error and a guess at what was meant are worded, and how an error comes by the
word that it is about.  It must not know which words there are.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sockserve.interfaces import ConfigurationError

__all__ = ["about", "nearest", "one_line", "printable", "without_controls"]


#: How alike two words must be, from 0 to 1, for one to be what the other was meant to be: more
#: than C{port} and C{path} are, less than words with a letter too many, too few, or another.
_ALIKE = 0.74


def nearest(word: str, words: Iterable[str], prefix: str = "") -> str:
    """
    A hint at the valid word nearest to C{word}, or an empty string.  The dashes of options do not
    make them alike, nor capitals other words.

    @param prefix: what all of them begin with, which does not make them alike, either.
    """
    plain = _plain(word, prefix)
    best, found = _ALIKE, ""
    for each in words:
        matcher = difflib.SequenceMatcher(None, _plain(each, prefix), plain, autojunk=False)
        # The same letters in another order make no long match in a short word.
        likeness = 0.9 if sorted(_plain(each, prefix)) == sorted(plain) else 0.0
        if matcher.real_quick_ratio() >= best:
            likeness = max(likeness, matcher.ratio())
        if likeness > best:
            best, found = likeness, each
    return f"; did you mean {found!r}?" if found else ""


def _plain(word: str, prefix: str) -> str:
    return word.removeprefix(prefix).lstrip("-").casefold()


def printable(text: str) -> str:
    """
    A text on one line of a terminal, whatever is in it: a user's own words can hold what ends a
    line, what a terminal obeys, and what no encoding has.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


#: The characters that C{http.server} escapes in its log.
_CONTROL_CHARACTERS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    ord("\\"): r"\\"
}


def without_controls(text: str) -> str:
    """A text with its control characters escaped as in C{http.server}'s log."""
    return text.translate(_CONTROL_CHARACTERS)


def one_line(error: BaseException) -> str:
    """An error's own words, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def about(word: str, item: int | str | None = None) -> Iterator[None]:
    """
    Have an error that is raised within be about a word, and about a part of its value, unless it is
    about another already.
    """
    try:
        yield
    except ConfigurationError as error:
        if error.word is None:
            error.word = word
        if error.word == word and error.item is None:
            error.item = item
        raise
