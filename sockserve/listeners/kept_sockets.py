"""
Listening sockets that outlive a process: the next one that serves goes on with them.

This room owns how a port gets such a socket in the place of one of its own, and which process
removes a name.  It must not know how sockets come from one process to another.  (reactor thread)
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias
from weakref import WeakKeyDictionary

from twisted.internet import tcp
from twisted.internet.interfaces import IListeningPort, IProtocolFactory

__all__ = ["Place", "SocketKeeper", "keep_sockets", "keeper_of", "place_of"]

#: What a socket was asked for by: its kind, and its interface and port, or its name.
Place: TypeAlias = tuple[str, ...]


class SocketKeeper(Protocol):
    """
    The sockets that this process was handed, and those that it hands on.

    @ivar pid: the number of the process that holds the locks of names.
    """

    pid: int

    def take(self, place: Place) -> int | None:
        """The descriptor of the socket that is there already; the caller's to close.  None if there
        is none, so that one is to be made, and kept."""

    def keep(self, place: Place, sock: socket.socket) -> None:
        """Have a socket that was made here outlive this process."""

    def give_up(self, place: Place) -> None:
        """Have a socket that was taken end, as it is no longer found by its name."""

    def keep_name(self, place: Place) -> None:
        """Have a name that is no socket's own, such as an entry of rpcbind's, outlive this
        process."""

    def owns_name(self, place: Place) -> bool:
        """Whether a name is to be removed when its socket is closed."""


_keepers: WeakKeyDictionary[Any, SocketKeeper] = WeakKeyDictionary()


def keeper_of(reactor: object) -> SocketKeeper | None:
    """The keeper of the sockets that are listened on with a reactor; None if they end with this
    process."""
    return _keepers.get(reactor) if _keepers else None


def place_of(kind: str, *parts: object) -> Place:
    """The place of these words, as text."""
    return (
        kind,
        *(
            each.decode("utf-8", "backslashreplace") if isinstance(each, bytes) else str(each)
            for each in parts
        ),
    )


def keep_sockets(reactor: Any, keeper: SocketKeeper) -> None:
    """Have all that listens with a reactor from now on, whoever asks for it, keep its sockets."""
    _keepers[reactor] = keeper
    reactor.listenTCP = _listen_tcp(reactor, keeper, reactor.listenTCP)


def _listen_tcp(
    reactor: Any, keeper: SocketKeeper, listen: Callable[..., tcp.Port]
) -> Callable[..., IListeningPort]:
    """A C{listenTCP} that asks for a kept socket first."""

    def listen_tcp(
        port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        place = place_of("tcp", interface, port)
        descriptor = keeper.take(place)
        if descriptor is None:
            made = listen(port, factory, backlog, interface)
            made._shouldShutdown = False  # which would end it for all processes
            keeper.keep(place, made.socket)
            return made
        try:
            with socket.socket(fileno=os.dup(descriptor)) as sock:
                family = sock.family
            adopted: IListeningPort = reactor.adoptStreamPort(descriptor, family, factory)
            return adopted
        finally:
            os.close(descriptor)

    return listen_tcp
