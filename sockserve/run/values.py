"""
Values: what a user may write for one word of a server, checked and in the type it is to have.

This room owns the checks of numbers, sizes, texts, networks, seconds.  It must not know which
words there are, nor how two of them go together.

Each check takes the word, for messages, and the value: a string or, from TOML, of a type of its
own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

from sockserve.core.admission import Network, parse_network
from sockserve.core.deadlines import Deadlines
from sockserve.core.durations import EXAMPLES, seconds_of
from sockserve.core.limits import LIMITS
from sockserve.core.messages import about, nearest
from sockserve.http.files.extra_fields import parse_extra_field
from sockserve.interfaces import ConfigurationError, Phase
from sockserve.listeners.descriptions import MAX_PORT
from sockserve.listeners.endpoints import written_out
from sockserve.run.options.forms import KEEPALIVE, Form
from sockserve.run.options.words import Option

__all__ = ["CHECKS", "Check", "check_value", "each_text", "text"]

#: A number, as it is or times 1024 to the first, second or third: as nginx reads sizes.
_SIZE = re.compile(r"([0-9]{1,18})([kmg]?)", re.ASCII | re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3}

#: What a message says of what is no time.
_NO_TIME = f"not a number of seconds above 0, nor none ({EXAMPLES})"

T = TypeVar("T")

#: What checks a value: it takes the word, for messages, and the value.
Check: TypeAlias = Callable[[str, Any], object]


def check_value(option: Option, value: object, checks: Mapping[Form, Check]) -> object:
    """
    The value of an option, checked, in the type that its setting has.

    @param checks: by form; those that are not among L{CHECKS}.
    @raise ConfigurationError: it is wrong; the message begins with the word.
    """
    with about(option.word):
        if option.choices:
            return _choice(option, value)
        form = option.notes.form
        return (checks.get(form) or CHECKS[form])(option.word, value)


def text(word: str, value: object) -> str:
    """A text that is not empty."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{word}: {value!r} is not a text")
    if not value:
        raise ConfigurationError(f"{word}: it is empty")
    return value


def each_text(word: str, value: object, check: Callable[[str], T]) -> tuple[T, ...]:
    """
    One text or a list of them, each checked.

    @param check: takes a text, and returns what it stands for.
    @raise ConfigurationError: one of them is wrong.
    """
    if not isinstance(value, (list, tuple)):
        return (check(text(word, value)),)
    found = []
    for place, each in enumerate(value):
        with about(word, place):
            found.append(check(text(word, each)))
    return tuple(found)


def _descriptions(word: str, value: object) -> tuple[str, ...]:
    """One description or a list of them; short ones are written out."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise ConfigurationError(f"{word}: {value!r} is not a text; write 'tcp:{value}'")
    return each_text(word, value, written_out)


def _whole_number(word: str, value: object) -> int:
    """A whole number."""
    try:
        if isinstance(value, (bool, float)):
            raise ValueError
        return int(value)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError):
        raise ConfigurationError(f"{word}: {value!r} is not a whole number") from None


def _port(word: str, value: object) -> int:
    """The number of a port, or 0."""
    found = _whole_number(word, value)
    if not 0 <= found <= MAX_PORT:
        raise ConfigurationError(f"{word}: {found} is not within 0 to {MAX_PORT}")
    return found


def _number(word: str, value: object) -> int:
    """A whole number of 1 or more."""
    found = _whole_number(word, value)
    if found < 1:
        raise ConfigurationError(f"{word}: {found} is less than 1")
    return found


def _flag(word: str, value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{word}: {value!r} is neither true nor false")
    return value


def _choice(option: Option, value: object) -> str:
    """One of an option's choices."""
    choices = option.choices
    if value not in choices:
        hint = nearest(str(value), choices)
        raise ConfigurationError(
            f"{option.word}: {value!r} is not one of {', '.join(choices)}{hint}"
        )
    return str(value)


def _networks(word: str, value: object) -> tuple[Network, ...]:
    """One network or a list of them."""

    def check(network: str) -> Network:
        try:
            return parse_network(network)
        except ConfigurationError as error:
            raise ConfigurationError(f"{word}: {error}") from None

    return each_text(word, value, check)


def _header_fields(word: str, value: object) -> tuple[tuple[str, str], ...]:
    """One field, C{"Name: value"}, or a list of them, as names and values."""

    def check(line: str) -> tuple[str, str]:
        try:
            return parse_extra_field(line)
        except ValueError as error:
            raise ConfigurationError(f"{word} {line!r}: {error}") from None

    return each_text(word, value, check)


def _limit(word: str, value: object) -> int | None:
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


def _rate(word: str, value: object) -> float | None:
    """A rate of L{Deadlines}: bytes a second above 0, or C{none}."""
    found = value
    size = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if size is not None:
        found = int(size[1]) * 1024 ** _POWERS[size[2].lower()]
    try:
        return _deadline(word.replace("-", "_"), found, float)
    except ValueError:
        raise ConfigurationError(
            f"{word}: {value!r} is not a number of bytes a second above 0, nor none"
        ) from None


def _seconds(word: str, value: object) -> float | None:
    """A time of L{Deadlines}, or C{none}."""
    try:
        return _deadline(word.replace("-", "_"), value, seconds_of)
    except ValueError:
        raise ConfigurationError(f"{word}: {value!r} is {_NO_TIME}") from None


def _deadline(name: str, value: object, read: Callable[[str], float]) -> float | None:
    """
    The value of one setting of L{Deadlines}.

    @param read: takes a text.
    @raise ValueError: it cannot be.
    """
    if value == "none":
        return None
    if isinstance(value, str):
        value = read(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError
    try:
        Deadlines(**{name: value})
        return float(value)
    except (ConfigurationError, OverflowError):
        raise ValueError from None


def _deadlines(word: str, value: object) -> dict[str, float | None]:
    """Seconds by phase, from C{["idle=60", …]} or, in TOML, C{{idle = 60, …}}."""
    if isinstance(value, Mapping):
        settings: dict[str, float | None] = {}
        for phase, seconds in value.items():
            with about(word, phase):
                settings |= _one_deadline(word, phase, seconds)
        return settings
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        example = f"{{ idle = {value} }}"
        raise ConfigurationError(f"{word}: {value!r} is not a text; write PHASE, as {example}")
    pairs = each_text(word, value, lambda each: _pair(word, each))
    return {name: seconds for pair in pairs for name, seconds in pair.items()}


def _pair(word: str, written: str) -> dict[str, float | None]:
    phase, equals, seconds = written.partition("=")
    if not equals:
        try:
            seconds_of(written)
            example = f"handle={written}"
        except ValueError:
            example = "idle=60"
        raise ConfigurationError(f"{word} {written!r}: write PHASE=SECONDS, such as {example}")
    return _one_deadline(word, phase, seconds)


def _one_deadline(word: str, phase: str, seconds: object) -> dict[str, float | None]:
    phases = [*(str(phase) for phase in Phase), *KEEPALIVE]
    if phase not in phases:
        raise ConfigurationError(
            f"{word}: {phase!r} is not one of {', '.join(phases)}{nearest(phase, phases)}",
            is_name=True,
        )
    name = phase.replace("-", "_")
    try:
        return {name: _deadline(name, seconds, seconds_of)}
    except ValueError:
        raise ConfigurationError(f"{word} {phase}: {seconds!r} is {_NO_TIME}") from None


#: By form: what takes a word and its value, and returns that as its setting has it.
CHECKS: Mapping[Form, Check] = {
    Form.TEXT: text,
    Form.DESCRIPTIONS: _descriptions,
    Form.PORT: _port,
    Form.NUMBER: _number,
    Form.FLAG: _flag,
    Form.LIMIT: _limit,
    Form.RATE: _rate,
    Form.SECONDS: _seconds,
    Form.DEADLINES: _deadlines,
    Form.NETWORKS: _networks,
    Form.FIELDS: _header_fields,
}
