"""The stand-ins for the reactor and for a connection that the kits are made of."""

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IHalfCloseableDescriptor
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from sockserve.interfaces import Outcome
from sockserve.testing import Exchange
from sockserve.testing.memory import AttendedExecutor, MemoryReactor, ServerTransport
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.usefixtures("no_leaks")


# A connection


class Noting(Protocol):
    """Notes why its connection was lost."""

    def __init__(self) -> None:
        self.reasons: list[type[BaseException] | None] = []

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.reasons.append(reason.type)


class Lossy:
    """A transport with all that belongs to it."""

    def __init__(self, client_address: Any = ("192.0.2.1", 7)) -> None:
        self.exchange = Exchange()
        self.clock = MemoryReactor()
        self.protocol = Noting()
        self.transport = ServerTransport(self.exchange, self.clock, self.protocol, client_address)


def test_what_is_written_the_client_has_at_once() -> None:
    lossy = Lossy()
    lossy.transport.write(b"one")
    lossy.transport.write(b"two")
    assert lossy.exchange.output == [b"one", b"two"]


@pytest.mark.parametrize(
    ("given", "twisted"),
    [
        (("192.0.2.1", 7), IPv4Address("TCP", "192.0.2.1", 7)),
        (("2001:db8::1", 7, 0, 3), IPv6Address("TCP", "2001:db8::1", 7, 0, 3)),
        ("/run/client", UNIXAddress("/run/client")),
        ("", UNIXAddress(None)),
    ],
)
def test_addresses_are_twisteds(given: Any, twisted: IAddress) -> None:
    transport = Lossy(given).transport
    assert transport.getPeer() == twisted
    assert transport.getHost() == IPv4Address("TCP", "127.0.0.1", 12345)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("loseConnection", ConnectionDone),
        ("abortConnection", ConnectionAborted),
        ("break_off", ConnectionLost),
    ],
)
def test_the_protocol_hears_of_the_end_in_the_next_turn_and_once(
    method: str, reason: type[Exception]
) -> None:
    lossy = Lossy()
    getattr(lossy.transport, method)()
    assert lossy.transport.disconnecting
    assert lossy.protocol.reasons == [], "as of a real one: never within the call"
    lossy.transport.abortConnection()
    lossy.transport.loseConnection()
    lossy.clock.turn()
    assert lossy.protocol.reasons == [reason]


# The reactor


class Descriptor:
    """
    One end of a pair of sockets, as a reactor serves it.

    @ivar near: this end.
    @ivar far: the other.
    @ivar lost: why the connection was lost, once it is.
    @ivar is_lost: set then.
    """

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.far.settimeout(PATIENCE_SECONDS)
        self.lost: list[BaseException] = []
        self.is_lost = threading.Event()
        self.end: Exception = ConnectionDone()

    def fileno(self) -> int:
        return self.near.fileno()

    def doRead(self) -> Exception | None:
        """Answer with what there is."""
        data = self.near.recv(100)
        if not data:
            return self.end
        self.near.send(b"<" + data + b">")
        return None

    def doWrite(self) -> Exception | None:
        try:
            self.near.send(b"x" * 65536)
        except OSError as error:
            return error
        return None

    def connectionLost(self, reason: Failure) -> None:
        assert reason.value is not None
        self.lost.append(reason.value)
        self.is_lost.set()


@implementer(IHalfCloseableDescriptor)
class HalfCloseable(Descriptor):
    """
    One that goes on when the other end has ended its side.

    @ivar input_ended: set then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.input_ended = threading.Event()

    def readConnectionLost(self, reason: Failure) -> None:
        assert reason.check(ConnectionDone)
        self.input_ended.set()

    def writeConnectionLost(self, reason: Failure) -> None:
        raise NotImplementedError


Make = Callable[[type[Descriptor]], Descriptor]


@pytest.fixture
def make() -> Iterator[Callable[[type[Any]], Any]]:
    """Makes descriptors."""
    made: list[Descriptor] = []

    def make(kind: type[Descriptor] = Descriptor) -> Descriptor:
        made.append(kind())
        return made[-1]

    yield make
    for each in made:
        each.near.close()
        each.far.close()


def test_time_stands_still_until_it_is_moved() -> None:
    reactor, called = MemoryReactor(), []
    reactor.callLater(0, called.append, "now")
    reactor.callLater(1, called.append, "later")
    reactor.turn()
    assert (called, reactor.seconds()) == (["now"], 0)


def test_sockets_are_served_while_a_handler_runs_and_only_then(make: Any) -> None:
    reactor, echo = MemoryReactor(), make()
    reactor.addReader(echo)
    echo.far.send(b"before")
    reactor.turn()
    with reactor.turning():
        assert echo.far.recv(100) == b"<before>"
        echo.far.send(b"meanwhile")
        assert echo.far.recv(100) == b"<meanwhile>"
    echo.far.send(b"after")
    reactor.turn()
    assert echo.near.recv(100) == b"after"


def test_a_reader_that_comes_while_a_handler_runs_is_served(make: Any) -> None:
    """The thread waits for sockets that it knows; it has to be woken."""
    reactor, echo = MemoryReactor(), make()
    with reactor.turning():
        echo.far.send(b"one")
        reactor.addReader(echo)
        assert echo.far.recv(100) == b"<one>"


def test_a_writer_that_comes_while_a_handler_runs_is_served_until_it_goes(make: Any) -> None:
    reactor = MemoryReactor()

    class Once(Descriptor):
        def doWrite(self) -> None:
            self.near.send(b"written")
            reactor.removeWriter(self)

    writer = make(Once)
    with reactor.turning():
        reactor.addWriter(writer)
        assert writer.far.recv(100) == b"written"
    writer.far.setblocking(False)
    with pytest.raises(BlockingIOError):
        writer.far.recv(100)


def test_the_end_of_the_input_is_the_end_of_the_connection(make: Any) -> None:
    reactor, echo = MemoryReactor(), make()
    reactor.addReader(echo)
    with reactor.turning():
        echo.far.shutdown(socket.SHUT_WR)
        assert echo.is_lost.wait(PATIENCE_SECONDS)
    assert echo.lost == [echo.end]


def test_one_that_can_be_half_closed_goes_on(make: Any) -> None:
    reactor, echo = MemoryReactor(), make(HalfCloseable)
    reactor.addReader(echo)
    with reactor.turning():
        echo.far.shutdown(socket.SHUT_WR)
        assert echo.input_ended.wait(PATIENCE_SECONDS)
        echo.near.send(b"last words")
        assert echo.far.recv(100) == b"last words"
    assert echo.lost == []


def test_a_broken_connection_is_lost_also_if_it_could_be_half_closed(make: Any) -> None:
    reactor, echo = MemoryReactor(), make(HalfCloseable)
    echo.end = ConnectionLost()
    reactor.addReader(echo)
    with reactor.turning():
        echo.far.close()
        assert echo.is_lost.wait(PATIENCE_SECONDS)
    assert echo.lost == [echo.end]
    assert not echo.input_ended.is_set()


@pytest.mark.parametrize("reads", [True, False])
def test_a_write_that_fails_is_the_end_of_the_connection(make: Any, reads: bool) -> None:
    reactor, writer = MemoryReactor(), make()
    writer.far.close()
    reactor.addWriter(writer)
    if reads:
        reactor.addReader(writer)
    with reactor.turning():
        assert writer.is_lost.wait(PATIENCE_SECONDS)
    assert [type(error) for error in writer.lost] == [BrokenPipeError]


def test_a_connection_that_ends_while_it_is_full_is_lost(make: Any) -> None:
    """The kernel says no more that there is room, only that nobody is there."""
    reactor, writer = MemoryReactor(), make()
    while writer.doWrite() is None:
        pass
    reactor.addWriter(writer)
    with reactor.turning():
        writer.far.shutdown(socket.SHUT_RDWR)
        assert writer.is_lost.wait(PATIENCE_SECONDS)
    assert [type(error) for error in writer.lost] == [BrokenPipeError]


def test_what_the_reactor_is_at_when_the_handler_ends_is_done(make: Any) -> None:
    """Also if that means that its thread wakes itself."""
    reactor = MemoryReactor()
    begun, go_on, served = threading.Event(), threading.Event(), threading.Event()

    class Busy(Descriptor):
        def doRead(self) -> None:
            self.near.recv(100)
            begun.set()
            assert go_on.wait(PATIENCE_SECONDS)
            reactor.addWriter(self)
            reactor.removeWriter(self)
            served.set()

    busy = make(Busy)
    reactor.addReader(busy)
    with reactor.turning():
        busy.far.send(b"!")
        assert begun.wait(PATIENCE_SECONDS)
        threading.Timer(0.01, go_on.set).start()  # the handler has ended by then
    assert served.is_set()


# The executor


class Asking:
    """
    A job whose handler asks the client for something, over the reactor.

    @ivar told: what it is told.
    @ivar got: what its handler has got.
    @ivar until: set when the client has heard of it.
    """

    def __init__(self, executor: AttendedExecutor, request: socket.socket) -> None:
        self.executor = executor
        self.request = request
        self.told: list[Any] = []
        self.got: list[bytes] = []
        self.until = threading.Event()

    def started(self) -> None:
        self.told.append("started")

    def serve(self) -> Outcome:
        self.told.append(self.executor.running)
        self.got.append(self.request.recv(100))
        self.request.send(b"out")
        assert self.until.wait(PATIENCE_SECONDS)
        self.got.append(self.request.recv(100))
        return Outcome.OK

    def ended(self, outcome: Outcome) -> None:
        self.told += [self.executor.running, outcome]


def test_a_handler_runs_where_it_is_called_and_reads_no_more_than_there_is(make: Any) -> None:
    reactor = MemoryReactor()
    heard = threading.Event()

    class Client(Descriptor):
        def doRead(self) -> None:
            assert self.near.recv(100) == b"out"
            heard.set()

    executor, client = AttendedExecutor(reactor), make(Client)
    reactor.addReader(client)
    client.near.send(b"in")
    job = Asking(executor, client.far)
    job.until = heard
    executor.run(job)
    assert job.told == ["started", 1, 0, Outcome.OK]
    assert job.got == [b"in", b""], "one that reads on does not wait for ever"
