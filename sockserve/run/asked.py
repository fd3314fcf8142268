"""
Servers and sources that a command is asked for: by options, by the environment, by a file.

This room owns which of them counts: an option more than a variable, and that more than the file.
It must not know how any of them is written.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from sockserve.interfaces import ConfigurationError
from sockserve.run.config import server_config
from sockserve.run.config_file import read_toml
from sockserve.run.options.words import SERVER_OPTIONS, override
from sockserve.run.origins import Origins
from sockserve.run.server_config import ServerConfig
from sockserve.run.source_config import SourceConfig, source_config, words_of_rows

__all__ = ["servers_asked_for"]


def servers_asked_for(
    options: Mapping[str, object], variables: Mapping[str, object]
) -> list[ServerConfig | SourceConfig]:
    """
    The settings of each server or source that is asked for.

    @param options: the words of the command line, C{config} among them.
    @param variables: those of the environment.
    @raise ConfigurationError: a word is wrong, or two do not go together.
    """
    said = {word: value for word, value in options.items() if word != "config"}
    also = {word: value for word, value in variables.items() if word != "config"}
    # An option that says what is served takes the place of a file that the environment names.
    is_said = any(word in said for word in ("handler", "path", "server", "source"))
    file = options.get("config", None if is_said else variables.get("config"))
    if file is not None:
        return read_toml(str(file), options=said, variables=also)
    words = override(also, said)
    if "source" in words:
        usual = words_of_rows(words)
    else:
        usual = {word: value for word, value in words.items() if word in SERVER_OPTIONS}
    words = {**usual, **{word: value for word, value in words.items() if word in said}}
    origins = Origins(words, set(words) - set(said))
    try:
        config = source_config(words) if "source" in words else server_config(words)
    except ConfigurationError as error:
        origins.locate(error)
        raise
    return [attrs.evolve(config, locate=origins.locate)]
