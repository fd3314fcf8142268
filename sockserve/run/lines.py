"""
Lines: where in a text of TOML a word stands.

This room owns the search, in a text that has been read already, so is good TOML.  It must not know
what the words mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["line_of"]

#: What a text of TOML is made of, as far as keys and brackets matter: strings of four kinds,
#: comments, ends of lines, brackets and the like, and all else up to one of these.
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[\[\]{},=.\n]"
    r"|[^\[\]{},=.\n\"'\#\s]+",
    re.DOTALL,
)

_ESCAPE = re.compile(r"\\(?:u(.{4})|U(.{8})|x(.{2})|(.))")
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}


class _Token(NamedTuple):
    text: str
    line: int


class _Place(NamedTuple):
    """
    Where a word begins, or a table.

    @ivar word: None for the table itself.
    @ivar table: the table's number among those of its kind; -1 for a word of none.
    """

    word: str | None
    table: int
    line: int


def line_of(text: str, word: str | None, table: int, kind: str = "server") -> int:
    """
    The line of C{word} in the C{table}th table of a C{kind} (-1: outside of them), or of that
    table.

    @param text: good TOML.
    """
    start = 1
    for place in _places(text, kind):
        if place.table == table and place.word is None:
            start = place.line
        elif place.table == table and place.word == word:
            return place.line
    return start


def _places(text: str, kind: str) -> Iterator[_Place]:
    tables = -1
    is_inside = False
    for statement in _statements(text):
        first, line = statement[0]
        if first == "[":
            names = [_plain(token.text) for token in statement if token.text not in "[]."]
            is_inside = names[0] == kind
            if not is_inside:
                yield _Place(names[0], -1, line)
            elif len(names) == 1:
                tables += 1
                yield _Place(None, tables, line)
            else:
                yield _Place(names[1], tables, line)
        else:
            name = _plain(first)
            yield _Place(name, tables if is_inside else -1, line)
            if name == kind and not is_inside:
                yield from _inline_places(statement)


def _inline_places(statement: list[_Token]) -> Iterator[_Place]:
    """The places in C{KIND = [{...}, ...]}."""
    tables, depth, before = -1, 0, ""
    for text, line in statement:
        if text == "{" and depth == 1:
            tables += 1
            yield _Place(None, tables, line)
        elif depth == 2 and before in ("{", ",") and text not in "{}[]":
            yield _Place(_plain(text), tables, line)
        depth += (text in "[{") - (text in "]}")
        before = text


def _statements(text: str) -> Iterator[list[_Token]]:
    """The headers and the assignments of a text, without their comments."""
    statement: list[_Token] = []
    depth, line = 0, 1
    for token in _TOKEN.findall(text):
        if token == "\n" and not depth and statement:
            yield statement
            statement = []
        elif token != "\n" and not token.startswith("#"):
            statement.append(_Token(token, line))
            depth += (token in "[{") - (token in "]}")
        line += token.count("\n")
    if statement:
        yield statement


def _plain(key: str) -> str:
    """A key as it is meant, without quotation marks."""
    if key.startswith("'"):
        return key[1:-1]
    return _ESCAPE.sub(_unescaped, key[1:-1]) if key.startswith('"') else key


def _unescaped(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2] or escape[3]
    return chr(int(code, 16)) if code else _ESCAPED.get(escape[4], escape[4])
