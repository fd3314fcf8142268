"""
The check of a handler: what can be told, before a request comes, of one that will serve none.

This room owns the messages about what was taken for a handler and is none, and about a class that
lacks what it is served by.  It must not know whence a handler is, nor where it is served.
"""

from __future__ import annotations

import inspect
import re
import socketserver
from collections.abc import Iterator
from http import HTTPMethod
from http.server import BaseHTTPRequestHandler
from typing import Any

from sockserve.core.handler_kinds import handler_kind, speaks_http, unwrap
from sockserve.core.messages import nearest
from sockserve.handlers import BaseRequestHandler
from sockserve.http.handlers import HTTPRequestHandler
from sockserve.interfaces import ConfigurationError

__all__ = ["application_fault", "check_handler"]

#: The base classes of handlers, whose C{handle} does nothing.
_BASES = (BaseRequestHandler, socketserver.BaseRequestHandler)

#: The packages of handlers' base classes: what these define, no user has written.
_NO_USERS = ("sockserve", "socketserver", "http")

#: What is said of applications, by the standard that they follow.
_TOLD = {
    "WSGI": "which is not served as it is yet; write a program that serves it by"
    " wsgiref.simple_server, and run that by 'sockserve PROGRAM.py', or use gunicorn",
    "ASGI": "which is not served here; use uvicorn or hypercorn",
}

#: What is said of the applications of packages whose signatures do not tell what they are.
_OF_PACKAGES = {
    **dict.fromkeys(
        ("bottle", "dash", "falcon", "flask", "pyramid", "webob", "werkzeug", "wsgiref"), "WSGI"
    ),
    **dict.fromkeys(
        ("blacksheep", "channels", "fastapi", "litestar", "quart", "sanic", "starlette"), "ASGI"
    ),
}

#: A method's name that was meant to be C{do_GET} and so on.
_MEANT = re.compile(rf"(?:do|on|handle)?_?({'|'.join(HTTPMethod)})", re.IGNORECASE)


def check_handler(factory: Any, place: str) -> None:
    """
    Check that what was given as a handler can serve a request, as far as can be told.

    @param place: what a message about it begins with.
    @raise ConfigurationError: it cannot.
    """
    if not callable(factory):
        hint = ""
        if isinstance(factory, socketserver.BaseServer):
            hint = "; a server object is served by --server"
        raise ConfigurationError(f"{place}: {factory!r} is not a class or callable{hint}")
    fault = (
        _server_fault(unwrap(factory))
        or application_fault(factory)
        or _function_fault(unwrap(factory))
        or _signature_fault(factory)
        or _class_fault(unwrap(factory))
    )
    if fault:
        raise ConfigurationError(f"{place}: {fault}")
    handler_kind(factory)


def _server_fault(cls: object) -> str | None:
    if isinstance(cls, type) and issubclass(cls, socketserver.BaseServer):
        return "it is a server's class; make an object of it, and serve that by --server"
    return None


def application_fault(factory: Any) -> str | None:
    """The message about an application for another kind of server, be it an object, a function or a
    class; None of what is none."""
    cls = unwrap(factory)
    if isinstance(cls, type) and issubclass(cls, _BASES):
        return None
    if standard := _standard_of(factory):
        article = "an" if standard == "ASGI" else "a"
        return f"it is {article} {standard} application, {_TOLD[standard]}"
    if isinstance(cls, type):  # its objects may be what its constructor does not show
        standard = _standard_of(_call_method(cls)) or _standard_of_package(cls.__mro__)
        if standard:
            return f"it makes {standard} applications, each of {_TOLD[standard]}"
    return None


def _call_method(cls: type) -> object:
    """The method by which a class' objects can be called; None where they cannot."""
    return next((vars(each)["__call__"] for each in cls.__mro__ if "__call__" in vars(each)), None)


def _standard_of(factory: Any) -> str | None:
    """The standard of an application, by the names of what it takes, or by its package."""
    names = [each for each in _parameters(factory) if each != "self"]
    if "start_response" in names or (len(names) == 2 and names[0].startswith("env")):
        return "WSGI"
    if names[:1] == ["scope"] or {"receive", "send"} <= set(names):
        return "ASGI"
    if isinstance(factory, type):
        return None
    function = inspect.unwrap(factory)
    made_by = [getattr(each, "__globals__", {}).get("__name__", "") for each in (factory, function)]
    return _standard_of_package(type(factory).__mro__, *made_by)


def _standard_of_package(classes: tuple[type, ...], *modules: str) -> str | None:
    for module in (*(each.__module__ for each in classes), *modules):
        if standard := _OF_PACKAGES.get(module.partition(".")[0]):
            return standard
    return None


def _parameters(factory: object) -> list[str]:
    """The names of what a callable takes; none where that cannot be told."""
    if not callable(factory):
        return []
    try:
        return list(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        return []


def _function_fault(function: Any) -> str | None:
    """The message about a function whose call does nothing yet; else None."""
    if isinstance(function, type):
        return None
    what = None
    for each in (function, _call_method(type(function))):
        if inspect.iscoroutinefunction(each):
            what = "a coroutine function, which nothing would await"
        elif inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each):
            what = "a generator function, which nothing would iterate over"
    if what is None:
        return None
    return (
        f"it is {what}; write a class, as class Lines(sockserve.StreamRequestHandler), with"
        " async def handle(self) in it"
    )


def _signature_fault(factory: Any) -> str | None:
    """The message about a callable that does not take what handlers are made with; else None."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # it has none that Python knows
        return None
    try:
        signature.bind(None, None, None)
    except TypeError as error:
        fault = str(error)
    else:
        return None
    if fault.startswith("missing"):
        hint = "give it a default, or name a functools.partial that has it"
    elif not signature.parameters and not isinstance(unwrap(factory), type):
        hint = "if it returns a handler's class, name what it returns"
    else:
        hint = "write a class that derives from one of sockserve's or socketserver's handlers"
    return (
        "it cannot be called with three arguments, the request, the client's address and the"
        f" server: {fault}; {hint}"
    )


def _class_fault(cls: Any) -> str | None:
    """The message about a handler's class that lacks the methods that serve; else None."""
    if not isinstance(cls, type) or not issubclass(cls, _BASES):
        return None
    if speaks_http(cls):
        return _http_fault(cls)
    if any(_is_users(cls, name) for name in ("__init__", "__new__", "setup", "finish")):
        return None
    if _definer(cls, "handle") not in _BASES:
        return None
    own = [name for each in _users_classes(cls) for name in vars(each) if not name.startswith("_")]
    # One without anything like it may be a stand-in.
    meant = next((name for name in own if nearest("handle", [name])), None)
    if meant is None:
        return None
    return f"it has no handle method, so nothing would serve; was {meant!r} to be it?"


def _http_fault(cls: type) -> str | None:
    known = [name for name in dir(cls) if name.startswith("do_") and getattr(cls, name) is not None]
    if any(name.isupper() for name in (each.removeprefix("do_") for each in known)):
        return None
    # What reads requests in a way of its own, or makes methods when they are asked for, needs none.
    readers = [_definer(cls, name) for name in ("handle", "handle_one_request")]
    if any(each not in (None, HTTPRequestHandler, BaseHTTPRequestHandler) for each in readers):
        return None
    if _is_users(cls, "__getattribute__") or hasattr(cls, "__getattr__"):
        return None
    if _adds_methods(cls):
        return None
    meant = ""
    for name in (name for each in _users_classes(cls) for name in vars(each)):
        if found := _MEANT.fullmatch(name):
            meant = f"; did you mean 'do_{found[1].upper()}' by {name!r}?"
    return (
        "it has no do_ method, so it would answer no request; write async def do_GET(self), or"
        f" do_POST and so on{meant}"
    )


def _adds_methods(cls: type) -> bool:
    """Whether the constructor of a class, or its C{setup}, seems to give its objects C{do_}
    methods."""
    for name in ("__init__", "setup"):
        code = getattr(getattr(cls, name), "__code__", None)
        used = code.co_names if code is not None else ()
        if _is_users(cls, name) and any(
            each in ("setattr", "__dict__") or each.startswith("do_") for each in used
        ):
            return True
    return False


def _definer(cls: type, name: str) -> type | None:
    """The class that a class has an attribute from."""
    return next((each for each in cls.__mro__ if name in vars(each)), None)


def _is_users(cls: type, name: str) -> bool:
    """Whether a class has an attribute that is a user's work."""
    return _definer(cls, name) in list(_users_classes(cls))


def _users_classes(cls: type) -> Iterator[type]:
    for each in cls.__mro__:
        if each is not object and each.__module__.partition(".")[0] not in _NO_USERS:
            yield each
