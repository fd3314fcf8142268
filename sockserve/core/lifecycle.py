"""
The lifecycle: the order in which a server's and a handler's methods run, also when one of
them raises.

This room owns that order, which is C{socketserver}'s of CPython 3.14.  It must not
know transports, threads or deadlines: it runs wherever it is called.
"""

from __future__ import annotations

import inspect
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, runtime_checkable

from sockserve.core.asyncio_tasks import explain, reason_of
from sockserve.core.forking import end_child, is_child, last_fork
from sockserve.interfaces import IRequestHandler, IRequestServer, Outcome

__all__ = [
    "Answering",
    "FinishingRequest",
    "MakeAndRun",
    "make_and_run",
    "make_and_run_coroutine",
    "run_handler",
    "run_handler_coroutine",
    "serve",
    "serve_coroutine",
    "serve_next",
    "serve_next_coroutine",
    "verify_and_process",
]

# Looked up once: reading a member of an enumeration costs ten times a global's time before
# CPython 3.12, and this one is read for every request.  Other rooms that say "looked up once"
# do so for the same reason; all of that can go when 3.12 is the oldest.
_OK, _ERROR = Outcome.OK, Outcome.ERROR

#: Makes a handler and lets it serve, as L{make_and_run} does: given what makes it, the request, the
#: client's address, and the server object that it is to see.  Gives what is to be awaited of a
#: coroutine, else None.
MakeAndRun = Callable[[Callable[..., Any], object, object, object], Awaitable[None] | None]


@runtime_checkable
class FinishingRequest(Protocol):
    """A coroutine's request, which knows how far its handler has come."""

    def handler_finishing(self) -> None:
        """C{finish} of the handler is about to wait."""


class Answering(Protocol):
    """What has a coroutine answer one of several requests."""

    def handler_failed(self, error: Exception, /) -> None:
        """The handler has raised C{error}, which the server has handled."""


def verify_and_process(
    server: IRequestServer, request: object, client_address: object
) -> bool | None:
    """
    Have the server verify a request and start processing it.

    As C{BaseServer._handle_request_noblock}, with one difference: there an exception
    in C{verify_request} ends C{serve_forever}; here it is handled like one in
    C{process_request}, for the other connections' sake.

    @return: whether C{verify_request} let it pass; None if that raised. (reactor thread)
    """
    verified = None
    try:
        if server.verify_request(request, client_address):
            verified = True
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


def serve(
    server: IRequestServer,
    request: object,
    client_address: object,
    served: Callable[[], object] | None = None,
) -> Outcome:
    """
    Serve one request from start to end, blocking, as
    C{ThreadingMixIn.process_request_thread} does: on a worker thread, or in a child.

    @param served: called when the handler has finished, while the request is still open.
        (worker thread)
    """
    outcome = _OK
    try:
        server.finish_request(request, client_address)
    except Exception as error:
        outcome = server.outcome_of(request, error)
        server.handle_error(request, client_address)
    finally:
        try:
            if served is not None:
                served()
        finally:
            server.shutdown_request(request)
    return outcome


async def serve_coroutine(
    server: IRequestServer,
    request: object,
    client_address: object,
    outcomes: list[Outcome] | None = None,
) -> Outcome | None:
    """
    L{serve} for coroutine handlers. (reactor thread)

    @param outcomes: for what L{sockserve.core.beginnings} begins, which returns nothing: given the
        outcome in the place of the caller, unless that is C{OK}.
    """
    outcome = _OK
    try:
        served = server.finish_request(request, client_address)
        if served is not None:
            await served
    except Exception as error:
        explain(error)
        outcome = server.outcome_of(request, error)
        server.handle_error(request, client_address)
    except CancelledError as cancelled:
        reason = _handle_cancelled(server, request, client_address, cancelled)
        outcome = server.outcome_of(request, reason)
    finally:
        if last_fork.thread is not None and is_child():
            end_child(outcome)
        server.shutdown_request(request)
    if outcomes is None:
        return outcome
    if outcome is not _OK:
        outcomes.append(outcome)
    return None


async def serve_next_coroutine(
    server: IRequestServer,
    request: object,
    client_address: object,
    answering: Answering,
    makes_handler: bool,
) -> None:
    """
    Serve one of several requests of a connection, which stays open: L{serve_coroutine} without its
    end. (reactor thread)

    @param answering: told of what the handler raises.
    @param makes_handler: whether the server makes its handlers as usual, without a
        C{finish_request} of its own: they are run right here then, as L{run_handler_coroutine}
        does, in one coroutine instead of two.
    """
    outcome = _ERROR
    try:
        if makes_handler:
            # Two steps: CPython 3.11 looks for a method, otherwise.
            make = server.RequestHandlerClass
            handler = make(request, client_address, server)
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
                    if isinstance(request, FinishingRequest):
                        request.handler_finishing()
                    await waited
        else:
            served = server.finish_request(request, client_address)
            if served is not None:
                await served
        outcome = _OK
    except Exception as error:
        explain(error)
        server.handle_error(request, client_address)
        answering.handler_failed(error)
    except CancelledError as cancelled:
        answering.handler_failed(_handle_cancelled(server, request, client_address, cancelled))
    finally:
        if last_fork.thread is not None and is_child():
            end_child(outcome)


def _handle_cancelled(
    server: IRequestServer, request: object, client_address: object, cancelled: CancelledError
) -> Exception:
    """
    Have the server handle the reason for which a coroutine was cancelled by asyncio's means, which
    no server knows C{CancelledError} for.

    @return: that reason. (reactor thread)
    """
    try:
        raise reason_of(cancelled) from cancelled
    except Exception as error:
        server.handle_error(request, client_address)
        return error


def serve_next(
    server: IRequestServer, request: object, client_address: object, makes_handler: bool
) -> Exception | None:
    """
    L{serve_next_coroutine} for blocking handlers. (worker thread)

    @return: what the handler has raised.
    """
    try:
        if makes_handler:
            make_and_run(server.RequestHandlerClass, request, client_address, server)
        else:
            server.finish_request(request, client_address)
    except Exception as error:
        server.handle_error(request, client_address)
        return error
    return None


def make_and_run(
    make: Callable[..., Any], request: object, client_address: object, server: object
) -> None:
    """
    Make a blocking handler, and let it serve if it has not while it was made, as C{socketserver}'s
    own do: what C{finish_request} does by default. (handler's thread)

    @param make: the handler's class, or another callable that makes one.
    @param server: the server object that the handler is to see.
    """
    handler = make(request, client_address, server)
    if IRequestHandler.providedBy(handler):
        run_handler(handler)


def make_and_run_coroutine(
    make: Callable[..., Any], request: object, client_address: object, server: object
) -> Awaitable[None]:
    """L{make_and_run} for coroutine handlers. (reactor thread)"""
    return run_handler_coroutine(make(request, client_address, server), request)


def run_handler(handler: IRequestHandler) -> None:
    """
    Call the three methods of a handler that did not serve in its constructor.

    @raise TypeError: one of them is C{async def}. (handler's thread)
    """
    result = handler.setup()
    if result is not None:
        _refuse_coroutine(result)
    try:
        result = handler.handle()
        if result is not None:
            _refuse_coroutine(result)
    finally:
        result = handler.finish()
        if result is not None:
            _refuse_coroutine(result)


async def run_handler_coroutine(handler: IRequestHandler, request: object = None) -> None:
    """
    Call the three methods of a coroutine handler; C{setup} and C{finish} may be plain.

    @param request: told that C{finish} is about to wait, if it is a L{FinishingRequest}.
        (reactor thread)
    """
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
            if isinstance(request, FinishingRequest):
                request.handler_finishing()
            await waited


def _refuse_coroutine(result: object) -> None:
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError(
            f"{result.__qualname__} is a coroutine, but the callable that made the handler does"
            " not show it; give the class itself or a functools.partial of it"
        )
