"""
The backend of tasks: what C{task.enqueue()} does.

This room owns how a task becomes a row, in the transaction of the caller, and a row the task's
result.  It must not know who serves the row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import django
from django.db import connections
from django.utils.crypto import get_random_string
from typing_extensions import override

from sockserve.django.tasks.table import TABLE
from sockserve.interfaces import ConfigurationError
from sockserve.sql.queue import enqueue

if TYPE_CHECKING or django.VERSION >= (6, 0):
    from django.tasks.backends.base import BaseTaskBackend
else:
    BaseTaskBackend = object  # there are no tasks, so nobody makes one

__all__ = ["SQLBackend", "database_of"]

_ID_LENGTH = 32


class SQLBackend(BaseTaskBackend):
    """
    A backend that puts tasks into a table, where C{manage.py sockserve --tasks} finds them.

    A task that is enqueued in a transaction is there when that is committed, and never if it is
    rolled back.  It is done at least once.  What it returns is not kept, so C{get_result} and
    C{refresh} raise as Django's own backends do that keep nothing; C{task_finished} has it.

    @ivar database: the one that has the table, C{OPTIONS["DATABASE"]} in C{settings.TASKS};
        C{default} if that says none.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = False
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self.database: str = self.options.get("DATABASE", "default")

    @override
    def enqueue(self, task: Any, args: Sequence[object], kwargs: dict[str, object]) -> Any:
        """Add a row for a task."""
        from django.tasks.base import TaskResult, TaskResultStatus
        from django.tasks.signals import task_enqueued
        from django.utils import timezone

        self.validate_task(task)
        result = TaskResult(
            task=task,
            id=get_random_string(_ID_LENGTH),
            status=TaskResultStatus.READY,
            enqueued_at=timezone.now(),
            started_at=None,
            finished_at=None,
            last_attempted_at=None,
            args=list(args),
            kwargs=kwargs,
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        said = {
            "task": task.module_path,
            "args": result.args,
            "kwargs": result.kwargs,
            "backend": self.alias,
            "queue": task.queue_name,
            "enqueued_at": result.enqueued_at.isoformat(),
        }
        due_at = task.run_after
        connection = connections[self.database]
        connection.ensure_connection()
        connection.validate_no_broken_transaction()
        with connection.wrap_database_errors:
            # The driver's own: Django's takes no parameter as it is.
            enqueue(
                connection.connection,
                json.dumps(said),
                table=TABLE,
                priority=task.priority,
                due_at=due_at if due_at is None or due_at.tzinfo else due_at.astimezone(),
                idempotency_key=result.id,
            )
        task_enqueued.send(type(self), task_result=result)
        return result


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

    known = ", ".join(task_backends.settings)
    if alias not in task_backends.settings:
        raise ConfigurationError(f"tasks: settings.TASKS has no {alias!r}, but {known}")
    backend = task_backends[alias]
    if not isinstance(backend, SQLBackend):
        raise ConfigurationError(
            f"tasks: the BACKEND of {alias!r} in settings.TASKS is not"
            " 'sockserve.django.tasks.SQLBackend'"
        )
    return backend.database
