"""
Requests of a server object, adopted: its connections, and what else it has taken, one by one.

This room owns a connection as such a server's own methods and its handler have it, whether it
is the reactor's until a request has arrived on it or its handler's from the first byte to the
last; and a request that is no connection.  It must not know how requests are brought here, nor
who waits for them.
"""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from twisted.logger import LogLevel
from typing_extensions import override
from zope.interface import implementer

from sockserve.core.addresses import Addresses, canonical_address
from sockserve.core.handler_kinds import HandlerKind
from sockserve.core.in_progress import RequestInProgress, RequestStatus, next_id
from sockserve.core.logs import Topic, standard_logger
from sockserve.core.statistics import RequestRecord
from sockserve.dropin.background_reactor import is_reactors_thread
from sockserve.dropin.overriding import is_overridden
from sockserve.dropin.server_object import ServerObject
from sockserve.dropin.transport import AdoptedConnection
from sockserve.executors.base import call_excepthook
from sockserve.http.channel import HTTPChannel
from sockserve.http.h1.framing import State
from sockserve.http.stock import make_stock_handler
from sockserve.interfaces import ClientGone, IJob, Outcome
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.listeners.stream_protocol import StreamProtocol
from sockserve.listeners.ways import WAYS, Way
from sockserve.streams.blocking import LentSocketChannel
from sockserve.streams.channel import Channel, Pending
from sockserve.streams.connection import StreamConnection

if TYPE_CHECKING:
    from _typeshed import MaybeNone

__all__ = [
    "AdoptedFactory",
    "AdoptedProtocol",
    "AdoptedRequest",
    "AdoptedSocketChannel",
    "Intake",
    "RequestOwner",
    "ServingThreadFactory",
]


class RequestOwner(Protocol):
    """
    The dispatcher of a server's requests, as each request knows it.

    @ivar server: the server object, which handlers see as C{self.server}.
    @ivar factory: counts and observes the requests.
    """

    server: ServerObject
    factory: AdoptedFactory

    def serve(
        self, request: object, client_address: object, served: Callable[[], object] | None = None
    ) -> Outcome:
        """
        Serve a request from start to end. (worker thread)

        @param served: called when the handler is done, while the request is still open.
        """

    def fail(self, request: object, client_address: object, error: Exception) -> None:
        """Tell the server that a request cannot be served, and end it. (reactor thread)"""

    def withdrawn(self, request: object) -> None:
        """Have the server end a request that nobody has begun to serve. (reactor thread)"""

    def connection_finished(self, untold: socket.socket | None) -> None:
        """
        Nothing is left of a connection. (reactor thread)

        @param untold: the connection, if no handler has told the server of its end.
        """

    def request_finished(self) -> None:
        """Nothing is left of a request that is no connection. (reactor thread)"""


class Intake(Enum):
    """The fate of a connection that is adopted."""

    #: It is served for as long as its client likes.
    SERVED = "served"
    #: It is one of the last, and drains from its start.
    DRAINED = "drained"


def _make_stock_handler(
    make: Callable[..., Any], request: object, client_address: object, server: object
) -> None:
    """L{make_stock_handler}, as on a thread that may end by what is raised. (handler's thread)"""
    try:
        make_stock_handler(make, request, client_address, server)
    except Exception:
        raise
    except BaseException as error:  # it would end a thread, and is not for handle_error
        call_excepthook()
        raise SystemExit from error


class AdoptedFactory(StreamFactory):
    """
    The factory of adopted connections: calls the server object's methods in place of its own.

    @ivar dispatcher: has the server object.
    @ivar intake: what becomes of a connection that is adopted now.
    """

    inherits_keepalive = True
    ways = {**WAYS, HandlerKind.HTTP_STOCK: Way(HTTPChannel.maker, _make_stock_handler)}

    #: How many of them are taken at once, of a server of datagrams; None for as many as come.
    max_datagrams: int | None = 1000

    def __init__(
        self,
        make: Callable[..., Any],
        *,
        dispatcher: RequestOwner,
        is_service: bool = False,
        **options: Any,
    ) -> None:
        """
        @param is_service: whether a service serves the object, whose program has Twisted's log.
        """
        super().__init__(make, **options)
        self.is_service = is_service
        self.dispatcher = dispatcher
        self.intake = Intake.SERVED
        #: Requests that are no connections, and are not over.
        self.others: set[AdoptedRequest] = set()

    @override
    def in_progress(self) -> Iterable[RequestInProgress]:
        yield from self.connections
        yield from self.others

    @override
    def _log_line(self, topic: Topic, level: Any, line: str) -> None:
        if self.is_service:
            super()._log_line(topic, level, line)
        else:
            numbers = {LogLevel.warn: logging.WARNING, LogLevel.error: logging.ERROR}
            name = type(self.dispatcher.server).__qualname__
            standard_logger(topic).log(numbers.get(level, logging.INFO), "%s: %s", name, line)

    def let_handlers_read(self) -> None:
        """Have C{http.server}'s handlers read their connections by themselves, as others do."""
        if self.kind is HandlerKind.HTTP_STOCK:
            self.serve_as(HandlerKind.BLOCKING)

    def reads_for_handlers(self) -> bool:
        """
        Whether the reactor reads requests from connections, and handlers get one each.  Not when
        the program has given the server another handler class since: its kind is not known.
        """
        make = self.dispatcher.server.RequestHandlerClass
        return self.kind is not HandlerKind.BLOCKING and bool(make == self.RequestHandlerClass)

    @override
    def listening_descriptors(self) -> Iterator[int]:
        server = self.dispatcher.server
        # A datagram is answered by the socket that it came to.
        if getattr(server, "socket_type", None) == socket.SOCK_STREAM:
            yield server.fileno()

    @property
    @override
    def handlers_server(self) -> Any:
        return self.dispatcher.server

    @override
    def finish_request(self, request: Any, client_address: Any) -> Any:
        """Have a handler serve a request that was read for it. (handler's thread)"""
        server = self.dispatcher.server
        return self._make_and_run(self.RequestHandlerClass, request, client_address, server)

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """
        The server's.  An exception of that ends nothing but the request. (handler's thread)

        C{socketserver}'s own, which prints any exception, is not troubled with L{ClientGone}: that
        is raised by this side, where the standard library tells a handler nothing.
        """
        server = self.dispatcher.server
        if isinstance(sys.exception(), ClientGone) and not is_overridden(server, "handle_error"):
            super().handle_error(request, client_address)
            return
        try:
            server.handle_error(request, client_address)
        except BaseException:
            call_excepthook()

    @override
    def shutdown_request(self, request: Any) -> None:
        """The server's, for a connection that no handler has had. (handler's thread)"""
        channel = self.channels.get(request)
        if not isinstance(channel, AdoptedSocketChannel):
            super().shutdown_request(request)
            return
        try:
            self.dispatcher.server.shutdown_request(request)
        except BaseException:
            call_excepthook()
        finally:
            channel.request_closing()

    @override
    def outcome_of(self, request: object, error: BaseException) -> Outcome:
        """As elsewhere for a connection; else an error, as there is no peer to be gone."""
        if isinstance(request, (socket.socket, StreamConnection)):
            return super().outcome_of(request, error)
        return Outcome.ERROR

    def end_unanswered(self) -> None:
        """End connections on which no request has arrived. (reactor thread)"""
        for protocol in list(self.connections):
            assert isinstance(protocol, AdoptedProtocol)
            protocol.end_unanswered()

    def end_unserved(self) -> None:
        """End connections whose requests nobody serves any more. (reactor thread)"""
        for protocol in list(self.connections):
            assert isinstance(protocol, AdoptedProtocol)
            protocol.end_unserved()


class ServingThreadFactory(AdoptedFactory):
    """
    The factory of adopted connections whose requests are served on the thread that calls
    C{serve_forever}: what they raise there is that thread's.
    """

    @override
    def finish_request(self, request: Any, client_address: Any) -> Any:
        """Have a handler made, which serves a request that was read for it. (handler's thread)"""
        server = self.dispatcher.server
        make_stock_handler(self.RequestHandlerClass, request, client_address, server)

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """The server's.  What it raises ends C{serve_forever}. (handler's thread)"""
        if is_reactors_thread(self.reactor):
            super().handle_error(request, client_address)
        else:
            self.dispatcher.server.handle_error(request, client_address)


class AdoptedProtocol(StreamProtocol):
    """
    An adopted connection, from its adoption to its end. (reactor thread)

    @ivar transport: the connection, until a handler has it.
    """

    factory: AdoptedFactory
    transport: AdoptedConnection | MaybeNone

    # From make_channel to the end
    #: The connection, while it is the reactor's: no handler tells the server of its end.
    _untold: socket.socket | None = None

    @override
    def make_channel(self, addresses: Addresses) -> Channel:
        factory, transport = self.factory, self.transport
        self.client_address = transport.client_address
        # The handler has the connection from its first byte on unless:
        # 1. it is one of HTTP that reads requests as the reactor does,
        # 2. the connection is not wrapped, in TLS say, by the program,
        # 3. no timeout is set on it, which is for what a stock handler reads by itself.
        waits = factory.kind is HandlerKind.HTTP_STOCK and transport.timeout is not None
        is_plain = type(transport.request) is socket.socket
        if is_plain and not waits and factory.reads_for_handlers():
            self._untold = transport.request
            transport.keep_open()
            transport.startReading()
            return factory.make_channel(self, addresses)
        return AdoptedSocketChannel(self)

    @override
    def start_channel(self, channel: Channel) -> None:
        if self.factory.intake is Intake.DRAINED:
            self.drain()
        # The server has verified and processed it, before it came here.
        try:
            channel.start()
        except Exception:
            self.factory.handle_error(channel.request, self.client_address)
            self.factory.shutdown_request(channel.request)

    def end_unanswered(self) -> None:
        """End the connection unless a request has arrived on it, or is likely to be on its way."""
        if isinstance(self._channel, HTTPChannel):
            self.drain()
            if self._channel.input.state is State.HEAD:
                self._channel.abort()

    def end_unserved(self) -> None:
        """
        End the connection, unless it has a request that has begun to be served: what arrives from
        now on, half a request perhaps, is nobody's.
        """
        channel = self._channel
        if not isinstance(channel, HTTPChannel) or channel.parts & Pending.HANDLER:
            return
        if channel.cycle is None:
            channel.shut_down()
        else:
            channel.abort()

    @override
    def finish(self) -> None:
        if self.is_finished:
            return
        super().finish()
        if isinstance(self._channel, AdoptedSocketChannel):
            # Where an override has not closed it, it ends with the last that knows of it.
            self._channel.request = None
        untold, self._untold = self._untold, None
        self.factory.dispatcher.connection_finished(untold)


class AdoptedSocketChannel(LentSocketChannel):
    """A connection as its handler's own, from its first byte to its last."""

    request: socket.socket | MaybeNone

    def __init__(self, protocol: AdoptedProtocol) -> None:
        timeout = protocol.transport.timeout
        super().__init__(protocol)
        self.request.settimeout(timeout)
        self._dispatcher = protocol.factory.dispatcher

    @override
    def serves_regardless(self) -> bool:
        # Its program may have been written for clients that only send, and it had one thread.
        return True

    @override
    def serve(self) -> Outcome:
        """Have the server serve the connection. (worker thread)"""
        address = self.protocol.client_address
        with self.factory.drain_notice.for_this_thread():
            return self._dispatcher.serve(self.request, address, self.record_traffic)


@implementer(IJob)
class AdoptedRequest:
    """A request that is no connection: a datagram, or whatever else C{get_request} gives."""

    def __init__(self, dispatcher: RequestOwner, request: object, client_address: object) -> None:
        self._dispatcher = dispatcher
        self._request = request
        self._client_address = client_address
        self._factory = factory = dispatcher.factory
        self._record = RequestRecord(canonical_address(client_address), factory.handler_name)
        self._record.received = self._record.sent = None
        self._began = self._phase_began = factory.clock.seconds()
        self._id: int | None = None
        factory.others.add(self)
        factory.statistics.active += 1
        factory.request_accepted()

    def serve(self) -> Outcome:
        """Have the server serve the request. (worker thread)"""
        return self._dispatcher.serve(self._request, self._client_address)

    def started(self) -> None:
        """The request has waited for its thread until now. (reactor thread)"""
        self._record.phases["queue"] = self._end_phase()

    def runs_long(self) -> None:
        """Nothing is done about a request that takes its time. (reactor thread)"""

    def forked(self) -> None:
        """Never called: threads do not fork."""

    def ended(self, outcome: Outcome) -> None:
        """The handler has finished. (reactor thread)"""
        self._record.phases["handle"] = self._end_phase()
        self._account(outcome)
        self._dispatcher.request_finished()

    def failed(self, error: OSError) -> None:
        """There is no thread to be had. (reactor thread)"""
        self._account(Outcome.ERROR)
        self._dispatcher.fail(self._request, self._client_address, error)

    def status(self) -> RequestStatus:
        """The stand of the request. (reactor thread)"""
        if self._id is None:
            self._id = next_id()
        record = self._record
        return RequestStatus(
            id=self._id,
            listener=self._factory.statistics.listener,
            peer=record.peer,
            handler=record.handler,
            stage="handle" if "queue" in record.phases else "queue",
            seconds=self._factory.clock.seconds() - self._began,
            received=None,
            sent=None,
        )

    def abort_by_operator(self) -> None:
        """End the request if it waits for a thread; in one, nothing can wake it. (reactor
        thread)"""
        concurrency = self._factory.concurrency
        if concurrency is not None and concurrency.withdraw(self):
            self._close("aborted")
            self._dispatcher.withdrawn(self._request)

    def _end_phase(self) -> float:
        """
        Begin the next phase.

        @return: seconds that the one before has taken.
        """
        before, self._phase_began = self._phase_began, self._factory.clock.seconds()
        return float(self._phase_began - before)

    def _account(self, outcome: Outcome) -> None:
        """Count the request, whose handler has finished or was never made."""
        self._factory.statistics.count_request(outcome is Outcome.ERROR)
        self._close(outcome)

    def _close(self, outcome: str) -> None:
        """Nothing is left of the request: note how it ended."""
        factory = self._factory
        self._record.outcome = outcome
        factory.others.discard(self)
        factory.statistics.active -= 1
        factory.request_finished(self._record)
