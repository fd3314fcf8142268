"""
Values: what a user may write for one word of a server, checked and in the type it is to have.

This room owns the forms of values: numbers, sizes, texts, networks, seconds.  It must not know
which words there are, nor how two of them go together.

Each check takes the word, for messages, and the value: a string or, from TOML, of a type of its
own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from sockserve.core.admission import Network, parse_network
from sockserve.core.deadlines import Deadlines
from sockserve.core.limits import LIMITS
from sockserve.core.messages import nearest
from sockserve.http.files.extra_fields import parse_extra_field
from sockserve.interfaces import ConfigurationError, Phase

__all__ = [
    "KEEPALIVE",
    "choice",
    "deadline_setting",
    "deadlines",
    "flag",
    "header_fields",
    "limit",
    "networks",
    "number",
    "text",
    "texts",
]

#: What C{timeout} takes besides phases: names in L{Deadlines}, with dashes.
KEEPALIVE = ("keepalive", "user-timeout")

#: A number, as it is or times 1024 to the first, second or third: as nginx reads sizes.
_SIZE = re.compile(r"([0-9]{1,18})([kmg]?)", re.ASCII | re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3}


def text(word: str, value: object) -> str:
    """A text that is not empty."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{word}: {value!r} is not a text")
    if not value:
        raise ConfigurationError(f"{word}: it is empty")
    return value


def texts(word: str, value: object) -> tuple[str, ...]:
    """One text or a list of them."""
    if isinstance(value, (list, tuple)):
        return tuple(text(word, item) for item in value)
    return (text(word, value),)


def number(word: str, value: object) -> int:
    """A whole number of 1 or more."""
    try:
        if isinstance(value, (bool, float)):
            raise ValueError
        found = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise ConfigurationError(f"{word}: {value!r} is not a whole number") from None
    if found < 1:
        raise ConfigurationError(f"{word}: {found} is less than 1")
    return int(found)


def flag(word: str, value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{word}: {value!r} is neither true nor false")
    return value


def choice(*choices: str) -> Callable[[str, object], str]:
    """One of C{choices}."""

    def choose(word: str, value: object) -> str:
        if value not in choices:
            hint = nearest(str(value), choices)
            raise ConfigurationError(f"{word}: {value!r} is not one of {', '.join(choices)}{hint}")
        return str(value)

    return choose


def networks(word: str, value: object) -> tuple[Network, ...]:
    """One network or a list of them."""
    try:
        return tuple(parse_network(each) for each in texts(word, value))
    except ConfigurationError as error:
        raise ConfigurationError(f"{word}: {error}") from None


def header_fields(word: str, value: object) -> tuple[tuple[str, str], ...]:
    """One field, C{"Name: value"}, or a list of them, as names and values."""
    fields = []
    for line in texts(word, value):
        try:
            fields.append(parse_extra_field(line))
        except ValueError as error:
            raise ConfigurationError(f"{word} {line!r}: {error}") from None
    return tuple(fields)


def limit(word: str, value: object) -> int | None:
    """
    The value of the limit that C{word} is for: a whole number; of bytes, also one with C{k},
    C{m} or C{g} behind it, which are powers of 1024; or C{none}, if it can be without.
    """
    kind = LIMITS[word.replace("-", "_")]
    may_be_none = kind.may_be_none and kind.unit != "connections"
    if value == "none" and may_be_none:
        return None
    found: object = value
    size = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if size is not None and (kind.unit == "bytes" or not size[2]):
        found = int(size[1]) * 1024 ** _POWERS[size[2].lower()]
    if found is None or not kind.is_met_by(found):
        sizes = ", such as 10m (k, m and g are powers of 1024)" if kind.unit == "bytes" else ""
        none = ", nor none" if may_be_none else ""
        raise ConfigurationError(f"{word}: {value!r} is not {kind.wanted}{sizes}{none}")
    assert isinstance(found, int)
    return found


def deadline_setting(word: str, value: object) -> float | None:
    """
    The setting of L{Deadlines} that C{word} is for, which is no phase: a number above 0, or
    C{none}.
    """
    name = word.replace("-", "_")
    if value == "none":
        return None
    found: object = value
    try:
        if isinstance(value, str):
            size = _SIZE.fullmatch(value) if word.endswith("-rate") else None
            found = (
                float(value) if size is None else int(size[1]) * 1024 ** _POWERS[size[2].lower()]
            )
        if found is None:
            raise ValueError
        return getattr(Deadlines(**{name: found}), name)  # type: ignore[arg-type, no-any-return]
    except (ValueError, ConfigurationError):
        unit = "bytes a second" if word.endswith("-rate") else "seconds"
        raise ConfigurationError(
            f"{word}: {value!r} is not a number of {unit} above 0, nor none"
        ) from None


def deadlines(word: str, value: object) -> dict[str, float | None]:
    """Seconds by phase, from C{["idle=60", …]} or, in TOML, C{{idle = 60, …}}."""
    if isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        pairs = []
        for each in texts(word, value):
            phase, equals, seconds = each.partition("=")
            if not equals:
                raise ConfigurationError(f"{word} {each!r}: write PHASE=SECONDS")
            pairs.append((phase, seconds))
    phases = [*(str(phase) for phase in Phase), *KEEPALIVE]
    settings: dict[str, float | None] = {}
    for phase, seconds in pairs:
        if phase not in phases:
            raise ConfigurationError(
                f"{word}: {phase!r} is not one of {', '.join(phases)}{nearest(phase, phases)}"
            )
        if seconds == "none":
            settings[phase.replace("-", "_")] = None
            continue
        try:
            if isinstance(seconds, bool):
                raise ValueError
            setting = {phase.replace("-", "_"): float(seconds)}
            Deadlines(**setting)
            settings.update(setting)
        except (TypeError, ValueError, ConfigurationError):
            raise ConfigurationError(
                f"{word} {phase}: {seconds!r} is not a number of seconds above 0, nor none"
            ) from None
    return settings
