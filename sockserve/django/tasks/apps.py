"""
The app of tasks, as Django has it.

This room owns its names.  It must not know what tasks are.
"""

from __future__ import annotations

from django.apps import AppConfig

__all__ = ["TasksConfig"]


class TasksConfig(AppConfig):
    """The app that has the table of tasks."""

    name = "sockserve.django.tasks"
    label = "sockserve_tasks"
    verbose_name = "sockserve's tasks"
