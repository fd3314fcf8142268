"""
Connections over TLS, of a server without a mix-in: the reactor's while they wait for a request.

This room owns one connection of the C{ssl} module's (L{SecuredConnection}): waiting for the head of
each request on it, and having a handler serve that one, which reads the rest by itself.  It must
not know how the handshake was done, or where the handler runs.
"""

from __future__ import annotations

import io
import re
import socket
import ssl
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from sockserve.core.deadlines import Deadlines
from sockserve.core.handler_kinds import unwrap
from sockserve.core.reactors import IReactor
from sockserve.dropin.server_object import ServerObject
from sockserve.http.guarded import handle_guarded, make_and_run_guarded
from sockserve.http.stock import make_with_method
from sockserve.interfaces import IExecutor, IJob, Outcome

__all__ = ["SecuredConnection"]

#: What ends a head, or so much of what should be one that the handler is to refuse it: the length
#: that C{http.server} allows a line.
_HEAD_END = re.compile(rb"\n\r?\n")
_HEAD_BYTES = 65536

#: How much is read at once: a record of TLS.
_READ_BYTES = 16384


class _Received(socket.SocketIO):
    """
    The input of a client: first what has come already. (handler's thread)

    @param received: that.
    """

    def __init__(self, request: ssl.SSLSocket, received: bytes) -> None:
        super().__init__(request, "r")
        self._received = received

    @override
    def readinto(self, buffer: Any) -> int | None:
        """As C{socket.SocketIO}'s."""
        size = min(len(buffer), len(self._received))
        if not size:
            return super().readinto(buffer)
        buffer[:size] = self._received[:size]
        self._received = self._received[size:]
        return size

    def take_received(self) -> bytes:
        """Take what has come already, and has not been read."""
        received, self._received = self._received, b""
        return received


@implementer(IJob, IReadDescriptor)
class SecuredConnection:
    """
    One connection, from when its handshake is done.

    @param executor: where handlers run.
    @param finished: called when it has ended.
    """

    def __init__(
        self,
        reactor: IReactor,
        executor: IExecutor,
        server: ServerObject,
        request: ssl.SSLSocket,
        client_address: object,
        deadlines: Deadlines,
        finished: Callable[[SecuredConnection], object],
    ) -> None:
        # For good
        self._reactor = reactor
        self._executor = executor
        self._server = server
        self._request = request
        self._client_address = client_address
        patience = getattr(unwrap(server.RequestHandlerClass), "timeout", None)
        self._deadlines = deadlines.capped(patience, "idle", "header")
        self._finished = finished
        # While it waits
        self._is_waiting = False
        self._is_draining = False
        self._received = b""
        self._overdue: IDelayedCall | None = None
        # Of the request under way
        #: Whether the connection goes on after it.
        self._goes_on = False

    # While the connection waits (reactor thread)

    def wait(self) -> None:
        """Wait for a request. (reactor thread)"""
        self._is_waiting = True
        self._request.setblocking(False)
        self._reactor.addReader(self)
        self._arm(self._deadlines.header if self._received else self._deadlines.idle)
        self._head_received()
        self._read()  # TLS may have more of it, read with what came before

    def drain(self) -> None:
        """End the connection, with the request that it has. (reactor thread)"""
        self._is_draining = True
        if self._is_waiting:
            self._end()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._request.fileno()

    def logPrefix(self) -> str:
        """The name in Twisted's log."""
        return "TLS connection"

    def doRead(self) -> None:
        """The client has sent something."""
        self._read()

    def connectionLost(self, reason: Failure) -> None:
        """The descriptor is of no more use."""
        self.drain()

    def _read(self) -> None:
        while self._is_waiting:
            try:
                data = self._request.recv(_READ_BYTES)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except (OSError, ValueError):  # the client's doing
                self._end()
                return
            if data:
                if not self._received:
                    self._arm(self._deadlines.header)
                self._received += data
                self._head_received()
            elif self._received:  # the handler is to find the end by itself
                self._queue()
            else:
                self._end()

    def _head_received(self) -> None:
        """A piece of a head has come: have it served, if that is all of it."""
        if len(self._received) > _HEAD_BYTES or _HEAD_END.search(self._received):
            self._queue()

    def _arm(self, seconds: float | None) -> None:
        self._disarm()
        if seconds is not None:
            self._overdue = self._reactor.callLater(seconds, self._expired)

    def _disarm(self) -> None:
        overdue, self._overdue = self._overdue, None
        if overdue is not None:
            overdue.cancel()

    def _expired(self) -> None:
        self._overdue = None
        self._end()

    def _stop_waiting(self) -> None:
        self._is_waiting = False
        self._disarm()
        self._reactor.removeReader(self)

    def _queue(self) -> None:
        self._stop_waiting()
        self._request.settimeout(None)
        self._executor.run(self)

    def _end(self) -> None:
        if self._is_waiting:
            self._stop_waiting()
        if self._request.fileno() >= 0:
            self._server.shutdown_request(self._request)
        self._finished(self)

    # As a job

    def serve(self) -> Outcome:
        """Have a handler serve one request, and end the connection if it is the last.
        (worker thread)"""
        server, request = self._server, self._request
        self._goes_on = False
        outcome = Outcome.OK
        try:
            self._make_handler()
        except Exception:
            outcome, self._goes_on = Outcome.ERROR, False
            server.handle_error(request, self._client_address)
        except BaseException:
            self._goes_on = False
            raise
        finally:
            if not self._goes_on:
                server.shutdown_request(request)
        return outcome

    def started(self) -> None:
        """There is a place for it: nothing to be told. (reactor thread)"""

    def runs_long(self) -> None:
        """Nothing is held back. (reactor thread)"""

    def forked(self) -> None:
        """Never called: threads do not fork. (reactor thread)"""

    def ended(self, outcome: Outcome) -> None:
        """The handler has finished, or will not run. (reactor thread)"""
        if self._goes_on and not self._is_draining:
            self.wait()
        else:
            self._end()

    def failed(self, error: OSError) -> None:
        """There is no thread to be had. (reactor thread)"""
        self._end()

    def _make_handler(self) -> None:
        make = self._server.RequestHandlerClass
        arguments = (self._request, self._client_address, self._server)
        request: Any = self._request
        request.makefile = self._makefile
        try:
            if getattr(unwrap(make), "handle", None) is BaseHTTPRequestHandler.handle:
                make_with_method(make, arguments, "handle", self._handle)
            else:
                make_and_run_guarded(make, *arguments)
        finally:
            del request.makefile

    def _makefile(self, mode: str = "r", buffering: int | None = None, **words: Any) -> Any:
        """Do as C{socket.makefile}; what is read begins with all that has come. (worker thread)"""
        request: Any = self._request
        if mode != "rb" or buffering == 0:
            return type(request).makefile(request, mode, buffering, **words)
        received, self._received = self._received, b""
        raw = _Received(request, received)
        request._io_refs += 1
        if buffering is None or buffering < 0:
            buffering = io.DEFAULT_BUFFER_SIZE
        return io.BufferedReader(raw, buffering)

    def _handle(self, handler: Any) -> None:
        """Do as C{BaseHTTPRequestHandler.handle} for one request. (worker thread)"""
        handler.close_connection = True
        handle_guarded(handler, handler.handle_one_request)
        request = self._request
        if handler.close_connection or request.fileno() < 0:
            return
        # What came with the request is of the next one.
        own = request.gettimeout()
        request.setblocking(False)
        try:
            self._received = bytes(handler.rfile.peek()) + handler.rfile.raw.take_received()
            self._goes_on = bool(self._received)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._goes_on = True
        except (OSError, ValueError, AttributeError):
            pass  # the client has gone, or the handler has closed the file or has another
        finally:
            if request.fileno() >= 0:
                request.settimeout(own)
