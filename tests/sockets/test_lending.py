"""Lending: a socket that is found again, and what the kernel tells about it."""

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet import tcp
from twisted.internet.testing import MemoryReactor

from sockserve.sockets.lending import (
    SocketIdentity,
    TransferCounts,
    UnsentBytes,
    has_unread,
    is_lendable,
    lend,
    tcp_traffic,
)
from tests.transports import KernelTransport

pytestmark = pytest.mark.usefixtures("no_leaks")

needs_tcp_info = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells")

Pair = tuple[socket.socket, socket.socket]


def tcp_pair() -> Pair:
    """A connection over loopback: the server's end, and the client's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    return ours, client


def fill(sock: socket.socket) -> int:
    """Send until the kernel takes no more; gives how much it took."""
    given = 0
    sock.setblocking(False)
    try:
        while True:
            given += sock.send(bytes(65536))
    except BlockingIOError:
        return given
    finally:
        sock.setblocking(True)


@pytest.fixture(params=[tcp_pair, socket.socketpair], ids=["tcp", "unix"])
def pair(no_leaks: None, request: Any) -> Iterator[Pair]:
    ours, theirs = request.param()
    theirs.settimeout(10)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def tcp_sockets(no_leaks: None) -> Iterator[Pair]:
    ours, theirs = tcp_pair()
    with ours, theirs:
        yield ours, theirs


# Lending


def _connection(sock: socket.socket) -> tcp.Connection:
    sock.setblocking(False)
    connection = tcp.Connection(sock, None, MemoryReactor())
    connection.connected = True
    connection.startReading()
    connection.startWriting()
    return connection


def test_a_lent_socket_blocks_and_the_reactor_lets_go_of_it(pair: Pair) -> None:
    connection = _connection(pair[0])
    assert is_lendable(connection)
    assert lend(connection) is pair[0]
    assert pair[0].getblocking()
    assert connection.reactor.readers == connection.reactor.writers == set()


def test_a_lent_socket_has_the_default_timeout(pair: Pair) -> None:
    socket.setdefaulttimeout(7)
    try:
        assert lend(_connection(pair[0])).gettimeout() == 7
    finally:
        socket.setdefaulttimeout(None)


def test_what_is_more_than_a_socket_is_not_lent(pair: Pair) -> None:
    connection = _connection(pair[0])
    connection.TLS = True
    assert not is_lendable(connection)
    assert not is_lendable(KernelTransport())


# A socket that is found again


def test_shutdown_ends_a_direction(pair: Pair) -> None:
    SocketIdentity(pair[0]).shutdown(socket.SHUT_WR)
    assert pair[1].recv(1) == b""
    pair[1].send(b"?")
    assert pair[0].recv(1) == b"?"


def test_send_sends(pair: Pair) -> None:
    SocketIdentity(pair[0]).send(b"last words")
    assert pair[1].recv(100) == b"last words"


def test_send_does_not_wait_for_a_peer_that_does_not_read(pair: Pair) -> None:
    assert fill(pair[0])
    SocketIdentity(pair[0]).send(b"last words")


def test_a_socket_is_found_after_its_object_let_it_go(pair: Pair) -> None:
    identity = SocketIdentity(pair[0])
    with socket.socket(fileno=pair[0].detach()) as moved:
        identity.shutdown(socket.SHUT_RDWR)
        assert moved.recv(1) == b""
    assert pair[1].recv(1) == b""


def test_the_socket_stays_open(pair: Pair) -> None:
    identity = SocketIdentity(pair[0])
    identity.send(b"1")
    identity.shutdown(socket.SHUT_RD)
    pair[0].send(b"2")
    assert pair[1].recv(1) + pair[1].recv(1) == b"12"


def test_a_stranger_with_the_same_number_is_left_alone(pair: Pair) -> None:
    identity = SocketIdentity(pair[0])
    number = pair[0].detach()
    one, other = socket.socketpair()
    with other:
        os.dup2(one.fileno(), number)
        one.close()
        with socket.socket(fileno=number) as stranger:
            identity.shutdown(socket.SHUT_RDWR)
            identity.send(b"not for you")
            stranger.send(b"unharmed")
            assert other.recv(100) == b"unharmed"


def test_a_socket_that_is_closed_is_not_looked_for(pair: Pair) -> None:
    identity = SocketIdentity(pair[0])
    pair[0].close()
    identity.shutdown(socket.SHUT_RDWR)
    identity.send(b"nobody there")
    assert pair[1].recv(1) == b""


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_without_a_descriptor_to_be_had_it_does_without(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    identity = SocketIdentity(pair[0])

    def none_left(descriptor: int) -> int:
        raise OSError(number, "no more")

    with monkeypatch.context() as patch:
        patch.setattr(os, "dup", none_left)
        identity.send(b"bye")
        identity.shutdown(socket.SHUT_WR)
    assert pair[1].recv(100) == b"bye"
    assert pair[1].recv(100) == b""
    assert pair[0].fileno() >= 0


def test_a_reset_drops_what_the_peer_has_not_taken(tcp_sockets: Pair) -> None:
    ours, theirs = tcp_sockets
    SocketIdentity(ours).shutdown(socket.SHUT_RD, reset=True)
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 1, 0)
    ours.close()
    with pytest.raises(ConnectionResetError):
        theirs.recv(1)


# What the kernel tells


@needs_tcp_info
def test_traffic_counts_bytes_either_way(tcp_sockets: Pair) -> None:
    ours, theirs = tcp_sockets
    ours.sendall(b"x" * 1000)
    theirs.sendall(b"y" * 10)
    assert theirs.recv(1000, socket.MSG_WAITALL) == b"x" * 1000
    assert ours.recv(10, socket.MSG_WAITALL) == b"y" * 10
    counts = tcp_traffic(ours)
    assert counts is not None
    assert (counts.received, counts.sent) == (10, 1000)
    assert 0 <= counts.since_received < 10
    assert 0 <= counts.since_sent < 10


@needs_tcp_info
@pytest.mark.parametrize("ends", [0, 1], ids=["ours", "theirs"])
def test_traffic_does_not_count_the_end_of_a_side(tcp_sockets: Pair, ends: int) -> None:
    """It is a number of its own to TCP."""
    ours, theirs = tcp_sockets
    ours.sendall(b"one")
    assert theirs.recv(3) == b"one"
    tcp_sockets[ends].shutdown(socket.SHUT_WR)
    assert tcp_sockets[1 - ends].recv(1) == b""
    counts = tcp_traffic(ours)
    assert counts is not None
    assert (counts.received, counts.sent) == (0, 3)


@needs_tcp_info
def test_what_the_peer_has_not_taken_is_unsent(tcp_sockets: Pair) -> None:
    ours, _ = tcp_sockets
    given = fill(ours)
    counts = tcp_traffic(ours)
    assert counts is not None
    assert 0 < counts.unsent <= given
    assert counts.sent == given


def test_there_is_no_telling_of_other_sockets() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert tcp_traffic(one) is None
    assert tcp_traffic(None) is None
    closed, end = tcp_pair()
    closed.close()
    end.close()
    assert tcp_traffic(closed) is None


@pytest.mark.parametrize(
    ("since_received", "since_sent", "left"), [(3, 8, 7), (8, 3, 7), (12, 11, -1)]
)
def test_idle_seconds_count_from_the_last_byte_either_way(
    since_received: float, since_sent: float, left: float
) -> None:
    counts = TransferCounts(0, 0, 0, since_received, since_sent)
    assert counts.idle_seconds(10) == left  # 10 - the shorter of both


def looks(*told: tuple[float, TransferCounts], rate: float | None = None) -> list[float]:
    """How much is left of 10 s, at each look at what is unsent; the connection is from 0."""
    unsent = UnsentBytes(rate, 0)
    return [unsent.seconds_left(counts, 10, now) for now, counts in told]


def counts_of(sent: int, unsent: int, since_sent: float = 0.0) -> TransferCounts:
    return TransferCounts(0, sent, unsent, 0.0, since_sent)


def test_unsent_bytes_have_time_while_the_peer_takes_some() -> None:
    assert looks(
        (10, counts_of(100, 50, since_sent=4)),  # none taken since 6: 10 - (10 - 6)
        (16, counts_of(100, 49)),  # one was
        (20, counts_of(100, 49)),  # none since then: 10 - (20 - 16)
        (21, counts_of(100, 0)),  # all were
        (31, counts_of(200, 100, since_sent=0)),
    ) == [6, 10, 6, 10, 10]


def test_what_is_sent_again_and_again_does_not_count_as_taken() -> None:
    """Nothing comes back from a peer that is gone without a word, and the kernel tries on."""
    again = counts_of(100, 50, since_sent=0.1)
    first, second, third = looks((10, again), (15, again), (20, again))
    assert first == pytest.approx(9.9)
    assert second == pytest.approx(4.9)
    assert third < 0


def taken(size: int) -> TransferCounts:
    """So much has been taken of 1,000 bytes, and something a moment ago."""
    return counts_of(1000, 1000 - size)


def test_a_peer_that_takes_too_little_may_be_behind_for_so_long() -> None:
    """At 10 bytes a second, of which it takes 5."""
    told = [(second, taken(second * 5)) for second in (10, 20, 25, 29, 30)]
    # The first look begins it: 10 s; each second from then on costs half of one.
    assert looks(*told, rate=10) == [10, 5, 2.5, 1, 0]


def test_a_peer_that_takes_enough_is_never_late() -> None:
    told = [(second, taken(second * 10)) for second in range(5, 95, 5)]
    assert looks(*told, rate=10) == [10] * len(told)


def test_what_was_taken_in_a_burst_does_not_let_a_peer_trickle_for_ever() -> None:
    burst = [(10, taken(0)), (11, taken(900))]
    trickle = [(second, taken(900 + (second - 11))) for second in (15, 19, 21, 23)]
    left = looks(*burst, *trickle, rate=10)
    assert left[:2] == [10, 10]
    assert left[2:] == pytest.approx([6.4, 2.8, 1, 0])


def test_a_peer_that_has_taken_all_begins_anew() -> None:
    told = [(10, taken(0)), (19, taken(1)), (20, taken(1000)), (30, counts_of(2000, 1000))]
    assert looks(*told, rate=10) == [10, pytest.approx(1.1), 10, 10]


def test_what_was_written_just_now_is_not_late_because_the_connection_was_silent() -> None:
    """The peer has no room for it yet, and the last byte was sent long ago."""
    silent = (60, counts_of(100, 0, since_sent=60))
    full = (61, counts_of(110, 10, since_sent=61))  # the look before this one was a second ago
    assert looks(silent, full) == [10, 9]


# What has arrived


def test_what_nobody_has_read_is_seen_and_left(pair: Pair) -> None:
    ours, theirs = pair
    assert not has_unread(ours)
    theirs.send(b"some")
    assert has_unread(ours)
    assert ours.recv(10) == b"some"
    assert not has_unread(ours)
    theirs.shutdown(socket.SHUT_WR)
    assert not has_unread(ours)
    ours.close()
    assert not has_unread(ours)
