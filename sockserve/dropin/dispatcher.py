"""
The dispatcher of a server object's requests: has them served by sockserve's workers, under its
deadlines.

This room owns how a request that such a server has taken (L{RequestDispatcher.take}) reaches a
worker thread, or, when it is a connection to one of C{http.server}'s handlers, the reactor until a
request has arrived on it; and waiting for those that are not over.  The server's own methods
are called as C{socketserver.ThreadingMixIn} calls them.  It must not know how the server gets
its requests.
"""

from __future__ import annotations

import os
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from typing_extensions import override

from sockserve.core.deadlines import Deadlines
from sockserve.core.handler_kinds import handler_kind, provides, unwrap
from sockserve.core.logs import Topic, standard_logger
from sockserve.core.reactors import IReactor
from sockserve.dropin.background_reactor import is_reactors_thread
from sockserve.dropin.connection import (
    AdoptedFactory,
    AdoptedProtocol,
    AdoptedRequest,
    ServingThreadFactory,
)
from sockserve.dropin.interpreter_exit import keep_interpreter_alive
from sockserve.dropin.overriding import StandardMethods, is_overridden
from sockserve.dropin.secured import SecuredConnection
from sockserve.dropin.server_check import check_settings
from sockserve.dropin.server_object import ServerObject
from sockserve.dropin.serving_thread import ServingThread
from sockserve.dropin.transport import AdoptedConnection
from sockserve.executors.base import call_excepthook
from sockserve.executors.threads import ThreadExecutor
from sockserve.http.guarded import make_and_run_guarded, telling
from sockserve.interfaces import (
    ConfigurationError,
    IExecutor,
    IHTTPRequestHandler,
    IRequestHandler,
    Outcome,
)

__all__ = ["RequestDispatcher"]

_log = standard_logger(Topic.WORKERS)

#: How often a thread that waits for the reactor checks that it still runs: a reactor that is
#: stopped tells nobody.  0.5: C{serve_forever}'s own C{poll_interval}.  No setting: what is waited
#: for is heard of at once, and only after a reactor that was stopped does it take so long.
REACTOR_CHECK_SECONDS = 0.5

#: The methods that a thread of C{ThreadingMixIn}'s calls with the connection.
_ON_CONNECTIONS = ("finish_request", "process_request_thread", "shutdown_request", "close_request")


class RequestDispatcher:
    """
    The dispatcher of one server object's requests.

    @param reactor: one that runs.
    @param threads: the most handlers that run at once.
    @param option: the name of that where it is set.
    @param parks: whether a connection to one of C{http.server}'s handlers is the reactor's
        until a request has arrived on it.
    @param serving_thread: where requests are served, instead of such threads.
    @param options: as L{StreamFactory.__init__}.
    @ivar server: the server object.
    @ivar factory: counts and observes the requests.
    @ivar active: how many requests are not over yet.
    @ivar on_request_finished: called when one is over, if set. (reactor thread)
    """

    def __init__(
        self,
        server: ServerObject,
        reactor: IReactor,
        *,
        threads: int,
        option: str,
        deadlines: Deadlines,
        parks: bool = True,
        serving_thread: ServingThread | None = None,
        **options: Any,
    ) -> None:
        """
        @raise ConfigurationError: the handler cannot be served, or not so.
        """
        check_settings(option, threads, deadlines)
        # For good
        self.server = server
        self.reactor = reactor
        make = server.RequestHandlerClass
        if not callable(unwrap(make)):
            if not is_overridden(server, "finish_request"):
                kind = type(server).__qualname__
                raise ConfigurationError(f"{kind}: handler {make!r} is not a class or callable")
            make = socketserver.BaseRequestHandler  # it does without
        own = provides(make, IRequestHandler)
        self._pool = _Pool(reactor, threads, type(server).__qualname__, option)
        self._executor: IExecutor = self._pool if serving_thread is None else serving_thread
        self._serving_thread = serving_thread
        factory = AdoptedFactory if serving_thread is None else ServingThreadFactory
        self.factory = factory(
            make,
            dispatcher=self,
            reactor=reactor,
            concurrency=None if own and handler_kind(make).is_coroutine else self._executor,
            deadlines=deadlines,
            **options,
        )
        self.factory.concurrency = self._executor  # also of a handler that replaces a coroutine
        methods = [(server, name) for name in _ON_CONNECTIONS]
        methods += [(unwrap(make), "setup"), (unwrap(make), "finish")]
        if not parks or any(is_overridden(owner, name) for owner, name in methods):
            # An override may want to see, or to wrap, the connection itself; or to clean up
            # after the thread that has served it.
            self.factory.let_handlers_read()
        #: Whether the handler can have its connection from the reactor only.
        self._needs_reactor = own and (
            self.factory.kind.is_coroutine or provides(make, IHTTPRequestHandler)
        )
        #: What L{serve} does by itself where the program has nothing of its own.
        self._standard = StandardMethods(server)
        self.on_request_finished: Callable[[], object] | None = None

        # While one thread brings the requests
        self._bringer: threading.Thread | None = None
        self._process = os.getpid()

        #: Connections over TLS that the reactor has between requests. (reactor thread)
        self._secured: set[SecuredConnection] = set()

        # While there are requests; its lock is held where this changes
        self._all_over = threading.Condition()
        self.active = 0

    def is_alive(self) -> bool:
        """Whether its reactor runs, in this process. (any thread)"""
        return self._process == os.getpid() and bool(self.reactor.running)

    def take(self, request: object, client_address: object) -> None:
        """Have a request served; returns before it is. (accept thread)"""
        with self._all_over:
            self.active += 1
        thread = threading.current_thread()
        if thread is not self._bringer:
            self._bringer = thread
            self._process = os.getpid()  # a daemon's is not the one in which it was made
            keep_interpreter_alive(self)
        self.reactor.callFromThread(self._begin, request, client_address)

    def _begin(self, request: object, client_address: object) -> None:
        """Adopt a request that was taken. (reactor thread)"""
        self.factory.begin_watch()
        if self._serving_thread is not None and isinstance(request, ssl.SSLSocket):
            self._begin_secured(request, client_address)
        elif self._needs_reactor and type(request) is not socket.socket:
            error = ConfigurationError(
                f"handler {self.factory.handler_name}: it takes plain connections, not"
                f" {type(request).__name__}; a service from a description can serve those"
            )
            self.fail(request, client_address, error)
        elif isinstance(request, socket.socket) and request.type == socket.SOCK_STREAM:
            protocol = AdoptedProtocol()
            protocol.factory = factory = self.factory
            try:
                transport = AdoptedConnection(
                    request, client_address, protocol, self.reactor, factory.handler_name
                )
            except OSError:  # closed meanwhile
                self._executor.run(AdoptedRequest(self, request, client_address))
            else:
                protocol.makeConnection(transport)
        else:
            self._executor.run(AdoptedRequest(self, request, client_address))

    def _begin_secured(self, request: ssl.SSLSocket, client_address: object) -> None:
        """Wait for requests on a connection over TLS. (reactor thread)"""

        def finished(connection: SecuredConnection) -> None:
            self._secured.discard(connection)
            self.request_finished()

        connection = SecuredConnection(
            self.reactor,
            self._executor,
            self.server,
            request,
            client_address,
            self.factory.deadlines,
            finished,
        )
        self._secured.add(connection)
        connection.wait()

    def serve(
        self, request: object, client_address: object, served: Callable[[], object] | None = None
    ) -> Outcome:
        """
        Serve a request from start to end. (worker thread)

        @param served: called when the handler is done, unless the server has a
            C{process_request_thread} of its own.
        """
        try:
            process = getattr(self.server, "process_request_thread", None)
            if self._standard.process_request_thread == process:
                return self._process_request(request, client_address, served)
            assert process is not None  # a program's own
            process(request, client_address)
        except BaseException:
            call_excepthook()
            return Outcome.ERROR
        return Outcome.OK

    def _process_request(
        self, request: object, client_address: object, served: Callable[[], object] | None
    ) -> Outcome:
        """Do as C{ThreadingMixIn.process_request_thread}. (worker thread)"""
        server, outcome = self.server, Outcome.OK
        try:
            if self._standard.finish_request == server.finish_request:
                make = server.RequestHandlerClass
                make_and_run_guarded(make, request, client_address, server)
            elif self.factory.is_service:
                with telling(server.RequestHandlerClass, request):
                    server.finish_request(request, client_address)
            else:  # nobody drains, and the program gets its socket as it is
                server.finish_request(request, client_address)
        except Exception as error:
            outcome = self.factory.outcome_of(request, error)
            server.handle_error(request, client_address)
        finally:
            try:
                if served is not None:
                    served()
            finally:
                server.shutdown_request(request)
        return outcome

    def fail(self, request: object, client_address: object, error: Exception) -> None:
        """Tell the server that a request cannot be served, and end it. (reactor thread)"""
        try:
            try:
                raise error
            except Exception:
                self.server.handle_error(request, client_address)
            finally:
                self.server.shutdown_request(request)
        except BaseException:
            call_excepthook()
        finally:
            self.request_finished()

    def withdrawn(self, request: object) -> None:
        """Have the server end a request that nobody has begun to serve. (reactor thread)"""
        _call_reported(self.server.shutdown_request, request)
        self.request_finished()

    def connection_finished(self, untold: socket.socket | None) -> None:
        """
        Nothing is left of a connection. (reactor thread)

        @param untold: the connection, if no handler has told the server of its end.
        """
        server, standard = self.server, self._standard
        if untold is None or (
            standard.shutdown_request == server.shutdown_request
            and standard.close_request == server.close_request
        ):
            self.request_finished()
        else:
            # By now it is closed, so this closes nothing; the override may keep a list.
            told = self.factory.disk.call(_call_reported, server.shutdown_request, untold)
            told.addBoth(lambda _: self.request_finished())

    def request_finished(self) -> None:
        """Nothing is left of a request. (reactor thread)"""
        with self._all_over:
            self.active -= 1
            if not self.active:
                self._all_over.notify_all()
        if self.on_request_finished is not None:
            self.on_request_finished()

    def __len__(self) -> int:
        """The number of threads, as C{ThreadingMixIn._threads} tells it. (any thread)"""
        return self._pool.threads

    def __bool__(self) -> bool:
        """True, even with no thread."""
        return True

    def join(self) -> None:
        """
        Wait until all requests are over.  Connections on which no request has arrived are
        ended.  The reactor's own thread does not wait. (any thread)

        @raise RuntimeError: this is the thread of one of them.
        """
        if self._process != os.getpid():
            return
        if self._pool.has_thread(threading.current_thread()):
            raise RuntimeError("cannot join current thread")
        if self.reactor.running and is_reactors_thread(self.reactor):
            self.factory.end_unanswered()
            return
        # Each time: a request may have begun to arrive since, and go no further.
        self.wait(lambda: self.reactor.callFromThread(self.factory.end_unanswered))
        if not self.reactor.running:  # nobody hears of their ends
            self._pool.join()

    def wait(self, meanwhile: Callable[[], object] | None = None) -> None:
        """
        Wait until all requests are over, or the reactor does not run. (any thread)

        @param meanwhile: called at first, and each L{REACTOR_CHECK_SECONDS}.
        """
        with self._all_over:
            while self.active and self.reactor.running:
                if meanwhile is not None:
                    meanwhile()
                self._all_over.wait(REACTOR_CHECK_SECONDS)

    def pause(self) -> None:
        """
        Let go of idle connections, as nobody serves requests just now: a client whose
        connection ends can tell, and makes another. (any thread)
        """
        if self.is_alive():
            self.reactor.callFromThread(self._end_unanswered)

    def _end_unanswered(self) -> None:
        """End connections on which no request has arrived. (reactor thread)"""
        self.factory.end_unanswered()
        for connection in list(self._secured):
            connection.drain()

    def close(self, waits: bool) -> None:
        """
        Let go of idle connections and threads, as the server takes no more requests. (any thread)

        @param waits: whether to wait until the threads are gone, as a server that joins them
            does.
        """
        if self.is_alive():
            gone = threading.Event()
            self.reactor.callFromThread(lambda: self.release().addBoth(lambda _: gone.set()))
            if waits and not is_reactors_thread(self.reactor):
                while not gone.wait(REACTOR_CHECK_SECONDS) and self.reactor.running:
                    pass

    def release(self) -> Deferred[Any]:
        """
        Let go of idle connections and threads. (reactor thread)

        @return: a Deferred that fires when the threads that were idle are gone.
        """
        self._end_unanswered()
        self.factory.end_watch()
        released = self.factory.release()
        if self._serving_thread is not None:
            self.factory.end_unserved()
        return released


def _call_reported(method: Callable[[Any], object], request: object) -> None:
    """Call a server's method where nobody but C{threading.excepthook} hears of what it raises."""
    try:
        method(request)
    except BaseException:
        call_excepthook()


class _Pool(ThreadExecutor):
    """The threads of a server: log once that a request waits for one, whatever it is for."""

    def __init__(self, reactor: IReactor, limit: int, name: str, option: str) -> None:
        super().__init__(reactor, limit)
        self._name = name
        self._option = option
        self._has_told = False

    @override
    def _job_queued(self) -> None:
        if self.limit > 1 and not self._has_told:  # one is one's own choice
            self._has_told = True
            _log.warning(
                "%s: more than %d requests at once, which is %s; others wait",
                self._name,
                self.limit,
                self._option,
            )
