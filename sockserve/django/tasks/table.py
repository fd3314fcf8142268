"""
The table of tasks, by Django's settings.

This room owns its name, and the URL by which the rest of the house finds it.  It must not know what
is in it.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode

import django
from django.db import connections

from sockserve.interfaces import ConfigurationError

__all__ = ["TABLE", "database_of", "table_url"]

#: The name of the table.
TABLE = "sockserve_tasks"


def database_of(alias: str) -> str:
    """
    The database in which a backend of C{settings.TASKS} has its table.

    @raise ConfigurationError: there is no such backend, or it is not ours.
    """
    if django.VERSION < (6, 0):
        raise ConfigurationError(
            f"tasks: they need Django 6.0 or newer, and this is {django.get_version()}"
        )
    from django.tasks import task_backends

    from sockserve.django.tasks.backend import SQLBackend

    known = ", ".join(task_backends.settings)
    if alias not in task_backends.settings:
        raise ConfigurationError(f"tasks: settings.TASKS has no {alias!r}, but {known}")
    backend = task_backends[alias]
    if not isinstance(backend, SQLBackend):
        raise ConfigurationError(
            f"tasks: the BACKEND of {alias!r} in settings.TASKS is not"
            " 'sockserve.django.tasks.backend.SQLBackend'"
        )
    return backend.database


def table_url(database: str) -> str:
    """
    The URL of the table in a database of C{settings.DATABASES}.

    @raise ConfigurationError: there is no such database, or it can have none.
    """
    if database not in connections.settings:
        raise ConfigurationError(f"tasks: settings.DATABASES has no {database!r}")
    connection = connections[database]
    said = connection.settings_dict
    name = quote(str(said["NAME"]))
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}?table={TABLE}"
    if connection.vendor == "postgresql":
        secret = f":{quote(said['PASSWORD'], safe='')}" if said["PASSWORD"] else ""
        user = f"{quote(said['USER'], safe='')}{secret}@" if said["USER"] else ""
        where = {word: said[word.upper()] for word in ("host", "port") if said[word.upper()]}
        words = urlencode({**where, "table": TABLE}, quote_via=quote)
        return f"postgresql://{user}/{name}?{words}"
    raise ConfigurationError(
        f"tasks: the database {database!r} is {connection.display_name}; the table goes into"
        " PostgreSQL or SQLite"
    )
