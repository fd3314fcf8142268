"""
The handler of tasks: calls the function that a row names.

This room owns what of C{django.tasks} goes around that call.  It must not know tables.
(handler's thread)
"""

from __future__ import annotations

import json
from datetime import datetime
from traceback import format_exception
from typing import Any

from django.utils import timezone
from django.utils.module_loading import import_string
from typing_extensions import override

from sockserve.handlers import BaseRequestHandler
from sockserve.interfaces import ConfigurationError
from sockserve.sql.rows import Row

__all__ = ["TaskHandler"]


class TaskHandler(BaseRequestHandler[Row]):
    """A handler of one task.  What it raises has the row tried again, as of any other."""

    @override
    def handle(self) -> None:
        """Call the task's function."""
        from django.tasks.base import TaskContext, TaskError, TaskResultStatus
        from django.tasks.signals import task_finished, task_started
        from django.utils.json import normalize_json

        result = self._result()
        task, backend = result.task, type(result.task.get_backend())
        task_started.send(backend, task_result=result)
        context = [TaskContext(task_result=result)] if task.takes_context else []
        try:
            value = normalize_json(task.call(*context, *result.args, **result.kwargs))
        except Exception as error:
            kind = type(error)
            name = f"{kind.__module__}.{kind.__qualname__}"
            told = "".join(format_exception(error))
            result.errors.append(TaskError(exception_class_path=name, traceback=told))
            self._finish(result, TaskResultStatus.FAILED)
            task_finished.send(backend, task_result=result)
            raise
        object.__setattr__(result, "_return_value", value)
        self._finish(result, TaskResultStatus.SUCCESSFUL)
        task_finished.send(backend, task_result=result)

    def _finish(self, result: Any, status: object) -> None:
        """Note on a result how the task has ended, and when."""
        object.__setattr__(result, "finished_at", timezone.now())  # it is frozen for others
        object.__setattr__(result, "status", status)

    def _result(self) -> Any:
        """The result that the row stands for, which does not have one yet."""
        from django.tasks.base import Task, TaskResult, TaskResultStatus

        row = self.request
        said = json.loads(str(row.payload))
        found = import_string(said["task"])
        if not isinstance(found, Task):
            raise ConfigurationError(f"{said['task']!r} is no task")
        task = found.using(backend=said["backend"], queue_name=said["queue"])
        now = timezone.now()
        return TaskResult(
            task=task,
            id=row.idempotency_key,
            status=TaskResultStatus.RUNNING,
            enqueued_at=datetime.fromisoformat(said["enqueued_at"]),
            started_at=now,
            finished_at=None,
            last_attempted_at=now,
            args=said["args"],
            kwargs=said["kwargs"],
            backend=said["backend"],
            errors=[],
            worker_ids=["sockserve"] * row.attempts,
        )
