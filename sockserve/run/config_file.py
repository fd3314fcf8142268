"""
Configuration files: TOML, with the words of L{sockserve.run.config} in tables.

This room owns how such a file is read, and the messages about what is none.  It must not know what
the words mean, nor where in the text they stand (L{sockserve.run.lines}).
"""

from __future__ import annotations

import functools
import os
import re
import select
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from sockserve.core.messages import nearest, one_line, printable
from sockserve.interfaces import ConfigurationError
from sockserve.run.config import server_config
from sockserve.run.lines import line_of
from sockserve.run.server_config import ServerConfig
from sockserve.run.source_config import SourceConfig, source_config

__all__ = ["read_toml"]

#: What makes the settings of each kind of table.
TABLES: dict[str, Callable[[Mapping[str, object]], ServerConfig | SourceConfig]] = {
    "server": server_config,
    "source": source_config,
}

#: The largest file that is read: far more than a hundred thousand networks take.
MAX_FILE_BYTES = 2**24

#: How long somebody is waited for who writes into a pipe that is named as the file.  5: what
#: makes the file on the fly has begun to write by then.
PIPE_SECONDS = 5.0


def read_toml(path: str, pipe_seconds: float = PIPE_SECONDS) -> list[ServerConfig | SourceConfig]:
    """
    Read the C{[[server]]} and C{[[source]]} tables of a file.

    @param pipe_seconds: how long the first byte is waited for, if the file is a pipe.
    @return: the settings of each server, in the file's order, and then of each source.
    @raise ConfigurationError: the file cannot be read, or a word in it is wrong; the
        message names the file and, where one is at fault, the line.
    """
    text, tables = _load(path, pipe_seconds)
    shown = printable(path)
    for name in tables:
        if name not in TABLES:
            line = line_of(text, name, -1)
            raise ConfigurationError(
                f"{shown}:{line}: unknown table or word {name!r}{nearest(name, TABLES)}"
            )
    configs: list[ServerConfig | SourceConfig] = []
    for kind, make in TABLES.items():
        found = tables.get(kind, [])
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise ConfigurationError(f"{shown}: write at least one [[{kind}]] table")
        for number, words in enumerate(found):
            add_location = functools.partial(_located, shown, text, words, number, kind)
            try:
                configs.append(attrs.evolve(make(words), add_location=add_location))
            except ConfigurationError as error:
                raise ConfigurationError(add_location(str(error))) from None
    if not configs:
        raise ConfigurationError(f"{shown}: write at least one [[server]] table, or [[source]]")
    return configs


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
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{shown}:{line}: this is not UTF-8") from None
    try:
        return text, tomllib.loads(text)
    except RecursionError:
        raise ConfigurationError(f"{shown}: its values are nested too deeply") from None
    except ValueError as error:  # tomllib's own, of a number too long
        raise ConfigurationError(f"{shown}: {one_line(error)}") from None


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


def _located(
    shown: str, text: str, words: Iterable[str], table: int, kind: str, message: str
) -> str:
    """Prefix a message about one of the C{words} of a table with its file and line."""
    word = next((word for word in words if _is_about(message, word)), None)
    return f"{shown}:{line_of(text, word, table, kind)}: {message}"


def _is_about(message: str, word: str) -> bool:
    """Whether a message of L{sockserve.run.config} is about C{word}: it begins with it."""
    return re.match(rf"(unknown word [\"'])?{re.escape(word)}(?![\w-])", message) is not None
