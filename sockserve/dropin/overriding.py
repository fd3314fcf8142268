"""
The methods of a server object: those of its own, those of C{socketserver}'s, and how requests
are taken over from the latter.

This room owns the comparison with C{socketserver}'s methods, and the place in a server's
classes where C{process_request} is replaced.  It must not know what becomes of a request.
"""

from __future__ import annotations

import socketserver
from collections.abc import Callable
from typing import Any

from sockserve.dropin.server_object import ServerObject

__all__ = ["StandardMethods", "accepts_takeover", "is_overridden", "take_over"]

#: The modules whose methods do what they are known to do.
_KNOWN_MODULES = ("socketserver", "sockserve.socketserver")


def is_overridden(owner: object, name: str) -> bool:
    """Whether a server, or a handler class, has a method of its own, not C{socketserver}'s."""
    method = getattr(owner, name, None)
    if method is None:
        return False
    # Not by its name or module, which a wrapper takes over from what it wraps.
    variables = getattr(getattr(method, "__func__", method), "__globals__", {})
    return variables.get("__name__") not in _KNOWN_MODULES


class StandardMethods:
    """
    The methods of one server object as C{socketserver}'s own classes define them, whatever the
    program has put above them.

    A method of the server that equals the one here is not overridden.  A program may set one on
    the server, or on its class, at any time, and expects to be heard at once; so the answer of
    L{is_overridden} cannot be kept.  What it is compared with can: that leaves one comparison
    for each request where there is a question.

    @ivar finish_request: the server's standard method of that name, and so on; None where it has
        none.
    @ivar handle_request_noblock: that of C{_handle_request_noblock}.
    """

    def __init__(self, server: ServerObject) -> None:
        self.handle_request_noblock = _standard_method(server, "_handle_request_noblock")
        self.get_request = _standard_method(server, "get_request")
        self.process_request = _standard_method(server, "process_request")
        self.finish_request = _standard_method(server, "finish_request")
        self.process_request_thread = _standard_method(server, "process_request_thread")
        self.shutdown_request = _standard_method(server, "shutdown_request")
        self.close_request = _standard_method(server, "close_request")


def _standard_method(server: ServerObject, name: str) -> Any:
    for base in type(server).__mro__:
        function = vars(base).get(name)
        if function is not None and not is_overridden(base, name):
            return function.__get__(server)
    return None


def accepts_takeover(server: ServerObject) -> bool:
    """
    Whether L{take_over} gets the requests of a server: it has C{socketserver}'s
    C{process_request}, or one that calls that by C{super()}, and no children.
    """
    if isinstance(server, socketserver.ForkingMixIn):
        return False
    return not is_overridden(server, "process_request") or _calls_super(server)


def _calls_super(server: ServerObject) -> bool:
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


def take_over(server: ServerObject, take: Callable[[object, object], None]) -> None:
    """
    Have C{take} in place of C{socketserver}'s C{process_request}; L{accepts_takeover} has said so.
    Where a program's own calls that by C{super()}, the server is of another class from now on,
    with C{take} between the program's classes and C{socketserver}'s.
    """
    name, cls = "process_request", type(server)
    if not is_overridden(server, name):
        server.process_request = take  # type: ignore[assignment, method-assign]
        return
    known = next(
        base for base in cls.__mro__ if name in vars(base) and not is_overridden(base, name)
    )

    def process_request(self: object, request: object, client_address: object) -> None:
        take(request, client_address)

    last = type(known.__name__, (known,), {name: process_request})
    names = {key: getattr(cls, key) for key in ("__doc__", "__module__", "__qualname__")}
    object.__setattr__(server, "__class__", type(cls.__name__, (cls, last), names))
