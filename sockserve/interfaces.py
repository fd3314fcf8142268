"""
The words every other room uses: phases, errors, and the seams between rooms.

This room owns names only.  It must not know Twisted's reactor, sockets, clocks
or any other room of the house.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from zope.interface import Attribute, Interface

__all__ = [
    "ConfigurationError",
    "DeadlineExpired",
    "IExecutor",
    "IHTTPRequestHandler",
    "IJob",
    "IRequestHandler",
    "IRequestServer",
    "Outcome",
    "PeerError",
    "Phase",
    "SockserveError",
]


class Phase(StrEnum):
    """
    The part of a connection's life that a deadline belongs to.

    The values are the names users write in C{--timeout PHASE=SECONDS} and read
    in logs and statistics.
    """

    HANDSHAKE = "handshake"
    IDLE = "idle"
    HEADER = "header"
    BODY = "body"
    HANDLE = "handle"
    WRITE = "write"
    LIFETIME = "lifetime"
    DRAIN = "drain"


class Outcome(StrEnum):
    """How a handler came to its end."""

    OK = "ok"
    #: It raised.
    ERROR = "error"
    #: It raised because its client went away or was too slow.
    LOST = "lost"


class SockserveError(Exception):
    """The root of the errors that sockserve itself raises."""


class ConfigurationError(SockserveError):
    """
    A user's mistake: what was asked for cannot be.

    The message is one line that names the culprit and what would be right.
    """


class PeerError(SockserveError):
    """
    The peer's fault: a client that broke the protocol it speaks.

    A handler that lets it pass has not failed; its request counts as lost.
    """


class DeadlineExpired(SockserveError, TimeoutError):
    """
    A deadline passed: what a handler waiting at that moment sees raised.

    It is a C{TimeoutError}, so code written for C{socket.settimeout} catches it.

    @ivar phase: which deadline.
    """

    def __init__(self, phase: Phase) -> None:
        super().__init__(f"the {phase} deadline expired")
        self.phase = phase


class IRequestHandler(Interface):
    """
    A handler whose constructor only stores its arguments, so that the lifecycle can
    call the three methods.  (The stdlib's serve inside their constructors.)
    """

    def setup() -> Any:
        """Runs first.  If it raises, neither L{handle} nor L{finish} runs."""

    def handle() -> Any:
        """Serve the request."""

    def finish() -> Any:
        """Runs after L{handle}, whether or not that raised."""


class IHTTPRequestHandler(IRequestHandler):
    """
    A handler of one HTTP request, whose class tells where the request's method runs.
    C{handle} may be plain and return what is to be awaited.
    """

    def blocks(command: str) -> bool:
        """Of the class: whether the method of that name must run on a thread."""

    def commands() -> list[str]:
        """Of the class: the HTTP methods it has a method for."""

    def may_block() -> bool:
        """Of the class: whether any must."""


class IRequestServer(Interface):
    """
    The server object a handler sees as C{self.server}: the override points of
    C{socketserver.BaseServer}, under the same names and called in the same order.

    C{request} is a socket for blocking handlers, a
    L{sockserve.streams.connection.StreamConnection} for coroutine stream handlers and a
    C{(data, socket)} pair for datagrams.
    """

    server_address = Attribute("What is listened on, as C{socket.getsockname()} gives it.")
    RequestHandlerClass = Attribute("Called with (request, client_address, server).")

    def verify_request(request: Any, client_address: Any) -> bool:
        """Whether the request may be served.  Runs on the reactor thread."""

    def process_request(request: Any, client_address: Any) -> None:
        """Start serving the request; return at once.  Runs on the reactor thread."""

    def finish_request(request: Any, client_address: Any) -> Any:
        """
        Make the handler and let it serve.  Runs where the handler runs; in a
        coroutine server the result is awaited.
        """

    def handle_error(request: Any, client_address: Any) -> None:
        """Called inside the C{except} block, where the handler ran."""

    def outcome_of(request: Any, error: BaseException) -> Outcome:
        """What C{error}, which a handler has just raised, amounts to."""

    def handle_timeout() -> None:
        """No request has arrived for C{timeout} seconds.  Runs on the reactor thread."""

    def shutdown_request(request: Any) -> None:
        """The request is over: end the sending side, then L{close_request}."""

    def close_request(request: Any) -> None:
        """Release the request.  Called last, once."""


class IJob(Interface):
    """
    One request on its way to a place where it may block.

    It may have C{descriptors}: those of the reactor's that L{serve} needs in a child too.
    """

    def serve() -> Outcome:
        """Serve the request from start to end.  Runs on the worker thread or in the child."""

    def started() -> None:
        """A place was found and L{serve} is about to run.  Reactor thread."""

    def runs_long() -> None:
        """L{serve} has not come to its end in a moment.  Reactor thread."""

    def forked() -> None:
        """A child has its own copy of the request now.  Reactor thread of the parent."""

    def ended(outcome: Outcome) -> None:
        """L{serve} is over, with what it returned.  Reactor thread."""

    def failed(error: OSError) -> None:
        """
        L{serve} will not run: the system has no process or thread for it.  Reactor
        thread.
        """


class IExecutor(Interface):
    """
    A place for blocking handlers to run in.  All methods are called on the
    reactor thread.
    """

    limit = Attribute("How many jobs run at once, at most.")
    running = Attribute("How many jobs run now.")
    waiting = Attribute("How many jobs wait for a place.")

    def run(job: IJob) -> None:
        """Start the job, or queue it until there is a place."""

    def withdraw(job: IJob) -> bool:
        """Take a job back that still waits; false when it has started."""

    def kill(job: IJob) -> bool:
        """
        End a running job by force, if the place can do that: a child can be
        killed, a thread cannot.
        """

    def stop() -> Any:
        """
        Let go of idle workers.

        @return: a Deferred that fires when those that were idle are gone.
        """
