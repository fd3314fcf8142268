"""
Targets: the names of files in the target of a request.

This room owns the way from the bytes after the method to plain names and back.  It must
not know the disk, handlers or connections.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

__all__ = ["Target", "link_to", "parse_target", "shown"]

#: The characters of RFC 3986's pchar beside the letters, digits and C{-._~}, which C{quote}
#: leaves alone.
_IN_A_SEGMENT = "!$&'()*+,;=:@"

#: The one hidden folder whose purpose is to be served (RFC 8615), at the top only.
_WELL_KNOWN = ".well-known"


class Target(NamedTuple):
    """
    The target of a request, decoded.

    @ivar segments: the names on the way to the file, none of them empty, C{.} or C{..}.
    @ivar as_folder: whether the path ends in a slash.
    @ivar query: the query with its question mark; empty without one.
    """

    segments: tuple[str, ...]
    as_folder: bool
    query: str

    @property
    def is_hidden(self) -> bool:
        """Whether a name on the way begins with a dot; C{/.well-known} is not hidden."""
        below = self.segments[1:] if self.segments[:1] == (_WELL_KNOWN,) else self.segments
        return any(name.startswith(".") for name in below)

    @property
    def is_impossible(self) -> bool:
        """Whether no file can have such a name."""
        return any("\0" in name for name in self.segments)

    @property
    def folder_location(self) -> str:
        """
        The target with a slash at the end of its path, for a C{Location}.

        It is made from the names: however many slashes a request began with, this begins
        with one, and so cannot name another host (CVE-2021-28861).
        """
        path = "".join(f"/{quote(os.fsencode(name), safe=_IN_A_SEGMENT)}" for name in self.segments)
        return f"{path}/{self.query}"


@lru_cache(maxsize=256)  # each request asks twice, and pages have the same few assets
def parse_target(target: str) -> Target:
    """
    Decode a target's path and follow its C{.} and C{..}, never above the top.

    It is decoded first, as the stdlib does: C{%2F} is a slash, since no name has one,
    and C{%2e%2e} is a step up like C{..}.  A C{%} that encodes nothing stands for
    itself.  Names are as C{os.fsdecode} gives them, so that any bytes can be one.

    @param target: as it was sent, each of its bytes a character.
    """
    path, mark, query = target.partition("?")
    path = path.partition("#")[0]
    if not path.startswith("/"):
        _, scheme_mark, rest = path.partition("://")
        if scheme_mark:  # as one asks a proxy, and any server must understand (RFC 9112, 3.2.2)
            path = rest.partition("/")[2]
    try:
        raw = path.encode("latin-1")
    except UnicodeEncodeError:  # did not come over the wire
        raw = os.fsencode(path)
    names = os.fsdecode(unquote_to_bytes(raw)).split("/")
    segments: list[str] = []
    for name in names:
        if name == "..":
            del segments[-1:]
        elif name not in ("", "."):
            segments.append(name)
    return Target(tuple(segments), names[-1] in ("", ".", ".."), mark + query)


def link_to(name: str) -> str:
    """
    A link to C{name}, for a listing of the folder that it is in.

    Everything but letters, digits and C{-._~} is encoded, so that no name can be read as
    another host's (C{//}), as one with a scheme (C{x:}), or as a query.
    """
    return quote(os.fsencode(name), safe="")


def shown(name: str) -> str:
    """A name as text; bytes in it that are not UTF-8 are replaced."""
    return os.fsencode(name).decode("utf-8", "replace")
