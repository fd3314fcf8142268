"""
Ports of UNIX stream sockets.

This room owns a name from the moment it is bound to the moment it is removed.  It must not know
descriptions or requests.

The ports are Twisted's own with another beginning and end: what a port that cannot open has made
goes again; and what is another's is left as it is, be it the socket that systemd has made, or the
file of a server that has taken the name over.
(reactor thread)
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from sockserve.listeners.kept_sockets import SocketKeeper, keeper_of, place_of
from sockserve.listeners.unix_names import NameLock, is_abstract

__all__ = ["InheritedUNIXEndpoint", "UNIXEndpoint"]


class _Port(unix.Port):
    """The part that both kinds of port share."""

    def _listen_on(self, sock: socket.socket) -> None:
        """Take connections from C{sock}, which listens, as C{unix.Port.startListening} does."""
        # A reactor of ours has its own.
        self.transport = getattr(self.reactor, "unix_server_transport", self.transport)
        self.factory.doStart()  # type: ignore[union-attr]
        self.connected = True
        self.socket = sock
        self.fileno = sock.fileno  # type: ignore[method-assign]
        self.numberAccepts = 100
        self.startReading()


class _UNIXPort(_Port):
    """A port that binds its name itself, perhaps with a lock file beside it."""

    def __init__(
        self,
        name: bytes,
        factory: IProtocolFactory,
        backlog: int,
        mode: int,
        reactor: object,
        wants_lock: bool,
    ) -> None:
        super().__init__(name, factory, backlog, mode, reactor)
        self._name = name
        self._keeper = keeper_of(reactor)
        self._place = place_of("unix", name)
        pid = None if self._keeper is None else self._keeper.pid
        self._lock = NameLock(name, pid) if wants_lock and not is_abstract(name) else None
        #: Device and inode of the socket's file, once it is bound.
        self._file: tuple[int, int] | None = None

    @override
    def startListening(self) -> None:
        sock = None if self._keeper is None else self._kept(self._keeper)
        if sock is None:
            sock = self._bound()
            if self._keeper is not None:
                self._keeper.keep(self._place, sock)
        self._shouldShutdown = self._keeper is None
        self._listen_on(sock)

    def _kept(self, keeper: SocketKeeper) -> socket.socket | None:
        """The socket that is there already, if its name is."""
        descriptor = keeper.take(self._place)
        if descriptor is None:
            return None
        sock = socket.socket(fileno=descriptor)
        try:
            if not is_abstract(self._name):
                os.chmod(self._name, self.mode)
                self._file = _identity(self._name)
        except OSError:  # somebody has removed it
            sock.close()
            keeper.give_up(self._place)
            return None
        return sock

    def _bound(self) -> socket.socket:
        """
        Make the socket, and bind its name.

        @raise CannotListenError: that cannot be.
        """
        sock: socket.socket | None = None
        if self._lock is not None:
            self._lock.acquire()
        try:
            sock = self.createInternetSocket()
            sock.bind(self._name)
            if not is_abstract(self._name):
                os.chmod(self._name, self.mode)
                self._file = _identity(self._name)
            sock.listen(self.backlog)
            if self._lock is not None:
                self._lock.confirm()
        except BaseException as error:
            if sock is not None:
                sock.close()
            self._let_go()
            if isinstance(error, OSError):
                raise CannotListenError(None, self._name, error) from error
            raise
        return sock

    @override
    def connectionLost(self, reason: Failure) -> None:
        self._let_go()
        tcp.Port.connectionLost(self, reason)

    def _let_go(self) -> None:
        """Remove the socket's file, unless it is another's by now, and the lock."""
        if self._keeper is not None and not self._keeper.owns_name(self._place):
            return
        if self._file is not None:
            with suppress(OSError):
                if _identity(self._name) == self._file:
                    os.unlink(self._name)
            self._file = None
        if self._lock is not None:
            self._lock.release()


def _identity(name: bytes) -> tuple[int, int]:
    status = os.lstat(name)
    return status.st_dev, status.st_ino


@implementer(IStreamServerEndpoint)
class UNIXEndpoint:
    """An endpoint that listens on a name of a UNIX socket."""

    def __init__(
        self, reactor: object, name: str, *, backlog: int, mode: int, wants_lock: bool
    ) -> None:
        """
        @param name: as L{unix_name <sockserve.listeners.unix_names.unix_name>} gives it.
        @param mode: the permissions of the socket's file.
        @param wants_lock: whether a lock file goes with it; an abstract name has none.
        """
        self._reactor = reactor
        self._name = os.fsencode(name)
        self._backlog = backlog
        self._mode = mode
        self._wants_lock = wants_lock

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Listen.

        @return: a Deferred that has fired with the C{IListeningPort}, or failed with
            C{CannotListenError} or C{OSError}.
        """
        return maybeDeferred(self._listen, factory)

    def _listen(self, factory: IProtocolFactory) -> _UNIXPort:
        port = _UNIXPort(
            self._name, factory, self._backlog, self._mode, self._reactor, self._wants_lock
        )
        port.startListening()
        return port


class _InheritedPort(_Port):
    """A port whose socket was listening already: its file, and others' use of it, go on."""

    def __init__(self, sock: socket.socket, factory: IProtocolFactory, reactor: object) -> None:
        super().__init__(os.fsencode(sock.getsockname()), factory, reactor=reactor)
        self._shouldShutdown = False
        self._inherited = sock

    @override
    def startListening(self) -> None:
        self._listen_on(self._inherited)

    @override
    def connectionLost(self, reason: Failure) -> None:
        tcp.Port.connectionLost(self, reason)


@implementer(IStreamServerEndpoint)
class InheritedUNIXEndpoint:
    """An endpoint of a UNIX socket that this process was handed, and that listens."""

    def __init__(self, reactor: object, descriptor: int) -> None:
        """
        @param descriptor: the socket's; it is taken over when that is listened on.
        """
        self._reactor = reactor
        self._descriptor = descriptor

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Listen.

        @return: a Deferred that has fired with the C{IListeningPort}, or failed with
            C{OSError}.
        """
        return maybeDeferred(self._listen, factory)

    def _listen(self, factory: IProtocolFactory) -> _InheritedPort:
        sock = socket.socket(fileno=self._descriptor)
        sock.set_inheritable(False)
        sock.setblocking(False)
        port = _InheritedPort(sock, factory, self._reactor)
        port.startListening()
        return port
