"""
Words: the table of options, read from its structures, for all that is made from it.

This room owns which words a server, a source and a command have, and what an option is called
where: on a command line, in the environment, as an attribute.  It must not know how a value is
checked, nor what is made from the table.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import attrs
from msgspec import Meta, Struct

from sockserve.run.options.command import CommandWords, OwnWords
from sockserve.run.options.forms import Form, Group, Notes
from sockserve.run.options.server import ServerWords
from sockserve.run.options.source import SourceWords

__all__ = [
    "COMMAND_OPTIONS",
    "OPTIONS",
    "OWN_OPTIONS",
    "SERVER_OPTIONS",
    "SOURCE_OPTIONS",
    "Option",
    "override",
]


@attrs.frozen
class Option:
    """
    One word of the table.

    @ivar word: as users write it: C{max-connections}.
    @ivar description: what it is for, in words for the help.
    @ivar notes: what else the table says.
    @ivar choices: the values that may be; none where there are any others.
    """

    word: str
    description: str
    notes: Notes
    choices: tuple[str, ...] = ()

    @property
    def attribute(self) -> str:
        """Its name as an attribute, as of what C{argparse} finds: C{max_connections}."""
        return self.word.replace("-", "_")

    @property
    def variable(self) -> str:
        """Its name in the environment: C{SOCKSERVE_MAX_CONNECTIONS}."""
        return f"SOCKSERVE_{self.attribute.upper()}"

    @property
    def setting(self) -> str:
        """The name of the setting that it is for."""
        return self.notes.setting or self.attribute

    @property
    def is_flag(self) -> bool:
        """Whether the option takes no value."""
        return self.notes.form is Form.FLAG

    @property
    def told(self) -> str:
        """The text of the help."""
        choices = f": {', '.join(self.choices)}" if self.choices else ""
        again = "; repeatable" if self.notes.is_list else ""
        default = "" if self.notes.default is None else f" [default: {self.notes.default}]"
        return f"{self.description}{choices}{again}{default}"


def _options(words: type[Struct]) -> Iterator[Option]:
    """The options of one of the table's structures, in its order."""
    for attribute, hint in get_type_hints(words, include_extras=True).items():
        (meta,) = (each for each in hint.__metadata__ if isinstance(each, Meta))
        yield Option(
            attribute.replace("_", "-"),
            meta.description or "",
            (meta.extra or {})["notes"],
            tuple(_choices(hint)),
        )


def _choices(hint: Any) -> Iterator[str]:
    """The values that a type has, if these are few."""
    if get_origin(hint) is Annotated:
        hint = hint.__origin__
    for each in (hint, *get_args(hint)):
        if get_origin(each) is Literal:
            yield from get_args(each)


def _by_word(options: Iterator[Option]) -> dict[str, Option]:
    return {option.word: option for option in options}


#: The words of a C{[[server]]} table, and of a C{[[source]]} table.
SERVER_OPTIONS: Mapping[str, Option] = _by_word(_options(ServerWords))
SOURCE_OPTIONS: Mapping[str, Option] = _by_word(_options(SourceWords))
#: Those of any command, and of the own one alone.
COMMAND_OPTIONS: Mapping[str, Option] = _by_word(_options(CommandWords))
OWN_OPTIONS: Mapping[str, Option] = _by_word(_options(OwnWords))


def _in_order() -> dict[str, Option]:
    """The options of each command: group by group; what has no metavar is a word of files alone."""
    found = {**SERVER_OPTIONS, **SOURCE_OPTIONS, **COMMAND_OPTIONS}
    named = [each for each in found.values() if each.notes.metavar or each.is_flag]
    groups = list(Group)
    named.sort(key=lambda option: groups.index(option.notes.group))
    return {option.word: option for option in named}


#: The options of each command line, in the order of their groups.
OPTIONS: Mapping[str, Option] = _in_order()


@functools.cache
def _rivals(word: str) -> Collection[str]:
    option = {**SOURCE_OPTIONS, **SERVER_OPTIONS}.get(word)
    return frozenset() if option is None else frozenset(option.notes.rivals) - {word}


def override(words: Mapping[str, object], by: Mapping[str, object]) -> dict[str, object]:
    """
    The words of a place, where another has said some that count more: a word takes the place of the
    same one, and of those that would say the same thing in another way.
    """
    replaced = {rival for word in by for rival in _rivals(word)}
    return {word: value for word, value in words.items() if word not in replaced} | dict(by)
