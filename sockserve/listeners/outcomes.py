"""
Outcomes: what an error that a handler has raised says of its client.

This room owns which errors are a client's fault, and the words for what it did.  It must not know
servers, or who asks. (any thread)
"""

from __future__ import annotations

import socket
from asyncio import IncompleteReadError, LimitOverrunError
from collections.abc import Callable
from errno import ENOTCONN, ESHUTDOWN

from sockserve.core.addresses import shown_address
from sockserve.core.messages import printable
from sockserve.core.tracebacks import request_in
from sockserve.interfaces import (
    DeadlineExpired,
    HandshakeFailed,
    NotAuthenticated,
    PeerError,
    RequestAborted,
)

__all__ = ["is_clients_fault", "is_told_elsewhere", "what_client_did", "what_was_served"]

#: The errors that are told of where they come from.
_TOLD_ELSEWHERE = (DeadlineExpired, HandshakeFailed, NotAuthenticated, RequestAborted)

#: The errors that a handler sees when its peer is slow or breaks the protocol.
_PEER_ERRORS = (
    DeadlineExpired,
    IncompleteReadError,
    LimitOverrunError,
    PeerError,
    RequestAborted,
)


def _is_of_a_connection(error: BaseException) -> bool:
    """Whether C{error} is one that the system raises for a connection that is lost."""
    return isinstance(error, ConnectionError) or (
        isinstance(error, OSError) and error.errno in (ENOTCONN, ESHUTDOWN)
    )


def is_told_elsewhere(error: BaseException) -> bool:
    """Whether an error is told of where it comes from, and no more by who hears of it."""
    if isinstance(error, ExceptionGroup):  # of a handler's tasks
        return all(map(is_told_elsewhere, error.exceptions))
    return isinstance(error, _TOLD_ELSEWHERE)


def what_client_did(error: BaseException) -> str:
    """The deed of a client that made a handler raise C{error}, in words."""
    if isinstance(error, ExceptionGroup):
        return what_client_did(error.exceptions[0])
    if isinstance(error, ConnectionResetError):
        return "reset the connection"
    if _is_of_a_connection(error):
        return "closed the connection before it was answered"
    if isinstance(error, IncompleteReadError):
        return "ended in the middle of a message" if error.partial else "closed the connection"
    if isinstance(error, TimeoutError):
        return "was too slow"
    return "broke the protocol"


def is_clients_fault(
    error: BaseException, request: object, is_gone: Callable[[object], bool]
) -> bool:
    """
    Whether the client is the cause of an error that its handler has raised.

    @param is_gone: tells whether the client of a request has gone.
    """
    if isinstance(error, ExceptionGroup):  # of a handler's tasks
        return all(is_clients_fault(each, request, is_gone) for each in error.exceptions)
    # The client is the cause when:
    # 1. it was too slow for a deadline, or broke the protocol;
    is_peers_fault = isinstance(error, _PEER_ERRORS)
    # 2. it was too slow for a timeout that the handler has set on its socket;
    has_timeout = isinstance(request, socket.socket) and bool(request.gettimeout())
    was_too_slow = isinstance(error, TimeoutError) and has_timeout
    # 3. a system call failed for want of a connection, and the client has gone.
    return is_peers_fault or was_too_slow or (_is_of_a_connection(error) and is_gone(request))


def what_was_served(
    request: object, client_address: object, server_address: object, error: BaseException
) -> str:
    """
    A request in words: what it asks for and whose it is, or between which addresses it is.

    @param error: what its handler has raised.
    """
    head = getattr(request, "head", None)  # of a protocol whose requests have one
    asked = request_in(error) if head is None else printable(str(head))
    if asked is not None:
        return f"{asked} for {shown_address(client_address)}"
    return f"{shown_address(client_address)} on {shown_address(server_address)}"
