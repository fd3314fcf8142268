"""
The page for projects of Django's: a command that serves requests, and what its handlers need.

It needs the extra C{sockserve[django]}, and C{"sockserve.django"} among C{INSTALLED_APPS} for the
command C{manage.py sockserve}.
"""

from typing import TYPE_CHECKING

from sockserve.core.late import show_late

if TYPE_CHECKING:
    from sockserve.django.command import SockserveCommand
    from sockserve.django.connections import with_connections
    from sockserve.django.serving import Serving
else:  # late, as every command of a project's imports its apps, and few of them serve
    show_late(
        __name__,
        {
            "Serving": "sockserve.django.serving",
            "SockserveCommand": "sockserve.django.command",
            "with_connections": "sockserve.django.connections",
        },
    )

__all__ = ["Serving", "SockserveCommand", "with_connections"]
