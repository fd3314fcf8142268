"""The channel of a coroutine handler: data, ends, deadlines, and a TLS handshake asked for."""

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ISSLTransport
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from sockserve import DeadlineExpired, StreamRequestHandler
from sockserve.interfaces import Outcome, Phase
from sockserve.streams.coroutine import CoroutineChannel
from tests.streams.owner import CLIENT, SERVER, Owner

MakeOwner = Callable[..., Owner]


def channel(owner: Any) -> CoroutineChannel:
    return CoroutineChannel(owner, (CLIENT, SERVER))


class Echo(StreamRequestHandler):
    """Echoes by line."""

    async def handle(self) -> None:
        async for line in self.rfile:
            self.wfile.write(line)


class Waits(StreamRequestHandler):
    """Waits for something else than its client."""

    async def handle(self) -> None:
        await Deferred()


class Stubborn(StreamRequestHandler):
    """Reads on after whatever is raised."""

    async def handle(self) -> None:
        while True:
            try:
                if not await self.rfile.readline():
                    return
            except Exception as error:
                self.server.raised.append(error)


def served(owner: MakeOwner, handler: Any, **options: Any) -> Owner:
    """A connection whose handler runs."""
    owned = owner(handler, channel, **options)
    owned.channel.start()
    return owned


def send(owned: Owner, data: bytes) -> None:
    assert owned.client is not None
    owned.client.send(data)
    owned.turn()


# In good order


def test_a_handler_reads_and_writes_its_connection(owner: MakeOwner) -> None:
    owned = served(owner, Echo)
    send(owned, b"one\n")
    assert owned.sent() == b"one\n"
    send(owned, b"two\n")
    assert owned.client is not None
    owned.client.shutdown(1)
    assert owned.sent() == b"two\n"
    assert owned.sent() == b""
    assert owned.outcomes == [(0, Outcome.OK)]
    assert owned.is_finished
    assert (owned.record.received, owned.record.sent) == (8, 8)


def test_the_request_has_the_connections_addresses(owner: MakeOwner) -> None:
    request = owner(Echo, channel, plain=False).channel.request
    assert (request.getpeername(), request.getsockname()) == (CLIENT, SERVER)


def test_a_handler_that_raises_has_failed(owner: MakeOwner) -> None:
    class Fails(StreamRequestHandler):
        async def handle(self) -> None:
            raise ValueError("no")

    owned = served(owner, Fails)
    assert owned.sent() == b""
    assert owned.outcomes == [(0, Outcome.ERROR)]
    assert [str(error) for error in owned.factory.raised] == ["no"]
    assert owned.is_finished


def test_what_passes_handle_error_is_logged(owner: MakeOwner) -> None:
    class Fails(StreamRequestHandler):
        async def handle(self) -> None:
            raise ValueError("no")

    def handle_error(request: Any, client_address: Any) -> None:
        raise LookupError("not this one")

    owned = owner(Fails, channel)
    owned.factory.handle_error = handle_error  # type: ignore[method-assign]
    with capturedLogs() as logged:
        owned.channel.start()
        owned.turn()
    failures = [each["log_failure"].getErrorMessage() for each in logged if "log_failure" in each]
    assert failures == ["not this one"]
    assert owned.outcomes == [(0, Outcome.ERROR)]
    assert owned.is_finished


# The connection is lost


def test_a_connection_that_closes_is_an_end_of_file(owner: MakeOwner) -> None:
    owned = served(owner, Stubborn, plain=False)
    owned.connectionLost(Failure(ConnectionDone()))
    assert owned.factory.raised == []
    assert owned.outcomes == [(0, Outcome.OK)]
    assert owned.is_finished


def test_a_connection_that_breaks_raises(owner: MakeOwner) -> None:
    owned = served(owner, Stubborn, plain=False)
    owned.connectionLost(Failure(ConnectionAborted()))
    (error,) = owned.factory.raised
    assert isinstance(error, ConnectionResetError)
    assert owned.is_finished


def test_a_handler_may_outlive_its_connection(owner: MakeOwner) -> None:
    class Regardless(Waits):
        handler_cancellation = False

    owned = served(owner, Regardless, plain=False)
    owned.connectionLost(Failure(ConnectionAborted()))
    assert not owned.is_finished
    assert owned.outcomes == []
    owned.channel.abandon()
    assert owned.outcomes == [(0, Outcome.ERROR)]
    assert owned.is_finished


@pytest.mark.parametrize("plain", [True, False], ids=["tcp", "wrapped"])
@pytest.mark.parametrize("size", [1, 10_000_000], ids=["taken", "not taken"])
def test_no_output_is_waited_for_that_a_lost_client_could_take(
    owner: MakeOwner, plain: bool, size: int
) -> None:
    """Whatever was on its way to the client: its handler has as long as it likes."""

    class Regardless(StreamRequestHandler):
        handler_cancellation = False

        async def handle(self) -> None:
            self.wfile.write(bytes(size))
            await goes_on

    goes_on: Deferred[None] = Deferred()
    owned = served(owner, Regardless, plain=plain, write=5)
    owned.turn()
    if plain:
        owned.below.connectionLost(Failure(ConnectionLost()))
    else:
        owned.connectionLost(Failure(ConnectionLost()))
    with capturedLogs() as logged:
        owned.advance(100)
    assert logged == []
    assert owned.expired == []
    assert owned.outcomes == []
    goes_on.callback(None)
    assert owned.outcomes == [(100, Outcome.OK)]
    assert owned.is_finished


# Deadlines


def test_idle_is_raised_where_the_handler_reads(owner: MakeOwner) -> None:
    owned = served(owner, Echo, idle=10)
    send(owned, b"one\n")
    assert owned.sent() == b"one\n"
    owned.advance(10)
    (error,) = owned.factory.raised
    assert isinstance(error, DeadlineExpired)
    assert error.phase is Phase.IDLE
    assert owned.outcomes == [(10, Outcome.LOST)]
    assert owned.is_finished


@pytest.mark.parametrize("phase", [Phase.HANDLE, Phase.LIFETIME, Phase.DRAIN])
def test_a_deadline_of_the_whole_is_raised_wherever_the_handler_waits(
    owner: MakeOwner, phase: Phase
) -> None:
    owned = served(owner, Waits)
    owned.timer.arm(phase, 10)
    owned.advance(10)
    (error,) = owned.factory.raised
    assert isinstance(error, DeadlineExpired)
    assert error.phase is phase
    assert owned.outcomes == [(10, Outcome.LOST)]
    assert owned.is_finished


def test_a_peer_that_takes_nothing_loses_its_connection(owner: MakeOwner) -> None:
    class Floods(StreamRequestHandler):
        async def handle(self) -> None:
            while True:
                self.wfile.write(bytes(100_000))
                await self.wfile.drain()

    owned = served(owner, Floods, write=5)
    owned.turn()
    owned.advance(5)
    (error,) = owned.factory.raised
    assert isinstance(error, DeadlineExpired)
    assert error.phase is Phase.WRITE
    assert owned.is_finished


def test_a_deadline_after_the_handler_aborts(owner: MakeOwner) -> None:
    """It has finished, and its client takes nothing of what it wrote."""

    class Writes(StreamRequestHandler):
        async def handle(self) -> None:
            self.wfile.write(bytes(10_000_000))

    owned = served(owner, Writes, write=5)
    owned.turn()
    assert owned.outcomes == [(0, Outcome.OK)]
    owned.advance(5)
    assert owned.is_finished


# The service stops


def test_draining_ends_the_input_between_messages(owner: MakeOwner) -> None:
    owned = served(owner, Echo)
    send(owned, b"half a li")
    owned.channel.drain()
    owned.turn()
    assert not owned.is_finished
    send(owned, b"ne\n")
    assert owned.sent() == b"half a line\n"
    assert owned.sent() == b""
    assert owned.outcomes == [(0, Outcome.OK)]
    assert owned.is_finished


def test_an_abandoned_coroutine_is_closed(owner: MakeOwner) -> None:
    ends: list[str] = []

    class Cleans(StreamRequestHandler):
        async def handle(self) -> None:
            try:
                await Deferred()
            finally:
                ends.append("closed")

    owned = served(owner, Cleans)
    owned.channel.abandon()
    assert ends == ["closed"]
    assert owned.outcomes == [(0, Outcome.ERROR)]
    assert owned.is_finished
    assert owned.factory.statistics.abandoned == 0  # unlike a thread, it does not run on


# TLS that the handler asks for


class Secures(StreamRequestHandler):
    async def handle(self) -> None:
        await self.rfile.readline()
        self.wfile.write(b"go ahead\n")
        await self.request.start_tls("a context")
        self.wfile.write(b"secured\n")


def secured(owner: MakeOwner) -> Owner:
    """A connection whose handler waits for a handshake."""
    owned = owner(Secures, channel, plain=False, handshake=10)
    contexts: list[Any] = []
    owned.below.startTLS = contexts.append
    owned.channel.start()
    owned.dataReceived(b"STARTTLS\n")
    owned.turn()
    assert owned.sent() == b"go ahead\n"
    assert contexts == ["a context"]
    assert ISSLTransport.providedBy(owned.below)
    return owned


def test_a_handler_goes_on_when_its_handshake_is_through(owner: MakeOwner) -> None:
    owned = secured(owner)
    owned.channel.handshake_completed()
    owned.turn()
    assert owned.sent() == b"go ahead\nsecured\n"
    assert owned.outcomes == [(0, Outcome.OK)]
    owned.advance(20)
    assert Phase.HANDSHAKE not in owned.expired


def test_a_handshake_has_a_deadline(owner: MakeOwner) -> None:
    owned = secured(owner)
    owned.advance(10)
    assert owned.expired == [Phase.HANDSHAKE]
    (error,) = owned.factory.raised
    assert isinstance(error, DeadlineExpired)
    assert owned.below.aborted


def test_a_connection_that_breaks_in_the_handshake_raises(owner: MakeOwner) -> None:
    owned = secured(owner)
    owned.connectionLost(Failure(ConnectionAborted()))
    (error,) = owned.factory.raised
    assert isinstance(error, ConnectionResetError)
    assert "TLS handshake" in str(error)
    assert owned.is_finished


def test_tls_does_not_start_over_unread_bytes(owner: MakeOwner) -> None:
    owned = owner(Secures, channel, plain=False)
    owned.channel.start()
    owned.dataReceived(b"STARTTLS\nand more")
    owned.turn()
    (error,) = owned.factory.raised
    assert isinstance(error, RuntimeError)
    assert "unread" in str(error)


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "wrapped"])
def test_a_client_is_not_late_for_what_it_was_not_sent_yet(owner: MakeOwner, plain: bool) -> None:
    """As it waits for the end of the turn; an earlier piece has set the deadline."""
    owned = served(owner, Waits, plain=plain, write=5)
    writer = owned.channel.writer
    writer.corked = True
    writer.write(b"held")
    writer.uncork()
    assert not writer.is_empty()
    assert not owned.channel.deadline_applies(Phase.WRITE)
    assert writer.is_empty()
