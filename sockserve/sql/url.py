"""
URLs of sources: which table of which database requests come from, and how it is asked.

This room owns the words of such a URL, with their checks.  It must not know the reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from sockserve.core.durations import seconds_of
from sockserve.core.messages import nearest
from sockserve.interfaces import ConfigurationError
from sockserve.sql.schema import check_table
from sockserve.sql.settings import RetryPolicy, SourceSettings
from sockserve.sql.sqlite import SQLiteStore
from sockserve.sql.store import Store

__all__ = ["SCHEMES", "store_and_settings"]

#: The dialects by scheme.
SCHEMES = {"sqlite": "sqlite", "postgresql": "postgresql", "postgres": "postgresql"}

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

#: What a URL of PostgreSQL's is like, for one that is none.
_POSTGRESQL_FORM = (
    "write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, and in a name or a password %40 for @,"
    " %2F for /, %3F for ? and %25 for %"
)


def store_and_settings(url: str, **settings: Any) -> tuple[Store, SourceSettings]:
    """
    The store that a URL names, not open, and how it is to be asked.

    @param settings: as L{SourceSettings}, in place of what the URL says.
    @raise ConfigurationError: the URL is none, or a setting cannot be.
    """
    dialect = _dialect(url)
    base, _, query = url.partition("?")
    shown = _shown(url)
    words: dict[str, str] = {}
    others: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        chosen = words if name == "table" or name in _WORDS else others
        if name in chosen:
            raise ConfigurationError(f"{shown!r}: {name} is given twice")
        chosen[name] = value
    table = check_table(words.pop("table", "jobs"))
    made = _settings(shown, words, settings)
    if dialect == "postgresql":
        return _postgresql(shown, base, others, table), made
    for name in others:
        raise ConfigurationError(f"{shown!r}: {_unknown(name)}")
    if "." in table:
        raise ConfigurationError(f"table {table!r}: a table of SQLite's has no schema before it")
    return SQLiteStore(_path(base), table), made


def _dialect(url: str) -> str:
    """
    The dialect of the database that a URL names.

    @raise ConfigurationError: it names none that is known.
    """
    scheme, colon, rest = url.partition("://")
    if not colon or not rest or scheme not in SCHEMES:
        is_near = colon and scheme not in SCHEMES
        raise ConfigurationError(
            f"{_shown(url)!r} is not sqlite:///PATH?table=NAME, nor"
            f" postgresql://HOST/DATABASE?table=NAME{nearest(scheme, SCHEMES) if is_near else ''}"
        )
    return SCHEMES[scheme]


def _shown(url: str) -> str:
    """A URL without what may be a password, and without its query, which may have one, too."""
    base, _, query = url.partition("?")
    scheme, colon, rest = base.partition("://")
    if "@" in rest:
        return f"{scheme}{colon}...@{rest.rpartition('@')[2]}"
    # A question mark that was meant to be one of a password.
    return f"{scheme}{colon}..." if "@" in query.partition("=")[0] else base


def _unknown(name: str, whose: str = "") -> str:
    known = ["table", *_WORDS]
    return f"{name!r} is not one of {', '.join(known)}{whose}{nearest(name, known)}"


def _settings(shown: str, words: dict[str, str], given: dict[str, Any]) -> SourceSettings:
    numbers: dict[str, Any] = {}
    for name, value in words.items():
        try:
            numbers[name] = _WORDS[name](value)
        except ValueError:
            whole = "whole number" if _WORDS[name] is int else "number of seconds"
            raise ConfigurationError(f"{shown!r}: {name}={value!r} is not a {whole}") from None
    try:
        policy = RetryPolicy(**{name: numbers.pop(name) for name in _POLICY if name in numbers})
        return SourceSettings(**{"policy": policy, **numbers, **given})
    except ConfigurationError as error:
        raise ConfigurationError(f"{shown!r}: {error}") from None
    except TypeError as error:
        raise ConfigurationError(f"{shown!r}: {str(error).partition(') ')[2] or error}") from None


def _path(base: str) -> str:
    """The file that a URL of SQLite's names; with a fourth slash, from the root."""
    host, slash, quoted = base.partition("://")[2].partition("/")
    path = unquote(quoted)
    if host or not slash or not path or "\0" in path:
        raise ConfigurationError(
            f"{base!r}: write sqlite:///PATH, or sqlite:////PATH for one from the root"
        )
    return path


def _postgresql(shown: str, base: str, words: Mapping[str, str], table: str) -> Store:
    """
    The store of a server.

    @param words: what follows in the URL and is libpq's.
    """
    try:
        from sockserve.sql.postgresql import PostgreSQLStore
        from sockserve.sql.postgresql_connections import libpq_words
    except ImportError as error:
        raise ConfigurationError(
            f"{shown!r}: it needs psycopg ({error}); pip install 'sockserve[postgres]'"
        ) from None
    authority, _, database = base.partition("://")[2].partition("/")
    # libpq's own messages would tell of a password what comes after such a sign.
    if authority.count("@") > 1 or "@" in database or any("@" in name for name in words):
        raise ConfigurationError(f"{shown!r}: {_POSTGRESQL_FORM}")
    known = libpq_words()
    for name in words:
        if name not in known:
            raise ConfigurationError(f"{shown!r}: {_unknown(name, ', nor of what libpq knows')}")
    rest = "&".join(f"{quote(name)}={quote(value)}" for name, value in words.items())
    try:
        return PostgreSQLStore(f"{base}?{rest}" if rest else base, table)
    except ValueError:
        raise ConfigurationError(f"{shown!r}: {_POSTGRESQL_FORM}") from None
