"""
Methods of a handler's class: the C{do_GET} and so on, and which of them must run on a thread.

This room owns what a class says of that, and which methods do not go together.  It must not know
requests.
"""

from __future__ import annotations

import inspect

from sockserve.interfaces import ConfigurationError

__all__ = ["blocking_methods", "blocks_unknown", "method_blocks"]


def blocking_methods(cls: type[object]) -> dict[str, bool]:
    """
    The methods that a handler's class has, as C{"GET"}, each with whether it must run on a thread.

    @raise ConfigurationError: one must, and a C{setup} or C{finish} must run on the reactor; or
        one cannot be called or awaited.
    """
    commands = [name.removeprefix("do_") for name in dir(cls) if name.startswith("do_")]
    for command in commands:
        method = getattr(cls, f"do_{command}")
        if not callable(method) or inspect.isasyncgenfunction(method):
            raise ConfigurationError(
                f"handler {cls.__qualname__}: do_{command} is no method that can be called or"
                " awaited; write what it sends to wfile instead of yielding it"
            )
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
    name = f"do_{command}"
    method = getattr(cls, name, None)
    if method is None and hasattr(cls, "__getattr__"):
        # Asked for on an instance without a request: the kind of method must not depend
        # on that.
        try:
            method = getattr(cls.__new__(cls), name, None)
        except Exception:
            return True
    return method is not None and not inspect.iscoroutinefunction(method)
