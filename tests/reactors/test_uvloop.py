"""The uvloop reactor: what Twisted's own suites (test_suites.py) do not ask."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.application.reactors import getReactorTypes
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    connectProtocol,
)
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.python import context, log
from twisted.python.failure import Failure
from zope.interface import implementer

from sockserve.sockets.lending import lend, own_socket
from tests.reactors.tools import need_uvloop

#: More than the kernel takes at once of a connection that is not read.
MUCH = b"0123456789abcdef" * 2**20


@pytest.fixture
def reactor() -> Iterator[Any]:
    """One for this test, which runs while that waits."""
    need_uvloop()
    from sockserve.reactors.uvloop import UVLoopReactor

    made = UVLoopReactor()
    yield made
    made._asyncioEventloop.close()


@pytest.fixture(params=["tcp", "unix"])
def network(request: pytest.FixtureRequest, reactor: Any, tmp_path: Any) -> Network:
    return Network(reactor, request.param, str(tmp_path / "socket"))


class Peer(Protocol):
    """One end: it collects what comes."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.has_more: list[tuple[int, Deferred[bytes]]] = []
        self.made: Deferred[Peer] = Deferred()
        self.lost: Deferred[Failure] = Deferred()

    def connectionMade(self) -> None:
        self.made.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        for size, waiting in self.has_more:
            if len(self.received) >= size and not waiting.called:
                waiting.callback(bytes(self.received))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.lost.callback(reason.type)

    def has(self, size: int) -> Deferred[bytes]:
        """All that has come, when that is C{size} bytes."""
        waiting: Deferred[bytes] = Deferred()
        self.has_more.append((size, waiting))
        self.dataReceived(b"")
        return waiting


@implementer(IHalfCloseableProtocol)
class HalfClosing(Peer):
    def __init__(self) -> None:
        super().__init__()
        self.read_lost: Deferred[None] = Deferred()
        self.write_lost: Deferred[None] = Deferred()

    def readConnectionLost(self) -> None:
        self.read_lost.callback(None)

    def writeConnectionLost(self) -> None:
        self.write_lost.callback(None)


class Network:
    """Connections between two peers of one reactor."""

    def __init__(self, reactor: Any, kind: str, path: str) -> None:
        self.reactor = reactor
        self.kind = kind
        self._path = path

    def run(self, test: Callable[[], Any]) -> None:
        """Run the reactor until the coroutine C{test} is over."""
        failures: list[Failure] = []

        def start() -> None:
            done = Deferred.fromCoroutine(test())
            done.addErrback(failures.append)
            done.addBoth(lambda _: self.reactor.stop())

        def give_up() -> None:
            failures.append(Failure(TimeoutError("it waits for what does not come")))
            self.reactor.stop()

        self.reactor.callWhenRunning(start)
        timer = self.reactor.callLater(20, give_up)
        self.reactor.run(installSignalHandlers=False)
        if timer.active():
            timer.cancel()
        if failures:
            failures[0].raiseException()

    async def pair(
        self, make_server: Callable[[], Peer] = Peer, make_client: Callable[[], Peer] = Peer
    ) -> tuple[Any, Any]:
        """A server's end of a connection, and a client's."""
        server, client = make_server(), make_client()
        factory = Factory.forProtocol(lambda: server)  # type: ignore[arg-type]
        factory.noisy = False
        if self.kind == "tcp":
            port = await TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1").listen(factory)
            to: Any = TCP4ClientEndpoint(self.reactor, "127.0.0.1", port.getHost().port)
        else:
            port = await UNIXServerEndpoint(self.reactor, self._path).listen(factory)
            to = UNIXClientEndpoint(self.reactor, self._path)
        await connectProtocol(to, client)
        await server.made
        await port.stopListening()
        return server, client


def test_much_arrives_before_the_connection_is_lost(network: Network) -> None:
    async def test() -> None:
        server, client = await network.pair()
        server.transport.write(MUCH[:100])
        server.transport.writeSequence([MUCH[100:200], MUCH[200:]])
        server.transport.loseConnection()
        assert await client.lost is ConnectionDone
        assert client.received == MUCH
        assert await server.lost is ConnectionDone

    network.run(test)


def test_what_is_written_in_one_turn_arrives_in_one_piece(network: Network) -> None:
    pieces: list[bytes] = []

    class Pieces(Peer):
        def dataReceived(self, data: bytes) -> None:
            if data:
                pieces.append(data)
            super().dataReceived(data)

    async def test() -> None:
        server, client = await network.pair(make_client=Pieces)
        server.transport.write(b"go")
        await client.has(2)
        pieces.clear()
        for piece in (b"one ", b"two ", b"three"):
            server.transport.write(piece)
        await client.has(2 + 13)
        assert pieces == [b"one two three"]

    network.run(test)


def test_a_paused_connection_is_given_nothing_until_it_is_resumed(network: Network) -> None:
    class Pausing(Peer):
        def connectionMade(self) -> None:
            self.transport.pauseProducing()  # type: ignore[union-attr]
            super().connectionMade()

    async def test() -> None:
        server, client = await network.pair(make_server=Pausing)
        for _ in range(3):
            client.transport.write(b"more")
            await turns(network.reactor, 5)
            assert server.received == b""
        server.transport.resumeProducing()
        assert await server.has(12) == b"more" * 3
        server.transport.pauseProducing()
        client.transport.write(b"last")
        await turns(network.reactor, 5)
        assert server.received == b"more" * 3
        server.transport.resumeProducing()
        await server.has(16)

    network.run(test)


def test_a_producer_is_paused_while_its_consumer_is_full(network: Network) -> None:
    told: list[str] = []

    class Producer:
        def pauseProducing(self) -> None:
            told.append("pause")

        def resumeProducing(self) -> None:
            told.append("resume")

        def stopProducing(self) -> None:
            told.append("stop")

    async def test() -> None:
        server, client = await network.pair()
        client.transport.pauseProducing()
        server.transport.registerProducer(Producer(), True)
        server.transport.write(b"little")
        await turns(network.reactor, 5)
        assert told == []
        server.transport.write(MUCH)
        await turns(network.reactor, 5)
        assert set(told) == {"pause"}
        client.transport.resumeProducing()
        await client.has(6 + len(MUCH))
        await turns(network.reactor, 5)
        assert told[-1] == "resume"
        client.transport.loseConnection()
        await server.lost
        assert told[-1] == "stop"

    network.run(test)


def test_a_pulled_producer_gives_one_piece_after_another(network: Network) -> None:
    class Producer:
        left = 20

        def __init__(self, transport: Any) -> None:
            self.transport = transport

        def resumeProducing(self) -> None:
            if self.left:
                self.left -= 1
                self.transport.write(MUCH[: 2**18])
            else:
                self.transport.unregisterProducer()
                self.transport.loseConnection()

        def stopProducing(self) -> None:
            """It is over."""

    async def test() -> None:
        server, client = await network.pair()
        server.transport.registerProducer(Producer(server.transport), False)
        await client.lost
        assert len(client.received) == 20 * 2**18

    network.run(test)


def test_a_side_can_end_its_output_alone(network: Network) -> None:
    async def test() -> None:
        server, client = await network.pair(HalfClosing, HalfClosing)
        client.transport.write(MUCH)
        client.transport.loseWriteConnection()
        await client.write_lost
        await server.read_lost
        assert server.received == MUCH
        server.transport.write(b"after that")
        assert await client.has(10) == b"after that"
        server.transport.loseConnection()
        await client.read_lost
        client.transport.loseConnection()
        assert await client.lost is ConnectionDone

    network.run(test)


def test_an_aborted_connection_drops_what_waits(network: Network) -> None:
    async def test() -> None:
        server, client = await network.pair()
        client.transport.pauseProducing()
        server.transport.write(MUCH)
        await turns(network.reactor, 3)
        server.transport.abortConnection()
        await server.lost
        client.transport.resumeProducing()
        # A UNIX socket knows no reset.
        assert await client.lost in (ConnectionLost, ConnectionDone)
        assert len(client.received) < len(MUCH)

    network.run(test)


def test_what_a_protocol_raises_is_logged_and_ends_its_connection(network: Network) -> None:
    logged: list[Any] = []

    class Raising(Peer):
        def dataReceived(self, data: bytes) -> None:
            raise ValueError("not so")

    async def test() -> None:
        server, client = await network.pair(make_server=Raising)
        client.transport.write(b"x")
        assert await server.lost is ValueError
        assert await client.lost in (ConnectionDone, ConnectionLost)

    def observe(event: Any) -> None:
        if event.get("isError"):
            logged.append(event["failure"].type)

    log.addObserver(observe)
    try:
        network.run(test)
    finally:
        log.removeObserver(observe)
    assert logged == [ValueError]


def test_what_is_logged_while_data_is_received_names_the_connection(network: Network) -> None:
    systems: list[str] = []

    class Logging(Peer):
        def dataReceived(self, data: bytes) -> None:
            if data:
                systems.append(context.get(log.ILogContext)["system"])
            super().dataReceived(data)

    async def test() -> None:
        server, client = await network.pair(make_server=Logging)
        client.transport.write(b"x")
        await server.has(1)
        assert systems == [server.transport.logPrefix()]
        assert systems[0].startswith("Logging,0,")

    network.run(test)


def test_a_lent_socket_is_read_and_written_by_others(network: Network) -> None:
    """Whether it was libuv's already or not."""

    def answer(sock: socket.socket) -> None:
        with sock:
            sock.sendall(b"you said " + sock.recv(100))

    class Lending(Peer):
        def connectionMade(self) -> None:
            threading.Thread(target=answer, args=(lend(self.transport),)).start()  # type: ignore[arg-type]
            super().connectionMade()

    async def test() -> None:
        server, client = await network.pair()
        client.transport.write(b"to the reactor")
        await server.has(14)
        kept = server.transport.getHandle()
        sock = lend(server.transport)
        assert sock is kept
        assert sock.gettimeout() is None
        client.transport.write(b"to you")
        thread = threading.Thread(target=answer, args=(sock,))
        thread.start()
        assert await client.has(15) == b"you said to you"
        assert await client.lost is ConnectionDone
        thread.join()
        assert server.received == b"to the reactor"

    async def test_at_once() -> None:
        _, client = await network.pair(make_server=Lending)
        client.transport.write(b"hello")
        await client.lost
        assert client.received == b"you said hello"

    async def both() -> None:
        await test()
        await test_at_once()

    network.run(both)


def test_a_connection_that_has_left_libuv_goes_on(network: Network) -> None:
    async def test() -> None:
        server, client = await network.pair()
        client.transport.write(b"one")
        await server.has(3)
        sock = own_socket(server.transport)
        assert sock.gettimeout() == 0.0
        client.transport.write(b"two")
        assert await server.has(6) == b"onetwo"
        server.transport.write(MUCH)
        await client.has(len(MUCH))
        server.transport.loseConnection()
        assert await client.lost is ConnectionDone

    network.run(test)


def test_nothing_is_left_open(network: Network) -> None:
    async def round_trips() -> None:
        before: set[str] = set()
        for _ in range(3):
            server, client = await network.pair()
            client.transport.write(b"x")
            await server.has(1)
            server.transport.loseConnection()
            await client.lost
            await turns(network.reactor, 5)
            if not before:  # the first opens what the loop keeps
                gc.collect()  # and others may have left something
                before = descriptors()
        assert descriptors() <= before

    network.run(round_trips)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


async def turns(reactor: Any, count: int) -> None:
    """Let the reactor come round so many times, and its sockets with it."""
    for _ in range(count):
        turn: Deferred[None] = Deferred()
        reactor.callLater(0.005, turn.callback, None)
        await turn


# Timed calls, threads, asyncio


def run(reactor: Any, start: Callable[[], None]) -> None:
    reactor.callWhenRunning(start)
    reactor.run(installSignalHandlers=False)


def test_timed_calls_come_in_order(reactor: Any) -> None:
    made: list[str] = []

    def start() -> None:
        now = reactor.seconds()
        reactor.seconds = lambda: now  # for all of them it is the same moment
        reactor.callLater(0.03, reactor.stop)
        reactor.callLater(0.02, made.append, "third")
        reactor.callLater(0, made.append, "first")
        moved = reactor.callLater(60, made.append, "second")
        moved.reset(0.01)
        reactor.callLater(0.01, made.append, "cancelled").cancel()
        later = reactor.callLater(0.015, made.append, "later")
        later.delay(60)
        assert later.active()
        del reactor.seconds

    run(reactor, start)
    assert made == ["first", "second", "third"]
    assert len(reactor.getDelayedCalls()) == 1


def test_a_call_that_is_made_while_another_waits_does_not_wait_for_it(reactor: Any) -> None:
    made: list[str] = []

    def start() -> None:
        reactor.callLater(60, made.append, "never")
        reactor.callLater(0.01, lambda: reactor.callLater(0.01, reactor.stop))

    run(reactor, start)
    assert made == []


def test_cancelled_calls_do_not_pile_up(reactor: Any) -> None:
    """A server makes and cancels some for each request, and nothing may be due for long."""
    left: list[int] = []

    def some(rounds: int) -> None:
        for _ in range(1000):
            reactor.callLater(60, left.append, 0).cancel()
        if rounds:
            reactor._asyncioEventloop.call_soon(some, rounds - 1)
        else:
            left.append(len(reactor._newTimedCalls) + len(reactor._pendingTimedCalls))
            reactor.stop()

    def start() -> None:
        reactor.callLater(60, left.append, 0)
        some(20)

    run(reactor, start)
    assert left[0] < 5000


def test_a_call_from_a_thread_wakes_the_reactor(reactor: Any) -> None:
    made: list[int] = []

    def many() -> None:
        for number in range(1000):
            reactor.callFromThread(made.append, number)
        reactor.callFromThread(reactor.stop)

    run(reactor, lambda: reactor.callInThread(many))
    assert made == list(range(1000))


def test_asyncio_runs_on_its_loop(reactor: Any) -> None:
    results: list[str] = []

    async def wait() -> str:
        await asyncio.sleep(0.01)
        return "slept"

    def start() -> None:
        loop = reactor._asyncioEventloop
        done = Deferred.fromFuture(loop.create_task(wait()))
        done.addCallback(results.append)
        done.addCallback(lambda _: reactor.stop())

    run(reactor, start)
    assert results == ["slept"]


def test_iterate_returns(reactor: Any) -> None:
    made: list[str] = []
    reactor.callLater(0, made.append, "due")
    reactor.callLater(60, made.append, "not due")
    reactor.iterate(0)
    reactor.iterate(0.01)
    assert made == ["due"]


def test_twisted_knows_it_by_its_name() -> None:
    names = {each.shortName: each.moduleName for each in getReactorTypes()}
    assert names["uvloop"] == "sockserve.reactors.uvloop"
