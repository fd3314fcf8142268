"""
Tasks of Django's: put into a table with what else a request stores, and worked off by a command.

It is an app of its own, C{"sockserve.django.tasks"} among C{INSTALLED_APPS}, whose migration makes
the table.  It needs Django 6.0, which brings C{django.tasks}.
"""

from sockserve.django.tasks.backend import SQLBackend

__all__ = ["SQLBackend"]
