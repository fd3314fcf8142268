"""
The part of the table of options that is about a source: rows of a table that are requests.

This room owns these words, what each is for, and how its value is written.  It must not know how a
value is checked.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, UnsetType

from sockserve.run.options.forms import Counted, Form, Group, Texts, word
from sockserve.run.options.shared import SharedWords

__all__ = ["SourceWords"]


class SourceWords(SharedWords, rename="kebab", forbid_unknown_fields=True, kw_only=True):
    """The words of one source: of a command line, or a C{[[source]]} table."""

    source: Annotated[
        Texts | UnsetType,
        word(
            "instead of listening: serve the rows of a table, sqlite:///PATH?table=NAME or"
            " postgresql://HOST/DATABASE?table=NAME",
            Group.SERVED,
            Form.URLS,
            "URL",
            setting="sources",
            is_list=True,
            rivals=("url",),
            page="See [Serve a table](../howto/serve-a-table.md);"
            " [Sources](sources.md) has what else a URL says. In a `[[source]]` table also `url`",
        ),
    ] = UNSET
    #: The same, as a C{[[source]]} table has it, and no command line.
    url: Annotated[
        Texts | UnsetType,
        word(
            "the table whose rows are served: sqlite:///PATH?table=NAME or"
            " postgresql://HOST/DATABASE?table=NAME",
            Group.SERVED,
            Form.URLS,
            setting="sources",
            is_list=True,
            rivals=("source",),
        ),
    ] = UNSET
    max_rows: Annotated[
        Counted | UnsetType,
        word(
            "the most rows of one table served and waiting at once; none for any number",
            Group.LIMITS,
            Form.LIMIT,
            "N",
            default="100",
        ),
    ] = UNSET
