"""
The app, as Django has it.

This room owns its names: C{sockserve.django} among C{INSTALLED_APPS}, and the label C{sockserve}.
It must not know what the app can do.
"""

from __future__ import annotations

from django.apps import AppConfig

__all__ = ["SockserveConfig"]


class SockserveConfig(AppConfig):
    """The app that brings the command C{sockserve}."""

    name = "sockserve.django"
    label = "sockserve"
    verbose_name = "sockserve"
