"""
Origins: where the words of one server or source were said, for messages about them.

This room owns how a message about a word is led to the variable or to the place in a file that it
is from.  It must not know what the words mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import attrs

from sockserve.interfaces import ConfigurationError
from sockserve.run.options.words import OPTIONS
from sockserve.run.positions import Path, Position, Positions
from sockserve.run.where import PLACES

__all__ = ["AddLocation", "Origins", "Table", "as_it_is"]


class AddLocation(Protocol):
    """A function that prefixes a message with its place, as L{Origins.located} does."""

    def __call__(self, message: str, item: int | str | None = None) -> str: ...  # noqa: D102


def as_it_is(message: str, item: int | str | None = None) -> str:
    """The message of words that are from no place that is to be named."""
    return message


@attrs.frozen
class Table:
    """
    A table of a file.

    @ivar file: the file's name, for messages.
    @ivar find: gives the positions in its text.
    @ivar path: the way to the table.
    """

    file: str
    find: Callable[[], Positions]
    path: Path

    def key(self, *way: str | int) -> str:
        """The position of the key at the end of the way from the table."""
        return self._shown(self.find().of_key((*self.path, *way)))

    def value(self, *way: str | int) -> str:
        """The position of the value there."""
        return self._shown(self.find().of_value((*self.path, *way)))

    def _shown(self, position: Position) -> str:
        return f"{self.file}:{position.line}:{position.column}"


@attrs.frozen
class Origins:
    """
    The places where the words of one server or source were said.

    @ivar words: the values by word.
    @ivar variables: the words that are from the environment.
    @ivar table: the table that has all words that are from no other place; None for a command line.
    @ivar options: the words that are from the command line.
    """

    words: Mapping[str, object]
    variables: Collection[str] = ()
    table: Table | None = None
    options: Collection[str] = ()

    def located(self, message: str, item: int | str | None = None) -> str:
        """
        A message with the place that it is about.

        @param item: the part of the word's value that it is about, where that is known.
        """
        word = self._word(message)
        if word in self.variables:
            assert word is not None
            return OPTIONS[word].variable + message.removeprefix(word)
        if self.table is None or word in self.options:
            return message
        if word is None:
            return f"{self.table.value()}: {message}"
        if message.startswith("unknown word"):
            return f"{self.table.key(word)}: {message}"
        if isinstance(item, int) and not isinstance(self.words[word], (list, tuple)):
            item = None
        elif item is None:
            item = self._item(word, message)
        way = [word] if item is None else [word, item]
        if isinstance(item, str) and not message.startswith(f"{word} {item}:"):  # it is the key
            return f"{self.table.key(*way)}: {message}"
        return f"{self.table.value(*way)}: {message}"

    def located_error(self, error: ConfigurationError) -> ConfigurationError:
        """An error with that place in its message."""
        return ConfigurationError(self.located(str(error), getattr(error, "item", None)))

    def _word(self, message: str) -> str | None:
        """The word that a message is about: it begins with it."""
        for word in self.words:
            if re.match(rf"(unknown word [\"'])?{re.escape(word)}(?![\w-])", message):
                return word
        if message.startswith("listen "):  # which another word may stand for
            return next((word for word in PLACES if word in self.words), None)
        return None

    def _item(self, word: str, message: str) -> int | None:
        """The place in a list of what a message names, as C{listen 'tpc:80': …} does."""
        value = self.words[word]
        if not isinstance(value, list):
            return None
        for place, each in enumerate(value):
            if message.startswith(f"{word} {each!r}:"):
                return place
        return None
