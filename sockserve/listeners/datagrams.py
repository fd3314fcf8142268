"""
Datagrams: requests that are one packet each, over UDP and UNIX sockets.

This room owns the server object of datagram listeners (L{DatagramServer}), and what is special
about a packet; the rest of its way is in L{sockserve.listeners.single}.  It must not know options.
(reactor thread, but where a method says otherwise)
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from typing_extensions import override

from sockserve.core.addresses import SocketAddress, canonical_address
from sockserve.core.admission import Admission
from sockserve.core.lifecycle import verify_and_process
from sockserve.core.statistics import RequestRecord
from sockserve.interfaces import Outcome
from sockserve.listeners.datagram_ports import Ancillary, UDPPort
from sockserve.listeners.single import BlockingRequest, SingleRequestServer

__all__ = ["DatagramServer"]

_ERROR = Outcome.ERROR  # looked up once (see L{sockserve.core.lifecycle})


class DatagramServer(SingleRequestServer, DatagramProtocol):
    """
    The server object of datagram listeners, and Twisted's protocol for them.

    @cvar max_packet_size: the longest packet that is served, in bytes; a longer one is
        dropped and counted as C{truncated}.
    @cvar max_datagrams: the most requests that are under way at once, being served or waiting
        for a worker; None: any number.  Beyond it the listener stops reading: packets wait in
        the kernel's buffer, and those that find it full are lost, as networks lose packets.
        1,000: 8 MiB of packets of the default greatest size.
    @ivar admission: the networks requests are served from; may be shared.
    """

    noisy = False
    socket_type: int = socket.SOCK_DGRAM
    max_packet_size: int = 8192
    max_datagrams: int | None = 1000
    transport: UDPPort
    _suspended = False

    def __init__(
        self,
        RequestHandlerClass: Callable[..., Any],
        *,
        admission: Admission | None = None,
        **options: Any,
    ) -> None:
        """
        @param admission: the networks requests are served from; by default all.  (Its caps
            are for connections, and do nothing here.)
        @param options: as L{RequestServer.__init__}.
        """
        super().__init__(RequestHandlerClass, **options)
        self.admission = Admission() if admission is None else admission
        #: By the C{id} of a request that is being offered to a blocking handler, the
        #: ancillary data that sends its answer from where it came to.
        self._arrivals: dict[int, Ancillary] = {}
        #: Whether as many are under way as may be, so that none is read.
        self._is_full = False

    @override
    def startProtocol(self) -> None:
        self._socket = self.transport.socket
        self._make_reply = self.transport.reply_maker()
        self._suspended = False
        self._start_idle_timeout()
        self.begin_watch()

    @override
    def stopProtocol(self) -> None:
        self._stop_idle_timeout()
        self.end_watch()

    # What the port calls

    def received(
        self, data: bytes, address: SocketAddress | None, arrived_at: Ancillary | None
    ) -> bool:
        """
        A packet has come: offer it to the server.

        @param address: the client's, as a socket gives it; None for a UNIX client without a name.
        @param arrived_at: the ancillary data that sends the answer from the address that
            the packet came to; None to let the system choose.
        @return: whether the port is to read on; if not, it has been stopped.
        """
        statistics = self.statistics
        statistics.accepted += 1
        if self._idle_call is not None:
            self._reset_idle_timeout()
        if len(data) > self.max_packet_size:
            self._refuse_long(address)
            return True
        if self.admission.has_networks and not self.admission.allows(address):
            statistics.refused["network"] += 1
            return True
        if self.concurrency is None:
            request: Any = (data, self._make_reply(arrived_at, address))
        elif arrived_at is None:
            request = (data, self._socket)
        else:
            request = (data, self._socket)
            self._arrivals[id(request)] = arrived_at
        if not verify_and_process(self, request, address):
            statistics.refused["verify"] += 1
        if arrived_at is not None:
            self._arrivals.pop(id(request), None)
        most = self.max_datagrams
        if most is not None and statistics.active >= most:
            self._is_full = True
            self._limits_log.add("max_datagrams", self._why_full())
            self.transport.stopReading()
            return False
        return True

    def _why_full(self) -> str:
        return (
            f"{self.max_datagrams} datagrams are under way, which is max_datagrams; others wait"
            " in the system's buffer, and are lost if that is full"
        )

    def _refuse_long(self, address: object) -> None:
        """Account for a packet that is longer than L{max_packet_size}."""
        self.statistics.refused["truncated"] += 1
        self.log_over_limit(address, "max_packet_size")
        if self.observers:
            record = RequestRecord(address, self.handler_name, {}, None, 0, "refused: truncated")
            record.reason = "max_packet_size"
            self.observe(record)

    @override
    def descriptors(self) -> Iterator[int]:
        if self.transport is not None:
            yield self.transport.fileno()

    # Ends

    def suspend(self) -> None:
        """Read no packets until L{resume}; they wait in the kernel's buffer."""
        self._suspended = True
        self.transport.stopReading()

    def resume(self) -> None:
        """Read packets again."""
        self._suspended = False
        if not self._is_full:
            self.transport.startReading()

    @override
    def amounts(self, request: Any) -> tuple[int | None, int | None]:
        return len(request[0]), None if self.concurrency is not None else request[1].sent

    @override
    def make_blocking(self, request: Any, client_address: Any) -> BlockingRequest:
        """The job of a packet whose handler blocks."""
        return _BlockingDatagram(
            self, request, client_address, self._arrivals.pop(id(request), None)
        )

    @override
    def account(
        self, request: Any, client_address: Any, began: float, ended: Outcome, outcome: str
    ) -> None:
        """Account for a packet whose handler is finished or abandoned."""
        statistics = self.statistics
        statistics.active -= 1
        if self._is_full:
            self._is_full = False
            if not self._suspended:
                self.transport.startReading()
        seconds = self._seconds() - began
        statistics.count_handled(ended is _ERROR, seconds)
        statistics.received += len(request[0])
        if self.concurrency is None:
            statistics.sent += request[1].sent
        if self.observers:
            address, phases = canonical_address(client_address), {"handle": seconds}
            amounts = self.amounts(request)
            self.observe(RequestRecord(address, self.handler_name, phases, *amounts, outcome))
        if self._drained is not None:
            self._check_drained()


class _BlockingDatagram(BlockingRequest):
    """
    A packet whose handler blocks, on a thread or in a child.

    @param arrived_at: the ancillary data that sends the answer from the address that the packet
        came to; None to let the system choose.
    """

    def __init__(
        self,
        server: DatagramServer,
        request: Any,
        client_address: object,
        arrived_at: Ancillary | None,
    ) -> None:
        super().__init__(server, request, client_address, server.clock.seconds())
        self._arrived_at = arrived_at

    @property
    def descriptors(self) -> tuple[int]:
        """The listener's own socket, by which a child answers."""
        return (self.request[1].fileno(),)

    @override
    def serve(self) -> Outcome:
        """Serve the packet, with the socket answering from where it came to. (worker thread)"""
        replying = self.request[1].replying
        replying.client_address = self.client_address
        replying.arrived_at = self._arrived_at
        try:
            return super().serve()
        finally:
            replying.__dict__.clear()
