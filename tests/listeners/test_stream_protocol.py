"""
Stream connections over a transport in memory, on a clock that the tests turn: admission,
verification, deadlines, drain, and the record of each.
"""

import errno
from ipaddress import ip_network

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from sockserve import Deadlines, StreamRequestHandler
from sockserve.core.admission import Admission
from sockserve.core.incidents import SECONDS_BETWEEN_LINES
from sockserve.listeners.stream_factory import StreamFactory

PEER = ("192.0.2.7", 5300)

#: None but the one a test is about.
NEVER = dict.fromkeys(["handshake", "idle", "header", "body", "write", "handle", "lifetime"])


class MemoryTransport(StringTransport):
    """
    Ends as TCP does: in the next turn.

    @ivar ended: C{closed} or C{aborted}, once it has.
    """

    ended = None

    def __init__(self, clock, peer):
        super().__init__(peerAddress=peer)
        self._clock = clock

    def setTcpNoDelay(self, enabled):
        """Memory does not delay."""

    def loseWriteConnection(self):
        """Nothing is written after it."""

    def loseConnection(self):
        self._end("closed", ConnectionDone())

    def abortConnection(self):
        self._end("aborted", ConnectionAborted())

    def _end(self, how, reason):
        if self.ended is None:
            self.ended = how
            self.disconnecting = True
            self._clock.callLater(0, self.protocol.connectionLost, Failure(reason))


class Listener:
    """
    A server object with a clock for its reactor.

    @ivar records: what its observers have heard.
    """

    def __init__(self, handler, factory=StreamFactory, admission=None, **deadlines):
        self.clock = Clock()
        self.factory = factory(
            handler,
            reactor=self.clock,
            admission=admission,
            deadlines=Deadlines(**{**NEVER, **deadlines}),
        )
        self.records = []
        self.factory.observers.append(self.records.append)

    @property
    def statistics(self):
        return self.factory.statistics

    def connect(self, peer=PEER, tls=False):
        address = UNIXAddress(peer) if isinstance(peer, str) else IPv4Address("TCP", *peer)
        protocol = self.factory.buildProtocol(address)
        transport = MemoryTransport(self.clock, address)
        transport.protocol = protocol
        if tls:
            alsoProvides(transport, ISSLTransport)
        protocol.makeConnection(transport)
        self.clock.advance(0)
        return protocol, transport

    def outcomes(self):
        return [str(record.outcome) for record in self.records]


class Echo(StreamRequestHandler):
    async def handle(self):
        async for line in self.rfile:
            self.wfile.write(line)
            await self.wfile.drain()


class Stuck(StreamRequestHandler):
    """Waits for what never comes, whatever is thrown at it."""

    async def handle(self):
        while True:
            try:
                await Deferred()
            except TimeoutError:
                continue


def test_a_connection_is_counted_served_and_recorded():
    listener = Listener(Echo)
    protocol, transport = listener.connect()
    assert (listener.statistics.accepted, listener.statistics.active) == (1, 1)
    assert protocol in listener.factory.connections
    protocol.dataReceived(b"hello\n")
    listener.clock.advance(0)
    assert transport.value() == b"hello\n"
    listener.clock.advance(3)
    protocol.readConnectionLost()
    listener.clock.advance(0)
    assert transport.ended == "closed"
    assert (listener.statistics.active, listener.statistics.requests) == (0, 1)
    assert listener.factory.connections == set()
    assert listener.factory.channels == {}
    (record,) = listener.records
    assert (record.peer, record.outcome) == (PEER, "ok")
    assert (record.received, record.sent) == (6, 6)
    assert record.phases["handle"] == 3
    assert listener.clock.getDelayedCalls() == []


# Before it is served


def test_a_client_of_a_denied_network_is_aborted_and_not_served():
    listener = Listener(Echo, admission=Admission(deny=[ip_network("192.0.2.0/24")]))
    protocol, transport = listener.connect()
    assert transport.ended == "aborted"
    protocol.dataReceived(b"hello\n")  # was on its way
    assert transport.value() == b""
    assert listener.statistics.refused == {"network": 1}
    assert listener.outcomes() == ["refused: network"]
    assert listener.statistics.requests == 0
    assert listener.clock.getDelayedCalls() == []


def test_a_cap_for_each_peer_holds_until_one_of_its_connections_ends():
    listener = Listener(Echo, admission=Admission(max_connections_per_peer=1))
    first, first_transport = listener.connect()
    _, second = listener.connect()
    _, other = listener.connect(("192.0.2.8", 1))
    assert (first_transport.ended, second.ended, other.ended) == (None, "aborted", None)
    assert listener.statistics.refused == {"peer": 1}
    first.readConnectionLost()
    listener.clock.advance(0)
    _, third = listener.connect()
    assert third.ended is None


def test_a_client_without_an_address_is_served():
    listener = Listener(Echo, admission=Admission(allow=[ip_network("192.0.2.0/24")]))
    protocol, transport = listener.connect("")
    protocol.dataReceived(b"hello\n")
    listener.clock.advance(0)
    assert transport.value() == b"hello\n"


def test_a_request_that_verify_request_refuses_is_closed_unserved():
    class Picky(StreamFactory):
        def verify_request(self, request, client_address):
            return client_address[1] != 5300

    listener = Listener(Echo, Picky)
    _, transport = listener.connect()
    _, other = listener.connect(("192.0.2.7", 5301))
    assert (transport.ended, other.ended) == ("closed", None)
    assert listener.statistics.refused == {"verify": 1}
    assert listener.outcomes() == ["refused: verify"]
    assert listener.statistics.requests == 0


def test_a_shortage_of_descriptors_is_refused_and_logged_once_a_minute():
    """At 0, 59.5 and 60 s: the second is within the minute that the first stands for."""

    class Poor(StreamFactory):
        def make_channel(self, protocol, addresses):
            raise OSError(errno.EMFILE, "Too many open files")

    listener = Listener(Echo, Poor)
    logged = []
    for seconds in (0, SECONDS_BETWEEN_LINES - 0.5, 0.5):
        listener.clock.advance(seconds)
        with capturedLogs() as events:
            _, transport = listener.connect()
        assert transport.ended == "aborted"
        logged.append(sum(event["log_level"] is LogLevel.error for event in events))
    assert logged == [1, 0, 1]
    assert listener.statistics.refused == {"descriptors": 3}
    assert listener.outcomes() == ["refused: descriptors"] * 3
    assert listener.factory.admission.active == 0


def test_a_handshake_comes_before_the_request():
    listener = Listener(Echo, handshake=10)
    protocol, transport = listener.connect(tls=True)
    listener.clock.advance(9.9)
    assert protocol.client_address is None
    protocol.handshakeCompleted()
    assert protocol.client_address == PEER
    listener.clock.advance(60)  # the deadline was for the handshake only
    assert transport.ended is None
    protocol.readConnectionLost()
    listener.clock.advance(0)
    assert listener.records[0].phases["handshake"] == 9.9


def test_a_handshake_that_takes_too_long_ends_the_connection():
    listener = Listener(Echo, handshake=10)
    _, transport = listener.connect(tls=True)
    listener.clock.advance(9.9)
    assert transport.ended is None
    listener.clock.pump([0.1, 0])
    assert transport.ended == "aborted"
    assert listener.statistics.expiries == {"handshake": 1}
    assert listener.outcomes() == ["expired: handshake"]
    assert listener.clock.getDelayedCalls() == []


@pytest.mark.parametrize("end", ["readConnectionLost", "drain", "abort"])
def test_a_connection_that_ends_before_its_request_leaves_nothing(end):
    listener = Listener(Echo, handshake=10, drain=10, quiet=None)
    protocol, transport = listener.connect(tls=True)
    getattr(protocol, end)()
    listener.clock.advance(0)
    assert transport.ended is not None
    assert listener.statistics.active == 0
    assert listener.clock.getDelayedCalls() == []


# While it is served


@pytest.mark.parametrize(
    ("deadlines", "phase"),
    [({"idle": 5}, "idle"), ({"handle": 5}, "handle"), ({"lifetime": 5}, "lifetime")],
)
def test_a_deadline_ends_the_handler_and_is_told_by_its_phase(deadlines, phase):
    listener = Listener(Echo, **deadlines)
    _, transport = listener.connect()
    listener.clock.advance(4.9)
    assert transport.ended is None
    listener.clock.pump([0.1, 0])
    assert transport.ended == "closed"
    assert listener.statistics.expiries == {phase: 1}
    assert listener.outcomes() == [f"expired: {phase}"]
    assert listener.statistics.errors == 0


def test_only_the_first_deadline_counts():
    listener = Listener(Stuck, handle=5, lifetime=6)
    listener.connect()
    listener.clock.pump([5, 1, 1])
    assert listener.statistics.expiries == {"handle": 1}


def test_a_handler_that_goes_on_after_its_deadline_is_abandoned():
    listener = Listener(Stuck, handle=5)
    listener.connect()
    listener.clock.advance(5)
    assert listener.statistics.active == 1
    listener.clock.pump([1] * 120)
    assert listener.statistics.active == 0
    assert listener.outcomes() == ["expired: handle"]
    assert listener.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("reason", "outcome"), [(ConnectionDone(), "ok"), (ConnectionLost(), "lost")]
)
def test_a_client_that_goes_away_is_no_error(reason, outcome):
    listener = Listener(Echo)
    protocol, _ = listener.connect()
    protocol.connectionLost(Failure(reason))
    assert listener.outcomes() == [outcome]
    assert (listener.statistics.requests, listener.statistics.errors) == (1, 0)
    assert listener.statistics.active == 0


def test_a_connection_is_gone_once_it_is_lost_or_has_expired():
    listener = Listener(Stuck, handle=5)
    lost, _ = listener.connect()
    expired, _ = listener.connect()
    assert not lost.is_gone()
    lost.connected = 0
    assert lost.is_gone()
    assert not expired.is_gone()
    listener.clock.advance(5)
    assert expired.is_gone()


# The service stops


def test_drain_fires_when_the_last_connection_is_finished():
    listener = Listener(Echo, drain=10)
    idle, _ = listener.connect()
    busy, transport = listener.connect()
    busy.dataReceived(b"half a li")
    drained = listener.factory.drain()
    listener.clock.advance(0)
    assert idle.is_finished
    assert not drained.called
    busy.dataReceived(b"ne\n")
    listener.clock.advance(0)
    assert transport.value() == b"half a line\n"
    assert drained.called


def test_what_does_not_drain_in_time_is_ended():
    listener = Listener(Echo, drain=10)
    protocol, transport = listener.connect()
    protocol.dataReceived(b"half a li")
    drained = listener.factory.drain()
    listener.clock.advance(9.9)
    assert not drained.called
    listener.clock.pump([0.1, 0])
    assert drained.called
    assert transport.ended is not None
    assert listener.outcomes() == ["expired: drain"]


@pytest.mark.parametrize("line", [b"", b"line\n"])
def test_a_handshake_under_way_comes_to_its_end_while_the_server_drains(line):
    """The client is served what it sends with that; without, it is as idle as others."""
    listener = Listener(Echo, handshake=10, drain=10, quiet=1)
    protocol, transport = listener.connect(tls=True)
    drained = listener.factory.drain()
    listener.clock.advance(0.9)
    assert transport.ended is None
    protocol.handshakeCompleted()
    if line:
        protocol.dataReceived(line)
    listener.clock.pump([0, 0])
    assert transport.value() == line
    assert drained.called
    assert listener.outcomes() == ["ok"]
    assert listener.clock.getDelayedCalls() == []


def test_a_handshake_that_goes_no_further_is_not_waited_for_while_the_server_drains():
    listener = Listener(Echo, handshake=10, drain=10, quiet=1)
    _, transport = listener.connect(tls=True)
    drained = listener.factory.drain()
    listener.clock.advance(0.9)
    assert transport.ended is None
    listener.clock.pump([0.1, 0])
    assert transport.ended == "aborted"
    assert drained.called
    assert listener.statistics.expiries == {}


def test_a_client_that_is_refused_after_its_handshake_is_not_served_while_the_server_drains():
    admission = Admission(deny=[ip_network("192.0.2.0/24")])
    listener = Listener(Echo, admission=admission, handshake=10, drain=10, quiet=1)
    protocol, transport = listener.connect(tls=True)
    drained = listener.factory.drain()
    protocol.handshakeCompleted()
    listener.clock.pump([0, 0])
    assert transport.ended == "aborted"
    assert drained.called


def test_abort_ends_all_at_once():
    listener = Listener(Echo)
    _, transport = listener.connect()
    listener.factory.abort()
    listener.clock.advance(0)
    assert transport.ended == "aborted"
    assert listener.factory.idle()


# What the log says of it


@pytest.fixture
def told():
    """The lines of the log about connections."""
    with capturedLogs() as events:
        yield lambda: [formatEvent(event) for event in events if "line" in event]


class Insists(StreamRequestHandler):
    """Takes no end of file for an answer."""

    async def handle(self):
        await self.rfile.readexactly(10)


def test_the_end_of_an_idle_connection_is_not_logged(told):
    for handler in (Echo, Insists):
        listener = Listener(handler, idle=5)
        listener.connect()
        listener.clock.pump([5, 0])
        assert listener.outcomes() == ["expired: idle"]
    assert told() == []


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        (ConnectionLost(), "reset the connection"),
        (ConnectionDone(), "ended in the middle of a message"),
    ],
)
def test_clients_that_go_have_one_line_a_minute_that_says_how_many(told, reason, fault):
    """30 in the first minute, of which one is told; the first after it tells of 29."""
    listener = Listener(Insists)
    for _ in range(30):
        protocol, _ = listener.connect()
        protocol.dataReceived(b"half")
        protocol.connectionLost(Failure(reason))
    (line,) = told()
    assert f"Insists: the client 192.0.2.7:5300 {fault}" in line
    listener.clock.advance(60)
    protocol, _ = listener.connect()
    protocol.dataReceived(b"half")
    protocol.connectionLost(Failure(reason))
    assert len(told()) == 2
    assert told()[1].endswith("(and 29 more like it before)")
    assert listener.outcomes() == ["lost"] * 31


def test_clients_that_come_and_go_are_not_logged(told):
    listener = Listener(Echo)
    for _ in range(3):
        protocol, _ = listener.connect()
        protocol.readConnectionLost()
        listener.clock.advance(0)
    assert told() == []


def test_a_deadline_is_told_as_the_servers_doing_once_for_many(told):
    listener = Listener(Stuck, handle=5)
    for _ in range(3):
        listener.connect()
    listener.clock.pump([5] * 30)
    assert listener.statistics.expiries == {"handle": 3}
    assert told() == ["Stuck: ended the client 192.0.2.7:5300: the handle deadline expired"]
    listener.factory.release()
    assert told()[1:] == ["Stuck: the handle deadline expired: 2 more like it before"]


def test_what_the_server_has_aborted_is_not_the_clients_doing(told):
    listener = Listener(Insists)
    listener.connect()
    listener.factory.abort()
    listener.clock.advance(0)
    assert told() == []


@pytest.mark.parametrize(
    ("end", "reason"),
    [("drain", "ended by the server"), ("readConnectionLost", "closed by the client")],
)
def test_a_connection_that_comes_to_no_request_has_failed(told, end, reason):
    listener = Listener(Echo, handshake=10, drain=10)
    protocol, _ = listener.connect(tls=True)
    getattr(protocol, end)()
    listener.clock.pump([1, 0])  # quiet
    (record,) = listener.records
    assert (record.outcome, record.reason) == ("failed: handshake", reason)
    by_client = [f"Echo: the client 192.0.2.7:5300: handshake failed: {reason}"]
    assert told() == (by_client if reason == "closed by the client" else [])
