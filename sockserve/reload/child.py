"""
The process that serves under a supervisor, until another has taken its place.

This room owns what it is handed, what it hands on, and when it ends for that.  It must not know
what it serves, nor when files change.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import MutableMapping, Sequence
from typing import Any

import msgspec
from twisted.application.service import IService
from twisted.internet.defer import DeferredList
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from sockserve.interfaces import ConfigurationError
from sockserve.listeners.kept_sockets import Place, keep_sockets
from sockserve.listeners.service import listeners_of
from sockserve.reload.files import own_files
from sockserve.reload.link import VARIABLE, Closed, Failed, Handed, Kept, Link, Loaded, Ready, Stop
from sockserve.reload.server_objects import ObjectSockets
from sockserve.run.server_config import ServerConfig
from sockserve.run.signals import stop_reactor
from sockserve.run.source_config import SourceConfig
from sockserve.service import SocketServerService

__all__ = ["Child"]


@implementer(IReadDescriptor)
class Child:
    """
    This process, as a child of a supervisor's, and the keeper of its sockets.

    @ivar is_told: whether it is told where this listens: not where the one before did, too.
    """

    def __init__(self, handed: Handed) -> None:
        # For good
        self.pid = os.getppid()
        self._link = Link(socket.socket(fileno=handed.link))
        self._reactor: Any = None

        # Until it listens
        self._handed = handed.sockets
        self._names_before = handed.names
        self.is_told = handed.is_first
        self._adopted: list[Place] = []
        self._names: list[Place] = []
        self._objects = ObjectSockets(self)

        # From then on
        self._is_ready = False
        self._handed_over: list[Place] = []

    @classmethod
    def started(cls, environ: MutableMapping[str, str]) -> Child:
        """
        This process, which was started with such an environment: before anything is imported that
        is to be served.
        """
        handed = msgspec.json.decode(environ.pop(VARIABLE), type=Handed)
        for descriptor in (handed.link, *(descriptor for _, descriptor in handed.sockets)):
            os.set_inheritable(descriptor, False)
        # The supervisor, which started this, lets them wait.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # Sockets of systemd's are handed to the process that it has started, and so to this.
        if environ.get("LISTEN_PID") == str(os.getppid()):
            environ["LISTEN_PID"] = str(os.getpid())
        # Of a file that is changed twice in a second, the first would be taken for the second.
        sys.dont_write_bytecode = True
        child = cls(handed)
        child._objects.install()
        return child

    def check(self, servers: Sequence[ServerConfig | SourceConfig]) -> None:
        """
        Check that another process can take this one's place in serving these.

        @raise ConfigurationError: it cannot.
        """
        for server in servers:
            if not isinstance(server, ServerConfig) or server.server is None:
                continue
            if not self._objects.has(server.server):
                error = ConfigurationError(
                    f"server: {type(server.server).__qualname__} does not go with --reload, which"
                    " keeps a socket of TCP or UDP only, and one that socketserver's server_bind"
                    " has bound; serve its handler class",
                    "server",
                )
                server.locate(error)
                raise error

    def loaded(self) -> None:
        """Tell that what is to be served is there, and wait until this process may listen."""
        self._link.send(Loaded())
        if self._link.receive() is None:  # the supervisor has gone
            sys.exit(1)

    def join(self, reactor: Any) -> None:
        """Have what listens with a reactor use this child's sockets, and heed the supervisor."""
        self._reactor = reactor
        keep_sockets(reactor, self)
        reactor.addReader(self)

    def ready(self) -> None:
        """Tell that this process serves. (reactor thread)"""
        self._is_ready = True
        for _, descriptor in self._handed:
            os.close(descriptor)
        self._handed.clear()
        self._link.send(Ready(self._adopted, self._names, own_files()))

    def closing(self, service: IService) -> None:
        """
        Tell, once that is done, that this process takes no more requests: its ports close in the
        reactor's next turn. (reactor thread)

        @param service: the service that stops.
        """
        later = self._reactor.callLater
        objects = [each for each in listeners_of(service) if isinstance(each, SocketServerService)]
        returned = DeferredList([each.loop_returned() for each in objects])
        returned.addCallback(lambda _: later(0, later, 0, self._link.send, Closed()))

    def failed(self) -> None:
        """Tell that this process cannot serve."""
        self._link.send(Failed(own_files()))

    # As a keeper of sockets (reactor thread)

    def take(self, place: Place) -> int | None:
        """The descriptor of a socket that is there already; None if there is none."""
        for number, (known, descriptor) in enumerate(self._handed):
            if known == place:
                del self._handed[number]
                self._adopted.append(place)
                return descriptor
        return None

    def keep(self, place: Place, sock: socket.socket) -> None:
        """Have a socket that was made here outlive this process."""
        self.is_told = True
        self._link.send(Kept(place), sock.fileno())

    def give_up(self, place: Place) -> None:
        """Have a socket that was taken end, as it is no longer found by its name."""
        self._adopted.remove(place)

    def keep_name(self, place: Place) -> None:
        """Have a name outlive this process."""
        self._names.append(place)

    def owns_name(self, place: Place) -> bool:
        """Whether a name is to be removed when its socket is closed: not before this process
        serves, if the name is the one of before, nor once another does."""
        if place in self._handed_over:
            return False
        return self._is_ready or place not in (*self._adopted, *self._names_before)

    # As a reader of the link (reactor thread)

    def fileno(self) -> int:
        """The descriptor of the link."""
        return self._link.socket.fileno()

    def logPrefix(self) -> str:
        """The name of this in Twisted's log."""
        return "reload"

    def doRead(self) -> None:
        """Heed what the supervisor says, or that it has gone."""
        messages = self._link.receive()
        if messages is None:
            self._reactor.removeReader(self)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        for message, _ in messages:
            if isinstance(message, Stop):
                self._handed_over = message.handed_over
                stop_reactor(self._reactor)

    def connectionLost(self, reason: Failure) -> None:
        """Nothing: the link is as long as this process."""
