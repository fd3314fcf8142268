"""
The lifecycle: which of a server's and a handler's methods run, in which order, and
what runs when one of them raises.

This room owns that order, which is L{socketserver}'s of CPython 3.14.  It must not
know transports, threads or deadlines: it runs wherever it is called.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

from twisted.logger import Logger

from sockserve.interfaces import (
    ConfigurationError,
    IHTTPRequestHandler,
    IRequestHandler,
    IRequestServer,
    Outcome,
)

__all__ = [
    "answer",
    "answer_coroutine",
    "handler_class",
    "is_coroutine_handler",
    "is_overridden",
    "makes",
    "offer",
    "run_handler",
    "run_handler_coroutine",
    "serve",
    "serve_coroutine",
]

_log = Logger()

#: Where the methods are defined that do what they are known to do.
_KNOWN_MODULES = ("socketserver", "sockserve.socketserver")

#: Looked up once: reading a member of an enumeration costs ten times a global's time
#: (CPython 3.11), and this one is read for every request.
_OK = Outcome.OK


def offer(server: IRequestServer, request: Any, client_address: Any) -> bool:
    """
    Have the server verify a request and start processing it.  Runs on the reactor
    thread.

    As C{BaseServer._handle_request_noblock}, with one difference: there an exception
    in C{verify_request} ends C{serve_forever}; here it is handled like one in
    C{process_request}, for the other connections' sake.

    @return: whether C{verify_request} let it pass.
    """
    verified = False
    try:
        verified = bool(server.verify_request(request, client_address))
        if verified:
            server.process_request(request, client_address)
            return True
    except Exception:
        try:
            server.handle_error(request, client_address)
        finally:
            server.shutdown_request(request)
        return verified
    except BaseException:
        server.shutdown_request(request)
        raise
    server.shutdown_request(request)
    return False


def serve(server: IRequestServer, request: Any, client_address: Any) -> Outcome:
    """
    Serve one request from start to end, blocking, as
    C{ThreadingMixIn.process_request_thread} does.  Runs on a worker thread or in a
    child.
    """
    outcome = _OK
    try:
        server.finish_request(request, client_address)
    except Exception as error:
        outcome = server.outcome_of(request, error)
        server.handle_error(request, client_address)
    finally:
        server.shutdown_request(request)
    return outcome


async def serve_coroutine(server: IRequestServer, request: Any, client_address: Any) -> Outcome:
    """L{serve} for coroutine handlers.  Runs on the reactor thread."""
    outcome = _OK
    try:
        served = server.finish_request(request, client_address)
        if served is not None:
            await served
    except Exception as error:
        outcome = server.outcome_of(request, error)
        server.handle_error(request, client_address)
    finally:
        server.shutdown_request(request)
    return outcome


async def answer_coroutine(
    server: IRequestServer, request: Any, client_address: Any
) -> Exception | None:
    """
    Serve one of several requests of a connection, which stays open: L{serve_coroutine}
    without its end.

    @return: what the handler raised.
    """
    try:
        served = server.finish_request(request, client_address)
        if served is not None:
            await served
    except Exception as error:
        server.handle_error(request, client_address)
        return error
    return None


def answer(server: IRequestServer, request: Any, client_address: Any) -> Exception | None:
    """L{answer_coroutine} for blocking handlers.  Runs on a worker thread or in a child."""
    try:
        server.finish_request(request, client_address)
    except Exception as error:
        server.handle_error(request, client_address)
        return error
    return None


def run_handler(handler: Any) -> None:
    """
    Call the three methods of a handler that did not serve in its constructor.

    @raise TypeError: one of them is C{async def}.
    """
    _refuse_coroutine(handler.setup())
    try:
        _refuse_coroutine(handler.handle())
    finally:
        _refuse_coroutine(handler.finish())


async def run_handler_coroutine(handler: Any) -> None:
    """Call the three methods of a coroutine handler; C{setup} and C{finish} may be plain."""
    waited = handler.setup()
    if waited is not None:
        await waited
    try:
        waited = handler.handle()
        if waited is not None:
            await waited
    finally:
        waited = handler.finish()
        if waited is not None:
            await waited


def _refuse_coroutine(result: object) -> None:
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError(
            f"{result.__qualname__} is a coroutine, but the callable that made the handler does"
            " not show it; give the class itself or a functools.partial of it"
        )


def is_overridden(owner: Any, name: str) -> bool:
    """Whether a server, or a handler class, has a method of its own, not L{socketserver}'s."""
    method = getattr(owner, name, None)
    if method is None:
        return False
    # Not by its name or module, which a wrapper takes over from what it wraps.
    variables = getattr(getattr(method, "__func__", method), "__globals__", {})
    return variables.get("__name__") not in _KNOWN_MODULES


def handler_class(factory: Any) -> Any:
    """The class behind C{factory}, through any C{functools.partial}."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    return factory


def makes(factory: Any, interface: Any) -> bool:
    """Whether what C{factory} makes has an interface, as far as a class can tell."""
    cls = handler_class(factory)
    # Of other callables zope.interface would keep a note on them, which not all let it.
    return isinstance(cls, type) and bool(interface.implementedBy(cls))


def is_coroutine_handler(factory: Any) -> bool:
    """
    Whether what C{factory} makes is served by a coroutine on the reactor.

    @raise ConfigurationError: the class mixes the two kinds, or is a stdlib handler
        class with coroutine methods, or cannot be called.
    """
    cls = handler_class(factory)
    if not callable(cls):
        raise ConfigurationError(f"handler {cls!r} is not a class or callable")
    if makes(cls, IHTTPRequestHandler):
        return not cls.may_block()
    name = getattr(cls, "__qualname__", repr(cls))
    methods = {"setup", "handle", "finish"}
    if hasattr(cls, "handle_one_request"):  # http.server's
        methods.update(method for method in dir(cls) if method.startswith("do_"))
    coroutines = {
        method for method in methods if inspect.iscoroutinefunction(getattr(cls, method, None))
    }
    if not coroutines:
        return False
    if not makes(cls, IRequestHandler):
        raise ConfigurationError(
            f"handler {name}: {', '.join(sorted(coroutines))} is async def, which"
            " socketserver's classes never await; derive from sockserve's class of the same name"
        )
    if "handle" not in coroutines:
        raise ConfigurationError(
            f"handler {name}: {', '.join(sorted(coroutines))} is async def but handle is not;"
            " a request runs in one place, so make handle async def too"
        )
    return True
