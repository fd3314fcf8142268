"""
Tokens: a text in RPC's language, word by word.

This room owns what a word is, and where each stands.  It must not know what words mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from sockserve.interfaces import ConfigurationError

__all__ = ["LanguageError", "Token", "tokens_of"]

_TOKEN = re.compile(
    r"(?P<comment>/\*.*?\*/|//[^\n]*)"
    r"|(?P<number>-?(?:0[xX][0-9a-fA-F]+|[0-9]+)(?![A-Za-z0-9_]))"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<sign>[{}()\[\]<>*,;:=])"
    r"|(?P<space>[ \t\r\f\v]+)"
    r"|(?P<end>\n)",
    re.DOTALL,
)


class LanguageError(ConfigurationError):
    """
    A mistake in a text of RPC's language.

    @ivar line: where, from 1 on.
    """

    def __init__(self, file: str, line: int, message: str) -> None:
        super().__init__(f"{file}:{line}: {message}")
        self.line = line


class Token(NamedTuple):
    """
    A word.

    @ivar kind: C{number}, C{name}, C{sign}, or C{end} behind the last.
    """

    kind: str
    text: str
    line: int


def tokens_of(text: str, file: str) -> Iterator[Token]:
    """
    The words of a text, without comments and lines that begin with C{%}; at last one of the kind
    C{end}.

    @raise LanguageError: something is no word.
    """
    line, position, begins_line = 1, 0, True
    while position < len(text):
        if begins_line and text[position] in "%#":
            if text[position] == "#":
                raise LanguageError(
                    file, line, "a line for C's preprocessor; run cpp before, or leave it out"
                )
            position = (text + "\n").index("\n", position)
            begins_line = False
            continue
        match = _TOKEN.match(text, position)
        if match is None:
            word = re.match(r"\w+|.", text[position:])
            shown = "a comment without end" if text.startswith("/*", position) else None
            raise LanguageError(file, line, shown or f"{word and word[0]!r} is no word")
        kind = match.lastgroup or ""
        if kind in ("number", "name", "sign"):
            yield Token(kind, match[0], line)
        line += match[0].count("\n")
        begins_line = kind == "end"
        position = match.end()
    yield Token("end", "the end of the file", line)
