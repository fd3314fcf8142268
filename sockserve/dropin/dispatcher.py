"""
RequestDispatcher: the requests of a server object of C{socketserver}'s kind, served by sockserve's
workers under its deadlines.

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
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from typing_extensions import override

from sockserve.core.deadlines import Deadlines
from sockserve.core.handler_kinds import handler_kind, provides, unwrap
from sockserve.core.lifecycle import run_handler
from sockserve.core.logs import Topic, standard_logger
from sockserve.dropin.background_reactor import is_reactors_thread
from sockserve.dropin.connection import AdoptedFactory, AdoptedProtocol, AdoptedRequest
from sockserve.dropin.interpreter_exit import keep_interpreter_alive
from sockserve.dropin.overriding import is_overridden
from sockserve.dropin.transport import AdoptedConnection
from sockserve.executors.base import call_excepthook
from sockserve.executors.threads import ThreadExecutor
from sockserve.interfaces import (
    ConfigurationError,
    IHTTPRequestHandler,
    IJob,
    IRequestHandler,
    Outcome,
)

__all__ = ["RequestDispatcher", "check_settings"]

_log = standard_logger(Topic.WORKERS)

#: How often who waits for the reactor looks whether that still runs, in seconds.
REACTOR_CHECK_SECONDS = 0.5

#: What a thread of C{ThreadingMixIn}'s calls with the connection.
_ON_CONNECTIONS = ("finish_request", "process_request_thread", "shutdown_request", "close_request")


def check_settings(option: str, threads: Any, deadlines: Any) -> None:
    """
    @param option: what C{threads} is called where it is set.
    @raise ConfigurationError: one of these cannot be.
    """
    if not isinstance(threads, int) or threads < 1:
        raise ConfigurationError(f"{option}: {threads!r} is not a number of threads, 1 or more")
    if not isinstance(deadlines, Deadlines):
        raise ConfigurationError(
            f"deadlines: {deadlines!r} is no sockserve.Deadlines; a phase without one is None there"
        )


class RequestDispatcher:
    """
    Serves the requests of one server.  Any thread may call what says nothing else.

    @param server: a C{socketserver.BaseServer}.
    @param reactor: one that runs.
    @param threads: the most handlers that run at once.
    @param option: what that is called where it is set.
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
        option: str,
        deadlines: Deadlines,
        parks: bool = True,
        **options: Any,
    ) -> None:
        """
        @raise ConfigurationError: the handler cannot be served, or not so.
        """
        check_settings(option, threads, deadlines)
        self.server = server
        self.reactor = reactor
        self._process = os.getpid()
        make = server.RequestHandlerClass
        if not callable(unwrap(make)):
            if not is_overridden(server, "finish_request"):
                kind = type(server).__qualname__
                raise ConfigurationError(f"{kind}: handler {make!r} is not a class or callable")
            make = socketserver.BaseRequestHandler  # it does without
        own = provides(make, IRequestHandler)
        self._pool = _Pool(reactor, threads, type(server).__qualname__, option)
        self.factory = AdoptedFactory(
            make,
            dispatcher=self,
            reactor=reactor,
            concurrency=None if own and handler_kind(make).is_coroutine else self._pool,
            deadlines=deadlines,
            **options,
        )
        self.factory.concurrency = self._pool  # also of a handler that replaces a coroutine
        methods = [(server, name) for name in _ON_CONNECTIONS]
        methods += [(unwrap(make), "setup"), (unwrap(make), "finish")]
        if not parks or any(is_overridden(owner, name) for owner, name in methods):
            # An override may want to see, or to wrap, the connection itself; or to clean up
            # after the thread that has served it.
            self.factory.give_connections()
        #: Whether the handler can have its connection from the reactor only.
        self._needs_reactor = own and (
            self.factory.kind.is_coroutine or provides(make, IHTTPRequestHandler)
        )
        #: The last thread that has brought a request.
        self._bringer: threading.Thread | None = None
        #: How many requests are not over yet.
        self.active = 0
        #: Called when one is over.
        self.on_request_finished: Callable[[], object] | None = None
        self._changed = threading.Condition()

    def is_alive(self) -> bool:
        """Whether its reactor runs, in this process."""
        return self._process == os.getpid() and bool(self.reactor.running)

    def take(self, request: Any, client_address: Any) -> None:
        """Serve a request; returns before it is served.  The serving thread."""
        with self._changed:
            self.active += 1
        thread = threading.current_thread()
        if thread is not self._bringer:
            self._bringer = thread
            self._process = os.getpid()  # a daemon's is not the one in which it was made
            keep_interpreter_alive(self)
        self.reactor.callFromThread(self._begin, request, client_address)

    def _begin(self, request: Any, client_address: Any) -> None:
        """Reactor thread."""
        if self._needs_reactor and type(request) is not socket.socket:
            error = ConfigurationError(
                f"handler {self.factory.handler_name}: it takes plain connections, not"
                f" {type(request).__name__}; a service from a description can serve those"
            )
            self.fail(request, client_address, error)
        elif isinstance(request, socket.socket) and request.type == socket.SOCK_STREAM:
            protocol, name = AdoptedProtocol(self.factory), self.factory.handler_name
            try:
                transport = AdoptedConnection(request, client_address, protocol, self.reactor, name)
            except OSError:  # closed meanwhile
                self._pool.run(AdoptedRequest(self, request, client_address))
            else:
                protocol.makeConnection(transport)
        else:
            self._pool.run(AdoptedRequest(self, request, client_address))

    def serve(
        self, request: Any, client_address: Any, served: Callable[[], object] | None = None
    ) -> Outcome:
        """
        Serve a request from start to end.  The worker's thread.

        @param served: called when the handler is done, unless the server has a
            C{process_request_thread} of its own.
        """
        try:
            if not is_overridden(self.server, "process_request_thread"):
                return self._process_request(request, client_address, served)
            self.server.process_request_thread(request, client_address)
        except BaseException:
            call_excepthook()
            return Outcome.ERROR
        return Outcome.OK

    def _process_request(
        self, request: Any, client_address: Any, served: Callable[[], object] | None
    ) -> Outcome:
        """What C{ThreadingMixIn.process_request_thread} does, and what has come of it."""
        server, outcome = self.server, Outcome.OK
        try:
            if is_overridden(server, "finish_request"):
                server.finish_request(request, client_address)
            else:
                handler = server.RequestHandlerClass(request, client_address, server)
                if IRequestHandler.providedBy(handler):
                    run_handler(handler)
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

    def fail(self, request: Any, client_address: Any, error: Exception) -> None:
        """A request cannot be served: tell the server, and end it.  Reactor thread."""
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

    def request_finished(self) -> None:
        """A request is over, and nothing of it is left."""
        with self._changed:
            self.active -= 1
            if not self.active:
                self._changed.notify_all()
        if self.on_request_finished is not None:
            self.on_request_finished()

    def __len__(self) -> int:
        """How many threads there are, as C{ThreadingMixIn._threads} tells."""
        return self._pool.threads

    def __bool__(self) -> bool:
        return True

    def join(self) -> None:
        """
        Wait until all requests are over.  Connections on which no request has arrived are
        ended.  The reactor's own thread does not wait.

        @raise RuntimeError: this is the thread of one of them.
        """
        if self._process != os.getpid():
            return
        if self._pool.has_thread(threading.current_thread()):
            raise RuntimeError("cannot join current thread")
        if self.reactor.running:
            self.reactor.callFromThread(self.factory.end_unanswered)
            if is_reactors_thread(self.reactor):
                return
        with self._changed:
            while self.active and self.reactor.running:
                self._changed.wait(REACTOR_CHECK_SECONDS)
        if not self.reactor.running:  # nobody hears of their ends
            self._pool.join()

    def close(self, waits: bool) -> None:
        """
        The server takes no more requests: let go of idle connections and threads.

        @param waits: whether to wait until the threads are gone, as one that joins them does.
        """
        if self.is_alive():
            gone = threading.Event()
            self.reactor.callFromThread(lambda: self.release().addBoth(lambda _: gone.set()))
            if waits and not is_reactors_thread(self.reactor):
                while not gone.wait(REACTOR_CHECK_SECONDS) and self.reactor.running:
                    pass

    def release(self) -> Deferred[Any]:
        """L{close}.  Reactor thread; fires when the threads that were idle are gone."""
        self.factory.end_unanswered()
        return self.factory.release_workers()


class _Pool(ThreadExecutor):
    """Says so once when somebody has to wait, be it for a later request of a connection."""

    def __init__(self, reactor: Any, limit: int, name: str, option: str) -> None:
        super().__init__(reactor, limit)
        self._name = name
        self._option = option
        self._has_told = False

    @override
    def run(self, job: IJob) -> None:
        super().run(job)
        if self.waiting and self.limit > 1 and not self._has_told:  # one is one's own choice
            self._has_told = True
            _log.warning(
                "%s: more than %d requests at once, which is %s; others wait",
                self._name,
                self.limit,
                self._option,
            )
