"""
The service of a server object: serves it as it stands, as a part of a Twisted application.

This room owns when such an object may be served, and whose requests are admitted to it.  It must
not know option strings, nor how its loop runs and ends (L{sockserve.dropin.listener}).
"""

from __future__ import annotations

import ipaddress
import socket
import socketserver
from collections.abc import Callable, Mapping
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from typing_extensions import override

from sockserve.core.addresses import canonical_address
from sockserve.core.deadlines import Deadlines
from sockserve.core.handler_kinds import check_carrier
from sockserve.core.logs import Topic, logger
from sockserve.core.reactors import as_reactor
from sockserve.core.statistics import RequestRecord
from sockserve.dropin.accept_loop import POLL_SECONDS
from sockserve.dropin.connection import AdoptedFactory
from sockserve.dropin.dispatcher import RequestDispatcher
from sockserve.dropin.listener import ServerObjectListener
from sockserve.dropin.server_check import carrier_of_server, own_deadlines, own_limits
from sockserve.dropin.server_object import ServerObject
from sockserve.executors.threads import DEFAULT_THREADS
from sockserve.interfaces import ConfigurationError
from sockserve.listeners.service import ListenerService

__all__ = ["SocketServerService", "why_not_served"]

_log = logger(Topic.SERVICE)


def why_not_served(server: object) -> str | None:
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


def _is_ip_address(client_address: Any) -> bool:
    try:
        ipaddress.ip_address(client_address[0].partition("%")[0])
    except (AttributeError, LookupError, TypeError, ValueError):
        return False
    return isinstance(client_address, tuple)


class SocketServerService(ListenerService):
    """
    A server object of C{socketserver}'s kind, the standard library's or ours, as a service.
    It serves as it stands, on a thread of its own in place of the one that would call
    C{serve_forever}; requests are served by sockserve's threads (one, without
    C{ThreadingMixIn}) under its deadlines and caps, unless it has C{ForkingMixIn}, or a
    C{process_request} of its own that does not leave them to C{super()}.

    (Nothing is done before C{startService}: a thread would not survive the C{fork} by which a
    daemon is made.)

    @ivar server: counts and observes its requests: C{server.statistics}.
    @ivar shut_down: fires when the object has ended by itself: the program has called its
        C{shutdown}.  It takes no more requests then; those under way finish within the
        C{drain} deadline, and it is closed.  A start after that makes another.
    """

    server: AdoptedFactory

    def __init__(
        self,
        server: socketserver.BaseServer,
        reactor: IReactorTime,
        *,
        threads: int = DEFAULT_THREADS,
        deadlines: Deadlines | None = None,
        poll_interval: float = POLL_SECONDS,
        limits: Mapping[str, int | None] | None = None,
        **options: Any,
    ) -> None:
        """
        @param server: the server object, bound and listening.
        @param threads: the most handlers at once, if it has C{ThreadingMixIn}.
        @param deadlines: by default those that the program has given the object, else
            C{Deadlines()}.
        @param poll_interval: how often its C{service_actions} is called at least, in seconds.
        @param limits: by name, in place of the object's attributes of these names.  What neither
            has is as L{StreamFactory} has it.
        @param options: as L{StreamFactory.__init__}.
        @raise ConfigurationError: it, or its handler, cannot be served, or not so.
        """
        fault = why_not_served(server)
        if fault is not None:
            raise ConfigurationError(f"{type(server).__qualname__}: {fault}")
        if not isinstance(server, socketserver.ThreadingMixIn):
            threads = 1
        self._object = cast(ServerObject, server)
        dispatcher = RequestDispatcher(
            self._object,
            as_reactor(reactor),
            threads=threads,
            option="threads",
            is_service=True,
            deadlines=deadlines or own_deadlines(server) or Deadlines(),
            parks=bool(getattr(server, "parks_connections", True)),
            limits={**own_limits(server, AdoptedFactory), **(limits or {})},
            **options,
        )
        factory = dispatcher.factory
        check_carrier(factory.kind, factory.handler_name, carrier_of_server(server))
        description = f"{type(server).__qualname__} on {server.server_address}"
        self._listener = ServerObjectListener(
            dispatcher, description, poll_interval, self._has_shut_down
        )
        super().__init__(self._listener, description)
        #: The object's own, once L{_verify_network} has its place.
        self._verify_request: Callable[[object, object], object] | None = None
        self.shut_down: Deferred[None] = Deferred()
        self.server = factory
        self.server.server_address = server.server_address
        self.server.statistics.listener = description

    @override
    def startService(self) -> None:
        """
        Serve.

        @raise ConfigurationError: the object is closed, or has not come to its end.
        @raise OSError: there are no descriptors for it.
        """
        fault = why_not_served(self._object)
        if not self._machine.is_stopped():
            fault = "it has not ended yet; wait for what stopService returned"
        if fault is not None:
            raise ConfigurationError(f"{self.description}: {fault}")
        if self._verify_request is None:
            self._verify_request = self._object.verify_request
            if self.server.admission.allow or self.server.admission.deny:
                self._object.verify_request = self._verify_network  # type: ignore[method-assign]
        if self.shut_down.called:
            self.shut_down = Deferred()
        self._machine.opened(self._listener.listen())
        super().startService()
        _log.info("{server}: starting", server=self.description)

    def loop_returned(self) -> Deferred[None]:
        """
        Wait for the end of the object's loop.

        @return: a Deferred that fires when no more requests are taken, or never, if the loop is
            left behind.
        """
        returned: Deferred[None] = Deferred()
        self._listener.loop_returned.chainDeferred(returned)
        return returned

    @override
    def stopService(self) -> Deferred[None]:
        """
        Stop listening, and let requests finish within the C{drain} deadline.  What does not end
        within twice C{Deadlines.abandon} after that, be it the object's own C{server_close}, is
        left behind.

        @return: a Deferred that fires when all is gone.
        """
        return super().stopService()

    def _has_shut_down(self) -> None:
        """The object has ended by itself. (reactor thread)"""
        self._machine.port_closed()
        self._watch_draining()
        _log.info("{server}: it has shut down", server=self.description)
        self.shut_down.callback(None)

    # Networks

    def _verify_network(self, request: Any, client_address: object) -> bool:
        """Ask the networks, then the object's own C{verify_request}. (accept thread)"""
        if self._is_allowed(request, client_address):
            assert self._verify_request is not None
            return bool(self._verify_request(request, client_address))
        self.server.reactor.callFromThread(self._refuse_network, client_address)
        return False

    def _is_allowed(self, request: Any, client_address: object) -> bool:
        """Whether a client's network may be served. (accept thread)"""
        address = client_address
        if not _is_ip_address(address):  # a program may call its client whatever it likes
            try:
                address = request.getpeername()
            except (AttributeError, OSError):
                if getattr(self._object, "address_family", None) != socket.AF_UNIX:
                    return False  # nobody knows
        return self.server.admission.allows(address)

    def _refuse_network(self, client_address: object) -> None:
        """Account for a request that has not been taken. (reactor thread)"""
        factory, refused = self.server, "refused: network"
        factory.request_accepted()
        factory.count_refusal("network")
        factory.request_finished(
            RequestRecord(canonical_address(client_address), factory.handler_name, outcome=refused)
        )
