"""
Options: those of the table of options, as options of a command of Django's.

This room owns how they are put before C{argparse}, and what goes first: the command line, the
command's class, the environment, or C{settings.SOCKSERVE}.  It must not know what any one of them
means: the table is L{sockserve.run.options.words}.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Collection, Mapping

from sockserve.interfaces import ConfigurationError
from sockserve.run.environment import environment_words
from sockserve.run.options.parser import add_option
from sockserve.run.options.words import OPTIONS, override
from sockserve.run.origins import Origins
from sockserve.run.source_config import words_of_rows
from sockserve.run.unknown import hint_at_word
from sockserve.tap import Options

__all__ = ["SERVED", "add_options", "given_options", "make_options"]

#: Of these a command takes one: they say what is served.
SERVED = ("handler", "path", "server", "config")

#: What is asked of one run, and so has no place in the settings: options of ours, then Django's.
_OF_ONE_RUN = (
    *("check", "reload", "tasks"),
    *("force-color", "no-color", "pythonpath", "settings", "skip-checks", "traceback"),
    *("verbosity", "version"),
)


def add_options(parser: ArgumentParser, left_out: Collection[str] = ()) -> None:
    """
    Add all options to those of a command.

    @param left_out: names of some that it does not have.
    """
    for option in OPTIONS.values():
        if option.word not in left_out:
            add_option(parser, option)


def given_options(found: Mapping[str, object]) -> dict[str, object]:
    """
    The options that were given, by name.

    @param found: what C{argparse} has found, or a caller has said, by attribute.
    """
    values = {word: found.get(OPTIONS[word].attribute) for word in _settable()}
    return {word: value for word, value in values.items() if value is not None}


def _settable() -> list[str]:
    """The names of those that say what is served, and how."""
    return [word for word in OPTIONS if word not in _OF_ONE_RUN]


def make_options(
    given: Mapping[str, object], of_class: Mapping[str, object], settings: object
) -> Options:
    """
    The options as L{sockserve.tap.makeService} takes them.

    @param given: those on the command line, by name.
    @param of_class: those that the command's class has, which go next.
    @param settings: C{settings.SOCKSERVE}, which has what neither they nor the environment have.
    @raise ConfigurationError: one is wrong, or two do not go together.
    """
    variables = environment_words(os.environ)
    usual = override(_from_settings(settings), variables)
    said = override(of_class, given)
    if "source" in given:  # rows have no clients
        usual = words_of_rows(usual)
        said = {word: value for word, value in said.items() if word != "listen" or word in given}
    if "config" in said:  # the file has it all
        usual = {}
    elif any(word in said for word in SERVED):
        usual.pop("config", None)
    words = override(usual, said)
    options = Options()
    options.update(words)
    try:
        options.postOptions()
    except ConfigurationError as error:
        if error.word in said or error.word not in usual:
            raise
        if error.word not in variables:
            raise ConfigurationError(f"settings.SOCKSERVE: {error}") from error
        Origins(usual, variables).locate(error)
        raise
    if not any(word in words for word in (*SERVED, "source")):
        # twistd's default, the folder, has the settings with their key, and often the database.
        raise ConfigurationError(
            "nothing says what is served: give --handler MODULE:CLASS, or --path FOLDER for files"
        )
    return options


def _from_settings(settings: object) -> dict[str, object]:
    """The options that C{settings.SOCKSERVE} has, by name; C{_} in one stands for C{-}."""
    if not isinstance(settings, Mapping):
        raise ConfigurationError(
            f"settings.SOCKSERVE: write a dict of options, not {type(settings).__name__}"
        )
    known = _settable()
    usual: dict[str, object] = {}
    for key, value in settings.items():
        word = str(key).replace("_", "-")
        if word in _OF_ONE_RUN:
            raise ConfigurationError(
                f"settings.SOCKSERVE: {key!r} is for the command line only, as --{word}"
            )
        if word not in known:
            raise ConfigurationError(
                f"settings.SOCKSERVE: unknown word {key!r}{hint_at_word(word, known)}"
            )
        if OPTIONS[word].is_flag and not isinstance(value, bool):
            raise ConfigurationError(
                f"settings.SOCKSERVE: {word}: write True or False, not {value!r}"
            )
        if value is not None:
            usual[word] = value
    return usual
