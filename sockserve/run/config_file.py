"""
Configuration files: the words of L{sockserve.run.config} from the tables of a TOML file.

This room owns finding the line a message is about.  It must not know what the words mean.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable

import attrs

from sockserve.core.messages import nearest
from sockserve.interfaces import ConfigurationError
from sockserve.run.config import WORDS, ServerConfig, server_config

__all__ = ["read_toml"]


def read_toml(path: str) -> list[ServerConfig]:
    """
    The C{[[server]]} tables of a file.

    @raise ConfigurationError: naming the file and, where one is at fault, the line.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        tables = tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"config {path!r}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from None
    for name in tables:
        if name != "server":
            line = _line_of(text, name, -1)
            raise ConfigurationError(
                f"{path}:{line}: unknown table or word {name!r}{nearest(name, ['server'])}"
            )
    servers = tables.get("server")
    if not servers or not isinstance(servers, list) or not isinstance(servers[0], dict):
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
    """A message about one of the C{words} of a table, after the file and the line."""
    word = next((word for word in words if _names(message, word)), None)
    return f"{path}:{_line_of(text, word, table)}: {message}"


def _names(message: str, word: str) -> bool:
    return re.match(rf"(unknown word ')?{re.escape(word)}\b", message) is not None


def _line_of(text: str, word: str | None, table: int) -> int:
    """The line of C{word} in the C{table}th server table (-1: before them), or of that table."""
    seen = -1
    start = 1
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*\[\[\s*server\s*\]\]", line):
            seen += 1
            if seen == table:
                start = number
        elif (
            word is not None
            and (seen == table or word not in WORDS)
            and re.match(rf"\s*(\[+\s*(server\.)?)?[\"']?{re.escape(word)}[\"']?\s*[=.\]]", line)
        ):
            return number
    return start
