"""
The server object: what a handler sees as C{self.server}.

This room owns the override points of C{socketserver.BaseServer} with their defaults,
and what a server of any kind of request has: its handler, deadlines, workers and
counters.  It must not know transports.
"""

from __future__ import annotations

import socket
from asyncio import IncompleteReadError, LimitOverrunError
from collections.abc import Callable, Iterator
from errno import ENOTCONN, ESHUTDOWN
from functools import cached_property
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sockserve.core.deadlines import Deadlines
from sockserve.core.handler_kinds import handler_kind, unwrap
from sockserve.core.lifecycle import run_handler, run_handler_coroutine
from sockserve.core.statistics import ListenerStatistics, RequestRecord
from sockserve.executors.fork import ForkExecutor
from sockserve.executors.threads import ThreadExecutor
from sockserve.http.h1.framing import RemoteProtocolError
from sockserve.interfaces import (
    ConfigurationError,
    DeadlineExpired,
    IExecutor,
    IRequestHandler,
    IRequestServer,
    Outcome,
)
from sockserve.sockets.lending import peer_is_gone

__all__ = ["RequestServer"]

_log = Logger()

#: How many threads wait for the disk, at most.  10: the size of Twisted's own pool, which
#: this one is not: name look-ups need not wait for a disk that is gone.
DISK_THREADS = 10

#: Looked up once, as L{sockserve.core.lifecycle} does.
_ERROR = Outcome.ERROR

#: How a peer's bad manners look to a handler.
_PEER_ERRORS = (DeadlineExpired, IncompleteReadError, LimitOverrunError, RemoteProtocolError)


def _is_of_a_connection(error: BaseException) -> bool:
    """Whether a system call on a connection that is no more raises it."""
    return isinstance(error, ConnectionError) or (
        isinstance(error, OSError) and error.errno in (ENOTCONN, ESHUTDOWN)
    )


def _has_timeout(request: Any) -> bool:
    """Whether a blocking handler has asked for C{TimeoutError} on its connection."""
    return isinstance(request, socket.socket) and bool(request.gettimeout())


@implementer(IRequestServer)
class RequestServer:
    """
    What stream and datagram servers share.  Override any of the methods under
    I{Override points}; they are called as C{socketserver} calls them, on the reactor
    thread or where the handler runs, as each says.

    @ivar server_address: what is listened on, as C{socket.getsockname()} gives it; set
        when listening starts.
    @ivar address_family: likewise, C{socket.AF_INET} and so on.
    @ivar handler_name: the handler's name, for people.
    @ivar statistics: the listener's counters.
    @ivar observers: each is called with the L{RequestRecord} of every request that has
        ended.  Reactor thread.
    @cvar timeout: seconds without a request after which L{handle_timeout} is called;
        None for never.
    @cvar request_queue_size: the C{listen} backlog; None for the endpoint's own.
    """

    address_family: int = socket.AF_INET
    socket_type: int = socket.SOCK_STREAM
    timeout: float | None = None
    request_queue_size: int | None = None

    def __init__(
        self,
        RequestHandlerClass: Callable[..., Any],
        *,
        reactor: Any,
        deadlines: Deadlines | None = None,
        concurrency: IExecutor | None = None,
    ) -> None:
        """
        @param RequestHandlerClass: a handler class of sockserve's or the stdlib's, or
            any callable that makes a handler.
        @param reactor: where requests and deadlines run.
        @param concurrency: where blocking handlers run; by default threads.
        @raise ConfigurationError: the handler cannot be served so.
        """
        self.RequestHandlerClass = RequestHandlerClass
        cls = unwrap(RequestHandlerClass)
        self.handler_name: str = getattr(cls, "__qualname__", None) or repr(cls)
        self.kind = handler_kind(RequestHandlerClass)
        if self.kind.is_coroutine and concurrency is not None:
            raise ConfigurationError(
                f"handler {self.handler_name}: handle is async def, so it runs on the reactor"
                " and takes no concurrency; leave that out, or write handle without async"
            )
        self.reactor = reactor
        self.deadlines = Deadlines() if deadlines is None else deadlines
        if concurrency is None and not self.kind.is_coroutine:
            concurrency = ThreadExecutor(reactor)
        self.concurrency = concurrency
        if isinstance(concurrency, ForkExecutor):
            concurrency.owners.add(self)
        self.server_address: Any = None
        self.statistics = ListenerStatistics()
        self.observers: list[Callable[[RequestRecord], object]] = []
        self._idle_call: IDelayedCall | None = None
        self._drained: Deferred[None] | None = None

    # Override points

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether the request may be served.  Reactor thread."""
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start serving the request; returns before it is served.  Reactor thread."""
        raise NotImplementedError

    def finish_request(self, request: Any, client_address: Any) -> Any:
        """Make the handler and let it serve.  Where the handler runs."""
        handler = self.RequestHandlerClass(request, client_address, self)
        if self.kind.is_coroutine:
            return run_handler_coroutine(handler)
        if IRequestHandler.providedBy(handler):
            run_handler(handler)
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """
        Log the exception being handled and go on: as an error, with its traceback, or
        as information when L{outcome_of} puts it down to the client.  Where the handler
        ran.
        """
        failure = Failure()
        assert failure.value is not None
        if isinstance(failure.value, DeadlineExpired):
            _log.info(
                "{handler}: {client_address}: {error}",
                handler=self.handler_name,
                client_address=client_address,
                error=failure.value,
            )
        elif self.outcome_of(request, failure.value) is Outcome.LOST:
            _log.info(
                "{handler}: the client {client_address} is gone: {error}",
                handler=self.handler_name,
                client_address=client_address,
                error=failure.value,
            )
        else:
            _log.failure(
                "{handler}: exception while serving {client_address}",
                failure,
                handler=self.handler_name,
                client_address=client_address,
            )

    def handle_timeout(self) -> None:
        """No request has come for C{timeout} seconds.  Reactor thread."""

    def shutdown_request(self, request: Any) -> None:
        """End the request's output, then close it.  Where the handler ran."""
        try:
            request.shutdown(socket.SHUT_WR)
        except OSError:  # the client may have gone already
            pass
        self.close_request(request)

    def close_request(self, request: Any) -> None:
        """Close the request.  Where the handler ran; with C{fork} in the parent too."""
        request.close()

    # For handlers and services

    @cached_property
    def disk(self) -> ThreadExecutor:
        """Threads for what waits for the disk: L{ThreadExecutor.call}."""
        return ThreadExecutor(self.reactor, DISK_THREADS)

    def release_workers(self) -> Deferred[Any]:
        """Let go of idle workers; fires when those are gone."""
        pools = [self.concurrency, self.__dict__.get("disk")]
        return DeferredList([pool.stop() for pool in pools if pool is not None])

    # For the sources of requests

    def descriptors(self) -> Iterator[int]:
        """What is open for the server in this process; a child closes it."""
        yield from ()

    def count_refusal(self, reason: str) -> None:
        """Something could not or may not be served."""
        self.statistics.refused[reason] += 1

    def count_request(self, outcome: Outcome) -> None:
        """A handler has come to its end."""
        self.statistics.requests += 1
        if outcome is _ERROR:
            self.statistics.errors += 1

    def outcome_of(self, request: Any, error: BaseException) -> Outcome:
        """
        What C{error}, which a handler has just raised, amounts to: a client that went
        away or was too slow is no error of this side's.  Where the handler ran.
        """
        peers = (
            isinstance(error, _PEER_ERRORS)
            or (isinstance(error, TimeoutError) and _has_timeout(request))
            or (_is_of_a_connection(error) and self._peer_is_gone(request))
        )
        return Outcome.LOST if peers else Outcome.ERROR

    def _peer_is_gone(self, request: Any) -> bool:
        return peer_is_gone(request)

    def request_accepted(self) -> None:
        """A request has come."""
        self.statistics.accepted += 1
        if self._idle_call is not None:
            self._reset_idle_timeout()

    def _reset_idle_timeout(self) -> None:
        """There is no silence."""
        if self._idle_call is not None:
            self._idle_call.reset(self.timeout or 0)

    def _start_idle_timeout(self) -> None:
        if self.timeout is not None:
            self._idle_call = self.reactor.callLater(self.timeout, self._idle_timeout)

    def _stop_idle_timeout(self) -> None:
        if self._idle_call is not None:
            self._idle_call.cancel()
            self._idle_call = None

    def _idle_timeout(self) -> None:
        self._idle_call = None
        self._start_idle_timeout()
        self.handle_timeout()

    def request_finished(self, record: RequestRecord, observed: bool = True) -> None:
        """
        A request is over, and nothing of it is left.

        @param observed: whether the observers hear of it; not, when they have heard of
            each of several requests of a connection.
        """
        self.statistics.record(record)
        if observed:
            self.observe(record)
        self._check_drained()

    def observe(self, record: RequestRecord) -> None:
        """Tell the observers."""
        for observer in self.observers:
            try:
                observer(record)
            except Exception:
                _log.failure("an observer of requests raised")

    def _check_drained(self) -> None:
        if self._drained is not None and self.idle():
            drained, self._drained = self._drained, None
            drained.callback(None)

    def idle(self) -> bool:
        """Whether no request is open."""
        return self.statistics.active == 0

    def drained(self) -> Deferred[None]:
        """Fires when no request is open any more."""
        if self.idle():
            return succeed(None)
        if self._drained is None:
            self._drained = Deferred()
        return self._drained
