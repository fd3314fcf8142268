"""The options by which the kernel finds out that a peer is no more."""

import socket
from collections.abc import Iterator

import pytest

from sockserve import Deadlines
from sockserve.sockets.keepalive import keep_alive

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="these are Linux's options"
)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as each:
        yield each


def options(sock: socket.socket) -> tuple[int, ...]:
    """Whether it asks; after how long, how often and how many times; and the limit in ms."""
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    asks = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    return (asks, *(sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names))


def test_what_is_accepted_inherits_the_options(listening: socket.socket) -> None:
    keep_alive(listening, Deadlines())
    with socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            # 60 / 4, four times; in all 60 + 4 * 15
            assert options(accepted) == (1, 60, 15, 4, 120_000)


def test_parts_of_a_second_are_rounded_up(listening: socket.socket) -> None:
    keep_alive(listening, Deadlines(keepalive=2.5, user_timeout=0.0001))
    assert options(listening) == (1, 3, 1, 4, 1)


def test_the_longest_times_are_the_kernels_own(listening: socket.socket) -> None:
    keep_alive(listening, Deadlines(keepalive=1e9, user_timeout=1e9))
    assert options(listening) == (1, 32767, 32767, 4, 2**31 - 1)


def test_nothing_is_set_that_is_not_asked_for(listening: socket.socket) -> None:
    before = options(listening)
    keep_alive(listening, Deadlines(keepalive=None))
    assert options(listening) == before


def test_what_was_set_before_stays(listening: socket.socket) -> None:
    """By systemd, or by the program."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 77)
    before = options(listening)
    keep_alive(listening, Deadlines())
    assert options(listening) == before


def test_others_than_tcp_sockets_are_left_alone(listening: socket.socket) -> None:
    listening.close()
    for sock in (socket.socket(socket.AF_UNIX), socket.socket(type=socket.SOCK_DGRAM), listening):
        with sock:
            keep_alive(sock, Deadlines())
            if sock.fileno() >= 0:
                assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    keep_alive(object(), Deadlines())
