"""
The ways in which stream listeners serve handlers, one for each kind of handler.

This room owns the table of all that may be spoken on a connection: which channel speaks it, what
makes and runs such a handler, and the limits that go with it.  It alone of the listeners' rooms
names protocols.  It must not know connections, ports or server objects.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from sockserve.core.handler_kinds import HandlerKind
from sockserve.core.lifecycle import MakeAndRun, make_and_run, make_and_run_coroutine
from sockserve.http.channel import HTTPChannel
from sockserve.http.guarded import make_and_run_guarded
from sockserve.http.limits import HTTPLimits
from sockserve.http.stock import make_stock_handler
from sockserve.interfaces import IStreamServer
from sockserve.streams.blocking import socket_channel_maker
from sockserve.streams.channel import MakeChannel
from sockserve.streams.coroutine import CoroutineChannel

__all__ = ["WAYS", "ProtocolLimits", "Way"]


class Way(NamedTuple):
    """
    The way in which handlers of one kind are served.

    @ivar maker: decides what can be decided once for a server, and gives what makes channels.
    @ivar make_and_run: what makes a handler and lets it serve.
    """

    maker: Callable[[IStreamServer], MakeChannel]
    make_and_run: MakeAndRun


def _make_and_run_either(
    make: Callable[..., Any], request: object, client_address: object, server: object
) -> Awaitable[None] | None:
    """For a handler that blocks for some requests, which are those that come with a socket."""
    run: MakeAndRun = make_and_run
    if not isinstance(request, socket.socket):
        run = make_and_run_coroutine
    return run(make, request, client_address, server)


#: How handlers of each kind are served.
WAYS: Mapping[HandlerKind, Way] = {
    HandlerKind.COROUTINE: Way(CoroutineChannel.maker, make_and_run_coroutine),
    HandlerKind.BLOCKING: Way(socket_channel_maker, make_and_run_guarded),
    HandlerKind.HTTP_COROUTINE: Way(HTTPChannel.maker, make_and_run_coroutine),
    HandlerKind.HTTP_MIXED: Way(HTTPChannel.maker, _make_and_run_either),
    HandlerKind.HTTP_STOCK: Way(HTTPChannel.maker, make_stock_handler),
}


class ProtocolLimits(HTTPLimits):
    """
    The limits of all that the ways speak, as class attributes of server objects: a base for each
    protocol that has some.
    """
