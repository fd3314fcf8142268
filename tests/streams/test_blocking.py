"""The channels of blocking handlers: a socket that is lent, or one end of a pump."""

import errno
import socket
import socketserver
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from sockserve.interfaces import Outcome, Phase
from sockserve.sockets.lending import TransferCounts
from sockserve.sockets.pumped_socket import PumpedSocket
from sockserve.sockets.pumping import PumpState
from sockserve.streams.blocking import (
    LentSocketChannel,
    PumpedSocketChannel,
    socket_channel_maker,
)
from tests.sockets.test_lending import needs_tcp_info, tcp_pair
from tests.streams.owner import CLIENT, SERVER, Owner, SteppedExecutor

MakeOwner = Callable[..., Owner]
Serving = Callable[..., Owner]


needs_epoll = pytest.mark.skipif(sys.platform != "linux", reason="it is told of by epoll")


class Answers(socketserver.StreamRequestHandler):
    """Answers with what it has read."""

    def handle(self) -> None:
        self.wfile.write(b"<" + self.rfile.readline().strip() + b">")


class Fails(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        raise ValueError("no")


def channel(owner: Any) -> LentSocketChannel | PumpedSocketChannel:
    made = socket_channel_maker(owner.factory)(owner, (CLIENT, SERVER))
    assert isinstance(made, LentSocketChannel | PumpedSocketChannel)
    return made


def told(counts: TransferCounts) -> Callable[[Any], LentSocketChannel]:
    """What makes a channel to which the kernel tells this."""
    return lambda owner: LentSocketChannel(owner, lambda sock: counts)


@pytest.fixture
def serving(owner: MakeOwner) -> Iterator[Serving]:
    """Makes connections whose handler has a thread, and runs when the executor is stepped."""
    made: list[Owner] = []

    def make(
        handler: Any = Answers,
        *,
        plain: bool = True,
        counts: TransferCounts | None = None,
        **options: Any,
    ) -> Owner:
        """
        @param counts: what the kernel tells of a lent socket, instead of what is true.
        """
        executor = options.pop("executor", None) or SteppedExecutor()
        make_channel = channel if counts is None else told(counts)
        owned = owner(handler, make_channel, plain=plain, executor=executor, **options)
        made.append(owned)
        owned.channel.start()
        return owned

    yield make
    for owned in made:
        owned.channel.request.close()
        if isinstance(owned.channel, PumpedSocketChannel):
            owned.channel._pump.connectionLost(Failure(ConnectionDone()))


def executor_of(owned: Owner) -> SteppedExecutor:
    executor = owned.factory.concurrency
    assert isinstance(executor, SteppedExecutor)
    return executor


def receive(owned: Owner, data: bytes) -> None:
    """The client sends, as far as the handler's socket."""
    if owned.client is None:
        owned.dataReceived(data)
    else:
        owned.client.send(data)
    owned.turn()


def input_has_ended(owned: Owner) -> bool:
    """Whether the handler would read the end of file."""
    owned.turn()
    try:
        return not owned.channel.request.recv(1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


both = pytest.mark.parametrize("plain", [True, False], ids=["lent", "pumped"])


# Both


def test_what_is_nothing_but_a_socket_is_lent(serving: Serving) -> None:
    assert isinstance(serving().channel, LentSocketChannel)
    assert isinstance(serving(plain=False).channel, PumpedSocketChannel)


@both
def test_a_handler_has_a_blocking_socket_and_its_client_the_answer(
    serving: Serving, plain: bool
) -> None:
    owned = serving(plain=plain)
    assert owned.channel.request.getblocking()
    owned.advance(3)
    receive(owned, b"one\n")
    executor_of(owned).step()
    assert owned.sent() == b"<one>"
    assert owned.outcomes == [(3, Outcome.OK)]
    assert owned.record.phases["queue"] == 0
    assert owned.channel.request.fileno() < 0
    if not plain:
        assert owned.below.disconnecting
        owned.connectionLost(Failure(ConnectionDone()))
        assert (owned.record.received, owned.record.sent) == (4, 5)
    assert owned.is_finished


@both
def test_a_handler_that_raises_has_failed(serving: Serving, plain: bool) -> None:
    owned = serving(Fails, plain=plain)
    executor_of(owned).step()
    assert [str(error) for error in owned.factory.raised] == ["no"]
    assert owned.outcomes == [(0, Outcome.ERROR)]


@both
def test_without_a_thread_the_request_is_an_error_and_closed(serving: Serving, plain: bool) -> None:
    owned = serving(plain=plain)
    error = OSError(errno.EAGAIN, "no thread")
    assert isinstance(owned.channel, LentSocketChannel | PumpedSocketChannel)
    owned.channel.failed(error)
    assert owned.factory.raised == [error]
    assert owned.channel.request.fileno() < 0
    owned.turn()
    if not plain:
        assert owned.below.disconnecting
        owned.connectionLost(Failure(ConnectionDone()))
    assert owned.outcomes == [(0, Outcome.ERROR)]
    assert owned.is_finished


@both
def test_a_deadline_wakes_the_handler(serving: Serving, plain: bool) -> None:
    owned = serving(plain=plain, handle=10)
    assert not input_has_ended(owned)
    owned.advance(10)
    assert owned.expired == [Phase.HANDLE]
    assert input_has_ended(owned)
    with pytest.raises(BrokenPipeError):
        owned.channel.request.send(b"more")
    executor_of(owned).step()
    assert owned.outcomes == [(10, Outcome.LOST)]


@both
def test_a_deadline_kills_what_can_be_killed(serving: Serving, plain: bool) -> None:
    owned = serving(plain=plain, handle=10, executor=SteppedExecutor(killable=True))
    owned.advance(10)
    assert executor_of(owned).killed == [owned.channel]
    assert not input_has_ended(owned)


@needs_epoll
@pytest.mark.parametrize("sockets", [tcp_pair, socket.socketpair], ids=["tcp", "unix"])
def test_nobody_waits_for_a_thread_for_a_client_that_has_reset(
    serving: Serving, sockets: Any
) -> None:
    owned = serving(executor=SteppedExecutor(limit=0), sockets=sockets)
    assert owned.client is not None
    owned.client.send(b"hello\n")
    if sockets is tcp_pair:
        owned.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        owned.channel.request.send(b"unread")
    owned.client.close()
    owned.turn()
    assert executor_of(owned).jobs == []
    assert owned.outcomes == []
    assert owned.record.outcome == "lost"
    assert owned.is_finished


@needs_epoll
def test_what_a_client_has_sent_before_it_hung_up_is_served(serving: Serving) -> None:
    owned = serving(executor=SteppedExecutor(limit=0))
    assert owned.client is not None
    owned.client.send(b"hello\n")
    owned.client.close()
    owned.turn()
    (job,) = executor_of(owned).jobs
    job.started()
    executor_of(owned).step()
    assert owned.factory.raised[0] is not None  # that it cannot answer
    owned.turn()
    assert owned.is_finished


@needs_epoll
def test_one_that_has_said_nothing_and_hung_up_is_not(serving: Serving) -> None:
    owned = serving(executor=SteppedExecutor(limit=0))
    assert owned.client is not None
    owned.client.close()
    owned.turn()
    assert executor_of(owned).jobs == []
    assert owned.is_finished


def test_nobody_waits_for_a_thread_for_a_transport_that_has_broken(serving: Serving) -> None:
    owned = serving(plain=False, executor=SteppedExecutor(limit=0))
    owned.dataReceived(b"hello\n")
    owned.connectionLost(Failure(ConnectionLost()))
    owned.turn()
    assert executor_of(owned).jobs == []
    assert owned.record.outcome == "lost"
    assert owned.is_finished


def test_what_came_before_an_end_in_order_is_served(serving: Serving) -> None:
    """Over TLS: the client has closed the connection."""
    owned = serving(plain=False, executor=SteppedExecutor(limit=0))
    owned.dataReceived(b"hello\n")
    owned.connectionLost(Failure(ConnectionDone()))
    owned.turn()
    (job,) = executor_of(owned).jobs
    job.started()
    executor_of(owned).step()
    owned.turn()
    assert owned.is_finished


@both
def test_a_handler_that_waits_for_a_thread_is_withdrawn(serving: Serving, plain: bool) -> None:
    owned = serving(plain=plain, executor=SteppedExecutor(limit=0))
    owned.channel.abort()
    assert executor_of(owned).jobs == []
    assert owned.channel.request.fileno() < 0
    owned.turn()
    if not plain:
        assert owned.below.aborted
        owned.connectionLost(Failure(ConnectionDone()))
    assert owned.outcomes == []
    assert owned.is_finished


@both
def test_a_handler_that_does_not_end_is_abandoned(serving: Serving, plain: bool) -> None:
    owned = serving(plain=plain)
    owned.channel.abandon()
    assert owned.is_finished
    assert owned.factory.statistics.abandoned == 1
    assert input_has_ended(owned)
    executor_of(owned).step()
    assert owned.factory.statistics.abandoned == 0


@both
def test_the_parent_closes_its_copy_when_a_child_has_one(serving: Serving, plain: bool) -> None:
    owned = serving(plain=plain)
    assert isinstance(owned.channel, LentSocketChannel | PumpedSocketChannel)
    needed, notice = owned.channel.descriptors
    assert notice == -1  # nothing forks here
    assert needed == owned.channel.request.fileno()
    assert needed in owned.channel.owned_descriptors()
    owned.channel.forked()
    assert owned.channel.request.fileno() < 0
    assert not owned.is_finished


# Draining: a client that was quiet for a while is between two messages


@both
def test_the_input_of_a_quiet_client_ends_when_the_service_stops(
    serving: Serving, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned = serving(plain=plain, quiet=7)
    if plain:  # the kernel's clock does not stand still
        monkeypatch.setattr(owned.channel, "quiet_seconds", owned.reactor.seconds)
    owned.channel.drain()
    owned.advance(6.75)
    assert not input_has_ended(owned)
    owned.advance(0.25)
    assert input_has_ended(owned)
    assert owned.expired == []
    owned.channel.request.send(b"bye")  # its output goes on
    assert owned.sent() == b"bye"


def test_a_client_that_speaks_puts_the_end_off(serving: Serving) -> None:
    owned = serving(plain=False)
    owned.channel.drain()
    owned.advance(0.75)
    receive(owned, b"more")
    assert owned.channel.request.recv(4) == b"more"
    owned.advance(0.75)  # 1.5, which is less than 0.75 + 1 (quiet)
    assert not input_has_ended(owned)


@both
def test_a_quiet_client_is_left_alone_if_none_is_taken_for_quiet(
    serving: Serving, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C{idle} goes on, which passes at 5 s."""
    owned = serving(plain=plain, quiet=None, idle=5)
    if plain:
        monkeypatch.setattr(owned.channel, "quiet_seconds", owned.reactor.seconds)
        idle_seconds = lambda: 5 - owned.reactor.seconds()  # noqa: E731
        monkeypatch.setattr(owned.channel, "_idle_seconds", idle_seconds)
    owned.channel.drain()
    owned.advance(4.75)
    assert not input_has_ended(owned)
    owned.advance(0.25)
    assert owned.expired == [Phase.IDLE]


def test_where_nobody_can_tell_a_client_is_not_taken_for_quiet(serving: Serving) -> None:
    owned = serving()  # a UNIX socket, lent
    owned.channel.drain()
    owned.advance(60)
    assert not input_has_ended(owned)


# Lent


def test_the_reactor_lets_go_of_a_lent_connection(serving: Serving) -> None:
    owned = serving()
    assert owned.transport is None
    assert owned.reactor.readers == owned.reactor.writers == set()
    assert (owned.record.received, owned.record.sent) == (None, None)  # it cannot tell


@needs_tcp_info
def test_the_kernel_tells_what_moved_on_a_lent_connection(serving: Serving) -> None:
    owned = serving(sockets=tcp_pair)
    receive(owned, b"one\n")
    executor_of(owned).step()
    assert (owned.record.received, owned.record.sent) == (4, 5)


@needs_tcp_info
def test_idle_is_put_off_by_what_the_kernel_tells(serving: Serving) -> None:
    owned = serving(sockets=tcp_pair, idle=1000)
    owned.advance(1000)  # but next to nothing by the kernel's clock
    assert owned.expired == []
    (call,) = owned.reactor.getDelayedCalls()
    assert 1000 < call.getTime() <= 2000


@pytest.mark.parametrize(
    ("unsent", "since_received", "since_sent", "expired"),
    [
        (0, 12, 11, [Phase.IDLE]),
        (0, 9, 11, []),  # the client speaks
        (0, 11, 9, []),  # the handler does
        (5, 9, 11, [Phase.WRITE]),
    ],
)
def test_idle_and_write_pass_when_the_kernel_says_so(
    serving: Serving,
    unsent: int,
    since_received: float,
    since_sent: float,
    expired: list[Phase],
) -> None:
    counts = TransferCounts(0, 0, unsent, since_received, since_sent)
    owned = serving(counts=counts, idle=10, write=10)
    owned.advance(10)
    assert owned.expired == expired
    assert input_has_ended(owned) is bool(expired)


def test_idle_does_not_apply_where_the_kernel_does_not_tell(serving: Serving) -> None:
    owned = serving(idle=10, write=10)
    owned.advance(10)
    assert owned.expired == []
    assert not input_has_ended(owned)


@pytest.mark.parametrize("phase", [Phase.WRITE, Phase.DRAIN])
def test_what_the_peer_does_not_take_is_dropped_at_the_end(serving: Serving, phase: Phase) -> None:
    owned = serving()
    request = owned.channel.request
    owned.channel.deadline_passed(phase)
    assert request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 1, 0)
    assert input_has_ended(owned)


def test_a_request_closed_without_its_handler_is_the_connections_end(serving: Serving) -> None:
    """An override of C{process_request} serves by its own means, on any thread."""
    owned = serving(executor=SteppedExecutor(limit=0))
    owned.factory.close_request(owned.channel.request)
    assert not owned.is_finished
    owned.turn()
    assert owned.is_finished


# Pumped


def pump_state(owned: Owner) -> PumpState:
    assert isinstance(owned.channel, PumpedSocketChannel)
    return owned.channel._pump.state


def test_a_pumped_socket_says_whose_it_is(serving: Serving) -> None:
    request = serving(plain=False).channel.request
    assert isinstance(request, PumpedSocket)
    assert (request.getpeername(), request.getsockname()) == (CLIENT, SERVER)


def test_the_clients_end_is_the_handlers_end_of_file(serving: Serving) -> None:
    owned = serving(plain=False)
    receive(owned, b"last\n")
    owned.readConnectionLost()
    executor_of(owned).step()
    assert owned.sent() == b"<last>"


def test_a_handler_whose_connection_is_lost_reads_what_came(serving: Serving) -> None:
    owned = serving(plain=False)
    receive(owned, b"last\n")
    owned.connectionLost(Failure(ConnectionDone()))
    assert owned.record.received == 5
    assert not owned.is_finished
    executor_of(owned).step()
    assert owned.sent() == b""
    assert owned.is_finished
    owned.turn()
    assert pump_state(owned) is PumpState.CLOSED


class Computes(socketserver.BaseRequestHandler):
    """Answers, and computes past C{write}."""

    def handle(self) -> None:
        self.request.sendall(b"answer")
        self.during()

    def during(self) -> None:
        """The test's."""


@pytest.mark.parametrize("reason", [ConnectionDone, ConnectionLost])
@pytest.mark.parametrize("closes", [False, True])
def test_a_handler_of_a_lost_client_may_compute_past_write(
    serving: Serving, reason: type[Exception], closes: bool
) -> None:
    """Nobody is left to take what it has sent, and it has no idle connection either."""

    class Handler(Computes):
        def during(self) -> None:
            if closes:
                self.request.close()
            owned.turn()
            owned.connectionLost(Failure(reason()))
            owned.advance(100)

    owned = serving(Handler, plain=False, write=5, idle=5)
    executor_of(owned).step()
    assert owned.expired == []
    assert owned.outcomes == [(100, Outcome.OK)]
    assert owned.is_finished


@pytest.mark.parametrize(("phase", "aborts"), [(Phase.WRITE, True), (Phase.HANDLE, False)])
def test_a_peer_that_takes_nothing_loses_its_connection(
    serving: Serving, phase: Phase, aborts: bool
) -> None:
    owned = serving(plain=False)
    owned.channel.deadline_passed(phase)
    assert owned.below.aborted is aborts
    assert input_has_ended(owned)


def test_a_lost_connection_is_not_aborted(serving: Serving) -> None:
    """Twisted's TLS cannot stand it then."""
    owned = serving(plain=False)
    owned.connectionLost(Failure(ConnectionDone()))
    owned.channel.abort()
    assert not owned.below.aborted


def test_idle_is_the_pumps_to_keep(serving: Serving) -> None:
    owned = serving(plain=False, idle=10)
    owned.advance(6)
    receive(owned, b"a")  # 6 + 10 = 16
    owned.advance(9)
    assert owned.expired == []
    owned.advance(1)
    assert owned.expired == [Phase.IDLE]


def test_a_pumped_request_closed_without_its_handler_ends_its_connection(serving: Serving) -> None:
    owned = serving(plain=False, executor=SteppedExecutor(limit=0))
    owned.channel.request.send(b"refused")
    owned.factory.shutdown_request(owned.channel.request)
    owned.turn()
    assert owned.below.sent == b"refused"
    assert owned.below.disconnecting
    assert pump_state(owned) is PumpState.CLOSED


# A handler that leaves something unread: the kernel would answer that with a reset, which
# overtakes the answer.


class Leaves(socketserver.BaseRequestHandler):
    """Answers without a look at the question."""

    def handle(self) -> None:
        self.request.sendall(b"whatever")


def left_unread(serving: Serving) -> Owner:
    owned = serving(Leaves, plain=False, linger=20)
    receive(owned, b"a question")
    executor_of(owned).step()
    owned.turn()
    assert owned.below.sent == b"whatever"
    assert owned.below.write_ended
    assert not owned.below.disconnected
    owned.channel.output_ended()
    return owned


def test_the_rest_of_a_question_is_thrown_away_until_the_client_ends(serving: Serving) -> None:
    owned = left_unread(serving)
    receive(owned, b"and more")
    owned.channel.eof_received()
    assert owned.below.disconnected
    assert owned.expired == []


def test_the_rest_of_a_question_is_thrown_away_for_a_while(serving: Serving) -> None:
    owned = left_unread(serving)
    owned.advance(19.9)
    receive(owned, b"and more")
    assert not owned.below.disconnected
    owned.advance(0.1)
    assert owned.below.disconnected
    assert owned.expired == []


class EndsItsOutput(socketserver.BaseRequestHandler):
    """Answers without a look at the question, ends its output, and leaves when that has left."""

    def handle(self) -> None:
        self.request.sendall(b"whatever")
        self.request.shutdown(socket.SHUT_WR)
        self.server.output_has_left()  # type: ignore[attr-defined]


@pytest.mark.parametrize("client_ends", [False, True])
@pytest.mark.parametrize("size", [1, 1_000_000])  # the latter is more than a socketpair holds
def test_output_that_has_left_before_its_handler_is_not_waited_for(
    serving: Serving, client_ends: bool, size: int
) -> None:
    owned = serving(EndsItsOutput, plain=False)
    receive(owned, bytes(size))

    def output_has_left() -> None:
        owned.turn()
        assert owned.below.write_ended
        owned.channel.output_ended()
        if client_ends:
            owned.channel.eof_received()
            assert not owned.below.disconnected  # the handler may read on

    owned.factory.output_has_left = output_has_left  # type: ignore[attr-defined]
    executor_of(owned).step()
    owned.turn()
    assert owned.below.sent == b"whatever"
    assert bool(owned.below.disconnected) is client_ends
    owned.advance(2)  # it lingers from then on
    assert owned.below.disconnected
    assert owned.expired == []


def test_while_the_service_stops_each_byte_of_a_pumped_client_is_waited_for_a_second(
    serving: Serving,
) -> None:
    owned = serving(plain=False, idle=100)
    owned.channel.drain()
    owned.advance(0.9)
    receive(owned, b"half ")
    owned.advance(0.9)
    assert not input_has_ended_of(owned, b"half ")
    owned.advance(0.1)  # 0.9 + 1 = 1.9
    assert input_has_ended(owned)
    assert owned.expired == []


def input_has_ended_of(owned: Owner, read: bytes) -> bool:
    """Whether the handler would read the end of file after C{read}."""
    assert owned.channel.request.recv(100, socket.MSG_DONTWAIT) == read
    return input_has_ended(owned)
