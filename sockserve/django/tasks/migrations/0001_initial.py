"""
The table of tasks.

This room owns when it is made, and dropped.  It must not know its columns
(L{sockserve.sql.schema}).
"""

from __future__ import annotations

from typing import Any

from django.db import migrations

from sockserve.django.tasks.table import TABLE
from sockserve.sql.schema import DIALECTS, schema

__all__ = ["Migration", "drop_table", "make_table"]


def make_table(apps: object, editor: Any) -> None:
    """Make it, in a database that can have it."""
    connection = editor.connection
    if connection.vendor in DIALECTS:
        for statement in connection.ops.prepare_sql_script(schema(connection.vendor, TABLE)):
            editor.execute(statement, params=None)


def drop_table(apps: object, editor: Any) -> None:
    """Drop it, with what is in it."""
    editor.execute(f"DROP TABLE IF EXISTS {TABLE}")


class Migration(migrations.Migration):
    """The first of the app."""

    initial = True
    operations = [migrations.RunPython(make_table, drop_table)]
