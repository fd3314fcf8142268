"""
Pumped sockets: what a blocking handler has as its socket, where its connection is more than one.

This room owns how the handler's end of a socketpair answers for the connection that it stands for.
It must not know what moves the bytes between them (L{sockserve.sockets.pumping}).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from errno import EOPNOTSUPP
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from sockserve.core.addresses import Addresses
from sockserve.core.tls_facts import TLSFacts, tls_facts
from sockserve.core.transports import IStreamTransport
from sockserve.sockets.hangups import connection_below

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["URGENT", "PumpedSocket", "impersonate"]

#: The flag of urgent data.  (A plain number: an operation on members of C{enum.IntFlag} takes a
#: microsecond.)
URGENT = int(socket.MSG_OOB)

_OUTER_LEVELS = (socket.IPPROTO_TCP, socket.IPPROTO_IP, socket.IPPROTO_IPV6)


class PumpedSocket(socket.socket):
    """
    The handler's end of a pump.  A real socket in all respects, but it answers for
    the connection it stands for: both addresses are that connection's, and TCP's own
    options are set and read there. (handler's thread)
    """

    __slots__ = ("_addresses", "_outer", "_tls")

    def __init__(
        self,
        family: int = -1,
        type: int = -1,
        proto: int = -1,
        fileno: int | None = None,
    ) -> None:
        super().__init__(family, type, proto, fileno)
        # Of the connection it stands for, by L{impersonate}; none while it is but a socket.
        #: (peer, own), as a socket gives them.
        self._addresses: Addresses | None = None
        #: The client's socket, below all wrapping.
        self._outer: socket.socket | None = None
        self._tls: TLSFacts | None = None

    @override
    def getpeername(self) -> Any:
        return super().getpeername() if self._addresses is None else self._addresses[0]

    @override
    def getsockname(self) -> Any:
        return super().getsockname() if self._addresses is None else self._addresses[1]

    @override
    def setsockopt(self, level: int, optname: int, *value: Any) -> None:
        if level not in _OUTER_LEVELS or self._addresses is None:  # it stands for itself
            super().setsockopt(level, optname, *value)
        elif self._outer is not None and self._outer.fileno() >= 0:  # the client is here
            self._outer.setsockopt(level, optname, *value)

    @override
    def getsockopt(self, level: int, optname: int, *buflen: int) -> Any:
        if self._outer is not None and level in _OUTER_LEVELS:
            return self._outer.getsockopt(level, optname, *buflen)
        return super().getsockopt(level, optname, *buflen)

    @override
    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        self._check_flags(flags)
        return super().send(data, flags)

    @override
    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        self._check_flags(flags)
        super().sendall(data, flags)

    @override
    def sendmsg(
        self,
        buffers: Iterable[ReadableBuffer],
        ancdata: Iterable[Any] = (),
        flags: int = 0,
        *address: Any,
    ) -> int:
        self._check_flags(flags)
        return super().sendmsg(buffers, ancdata, flags, *address)

    def _check_flags(self, flags: int) -> None:
        """
        Refuse what the connection has not, and a socketpair of Linux's has: urgent data.

        @raise OSError: it is asked for.
        """
        if flags & URGENT and self._addresses is not None:
            raise OSError(EOPNOTSUPP, "there is no urgent data over TLS or behind a PROXY header")

    def forked(self) -> None:
        """A child has this copy: the connection itself is the parent's. (handler's thread)"""
        self._outer = None

    @property
    def tls(self) -> TLSFacts | None:
        """The facts of the connection's TLS; None without."""
        return self._tls

    def getpeercert(self, binary_form: bool = True) -> bytes | None:
        """
        The client's certificate in DER, or None: it sent none, or this is not TLS.

        @raise ValueError: C{binary_form} is false; decode the DER yourself, for
            example with C{cryptography.x509}.
        """
        if not binary_form:
            raise ValueError("only the binary form (DER) of the certificate is at hand")
        return None if self._tls is None else self._tls.certificate


def impersonate(request: PumpedSocket, transport: IStreamTransport, addresses: Addresses) -> None:
    """
    Let a socket answer for a transport.

    @param addresses: (peer, own) of the connection, as a socket gives them. (reactor thread)
    """
    request._addresses = addresses
    below = connection_below(transport)
    request._outer = None if below is None else below.socket
    request._tls = tls_facts(transport)
