"""
C{Accept}: the media types that a client wants (RFC 9110 section 12.5.1).

This room owns how the field is read, and whether that asks for JSON.  It must not know what there
is to be had.
"""

from __future__ import annotations

import re

__all__ = ["asks_for_json"]

#: What is between commas, and between semicolons, which in quotes are none.
_RANGES = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*"?)+')
_PARAMETERS = re.compile(r'(?:[^;"]|"(?:\\.|[^"\\])*"?)+')
_QUALITY = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")

#: How exactly a range names a type: not at all, C{*/*}, C{text/*}, C{text/html}.
_NOT, _ANY, _KIND, _NAME = range(4)

#: How much a type is wanted, from 0 to 1, and how exactly it is named; the first decides.
_Weight = tuple[float, int]


def asks_for_json(accept: str, instead_of: str) -> bool:
    """
    Whether a client would rather have JSON than what it gets otherwise.  Of two that it wants
    equally, the one that it has named is meant: C{application/json, */*} asks for JSON, C{*/*} does
    not.

    @param accept: the values of its C{Accept} fields, with commas between; empty without any.
    @param instead_of: the media type that it gets otherwise.
    """
    ranges = _read(accept)
    names = {name for name in ranges if name.endswith(("/json", "+json"))}
    json = max(_weight(ranges, name) for name in names or ["application/json"])
    return json[0] > 0 and json > _weight(ranges, instead_of.partition(";")[0].strip().lower())


def _read(accept: str) -> dict[str, float]:
    """By media range, in lower case, how much it is wanted; malformed ones are left out."""
    ranges: dict[str, float] = {}
    for item in _RANGES.findall(accept):
        name, *parameters = _PARAMETERS.findall(item) or [""]
        quality = "1"
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip().lower() == "q":
                quality = value.strip()
        if _QUALITY.fullmatch(quality):
            ranges[name.strip().lower()] = float(quality)
    return ranges


def _weight(ranges: dict[str, float], name: str) -> _Weight:
    """The weight of a type: that of the most exact range which it is in."""
    kind = name.partition("/")[0]
    for exactness, spelling in ((_NAME, name), (_KIND, f"{kind}/*"), (_ANY, "*/*")):
        if spelling in ranges:
            return ranges[spelling], exactness
    return 0.0, _NOT
