"""
The module C{socketserver}, on sockserve: C{from sockserve import socketserver} in place of
C{import socketserver} is the whole migration.

This room owns the names of the standard library's module of the same name, as of CPython
3.15, on every Python: its servers are subclasses of the standard library's, and call the
same methods on the same threads.  What they do better is said where they do it; it must not
know how: that is in L{sockserve.dropin.accept_loop} and L{sockserve.dropin.dispatcher}, and is
imported when the first server is made (L{sockserve.dropin.serving}).
"""

from __future__ import annotations

import socket
import socketserver as _stdlib
import threading
import time
from socketserver import BaseRequestHandler, DatagramRequestHandler, StreamRequestHandler
from typing import TYPE_CHECKING, Any, cast

from typing_extensions import override

from sockserve.core.deadlines import Deadlines
from sockserve.core.late import LateModule
from sockserve.dropin.server_object import ServerObject
from sockserve.dropin.settings import (
    DEFAULT_DEADLINES,
    DEFAULT_MAX_THREADS,
    DropInLimits,
    keep_own_variables,
)

if TYPE_CHECKING:
    from sockserve.core.incidents import IncidentLog
    from sockserve.dropin import serving
    from sockserve.dropin.accept_loop import AcceptLoop
    from sockserve.dropin.dispatcher import RequestDispatcher
    from sockserve.dropin.serving_thread import ServingThread
else:  # when the first server is made: it takes ten times as long as this module
    serving = LateModule("sockserve.dropin.serving")

__all__ = [
    "BaseRequestHandler",
    "BaseServer",
    "DatagramRequestHandler",
    "ForkingMixIn",
    "ForkingTCPServer",
    "ForkingUDPServer",
    "ForkingUnixDatagramServer",
    "ForkingUnixStreamServer",
    "StreamRequestHandler",
    "TCPServer",
    "ThreadingMixIn",
    "ThreadingTCPServer",
    "ThreadingUDPServer",
    "ThreadingUnixDatagramServer",
    "ThreadingUnixStreamServer",
    "UDPServer",
    "UnixDatagramServer",
    "UnixStreamServer",
]

if not TYPE_CHECKING:  # a type checker is to tell a wrong name from a right one

    def __getattr__(name: str) -> Any:
        """Another name of the standard library's module, as programs have found it there."""
        try:
            return getattr(_stdlib, name)
        except AttributeError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def _pause_without_room(error: OSError) -> None:
    """Wait a moment if there was no room for a connection: there would be none at once, either."""
    if error.errno in serving.OUT_OF_RESOURCES:
        time.sleep(serving.ACCEPT_RETRY_SECONDS)


class BaseServer(DropInLimits, _stdlib.BaseServer):
    """
    The class C{socketserver.BaseServer}.  C{shutdown} is heard at once, whenever and from
    wherever it is called.

    @cvar deadlines: how long things may take.  By default only a TLS handshake has a limit.
    @cvar parks_connections: false for a handler object for each connection, as the standard
        library has it, instead of each HTTP request.
    """

    deadlines: Deadlines = DEFAULT_DEADLINES
    parks_connections: bool = True

    __shutdown_request: bool
    #: The thread that serves.
    __thread: int | None = None
    __loop: AcceptLoop | None = None
    #: Has connections to http.server's handlers read by the reactor; made with the first.
    __dispatcher: RequestDispatcher | None = None
    __jobs: ServingThread | None = None
    #: Handshakes that have come to nothing; made with the first, one for all threads.
    __incidents: IncidentLog | None = None

    def __init__(self, server_address: Any, RequestHandlerClass: Any) -> None:
        serving.check_server(self, RequestHandlerClass, isinstance(self, ThreadingMixIn))
        _stdlib.BaseServer.__init__(self, server_address, RequestHandlerClass)
        BaseServer.__now_made(self)

    def __now_made(self) -> None:
        """Have C{shutdown} return when it is called before C{serve_forever}."""
        self.__is_shut_down: threading.Event
        self.__is_shut_down.set()
        serving.witness().server_made(cast(ServerObject, self))

    @override
    def serve_forever(self, poll_interval: float | None = 0.5) -> None:
        """
        Serve until C{shutdown}, on the calling thread. (accept thread)

        @param poll_interval: how often C{service_actions} is called at least, in seconds; None to
            call it only when something has happened.
        """
        # Before anything waits for this thread: a signal's handler may run here at any time.
        self.__thread = threading.get_ident()
        self.__is_shut_down.clear()
        try:
            if not self.__shutdown_request:  # else the socket may be closed already
                serving.keep_alive(getattr(self, "socket", None), self.deadlines)
                served = cast(ServerObject, self)
                serving.witness().serving_began(served, is_loop=True)
                loop = self.__loop = serving.AcceptLoop(
                    served,
                    self.deadlines,
                    is_full=getattr(self, "_ThreadingMixIn__is_full", None),
                    handshake_failed=self.__handshake_failed,
                )
                self.__let_loop_serve(loop)
                loop.run(poll_interval)
        finally:
            self.__loop = None
            if self.__dispatcher is not None:
                self.__dispatcher.pause()
            self.__shutdown_request = False
            self.__is_shut_down.set()
            self.__thread = None

    def __make_room(self) -> None:
        """A request is over: have the loop ask whether there is room. (reactor thread)"""
        loop = self.__loop
        if loop is not None:
            loop.wake()

    @override
    def shutdown(self) -> None:
        """
        End C{serve_forever}, or keep the next one from beginning, and wait until it has
        ended, unless it is this thread's. (any thread)
        """
        self.__shutdown_request = True
        loop = self.__loop
        if loop is not None:
            loop.wake()
        if self.__thread != threading.get_ident():
            self.__is_shut_down.wait()

    def _handle_request_noblock(self) -> None:
        server, accepted = cast(ServerObject, self), None
        serving.witness().serving_began(server, is_loop=False)  # C{handle_request} has called
        if type(getattr(self, "socket", None)) is not socket.socket:  # of TLS, perhaps
            try:
                accepted = serving.accept_tls(
                    server, serving.StandardMethods(server), self.__handshake_failed
                )
            except OSError as error:
                _pause_without_room(error)
                return
        if accepted is None:
            _stdlib.BaseServer._handle_request_noblock(self)  # type: ignore[attr-defined]
            return
        # In handle_request there is nothing else to be done meanwhile.
        request, client_address = accepted
        try:
            serving.shake_hands(request, self.deadlines)
        except (serving.HandshakeFailed, serving.DeadlineExpired) as fault:
            self.__handshake_failed(client_address, fault)
        else:
            serving.verify_and_take(server, request, client_address)

    def __handshake_failed(self, client_address: Any, fault: Exception) -> None:
        """Log that a handshake has come to nothing, once in a minute for many. (any thread)"""
        incidents = self.__incidents
        if incidents is None:
            name = type(self).__qualname__
            log = serving.standard_logger(serving.Topic.CONNECTIONS)
            made = serving.IncidentLog(lambda line: log.info("%s: %s", name, line), time.monotonic)
            incidents = vars(self).setdefault("_BaseServer__incidents", made)
        what = f"handshake failed: {serving.handshake_fault(fault)}"
        incidents.add(what, f"the client {serving.shown_address(client_address)}: {what}")

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        """
        Serve a request on this thread.  While C{serve_forever} runs, a connection to one of
        C{http.server}'s handlers is the reactor's until a request has arrived on it, and again
        after that is answered. (accept thread)
        """
        server: Any = self
        if isinstance(request, socket.socket):
            serving.send_at_once(request)
            loop = self.__loop if self.__thread == threading.get_ident() else None
            if loop is not None and serving.may_be_parked(server, request):
                dispatcher = self.__find_dispatcher(loop)
                if dispatcher is not None and dispatcher.factory.reads_for_handlers():
                    dispatcher.take(request, client_address)
                    return
        serving.process_here(server, super().process_request, request, client_address)

    def __find_dispatcher(self, loop: AcceptLoop) -> RequestDispatcher | None:
        """
        The dispatcher, made for the first request, or for the first in a child; None if there
        are no descriptors for a reactor. (accept thread)
        """
        if self.__dispatcher is None or not self.__dispatcher.is_alive():
            try:
                reactor = serving.private_reactor()
            except OSError:
                return None
            self.__jobs = serving.ServingThread(reactor)
            self.__dispatcher = serving.RequestDispatcher(
                cast(ServerObject, self),
                reactor,
                threads=1,
                option="threads",
                deadlines=self.deadlines,
                limits=serving.own_limits(self),
                serving_thread=self.__jobs,
            )
            self.__let_loop_serve(loop)
        return self.__dispatcher

    def __let_loop_serve(self, loop: AcceptLoop) -> None:
        """Have the loop, on this thread, serve what has been read for handlers."""
        jobs = self.__jobs
        if jobs is not None:
            jobs.wake = loop.wake
            loop.jobs = jobs

    @override
    def server_close(self) -> None:
        """
        Also end connections that wait for a request, or for an answer, and log how many failed
        handshakes have had no line yet. (any thread)
        """
        super().server_close()
        if self.__incidents is not None:
            self.__incidents.close()
        if self.__dispatcher is not None:
            self.__dispatcher.close(waits=True)

    @override
    def finish_request(self, request: Any, client_address: Any) -> None:
        """Have a handler made, of sockserve's perhaps, and let it serve. (handler's thread)"""
        serving.make_and_run_guarded(self.RequestHandlerClass, request, client_address, self)

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print what a handler has raised, from its own code on. (handler's thread)"""
        serving.print_report(client_address, self.server_address)


class TCPServer(BaseServer, _stdlib.TCPServer):
    """
    The class C{socketserver.TCPServer}.  When it listens for TLS, no client waits for another's
    handshake.
    """

    def __init__(
        self, server_address: Any, RequestHandlerClass: Any, bind_and_activate: bool = True
    ) -> None:
        serving.check_server(self, RequestHandlerClass, isinstance(self, ThreadingMixIn))
        _stdlib.TCPServer.__init__(
            self, server_address, RequestHandlerClass, bind_and_activate=False
        )
        BaseServer._BaseServer__now_made(self)  # type: ignore[attr-defined]
        if bind_and_activate:  # an override may have it serve already
            try:
                self.server_bind()
                self.server_activate()
            except BaseException:
                self.server_close()
                raise

    @override
    def get_request(self) -> Any:
        """
        Accept a connection.  Where there is no room for another, a moment passes before that is
        raised: the next attempt would fail as well, and the one after it. (accept thread)
        """
        try:
            return super().get_request()
        except OSError as error:
            _pause_without_room(error)
            raise


class UDPServer(TCPServer, _stdlib.UDPServer):
    """The class C{socketserver.UDPServer}."""

    @override
    def get_request(self) -> Any:
        """Receive a packet, which takes no descriptor. (accept thread)"""
        return _stdlib.UDPServer.get_request(self)


class UnixStreamServer(TCPServer, _stdlib.UnixStreamServer):
    """The class C{socketserver.UnixStreamServer}."""


class UnixDatagramServer(UDPServer, _stdlib.UnixDatagramServer):
    """The class C{socketserver.UnixDatagramServer}."""


class ForkingMixIn(_stdlib.ForkingMixIn):
    """The class C{socketserver.ForkingMixIn}."""

    @override
    def server_close(self) -> None:
        """Also wait for the children, as C{block_on_close} says. (any thread)"""
        super().server_close()


class ThreadingMixIn(_stdlib.ThreadingMixIn):
    """
    The class C{socketserver.ThreadingMixIn}, with no more than L{max_threads} threads, which are
    used again; and a connection to one of C{http.server}'s handlers takes one only while a
    request that has arrived on it is being answered.

    @cvar deadlines: as L{BaseServer}'s, from which it comes.
    @cvar max_threads: the most requests served at once; others wait, which is logged once.
    @cvar parks_connections: false for a handler object and a thread for each connection, as
        the standard library has it, instead of each HTTP request.
    """

    max_threads: int = DEFAULT_MAX_THREADS
    parks_connections: bool = True

    __dispatcher: RequestDispatcher | None = None

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        """Have a thread of the pool call C{process_request_thread}. (accept thread)"""
        dispatcher = self.__dispatcher
        if dispatcher is None or not dispatcher.is_alive():
            dispatcher = self.__make_dispatcher()
        dispatcher.take(request, client_address)

    def __is_full(self, coming: int) -> bool:
        """Whether as many datagrams are under way as may be. (accept thread)"""
        dispatcher, most = self.__dispatcher, self.__most_datagrams()
        return most is not None and dispatcher is not None and dispatcher.active >= most

    def __most_datagrams(self) -> int | None:
        """C{max_datagrams} of a server of datagrams; None for other servers."""
        if getattr(self, "socket_type", None) != socket.SOCK_DGRAM:
            return None
        most: int | None = getattr(self, "max_datagrams", None)
        return most

    def __make_dispatcher(self) -> RequestDispatcher:
        """
        Make the dispatcher of the first request, or of the first in a child.  (Two threads may
        bring the first: one dispatcher is kept.) (accept thread)
        """
        vars(self).pop("_ThreadingMixIn__dispatcher", None)  # a parent's
        made = serving.RequestDispatcher(
            cast(ServerObject, self),
            serving.running_reactor(),
            threads=self.max_threads,
            option="max_threads",
            deadlines=getattr(self, "deadlines", DEFAULT_DEADLINES),
            parks=self.parks_connections,
            limits=serving.own_limits(self, DropInLimits),
        )
        if isinstance(self, BaseServer) and self.__most_datagrams() is not None:
            made.on_request_finished = self._BaseServer__make_room  # type: ignore[attr-defined]
        dispatcher: RequestDispatcher = vars(self).setdefault("_ThreadingMixIn__dispatcher", made)
        if dispatcher is made and not self.daemon_threads:
            serving.wait_at_exit(dispatcher)
            if self.block_on_close:
                self._threads = dispatcher
        return dispatcher

    @override
    def server_close(self) -> None:
        """Also wait for requests that are being served, as C{block_on_close} says. (any thread)"""
        super().server_close()
        if self.__dispatcher is not None:
            self.__dispatcher.close(waits=self._threads is self.__dispatcher)


class ThreadingTCPServer(ThreadingMixIn, TCPServer, _stdlib.ThreadingTCPServer):
    """The class C{socketserver.ThreadingTCPServer}."""


class ThreadingUDPServer(ThreadingMixIn, UDPServer, _stdlib.ThreadingUDPServer):
    """The class C{socketserver.ThreadingUDPServer}."""


class ThreadingUnixStreamServer(
    ThreadingMixIn, UnixStreamServer, _stdlib.ThreadingUnixStreamServer
):
    """The class C{socketserver.ThreadingUnixStreamServer}."""


class ThreadingUnixDatagramServer(
    ThreadingMixIn, UnixDatagramServer, _stdlib.ThreadingUnixDatagramServer
):
    """The class C{socketserver.ThreadingUnixDatagramServer}."""


class ForkingTCPServer(ForkingMixIn, TCPServer, _stdlib.ForkingTCPServer):
    """The class C{socketserver.ForkingTCPServer}."""


class ForkingUDPServer(ForkingMixIn, UDPServer, _stdlib.ForkingUDPServer):
    """The class C{socketserver.ForkingUDPServer}."""


class ForkingUnixStreamServer(
    ForkingMixIn,
    UnixStreamServer,
    getattr(_stdlib, "ForkingUnixStreamServer", _stdlib.UnixStreamServer),  # type: ignore[misc]
):
    """The class C{socketserver.ForkingUnixStreamServer}, which came with Python 3.12."""


class ForkingUnixDatagramServer(
    ForkingMixIn,
    UnixDatagramServer,
    getattr(_stdlib, "ForkingUnixDatagramServer", _stdlib.UnixDatagramServer),  # type: ignore[misc]
):
    """The class C{socketserver.ForkingUnixDatagramServer}, which came with Python 3.12."""


for _name in __all__:
    keep_own_variables(globals()[_name], getattr(_stdlib, _name, None))
