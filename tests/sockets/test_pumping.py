"""Pumping: what moves between a handler's socket and a transport, and how either ends."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet import tcp
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.python.failure import Failure
from zope.interface import directlyProvides

from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.deadlines import Deadlines
from sockserve.core.tls_facts import TLSFacts
from sockserve.interfaces import Phase
from sockserve.sockets.hangups import peer_is_gone
from sockserve.sockets.pumped_socket import PumpedSocket, impersonate
from sockserve.sockets.pumping import Pump, PumpState
from tests.transports import KernelTransport, SteppedReactor

PEER = ("192.0.2.1", 50000)
OWN = ("192.0.2.2", 7000)

DATA = bytes(range(256)) * 16384  # 4 MiB, in which a lost or swapped piece shows


class Pumped:
    """
    A pump between a transport in memory and a real socketpair.

    @ivar handler: the handler's end.
    @ivar expired: deadlines that have passed.
    """

    def __init__(self, *, tls: bool = False, room: int = 1 << 30, **deadlines: Any) -> None:
        self.reactor = SteppedReactor()
        self.expired: list[Phase] = []
        self.timer = DeadlineTimer(self.reactor, self._deadline_passed)
        self.transport = KernelTransport(room)
        if tls:
            directlyProvides(self.transport, ISSLTransport)
        inner, outer = socket.socketpair()
        self.handler = PumpedSocket(fileno=inner.detach())
        self.handler.setblocking(False)
        self.pump = Pump(
            self.reactor,
            self.transport,
            self.handler,
            outer,
            Deadlines(**deadlines),
            self.timer,
        )

    def _deadline_passed(self, phase: Phase) -> None:
        if phase is not Phase.WRITE or not self.pump.has_written_all():
            self.expired.append(phase)

    @property
    def state(self) -> PumpState:
        return self.pump.state

    def turn(self) -> None:
        """Let everything move that can."""
        self.reactor.turn()
        self.transport.make_room(0)
        self.reactor.turn()

    def received(self) -> bytes:
        """All that the handler can read now; with a mark where its input ends."""
        pieces = []
        while True:
            self.turn()
            try:
                piece = self.handler.recv(65536)
            except BlockingIOError:
                return b"".join(pieces)
            if not piece:
                return b"".join([*pieces, b"<eof>"])
            pieces.append(piece)

    def connection_is_closing(self) -> bool:
        return bool(self.transport.disconnecting or self.transport.disconnected)

    def close(self) -> None:
        self.timer.stop()
        self.handler.close()
        if self.state is not PumpState.CLOSED:
            self.pump.transport_lost()
            self.pump.connectionLost(Failure(ConnectionDone()))
        self.reactor.turn()
        assert self.reactor.readers == self.reactor.writers == set()
        assert self.reactor.getDelayedCalls() == []


@pytest.fixture
def pumped(no_leaks: None) -> Iterator[Callable[..., Pumped]]:
    made: list[Pumped] = []

    def make(**options: Any) -> Pumped:
        made.append(Pumped(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


# Both ways


def test_bytes_move_both_ways_and_are_counted(pumped: Callable[..., Pumped]) -> None:
    each = pumped()
    each.pump.feed(b"question")
    assert each.received() == b"question"
    each.handler.send(b"an answer")
    each.turn()
    assert each.transport.sent == b"an answer"
    assert (each.pump.received, each.pump.sent) == (8, 9)
    assert each.state is PumpState.OPEN


def test_a_peer_that_does_not_read_slows_the_handler_down(pumped: Callable[..., Pumped]) -> None:
    each = pumped(room=0)
    given = taken = 0
    while True:
        each.turn()
        try:
            given += each.handler.send(DATA[given : given + 65536])
        except BlockingIOError:
            break
    # 64 KiB at the transport, one more piece it was given then, and a socketpair's buffer.
    assert given < len(DATA) // 2
    assert each.transport.sent == b""
    while given < len(DATA) or taken < len(DATA):
        each.transport.make_room(100_000)
        each.reactor.turn()
        if given < len(DATA):
            try:
                given += each.handler.send(DATA[given : given + 65536])
            except BlockingIOError:
                pass
        assert len(each.transport.sent) > taken, "nothing moves"
        taken = len(each.transport.sent)
    assert each.transport.sent == DATA


def test_a_handler_that_does_not_read_slows_the_peer_down(pumped: Callable[..., Pumped]) -> None:
    each = pumped()
    given = 0
    while each.transport.reading:
        each.pump.feed(DATA[given : given + 65536])
        given += 65536
        each.turn()
        assert given < len(DATA)
    assert each.received() == DATA[:given]
    assert each.transport.reading


# Deadlines


def test_bytes_either_way_put_idle_off(pumped: Callable[..., Pumped]) -> None:
    each = pumped(idle=10)
    each.reactor.advance(6)
    each.pump.feed(b"a")  # 6 + 10 = 16
    each.reactor.advance(6)
    each.handler.send(b"b")
    each.turn()  # 12 + 10 = 22
    assert each.pump.quiet() == 0
    each.reactor.advance(9)
    assert each.pump.quiet() == 9
    assert each.expired == []
    each.reactor.advance(1)
    assert each.expired == [Phase.IDLE]


def test_write_is_armed_while_the_peer_takes_nothing(pumped: Callable[..., Pumped]) -> None:
    each = pumped(room=0, write=5, idle=None)
    each.handler.send(DATA[:100_000])
    each.turn()
    each.reactor.advance(4)
    each.transport.make_room()
    each.reactor.advance(5)  # it has room again
    assert each.expired == []
    each.transport.room = 0
    each.turn()
    each.handler.send(DATA[:100_000])
    each.turn()
    each.reactor.advance(5)
    assert each.expired == [Phase.WRITE]


# The handler ends its output


def test_output_that_ends_ends_the_connections(pumped: Callable[..., Pumped]) -> None:
    each = pumped()
    each.handler.send(b"all")
    each.handler.shutdown(socket.SHUT_WR)
    each.turn()
    assert each.state is PumpState.OUTPUT_ENDED
    assert each.transport.sent == b"all"
    assert each.transport.write_ended
    assert not each.connection_is_closing()
    each.pump.feed(b"and you?")
    assert each.received() == b"and you?"
    each.pump.handler_finished()
    assert each.state is PumpState.CLOSED
    assert each.connection_is_closing()


def test_tls_cannot_end_one_side(pumped: Callable[..., Pumped]) -> None:
    each = pumped(tls=True)
    each.handler.send(b"all")
    each.handler.shutdown(socket.SHUT_WR)
    each.turn()
    assert each.transport.sent == b"all"
    assert not each.transport.write_ended
    assert each.state is PumpState.CLOSED
    assert each.connection_is_closing()


def test_a_handler_that_closes_unread_input_does_not_lose_its_output(
    pumped: Callable[..., Pumped],
) -> None:
    """Linux answers that with a reset."""
    each = pumped(room=0)
    each.pump.feed(b"never read")
    each.turn()
    each.handler.send(b"refused")
    each.handler.close()
    each.turn()
    each.pump.handler_finished()
    assert each.state is PumpState.CLOSED
    each.transport.make_room()
    assert each.transport.sent == b"refused"


def test_what_a_handler_that_reads_no_more_is_sent_is_dropped(
    pumped: Callable[..., Pumped],
) -> None:
    each = pumped()
    each.handler.shutdown(socket.SHUT_RD)
    each.pump.feed(b"unwanted")
    each.turn()
    assert each.state is PumpState.OPEN
    each.handler.send(b"still talking")
    each.turn()
    assert each.transport.sent == b"still talking"


def test_a_hang_up_that_was_anothers_changes_nothing(pumped: Callable[..., Pumped]) -> None:
    """The reactor asks once for the events of a whole turn, by the descriptors' numbers."""
    each = pumped()
    each.reactor._disconnect(each.pump, ConnectionDone(), True)
    assert each.state is PumpState.OPEN
    each.handler.send(b"here")
    each.turn()
    assert each.transport.sent == b"here"


# The handler finishes


def test_a_descriptor_left_open_is_pumped_until_it_is_closed(pumped: Callable[..., Pumped]) -> None:
    each = pumped()
    kept = socket.socket(fileno=each.handler.detach())
    with kept:
        each.pump.handler_finished()
        assert each.state is PumpState.LEFT_OPEN
        kept.send(b"later")
        each.turn()
        assert each.transport.sent == b"later"
        each.pump.feed(b"echo")
        each.turn()
        assert kept.recv(100) == b"echo"
        assert not each.connection_is_closing()
    each.turn()
    assert each.state is PumpState.CLOSED
    assert each.connection_is_closing()


def test_what_is_written_last_leaves_before_the_connection_ends(
    pumped: Callable[..., Pumped],
) -> None:
    each = pumped(room=0)
    each.handler.send(DATA[:100_000])
    each.handler.close()
    each.pump.handler_finished()
    each.turn()
    while each.transport in each.transport.reactor.writers:
        each.transport.make_room(10_000)
        each.reactor.turn()
    assert each.transport.sent == DATA[:100_000]
    assert each.state is PumpState.CLOSED


def test_write_guards_the_end(pumped: Callable[..., Pumped]) -> None:
    each = pumped(room=0, write=5, idle=None)
    each.handler.send(b"the last")
    each.handler.close()
    each.pump.handler_finished()
    each.turn()
    assert each.state is PumpState.CLOSED
    each.reactor.advance(5)
    assert each.expired == [Phase.WRITE]


# The peer ends its side, or the connection is lost


def test_the_peers_end_comes_after_what_it_sent(pumped: Callable[..., Pumped]) -> None:
    each = pumped()
    each.pump.feed(DATA[:300_000])
    each.pump.feed_eof()
    assert each.received() == DATA[:300_000] + b"<eof>"
    each.handler.send(b"answer")
    each.turn()
    assert each.transport.sent == b"answer"


def test_what_came_before_the_connection_was_lost_can_be_read(
    pumped: Callable[..., Pumped],
) -> None:
    each = pumped()
    each.pump.feed(DATA[:600_000])
    each.turn()
    each.pump.transport_lost()
    assert each.state is PumpState.LOST
    with pytest.raises(BrokenPipeError):
        each.handler.send(b"to nobody")
    assert each.received() == DATA[:600_000] + b"<eof>"
    assert each.state is PumpState.CLOSED
    assert each.transport.sent == b""
    assert not each.connection_is_closing()  # it is gone, and Twisted's TLS cannot stand it


def test_a_handler_that_is_told_of_the_loss_by_an_error_finds_that_its_client_has_gone(
    pumped: Callable[..., Pumped],
) -> None:
    """In a child it has only its own end to ask."""
    each = pumped()
    each.pump.feed(b"half")
    each.turn()
    each.pump.transport_lost()
    with pytest.raises(BrokenPipeError):
        each.handler.send(b"to nobody")
    assert peer_is_gone(each.handler)
    assert each.received() == b"half<eof>"


def test_a_handler_that_finishes_after_both_ends_were_lost_leaves_nothing(
    pumped: Callable[..., Pumped],
) -> None:
    each = pumped()
    each.pump.feed(DATA[:600_000])
    each.handler.shutdown(socket.SHUT_WR)
    each.turn()
    each.pump.transport_lost()
    each.turn()
    assert each.state is PumpState.LOST_ENDED
    each.pump.handler_finished()
    assert each.state is PumpState.CLOSED


def test_a_descriptor_left_open_hears_that_the_connection_is_lost(
    pumped: Callable[..., Pumped],
) -> None:
    each = pumped()
    each.pump.handler_finished()
    each.pump.transport_lost()
    assert each.received() == b"<eof>"
    assert each.state is PumpState.CLOSED


def test_interrupting_ends_both_directions_for_the_handler(pumped: Callable[..., Pumped]) -> None:
    each = pumped()
    each.pump.interrupt()
    assert each.handler.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        each.handler.send(b"more")


# The connection goes on without the pump


@pytest.mark.parametrize("ends", [False, True])
def test_release_leaves_the_connection(pumped: Callable[..., Pumped], ends: bool) -> None:
    each = pumped()
    each.handler.send(b"handled")
    if ends:
        each.handler.shutdown(socket.SHUT_WR)
    assert each.pump.release() is not ends
    assert each.state is PumpState.CLOSED
    assert each.transport.producer is None
    each.transport.make_room()
    assert each.transport.sent == b"handled"
    assert not each.connection_is_closing()
    assert each.pump.release() is False


def test_release_of_a_lost_connection_writes_nothing(pumped: Callable[..., Pumped]) -> None:
    each = pumped()
    each.handler.send(b"to nobody")
    each.pump.transport_lost()
    assert each.pump.release() is True
    assert each.transport.sent == b""
    assert each.pump.state is PumpState.CLOSED


def test_release_lets_a_paused_transport_go_on(pumped: Callable[..., Pumped]) -> None:
    each = pumped()
    while each.transport.reading:
        each.pump.feed(DATA[:65536])
        each.turn()
    each.pump.release()
    assert each.transport.reading


@pytest.mark.parametrize("event", ["transport_lost", "handler_finished", "feed_eof", "interrupt"])
def test_what_comes_after_the_end_is_for_nothing(pumped: Callable[..., Pumped], event: str) -> None:
    each = pumped()
    each.handler.close()
    each.pump.handler_finished()
    each.turn()
    getattr(each.pump, event)()
    each.pump.readConnectionLost(Failure(ConnectionDone()))
    each.pump.feed(b"late")
    each.turn()
    assert each.state is PumpState.CLOSED


# The socket that answers for a connection


def _secured(certificate: Any) -> KernelTransport:
    transport = KernelTransport()
    directlyProvides(transport, ISSLTransport)
    transport.getPeerCertificate = lambda: certificate
    transport.getHandle = lambda: SSL.Connection(SSL.Context(SSL.TLS_METHOD))
    return transport


def test_a_pumped_socket_answers_for_its_connection() -> None:
    inner, outer = socket.socketpair()
    client = socket.socket()
    below = tcp.Connection.__new__(tcp.Connection)
    below.socket = client
    wrapper = KernelTransport()
    wrapper.transport = below
    with outer, client, PumpedSocket(fileno=inner.detach()) as request:
        with pytest.raises(OSError, match="not supported"):  # it stands for itself
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        impersonate(request, wrapper, (PEER, OWN))
        assert (request.getpeername(), request.getsockname()) == (PEER, OWN)
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert request.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        request.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # its own
        assert request.getpeercert() is None
        request.forked()
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), "the parent's"


def test_a_socket_that_stands_for_itself_answers_for_itself() -> None:
    inner, outer = socket.socketpair()
    with outer, PumpedSocket(fileno=inner.detach()) as request:
        assert request.getpeername() == request.getsockname() == ""


def test_without_a_certificate_there_is_none() -> None:
    inner, outer = socket.socketpair()
    with outer, PumpedSocket(fileno=inner.detach()) as request:
        impersonate(request, _secured(None), (PEER, OWN))
        assert request.getpeercert() is None
        assert request.tls == TLSFacts(None, None)
        with pytest.raises(ValueError, match="binary form"):
            request.getpeercert(False)
