"""
The table of tasks, by Django's settings.

This room owns its name, and the URL by which the rest of the house finds it.  It must not know what
is in it.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

from django.apps import apps
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from sockserve.interfaces import ConfigurationError

__all__ = ["TABLE", "check_table", "table_url"]

#: The name of the table.
TABLE = "sockserve_tasks"

#: The app whose migration makes it.
APP = "sockserve.django.tasks"


def check_table(database: str) -> None:
    """
    Check that a database has the table, which is Django's to make.

    @raise ConfigurationError: it has not.
    @raise django.db.utils.Error: the database does not answer.
    """
    if not apps.is_installed(APP):
        raise ConfigurationError(f"tasks: settings.INSTALLED_APPS has no {APP!r}")
    if TABLE not in connections[database].introspection.table_names():
        usual = "" if database == "default" else f" --database {database}"
        raise ConfigurationError(
            f"tasks: the database {database!r} has no table {TABLE}; what makes it:"
            f" manage.py migrate{usual}"
        )


def table_url(database: str) -> str:
    """
    The URL of the table in a database of C{settings.DATABASES}.

    @raise ConfigurationError: there is no such database, or it can have none.
    """
    if database not in connections.settings:
        raise ConfigurationError(f"tasks: settings.DATABASES has no {database!r}")
    connection = connections[database]
    if connection.vendor == "sqlite":
        return f"sqlite:///{quote(str(connection.settings_dict['NAME']))}?table={TABLE}"
    if connection.vendor == "postgresql":
        return _postgresql_url(connection)
    raise ConfigurationError(
        f"tasks: the database {database!r} is {connection.display_name}; the table goes into"
        " PostgreSQL or SQLite"
    )


def _postgresql_url(connection: BaseDatabaseWrapper) -> str:
    """The URL of the table on a server, with all that Django would tell libpq."""
    from sockserve.sql.postgresql_connections import libpq_words

    known = libpq_words()
    given = connection.get_connection_params()
    words = {word: str(given[word]) for word in given if word in known and given[word] is not None}
    if role := connection.settings_dict["OPTIONS"].get("assume_role"):
        escaped = re.sub(r"([\\\s])", r"\\\1", role)
        words["options"] = f"{words.get('options', '')} -c role={escaped}".strip()
    user, password = words.pop("user", ""), words.pop("password", "")
    secret = f":{quote(password, safe='')}" if password else ""
    authority = f"{quote(user, safe='')}{secret}@" if user or secret else ""
    name = quote(words.pop("dbname", ""), safe="")
    query = urlencode({**words, "table": TABLE}, quote_via=quote)
    return f"postgresql://{authority}/{name}?{query}"
