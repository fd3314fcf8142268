"""
Sockets that this process was handed by whoever has started it, as systemd hands them.

This room owns how they are told of: by the environment, C{sd_listen_fds(3)}.  It must not know
what listens on them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from sockserve.core.environment import started_environment

__all__ = ["handed_descriptor"]

#: The number of the first (SD_LISTEN_FDS_START); the others follow.
_FIRST = 3


def handed_descriptor(index: str | None, name: str | None) -> int:
    """
    The descriptor of a socket that this process was handed.

    @param index: which one, from 0.
    @param name: what it is called, instead.
    @raise ValueError: C{index} is not a number, or not one of the two is given.
    @raise LookupError: there is no such socket.
    """
    if (index is None) == (name is None):
        raise ValueError("give index or name, one of them")
    environment = _environment()
    count = _count(environment)
    if index is not None:
        if not 0 <= int(index) < count:
            has = f"; its are 0 to {count - 1}" if count > 0 else ", nor any other"
            raise LookupError(f"this process was not handed such a socket{has}")
        return _FIRST + int(index)
    # Those who hand sockets over need not give them names.
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    if count < 1 or len(names) != count or name not in names:
        has = ", nor any other"
        if count > 0:
            has = f"; its are {', '.join(names)}" if len(names) == count else "; its have no names"
        raise LookupError(f"this process was not handed such a socket{has}")
    # Of several with one name, the last.
    return _FIRST + max(number for number, each in enumerate(names) if each == name)


def _count(environment: Mapping[str, str]) -> int:
    """How many sockets this process was handed."""
    try:
        # Another process, which has started this one, may not have removed its own.
        if int(environment["LISTEN_PID"]) != os.getpid():
            return 0
        return int(environment["LISTEN_FDS"])
    except (KeyError, ValueError):
        return 0


def _environment() -> Mapping[str, str]:
    """
    The environment that says so: the one that this process was started with, when the words are
    gone by now.  (Twisted's C{endpoints} module takes them away when a program imports it first.)
    """
    if "LISTEN_FDS" in os.environ:
        return os.environ
    return started_environment()
