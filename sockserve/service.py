"""
Services: listeners as parts of a Twisted application.

This room owns when a port is opened, and the descriptions that name listeners.  It must not know
option strings.  (Server objects come with their own socket: L{sockserve.dropin.service}.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.addresses import socket_address
from sockserve.core.handler_kinds import check_carrier
from sockserve.core.logs import Topic, logger
from sockserve.core.messages import about, one_line
from sockserve.dropin.service import SocketServerService
from sockserve.interfaces import ConfigurationError
from sockserve.listeners.datagram_ports import UDPPort, UNIXDatagramPort
from sockserve.listeners.datagrams import DatagramServer
from sockserve.listeners.endpoints import (
    carrier_of,
    datagram_port,
    is_datagram_description,
    is_plain,
    stream_endpoint,
    written_out,
)
from sockserve.listeners.machine import DatagramListener, Listener, StreamListener
from sockserve.listeners.server import RequestServer
from sockserve.listeners.service import ListenerService
from sockserve.listeners.stream_factory import StreamFactory

__all__ = [
    "DEFAULT_REQUEST_QUEUE_SIZE",
    "DatagramRequestService",
    "ListenError",
    "RequestService",
    "SocketServerService",
    "service_from_description",
]

#: How many accepted connections the kernel keeps for us, where a description does not
#: say.  Twisted's 50 makes a burst of clients wait a second for their SYN's second try.
DEFAULT_REQUEST_QUEUE_SIZE = 1024


_log = logger(Topic.SERVICE)


class ListenError(ConfigurationError):
    """A listener that cannot be opened; the message names it and says why."""


# Descriptions


def service_from_description(
    reactor: IReactorTime, description: str, RequestHandlerClass: Callable[..., Any], **options: Any
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


class _PortService(ListenerService):
    """A listener whose port is opened when it starts: the part that both kinds share."""

    def __init__(self, listener: Listener, description: str) -> None:
        # An abstract name's NUL is no text for people.
        super().__init__(listener, description.replace("\0", "@"))
        self._opening: Deferred[None] | None = None

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
        Stop listening, let requests finish within the C{drain} deadline, then abort them.

        @return: a Deferred that fires when all is gone.  A thread that does not end is counted
            as abandoned, and not waited for.
        """
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        return super().stopService()

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
            raise ListenError(f"listen {self.description!r}: {_why_not(result)}", "listen")
        self._opening = opening
        # What fails later (no endpoint of Twisted's does) has nobody to tell but the log.
        opening.addErrback(lambda failure: failure.trap(CancelledError) and None)
        opening.addErrback(_log_failure)

    def _listen(self) -> object:
        raise NotImplementedError


class RequestService(_PortService):
    """
    A stream listener as a service of a Twisted application.

    @ivar server: the server object.
    """

    server: StreamFactory

    def __init__(
        self, endpoint: IStreamServerEndpoint, server: StreamFactory, description: str = ""
    ) -> None:
        """
        @param endpoint: where to listen.
        @param server: what serves its connections.
        @param description: names the listener in messages and statistics.
        @raise ConfigurationError: the handler cannot be served on what the endpoint gives it.
        """
        check_carrier(server.kind, server.handler_name, carrier_of(endpoint))
        if is_plain(endpoint):
            _check_tls(server, f"on {description or repr(endpoint)!r}")
        super().__init__(StreamListener(server), description or repr(endpoint))
        self.endpoint = endpoint
        self.server = server
        server.statistics.listener = self.description

    @classmethod
    def from_description(
        cls,
        reactor: IReactorTime,
        description: str,
        RequestHandlerClass: Callable[..., Any],
        *,
        factory: Callable[..., StreamFactory] = StreamFactory,
        **options: Any,
    ) -> RequestService:
        """
        @param description: a server endpoint description of Twisted's, C{unix:@NAME},
            C{fd:NUMBER}, or C{HOST:PORT}.
        @param factory: the server object's class.
        @param options: as L{StreamFactory.__init__}.
        @raise ConfigurationError: one of these cannot be.
        """
        description = written_out(description)
        server = factory(RequestHandlerClass, reactor=reactor, **options)

        def trusted(address: IAddress) -> bool:
            return server.trusts_proxy(socket_address(address))

        with about("listen"):
            endpoint = stream_endpoint(reactor, description, trusted, server.deadlines)
        if server.request_queue_size is None and "backlog=" not in description:
            server.request_queue_size = DEFAULT_REQUEST_QUEUE_SIZE
        return cls(endpoint, server, description)

    def _listen(self) -> Deferred[IListeningPort]:
        return self.endpoint.listen(self.server)


class DatagramRequestService(_PortService):
    """
    A datagram listener as a service of a Twisted application.

    @ivar server: the server object.
    """

    server: DatagramServer

    def __init__(
        self, port: UDPPort | UNIXDatagramPort, server: DatagramServer, description: str
    ) -> None:
        """Use L{from_description}."""
        super().__init__(DatagramListener(server), description)
        self._port = port
        self.server = server
        server.statistics.listener = self.description

    @classmethod
    def from_description(
        cls,
        reactor: IReactorTime,
        description: str,
        RequestHandlerClass: Callable[..., Any],
        *,
        factory: Callable[..., DatagramServer] = DatagramServer,
        **options: Any,
    ) -> DatagramRequestService:
        """
        @param description: C{udp:PORT[:interface=ADDRESS]}, C{udp6:} likewise,
            C{unixgram:PATH[:mode=OCTAL]} or C{unixgram:@NAME}, with Twisted's quoting rules.
        @param factory: the server object's class.
        @param options: as L{DatagramServer.__init__}.
        @raise ConfigurationError: one of these cannot be.
        """
        server = factory(RequestHandlerClass, reactor=reactor, **options)
        check_carrier(server.kind, server.handler_name, "in datagrams")
        _check_tls(server, "in datagrams")
        with about("listen"):
            port = datagram_port(reactor, description, server)
        return cls(port, server, description)

    def _listen(self) -> UDPPort | UNIXDatagramPort:
        self._port.startListening()
        return self._port


def _check_tls(server: RequestServer, where: str) -> None:
    """
    Check that a handler can do without TLS where there is none.

    @raise ConfigurationError: it cannot.
    """
    if server.requires_tls:
        raise ConfigurationError(
            f"handler {server.handler_name}: it serves clients with a certificate only, which none"
            f" can show {where}; listen on tls: or ssl:, or mix StartTLSMixIn in"
        )


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
