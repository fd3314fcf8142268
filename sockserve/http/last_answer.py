"""
The last answer of a handler of C{http.server}'s that reads its connection by itself, once its
service drains.

This room owns which answer that is, what is changed of it, and how long such a connection waits for
a request that may be on its way.  It must not know how the handler came by its connection, or how
it hears that the service drains (L{sockserve.core.drain_notice}).  (handler's thread)
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import time
from collections.abc import Callable, Iterator
from enum import Enum
from http.server import BaseHTTPRequestHandler
from typing import Any

from sockserve.core.drain_notice import DrainNotice
from sockserve.http.replacing import free_attributes, replaced
from sockserve.http.stock_output import KEEP_ALIVE, status_in
from sockserve.sockets.lending import has_unread

__all__ = ["LastAnswer"]

#: How many bytes of what comes behind the last answer are thrown away at once.
_DISCARDED_BYTES = 2**16


class _Reads(Enum):
    """The kind of input that a handler may read from its socket."""

    #: The next request, of which nothing has come: it may be waited for.
    NEXT = "next"
    #: What is left of a request that has come.
    REST = "rest"
    #: Nothing: only what has been read before is asked for.
    NOTHING = "nothing"


class LastAnswer:
    """
    The end of one handler's connection, while its service drains: an answer that nothing follows
    says C{Connection: close}; a connection that waits for a request ends when it has been quiet for
    as long as C{Deadlines.quiet} says.

    @param notice: tells that the service drains.
    """

    def __init__(self, handler: BaseHTTPRequestHandler, notice: DrainNotice) -> None:
        self._handler = handler
        self._notice = notice
        #: Whether it has been sent.
        self._is_sent = False
        self._reads = _Reads.REST
        #: What C{rfile} reads from, while that is by this.
        self._raw: object = None
        # While the next request is waited for
        self._since = 0.0

    @contextlib.contextmanager
    def looked_for(self) -> Iterator[None]:
        """Look for it while the handler serves its connection."""
        handler = self._handler
        original = handler.handle_one_request

        def handle_one_request() -> None:
            self._handle_one_request(original)

        with replaced(handler, "handle_one_request", handle_one_request):
            yield
        if self._is_sent:
            self._linger()

    # Requests

    def _handle_one_request(self, original: Callable[[], object]) -> None:
        handler = self._handler
        if self._is_sent:  # a loop of the program's own may ask for more
            handler.close_connection = True
            return
        with self._reading() as is_known:
            self._since = time.monotonic()
            self._reads = _Reads.NEXT
            if is_known and self._has_buffered():
                self._reads = _Reads.REST
            original()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[bool]:
        """
        Have the handler's C{rfile} read from its socket by this.

        @return: false where that is not known to be what it reads from.
        """
        rfile = getattr(self._handler, "rfile", None)
        raw = getattr(rfile, "raw", rfile)
        if raw is not None and raw is self._raw:  # it does already
            yield True
            return
        if (
            type(raw) is not socket.SocketIO
            or raw.closed
            or self._socket() is None
            or free_attributes(raw, "readinto") is None
        ):
            yield False
            return
        original: Callable[[Any], int | None] = raw.readinto

        def readinto(buffer: Any) -> int | None:
            if self._reads is _Reads.NOTHING:
                return None
            if self._reads is _Reads.NEXT:
                if not self._has_come():
                    return 0
                self._reads = _Reads.REST
            return original(buffer)

        self._raw = raw
        try:
            with replaced(raw, "readinto", readinto):
                yield True
        finally:
            self._raw = None

    def _socket(self) -> socket.socket | None:
        """The handler's socket, if it reads from that."""
        sock = getattr(self._handler, "connection", None)
        return sock if isinstance(sock, socket.socket) and sock.fileno() >= 0 else None

    def _has_come(self) -> bool:
        """
        Wait for the client; if the service drains, until it has been quiet for a while.

        @return: false if nothing has come.
        @raise TimeoutError: the socket's own timeout has passed.
        """
        sock, notice = self._socket(), self._notice
        if sock is None or sock.gettimeout() == 0 or self._has_come_within(0):
            return True
        told = notice.descriptor()
        if told >= 0:
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            poll.register(told, select.POLLIN)
            ready = [descriptor for descriptor, _ in poll.poll(_milliseconds(sock.gettimeout()))]
            if not ready:
                raise TimeoutError("timed out")
            if ready != [told]:
                return True
        if not notice.is_given():
            return True  # there is nothing to wait by but the socket
        quiet = notice.deadlines.quiet
        left = math.inf if quiet is None else self._since + quiet - time.monotonic()
        return self._has_come_within(max(left, 0))

    def _has_come_within(self, seconds: float) -> bool:
        """
        Whether something of the client's is here, be it the end, or comes in C{seconds}, which may
        be infinite.
        """
        sock = self._socket()
        pending = getattr(sock, "pending", None)  # of TLS
        if sock is None or (pending is not None and pending()):
            return True
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(_milliseconds(seconds)))

    def _has_unread(self) -> bool:
        """
        Whether something of the client's is here, which is not just the end: that may be this
        side's doing, while its handler answered.
        """
        sock = self._socket()
        pending = getattr(sock, "pending", None)  # of TLS
        return sock is None or bool(pending is not None and pending()) or has_unread(sock)

    def _has_buffered(self) -> bool:
        """
        Whether something has been read from the socket that the handler has not had; only where
        that is known.
        """
        peek = getattr(self._handler.rfile, "peek", None)
        if peek is None:
            return False
        before, self._reads = self._reads, _Reads.NOTHING
        try:
            return bool(peek(1))
        except (OSError, ValueError):  # closed
            return False
        finally:
            self._reads = before

    # Answers

    def amend(self, head: bytes, data: bytes, end: int) -> bytes:
        """
        Decide whether an answer is the last, now that its head is whole.

        @param head: all of that, with interim ones before it.
        @param data: what is about to be sent.
        @param end: where in C{data} the fields have their end; negative if that has been sent.
        @return: what is to be sent instead.
        """
        handler = self._handler
        if handler.close_connection or end < 0 or not self._notice.is_given():
            return data
        status = status_in(head) or 0
        if status == 101 or (handler.command == "CONNECT" and 200 <= status < 300):
            return data  # what follows is no HTTP
        with self._reading() as is_known:
            if (is_known and self._has_buffered()) or self._has_unread():
                return data
        self._is_sent = handler.close_connection = True
        return KEEP_ALIVE.sub(b"\n", data[:end]) + b"Connection: close\r\n" + data[end:]

    def _linger(self) -> None:
        """
        Read what the client has sent since, and throw it away: the socket's close would make the
        kernel send a reset, which may overtake the answer.
        """
        sock = self._socket()
        linger = self._notice.deadlines.linger
        until = math.inf if linger is None else time.monotonic() + linger
        if sock is None or not self._has_come_within(0):
            return
        with contextlib.suppress(OSError, ValueError):  # the client has gone
            self._handler.wfile.flush()
            sock.shutdown(socket.SHUT_WR)
            while (left := until - time.monotonic()) > 0 and self._has_come_within(left):
                # Not by an override: TLS knows no flags.
                if not socket.socket.recv(sock, _DISCARDED_BYTES, socket.MSG_DONTWAIT):
                    break


def _milliseconds(seconds: float | None) -> int | None:
    """For C{poll.poll}."""
    return None if seconds is None or seconds == math.inf else math.ceil(seconds * 1000)
