"""
The serving thread: where a server without a mix-in has its requests served, one at a time.

This room owns how a job gets to the thread that calls C{serve_forever}, and which of such a
server's connections bring jobs.  It must not know how that thread waits for them
(L{sockserve.dropin.accept_loop}), or what they serve.
"""

from __future__ import annotations

import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from typing_extensions import override
from zope.interface import implementer

from sockserve.core.forking import ThreadRole, end_child, fork_count, this_thread
from sockserve.core.handler_kinds import HandlerKind, handler_kind, unwrap
from sockserve.core.reactors import IReactor
from sockserve.dropin.overriding import StandardMethods, is_overridden
from sockserve.dropin.server_object import ServerObject
from sockserve.executors.base import BoundedExecutor, call_excepthook
from sockserve.executors.threads import SLOW_JOB_SECONDS
from sockserve.interfaces import ConfigurationError, IExecutor, IJob, Outcome

__all__ = ["ServingThread", "may_be_parked", "process_here"]

# Looked up once (see L{sockserve.core.lifecycle}).
_OK, _ERROR = Outcome.OK, Outcome.ERROR
_WORKER = ThreadRole.WORKER


def may_be_parked(server: ServerObject, request: object) -> bool:
    """
    Whether a connection of a server without a mix-in can be the reactor's between the requests on
    it. (accept thread)
    """
    # Not if:
    # 1. it is more than a connection, plain or over TLS, or has a timeout, which is for what a
    #    handler reads by itself;
    if type(request) not in (socket.socket, ssl.SSLSocket):
        return False
    assert isinstance(request, socket.socket)
    if request.gettimeout() is not None or request.type != socket.SOCK_STREAM:
        return False
    if not getattr(server, "parks_connections", True):
        return False
    # 2. the program has methods of its own that are about the whole of it;
    standard = StandardMethods(server)
    if (
        standard.process_request != server.process_request
        or standard.finish_request != server.finish_request
        or standard.shutdown_request != server.shutdown_request
        or standard.close_request != server.close_request
    ):
        return False
    # 3. the handler is not one of http.server's, or sets up or cleans up by itself.
    make = server.RequestHandlerClass
    try:
        is_stock = handler_kind(make) is HandlerKind.HTTP_STOCK
    except ConfigurationError:
        return False
    handler = unwrap(make)
    return is_stock and not (is_overridden(handler, "setup") or is_overridden(handler, "finish"))


def _serve_here(serve: Callable[..., Outcome], *arguments: Any) -> Outcome:
    """
    Serve a request on the thread that calls C{serve_forever}: a child that its handler forks has
    no server, and ends when it comes back. (accept thread)
    """
    role, forks = this_thread.role, fork_count()
    this_thread.role = _WORKER
    outcome = _ERROR
    try:
        outcome = serve(*arguments)
    except SystemExit:
        outcome = _OK
        raise
    except BaseException:
        if fork_count() != forks:
            call_excepthook()
        raise
    finally:
        if fork_count() != forks:
            end_child(outcome)
        this_thread.role = role
    return outcome


def process_here(
    server: ServerObject,
    process_request: Callable[[Any, Any], object],
    request: object,
    client_address: object,
) -> None:
    """
    Have a request processed on the thread that calls C{serve_forever}; in a handler's child, with
    what C{socketserver} does after an error. (accept thread)

    @param process_request: the server's method, as the standard library has it.
    """
    _serve_here(_process, server, process_request, request, client_address, fork_count())


def _process(
    server: ServerObject,
    process_request: Callable[[Any, Any], object],
    request: object,
    client_address: object,
    forks: int,
) -> Outcome:
    try:
        process_request(request, client_address)
    except Exception:
        if fork_count() == forks:
            raise
        server.handle_error(request, client_address)
        server.shutdown_request(request)
        return _ERROR
    return _OK


@implementer(IExecutor)
class ServingThread(BoundedExecutor):
    """
    The thread that calls C{serve_forever}, as a place for jobs.

    A job that is ready when that has ended waits for it to be called again, as a client waits
    whom nobody has accepted.

    @param reactor: where jobs come from.
    @ivar wake: called when a job is ready, for the thread to call L{serve_one}.
    """

    def __init__(self, reactor: IReactor) -> None:
        super().__init__(1)
        self._reactor = reactor
        self.wake: Callable[[], object] = _ignore
        self._is_stopped = False
        # Between the threads: both ends of a deque are safe
        self._ready: deque[IJob] = deque()
        #: The job under way, until the reactor is told of its end. (accept thread)
        self._under_way: IJob | None = None
        # Of the job that is ready or under way (reactor thread)
        #: None once it has ended.
        self._begun: IJob | None = None
        self._look: IDelayedCall | None = None
        #: Whether it waits so long that nobody looks at it, until the thread says that it takes it.
        self._is_to_be_told = False

    def has_ready(self) -> bool:
        """Whether there is a job to be served. (accept thread)"""
        return bool(self._ready)

    def serve_one(self) -> None:
        """
        Serve a job, if there is one.  What ends C{serve_forever} when it is raised in
        C{socketserver}, in a handler or in C{handle_error}, is raised here. (accept thread)
        """
        try:
            self._under_way = job = self._ready.popleft()
        except IndexError:
            return
        if self._is_to_be_told:
            self._reactor.callFromThread(self._taken, job)
        outcome = Outcome.ERROR
        try:
            outcome = _serve_here(self.serve, job)
        except SystemExit:  # as of a thread that ends itself
            outcome = Outcome.OK
            raise
        finally:
            self.tell_end(outcome)

    def tell_end(self, outcome: Outcome = Outcome.ERROR) -> None:
        """
        Tell the reactor that the job under way has ended, if there is one.  When the thread serves
        no more, one may be left: an interrupt comes between any two steps, and so just before that
        was told. (accept thread)
        """
        job = self._under_way
        if job is not None:
            self._reactor.callFromThread(self._served, job, outcome)
            self._under_way = None

    @override
    def run(self, job: IJob) -> None:
        """Start the job, or queue it until there is a place. (reactor thread)"""
        if self._is_stopped:
            job.started()
            job.ended(Outcome.ERROR)
        else:
            super().run(job)

    def kill(self, job: IJob) -> bool:
        """Answer that a thread cannot be killed. (reactor thread)"""
        return False

    def stop(self) -> Deferred[None]:
        """
        End the jobs that wait, unserved: the server is closed.

        @return: a Deferred that has fired. (reactor thread)
        """
        self._is_stopped = True
        while True:
            try:
                job = self._ready.popleft()
            except IndexError:
                break
            self._served(job, Outcome.ERROR)  # which makes the next one ready
        return succeed(None)

    @override
    def _start(self, job: IJob) -> None:
        self._is_to_be_told = False
        self._begun = job
        self._look = self._reactor.callLater(SLOW_JOB_SECONDS, self._look_at, job)
        self._ready.append(job)
        self.wake()

    def _look_at(self, job: IJob) -> None:
        """
        A moment has passed: tell a job that it lasts, if it is under way.  If not, it may be a long
        time until somebody serves.
        """
        self._look = None
        # Before the look, so that one that is taken meanwhile is seen here, or told of.
        self._is_to_be_told = True
        if job not in self._ready:
            self._is_to_be_told = False
            job.runs_long()

    def _taken(self, job: IJob) -> None:
        """A job that has waited is under way: its moment begins."""
        if self._is_to_be_told:
            self._is_to_be_told = False
            self._look = self._reactor.callLater(SLOW_JOB_SECONDS, self._look_at, job)

    def _served(self, job: IJob, outcome: Outcome) -> None:
        if job is not self._begun:  # an interrupt came just after that was told
            return
        self._begun = None
        look, self._look = self._look, None
        if look is not None:
            look.cancel()
        self._ended(job, outcome)


def _ignore(*arguments: Any) -> None:
    """Nobody serves just now."""
