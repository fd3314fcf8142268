"""
The server object of stream listeners, and Twisted's factory for them.

This room owns the override points that differ for streams, and has what is spoken looked up
(L{sockserve.listeners.ways}).  It must not know protocols, options or endpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IProtocolNegotiationFactory,
)
from twisted.internet.protocol import ServerFactory
from typing_extensions import override
from zope.interface import implementer

from sockserve.core.addresses import Addresses, SocketAddress, shown_address
from sockserve.core.admission import Admission, Network
from sockserve.core.handler_kinds import HandlerKind, application_protocols
from sockserve.core.incidents import IncidentLog
from sockserve.core.logs import Topic, logger
from sockserve.core.statistics import RequestRecord
from sockserve.core.tls import handshake_fault
from sockserve.interfaces import DeadlineExpired
from sockserve.listeners.stream_protocol import StreamProtocol, StreamServer
from sockserve.listeners.ways import WAYS, ProtocolLimits, Way
from sockserve.streams.channel import Channel

__all__ = ["StreamFactory"]

_log = logger(Topic.LISTENERS)


@implementer(IProtocolNegotiationFactory)
class StreamFactory(ProtocolLimits, StreamServer, ServerFactory):
    """
    The server object of stream listeners, and Twisted's factory for them: give it to
    any server endpoint.

    @ivar ports: the listening ports.
    @cvar ways: how handlers of each kind are served.
    @cvar acceptable_protocols: the protocols to agree to when a TLS client names some
        (ALPN, RFC 7301); None for those of what the handler is known to speak.  A client
        that names no protocol is served; one that names only others is turned away by
        Twisted.
    """

    noisy = False
    ways: ClassVar[Mapping[HandlerKind, Way]] = WAYS
    acceptable_protocols: tuple[bytes, ...] | None = None

    def __init__(
        self,
        RequestHandlerClass: Callable[..., Any],
        *,
        admission: Admission | None = None,
        proxy_from: Iterable[Network] = (),
        **options: Any,
    ) -> None:
        """
        @param admission: caps on connections, and the networks they are served from; by
            default neither.
        @param proxy_from: the networks of proxies whose PROXY header is believed, when
            the endpoint asks for one; by default all.
        @param options: as L{RequestServer.__init__}.
        """
        super().__init__(RequestHandlerClass, admission, **options)
        self._proxies = Admission(allow=proxy_from)
        self.ports: set[tcp.Port] = set()
        self._shortages = IncidentLog(_log_error, self.clock.seconds)
        self.serve_as(self.kind)

    @override
    def buildProtocol(self, addr: IAddress | None) -> Any:
        if not self.is_watched:  # a port may be opened without a service
            self.begin_watch()
        protocol = StreamProtocol()
        protocol.factory = self
        return protocol

    @override
    def startFactory(self) -> None:
        self.drain_notice.take_back()
        self._start_idle_timeout()

    @override
    def stopFactory(self) -> None:
        self._stop_idle_timeout()
        self.drained().addCallback(lambda _: self.end_watch())

    def acceptableProtocols(self) -> list[bytes]:
        """Called by Twisted's TLS for L{acceptable_protocols}."""
        if self.acceptable_protocols is None:
            return list(application_protocols(self.RequestHandlerClass))
        return list(self.acceptable_protocols)

    def serve_as(self, kind: HandlerKind) -> None:
        """Serve the handler as one of C{kind} from now on."""
        self.kind = kind
        way = self.ways[kind]
        self._make_channel = way.maker(self)
        self._make_and_run = way.make_and_run

    @override
    def make_channel(self, protocol: StreamProtocol, addresses: Addresses) -> Channel:
        return self._make_channel(protocol, addresses)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start serving the request; return without waiting for its end. (reactor thread)"""
        self.channels[request].start()

    @override
    def close_request(self, request: Any) -> None:
        """
        Close the request; with C{fork} in the child and in the parent too.
        (handler's thread)
        """
        channel = self.channels.get(request)
        if channel is not None:
            channel.request_closing()
        request.close()

    @override
    def release(self) -> Deferred[Any]:
        self._shortages.close()
        self.drain_notice.close()
        return super().release()

    @override
    def log_shortage(self, client_address: object, error: OSError) -> None:
        self._shortages.add(
            "clients that were not served",
            f"cannot serve the client {shown_address(client_address)}: {error}; raise the limit of"
            " open files (ulimit -n)",
        )

    def handshake_failed(self, client_address: object, error: Exception) -> None:
        """
        Account for a connection that has come to nothing before it was the server's.
        (reactor thread)
        """
        self.statistics.accepted += 1
        record = RequestRecord(client_address, self.handler_name)
        if isinstance(error, DeadlineExpired):
            self.statistics.expiries[error.phase] += 1
            record.outcome = f"expired: {error.phase}"
            self.log_expiry(client_address, error.phase)
        else:
            self.opening_failed(record, "handshake", handshake_fault(error))
        self.request_finished(record)

    def trusts_proxy(self, address: SocketAddress) -> bool:
        """Whether a PROXY header from C{address} is believed; if not, count a refusal."""
        trusted = self._proxies.refusal(address) is None
        if not trusted:
            self.count_refusal("proxy")
        return trusted

    @override
    def descriptors(self) -> Iterator[int]:
        yield from self.hangups.descriptors()
        yield from self.drain_notice.descriptors()
        yield from self.listening_descriptors()
        for protocol in self.connections:
            yield from protocol.descriptors()

    @override
    def listening_descriptors(self) -> Iterator[int]:
        for port in self.ports:
            yield port.fileno()

    def drain(self) -> Deferred[None]:
        """
        Give the connections until the C{drain} deadline to finish, then abort them.
        (reactor thread)

        @return: a Deferred that fires when no connection is left.
        """
        self.drain_notice.give()
        for protocol in list(self.connections):
            protocol.drain()
        return self.drained()

    def abort(self) -> None:
        """Abort all connections now. (reactor thread)"""
        for protocol in list(self.connections):
            protocol.abort()

    @override
    def _has_ended(self, request: object) -> bool:
        channel = self.channels.get(request)
        return channel is not None and channel.protocol.has_been_ended()

    def _peer_is_gone(self, request: object) -> bool:
        channel = self.channels.get(request)
        if channel is not None and channel.protocol.is_gone():
            return True
        return super()._peer_is_gone(request)


def _log_error(line: str) -> None:
    _log.error("{line}", line=line)
