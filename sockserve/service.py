"""
Services: listeners as parts of a Twisted application.

This room owns when a listener's machine (L{sockserve.listening}) is told to listen and to
stop, the descriptions that name listeners, and server objects that come with their own
socket.  It must not know option strings.
"""

from __future__ import annotations

import socket
import socketserver
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.accepted import peer_address
from sockserve.adoption import Adoption, take_requests
from sockserve.connections import StreamFactory, socket_address
from sockserve.datagrams import DatagramServer
from sockserve.deadlines import Deadlines
from sockserve.descriptions import (
    datagram_port,
    is_datagram_description,
    one_line,
    stream_endpoint,
)
from sockserve.interfaces import ConfigurationError
from sockserve.listening import Core, DatagramDoors, Machine, StreamDoors
from sockserve.loops import LoopThread
from sockserve.servers import ABANDON_SECONDS
from sockserve.stats import RequestRecord
from sockserve.threads import DEFAULT_THREADS

__all__ = [
    "DEFAULT_REQUEST_QUEUE_SIZE",
    "DatagramRequestService",
    "ListenError",
    "RequestService",
    "SocketServerService",
    "service_from_description",
    "why_not_served",
]

#: How many accepted connections the kernel keeps for us, where a description does not
#: say.  Twisted's 50 makes a burst of clients wait a second for their SYN's second try.
DEFAULT_REQUEST_QUEUE_SIZE = 1024


_log = Logger()


class ListenError(ConfigurationError):
    """What was to be listened on cannot be; the message names it and says why."""


# Descriptions


def service_from_description(
    reactor: Any, description: str, RequestHandlerClass: Callable[..., Any], **options: Any
) -> RequestService | DatagramRequestService:
    """
    The service that listens as C{description} says.

    @param options: as L{RequestService.from_description} or
        L{DatagramRequestService.from_description}, whichever the description is for.
    """
    if is_datagram_description(description):
        return DatagramRequestService.from_description(
            reactor, description, RequestHandlerClass, **options
        )
    return RequestService.from_description(reactor, description, RequestHandlerClass, **options)


class _ListenerService(Service):
    """What both kinds of service share."""

    server: StreamFactory | DatagramServer

    def __init__(self, doors: StreamDoors | DatagramDoors, description: str) -> None:
        self._core = Core(doors)
        self._machine = Machine(self._core)
        self._opening: Deferred[None] | None = None
        self.description = description

    @override
    def privilegedStartService(self) -> None:
        """
        Listen, while there are still the privileges for it.

        @raise ListenError: the address is taken, forbidden or not there.
        """
        self._open()

    @override
    def startService(self) -> None:
        """
        Listen, unless L{privilegedStartService} did.

        @raise ListenError: the address is taken, forbidden or not there.
        """
        super().startService()
        self._open()

    @override
    def stopService(self) -> Deferred[None]:
        """
        Stop listening, let requests come to their end within the C{drain} deadline,
        then abort them.  Fires when all is gone; a thread that does not end is counted
        as abandoned and not waited for.
        """
        super().stopService()
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        stopped = self._machine.stop().addCallback(lambda _: self.server.release_workers())
        closing, self._core.closing = self._core.closing, None
        if closing is not None:
            closing.addErrback(_log_failure).addCallback(lambda _: self._gone())
        return stopped

    def suspend(self) -> None:
        """Take no more requests, but keep listening: clients wait in the kernel's queue."""
        self._machine.suspend()

    def resume(self) -> None:
        """Undo L{suspend}."""
        self._machine.resume()

    def _open(self) -> None:
        if self._opening is not None:
            return
        if not self._machine.is_stopped():
            raise ListenError(
                f"listen {self.description!r}: it is stopping still; wait for what stopService"
                " returned"
            )
        opening: Deferred[None] = maybeDeferred(self._listen).addCallback(self._machine.opened)
        result = getattr(opening, "result", None)
        if isinstance(result, Failure):
            opening.addErrback(lambda _: None)
            raise ListenError(f"listen {self.description!r}: {_why_not(result)}")
        self._opening = opening
        # What fails later (no endpoint of Twisted's does) has nobody to tell but the log.
        opening.addErrback(lambda failure: failure.trap(CancelledError) and None)
        opening.addErrback(_log_failure)

    def _gone(self) -> None:
        for stopped in self._machine.gone():
            stopped.callback(None)

    def _listen(self) -> Any:
        raise NotImplementedError


class RequestService(_ListenerService):
    """
    A stream listener as a service of a Twisted application.

    @ivar server: the server object.
    """

    server: StreamFactory

    def __init__(self, endpoint: Any, server: StreamFactory, description: str = "") -> None:
        """
        @param endpoint: any C{IStreamServerEndpoint}.
        @param server: what serves its connections.
        @param description: names the listener in messages and statistics.
        """
        super().__init__(StreamDoors(server), description or repr(endpoint))
        self.endpoint = endpoint
        self.server = server
        server.statistics.listener = self.description

    @classmethod
    def from_description(
        cls,
        reactor: Any,
        description: str,
        RequestHandlerClass: Callable[..., Any],
        *,
        factory: Callable[..., StreamFactory] = StreamFactory,
        **options: Any,
    ) -> RequestService:
        """
        @param description: a server endpoint description of Twisted's, or C{fd:NUMBER}.
        @param factory: the server object's class.
        @param options: as L{StreamFactory.__init__}.
        @raise ConfigurationError: one of these cannot be.
        """
        server = factory(RequestHandlerClass, reactor=reactor, **options)

        def trusted(address: IAddress) -> bool:
            return server.trusts_proxy(socket_address(address))

        endpoint = stream_endpoint(reactor, description, trusted)
        if server.request_queue_size is None and "backlog=" not in description:
            server.request_queue_size = DEFAULT_REQUEST_QUEUE_SIZE
        return cls(endpoint, server, description)

    def _listen(self) -> Any:
        return self.endpoint.listen(self.server)


class DatagramRequestService(_ListenerService):
    """
    A datagram listener as a service of a Twisted application.

    @ivar server: the server object.
    """

    server: DatagramServer

    def __init__(self, port: Any, server: DatagramServer, description: str) -> None:
        """Use L{from_description}."""
        super().__init__(DatagramDoors(server), description)
        self._port = port
        self.server = server
        server.statistics.listener = description

    @classmethod
    def from_description(
        cls,
        reactor: Any,
        description: str,
        RequestHandlerClass: Callable[..., Any],
        *,
        factory: Callable[..., DatagramServer] = DatagramServer,
        **options: Any,
    ) -> DatagramRequestService:
        """
        @param description: C{udp:PORT[:interface=ADDRESS]}, C{udp6:} likewise, or
            C{unixgram:PATH[:mode=OCTAL]}, with Twisted's quoting rules.
        @param factory: the server object's class.
        @param options: as L{DatagramServer.__init__}.
        @raise ConfigurationError: one of these cannot be.
        """
        server = factory(RequestHandlerClass, reactor=reactor, **options)
        return cls(datagram_port(reactor, description, server), server, description)

    def _listen(self) -> Any:
        self._port.startListening()
        return self._port


def why_not_served(server: Any) -> str | None:
    """Why a server object cannot be served as it stands; None if it can."""
    served: Any = server
    if not isinstance(server, socketserver.BaseServer):
        return f"{server!r} is not a socketserver.BaseServer"
    try:
        closed = served.fileno() < 0
    except (AttributeError, OSError):
        return "it has no socket"
    if closed:
        return "its socket is closed"
    sock = getattr(server, "socket", None)
    if not isinstance(sock, socket.socket) or sock.type != socket.SOCK_STREAM:
        return None
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return None
    return "it does not listen; call its server_bind and server_activate"


class SocketServerService(Service):
    """
    A server object of L{socketserver}'s kind, the standard library's or ours, as a service.
    It serves as it stands, on a thread of its own in place of the one that would call
    C{serve_forever}; requests are served by sockserve's threads (one, without
    C{ThreadingMixIn}) under its deadlines and caps, unless it has C{ForkingMixIn}, or a
    C{process_request} of its own that does not leave them to C{super()}.

    @ivar server: what counts and observes: C{server.statistics}.
    @ivar shut_down: fires when the program itself has called the object's C{shutdown}.  It
        takes no more requests then.
    """

    def __init__(
        self,
        server: Any,
        reactor: Any,
        *,
        threads: int = DEFAULT_THREADS,
        deadlines: Deadlines | None = None,
        **options: Any,
    ) -> None:
        """
        @param server: the server object, bound and listening.
        @param threads: the most handlers at once, if it has C{ThreadingMixIn}.
        @param deadlines: by default, C{Deadlines()}.
        @param options: as L{StreamFactory.__init__}.
        @raise ConfigurationError: it, or its handler, cannot be served, or not so.
        """
        fault = why_not_served(server)
        if fault is not None:
            raise ConfigurationError(f"{type(server).__qualname__}: {fault}")
        self._object = server
        self.description = f"{type(server).__qualname__} on {server.server_address}"
        self._deadlines = Deadlines() if deadlines is None else deadlines
        if not isinstance(server, socketserver.ThreadingMixIn):
            threads = 1
        self._adoption = Adoption(
            server,
            reactor,
            threads=threads,
            option="threads",
            deadlines=self._deadlines,
            **options,
        )
        #: Whether handlers answer by the server's own socket, which is closed after them.
        self._shares_socket = getattr(server, "socket_type", None) == socket.SOCK_DGRAM
        self._loop: LoopThread | None = None
        self.shut_down: Deferred[None] = Deferred()
        self.server = self._adoption.factory
        self.server.server_address = server.server_address
        self.server.statistics.listener = self.description

    @override
    def startService(self) -> None:
        """
        Serve.

        @raise OSError: there are no descriptors for it.
        """
        super().startService()
        admission = self.server.admission
        forks = isinstance(self._object, socketserver.ForkingMixIn)
        if not forks:
            take_requests(self._object, self._adoption.take)
        if admission.allow or admission.deny:
            self._verify_request = self._object.verify_request
            self._object.verify_request = self._verify_network
        is_full = None
        if admission.max_connections is not None and not forks and not self._shares_socket:
            is_full = self._is_full
        self._ended: Deferred[None] = Deferred()
        self._ended.addErrback(_log_failure)
        loop = LoopThread(self._object, self._deadlines.handshake, self._loop_ended, is_full)
        self._loop = loop
        if is_full is not None:
            admission.gates.add(loop)
            self._adoption.on_settled = loop.reopen

    @override
    def stopService(self) -> Deferred[Any]:
        """
        Stop listening, and let requests come to their end within the C{drain} deadline.
        Fires when all is gone.
        """
        super().stopService()
        if self._loop is None:
            return succeed(None)
        self._loop.stop()
        self.server.admission.gates.discard(self._loop)
        self._loop = None
        self._ended.addCallback(lambda _: self._drain())
        if self._shares_socket:
            self._ended.addCallback(lambda _: self.server.disk.call(self._object.server_close))
            self._ended.addErrback(_log_failure)
        return self._ended.addCallback(lambda _: self._adoption.release())

    def _is_full(self, coming: int) -> bool:
        """Whether no more connections may be taken.  The loop's thread."""
        admission = self.server.admission
        # Those that are on their way to the reactor are not in its count, nor are others' here.
        active = max(self._adoption.active + coming, admission.active)
        return active >= (admission.max_connections or active + 1)

    def _verify_network(self, request: Any, client_address: Any) -> bool:
        """The server's C{verify_request}, when it is its turn.  The loop's thread."""
        address = client_address
        if isinstance(request, socket.socket):
            try:
                address = peer_address(request, client_address)
            except OSError:  # it has gone
                return False
        if self.server.admission.allows(address):
            return bool(self._verify_request(request, client_address))
        self.server.reactor.callFromThread(self._refuse_network, client_address)
        return False

    def _refuse_network(self, client_address: Any) -> None:
        """Account for a request that has not been taken.  Reactor thread."""
        factory, refused = self.server, "refused: network"
        factory.arrived()
        factory.count_refusal("network")
        factory.finished(RequestRecord(client_address, factory.handler_name, outcome=refused))

    def _drain(self) -> Deferred[Any]:
        drained: Deferred[Any] = self.server.drain()
        seconds = self._deadlines.drain
        if seconds is not None:
            # What is no connection is under no deadline, and is left behind as others are.
            drained.addTimeout(seconds + ABANDON_SECONDS, self.server.reactor)
            drained.addErrback(lambda failure: failure.trap(TimeoutError))
        return drained

    def _loop_ended(self, error: BaseException | None) -> None:
        """The loop's thread."""
        if error is not None or not self._shares_socket:
            try:
                self._object.server_close()
            except Exception as raised:
                error = raised
        failure = None if error is None else Failure(error)
        self.server.reactor.callFromThread(self._over, failure)

    def _over(self, failure: Failure | None) -> None:
        """Reactor thread."""
        by_itself = self._loop is not None and failure is None
        self._ended.callback(failure)
        if by_itself:
            _log.info("{server}: it has shut down", server=self.description)
            self.shut_down.callback(None)


def _why_not(failure: Failure) -> str:
    error = failure.value
    assert error is not None
    if isinstance(error, CannotListenError):
        cause = error.socketError
        return getattr(cause, "strerror", None) or str(cause)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return one_line(error)


def _log_failure(failure: Failure) -> None:
    _log.failure("a listener failed", failure)
