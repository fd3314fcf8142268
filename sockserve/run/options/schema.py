"""
The schema of configuration files, for editors that know JSON Schema.

This room owns what a file is made of.  It must not know how values are checked: a schema says what
an editor may offer, and takes no text for a number as a command line does.
"""

from __future__ import annotations

import json
import re
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from sockserve.run.options.server import ServerWords
from sockserve.run.options.source import SourceWords

__all__ = ["file_schema"]


#: The markup of docstrings, which are descriptions here.
_MARKUP = re.compile(r"[CL]\{([^}]*)\}")


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """A configuration file of sockserve."""

    server: Annotated[
        list[ServerWords] | UnsetType, Meta(description="servers, one table each")
    ] = UNSET
    source: Annotated[
        list[SourceWords] | UnsetType,
        Meta(description="sources: tables of databases whose rows are requests"),
    ] = UNSET


def file_schema() -> str:
    """The schema as it is packaged, C{sockserve.schema.json}."""
    (top,), parts = msgspec.json.schema_components([_File], ref_template="#/$defs/{name}")
    names = {"_File": "File", "ServerWords": "Server", "SourceWords": "Source"}
    schema: dict[str, object] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of sockserve",
        **top,
        "$defs": parts,
    }
    text = json.dumps(schema, indent=2)
    for name, shown in names.items():
        text = text.replace(f'"{name}"', f'"{shown}"').replace(f"$defs/{name}", f"$defs/{shown}")
    return _MARKUP.sub(r"\1", text) + "\n"
