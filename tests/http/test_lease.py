"""Leases: the handler's socket, and how the connection itself comes to it and back."""

import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet import tcp
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.deadlines import Deadlines
from sockserve.http.handler_socket import RequestSocket
from sockserve.http.lease import ConnectionLease, LentLease, PumpedLease, make_lease
from sockserve.interfaces import Phase
from sockserve.sockets.lending import TransferCounts
from sockserve.streams.channel import Pending
from sockserve.streams.writer import StreamWriter
from tests.sockets.test_lending import fill, needs_tcp_info, tcp_pair
from tests.transports import KernelTransport, SteppedReactor

CLIENT = ("192.0.2.1", 50000)
SERVER = ("192.0.2.2", 7000)


@implementer(IHalfCloseableProtocol)
class Lessor:
    """
    A channel as a lease sees it, on a reactor that is stepped.

    @ivar client: the other end of a plain connection.
    @ivar lease: of this connection.
    @ivar received: what the reactor has read of it.
    @ivar expired: deadlines of which the lease said that they apply.
    """

    client: socket.socket | None = None

    def __init__(
        self,
        *,
        plain: bool = True,
        sockets: Callable[[], tuple[socket.socket, socket.socket]] = socket.socketpair,
        counts: TransferCounts | None = None,
        **deadlines: Any,
    ) -> None:
        """
        @param plain: whether the transport is nothing but a socket, or one in memory with
            something in between.
        @param counts: what the kernel tells of it, instead of what is true.
        """
        self.factory = self
        self.reactor = SteppedReactor()
        self.timer = DeadlineTimer(self.reactor, self._deadline_passed)
        self.deadlines = Deadlines(**deadlines)
        self.addresses = (CLIENT, SERVER)
        self.parts = Pending.CONNECTION
        self.is_lendable = plain
        self.is_paused = False
        self.received = b""
        self.expired: list[Phase] = []
        self.transport: Any
        if plain:
            self._socket, self.client = sockets()
            self._socket.setblocking(False)
            self.client.setblocking(False)
            self.transport = tcp.Connection(self._socket, self, self.reactor)
            self.transport.connected = True
            self.transport.startReading()
        else:
            self.transport = KernelTransport()
        #: The transport, also when the lease has had it given up.
        self.below = self.transport
        self.writer = StreamWriter(self.transport, plain, self.deadlines, self.timer)
        self.lease: ConnectionLease
        if counts is None:
            self.lease = make_lease(self)
        else:
            self.lease = LentLease(self, lambda sock: counts)
        self.requests: list[RequestSocket] = []

    # What a lease calls

    def resume(self) -> None:
        self.is_paused = False

    def own_socket(self) -> socket.socket:
        return self.transport.socket

    def give_up_transport(self) -> None:
        self.transport.socket.detach()
        self.transport = None
        self.parts &= ~Pending.CONNECTION

    # What the transport calls

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def readConnectionLost(self) -> None:
        self.received += b"<eof>"

    def writeConnectionLost(self) -> None:
        """This side's own doing."""

    def connectionLost(self, reason: Failure) -> None:
        self.parts &= ~Pending.CONNECTION
        self.lease.descriptor_lost()
        self.lease.connection_lost()
        self.writer.discard(BrokenPipeError())

    def _deadline_passed(self, phase: Phase) -> None:
        if self.lease.deadline_applies(phase):
            self.expired.append(phase)

    # What a test does

    def open(self) -> RequestSocket:
        request = self.lease.open()
        self.requests.append(request)
        return request

    def grant(self, switches: bool = False) -> RequestSocket:
        """A handler has the connection."""
        request = self.open()
        self.lease.grant(switches)
        request.settimeout(10)
        request.become_blocking()
        return request

    def turn(self) -> None:
        self.reactor.turn()
        if self.client is None:
            self.below.make_room(0)
            self.reactor.turn()

    def advance(self, seconds: float) -> None:
        self.reactor.advance(seconds)
        self.turn()

    def client_sends(self, data: bytes) -> None:
        """As far as the handler's socket, when it has the connection."""
        if self.client is None:
            self.lease.feed(data)
        else:
            self.client.send(data)
        self.turn()

    def sent(self) -> bytes:
        """What the client can read now, with a mark where that ends."""
        self.turn()
        if self.client is None:
            return bytes(self.below.sent)
        pieces = []
        try:
            while piece := self.client.recv(65536):
                pieces.append(piece)
        except BlockingIOError:
            return b"".join(pieces)
        except ConnectionResetError:
            return b"".join([*pieces, b"<reset>"])
        return b"".join([*pieces, b"<eof>"])

    def lose(self) -> None:
        """The connection is lost."""
        if self.client is None:
            self.connectionLost(Failure(ConnectionDone()))
        else:
            self.transport.connectionLost(Failure(ConnectionDone()))
        self.turn()

    def close(self) -> None:
        """Whatever has not ended does."""
        if self.parts & Pending.CONNECTION:
            self.lose()
        self.lease.close()
        self.turn()
        for request in self.requests:
            request.close()
        if self.client is not None:
            self.client.close()
        self.timer.stop()
        self.turn()
        assert self.reactor.readers == self.reactor.writers == set()
        assert self.reactor.getDelayedCalls() == []


MakeLessor = Callable[..., Lessor]


@pytest.fixture
def lessor(no_leaks: None) -> Iterator[MakeLessor]:
    made: list[Lessor] = []

    def make(**options: Any) -> Lessor:
        made.append(Lessor(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def stranger(no_leaks: None) -> Iterator[Callable[[int], None]]:
    """
    Gives numbers of descriptors that are closed to strangers.  Ask for it before the fixture
    that might close them once more: those must still be open at the end of the test.
    """
    with open(os.devnull) as null:
        known = os.fstat(null.fileno()).st_ino
        taken = []

        def take(number: int) -> None:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(number)
            os.dup2(null.fileno(), number)
            taken.append(number)

        yield take
        for number in taken:
            assert os.fstat(number).st_ino == known
            os.close(number)


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


both = pytest.mark.parametrize("plain", [True, False], ids=["lent", "pumped"])


# Which it is


def test_what_is_nothing_but_a_socket_is_lent_and_all_else_is_pumped(lessor: MakeLessor) -> None:
    assert isinstance(lessor().lease, LentLease)
    assert isinstance(lessor(plain=False).lease, PumpedLease)


# Opened


@both
def test_a_request_has_a_socket_with_the_default_timeout(lessor: MakeLessor, plain: bool) -> None:
    each = lessor(plain=plain)
    socket.setdefaulttimeout(7)
    try:
        assert each.open().gettimeout() == 7
    finally:
        socket.setdefaulttimeout(None)


def test_a_timeout_is_not_the_next_requests(lessor: MakeLessor) -> None:
    each = lessor()
    each.open().settimeout(3)
    each.lease.close()
    assert each.open().gettimeout() is None


def test_the_socket_of_a_lent_connection_is_the_same_for_all_requests(lessor: MakeLessor) -> None:
    each = lessor()
    first = each.open()
    assert first.fileno() == each.transport.socket.fileno()
    each.lease.close()
    assert each.open() is first
    assert first.fileno() == each.transport.socket.fileno()


def test_each_request_of_a_pumped_connection_has_a_pair_of_its_own(lessor: MakeLessor) -> None:
    each = lessor(plain=False)
    first = each.open()
    assert (first.getpeername(), first.getsockname()) == (CLIENT, SERVER)
    each.lease.close()
    assert first.fileno() < 0
    assert each.open() is not first


def test_the_reactor_reads_on_until_the_handler_has_the_connection(lessor: MakeLessor) -> None:
    each = lessor()
    each.open()
    each.client_sends(b"next")
    assert each.received == b"next"
    assert not os.get_blocking(each.transport.socket.fileno())


def test_without_a_descriptor_there_is_no_socket_and_none_is_left(lessor: MakeLessor) -> None:
    resource = pytest.importorskip("resource")
    each = lessor(plain=False)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as null:
        # A pair needs two: the lowest free number is allowed, and no second one.
        free = os.dup(null.fileno())
        os.close(free)
        second = os.dup2(null.fileno(), free)
        beyond = os.dup(null.fileno())
        os.close(second)
        os.close(beyond)
        resource.setrlimit(resource.RLIMIT_NOFILE, (beyond, limits[1]))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                each.open()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert list(each.lease.descriptors()) == []
    each.open()  # the next one has it


# Granted


@both
def test_the_handler_has_a_blocking_socket_to_its_client(lessor: MakeLessor, plain: bool) -> None:
    each = lessor(plain=plain)
    request = each.open()
    request.settimeout(None)
    each.lease.grant(False)
    assert os.get_blocking(request.fileno())
    request.sendall(b"answer")
    assert each.sent() == b"answer"


@both
def test_a_timeout_of_the_handlers_is_the_sockets_when_it_has_it(
    lessor: MakeLessor, plain: bool
) -> None:
    each = lessor(plain=plain)
    request = each.open()
    request.settimeout(0.001)
    each.lease.grant(True)
    with pytest.raises(TimeoutError):
        request.recv(1)


@both
def test_what_the_client_sends_is_the_handlers(lessor: MakeLessor, plain: bool) -> None:
    each = lessor(plain=plain)
    request = each.grant(switches=True)
    each.client_sends(b"more")
    assert request.recv(100) == b"more"
    assert each.received == b""


def test_a_pumped_connection_is_read_on_only_for_what_follows_a_switch(
    lessor: MakeLessor,
) -> None:
    for switches in (True, False):
        each = lessor(plain=False)
        each.is_paused = True
        each.grant(switches)
        assert each.is_paused is not switches


def test_the_clients_end_is_the_end_of_file_of_a_pumped_socket(lessor: MakeLessor) -> None:
    each = lessor(plain=False)
    each.lease.feed_eof()  # the handler does not have it: nobody hears of it so
    request = each.grant(switches=True)
    each.client_sends(b"last")
    each.lease.feed_eof()
    each.turn()
    assert request.recv(100) == b"last"
    assert request.recv(100) == b""


def test_the_end_of_a_lent_one_comes_by_the_socket_itself(lessor: MakeLessor) -> None:
    each = lessor()
    request = each.grant(switches=True)
    each.lease.feed(b"never")
    each.lease.feed_eof()
    assert each.client is not None
    each.client.shutdown(socket.SHUT_WR)
    assert request.recv(100) == b""


@both
def test_what_is_fed_before_the_handler_has_it_goes_nowhere(
    lessor: MakeLessor, plain: bool
) -> None:
    each = lessor(plain=plain)
    each.open()
    each.lease.feed(b"lost")
    each.lease.close()
    request = each.grant(switches=True)
    each.client_sends(b"heard")
    assert request.recv(100) == b"heard"


# Taken back


@both
def test_a_connection_that_is_left_open_goes_on(lessor: MakeLessor, plain: bool) -> None:
    each = lessor(plain=plain)
    for _ in range(3):
        each.grant().sendall(b"a")
        assert each.lease.take_back()
        each.lease.close()
        each.writer.write(b"b")
        each.writer.flush()
    assert each.below is each.transport
    assert each.sent() == b"ababab"


def test_a_lent_connection_is_read_again_when_it_is_back(lessor: MakeLessor) -> None:
    each = lessor()
    request = each.grant()
    request.settimeout(None)
    request.become_blocking()
    assert os.get_blocking(request.fileno())
    each.client_sends(b"next")
    assert each.received == b""
    assert each.lease.take_back()
    assert not os.get_blocking(request.fileno())
    each.turn()
    assert each.received == b"next"


def test_but_not_one_whose_client_is_held_back(lessor: MakeLessor) -> None:
    each = lessor()
    each.is_paused = True
    each.grant()
    assert each.lease.take_back()
    each.client_sends(b"next")
    assert each.received == b""


def test_what_a_pumped_handler_has_written_last_is_passed_on(lessor: MakeLessor) -> None:
    each = lessor(plain=False)
    each.grant().sendall(b"x" * 100_000)  # which the pump has not seen
    assert each.lease.take_back()
    each.lease.close()
    assert each.sent() == b"x" * 100_000


def test_a_pumped_connection_that_is_lost_is_not_written_to_again(lessor: MakeLessor) -> None:
    each = lessor(plain=False)
    each.grant()
    each.lose()
    each.lease.take_back()
    each.writer.write(b"nobody reads this")
    assert each.sent() == b""
    assert each.below.producer is not each.writer


# How a handler leaves it


def closes(request: RequestSocket) -> None:
    request.close()


def detaches(request: RequestSocket) -> None:
    os.close(request.detach())


@pytest.mark.parametrize("leave", [closes, detaches])
@both
def test_a_handler_that_ends_the_connection_has_ended_it(
    stranger: Callable[[int], None],
    lessor: MakeLessor,
    plain: bool,
    leave: Callable[[RequestSocket], None],
) -> None:
    each = lessor(plain=plain)
    request = each.grant()
    number = request.fileno()
    request.sendall(b"answer")
    leave(request)
    stranger(number)
    assert not each.lease.take_back()
    each.lease.close()
    if plain:
        assert each.sent() == b"answer<eof>"
        assert each.transport is None
        assert each.writer.is_broken()
    else:  # the end of a wrapped connection is its channel's business
        assert each.sent() == b"answer"


@both
def test_a_handler_that_keeps_the_descriptor_has_no_connection_by_it(
    lessor: MakeLessor, plain: bool
) -> None:
    each = lessor(plain=plain)
    request = each.grant()
    kept = request.detach()
    os.write(kept, b"answer")
    assert not each.lease.take_back()
    each.lease.close()
    assert each.sent() == (b"answer<eof>" if plain else b"answer")
    assert os.read(kept, 1) == b""
    with pytest.raises(BrokenPipeError):
        os.write(kept, b"more")
    os.close(kept)


def test_a_handler_that_ends_its_output_has_left_no_pumped_connection(lessor: MakeLessor) -> None:
    """Of a lent one, the reactor hears when it next sends."""
    each = lessor(plain=False)
    request = each.grant()
    request.sendall(b"answer")
    request.shutdown(socket.SHUT_WR)
    assert not each.lease.take_back()
    assert each.sent() == b"answer"


@both
def test_a_file_that_is_kept_of_a_closed_socket_has_none_either(
    stranger: Callable[[int], None], lessor: MakeLessor, plain: bool
) -> None:
    each = lessor(plain=plain)
    request = each.grant()
    number = request.fileno()
    file = request.makefile("wb", buffering=0)
    request.close()
    file.write(b"answer")
    assert not each.lease.take_back()
    each.lease.close()
    assert each.sent() == (b"answer<eof>" if plain else b"answer")
    assert is_open(number)
    with pytest.raises(BrokenPipeError):
        file.write(b"more")
    file.close()
    stranger(number)


@both
def test_a_file_that_is_kept_of_an_open_socket_does_not_end_the_connection(
    lessor: MakeLessor, plain: bool
) -> None:
    each = lessor(plain=plain)
    request = each.grant()
    file = request.makefile("wb")
    file.write(b"answer")
    file.flush()
    assert each.lease.take_back()
    each.lease.close()
    assert each.sent() == b"answer"
    file.close()
    each.writer.write(b" and more")
    each.writer.flush()
    assert each.sent() == (b" and more" if plain else b"answer and more")


# Lost


@both
def test_a_number_that_is_free_after_a_loss_is_left_to_others(
    stranger: Callable[[int], None], lessor: MakeLessor, plain: bool
) -> None:
    each = lessor(plain=plain)
    request = each.grant()
    number = request.fileno()
    each.lose()
    if not plain:
        each.lease.take_back()
        each.lease.close()
    assert request.fileno() < 0
    stranger(number)
    request.close()
    each.lease.close()


def test_a_pumped_handler_reads_what_came_before_the_loss(lessor: MakeLessor) -> None:
    each = lessor(plain=False)
    request = each.grant(switches=True)
    each.client_sends(b"last")
    assert each.lease.outlives_connection()
    each.lose()
    assert request.recv(100) == b"last"
    assert request.recv(100) == b""
    with pytest.raises(BrokenPipeError):
        request.sendall(b"nobody reads this")


@both
def test_a_socket_that_nobody_has_does_not_outlive_its_connection(
    lessor: MakeLessor, plain: bool
) -> None:
    each = lessor(plain=plain)
    each.open()
    assert not each.lease.outlives_connection()
    each.lose()
    each.lease.close()
    assert each.requests[0].fileno() < 0


# Deadlines


@pytest.mark.parametrize(
    ("unsent", "since_received", "since_sent", "expired"),
    [
        (0, 12, 11, [Phase.IDLE]),
        (0, 9, 11, []),  # the client speaks
        (0, 11, 9, []),  # the handler does
        (5, 9, 11, [Phase.WRITE]),
        (5, 11, 11, [Phase.WRITE, Phase.IDLE]),
    ],
)
def test_deadlines_of_a_lent_connection_pass_when_the_kernel_says_so(
    lessor: MakeLessor,
    unsent: int,
    since_received: float,
    since_sent: float,
    expired: list[Phase],
) -> None:
    """Both are 10 s: 11 are more, 9 are less."""
    counts = TransferCounts(0, 0, unsent, since_received, since_sent)
    each = lessor(counts=counts, idle=10, write=10)
    each.grant()
    each.advance(10)
    assert each.expired == expired


@needs_tcp_info
def test_a_deadline_that_has_not_passed_is_looked_at_again(lessor: MakeLessor) -> None:
    each = lessor(sockets=tcp_pair, idle=1000, write=None)
    each.grant()
    each.advance(1000)  # but next to nothing by the kernel's clock
    assert each.expired == []
    (call,) = each.reactor.getDelayedCalls()
    assert 1000 < call.getTime() <= 2000


def test_where_the_kernel_does_not_tell_no_deadline_passes(lessor: MakeLessor) -> None:
    each = lessor(idle=10, write=10)  # a UNIX socket
    each.grant()
    each.advance(10)
    assert each.expired == []


def test_the_deadline_begins_anew_when_the_connection_is_back(lessor: MakeLessor) -> None:
    """By the kernel's account the client has taken nothing of a handler's output; from now on
    that is the connection's business."""
    each = lessor(counts=TransferCounts(0, 0, 5, 11, 11), idle=None, write=10)
    each.grant()
    each.advance(9)
    assert each.lease.take_back()
    each.advance(9)
    assert each.expired == []


def test_deadlines_of_a_pumped_connection_are_its_own(lessor: MakeLessor) -> None:
    """The pump arms C{idle} at each byte, and C{write} while the client takes nothing."""
    each = lessor(plain=False, idle=10, write=10)
    each.grant(switches=True)
    each.advance(6)
    each.client_sends(b"a")  # 6 + 10 = 16
    each.advance(9)
    assert each.expired == []
    each.advance(1)
    assert each.expired == [Phase.IDLE]


def test_a_lost_connection_has_no_output_to_wait_for(lessor: MakeLessor) -> None:
    each = lessor(plain=False, idle=None, write=10)
    each.grant()
    each.lose()
    each.advance(10)
    assert each.lease.take_back() is False
    each.advance(10)
    assert each.expired == []


# Ended by others


@both
def test_last_words_leave_before_the_handlers(lessor: MakeLessor, plain: bool) -> None:
    each = lessor(plain=plain)
    each.grant()
    each.lease.send_last(b"504")
    each.lease.interrupt(False)
    assert each.sent() == (b"504<eof>" if plain else b"504")


def test_last_words_do_not_wait_for_a_client_that_does_not_read(lessor: MakeLessor) -> None:
    each = lessor()
    request = each.grant()
    with socket.fromfd(request.fileno(), request.family, request.type) as copy:
        full = fill(copy)
    each.lease.send_last(b"504")
    each.lease.interrupt(False)
    assert each.sent() == b"\0" * full + b"<eof>"


@both
def test_a_handler_that_is_interrupted_reads_the_end_and_cannot_write(
    lessor: MakeLessor, plain: bool
) -> None:
    each = lessor(plain=plain)
    request = each.grant(switches=True)
    each.lease.interrupt(False)
    assert request.recv(100) == b""
    with pytest.raises(BrokenPipeError):
        request.sendall(b"more")
    if not plain:
        assert not each.below.aborted


@pytest.mark.parametrize("leave", [closes, detaches])
@both
def test_whoever_is_interrupted_may_have_closed_it(
    stranger: Callable[[int], None],
    lessor: MakeLessor,
    plain: bool,
    leave: Callable[[RequestSocket], None],
) -> None:
    """The number may be another's by now, and that is not shut down."""
    each = lessor(plain=plain)
    request = each.grant()
    number = request.fileno()
    leave(request)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        if ours.fileno() != number:
            os.dup2(ours.fileno(), number)
        each.lease.send_last(b"504")
        each.lease.interrupt(True)
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        if ours.fileno() != number:
            os.close(number)
    stranger(number)
    each.lease.take_back()


def test_a_lent_connection_is_reset_by_the_close_that_follows(lessor: MakeLessor) -> None:
    each = lessor()
    request = each.grant()
    each.lease.interrupt(True)
    assert request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 1, 0)


def test_a_pumped_connection_is_aborted_at_once(lessor: MakeLessor) -> None:
    each = lessor(plain=False)
    each.grant()
    each.lease.interrupt(True)
    assert each.below.aborted


# Abandoned


def test_an_abandoned_handler_keeps_a_lent_connection_and_closes_it(
    stranger: Callable[[int], None], lessor: MakeLessor
) -> None:
    each = lessor()
    request = each.grant()
    number = request.fileno()
    each.lease.abandon()
    assert each.transport is None
    request.sendall(b"last words")
    assert each.sent() == b"last words"
    each.lease.close()  # the handler has come to its end
    assert each.sent() == b"<eof>"
    stranger(number)
    each.lease.close()


def test_an_abandoned_handler_does_not_keep_a_pumped_one(lessor: MakeLessor) -> None:
    each = lessor(plain=False)
    request = each.grant()
    each.lease.abandon()
    assert each.below.aborted
    each.lose()
    with pytest.raises(BrokenPipeError):
        request.sendall(b"nobody reads this")
    each.lease.close()
    assert request.fileno() < 0


# What is open


def test_a_lent_connection_has_no_descriptor_but_the_transports(lessor: MakeLessor) -> None:
    each = lessor()
    each.grant()
    assert list(each.lease.descriptors()) == []


def test_a_pumped_one_has_both_ends_of_its_pair(lessor: MakeLessor) -> None:
    each = lessor(plain=False)
    request = each.grant()
    (outer,) = {reader.fileno() for reader in each.reactor.readers}
    assert set(each.lease.descriptors()) == {outer, request.fileno()}
    each.lease.take_back()
    each.lease.close()
    each.turn()
    assert list(each.lease.descriptors()) == []
    assert not is_open(outer)


@both
def test_a_request_that_is_withdrawn_leaves_nothing(
    stranger: Callable[[int], None], lessor: MakeLessor, plain: bool
) -> None:
    each = lessor(plain=plain)
    request = each.open()
    number = socket.socket.fileno(request)
    each.lease.close()
    each.lease.close()
    assert list(each.lease.descriptors()) == []
    if plain:
        each.client_sends(b"next")
        assert each.received == b"next"
        each.lose()
    stranger(number)
    request.close()
