"""
Adopted: the requests of a server object of C{socketserver}'s kind, one by one.

This room owns a connection as such a server's own methods and its handler have it, whether it
is the reactor's until a request has arrived on it or its handler's from the first byte to the
last; and a request that is no connection.  It must not know how requests are brought here, nor
who waits for them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Protocol

from typing_extensions import override
from zope.interface import implementer

from sockserve.core.handler_kinds import HandlerKind
from sockserve.core.lifecycle import run_handler, run_handler_coroutine
from sockserve.core.statistics import RequestRecord
from sockserve.dropin.overriding import is_overridden
from sockserve.executors.base import call_excepthook
from sockserve.http.channel import HTTPChannel
from sockserve.http.stock import make_stock_handler
from sockserve.interfaces import IJob, Outcome
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.listeners.stream_protocol import StreamProtocol
from sockserve.streams.blocking import LentSocketChannel
from sockserve.streams.channel import Channel

__all__ = ["AdoptedFactory", "AdoptedProtocol", "AdoptedRequest", "AdoptedSocketChannel", "Adopter"]


def _call(method: Callable[[Any], object], request: Any) -> None:
    """Where there is nobody to hear of what it raises but C{threading.excepthook}."""
    try:
        method(request)
    except BaseException:
        call_excepthook()


class Adopter(Protocol):
    """Who takes the requests."""

    server: Any
    factory: AdoptedFactory

    def serve(
        self, request: Any, client_address: Any, served: Callable[[], object] | None = None
    ) -> Outcome:
        """Serve a request from start to end.  The worker's thread."""

    def fail(self, request: Any, client_address: Any, error: Exception) -> None:
        """A request cannot be served: tell the server, and end it."""

    def request_finished(self) -> None:
        """A request is over, and nothing of it is left."""


class AdoptedFactory(StreamFactory):
    """
    Calls the adopted server's methods.

    @ivar dispatcher: has the server, which handlers see as C{self.server}.
    """

    def __init__(self, make: Callable[..., Any], *, dispatcher: Adopter, **options: Any) -> None:
        super().__init__(make, **options)
        self.dispatcher = dispatcher

    def give_connections(self) -> None:
        """C{http.server}'s handlers have their connection, and read it, by themselves."""
        if self.kind is HandlerKind.HTTP_STOCK:
            self.serve_as(HandlerKind.BLOCKING)

    def knows_handler(self) -> bool:
        """Whether the reactor reads for the handler, which may have been replaced since."""
        make = self.dispatcher.server.RequestHandlerClass
        return self.kind is not HandlerKind.BLOCKING and make == self.RequestHandlerClass

    @override
    def finish_request(self, request: Any, client_address: Any) -> Any:
        """Make the handler of a request that the reactor has read, and let it serve."""
        server, make = self.dispatcher.server, self.RequestHandlerClass
        if self.kind is HandlerKind.HTTP_STOCK:
            try:
                return make_stock_handler(make, request, client_address, server)
            except Exception:
                raise
            except BaseException as error:  # it would end a thread, and is not for handle_error
                call_excepthook()
                raise SystemExit from error
        handler = make(request, client_address, server)
        if not isinstance(request, socket.socket):
            return run_handler_coroutine(handler)
        return run_handler(handler)

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """The server's; where the handler ran.  What it raises ends nothing but the request."""
        try:
            self.dispatcher.server.handle_error(request, client_address)
        except BaseException:
            call_excepthook()

    @override
    def shutdown_request(self, request: Any) -> None:
        """The server's, for a connection that no handler has had."""
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
    def outcome_of(self, request: Any, error: BaseException) -> Outcome:
        """Only a connection has a peer that may have gone."""
        if isinstance(request, socket.socket):
            return super().outcome_of(request, error)
        return Outcome.ERROR

    def end_unanswered(self) -> None:
        """End connections on which no request has arrived.  Reactor thread."""
        for protocol in list(self.connections):
            assert isinstance(protocol, AdoptedProtocol)
            protocol.end_unanswered()


class AdoptedProtocol(StreamProtocol):
    """One connection.  Everything runs on the reactor thread."""

    factory: AdoptedFactory

    def __init__(self, factory: AdoptedFactory) -> None:
        self.factory = factory

    @override
    def makeConnection(self, transport: Any) -> None:
        #: The connection as the server knows it, and whether its end is told to the server
        #: here, as no handler does it.
        self._request = transport.request
        self._tells = False
        super().makeConnection(transport)

    @override
    def make_channel(self, addresses: tuple[Any, Any]) -> Channel:
        factory = self.factory
        self.client_address = self.transport.client_address
        plain = type(self._request) is socket.socket
        # A timeout is for what one of http.server's handlers reads by itself.
        waits = factory.kind is HandlerKind.HTTP_STOCK and self.transport.timeout is not None
        if plain and not waits and factory.knows_handler():
            self._tells = True
            self.transport.keep_open()
            self.transport.startReading()
            return super().make_channel(addresses)
        return AdoptedSocketChannel(self)

    def end_unanswered(self) -> None:
        """End the connection if no request has arrived on it."""
        if isinstance(self._channel, HTTPChannel):
            self.drain()
            if self._channel.is_reading():
                self._channel.abort()

    @override
    def finish(self) -> None:
        if self.is_finished:
            return
        super().finish()
        dispatcher = self.factory.dispatcher
        request, self._request = self._request, None
        if isinstance(self._channel, AdoptedSocketChannel):
            # Where an override has not closed it, it ends with the last that knows of it.
            self._channel.request = None
        if self._tells and any(
            is_overridden(dispatcher.server, name) for name in ("shutdown_request", "close_request")
        ):
            # By now it is closed, so this closes nothing; the override may keep a list.
            told = self.factory.disk.call(_call, dispatcher.server.shutdown_request, request)
            told.addBoth(lambda _: dispatcher.request_finished())
        else:
            dispatcher.request_finished()


class AdoptedSocketChannel(LentSocketChannel):
    """A connection as its handler's own, from its first byte to its last."""

    request: Any

    def __init__(self, protocol: AdoptedProtocol) -> None:
        timeout = protocol.transport.timeout
        super().__init__(protocol)
        self.request.settimeout(timeout)

    @override
    def serve(self) -> Outcome:
        """Runs on the worker thread."""
        dispatcher: Adopter = self.factory.dispatcher
        return dispatcher.serve(self.request, self.protocol.client_address, self.record_traffic)


@implementer(IJob)
class AdoptedRequest:
    """A request that is no connection: a datagram, or whatever else C{get_request} gives."""

    def __init__(self, dispatcher: Adopter, request: Any, client_address: Any) -> None:
        self._dispatcher = dispatcher
        self._request = request
        self._client_address = client_address
        self._factory = factory = dispatcher.factory
        self._record = RequestRecord(client_address, factory.handler_name)
        self._record.received = self._record.sent = None
        self._since = factory.reactor.seconds()
        factory.statistics.active += 1
        factory.request_accepted()

    def serve(self) -> Outcome:
        """The worker's thread."""
        return self._dispatcher.serve(self._request, self._client_address)

    def started(self) -> None:
        """It has waited for its thread until now."""
        self._record.phases["queue"] = self._lap()

    def runs_long(self) -> None:
        """Nothing depends on it."""

    def forked(self) -> None:
        """Threads do not."""

    def ended(self, outcome: Outcome) -> None:
        """It is over."""
        self._record.phases["handle"] = self._lap()
        self._account(outcome)
        self._dispatcher.request_finished()

    def failed(self, error: OSError) -> None:
        """There is no thread to be had."""
        self._account(Outcome.ERROR)
        self._dispatcher.fail(self._request, self._client_address, error)

    def _lap(self) -> float:
        """Seconds since the last, or the beginning."""
        before, self._since = self._since, self._factory.reactor.seconds()
        return float(self._since - before)

    def _account(self, outcome: Outcome) -> None:
        factory = self._factory
        self._record.outcome = outcome
        factory.count_request(outcome)
        factory.statistics.active -= 1
        factory.request_finished(self._record)
