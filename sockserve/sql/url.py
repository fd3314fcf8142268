"""
URLs of sources: which table of which database requests come from, and how it is asked.

This room owns the words of such a URL, with their checks.  It must not know the reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import attrs

from sockserve.core.durations import seconds_of
from sockserve.core.messages import nearest
from sockserve.interfaces import ConfigurationError
from sockserve.sql.rows import RetryPolicy
from sockserve.sql.schema import check_table
from sockserve.sql.sqlite import SQLiteStore
from sockserve.sql.store import Store

__all__ = ["SCHEMES", "SourceSettings", "check_url", "dialect_of", "store_and_settings"]

#: The dialects by scheme.
SCHEMES = {"sqlite": "sqlite", "postgresql": "postgresql", "postgres": "postgresql"}


#: The longest lease and poll, in seconds: a year.  No database reckons with infinite ones.
MOST_SECONDS = 366 * 86400.0


def _above_zero(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigurationError(f"{attribute.name}: {value!r} is not a number above 0")


def _seconds(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    _above_zero(instance, attribute, value)
    if value > MOST_SECONDS:  # type: ignore[operator]
        raise ConfigurationError(f"{attribute.name}: {value!r} is more than {MOST_SECONDS:.0f}")


def _whole(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    _above_zero(instance, attribute, value)
    if not isinstance(value, int):
        raise ConfigurationError(f"{attribute.name}: {value!r} is not a whole number")


@attrs.frozen(kw_only=True)
class SourceSettings:
    """
    How a table is asked for rows.

    @ivar batch: the most rows that are claimed at once.  100: what is claimed and not served yet
        is what a crash of this process delays.
    @ivar lease: the seconds after which others may claim what this process has claimed, if it has
        died meanwhile; while it lives, its leases are extended.  30: much longer than a reactor is
        kept busy by anything.
    @ivar poll: the seconds between two looks for new rows, where nobody tells of them: in SQLite
        those of other processes, in PostgreSQL while the connection that listens is broken.
        0.05: a look at SQLite takes some microseconds.
    @ivar policy: when a row that has failed is tried again.
    """

    batch: int = attrs.field(default=100, validator=_whole)
    lease: float = attrs.field(default=30.0, validator=_seconds)
    poll: float = attrs.field(default=0.05, validator=_seconds)
    policy: RetryPolicy = attrs.Factory(RetryPolicy)


#: The words that may follow the table in a URL, with their types; those of L{RetryPolicy} last.
_WORDS: Mapping[str, Callable[[str], float]] = {
    "batch": int,
    "lease": seconds_of,
    "poll": seconds_of,
    "attempts": int,
    "first": seconds_of,
    "longest": seconds_of,
}
_POLICY = ("attempts", "first", "longest")


def dialect_of(url: str) -> str:
    """
    The dialect of the database that a URL names.

    @raise ConfigurationError: it names none that is known.
    """
    scheme, colon, rest = url.partition("://")
    if not colon or not rest or scheme not in SCHEMES:
        hint = nearest(scheme, SCHEMES) if colon else ""
        raise ConfigurationError(
            f"{_shown(url)!r} is not sqlite:///PATH?table=NAME, nor"
            f" postgresql://HOST/DATABASE?table=NAME{hint}"
        )
    return SCHEMES[scheme]


def _shown(url: str) -> str:
    """A URL without what may be a password."""
    before, at, after = url.rpartition("@")
    return f"{before.partition('://')[0]}://...@{after}" if at else url


def check_url(url: str) -> str:
    """
    Check a source's URL, without looking for the database.

    @raise ConfigurationError: it is none.
    """
    store_and_settings(url)
    return url


def store_and_settings(url: str, **settings: Any) -> tuple[Store, SourceSettings]:
    """
    The store that a URL names, not open, and how it is to be asked.

    @param settings: as L{SourceSettings}, in place of what the URL says.
    @raise ConfigurationError: the URL is none, or a setting cannot be.
    """
    dialect = dialect_of(url)
    base, _, query = url.partition("?")
    words = {}
    others = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "table" or name in _WORDS:
            words[name] = value
        else:
            others.append((name, value))
    if dialect == "sqlite" and others:
        name = others[0][0]
        known = ["table", *_WORDS]
        raise ConfigurationError(
            f"{_shown(url)!r}: {name!r} is not one of {', '.join(known)}{nearest(name, known)}"
        )
    table = check_table(words.pop("table", "jobs"))
    chosen = _settings(_shown(url), words, settings)
    if dialect == "sqlite":
        if "." in table:
            raise ConfigurationError(
                f"table {table!r}: a table of SQLite's has no schema before it"
            )
        return SQLiteStore(_path(url), table), chosen
    rest = "&".join(f"{quote(name)}={quote(value)}" for name, value in others)
    return _postgresql(f"{base}?{rest}" if rest else base, table), chosen


def _settings(url: str, words: dict[str, str], given: dict[str, Any]) -> SourceSettings:
    numbers: dict[str, Any] = {}
    for name, value in words.items():
        try:
            numbers[name] = _WORDS[name](value)
        except ValueError:
            whole = "whole number" if _WORDS[name] is int else "number of seconds"
            raise ConfigurationError(f"{url!r}: {name}={value!r} is not a {whole}") from None
    try:
        policy = RetryPolicy(**{name: numbers.pop(name) for name in _POLICY if name in numbers})
        return SourceSettings(**{"policy": policy, **numbers, **given})
    except ConfigurationError as error:
        raise ConfigurationError(f"{url!r}: {error}") from None
    except TypeError as error:
        raise ConfigurationError(f"{url!r}: {str(error).partition(') ')[2] or error}") from None


def _path(url: str) -> str:
    """The file that a URL of SQLite's names; with a fourth slash, from the root."""
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or not path:
        raise ConfigurationError(
            f"{url!r}: write sqlite:///PATH, or sqlite:////PATH for one from the root"
        )
    return path


def _postgresql(url: str, table: str) -> Store:
    try:
        from sockserve.sql.postgresql import PostgreSQLStore
    except ImportError as error:
        raise ConfigurationError(
            f"{_shown(url)!r}: it needs psycopg ({error}); pip install 'sockserve[postgres]'"
        ) from None
    return PostgreSQLStore(url, table)
