"""
Positions: where in a text of TOML a key or a value stands.

This room owns the search, in a text that has been read already, so is good TOML.  It must not know
what the words mean.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

__all__ = ["Path", "Position", "Positions"]

#: The way to a value from the top: keys of tables, and places in lists.
Path: TypeAlias = tuple[str | int, ...]

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


class Position(NamedTuple):
    """A place in a text: line and column, both from 1."""

    line: int
    column: int


class _Token(NamedTuple):
    text: str
    position: Position


class Positions:
    """The positions of all keys and values of a text."""

    def __init__(self, text: str) -> None:
        """
        @param text: good TOML.
        """
        self._keys: dict[Path, Position] = {}
        self._values: dict[Path, Position] = {(): Position(1, 1)}
        #: How many tables each list has that grows by C{[[headers]]}.
        self._lists: dict[Path, int] = {}
        table: Path = ()
        for statement in _statements(text):
            if statement[0].text == "[":
                table = self._header(statement)
            else:
                self._assignment(table, deque(statement))

    def of_key(self, path: Path) -> Position:
        """The position of the key at the end of a path, or else of what is nearest to it there."""
        return self._keys.get(path) or self.of_value(path)

    def of_value(self, path: Path) -> Position:
        """The position where a value begins, or else that of the one that it would be in."""
        while path not in self._values:
            path = path[:-1]
        return self._values[path]

    def _header(self, statement: list[_Token]) -> Path:
        """Enter C{[table]} or C{[[table]]}; give the way to what follows."""
        is_list = len(statement) > 1 and statement[1].text == "["
        names = [token for token in statement if token.text not in ("[", "]", ".")]
        path: Path = ()
        for token in names:
            path = (*path, _plain(token.text))
            self._keys.setdefault(path, token.position)
            self._values.setdefault(path, statement[0].position)
            if path in self._lists and not (is_list and token is names[-1]):
                path = (*path, self._lists[path] - 1)
        if is_list:
            self._lists[path] = self._lists.get(path, 0) + 1
            path = (*path, self._lists[path] - 1)
            self._values[path] = statement[0].position
        return path

    def _assignment(self, table: Path, tokens: deque[_Token]) -> None:
        """Enter C{key = value}, in a table or between braces, and take it off the tokens."""
        path = table
        while (token := tokens.popleft()).text != "=":
            if token.text != ".":
                path = (*path, _plain(token.text))
                self._keys.setdefault(path, token.position)
                self._values.setdefault(path, token.position)
        self._value(path, tokens)

    def _value(self, path: Path, tokens: deque[_Token]) -> None:
        """Enter a value, and what is in it, and take it off the tokens."""
        first = tokens.popleft()
        self._values[path] = first.position
        if first.text not in ("[", "{"):
            while tokens and tokens[0].text not in (",", "]", "}"):
                tokens.popleft()
            return
        item = 0
        while tokens[0].text not in ("]", "}"):
            if tokens[0].text == ",":
                tokens.popleft()
            elif first.text == "[":
                self._value((*path, item), tokens)
                item += 1
            else:
                self._assignment(path, tokens)
        tokens.popleft()


def _statements(text: str) -> Iterator[list[_Token]]:
    """The headers and the assignments of a text, without their comments."""
    statement: list[_Token] = []
    depth, line, start = 0, 1, 0
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token == "\n" and not depth and statement:
            yield statement
            statement = []
        elif token != "\n" and not token.startswith("#"):
            statement.append(_Token(token, Position(line, found.start() - start + 1)))
            depth += (token in "[{") - (token in "]}")
        if "\n" in token:
            line += token.count("\n")
            start = found.start() + token.rindex("\n") + 1
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
