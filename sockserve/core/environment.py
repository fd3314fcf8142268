"""
The environment of this process, kept as it was when it was started.

This room owns keeping for the program what systemd says there of sockets: Twisted's endpoints
take C{LISTEN_PID} and C{LISTEN_FDS} out of it when they are imported, though what is served may be
a program that takes its sockets by itself.  It must not know what is done with these
(L{sockserve.listeners.activation}).
"""

from __future__ import annotations

import importlib
import os

__all__ = ["import_endpoints", "restore_environment", "started_environment"]

#: What C{sd_listen_fds} and its likes look for.
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def import_endpoints() -> None:
    """
    Import Twisted's endpoints, which find their sockets as ever, and leave the environment as it
    was.  Must come before any import that would bring them along. (any thread)
    """
    kept = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    importlib.import_module("twisted.internet.endpoints")
    os.environ.update(kept)


def started_environment() -> dict[str, str]:
    """The environment that this process was started with; empty where the system does not tell.
    (any thread)"""
    try:
        with open("/proc/self/environ", "rb") as file:
            pairs = [pair.partition(b"=") for pair in file.read().split(b"\0")]
    except OSError:  # no Linux, so no systemd
        return {}
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def restore_environment() -> None:
    """
    Put back what a process that is all ours was started with, in case C{twistd} had imported
    Twisted's endpoints before: it does when it has to make its list of plugins anew.  Not in a
    program of others, who may have taken their sockets already. (any thread)
    """
    if "LISTEN_PID" in os.environ or "LISTEN_FDS" in os.environ:
        return
    started = started_environment()
    if started.get("LISTEN_PID") == str(os.getpid()):
        os.environ.update({name: started[name] for name in _VARIABLES if name in started})
