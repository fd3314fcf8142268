"""
Extra fields: header fields that the owner of a server adds to its files.

This room owns how one is written, and which are not to be added.  It must not know which responses
have them.
"""

from __future__ import annotations

from collections.abc import Iterable

from sockserve.http.fields import check_text, learn_name
from sockserve.interfaces import ConfigurationError

__all__ = ["check_extra_fields", "parse_extra_field"]

#: The fields that the server makes by itself: a second one would contradict the first, or say that
#: a response ends elsewhere.
_OWN = frozenset(
    {
        "accept-ranges",
        "connection",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "etag",
        "keep-alive",
        "last-modified",
        "location",
        "server",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def parse_extra_field(line: str) -> tuple[str, str]:
    """
    The name and the value of a field that is written C{Name: value}.

    @raise ValueError: it is not, or must not be added.
    """
    name, colon, value = line.partition(":")
    if not colon:
        raise ValueError("write it as 'Name: value'")
    field = name.strip(" \t"), value.strip(" \t")
    _check(*field)
    return field


def check_extra_fields(handler_name: str, fields: Iterable[tuple[str, str]]) -> None:
    """
    Check that fields, as names and values, can be added.

    @raise ConfigurationError: one cannot be sent, or is one that the server makes by itself.
    """
    try:
        for name, value in fields:
            _check(name, value)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"handler {handler_name}: extra_response_headers: {error}"
        ) from None


def _check(name: str, value: str) -> None:
    """
    Check one.

    @raise ValueError: as L{parse_extra_field}.
    """
    learn_name(name)
    check_text(f"header field {name}:", value)
    if name.lower() in _OWN:
        raise ValueError(f"header field {name}: the server makes it by itself")
