"""
Configuration files: TOML, with the words of L{sockserve.run.config} in tables.

This room owns the search for the line that a message is about.  It must not know what the
words mean.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable

import attrs

from sockserve.core.messages import nearest
from sockserve.interfaces import ConfigurationError
from sockserve.run.config import ServerConfig, server_config

__all__ = ["read_toml"]


def read_toml(path: str) -> list[ServerConfig]:
    """
    Read the C{[[server]]} tables of a file.

    @return: the settings of each server, in the file's order.
    @raise ConfigurationError: the file cannot be read, or a word in it is wrong; the
        message names the file and, where one is at fault, the line.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        tables = tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"config {path!r}: {error.strerror}") from None
    except ValueError as error:  # tomllib's own, of what is no UTF-8, of a number too long
        raise ConfigurationError(f"{path}: {error}") from None
    for name in tables:
        if name != "server":
            line = _line_of(text, name, -1)
            raise ConfigurationError(
                f"{path}:{line}: unknown table or word {name!r}{nearest(name, ['server'])}"
            )
    servers = tables.get("server")
    are_tables = isinstance(servers, list) and all(isinstance(each, dict) for each in servers)
    if not servers or not are_tables:
        raise ConfigurationError(f"{path}: write at least one [[server]] table")
    configs = []
    for number, words in enumerate(servers):
        add_location = functools.partial(_located, path, text, words, number)
        try:
            configs.append(attrs.evolve(server_config(words), add_location=add_location))
        except ConfigurationError as error:
            raise ConfigurationError(add_location(str(error))) from None
    return configs


def _located(path: str, text: str, words: Iterable[str], table: int, message: str) -> str:
    """Prefix a message about one of the C{words} of a table with its file and line."""
    word = next((word for word in words if _is_about(message, word)), None)
    return f"{path}:{_line_of(text, word, table)}: {message}"


def _is_about(message: str, word: str) -> bool:
    """Whether a message of L{sockserve.run.config} is about C{word}: it begins with it."""
    return re.match(rf"(unknown word [\"'])?{re.escape(word)}(?![\w-])", message) is not None


def _line_of(text: str, word: str | None, table: int) -> int:
    """The line of C{word} in the C{table}th server table (-1: before them), or of that table."""
    seen = -1
    start = 1
    for number, line in enumerate(text.split("\n"), 1):  # as tomllib counts them
        if re.match(r"\s*\[\[\s*server\s*\]\]", line):
            seen += 1
            if seen == table:
                start = number
            continue
        # A table that is no server's may stand anywhere.
        may_be_here = seen == table or (table < 0 and line.lstrip().startswith("["))
        if word is not None and may_be_here and _begins_with(line, word):
            return number
    return start


def _begins_with(line: str, word: str) -> bool:
    """Whether a line of TOML is C{word =}, C{word.}, C{[word]} or C{[[server.word]]}."""
    form = rf"\s*(\[+\s*(server\.)?)?[\"']?{re.escape(word)}[\"']?\s*[=.\]]"
    return re.match(form, line) is not None
