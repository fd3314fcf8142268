"""
The part of the table of options that is about a command, and not about a server of its.

This room owns these words, and what each is for.  It must not know what is done about them.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Struct, UnsetType

from sockserve.run.options.forms import Form, Group, word

__all__ = ["CommandWords", "OwnWords"]


class CommandWords(Struct, rename="kebab", kw_only=True):
    """The words of a command line that are not about one server."""

    config: Annotated[
        str | UnsetType,
        word(
            "read [[server]] and [[source]] tables with these same words from a TOML file; options"
            " beside it override the file",
            Group.COMMAND,
            Form.TEXT,
            "FILE",
            short="c",
            page="See [Configuration file](#configuration-file)",
        ),
    ] = UNSET
    check: Annotated[
        bool | UnsetType,
        word(
            "check everything that can be checked without listening, say what would run, and exit",
            Group.COMMAND,
            Form.FLAG,
        ),
    ] = UNSET


class OwnWords(Struct, rename="kebab", kw_only=True):
    """The words of the command C{sockserve} alone; C{twistd} has the like of its own."""

    reactor: Annotated[
        str | UnsetType,
        word(
            "the reactor to run on, such as uvloop, epoll, poll, select or asyncio; auto is uvloop"
            " if that is installed (on Linux), else the one that Twisted chooses",
            Group.COMMAND,
            Form.TEXT,
            "NAME",
            default="auto",
            page="On a terminal, the line that says what is served names uvloop. Of `sockserve`;"
            " `twistd` has its own. To await asyncio's libraries takes [`uvloop` or"
            " `asyncio`](../howto/use-asyncio-libraries.md)",
        ),
    ] = UNSET
    reload: Annotated[
        bool | UnsetType,
        word(
            "for development: serve anew when a file of the handler's changes",
            Group.COMMAND,
            Form.FLAG,
            page="Needs `sockserve[reload]`; of `sockserve` alone. See"
            " [Reload](../howto/reload.md)",
        ),
    ] = UNSET
