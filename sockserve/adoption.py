"""
Adoption: the requests of a server object of L{socketserver}'s kind, served by sockserve's
workers under its deadlines.

This room owns how a request that such a server has taken (L{Adoption.take}) reaches a worker
thread, or, when it is a connection to one of C{http.server}'s handlers, the reactor until a
request has arrived on it; and waiting for those that are not over.  The server's own methods
are called as L{socketserver.ThreadingMixIn} calls them.  It must not know how the server gets
its requests.
"""

from __future__ import annotations

import logging
import os
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred
from typing_extensions import override
from zope.interface import implementer

from sockserve.accepted import AcceptedTransport
from sockserve.background import is_reactors_thread
from sockserve.blocking import LentServing
from sockserve.connections import StreamFactory, StreamProtocol
from sockserve.deadlines import Deadlines
from sockserve.exits import hold_exit
from sockserve.http.protocol import HTTPServing
from sockserve.http.stock import make_stock_handler
from sockserve.interfaces import (
    ConfigurationError,
    IHTTPRequestHandler,
    IJob,
    IRequestHandler,
    Outcome,
)
from sockserve.lifecycle import (
    handler_class,
    is_coroutine_handler,
    run_handler,
    run_handler_coroutine,
)
from sockserve.serving import Serving
from sockserve.threads import ThreadConcurrency

__all__ = ["AdoptedFactory", "AdoptedProtocol", "Adoption", "is_overridden"]

_log = logging.getLogger("sockserve")

#: Where the methods are defined that do what they are known to do.
_KNOWN_MODULES = ("socketserver", "sockserve.socketserver")

#: What a thread of C{ThreadingMixIn}'s calls with the connection.
_ON_CONNECTIONS = ("finish_request", "process_request_thread", "shutdown_request", "close_request")


def is_overridden(owner: Any, name: str) -> bool:
    """Whether a server, or a handler class, has a method of its own, not L{socketserver}'s."""
    method = getattr(owner, name, None)
    return getattr(method, "__module__", None) not in _KNOWN_MODULES if method else False


class Adoption:
    """
    Serves the requests of one server.  Any thread may call what says nothing else.

    @param server: a C{socketserver.BaseServer}.
    @param reactor: one that runs.
    @param threads: the most handlers that run at once.
    @param parks: whether a connection to one of C{http.server}'s handlers is the reactor's
        until a request has arrived on it.
    @param options: as L{StreamFactory.__init__}.
    """

    def __init__(
        self,
        server: Any,
        reactor: Any,
        *,
        threads: int,
        deadlines: Deadlines,
        parks: bool = True,
        **options: Any,
    ) -> None:
        self.server = server
        self.reactor = reactor
        self._process = os.getpid()
        make = server.RequestHandlerClass
        if not callable(handler_class(make)):  # a finish_request of its own does without
            make = socketserver.BaseRequestHandler
        own = IRequestHandler.implementedBy(handler_class(make))
        self._pool = _Pool(reactor, threads, type(server).__qualname__)
        self.factory = AdoptedFactory(
            make,
            adoption=self,
            reactor=reactor,
            concurrency=None if own and is_coroutine_handler(make) else self._pool,
            deadlines=deadlines,
            **options,
        )
        self.factory.concurrency = self._pool  # also of a handler that replaces a coroutine
        methods = [(server, name) for name in _ON_CONNECTIONS]
        methods += [(handler_class(make), "setup"), (handler_class(make), "finish")]
        if not parks or any(is_overridden(owner, name) for owner, name in methods):
            # An override may want to see, or to wrap, the connection itself; or to clean up
            # after the thread that has served it.
            self.factory.give_connections()
        #: Whether the handler can have its connection from the reactor only.
        self._needs_reactor = own and (
            self.factory.coroutine or IHTTPRequestHandler.implementedBy(handler_class(make))
        )
        #: How many requests are not over yet.
        self._active = 0
        self._changed = threading.Condition()

    def is_alive(self) -> bool:
        """Whether its reactor runs, in this process."""
        return self._process == os.getpid() and bool(self.reactor.running)

    def take(self, request: Any, client_address: Any) -> None:
        """Serve a request; returns before it is served.  The serving thread."""
        with self._changed:
            self._active += 1
        hold_exit(self)
        self.reactor.callFromThread(self._begin, request, client_address)

    def _begin(self, request: Any, client_address: Any) -> None:
        """Reactor thread."""
        if self._needs_reactor and type(request) is not socket.socket:
            error = ConfigurationError(
                f"handler {self.factory.handler_name}: it takes plain connections, not"
                f" {type(request).__name__}; a service from a description can serve those"
            )
            self.fail(request, client_address, error)
            self.is_over()
        elif isinstance(request, socket.socket) and request.type == socket.SOCK_STREAM:
            protocol, name = AdoptedProtocol(self.factory), self.factory.handler_name
            try:
                transport = AcceptedTransport(request, client_address, protocol, self.reactor, name)
            except OSError:  # closed meanwhile
                self._pool.run(_Request(self, request, client_address))
            else:
                protocol.makeConnection(transport)
        else:
            self._pool.run(_Request(self, request, client_address))

    def serve(self, request: Any, client_address: Any) -> Outcome:
        """Serve a request from start to end.  The worker's thread."""
        server = self.server
        process = getattr(server, "process_request_thread", None)
        try:
            if process is None:  # it has no way of its own to use a thread
                socketserver.ThreadingMixIn.process_request_thread(server, request, client_address)
            else:
                process(request, client_address)
        except BaseException:
            _call_excepthook()
            return Outcome.ERROR
        return Outcome.OK

    def fail(self, request: Any, client_address: Any, error: Exception) -> None:
        """A request cannot be served.  Reactor thread."""
        try:
            raise error
        except Exception:
            self.server.handle_error(request, client_address)
        self.server.shutdown_request(request)

    def is_over(self) -> None:
        """A request is over, and nothing of it is left."""
        with self._changed:
            self._active -= 1
            if not self._active:
                self._changed.notify_all()

    def __len__(self) -> int:
        """How many threads there are, as C{ThreadingMixIn._threads} tells."""
        return self._pool.threads

    def __bool__(self) -> bool:
        return True

    def join(self, seconds: float | None = None) -> bool:
        """
        Wait until all requests are over.  Connections on which no request has arrived are
        ended.  The reactor's own thread does not wait.

        @param seconds: how long to wait at most.
        @return: whether they are.
        """
        if self._process != os.getpid():
            return True
        if not self.reactor.running:  # nobody hears of their ends
            self._pool.join(seconds)
            return True
        self.reactor.callFromThread(self.factory.end_unanswered)
        if is_reactors_thread(self.reactor):
            return not self._active
        with self._changed:
            return self._changed.wait_for(lambda: not self._active, seconds)

    def close(self, waits: bool) -> None:
        """
        The server takes no more requests: let go of idle connections and threads.

        @param waits: whether to wait until the threads are gone, as one that joins them does.
        """
        if self.is_alive():
            gone = threading.Event()
            self.reactor.callFromThread(lambda: self.release().addBoth(lambda _: gone.set()))
            if waits and not is_reactors_thread(self.reactor):
                gone.wait()

    def release(self) -> Deferred[Any]:
        """L{close}.  Reactor thread; fires when the threads that were idle are gone."""
        self.factory.end_unanswered()
        return self.factory.release_workers()


@contextmanager
def _telling_excepthook() -> Iterator[None]:
    """
    What C{handle_error} is not for would end a thread.

    @raise SystemExit: instead of what the hook has been told.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        _call_excepthook()
        raise SystemExit from error


def _call_excepthook() -> None:
    """What a thread of the program's own does about what nobody has caught."""
    kind, value, traceback = sys.exc_info()
    assert kind is not None
    threading.excepthook(
        threading.ExceptHookArgs((kind, value, traceback, threading.current_thread()))
    )


class _Pool(ThreadConcurrency):
    """Says so once when somebody has to wait, be it for a later request of a connection."""

    def __init__(self, reactor: Any, limit: int, name: str) -> None:
        super().__init__(reactor, limit)
        self._name = name
        self._has_told = False

    @override
    def run(self, job: IJob) -> None:
        super().run(job)
        if self.waiting and not self._has_told:
            self._has_told = True
            _log.warning(
                "%s: more than %d requests at once, which is max_threads; others wait",
                self._name,
                self.limit,
            )


@implementer(IJob)
class _Request:
    """A request that is no connection: a datagram, or whatever else C{get_request} gives."""

    def __init__(self, adoption: Adoption, request: Any, client_address: Any) -> None:
        self._adoption = adoption
        self._request = request
        self._client_address = client_address

    def serve(self) -> Outcome:
        """The worker's thread."""
        return self._adoption.serve(self._request, self._client_address)

    def started(self) -> None:
        """Nothing depends on it."""

    def lasts(self) -> None:
        """Nothing depends on it."""

    def forked(self) -> None:
        """Threads do not."""

    def ended(self, outcome: Outcome) -> None:
        """It is over."""
        self._adoption.factory.count_request(outcome)
        self._adoption.is_over()

    def failed(self, error: OSError) -> None:
        """There is no thread to be had."""
        self._adoption.fail(self._request, self._client_address, error)
        self._adoption.is_over()


class AdoptedFactory(StreamFactory):
    """
    Calls the adopted server's methods.

    @ivar adopted: the server, which handlers see as C{self.server}.
    """

    def __init__(self, make: Callable[..., Any], *, adoption: Adoption, **options: Any) -> None:
        super().__init__(make, **options)
        self.adoption = adoption
        self.adopted = adoption.server

    def give_connections(self) -> None:
        """C{http.server}'s handlers have their connection, and read it, by themselves."""
        if self.stock:
            self.stock = self.http = False

    def knows_handler(self) -> bool:
        """Whether the reactor reads for the handler, which may have been replaced since."""
        make = self.adopted.RequestHandlerClass
        return (self.http or self.coroutine) and make == self.RequestHandlerClass

    @override
    def finish_request(self, request: Any, client_address: Any) -> Any:
        """Make the handler of a request that the reactor has read, and let it serve."""
        server, make = self.adopted, self.RequestHandlerClass
        if self.stock:
            with _telling_excepthook():
                return make_stock_handler(make, request, client_address, server)
        handler = make(request, client_address, server)
        if not isinstance(request, socket.socket):
            return run_handler_coroutine(handler)
        return run_handler(handler)

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """The server's; where the handler ran."""
        self.adopted.handle_error(request, client_address)

    @override
    def shutdown_request(self, request: Any) -> None:
        """The server's, for a connection that no handler has had."""
        serving = self.servings.get(request)
        if isinstance(serving, _Serving):
            self.adopted.shutdown_request(request)
            serving.closing()
        else:
            super().shutdown_request(request)

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
    def _serve(self, addresses: tuple[Any, Any]) -> Serving:
        factory = self.factory
        self.client_address = self.transport.client_address
        if type(self._request) is socket.socket and factory.knows_handler():
            self._tells = True
            self.transport.keep_open()
            self.transport.startReading()
            return super()._serve(addresses)
        serving = _Serving(self)
        self.deliver_to(serving.feed)
        return serving

    def end_unanswered(self) -> None:
        """End the connection if no request has arrived on it."""
        if isinstance(self._serving, HTTPServing):
            self.drain()
            if self._serving.is_reading():
                self._serving.abort()

    @override
    def settle(self) -> None:
        if self.settled:
            return
        super().settle()
        adoption = self.factory.adoption
        request, self._request = self._request, None
        if isinstance(self._serving, _Serving):
            # Where an override has not closed it, it ends with the last that knows of it.
            self._serving.request = None
        if self._tells:
            # By now it is closed, so this closes nothing; an override may keep a list.
            for name in ("shutdown_request", "close_request"):
                if is_overridden(adoption.server, name):
                    self.factory.disk.call(adoption.server.shutdown_request, request)
                    break
        adoption.is_over()


class _Serving(LentServing):
    """A connection as its handler's own, from its first byte to its last."""

    request: Any

    def __init__(self, protocol: AdoptedProtocol) -> None:
        timeout = protocol.transport.timeout
        super().__init__(protocol)
        self.request.settimeout(timeout)

    def feed(self, data: bytes) -> None:
        """The reactor does not read it."""

    @override
    def serve(self) -> Outcome:
        """Runs on the worker thread."""
        adoption: Adoption = self.factory.adoption
        return adoption.serve(self.request, self.protocol.client_address)
