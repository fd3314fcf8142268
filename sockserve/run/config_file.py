"""
Configuration files: TOML, with the words of the table of options in tables.

This room owns how such a file is read, what of it other words override, and the messages about
what is none.  It must not know what the words mean, nor where in the text they stand
(L{sockserve.run.positions}).
"""

from __future__ import annotations

import functools
import os
import re
import select
import stat
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from sockserve.core.messages import nearest, one_line, printable
from sockserve.interfaces import ConfigurationError
from sockserve.run.config import server_config
from sockserve.run.options.words import OPTIONS, SERVER_OPTIONS, SOURCE_OPTIONS, Option, override
from sockserve.run.origins import Origins, Table
from sockserve.run.positions import Positions
from sockserve.run.server_config import ServerConfig
from sockserve.run.source_config import SourceConfig, source_config

__all__ = ["read_toml"]


@attrs.frozen
class _Kind:
    """
    A kind of table.

    @ivar options: its words.
    @ivar make: makes the settings of one.
    """

    options: Mapping[str, Option]
    make: Callable[[Mapping[str, object]], ServerConfig | SourceConfig]

    def takes(self, word: str, words: Mapping[str, object]) -> bool:
        """Whether a table of this kind, with these words, takes one from elsewhere."""
        option = self.options.get(word)
        if option is None:
            return False
        # One with a server object has no use for what that has, unless it is to be another's.
        notes = option.notes
        return "server" not in words or notes.goes_with_object or "server" in notes.rivals


#: What makes the settings of each kind of table.
TABLES: Mapping[str, _Kind] = {
    "server": _Kind(SERVER_OPTIONS, server_config),
    "source": _Kind(SOURCE_OPTIONS, source_config),
}

#: A description of any port that is free.
_ANY_PORT = re.compile(r"(.*:)?0(:.*)?", re.DOTALL)

#: The largest file that is read: far more than a hundred thousand networks take.
MAX_FILE_BYTES = 2**24

#: How long somebody is waited for who writes into a pipe that is named as the file.  5: what
#: makes the file on the fly has begun to write by then.
PIPE_SECONDS = 5.0


def read_toml(
    path: str,
    *,
    options: Mapping[str, object] | None = None,
    variables: Mapping[str, object] | None = None,
    pipe_seconds: float = PIPE_SECONDS,
) -> list[ServerConfig | SourceConfig]:
    """
    Read the C{[[server]]} and C{[[source]]} tables of a file.

    @param options: words that override those of each table that takes them.
    @param variables: words of the environment, which do so unless C{options} have them.
    @param pipe_seconds: how long the first byte is waited for, if the file is a pipe.
    @return: the settings of each server, in the file's order, and then of each source.
    @raise ConfigurationError: the file cannot be read, or a word in it is wrong; the
        message names the file and, where one is at fault, the line and column.
    """
    text, tables = _load(path, pipe_seconds)
    shown = printable(path)
    find = functools.cache(functools.partial(Positions, text))
    for name in tables:
        if name not in TABLES:
            where = Table(shown, find, ()).key(name)
            raise ConfigurationError(
                f"{where}: unknown table or word {name!r}{nearest(name, TABLES)}"
            )
    options, variables = options or {}, variables or {}
    configs: list[ServerConfig | SourceConfig] = []
    unused = set(options)
    #: By the word that says where: how many servers listen at each of the places that it leads to.
    places: defaultdict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for name, kind in TABLES.items():
        found = tables.get(name, [])
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            where = Table(shown, find, ()).value(name)
            raise ConfigurationError(f"{where}: write [[{name}]], in two brackets, for each {name}")
        for number, table in enumerate(found):
            by = {word: options[word] for word in options if kind.takes(word, table)}
            also = {word: variables[word] for word in variables if kind.takes(word, table)}
            also = {word: value for word, value in also.items() if word in override(also, by)}
            words = override(override(table, also), by)
            origins = Origins(words, set(also) - set(by), Table(shown, find, (name, number)), by)
            unused -= set(by)
            try:
                made = kind.make(words)
            except ConfigurationError as error:
                origins.locate(error)
                raise
            configs.append(attrs.evolve(made, file=path, locate=origins.locate))
            if isinstance(made, ServerConfig):
                for word in {*by, *also}:
                    places[word][made.listen] += 1
    for word, value in override(variables, options).items():
        together = max(places[word].values(), default=0)
        if together > 1 and _is_one_place(word, value):
            raise ConfigurationError(
                f"{word if word in options else OPTIONS[word].variable}: {together} servers of"
                f" {shown} would listen there; say in the table of each where it does"
            )
    if not configs:
        raise ConfigurationError(f"{shown}: write at least one [[server]] table, or [[source]]")
    if unused:
        raise ConfigurationError(f"{min(unused)}: there is no table in {shown} that it goes with")
    return configs


def _is_one_place(word: str, value: object) -> bool:
    """Whether a word says where to listen so that only one server can."""
    if word == "port":
        return str(value) != "0"  # which is any that is free
    if word == "listen":
        descriptions = value if isinstance(value, (list, tuple)) else [value]
        return any(_ANY_PORT.fullmatch(str(each)) is None for each in descriptions)
    return word == "unix"


def _load(path: str, pipe_seconds: float) -> tuple[str, dict[str, Any]]:
    """
    The text of a file, and what it says as TOML.

    @raise ConfigurationError: it cannot be read, or is no TOML.
    """
    shown = printable(path)
    try:
        content = _read(path, pipe_seconds)
    except (OSError, ValueError) as error:  # a name with a NUL is the latter
        why = getattr(error, "strerror", None) or one_line(error)
        raise ConfigurationError(f"config {path!r}: {why}") from None
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8-sig").split("\n")
        where = f"{shown}:{len(before)}:{len(before[-1]) + 1}"
        raise ConfigurationError(f"{where}: this is not UTF-8") from None
    try:
        return text, tomllib.loads(text)
    except RecursionError:
        raise ConfigurationError(f"{shown}: its values are nested too deeply") from None
    except ValueError as error:  # tomllib's own, of a number too long
        raise ConfigurationError(_located(shown, text, one_line(error))) from None


def _located(shown: str, text: str, message: str) -> str:
    """A message of C{tomllib}'s, with the place in front."""
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message)
    if found is None:
        return f"{shown}: {message}"
    said, line, column = found.groups()
    if said == "Invalid value":
        said += "; a text is written in quotation marks"
    if line is None:
        lines = text.split("\n")
        return f"{shown}:{len(lines)}:{len(lines[-1]) + 1}: {said} (at the end)"
    return f"{shown}:{line}:{column}: {said}"


def _read(path: str, pipe_seconds: float) -> bytes:
    """
    The bytes of a configuration file.

    @raise OSError: the file is not there, or not to be read.
    @raise ValueError: it is too large, or a pipe that nobody writes into; or there can be none
        of that name.
    """
    # A pipe that nobody writes into would be waited for without a word.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(pipe_seconds * 1000):
                raise ValueError("nobody writes into this pipe")
        os.set_blocking(descriptor, True)
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES >> 20} MiB")
    return content
