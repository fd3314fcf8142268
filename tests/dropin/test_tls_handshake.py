"""One TLS handshake on a reactor, step by step."""

import contextlib
import gc
import socket
import ssl
import weakref

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from sockserve.core.deadlines import Deadlines
from sockserve.dropin.tls_handshake import TLSHandshake, shake_hands
from sockserve.interfaces import HandshakeFailed
from tests.integration.servers import certificate_file, trusting


@pytest.fixture
def pair(tmp_path):
    """A client whose bytes a test moves by hand, and the socket that was accepted from it."""
    accepted, far = socket.socketpair()
    far.setblocking(False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file(tmp_path))
    accepted.settimeout(7)
    server = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting().wrap_bio(incoming, outgoing)

    def step():
        """The client's next flight, for as long as it has one."""
        try:
            incoming.write(far.recv(2**16))
        except BlockingIOError:
            pass
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            pass
        said = outgoing.read()
        if said:
            far.send(said)
        return bool(said)

    with server, far:
        yield server, step


def begin(sock, seconds, linger=2):
    reactor, ended = MemoryReactorClock(), []
    deadlines = Deadlines(handshake=seconds, linger=linger)
    return reactor, ended, TLSHandshake(reactor, sock, ended.append, deadlines)


@pytest.mark.parametrize("seconds", [None, 3])
def test_it_is_done_in_as_many_steps_as_it_takes(pair, seconds):
    server, step = pair
    reactor, ended, handshake = begin(server, seconds)
    assert reactor.getReaders() == [handshake]
    while step():
        assert not ended
        handshake.doRead()
    assert ended == [None]
    assert server.gettimeout() == 7  # as it was
    assert not reactor.getReaders()
    assert not reactor.getWriters()
    assert not reactor.getDelayedCalls()


def test_its_seconds_are_in_all(pair):
    """A client that says something at 2 s has no more than 3 s either."""
    server, step = pair
    reactor, ended, handshake = begin(server, 3)
    reactor.advance(2)
    assert step()
    handshake.doRead()
    reactor.advance(0.75)
    assert not ended
    reactor.advance(0.25)
    assert [str(fault) for fault in ended] == ["the handshake deadline expired"]
    assert server.fileno() == -1
    assert not reactor.getReaders()


def test_the_reactors_loss_of_it_ends_it(pair):
    server, _ = pair
    reactor, ended, handshake = begin(server, 3)
    handshake.connectionLost(Failure(ConnectionDone()))
    assert [fault.reason for fault in ended] == ["closed by the client"]
    assert server.fileno() == -1
    assert not reactor.getDelayedCalls()


@pytest.mark.parametrize("words", [b"EHLO localhost\r\n", b"\0\1\2\3\4\5\6", b"GET / SPDY/1\n"])
def test_words_that_are_not_tls_end_it(words):
    accepted, far = socket.socketpair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
    with far, server:
        far.sendall(words)
        reactor, ended, _ = begin(server, 3)
        assert [fault.reason for fault in ended] == ["not TLS"]
        assert not reactor.getReaders()
        assert not reactor.getDelayedCalls()


@contextlib.contextmanager
def plain_http():
    """The socket that was accepted from a client that speaks plain HTTP, and the client's."""
    accepted, far = socket.socketpair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
    with far, server:
        far.sendall(b"GET / HTTP/1.1\r\n\r\n")
        yield server, far


def on_a_reactor_that_hears_of_its_end(server, far):
    _, ended, handshake = begin(server, 3)
    far.shutdown(socket.SHUT_WR)
    handshake.doRead()
    return ended


def on_a_reactor_when_time_has_run_out(server, far):
    reactor, ended, _ = begin(server, 3, linger=2)
    reactor.advance(2)
    return ended


def where_it_is_called(server, far):
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(HandshakeFailed) as raised:
        shake_hands(server, Deadlines(handshake=3))
    return [raised.value]


@pytest.mark.parametrize(
    "fail",
    [on_a_reactor_that_hears_of_its_end, on_a_reactor_when_time_has_run_out, where_it_is_called],
)
def test_nothing_is_left_of_one_that_has_met_plain_http(fail):
    sockets = []
    for _ in range(3):
        with plain_http() as (server, far):
            assert [fault.reason for fault in fail(server, far)] == ["plain HTTP"]
            sockets.append(weakref.ref(server))
        del server, far
    gc.collect()
    assert [sock() for sock in sockets] == [None] * 3


def test_a_client_that_sends_on_over_plain_http_is_read_from_once_in_a_turn():
    """However fast it is, the reactor's other turns, and the end of the time to hang up, come."""
    with plain_http() as (server, far):
        reactor, ended, handshake = begin(server, 3, linger=2)
        far.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                far.send(bytes(2**16))
        handshake.doRead()
        assert socket.socket.recv(server, 1, socket.MSG_PEEK)
        assert not ended
        reactor.advance(2)
        assert [fault.reason for fault in ended] == ["plain HTTP"]


@pytest.mark.parametrize(
    ("handshake", "linger", "seconds"),
    [(3, 7, 7), (7, 3, 3), (None, 3, 3), (3, None, 3)],
)
def test_linger_is_for_how_long_a_client_may_send_on_over_plain_http(handshake, linger, seconds):
    """Whatever the handshake had left; without it, that is all there is."""
    with plain_http() as (server, _):
        reactor, ended, _ = begin(server, handshake, linger)
        reactor.advance(seconds - 0.25)
        assert not ended
        reactor.advance(0.25)
        assert [fault.reason for fault in ended] == ["plain HTTP"]
        assert not reactor.getDelayedCalls()


def test_without_any_deadline_such_a_client_is_waited_for():
    with plain_http() as (server, far):
        reactor, ended, handshake = begin(server, None, linger=None)
        assert not reactor.getDelayedCalls()
        far.shutdown(socket.SHUT_WR)
        handshake.doRead()
        assert [fault.reason for fault in ended] == ["plain HTTP"]


@pytest.mark.parametrize(
    "deadlines", [Deadlines(linger=0.05), Deadlines(handshake=0.05, linger=None)]
)
def test_a_client_that_has_more_to_say_over_plain_http_is_told_so_where_it_is_called(deadlines):
    with plain_http() as (server, far):
        far.sendall(bytes(100_000))
        with pytest.raises(HandshakeFailed) as raised:
            shake_hands(server, deadlines)
        assert raised.value.reason == "plain HTTP"
        assert server.fileno() == -1
