"""
Overriding: which methods of a server object are the program's own, and how its requests are
taken over.

This room owns the comparison with C{socketserver}'s methods, and the place in a server's
classes where C{process_request} is replaced.  It must not know what becomes of a request.
"""

from __future__ import annotations

import socketserver
from collections.abc import Callable
from typing import Any

__all__ = ["accepts_takeover", "is_overridden", "take_over"]

#: Where the methods are defined that do what they are known to do.
_KNOWN_MODULES = ("socketserver", "sockserve.socketserver")


def is_overridden(owner: Any, name: str) -> bool:
    """Whether a server, or a handler class, has a method of its own, not C{socketserver}'s."""
    method = getattr(owner, name, None)
    if method is None:
        return False
    # Not by its name or module, which a wrapper takes over from what it wraps.
    variables = getattr(getattr(method, "__func__", method), "__globals__", {})
    return variables.get("__name__") not in _KNOWN_MODULES


def accepts_takeover(server: Any) -> bool:
    """
    Whether L{take_over} gets the requests of a server: it has C{socketserver}'s
    C{process_request}, or one that calls that by C{super()}, and no children.
    """
    if isinstance(server, socketserver.ForkingMixIn):
        return False
    return not is_overridden(server, "process_request") or _calls_super(server)


def _calls_super(server: Any) -> bool:
    """Whether all C{process_request} of a server's classes say C{super()}, in this way."""
    cls = type(server)
    if "process_request" in vars(server) or type(cls) is not type:
        return False
    if any("__init_subclass__" in vars(base) for base in cls.__mro__[:-1]):
        return False  # it would hear of one more class
    for base in cls.__mro__:
        method = vars(base).get("process_request")
        if method is None:
            continue
        if not is_overridden(base, "process_request"):
            return True
        code = getattr(method, "__code__", None)
        # "super(type(self), self)" would not be the same in a class below.
        if (
            code is None
            or "__class__" not in code.co_freevars
            or not {"type", "__class__"}.isdisjoint(code.co_names)
        ):
            return False
    return False


def take_over(server: Any, take: Callable[[Any, Any], None]) -> None:
    """
    Have C{take} in place of C{socketserver}'s C{process_request}; L{accepts_takeover} has said so.
    Where a program's own calls that by C{super()}, the server is of another class from now on,
    with C{take} between the program's classes and C{socketserver}'s.
    """
    name, cls = "process_request", type(server)
    if not is_overridden(server, name):
        server.process_request = take
        return
    known = next(
        base for base in cls.__mro__ if name in vars(base) and not is_overridden(base, name)
    )

    def process_request(self: Any, request: Any, client_address: Any) -> None:
        take(request, client_address)

    last = type(known.__name__, (known,), {name: process_request})
    names = {key: getattr(cls, key) for key in ("__doc__", "__module__", "__qualname__")}
    object.__setattr__(server, "__class__", type(cls.__name__, (cls, last), names))
