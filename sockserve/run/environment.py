"""
The environment: what variables like C{SOCKSERVE_MAX_CONNECTIONS} say.

This room owns how the words of the table of options are written there.  It must not know how a
value is checked.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from sockserve.core.messages import nearest
from sockserve.interfaces import ConfigurationError
from sockserve.run.options.words import OPTIONS, OWN_OPTIONS, Option

__all__ = ["environment_words"]

_PREFIX = "SOCKSERVE_"

_FLAGS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}

#: What is not taken from there: it is for one call, not for all.
_NOT_TAKEN = {option.variable: option for option in (OPTIONS["check"], *OWN_OPTIONS.values())}


def environment_words(environ: Mapping[str, str]) -> dict[str, object]:
    """
    The words that an environment has, C{config} among them.

    Several values of one variable have spaces between them; what holds a space is quoted, as for a
    shell.  An empty one says nothing.

    @raise ConfigurationError: a variable is nearly one of these, or of an option that is none
        of them, or its value cannot be read.
    """
    options = {option.variable: option for option in OPTIONS.values()}
    options = {name: option for name, option in options.items() if name not in _NOT_TAKEN}
    words: dict[str, object] = {}
    for variable, value in environ.items():
        if not variable.startswith(_PREFIX) or not value:
            continue
        if variable in options:
            if not _is_kubernetes(variable, value):
                words[options[variable].word] = _read(options[variable], value)
        elif variable in _NOT_TAKEN:
            word = _NOT_TAKEN[variable].word
            raise ConfigurationError(
                f"{variable}: it is for one call, and an option alone: --{word}"
            )
        elif hint := nearest(variable, options, _PREFIX):
            # Others may be another program's, or those that Kubernetes makes of a service's name.
            raise ConfigurationError(f"unknown variable {variable}{hint}")
    return words


def _is_kubernetes(variable: str, value: str) -> bool:
    """Whether a variable is what Kubernetes says of a service that is called C{sockserve}."""
    return variable == "SOCKSERVE_PORT" and value.startswith("tcp://")


def _read(option: Option, value: str) -> object:
    """
    The value of a variable, as a file would have it.

    @raise ConfigurationError: it is none.
    """
    if option.is_flag:
        try:
            return _FLAGS[value.lower()]
        except KeyError:
            raise ConfigurationError(
                f"{option.variable}: {value!r} is neither true nor false"
            ) from None
    if not option.notes.is_list:
        return value
    try:
        return shlex.split(value)
    except ValueError as error:
        raise ConfigurationError(f"{option.variable}: {value!r}: {error}") from None
