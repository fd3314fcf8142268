"""
TLS listeners: the endpoints of C{ssl:} and C{tls:} descriptions.

This room owns what they do better than Twisted's: the ciphers they offer, the answer to a client
that speaks plain HTTP, the reason of a failed handshake, and certificates by name.  It must not
know how descriptions are written.
(reactor thread)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import cast

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import Certificate, CertificateOptions, KeyPair
from twisted.protocols._sni import PEMObjects
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath
from typing_extensions import override
from zope.interface import alsoProvides, implementer

from sockserve.core.clock import clock_of
from sockserve.core.incidents import IncidentLog
from sockserve.core.logs import Topic, logger
from sockserve.core.messages import one_line
from sockserve.core.tls import (
    Opening,
    answer_to_plain_http,
    handshake_fault,
    opening_of,
)
from sockserve.core.transports import IStreamTransport
from sockserve.interfaces import HandshakeFailed
from sockserve.listeners.certificates import Password, check_context, read_folder
from sockserve.listeners.proxy_protocol import IProxyHeaderListener
from sockserve.streams.tls import ClientAuthority, with_client_authority, with_usual_ciphers

__all__ = ["CertificateFolder", "TLSEndpoint"]

#: How often a folder of certificates is looked at, at most, for clients that ask for names that
#: are not there; it is read again only if its files have changed.
LOOK_SECONDS = 1.0

_log = logger(Topic.LISTENERS)


@implementer(IProxyHeaderListener)
class _TLSTransport(BufferingTLSTransport):
    """
    The TLS of one connection: Twisted's, where the client begins with TLS, perhaps behind a PROXY
    header.
    """

    factory: _TLSFactory
    #: What has come while it may be plain HTTP; None once it is not.
    _first: bytes | None = b""
    #: Whether its client has been told that it speaks plain HTTP, and is to hang up.
    _is_answered = False
    #: Ends a client that goes on after that.
    _overdue: IDelayedCall | None = None

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._first is None:
            super().dataReceived(data)
            return
        if self._is_answered:
            return
        data = self._first = self._first + data
        opening = opening_of(data)
        if opening is Opening.PLAIN_HTTP:
            self._answer(data)
        elif opening is not Opening.UNKNOWN:
            self._first = None
            super().dataReceived(data)

    def _answer(self, data: bytes) -> None:
        """Tell the client that speaks plain HTTP so, and end the connection."""
        self._reason = Failure(HandshakeFailed(Opening.PLAIN_HTTP.value))
        transport = self._below()
        # It may end its side behind its request, and is to have the answer even so.
        alsoProvides(self, IHalfCloseableProtocol)
        transport.write(answer_to_plain_http(data))
        transport.loseWriteConnection()
        self._is_answered = True
        if self.factory.linger is not None:
            self._overdue = self.factory.clock.callLater(
                self.factory.linger, transport.loseConnection
            )

    def _below(self) -> IStreamTransport:
        return cast(IStreamTransport, self.transport)

    def proxy_header_received(self) -> None:
        """The header has been read: TLS follows."""

    def proxy_header_failed(self, fault: str) -> None:
        """The header is none: tell who listens."""
        if IProxyHeaderListener.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.proxy_header_failed(fault)

    def readConnectionLost(self) -> None:
        """The client has ended its side, after the answer to its plain HTTP."""
        self._below().loseConnection()

    def writeConnectionLost(self) -> None:
        """The answer has left."""

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._overdue is not None and self._overdue.active():
            self._overdue.cancel()
        if not self._handshakeDone:
            # Twisted makes one of all ends of a connection.
            error = (self._reason or reason).value
            assert error is not None
            self._reason = Failure(HandshakeFailed(handshake_fault(error)))
        super().connectionLost(reason)


class _TLSFactory(TLSMemoryBIOFactory):
    """The factory of connections over TLS."""

    protocol: type[TLSMemoryBIOProtocol] = _TLSTransport

    def __init__(
        self,
        reactor: IReactorTime,
        factory: IProtocolFactory,
        options: IOpenSSLServerConnectionCreator,
        linger: float | None,
    ) -> None:
        super().__init__(options, False, factory, reactor)
        self.clock: IReactorTime = clock_of(reactor)
        self.linger = linger


@implementer(IStreamServerEndpoint)
class TLSEndpoint:
    """An endpoint that speaks TLS over another."""

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: IStreamServerEndpoint,
        options: object,
        linger: float | None,
    ) -> None:
        """
        @param options: C{CertificateOptions} or an C{IOpenSSLServerConnectionCreator}.
        @param linger: for how long, in seconds, what comes behind a request in plain HTTP is
            thrown away, so that a reset does not overtake the answer; None until the client
            ends its side.
        """
        self._reactor = reactor
        self._endpoint = endpoint
        self._linger = linger
        self._options = cast(IOpenSSLServerConnectionCreator, with_usual_ciphers(options))

    def over(
        self, wrap: Callable[[IStreamServerEndpoint], IStreamServerEndpoint]
    ) -> IStreamServerEndpoint:
        """The same TLS, over C{wrap} of the endpoint that this one speaks it over."""
        endpoint = wrap(self._endpoint)
        return TLSEndpoint(self._reactor, endpoint, self._options, self._linger)

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Listen.

        @return: a Deferred that fires with the C{IListeningPort}, or fails as the endpoint's
            does.
        """
        authority: ClientAuthority | None = getattr(factory, "client_authority", None)
        if authority is not None and isinstance(self._options, CertificateFolder):
            self._options.ask_clients(authority)
        elif authority is not None and isinstance(self._options, CertificateOptions):
            self._options = with_client_authority(self._options, authority)
        over_tls = _TLSFactory(self._reactor, factory, self._options, self._linger)
        return self._endpoint.listen(over_tls)


@implementer(IOpenSSLServerConnectionCreator)
class CertificateFolder:
    """
    The certificates of a folder's C{*.pem} files, by the names in them; read again when a client
    asks for a name that none has, if the files have changed.
    """

    def __init__(self, reactor: IReactorTime, path: str, password: Password | None = None) -> None:
        """
        @param password: that of the keys that are encrypted.
        @raise ValueError: one of the files cannot be read or used, or there is none.
        """
        self._seconds = clock_of(reactor).seconds
        self._path = path
        self._incidents = IncidentLog(_warn, self._seconds)
        self._client_authority: ClientAuthority | None = None
        self._password = password
        read_folder(path, password)  # its message is clearer than that of a look at the files
        self._read()

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """A connection with the first certificate, until its client has named another."""
        return self._first.serverConnectionForTLS(protocol)

    def ask_clients(self, authority: ClientAuthority) -> None:
        """Ask clients for a certificate of C{authority}."""
        self._client_authority = authority
        self._read()

    def _options(self, found: CertificateOptions) -> CertificateOptions:
        options = with_usual_ciphers(found)
        if self._client_authority is not None:
            options = with_client_authority(options, self._client_authority)
        return options

    def _read(self) -> None:
        self._looked_at = self._seconds()
        # What is written while it is read makes for another state afterwards.
        self._state = self._look()
        contents = read_folder(self._path, self._password)
        if self._password is None:
            objects = PEMObjects.fromDirectory(FilePath(self._path))
        else:  # Twisted would ask for it, on the terminal
            objects = PEMObjects(
                [(FilePath(path), Certificate(each)) for path, each in contents.certificates],
                [(FilePath(path), KeyPair(each)) for path, each in contents.keys],
            )
        found = objects.inferDomainMapping()
        by_name: dict[str, CertificateOptions] = {
            name: self._options(options) for name, options in found.items()
        }
        if not by_name:
            raise ValueError(f"no certificate in {self._path!r} names a host as subjectAltName")
        for name, options in by_name.items():
            # The context that a connection begins with is asked for others.
            options._contextForServerName = self._context_for
            check_context(f"certificates in {self._path!r}: the one for {name!r}", options)
        self._by_name = by_name
        self._first = next(iter(by_name.values()))

    def _context_for(self, name: bytes | None) -> SSL.Context | None:
        """The context for a client that asks for C{name}; None for the one it has."""
        if not name:
            return None
        text = name.decode("ascii", "backslashreplace")
        found = self._find(text)
        if found is None and self._seconds() - self._looked_at >= LOOK_SECONDS:
            self._read_if_changed()
            found = self._find(text)
        if found is None:
            line = f"no certificate in {self._path!r} is for {text!r}; the first is used"
            self._incidents.add("names without certificates", line)
            return None
        return found.getContext()

    def _read_if_changed(self) -> None:
        """Read the files again unless they are as they were, be they right or wrong."""
        self._looked_at = self._seconds()
        try:
            if self._look() != self._state:
                self._read()
        except Exception as error:
            fault = f"certificates in {self._path!r}: {one_line(error)}"
            self._incidents.add("the folder", f"{fault}; those read before are used")

    def _look(self) -> dict[str, tuple[int, ...]]:
        """
        The state of each file: another one after each change, also of what a link leads to.

        @raise OSError: the folder, or a file, is not there or cannot be looked at.
        """
        state: dict[str, tuple[int, ...]] = {}
        with os.scandir(self._path) as entries:
            for entry in entries:
                if entry.name.endswith(".pem"):
                    now = entry.stat()
                    change = (now.st_mtime_ns, now.st_ctime_ns)
                    state[entry.name] = (now.st_dev, now.st_ino, now.st_size, *change)
        return state

    def _find(self, name: str) -> CertificateOptions | None:
        wildcard = "*." + name.partition(".")[2]
        return self._by_name.get(name) or self._by_name.get(wildcard)


def _warn(line: str) -> None:
    _log.warn("{line}", line=line)
