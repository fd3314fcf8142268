"""
Origins: where the words of one server or source were said, for messages about them.

This room owns how an error about a word is led to the variable or to the place in a file that it
is from.  It must not know what the words mean.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

import attrs

from sockserve.interfaces import ConfigurationError
from sockserve.run.options.words import OPTIONS, SERVER_OPTIONS, SOURCE_OPTIONS
from sockserve.run.positions import Path, Position, Positions

__all__ = ["Locate", "Origins", "Table", "leave_as_it_is"]


#: What prefixes an error's message with the place that it is about, as L{Origins.locate} does.
Locate: TypeAlias = Callable[[ConfigurationError], object]


def leave_as_it_is(error: ConfigurationError) -> None:
    """Leave the message of an error about words that are from no place that is to be named."""


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

    def locate(self, error: ConfigurationError) -> None:
        """Put the place that an error is about before its message, where that is to be named."""
        word = error.word = self._word(error)
        if word in self.variables:
            assert word is not None
            variable, message = OPTIONS[word].variable, str(error)
            # What is said of another word, which this one stands for, stays.
            rest = message.removeprefix(word)
            error.args = (f"{variable}{rest}" if rest != message else f"{variable}: {message}",)
        elif self.table is not None and word not in self.options:
            error.args = (f"{self._place(self.table, error)}: {error}",)

    def _word(self, error: ConfigurationError) -> str | None:
        """The word of these that an error is about: perhaps one that stands for the error's."""
        if error.word is None or error.word in self.words:
            return error.word
        option = {**SOURCE_OPTIONS, **SERVER_OPTIONS}.get(error.word)
        rivals = () if option is None else option.notes.rivals
        return next((word for word in rivals if word in self.words), None)

    def _place(self, table: Table, error: ConfigurationError) -> str:
        """The place in a table that an error is about."""
        if error.word is None:
            return table.value()
        way: list[str | int] = [error.word]
        if isinstance(self.words[error.word], dict if isinstance(error.item, str) else list):
            way += [] if error.item is None else [error.item]
        return table.key(*way) if error.is_name else table.value(*way)
