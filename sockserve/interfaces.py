"""
Interfaces: the words every other room uses: phases, errors, and the seams between rooms.

This room owns names only.  It must not know Twisted's reactor, sockets, clocks
or any other room of the house.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from _typeshed import MaybeNone

__all__ = [
    "ClientGone",
    "ConfigurationError",
    "DeadlineExpired",
    "HandshakeFailed",
    "IClientJob",
    "IExecutor",
    "IHTTPRequestHandler",
    "IJob",
    "IRequestHandler",
    "IRequestServer",
    "IStreamServer",
    "NotAuthenticated",
    "Outcome",
    "PeerError",
    "Phase",
    "Refusal",
    "RequestAborted",
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
    """How a request ended."""

    OK = "ok"
    #: Its handler raised.
    ERROR = "error"
    #: Its handler raised because the client went away or was too slow.
    LOST = "lost"
    #: No handler had it: it was no good, or too much.
    REFUSED = "refused"


class SockserveError(Exception):
    """The root of all errors that are sockserve's own."""


class ConfigurationError(SockserveError):
    """
    A user's mistake: what was asked for cannot be.

    The message is one line that names the culprit and what would be right.

    @ivar word: the option, or word of a configuration, that it is about; None where that is none,
        or not known.
    @ivar item: the part of the word's value: its place in a list, or its key in a table; None for
        all of it.
    @ivar is_name: whether the name of that, the word or the key, is wrong in itself.
    """

    def __init__(
        self,
        message: str,
        word: str | None = None,
        item: int | str | None = None,
        *,
        is_name: bool = False,
    ) -> None:
        super().__init__(message)
        self.word = word
        self.item = item
        self.is_name = is_name


class PeerError(SockserveError):
    """
    The peer's fault: a client that broke the protocol it speaks.

    A handler that lets it pass has not failed; its request counts as lost.
    """


class ClientGone(PeerError, ConnectionError):
    """
    The error that is raised in a coroutine that waits when its client has gone: when nothing can
    reach it any more.

    It is a C{ConnectionError}, so code written for sockets catches it.
    """


class DeadlineExpired(SockserveError, TimeoutError):
    """
    The error that is raised in a handler that waits when a deadline passes.

    It is a C{TimeoutError}, so code written for C{socket.settimeout} catches it.

    @ivar phase: which deadline.
    """

    def __init__(self, phase: Phase) -> None:
        super().__init__(f"the {phase} deadline expired")
        self.phase = phase


class RequestAborted(SockserveError):
    """
    The error that is raised in a coroutine that waits when somebody aborts its request, which is a
    datagram or a row.  (That of a connection hears of its client's end.)
    """

    def __init__(self) -> None:
        super().__init__("the request was aborted")


class HandshakeFailed(PeerError, ConnectionResetError):
    """
    The error of a connection whose TLS handshake has failed.

    @ivar reason: why, in a few words: C{no shared cipher}, C{alert unknown ca}, C{reset by the
        client} ...
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"TLS handshake: {reason}")
        self.reason = reason


class Refusal(Enum):
    """Why a login is refused."""

    #: The name or the password is wrong, or the proof of it; or a certificate is missing, or an
    #: address is nobody's.
    CREDENTIALS = "wrong credentials"
    #: The mechanism is not one of those offered on this connection.
    MECHANISM = "mechanism not offered"
    #: What the client sent is no response of the mechanism.
    MALFORMED = "malformed response"
    #: The client has given it up.
    CANCELLED = "cancelled"
    #: Too many logins have failed; this one was not even looked at.
    TOO_MANY = "too many failures"
    #: Whoever is to check the credentials cannot.
    UNAVAILABLE = "cannot be checked now"


class NotAuthenticated(PeerError):
    """
    The error of a client that has not shown who it is.  It has been counted and logged by the time
    that a handler sees it.

    @ivar refusal: why.
    @ivar is_counted: whether it has.
    """

    def __init__(self, refusal: Refusal, detail: str = "") -> None:
        super().__init__(f"authentication: {detail or refusal.value}")
        self.refusal = refusal
        self.is_counted = False


class IRequestHandler(Interface):
    """
    A handler whose constructor only stores its arguments, so that the lifecycle can
    call the three methods.  (The stdlib's serve inside their constructors.)
    """

    def setup() -> Any:
        """Prepare.  If it raises, neither L{handle} nor L{finish} runs. (handler's thread)"""

    def handle() -> Any:
        """Serve the request. (handler's thread)"""

    def finish() -> Any:
        """Clean up after L{handle}, whether or not that raised. (handler's thread)"""


class IHTTPRequestHandler(IRequestHandler):
    """
    A handler of one HTTP request, whose class tells where a request is answered.  C{handle} may
    be plain and return what is to be awaited.
    """

    def may_block() -> bool:
        """
        Of the class: whether a request may have to be answered on a thread.  Asked once for each
        server, first. (any thread)
        """

    def blocks(head: Any) -> bool:
        """
        Of the class: whether the request with this head must be.  Asked about each, where any
        may. (reactor thread)

        @param head: a L{sockserve.http.h1.head.RequestHead}.
        """


class IRequestServer(Interface):
    """
    The server object a handler sees as C{self.server}: the override points of
    C{socketserver.BaseServer}, under the same names and called in the same order.

    C{request} is a socket for blocking handlers, a
    L{sockserve.streams.connection.StreamConnection} for coroutine stream handlers and a
    C{(data, socket)} pair for datagrams.
    """

    server_address = Attribute("The address listened on, as C{socket.getsockname()} gives it.")
    RequestHandlerClass: Callable[..., Any] = Attribute(
        "A callable of (request, client_address, server)."
    )

    def verify_request(request: Any, client_address: Any) -> bool:
        """Whether the request may be served. (reactor thread)"""

    def process_request(request: Any, client_address: Any) -> None:
        """Start serving the request; return at once. (reactor thread)"""

    def finish_request(request: Any, client_address: Any) -> Any:
        """
        Make the handler and let it serve.

        @return: what is to be awaited, in a coroutine server. (handler's thread)
        """

    def handle_error(request: Any, client_address: Any) -> None:
        """Report what was raised; called inside the C{except} block. (any thread)"""

    def outcome_of(request: object, error: BaseException) -> Outcome:
        """The outcome of a request whose handler has raised C{error}. (handler's thread)"""

    def handle_timeout() -> None:
        """No request has arrived for C{timeout} seconds. (reactor thread)"""

    def shutdown_request(request: Any) -> None:
        """End the sending side of a request that was served or refused, then
        L{close_request}. (any thread)"""

    def close_request(request: Any) -> None:
        """Release the request.  Called last, once. (any thread)"""


class IStreamServer(IRequestServer):
    """The server object as what serves its connections knows it."""

    kind = Attribute("The L{sockserve.core.handler_kinds.HandlerKind} its handler is served as.")
    handler_name: str = Attribute("The name of the handler's class, for logs and messages.")
    deadlines = Attribute("The L{sockserve.core.deadlines.Deadlines} of its connections.")
    handler_cancellation: bool = Attribute(
        "Whether coroutines are cancelled when their client has gone."
    )
    allow_half_close: bool = Attribute("Whether a client that has ended its output still waits.")
    hangups = Attribute("The L{sockserve.sockets.hangups.HangupWatch} of its connections.")
    drain_notice = Attribute(
        "The L{sockserve.core.drain_notice.DrainNotice} for handlers that have their connection."
    )
    statistics = Attribute("Its L{sockserve.core.statistics.ListenerStatistics}.")
    observers = Attribute("Who is told of each request that has ended; empty for nobody.")
    logs_requests: bool = Attribute("Whether one of these writes a line of each.")
    concurrency: IExecutor | MaybeNone = Attribute(
        "The executor of blocking handlers; None when there is none."
    )
    reactor = Attribute("The reactor, or a clock that stands for one.")
    handlers_server = Attribute("The server object that handlers see.")

    def makes_handlers() -> bool:
        """Whether C{finish_request} is the usual one: it makes a handler, and lets it serve."""

    def observe(record: Any) -> None:
        """Tell the observers of a request that has ended. (reactor thread)"""

    def opening_failed(record: Any, what: str, reason: str) -> None:
        """
        Account for a connection that has come to nothing before it could be used: note that on
        its C{record}, count it, and log it now and then. (reactor thread)

        @param what: C{handshake} or C{proxy header}.
        @param reason: why, in a few words.
        """

    def log_client(client_address: object, deed: str, detail: str = "") -> None:
        """
        Log now and then what a client has done. (any thread)

        @param deed: this in words that are the same for all who do so.
        """

    def log_over_limit(client_address: object, name: str | None) -> None:
        """
        Log now and then that a client is refused for a limit. (reactor thread)

        @param name: the limit's; None when it is refused for something else, which is not logged.
        """

    def log_fault(topic: Any, line: str) -> None:
        """Log what is wrong with an answer that a handler has made. (any thread)"""

    def log_shortage(client_address: object, error: OSError) -> None:
        """Log that a request cannot be served for want of descriptors. (reactor thread)"""


class IJob(Interface):
    """
    One request on its way to a place where it may block.

    An executor calls L{started}, then either L{failed} or, once L{serve} has returned, L{ended};
    at most one of each.  A job that is withdrawn while it waits is told nothing.

    It may have C{descriptors}: those of the reactor's that L{serve} needs in a child too.
    """

    def serve() -> Outcome:
        """Serve the request from start to end: on a worker thread, or in a child's main thread.
        (worker thread)"""

    def started() -> None:
        """A place was found: L{serve} runs as soon as its thread or child does.
        (reactor thread)"""

    def runs_long() -> None:
        """
        L{serve} has not returned in a moment (L{SLOW_JOB_SECONDS
        <sockserve.executors.threads.SLOW_JOB_SECONDS>}).  Told once, if at all, between
        L{started} and L{ended}, by executors whose jobs may share a thread. (reactor thread)
        """

    def forked() -> None:
        """A child has its own copy of the request: the parent's can be closed.  Told after
        L{started}, of executors that fork, in the parent. (reactor thread)"""

    def ended(outcome: Outcome) -> None:
        """
        L{serve} has returned, and its place is free.

        @param outcome: what it returned; L{Outcome.ERROR} when it raised, or its child was
            killed. (reactor thread)
        """

    def failed(error: OSError) -> None:
        """L{serve} will not run, though L{started} was called: the system has no thread or
        process for it. (reactor thread)"""


class IClientJob(IJob):
    """
    A job whose client may leave while it waits for a place.

    An executor asks L{has_left} when the place is free; if so, it calls L{client_left} in place of
    L{started}, and that is the end of the job.
    """

    def has_left() -> bool:
        """Whether the client has gone, and no answer can reach it. (reactor thread)"""

    def client_left() -> None:
        """The client has gone, and L{serve} will not run: let go of it. (reactor thread)"""


class IExecutor(Interface):
    """A place for blocking handlers to run in."""

    limit: int = Attribute("How many jobs run at once, at most.")
    running: int = Attribute("How many jobs run now.")
    waiting: int = Attribute("How many jobs wait for a place.")

    def run(job: IJob) -> None:
        """Start the job, or queue it until there is a place. (reactor thread)"""

    def withdraw(job: IJob) -> bool:
        """
        Take a job back that still waits.

        @return: false when it has started, or was never run. (reactor thread)
        """

    def kill(job: IJob) -> bool:
        """
        End a running job by force.

        @return: false when that cannot be done: a child can be killed, a thread cannot.
            (reactor thread)
        """

    def stop() -> Any:
        """
        Let go of idle workers.

        @return: a Deferred that fires when those that were idle are gone. (reactor thread)
        """
