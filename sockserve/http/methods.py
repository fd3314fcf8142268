"""
Methods: those of HTTP's that a handler class has a C{do_} method for.

This room owns which one answers a request, whether it must run on a thread, and what a client is
told of them (C{Allow}).  It must not know requests or responses.
"""

from __future__ import annotations

import inspect
from typing import Any

from sockserve.interfaces import ConfigurationError

__all__ = ["allowed_methods", "blocking_methods", "find_method", "method_blocks"]


#: Those that are answered without a C{do_} method, unless the class says that it is None.
_BY_ITSELF = ("HEAD", "OPTIONS")


def find_method(handler: Any, command: str) -> Any:
    """
    The method of C{handler}, or of a class, that answers C{command}; None without one.  C{HEAD} is
    answered by C{do_GET}, if there is no C{do_HEAD}; one that is None says that there is to be
    none.
    """
    method = getattr(handler, f"do_{command}", None)
    if method is None and command == "HEAD" and not hasattr(handler, "do_HEAD"):
        return getattr(handler, "do_GET", None)
    return method


def allowed_methods(cls: type, but: str | None = None) -> str:
    """
    The value of C{Allow}: what a class answers.  (What it has by C{__getattr__} nobody can tell.)

    @param but: a method that is not allowed just now.
    """
    commands = {*_commands(cls), *_BY_ITSELF} - {but}
    return ", ".join(
        command
        for command in sorted(commands)
        if find_method(cls, command) is not None
        or (command == "OPTIONS" and not hasattr(cls, "do_OPTIONS"))
    )


def blocking_methods(cls: type) -> dict[str, bool]:
    """
    By method, as C{"GET"}, whether it must run on a thread.

    @raise ConfigurationError: a C{do_} method cannot be called or awaited.
    """
    commands = sorted(_commands(cls))
    for command in commands:
        method = getattr(cls, f"do_{command}")
        if method is None and command in _BY_ITSELF:
            continue
        if not callable(method) or inspect.isasyncgenfunction(method):
            raise ConfigurationError(
                f"handler {cls.__qualname__}: do_{command} is no method that can be called or"
                " awaited; write what it sends to wfile instead of yielding it"
            )
    if "HEAD" not in commands:
        commands.append("HEAD")
    return {command: method_blocks(cls, command) for command in commands}


def method_blocks(cls: Any, command: str) -> bool:
    """Whether the class's method for C{command}, as C{"GET"}, must run on a thread."""
    if inspect.iscoroutinefunction(cls.handle):
        return False
    method = find_method(cls, command)
    if method is None and hasattr(cls, "__getattr__"):
        # Asked for on an instance without a request: the kind of method must not depend
        # on that.
        try:
            method = find_method(cls.__new__(cls), command)
        except Exception:
            return True
    return method is not None and not inspect.iscoroutinefunction(method)


def _commands(cls: type) -> set[str]:
    return {name.removeprefix("do_") for name in dir(cls) if name.startswith("do_")}
