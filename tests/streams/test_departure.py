"""The departure of a client, as coroutines of streams are told of it."""

import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, DeferredList, DeferredLock
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from sockserve import ClientGone, DeadlineExpired, PeerError, StreamRequestHandler
from sockserve.interfaces import Outcome
from sockserve.streams.coroutine import CoroutineChannel
from tests.sockets.test_lending import needs_tcp_info, tcp_pair
from tests.streams.owner import CLIENT, SERVER, Owner

MakeOwner = Callable[..., Owner]

needs_epoll = pytest.mark.skipif(sys.platform != "linux", reason="it is told of by epoll")
both = pytest.mark.parametrize("sockets", [tcp_pair, socket.socketpair], ids=["tcp", "unix"])


class Waits(StreamRequestHandler):
    """Waits for the application, and notes what it is told."""

    async def handle(self) -> None:
        self.wfile.write(b"hello")
        self.server.event = event = Deferred(self.server.cancelled.append)
        try:
            await event
        except BaseException as error:
            self.server.told.append(error)
            raise

    def finish(self) -> None:
        self.server.told.append("finished")


def served(owner: MakeOwner, handler: Any, **options: Any) -> Owner:
    """A connection whose handler waits."""
    owned = owner(handler, lambda owner: CoroutineChannel(owner, (CLIENT, SERVER)), **options)
    server: Any = owned.factory
    server.told, server.cancelled = [], []
    owned.channel.start()
    owned.turn()
    return owned


def lose(owned: Owner, *, in_order: bool = False) -> None:
    """A connection in memory is lost."""
    owned.connectionLost(Failure(ConnectionDone() if in_order else ConnectionLost()))
    owned.turn()


def reset(owned: Owner) -> None:
    """The client resets a connection of sockets: it has not read what was sent."""
    assert owned.client is not None
    owned.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    owned.client.close()
    owned.turn()


def go_on(owned: Owner) -> None:
    """What the handler waits for happens."""
    server: Any = owned.factory
    server.event.callback(None)


def told(owned: Owner) -> list[Any]:
    server: Any = owned.factory
    return [each if isinstance(each, str) else type(each) for each in server.told]


GONE = [ClientGone, "finished"]


def test_it_is_the_peers_fault_and_a_connections() -> None:
    assert issubclass(ClientGone, PeerError)
    assert issubclass(ClientGone, ConnectionError)


# How it goes


@both
def test_a_reset_is_told(owner: MakeOwner, sockets: Any) -> None:
    owned = served(owner, Waits, sockets=sockets)
    reset(owned)
    assert told(owned) == GONE
    assert owned.outcomes == [(0, Outcome.LOST)]
    assert owned.record.outcome == "ok"  # that is the connection's to say, by the handler's
    assert owned.is_finished


@needs_epoll
@both
def test_a_reset_is_told_while_nothing_is_read(owner: MakeOwner, sockets: Any) -> None:
    owned = served(owner, Waits, sockets=sockets)
    client: Any = owned.client
    client.setblocking(False)
    for _ in range(100):
        try:
            client.send(bytes(65536))
        except BlockingIOError:
            break
        owned.turn()
    reset(owned)
    assert told(owned) == GONE
    assert owned.is_finished


@needs_epoll
def test_a_unix_client_that_hangs_up_is_gone(owner: MakeOwner) -> None:
    owned = served(owner, Waits)
    assert owned.sent() == b"hello"
    assert owned.client is not None
    owned.client.close()
    owned.turn()
    assert told(owned) == GONE
    assert owned.is_finished


@needs_epoll
def test_a_tcp_client_that_ends_its_side_is_gone_when_a_write_fails(owner: MakeOwner) -> None:
    owned = served(owner, Waits, sockets=tcp_pair)
    assert owned.sent() == b"hello"
    assert owned.client is not None
    owned.client.close()
    owned.turn()
    assert told(owned) == []
    owned.channel.request.wfile.write(b"beat")  # the kernel answers with a reset
    owned.turn()
    assert told(owned) == GONE
    assert owned.is_finished


def test_a_client_that_ends_its_side_gets_its_answer(owner: MakeOwner) -> None:
    class Answers(Waits):
        async def handle(self) -> None:
            await super().handle()
            self.wfile.write(b" and goodbye")

    owned = served(owner, Answers, sockets=tcp_pair)
    assert owned.client is not None
    owned.client.shutdown(socket.SHUT_WR)
    owned.turn()
    go_on(owned)
    owned.turn()
    assert owned.sent() == b"hello and goodbye"
    assert owned.outcomes == [(0, Outcome.OK)]


def test_a_large_answer_reaches_one_that_has_ended_its_side(owner: MakeOwner) -> None:
    """Both sides have ended theirs, and most of it has yet to leave."""

    class Answers(Waits):
        async def handle(self) -> None:
            await super().handle()
            self.wfile.write(bytes(10_000_000))

    owned = served(owner, Answers, sockets=tcp_pair)
    client: Any = owned.client
    client.shutdown(socket.SHUT_WR)
    owned.turn()
    go_on(owned)
    client.setblocking(False)
    received = 0
    while True:
        owned.turn()
        try:
            piece = client.recv(2**20)
        except BlockingIOError:
            continue
        if not piece:
            break
        received += len(piece)
    assert received == len(b"hello") + 10_000_000


class AtOnce(Waits):
    allow_half_close = False


@pytest.mark.parametrize("plain", [True, False])
def test_a_class_may_say_that_one_that_ends_its_side_is_gone(owner: MakeOwner, plain: bool) -> None:
    owned = served(owner, AtOnce, plain=plain)
    if owned.client is not None:
        owned.client.shutdown(socket.SHUT_WR)
    else:
        owned.readConnectionLost()
    owned.turn()
    assert told(owned) == GONE


@needs_epoll
def test_that_is_noticed_while_nothing_is_read(owner: MakeOwner) -> None:
    owned = served(owner, AtOnce, sockets=tcp_pair)
    client: Any = owned.client
    client.sendall(bytes(100_000))
    owned.turn()
    client.sendall(bytes(100_000))
    client.shutdown(socket.SHUT_WR)
    give_up = time.monotonic() + 10
    while not told(owned) and time.monotonic() < give_up:
        owned.turn()  # the end comes behind what the kernel has yet to move
    assert told(owned) == GONE


# Where it is raised


@pytest.mark.parametrize("in_order", [True, False])
def test_what_it_waits_for_is_cancelled(owner: MakeOwner, in_order: bool) -> None:
    owned = served(owner, Waits, plain=False)
    lose(owned, in_order=in_order)
    server: Any = owned.factory
    assert server.cancelled == [server.event]
    assert told(owned) == GONE
    assert owned.is_finished


def test_a_lock_is_not_waited_for_any_more(owner: MakeOwner) -> None:
    lock = DeferredLock()
    lock.acquire()

    class Locks(Waits):
        async def handle(self) -> None:
            try:
                await lock.acquire()
            except ClientGone as error:
                self.server.told.append(error)
                raise

    owned = served(owner, Locks, plain=False)
    lose(owned)
    assert told(owned) == GONE
    assert lock.waiting == []


def test_what_a_library_makes_of_its_cancelling_is_not_the_handlers_fault(owner: MakeOwner) -> None:
    class Asks(Waits):
        async def handle(self) -> None:
            await Deferred(lambda deferred: deferred.errback(LookupError("never mind")))

    owned = served(owner, Asks, plain=False)
    lose(owned)
    (error,) = owned.factory.raised
    assert isinstance(error, ClientGone)
    assert owned.outcomes == [(0, Outcome.LOST)]


def test_in_setup_it_is_the_end(owner: MakeOwner) -> None:
    class SetsUp(Waits):
        async def setup(self) -> None:
            super().setup()
            await Deferred()

    owned = served(owner, SetsUp, plain=False)
    lose(owned)
    assert told(owned) == []  # as ever, when C{setup} raises
    assert isinstance(owned.factory.raised[0], ClientGone)
    assert owned.is_finished


class Cleans(StreamRequestHandler):
    """Its C{finish} waits."""

    async def handle(self) -> None:
        if await self.rfile.readline():
            await Deferred()

    async def finish(self) -> None:
        self.server.event = Deferred()
        await self.server.event
        self.server.told.append("finished")


@pytest.mark.parametrize("said", [b"", b"wait\n"])
def test_finish_is_not_interrupted(owner: MakeOwner, said: bytes) -> None:
    """Neither after the handler was told, nor where it has heard of it by what it read."""
    owned = served(owner, Cleans, plain=False)
    if said:
        owned.dataReceived(said)
    lose(owned, in_order=True)
    assert not owned.is_finished
    go_on(owned)
    assert told(owned) == ["finished"]
    assert owned.outcomes == [(0, Outcome.LOST if said else Outcome.OK)]
    assert owned.is_finished


def test_nor_when_the_client_goes_meanwhile_but_it_is_given_up_in_the_end(
    owner: MakeOwner,
) -> None:
    owned = served(owner, Cleans, plain=False, abandon=5)
    owned.readConnectionLost()
    owned.turn()
    lose(owned)
    owned.advance(4)
    assert not owned.is_finished
    owned.advance(1)
    assert owned.is_finished
    assert owned.outcomes == [(5, Outcome.LOST)]


# Handlers that hear of it otherwise


class Reads(Waits):
    """Reads lines, each of which takes some work."""

    async def handle(self) -> None:
        async for line in self.rfile:
            self.server.told.append(line.decode())
            await super().handle()


def test_what_came_before_an_end_in_order_is_read(owner: MakeOwner) -> None:
    owned = served(owner, Reads, plain=False)
    owned.dataReceived(b"one\ntwo\n")
    lose(owned, in_order=True)
    go_on(owned)
    go_on(owned)
    assert told(owned) == ["one\n", "two\n", "finished"]
    assert owned.outcomes == [(0, Outcome.OK)]


def test_but_not_for_ever(owner: MakeOwner) -> None:
    """It is told after 5 s, and given up after 5 more."""

    class Stays(Reads):
        async def handle(self) -> None:
            try:
                await super().handle()
            finally:
                await Deferred()

    owned = served(owner, Stays, plain=False, abandon=5)
    owned.dataReceived(b"one\ntwo\n")
    lose(owned, in_order=True)
    owned.advance(4)
    assert told(owned) == ["one\n"]
    owned.advance(1)
    assert told(owned) == ["one\n", ClientGone]
    owned.advance(4)
    assert not owned.is_finished
    owned.advance(1)
    assert owned.outcomes == [(10, Outcome.LOST)]
    assert owned.is_finished


def test_as_long_as_it_takes_to_read_it(owner: MakeOwner) -> None:
    """Each line takes 4 s, and 5 s without a byte read are too long."""
    owned = served(owner, Reads, plain=False, abandon=5)
    owned.dataReceived(b"line\n" * 10)
    lose(owned, in_order=True)
    for _ in range(10):
        owned.advance(4)
        go_on(owned)
    assert told(owned) == ["line\n"] * 10 + ["finished"]
    assert owned.outcomes == [(40, Outcome.OK)]


@needs_epoll
def test_a_handler_that_reads_on_is_told_when_a_write_fails(owner: MakeOwner) -> None:
    owned = served(owner, Reads, abandon=5)  # a UNIX socket
    assert owned.client is not None
    owned.client.send(b"one\ntwo\n")
    owned.turn()
    assert owned.sent() == b"hello"
    owned.client.close()
    owned.turn()
    assert told(owned) == ["one\n"]
    owned.channel.request.wfile.write(b"an answer")
    owned.turn()
    assert told(owned) == ["one\n", *GONE]
    assert owned.is_finished


def test_after_a_reset_it_is_not(owner: MakeOwner) -> None:
    owned = served(owner, Reads, plain=False)
    owned.dataReceived(b"one\ntwo\n")
    lose(owned)
    assert told(owned) == ["one\n", *GONE]


def test_a_handler_that_waits_for_it_is_told_by_that(owner: MakeOwner) -> None:
    class Races(Waits):
        async def handle(self) -> None:
            gone, event = self.request.gone(), Deferred()
            _, which = await DeferredList([event, gone], fireOnOneCallback=True)
            self.server.told.append(f"told by {which}")

    owned = served(owner, Races, plain=False)
    lose(owned)
    assert told(owned) == ["told by 1", "finished"]
    assert owned.outcomes == [(0, Outcome.OK)]


def test_gone_has_a_deferred_for_each_who_asks(owner: MakeOwner) -> None:
    owned = served(owner, Waits, plain=False)
    request, fired = owned.channel.request, []
    one, two, given_up = request.gone(), request.gone(), request.gone()
    one.addCallback(fired.append)
    two.addCallback(fired.append)
    given_up.addErrback(lambda failure: fired.append("given up"))
    given_up.cancel()
    assert fired == ["given up"]
    lose(owned)
    assert fired == ["given up", None, None]
    request.gone().addCallback(fired.append)
    assert fired[3:] == [None]
    assert told(owned) == GONE  # it waited for something else


def closes_the_connection(handler: Any) -> None:
    handler.request.close()


def ends_its_output(handler: Any) -> None:
    handler.wfile.close()


@pytest.mark.parametrize("end", [closes_the_connection, ends_its_output])
def test_one_that_has_ended_it_by_itself_is_told_nothing(
    owner: MakeOwner, end: Callable[[Any], None]
) -> None:
    class Ends(Waits):
        async def handle(self) -> None:
            end(self)
            self.server.event = Deferred()
            await self.server.event

    owned = served(owner, Ends, sockets=tcp_pair)
    assert owned.client is not None
    owned.client.close()
    owned.turn()
    go_on(owned)
    owned.turn()
    assert told(owned) == ["finished"]
    assert owned.outcomes == [(0, Outcome.OK)]


# Work that must not be cut


class Regardless(Waits):
    handler_cancellation = False


@pytest.mark.parametrize("in_order", [True, False])
def test_a_class_may_finish_regardless(owner: MakeOwner, in_order: bool) -> None:
    owned = served(owner, Regardless, plain=False, abandon=5)
    gone = owned.channel.request.gone()
    lose(owned, in_order=in_order)
    assert gone.called
    owned.advance(1000)
    assert not owned.is_finished
    go_on(owned)
    assert told(owned) == ["finished"]
    assert owned.outcomes == [(1000, Outcome.OK)]
    assert owned.is_finished


def test_so_may_a_section(owner: MakeOwner) -> None:
    class Shields(Waits):
        async def handle(self) -> None:
            with self.request.shielded():
                await super().handle()
            self.server.told.append("unshielded")
            await Deferred()

    owned = served(owner, Shields, plain=False, abandon=5)
    lose(owned)
    owned.advance(1000)
    assert told(owned) == []
    go_on(owned)
    assert told(owned) == ["unshielded", "finished"]
    assert isinstance(owned.factory.raised[0], ClientGone)
    assert owned.outcomes == [(1000, Outcome.LOST)]


def test_a_section_inside_of_another_ends_nothing(owner: MakeOwner) -> None:
    class Shields(Waits):
        async def handle(self) -> None:
            with self.request.shielded():
                with self.request.shielded():
                    await super().handle()
                self.server.event = Deferred()
                await self.server.event
                self.server.told.append("all of it")

    owned = served(owner, Shields, plain=False)
    lose(owned)
    go_on(owned)
    go_on(owned)
    assert told(owned) == ["all of it", "finished"]
    assert owned.outcomes == [(0, Outcome.OK)]  # it has not waited since


class Catches(Waits):
    """Waits for the next thing when it is told."""

    async def handle(self) -> None:
        try:
            await super().handle()
        except ClientGone:
            self.server.event = Deferred()
            await self.server.event


def test_one_that_catches_it_has_lost_its_client_and_some_time(owner: MakeOwner) -> None:
    owned = served(owner, Catches, plain=False, abandon=5)
    lose(owned)
    owned.advance(4)
    go_on(owned)
    assert owned.outcomes == [(4, Outcome.LOST)]

    owned = served(owner, Catches, plain=False, abandon=5)
    lose(owned)
    owned.advance(5)
    assert owned.outcomes == [(5, Outcome.LOST)]
    assert owned.is_finished


def test_without_abandon_it_is_waited_for(owner: MakeOwner) -> None:
    owned = served(owner, Catches, plain=False, abandon=None)
    lose(owned)
    owned.advance(1000)
    assert not owned.is_finished
    owned.channel.abandon()


# Clients that are gone without a word


@needs_tcp_info
def test_what_the_kernel_has_not_sent_counts_for_write(owner: MakeOwner) -> None:
    owned = served(owner, Waits, sockets=tcp_pair, write=10)
    client: Any = owned.client
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
    request = owned.channel.request
    for _ in range(100):  # the handler's buffer is empty: the kernel has it all
        request.wfile.write(bytes(1000))
    assert request.wfile.is_empty()
    owned.advance(10)
    owned.advance(10)
    assert told(owned) == [DeadlineExpired, "finished"]
    assert owned.is_finished


@needs_tcp_info
def test_a_client_that_has_taken_all_is_left_alone(owner: MakeOwner) -> None:
    owned = served(owner, Waits, sockets=tcp_pair, write=10)
    for _ in range(10):
        owned.advance(10)
        assert owned.sent() == b"hello"
        owned.channel.request.wfile.write(b"hello")
    assert owned.expired == []
    assert told(owned) == []


@needs_tcp_info
def test_the_end_of_a_write_does_not_cut_work_that_must_not_be_cut(owner: MakeOwner) -> None:
    owned = served(owner, Regardless, plain=False, write=10, abandon=5)
    owned.below.room = 0
    owned.channel.request.wfile.write(bytes(1_000_000))
    owned.turn()
    owned.advance(10)
    owned.channel.abandon()
    assert not owned.is_finished
    go_on(owned)
    assert told(owned) == ["finished"]
