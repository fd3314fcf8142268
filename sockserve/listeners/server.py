"""
The server object that a handler sees as C{self.server}, whatever kind of request it serves.

This room owns the override points of C{socketserver.BaseServer} with their defaults, and
the handler, deadlines, workers and counters of a server.  It must not know transports.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import LogLevel
from zope.interface import implementer

from sockserve.core.addresses import shown_address
from sockserve.core.clock import clock_of
from sockserve.core.deadlines import Deadlines
from sockserve.core.forking import ThreadRole, is_child, listening_socket_owners, this_thread
from sockserve.core.handler_kinds import handler_kind, handler_name, unwrap
from sockserve.core.in_progress import RequestInProgress
from sockserve.core.incidents import IncidentLog
from sockserve.core.lifecycle import MakeAndRun, make_and_run, make_and_run_coroutine
from sockserve.core.limits import set_limits
from sockserve.core.logs import Topic, log_raised, logger
from sockserve.core.messages import one_line
from sockserve.core.reactors import as_reactor
from sockserve.core.statistics import ListenerStatistics, RequestRecord
from sockserve.core.tls import BY_SERVER
from sockserve.core.watch import watch_of
from sockserve.executors.fork import ForkExecutor
from sockserve.executors.threads import ThreadExecutor
from sockserve.interfaces import ConfigurationError, IExecutor, IRequestServer, Outcome, Phase
from sockserve.listeners.outcomes import (
    is_clients_fault,
    is_told_elsewhere,
    what_client_did,
    what_was_served,
)
from sockserve.sockets.hangups import peer_is_gone

if TYPE_CHECKING:
    from twisted.cred.portal import Portal

__all__ = ["RequestServer"]

_log = logger(Topic.HANDLERS)

#: The most threads that wait for the disk.  10: the size of Twisted's own pool.  That pool is
#: not used, so that name look-ups need not wait for a disk that hangs.
DISK_THREADS = 10


@implementer(IRequestServer)
class RequestServer:
    """
    The part of a server object that stream and datagram servers share.

    Override any of the methods under I{Override points}; they are called as
    C{socketserver} calls them, on the thread that each names.

    @ivar RequestHandlerClass: called with (request, client_address, server) for each request.
    @ivar kind: how the handler is served.
    @ivar handler_cancellation: what its class says of that, as is C{allow_half_close}.
    @ivar reactor: the reactor, or a clock that stands for one.
    @ivar clock: its time, which the system's clock does not move.
    @ivar is_watched: whether something looks whether it turns: while the server takes requests.
    @ivar deadlines: the seconds that each phase of a request may last.
    @ivar concurrency: the executor of blocking handlers; None for a coroutine handler.
    @ivar server_address: the address it listens on, as C{getsockname} gives it; None until then.
    @ivar address_family: its family, C{socket.AF_INET} and so on; set with it.
    @ivar handler_name: the name of the handler's class, for logs and messages.
    @ivar portal: where handlers find out who a client is; None for nowhere.
    @ivar requires_tls: whether the handler can serve none whose connection begins without TLS.
    @ivar statistics: the listener's counters.
    @ivar incidents: what clients do that is worth a line of the log now and then.
    @ivar observers: called with the L{RequestRecord} of each request that has ended, on
        the reactor thread.
    @cvar timeout: seconds without a request after which L{handle_timeout} is called;
        None for never.
    @cvar request_queue_size: the C{listen} backlog; None for the endpoint's own.
    """

    address_family: int = socket.AF_INET
    socket_type: int = socket.SOCK_STREAM
    timeout: float | None = None
    request_queue_size: int | None = None
    requires_tls = False

    # For most servers.  (CPython shares the keys of at most 30 attributes of an object's own, its
    # SHARED_KEYS_MAX_SIZE; beyond, each is slower to find: a tenth of a packet's time.)
    handler_cancellation = True
    allow_half_close = True
    is_watched = False
    portal: Portal | None = None
    #: The files that are not served, though they are in a folder that is: those of the process.
    withheld: Sequence[str] = ()
    #: Whether a line for each request is written, or is not wanted: an answer needs none then.
    logs_requests = False

    def __init__(
        self,
        RequestHandlerClass: Callable[..., Any],
        *,
        reactor: IReactorTime,
        deadlines: Deadlines | None = None,
        concurrency: IExecutor | None = None,
        limits: Mapping[str, int | None] | None = None,
        portal: Portal | None = None,
    ) -> None:
        """
        @param RequestHandlerClass: a handler class of sockserve's or the stdlib's, or
            any callable that makes a handler.
        @param reactor: the reactor that requests and deadlines run on.
        @param deadlines: by default L{Deadlines}'s own.
        @param concurrency: the executor of blocking handlers; by default threads.
        @param limits: by name (L{sockserve.core.limits}), in place of the class' attributes.
        @param portal: where handlers find out who a client is.
        @raise ConfigurationError: the handler's class mixes coroutines and blocking
            methods, or is a coroutine handler and C{concurrency} is given; or a limit cannot be,
            or what the class needs (C{prepare_server}).
        """
        set_limits(self, limits or {})
        self.RequestHandlerClass = RequestHandlerClass
        cls = unwrap(RequestHandlerClass)
        self.handler_name = handler_name(cls)
        self.kind = handler_kind(RequestHandlerClass, isinstance(concurrency, ForkExecutor))
        if not getattr(cls, "handler_cancellation", True):
            self.handler_cancellation = False
        if not getattr(cls, "allow_half_close", True):
            self.allow_half_close = False
        if self.kind.is_coroutine and concurrency is not None:
            raise ConfigurationError(
                f"handler {self.handler_name} is async def and runs on the reactor, so it takes no"
                " concurrency; leave that out, or write its methods without async"
            )
        #: What L{finish_request} does for all requests.
        self._make_and_run: MakeAndRun = (
            make_and_run_coroutine if self.kind.is_coroutine else make_and_run
        )
        # A clock is enough for coroutines; threads also need its callFromThread.
        self.reactor = as_reactor(reactor)
        self.clock: IReactorTime = clock_of(reactor)
        self._watch = watch_of(reactor)
        self.deadlines = Deadlines() if deadlines is None else deadlines
        if concurrency is None and not self.kind.is_coroutine:
            concurrency = ThreadExecutor(self.reactor)
        self.concurrency = concurrency
        if isinstance(concurrency, ForkExecutor):
            concurrency.owners.add(self)
        listening_socket_owners.add(self)
        self.server_address: Any = None
        self.statistics = ListenerStatistics()
        self.observers: list[Callable[[RequestRecord], object]] = []
        self.incidents = IncidentLog(
            partial(self._log_line, Topic.CONNECTIONS, LogLevel.info), self.clock.seconds
        )
        self._limits_log = IncidentLog(
            partial(self._log_line, Topic.CONNECTIONS, LogLevel.warn), self.clock.seconds
        )
        self._idle_call: IDelayedCall | None = None
        self._drained: Deferred[None] | None = None
        if portal is not None:
            self.portal = portal
        if prepare := getattr(cls, "prepare_server", None):
            prepare(self)

    # Override points

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether the request may be served; by default yes. (reactor thread)"""
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start serving the request; return without waiting for its end. (reactor thread)"""
        raise NotImplementedError

    def finish_request(self, request: Any, client_address: Any) -> Any:
        """
        Make the handler and let it serve the request. (handler's thread)

        @return: for a coroutine handler an awaitable, which ends when the handler does.
        """
        make_and_run = self._make_and_run
        return make_and_run(self.RequestHandlerClass, request, client_address, self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """
        Log the exception being handled: as an error with its traceback, or as information, once in
        a minute for many of a kind, when L{outcome_of} puts it down to the client. (any thread)
        """
        error = sys.exception()
        assert error is not None
        if is_told_elsewhere(error):
            return  # that is told where it passed, or failed
        if self.outcome_of(request, error) is Outcome.LOST:
            # A child does not know how often that happens, and may not get the lock of the log.
            if not (self._has_ended(request) or is_child()):
                self.log_client(client_address, what_client_did(error), one_line(error))
        else:
            log_raised(
                _log,
                "{handler}: exception while serving {what}",
                error,
                handler=self.handler_name,
                what=what_was_served(request, client_address, self.server_address, error),
                client_address=client_address,
            )

    def handle_timeout(self) -> None:
        """
        Called each time that no request has come for C{timeout} seconds. (reactor thread)
        """

    def shutdown_request(self, request: Any) -> None:
        """End the request's output, then call L{close_request}. (handler's thread)"""
        try:
            request.shutdown(socket.SHUT_WR)
        except OSError:  # the client may have gone already
            pass
        self.close_request(request)

    def close_request(self, request: Any) -> None:
        """Close the request; with C{fork} in the parent too. (handler's thread)"""
        request.close()

    # For handlers and services

    @cached_property
    def disk(self) -> ThreadExecutor:
        """The threads for calls that wait for the disk, by L{ThreadExecutor.call}."""
        return ThreadExecutor(self.reactor, DISK_THREADS)

    def release(self) -> Deferred[Any]:
        """
        Let go of what outlasts requests, the idle workers, and log what has had no line yet.
        (reactor thread)

        @return: a Deferred that fires when those are gone.
        """
        self.incidents.close()
        self._limits_log.close()
        pools = [self.concurrency, self.__dict__.get("disk")]
        return DeferredList([pool.stop() for pool in pools if pool is not None])

    # For the sources of requests (reactor thread, but where a method says otherwise)

    def makes_handlers(self) -> bool:
        """Whether L{finish_request} is this room's, at this moment. (any thread)"""
        method = self.finish_request  # not a wrapper, which may pass on all that is asked of it
        function = method.__func__ if type(method) is MethodType else None
        return type(function) is FunctionType and function.__globals__ is globals()

    def in_progress(self) -> Iterable[RequestInProgress]:
        """The requests that are not over."""
        raise NotImplementedError

    def descriptors(self) -> Iterator[int]:
        """The descriptors that are open for the server here, and that a child closes."""
        yield from ()

    def listening_descriptors(self) -> Iterator[int]:
        """The descriptors of the sockets on which the server listens. (any thread)"""
        yield from ()

    def count_refusal(self, reason: str) -> None:
        """Count a connection or request that is not served, under C{reason}."""
        self.statistics.refused[reason] += 1

    def opening_failed(self, record: RequestRecord, what: str, reason: str) -> None:
        """
        Account for a connection that has come to nothing before it could be used: note that on
        its record, count it, and log it, once in a minute for many.

        @param what: C{handshake} or C{proxy header}.
        @param reason: why, in a few words.
        """
        self.statistics.failures[what] += 1
        record.outcome, record.reason = f"failed: {what}", reason
        if reason != BY_SERVER:
            fault = f"{what} failed: {reason}"
            self.incidents.add(fault, f"the client {shown_address(record.peer)}: {fault}")

    def count_failure(self, client_address: object, what: str, reason: str) -> None:
        """
        Count what a handler has seen to fail of its connection, and log it, once in a minute for
        many; in a child it is only logged. (handler's thread)

        @param what: C{handshake}, or C{authentication}.
        @param reason: why, in a few words.
        """
        fault = f"{what} failed: {reason}"
        self.incidents.add(fault, f"the client {shown_address(client_address)}: {fault}")
        self.call_on_reactor(lambda: self.statistics.failures.update([what]))

    def call_on_reactor(self, call: Callable[[], object]) -> None:
        """Call something from a handler, which may be on a thread; not in its child.
        (handler's thread)"""
        if is_child():
            return
        if this_thread.role is ThreadRole.WORKER:
            self.reactor.callFromThread(call)
        else:
            call()

    def log_client(self, client_address: object, deed: str, detail: str = "") -> None:
        """
        Log what a client has done, once in a minute for many who do so. (any thread)

        @param deed: this in words that are the same for all of them.
        """
        line = f"the client {shown_address(client_address)} {deed}"
        self.incidents.add(deed, f"{line}: {detail}" if detail else line)

    def log_expiry(self, client_address: object, phase: Phase) -> None:
        """
        Log that a connection or request is ended by a deadline, once in a minute for many; not
        that one has idled.
        """
        if phase is not Phase.IDLE:
            fault = f"the {phase} deadline expired"
            deadlines = self.deadlines
            if phase is Phase.BODY and deadlines.body is None and deadlines.body_rate is not None:
                fault += f", which body_rate ({deadlines.body_rate:g}) sets, or idle"
            self.incidents.add(fault, f"ended the client {shown_address(client_address)}: {fault}")

    def log_over_limit(self, client_address: object, name: str | None) -> None:
        """
        Log that a client is refused because it is over a limit, once in a minute for each.

        @param name: the limit's; None when it is refused for something else, which is not logged.
        """
        if name is None:
            return
        value = self._limit(name)
        self._limits_log.add(
            name,
            f"refused the client {shown_address(client_address)}: more than {name} allows, which is"
            f" {value}; raise that if it is to be served",
        )

    def _limit(self, name: str) -> object:
        """The value of the limit called C{name}."""
        return getattr(self, name)

    def log_fault(self, topic: Topic, line: str) -> None:
        """Log what is wrong with an answer that a handler has made. (any thread)"""
        self._log_line(topic, LogLevel.error, line)

    def _log_line(self, topic: Topic, level: Any, line: str) -> None:
        logger(topic).emit(level, "{handler}: {line}", handler=self.handler_name, line=line)

    def outcome_of(self, request: object, error: BaseException) -> Outcome:
        """
        The outcome of a request whose handler has just raised C{error}. (handler's thread)

        @return: L{Outcome.LOST} when the client is the cause, else L{Outcome.ERROR}.
        """
        is_clients = is_clients_fault(error, request, self._peer_is_gone)
        return Outcome.LOST if is_clients else Outcome.ERROR

    def _has_ended(self, request: object) -> bool:
        """Whether the server has ended a request that is lost, and not its client. (any thread)"""
        return False

    def _peer_is_gone(self, request: object) -> bool:
        return peer_is_gone(request)

    def begin_watch(self) -> None:
        """Have the reactor watched, if it is not yet. (reactor thread, or before it runs)"""
        if not self.is_watched:
            self.is_watched = True
            self._watch.hold()

    def end_watch(self) -> None:
        """Have it watched no more, as far as this server goes. (reactor thread)"""
        if self.is_watched:
            self.is_watched = False
            self._watch.release()

    def request_accepted(self) -> None:
        """A connection or datagram has come: count it, and restart L{timeout}."""
        self.statistics.accepted += 1
        self._reset_idle_timeout()

    def _reset_idle_timeout(self) -> None:
        """A request has come: wait L{timeout} seconds from now."""
        if self._idle_call is not None:
            self._idle_call.reset(self.timeout or 0)

    def _start_idle_timeout(self) -> None:
        if self.timeout is not None:
            self._idle_call = self.clock.callLater(self.timeout, self._idle_timeout)

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
        Account for a connection or datagram of which nothing is left.

        @param observed: whether to tell the observers; false when they have been told of
            each request of the connection by itself.
        """
        self.statistics.record(record)
        if observed:
            self.observe(record)
        self._check_drained()

    def observe(self, record: RequestRecord) -> None:
        """Call each observer with C{record}; one that raises is logged."""
        for observer in self.observers:
            try:
                observer(record)
            except Exception:
                log_raised(_log, "an observer of requests raised")

    def _check_drained(self) -> None:
        if self._drained is not None and self.idle():
            drained, self._drained = self._drained, None
            drained.callback(None)

    def idle(self) -> bool:
        """Whether no connection or datagram is open."""
        return self.statistics.active == 0

    def drained(self) -> Deferred[None]:
        """
        Wait for the end of all that is open.

        @return: a Deferred that fires when L{idle} holds.
        """
        if self.idle():
            return succeed(None)
        if self._drained is None:
            self._drained = Deferred()
        return self._drained
