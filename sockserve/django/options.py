"""
Options: those of C{twistd sockserve}, as options of a command of Django's.

This room owns how they are put before C{argparse}, and what goes first: the command line, the
command's class, or C{settings.SOCKSERVE}.  It must not know what any one of them means: the table
is L{sockserve.tap}'s.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Collection, Mapping

from sockserve.core.messages import nearest
from sockserve.interfaces import ConfigurationError
from sockserve.run.source_config import SOURCE_WORDS, row_deadlines
from sockserve.tap import Options

__all__ = ["SERVED", "add_options", "given_options", "make_options"]

#: Of these a command takes one: they say what is served.
SERVED = ("handler", "path", "server", "config")

#: Twisted's own, which Django has by itself.
_NOT_OURS = ("help", "version")

#: What is asked of one run, and so has no place in the settings: options of ours, then Django's.
_OF_ONE_RUN = (
    *("check", "reload", "tasks"),
    *("force-color", "no-color", "pythonpath", "settings", "skip-checks", "traceback"),
    *("verbosity", "version"),
)


def _words() -> dict[str, bool]:
    """The options by name, each with whether it takes a value."""
    names = Options().longOpt
    return {
        name.rstrip("="): name.endswith("=") for name in names if name.rstrip("=") not in _NOT_OURS
    }


def _settable() -> list[str]:
    """The names of those that say what is served, and how."""
    return [word for word in _words() if word not in _OF_ONE_RUN]


def _attribute(word: str) -> str:
    """The name of an option's value among those that C{argparse} has found."""
    return word.replace("-", "_")


def add_options(parser: ArgumentParser, left_out: Collection[str] = ()) -> None:
    """
    Add all options to those of a command.

    @param left_out: names of some that it does not have.
    """
    table = Options()
    short = {word: letter for letter, word in table.synonyms.items() if len(letter) == 1}
    for word, takes_value in _words().items():
        if word in left_out:
            continue
        names = [f"--{word}", *([f"-{short[word]}"] if word in short else [])]
        told = " ".join(table.docs[word].split()).replace("%", "%%")
        if not takes_value:
            parser.add_argument(*names, action="store_const", const=True, help=told)
        elif hasattr(table, f"opt_{_attribute(word)}"):  # what may be repeated has a method
            parser.add_argument(*names, action="append", metavar="VALUE", help=told)
        else:
            parser.add_argument(*names, metavar="VALUE", help=told)


def given_options(found: Mapping[str, object]) -> dict[str, object]:
    """
    The options that were given, by name.

    @param found: what C{argparse} has found, or a caller has said, by attribute.
    """
    values = {word: found.get(_attribute(word)) for word in _settable()}
    return {word: value for word, value in values.items() if value is not None}


def make_options(
    given: Mapping[str, object], of_class: Mapping[str, object], settings: object
) -> Options:
    """
    The options as L{sockserve.tap.makeService} takes them.

    @param given: those on the command line, by name.
    @param of_class: those that the command's class has, which go next.
    @param settings: C{settings.SOCKSERVE}, which has the rest.
    @raise ConfigurationError: one is wrong, or two do not go together.
    """
    usual = _from_settings(settings)
    said = {**of_class, **given}
    if "source" in given:  # rows have no clients
        usual = _of_rows(usual)
        said = {word: value for word, value in said.items() if word != "listen" or word in given}
    replaced = _replaced_by(said)
    usual = {word: value for word, value in usual.items() if word not in replaced}
    options = Options()
    options.update({**usual, **said})
    try:
        options.postOptions()
    except ConfigurationError as error:
        about = str(error).partition(":")[0].split(" ")
        if about[0] in usual and about[0] not in said:
            raise ConfigurationError(f"settings.SOCKSERVE: {error}") from error
        raise
    return options


def _of_rows(usual: Mapping[str, object]) -> dict[str, object]:
    """
    What of the settings is for rows as well.

    @raise ConfigurationError: a deadline is wrong.
    """
    found = {word: value for word, value in usual.items() if word in SOURCE_WORDS}
    if "timeout" in found:
        try:
            found["timeout"] = row_deadlines("timeout", found["timeout"])
        except ConfigurationError as error:
            raise ConfigurationError(f"settings.SOCKSERVE: {error}") from error
    return found


def _replaced_by(said: Collection[str]) -> list[str]:
    """The options of which the settings' do not count beside those that are said."""
    if "config" in said:  # all goes into the file
        return _settable()
    replaced = list(SERVED) if any(word in said for word in SERVED) else []
    return [*replaced, "listen"] if "server" in said else replaced  # which listens already


def _from_settings(settings: object) -> dict[str, object]:
    """The options that C{settings.SOCKSERVE} has, by name; C{_} in one stands for C{-}."""
    if not isinstance(settings, Mapping):
        raise ConfigurationError(
            f"settings.SOCKSERVE: write a dict of options, not {type(settings).__name__}"
        )
    known, takes_value = _settable(), _words()
    usual: dict[str, object] = {}
    for key, value in settings.items():
        word = str(key).replace("_", "-")
        if word in _OF_ONE_RUN:
            raise ConfigurationError(
                f"settings.SOCKSERVE: {key!r} is for the command line only, as --{word}"
            )
        if word not in known:
            raise ConfigurationError(
                f"settings.SOCKSERVE: unknown word {key!r}{nearest(word, known)}"
            )
        if not takes_value[word] and not isinstance(value, bool):
            raise ConfigurationError(
                f"settings.SOCKSERVE: {word}: write True or False, not {value!r}"
            )
        if value is not None:
            usual[word] = value
    return usual
