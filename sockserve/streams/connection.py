"""
Connections: C{self.request} of a coroutine handler.

This room owns the part of a socket's interface that makes sense without blocking.  It
must not know handlers, servers or how a connection came about. (reactor thread)
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport

from sockserve.core.addresses import Addresses
from sockserve.core.tls_facts import TLSFacts, tls_facts
from sockserve.core.transports import IStreamTransport
from sockserve.streams.departure import Departure
from sockserve.streams.reader import StreamReader
from sockserve.streams.writer import StreamWriter

__all__ = ["StreamConnection"]


class StreamConnection:
    """
    A stream connection as its coroutine handler sees it: C{self.request}.

    It has the part of a socket's interface that makes sense without blocking.

    @ivar rfile: what the peer sends.
    @ivar wfile: what goes to the peer.
    @ivar transport: the Twisted transport below.
    """

    __slots__ = (
        "__weakref__",
        "_addresses",
        "_close",
        "_departure",
        "_start_tls",
        "rfile",
        "transport",
        "wfile",
    )

    def __init__(
        self,
        transport: IStreamTransport,
        rfile: StreamReader,
        wfile: StreamWriter,
        addresses: Addresses,
        close: Callable[[], None],
        start_tls: Callable[[object], Awaitable[None]],
        departure: Departure,
    ) -> None:
        self.transport = transport
        self.rfile = rfile
        self.wfile = wfile
        self._addresses = addresses
        self._close = close
        self._start_tls = start_tls
        self._departure = departure

    def __repr__(self) -> str:
        return f"<StreamConnection peer={self._addresses[0]!r}>"

    def getpeername(self) -> Any:
        """The client's address as a socket would give it; behind a proxy, the real one."""
        return self._addresses[0]

    def getsockname(self) -> Any:
        """The address the client connected to."""
        return self._addresses[1]

    def getPeerCertificate(self) -> Any:
        """
        The client's certificate as an C{OpenSSL.crypto.X509}, or None: it sent none,
        or the connection is not TLS.
        """
        if not ISSLTransport.providedBy(self.transport):
            return None
        return self.transport.getPeerCertificate()

    @property
    def tls(self) -> TLSFacts | None:
        """The facts of the connection's TLS; None without."""
        return tls_facts(self.transport)

    def settimeout(self, seconds: float | None) -> None:
        """
        Set how long a read may wait for a byte, instead of the C{idle} deadline; then it
        raises C{TimeoutError}, and the connection goes on.
        """
        self.rfile.settimeout(seconds)

    def gone(self) -> Deferred[None]:
        """
        Wait until the client has gone: nothing can reach it any more.

        @return: a new Deferred, which fires with None then.
        """
        return self._departure.gone()

    def shielded(self) -> AbstractContextManager[None]:
        """
        Do not cancel the handler in a section of it (C{with self.request.shielded():}) when the
        client has gone, but where it next waits after that.
        """
        return self._departure.shield()

    def handler_finishing(self) -> None:
        """C{finish} of the handler is about to wait, which no departure interrupts."""
        self._departure.handler_finishing()

    async def start_tls(self, context: object) -> None:
        """
        Speak TLS from here on; returns when the handshake is done, which has its own
        deadline.  Agree with the client first: nothing may be unread.

        @param context: what C{ITLSTransport.startTLS} takes, for example
            C{twisted.internet.ssl.CertificateOptions}.
        @raise RuntimeError: bytes of the client's are unread, or this is TLS already.
        @raise ConnectionError: the handshake failed.
        """
        await self._start_tls(context)

    def shutdown(self, how: int) -> None:
        """
        End a direction as C{socket.shutdown} does; what was written still leaves.

        @param how: C{socket.SHUT_RD}, C{SHUT_WR} or C{SHUT_RDWR}.
        """
        if how != socket.SHUT_RD:
            self.wfile.close()
        if how != socket.SHUT_WR:
            self.rfile.feed_eof()

    def close(self) -> None:
        """Close the connection once everything written has left."""
        self._close()
