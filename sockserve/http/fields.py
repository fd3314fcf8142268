"""
The fields of a response's head, as a handler gives them.

This room owns what may stand in a name and in a value, and which names decide about framing.  It
must not know responses, or what is made of such fields.
"""

from __future__ import annotations

from sockserve.http.h1.request_line import TOKEN

__all__ = ["FRAMING_FIELDS", "check_text", "known_kind", "learn_name"]

#: The header fields that decide about framing, by the name in lower case.
FRAMING_FIELDS = ("connection", "content-length", "transfer-encoding")

#: By each name that handlers have used, as they spell it: its entry in L{FRAMING_FIELDS}, or
#: an empty string.
_known_names: dict[str, str] = {}
#: That of a name; None of one that has not been used.
known_kind = _known_names.get
_KNOWN_NAMES_LIMIT = 1000


def _bad_text(place: str, value: str) -> ValueError:
    return ValueError(f"{place} {value!r}: it must not have CR, LF, NUL or what is not Latin-1")


def check_text(place: str, value: str) -> None:
    """
    Check that C{value} can stand in a head.

    @param place: where it is to stand, for the message.
    @raise ValueError: it would end the line, or cannot be sent in Latin-1.
    """
    if "\r" in value or "\n" in value or "\0" in value:
        raise _bad_text(place, value)
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise _bad_text(place, value) from None


def learn_name(name: str) -> str:
    """
    The entry of field C{name} in L{FRAMING_FIELDS}, or an empty string.

    @raise ValueError: C{name} is no token (RFC 9110 section 5.6.2).
    """
    lower = name.lower()
    if not name.isascii() or not TOKEN.fullmatch(name.encode()):
        raise ValueError(f"header field {name!r}: a name is letters, digits and !#$%&'*+-.^_`|~")
    kind = lower if lower in FRAMING_FIELDS else ""
    if len(_known_names) < _KNOWN_NAMES_LIMIT:
        _known_names[name] = kind
    return kind
