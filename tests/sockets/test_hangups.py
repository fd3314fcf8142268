"""Hang-ups that are noticed though nobody reads."""

import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from twisted.internet import tcp

from sockserve.sockets.hangups import (
    Hangup,
    HangupWatch,
    connection_below,
    hangup_of,
    peer_is_gone,
)
from tests.sockets.test_lending import tcp_pair
from tests.transports import KernelTransport, SteppedReactor

Pair = tuple[socket.socket, socket.socket]
Pairs = Callable[[], Pair]

watches = pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux's")
both = pytest.mark.parametrize("pairs", [tcp_pair, socket.socketpair], ids=["tcp", "unix"])


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.fixture
def made(no_leaks: None) -> Iterator[list[socket.socket]]:
    sockets: list[socket.socket] = []
    yield sockets
    for each in sockets:
        each.close()


def both_of(made: list[socket.socket], pair: Pair) -> Pair:
    """C{pair}, to be closed after the test."""
    made += pair
    return pair


# What the kernel knows


@both
def test_a_connection_that_both_use_is_not_hung_up(pairs: Pairs, made: list[socket.socket]) -> None:
    one, other = both_of(made, pairs())
    assert hangup_of(one) is Hangup.NONE
    other.send(b"unread")
    assert hangup_of(one) is Hangup.NONE


@both
def test_a_side_that_has_ended_is_not_hung_up(pairs: Pairs, made: list[socket.socket]) -> None:
    one, other = both_of(made, pairs())
    other.shutdown(socket.SHUT_WR)
    assert hangup_of(one) is Hangup.ENDED


def test_a_unix_socket_knows_that_the_other_is_closed(made: list[socket.socket]) -> None:
    one, other = both_of(made, socket.socketpair())
    other.close()
    assert hangup_of(one) is Hangup.HUNG_UP


def test_a_tcp_socket_does_not(made: list[socket.socket]) -> None:
    one, other = both_of(made, tcp_pair())
    other.close()
    assert hangup_of(one) is Hangup.ENDED


@both
def test_what_the_other_did_not_read_breaks_the_connection(
    pairs: Pairs, made: list[socket.socket]
) -> None:
    one, other = both_of(made, pairs())
    one.send(b"unread")
    other.close()
    assert hangup_of(one) is Hangup.BROKEN


def test_a_reset_breaks_it_whatever_came_before(made: list[socket.socket]) -> None:
    one, other = both_of(made, tcp_pair())
    other.send(b"unread")
    reset(other)
    assert hangup_of(one) is Hangup.BROKEN


def test_a_closed_socket_is_broken(made: list[socket.socket]) -> None:
    one, _ = both_of(made, socket.socketpair())
    one.close()
    assert hangup_of(one) is Hangup.BROKEN


# Whether the peer is there


@both
def test_a_connection_in_use_is_neither_broken_nor_gone(
    pairs: Pairs, made: list[socket.socket]
) -> None:
    ours, theirs = both_of(made, pairs())
    assert not hangup_of(ours).is_final
    assert not peer_is_gone(ours)
    theirs.send(b"unread")
    assert not hangup_of(ours).is_final
    assert not peer_is_gone(ours)
    assert ours.recv(100) == b"unread"  # nothing was taken


def test_a_peer_that_has_ended_its_side_is_gone_but_the_connection_is_not_broken(
    made: list[socket.socket],
) -> None:
    ours, theirs = both_of(made, tcp_pair())
    theirs.shutdown(socket.SHUT_WR)
    assert ours.recv(1) == b""
    assert not hangup_of(ours).is_final
    assert peer_is_gone(ours)


def test_a_reset_connection_is_broken_even_with_bytes_to_read(made: list[socket.socket]) -> None:
    ours, theirs = both_of(made, tcp_pair())
    theirs.send(b"unread")
    assert ours.recv(1, socket.MSG_PEEK) == b"u"
    reset(theirs)
    assert hangup_of(ours).is_final
    assert peer_is_gone(ours)


@both
@pytest.mark.parametrize("timeout", [None, 0, 60])
def test_looking_never_blocks(
    pairs: Pairs, made: list[socket.socket], timeout: float | None
) -> None:
    ours, _ = both_of(made, pairs())
    ours.settimeout(timeout)
    began = time.monotonic()
    assert not peer_is_gone(ours)
    assert time.monotonic() - began < 30


def test_of_a_closed_socket_the_peer_is_gone(made: list[socket.socket]) -> None:
    one, _ = both_of(made, socket.socketpair())
    one.close()
    assert hangup_of(one).is_final
    assert peer_is_gone(one)


def test_only_sockets_have_a_peer() -> None:
    assert not peer_is_gone((b"a datagram", None))


# The watch


@pytest.fixture
def reactor() -> SteppedReactor:
    return SteppedReactor()


@watches
@both
def test_the_end_of_a_watched_connection_is_told_once(
    pairs: Pairs, made: list[socket.socket], reactor: SteppedReactor
) -> None:
    one, other = both_of(made, pairs())
    told: list[str] = []
    watch = HangupWatch()
    number = watch.watch(reactor, one, lambda: told.append("gone"))
    other.send(b"unread")
    reactor.turn()
    assert told == []
    one.send(b"unread")
    other.close()
    reactor.turn()
    reactor.turn()
    assert told == ["gone"]
    watch.forget(number)
    reactor.turn()
    assert list(watch.descriptors()) == []


@watches
@pytest.mark.parametrize("ended", [False, True])
def test_the_end_of_one_side_is_told_if_that_is_asked_for(
    ended: bool, made: list[socket.socket], reactor: SteppedReactor
) -> None:
    one, other = both_of(made, tcp_pair())
    told: list[str] = []
    watch = HangupWatch()
    number = watch.watch(reactor, one, lambda: told.append("ended"), ended=ended)
    other.shutdown(socket.SHUT_WR)
    reactor.turn()
    assert told == ["ended"] * ended
    watch.forget(number)
    reactor.turn()


@watches
def test_what_was_told_can_be_watched_again(
    made: list[socket.socket], reactor: SteppedReactor
) -> None:
    one, other = both_of(made, tcp_pair())
    told: list[str] = []
    watch = HangupWatch()
    watch.watch(reactor, one, lambda: told.append("first"), ended=True)
    other.shutdown(socket.SHUT_WR)
    reactor.turn()
    number = watch.watch(reactor, one, lambda: told.append("second"))
    one.send(b"unread")
    other.close()
    reactor.turn()
    assert told == ["first", "second"]
    watch.forget(number)
    reactor.turn()


@watches
def test_one_descriptor_is_held_for_all_and_for_none_none(
    made: list[socket.socket], reactor: SteppedReactor
) -> None:
    watch = HangupWatch()
    numbers = []
    for _ in range(3):
        one, _ = both_of(made, socket.socketpair())
        numbers.append(watch.watch(reactor, one, list))
    numbers.append(watch.watch(reactor, one, list))  # known
    assert len(list(watch.descriptors())) == 1
    for number in numbers[:2]:
        watch.forget(number)
    assert len(list(watch.descriptors())) == 1
    watch.forget(numbers[2])
    reactor.turn()
    assert list(watch.descriptors()) == []
    assert not reactor.readers


@watches
def test_a_closed_descriptor_is_neither_watched_nor_missed(
    made: list[socket.socket], reactor: SteppedReactor
) -> None:
    one, _ = both_of(made, socket.socketpair())
    watch = HangupWatch()
    number = watch.watch(reactor, one, list)
    one.close()
    watch.forget(number)
    assert watch.watch(reactor, one, list) == -1
    reactor.turn()
    assert list(watch.descriptors()) == []


# What is below


def test_the_connection_below_all_wrapping() -> None:
    class Wrapper:
        def __init__(self, transport: object) -> None:
            self.transport = transport

    one, other = socket.socketpair()
    with other:
        connection = tcp.Connection(one, None, SteppedReactor())  # type: ignore[arg-type]
        assert connection_below(connection) is connection
        assert connection_below(Wrapper(Wrapper(connection))) is connection
        assert connection_below(Wrapper(KernelTransport())) is None
        assert connection_below(None) is None
        one.close()
