"""
Loops: what C{serve_forever} does for a server of L{socketserver}'s kind, on the thread that
calls it.

This room owns waiting for requests and for the word to stop, without polling for the latter,
and bringing connections over TLS to the server only once their handshake is done.  It must
not know what the server does with a request.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from sockserve.adoption import is_overridden
from sockserve.background import running_reactor
from sockserve.handshakes import Handshake

__all__ = ["ServingLoop", "accept_tls"]

#: L{socketserver}'s choice: it takes no descriptor of its own.
_Selector: type[selectors.BaseSelector] = getattr(
    selectors, "PollSelector", selectors.SelectSelector
)


def accept_tls(server: Any) -> tuple[ssl.SSLSocket, Any] | None:
    """
    Take a connection from a listening TLS socket and leave its handshake for later.

    @return: the connection and the client's address; None when the server does not listen
        for TLS in the usual way, and is to be asked by C{get_request}.
    @raise OSError: there is none to be had.
    """
    listening: Any = getattr(server, "socket", None)
    if (
        not isinstance(listening, ssl.SSLSocket)
        or not listening.do_handshake_on_connect  # type: ignore[attr-defined]
        or is_overridden(server, "get_request")
    ):
        return None
    accepted, address = socket.socket.accept(listening)
    try:
        request = listening.context.wrap_socket(
            accepted,
            server_side=True,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=listening.suppress_ragged_eofs,  # type: ignore[attr-defined]
        )
    except BaseException:
        accepted.close()
        raise
    return request, address


class ServingLoop:
    """
    One run of C{serve_forever}.

    @param server: a C{socketserver.BaseServer}.
    @param process: called with a request and its client's address when its handshake is
        done.  The loop's thread.
    """

    def __init__(self, server: Any, process: Callable[[Any, Any], object]) -> None:
        self._server = server
        self._process = process
        #: What wakes the loop: the one end is written to, the other waited for.
        self._inner, self._outer = socket.socketpair()
        self._inner.setblocking(False)
        self._outer.setblocking(False)
        #: Connections whose handshake is done.
        self._shaken: deque[tuple[ssl.SSLSocket, Any]] = deque()
        #: Held while one of these is used by another thread, or the loop is closed.
        self._lock = threading.RLock()
        self._closed = False
        self.thread = threading.get_ident()

    def run(self, poll_interval: float, stopped: Callable[[], bool]) -> None:
        """Serve until C{stopped}, which is asked whenever something has happened."""
        server = self._server
        with _Selector() as selector:
            selector.register(server, selectors.EVENT_READ)
            selector.register(self._outer, selectors.EVENT_READ)
            while not stopped():
                ready = [key.fileobj for key, _ in selector.select(poll_interval)]
                if stopped():
                    break
                if self._outer in ready:
                    self._take_shaken()
                if server in ready:
                    server._handle_request_noblock()
                server.service_actions()

    def wake(self) -> None:
        """Something has happened.  Any thread."""
        with self._lock:
            if not self._closed:
                try:
                    self._inner.send(b"\0")
                except BlockingIOError:  # it has enough to wake up for
                    pass

    def shake_hands(self, request: ssl.SSLSocket, address: Any, seconds: float | None) -> None:
        """
        Have a connection's handshake done elsewhere.

        @param seconds: how long it may take.
        """
        reactor = running_reactor()

        def ended(done: bool) -> None:
            with self._lock:
                if done and self._closed:
                    request.close()
                elif done:
                    self._shaken.append((request, address))
                    self.wake()

        reactor.callFromThread(Handshake, reactor, request, ended, seconds)

    def close(self) -> None:
        """The loop has ended; those whose handshakes are done by now find nobody there."""
        with self._lock:
            self._closed = True
            self._inner.close()
            self._outer.close()
        for request, _ in self._shaken:
            request.close()

    def _take_shaken(self) -> None:
        try:
            self._outer.recv(4096)
        except BlockingIOError:
            pass
        while self._shaken:
            self._process(*self._shaken.popleft())
