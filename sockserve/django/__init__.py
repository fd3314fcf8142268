"""
The page for projects of Django's: a command that serves requests, and what its handlers need.

It needs the extra C{sockserve[django]}, and C{"sockserve.django"} among C{INSTALLED_APPS} for the
command C{manage.py sockserve}.
"""

from sockserve.django.command import SockserveCommand
from sockserve.django.connections import with_connections
from sockserve.django.serving import Serving

__all__ = ["Serving", "SockserveCommand", "with_connections"]
