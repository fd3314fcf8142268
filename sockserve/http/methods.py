"""
Methods of a handler's class: the C{do_GET} and so on, those of HTTP's that it answers.

This room owns which one answers a request, which of them must run on a thread, which do not go
together, and what a client is told of them (C{Allow}).  It must not know requests or responses.
"""

from __future__ import annotations

import inspect
import sys
from http import HTTPMethod
from typing import Any

from sockserve.interfaces import ConfigurationError

__all__ = [
    "allowed_methods",
    "blocking_methods",
    "blocks_unknown",
    "find_method",
    "method_blocks",
    "method_name",
]

#: The name of a handler's method, given one of HTTP's; None if that is not a usual one.  (Python
#: finds an attribute at once by a name that is interned, and searches all base classes by another.)
method_name = {method.value: sys.intern(f"do_{method}") for method in HTTPMethod}.get

#: Those that are answered without a C{do_} method, unless the class says that it is None.
_BY_ITSELF = ("HEAD", "OPTIONS")


def find_method(handler: object, command: str) -> Any:
    """
    The method of C{handler}, or of a class, that answers C{command}; None without one.  C{HEAD} is
    answered by C{do_GET}, if there is no C{do_HEAD}; one that is None says that there is to be
    none.
    """
    method = getattr(handler, f"do_{command}", None)
    if method is None and command == "HEAD" and not hasattr(handler, "do_HEAD"):
        return getattr(handler, "do_GET", None)
    return method


def allowed_methods(cls: type[object], but: str | None = None) -> str:
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


def blocking_methods(cls: type[object]) -> dict[str, bool]:
    """
    The methods that a handler's class answers, as C{"GET"}, each with whether it must run on a
    thread.

    @raise ConfigurationError: one must, and a C{setup} or C{finish} must run on the reactor; or
        one cannot be called or awaited.
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
    found = {command: method_blocks(cls, command) for command in commands}
    blocking = next((command for command, blocks in found.items() if blocks), None)
    for name in ("setup", "finish"):
        if blocking is not None and inspect.iscoroutinefunction(getattr(cls, name)):
            raise ConfigurationError(
                f"handler {cls.__qualname__}: {name} is async def but do_{blocking} is"
                " not; a request runs in one place, so make both async def or both plain"
            )
    return found


def blocks_unknown(cls: type[object]) -> bool:
    """Whether methods that a class makes when they are asked for may have to run on a thread."""
    return hasattr(cls, "__getattr__") and not inspect.iscoroutinefunction(
        getattr(cls, "handle", None)
    )


def method_blocks(cls: type[object], command: str) -> bool:
    """Whether the class's method for C{command}, as C{"GET"}, must run on a thread."""
    if inspect.iscoroutinefunction(getattr(cls, "handle", None)):
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


def _commands(cls: type[object]) -> set[str]:
    return {name.removeprefix("do_") for name in dir(cls) if name.startswith("do_")}
