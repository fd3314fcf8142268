"""
The command C{manage.py sockserve}.

This room owns its name.  It must not know what a command does.
"""

from __future__ import annotations

from sockserve.django.command import SockserveCommand

__all__ = ["Command"]


class Command(SockserveCommand):
    """The command itself: what it serves is said by its options and C{settings.SOCKSERVE}."""

    help = "Serves requests with a request handler class over TCP, TLS, UNIX sockets or UDP."
