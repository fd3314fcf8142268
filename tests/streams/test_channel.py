"""Channels: what keeps a connection, and how one ends that the reactor reads and writes."""

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from sockserve import BaseRequestHandler
from sockserve.interfaces import Outcome, Phase
from sockserve.streams.channel import (
    Channel,
    ChannelOwner,
    Pending,
    transport_descriptors,
)
from sockserve.streams.transport_channel import TransportChannel
from tests.streams.owner import Owner
from tests.transports import KernelTransport

MakeOwner = Callable[..., Owner]


class Handler(BaseRequestHandler):
    async def handle(self) -> None:
        raise AssertionError("not called here")


class Channels(TransportChannel):
    """
    A channel whose handler is the test.

    @ivar unread: whether the client may have sent what nobody has read.
    @ivar ended: whether it has ended its side.
    """

    def __init__(self, protocol: ChannelOwner) -> None:
        super().__init__(protocol)
        self.unread = self.ended = False
        self.aborts = 0
        protocol.set_receiver(lambda data: None)

    def answerer(self) -> None:
        """The test is none."""

    def begin(self) -> None:
        self._handler_began()

    def finish(self, outcome: Outcome = Outcome.OK) -> None:
        self._handler_finished(outcome)
        self._part_ended(Pending.HANDLER)

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def close(self) -> None:
        self._close()

    def connection_lost(self, reason: Failure) -> None:
        super().connection_lost(reason)
        self._part_ended(Pending.CONNECTION)

    def discard_input(self) -> bool:
        return self.unread

    def input_ended(self) -> bool:
        return self.ended

    def deadline_passed(self, phase: Phase) -> None:
        """Noted by the owner."""

    def abort(self) -> None:
        self.aborts += 1
        super().abort()


def channel_of(owner: Owner) -> Channels:
    assert isinstance(owner.channel, Channels)
    return owner.channel


# What a request in service consists of


@pytest.mark.parametrize("first", ["handler", "connection"])
def test_a_channel_is_finished_when_handler_and_connection_are(
    owner: MakeOwner, first: str
) -> None:
    owned = owner(Handler, Channels, plain=False)
    channel = channel_of(owned)
    channel.begin()
    ends = [channel.finish, lambda: Channel.connection_lost(channel, Failure(ConnectionDone()))]
    if first == "connection":
        ends.reverse()
    ends[0]()
    assert not owned.is_finished
    ends[1]()
    assert owned.is_finished


def test_the_handler_is_timed_and_under_its_deadline(owner: MakeOwner) -> None:
    owned = owner(Handler, Channels, plain=False, handle=10)
    channel = channel_of(owned)
    channel.begin()
    owned.advance(9)
    channel.finish()
    owned.advance(9)
    assert owned.outcomes == [(9, Outcome.OK)]
    assert owned.expired == []


def test_a_handler_that_runs_too_long_is_told(owner: MakeOwner) -> None:
    owned = owner(Handler, Channels, plain=False, handle=10)
    channel_of(owned).begin()
    owned.advance(10)
    assert owned.expired == [Phase.HANDLE]


def test_an_abandoned_handler_is_counted_while_it_runs(owner: MakeOwner) -> None:
    owned = owner(Handler, Channels, plain=False)
    channel = channel_of(owned)
    channel.begin()
    channel.abandon()
    assert channel.aborts == 1
    assert owned.is_finished
    assert owned.factory.statistics.abandoned == 1
    channel._handler_finished(Outcome.OK)
    assert owned.factory.statistics.abandoned == 0


def test_without_a_handler_there_is_nothing_to_abandon(owner: MakeOwner) -> None:
    owned = owner(Handler, Channels, plain=False)
    channel_of(owned).abandon()
    assert not owned.is_finished
    assert owned.factory.statistics.abandoned == 0


def test_descriptors_are_those_of_all_transports_below() -> None:
    class Wrapper:
        transport: Any = None

    class Descriptor(KernelTransport):
        def fileno(self) -> int:
            return 7

    wrapper = Wrapper()
    wrapper.transport = Descriptor()
    assert list(transport_descriptors(wrapper)) == [7]
    assert list(transport_descriptors(None)) == []


# The end of a connection


def test_what_was_written_leaves_before_the_connection_is_closed(owner: MakeOwner) -> None:
    owned = owner(Handler, Channels)
    channel = channel_of(owned)
    channel.write(b"good-bye")
    channel.close()
    assert owned.sent() == b"good-bye"
    assert owned.sent() == b""
    assert owned.is_finished
    assert owned.record.sent == 8


def test_a_client_that_takes_nothing_is_not_waited_for_without_end(owner: MakeOwner) -> None:
    owned = owner(Handler, Channels, write=5)
    channel = channel_of(owned)
    channel.write(bytes(10_000_000))
    channel.close()
    owned.advance(5)
    assert owned.expired == [Phase.WRITE]
    channel.abort()


def test_unread_input_is_thrown_away_for_a_while_after_the_answer(owner: MakeOwner) -> None:
    """Else the kernel would answer it with a reset, which overtakes the answer."""
    owned = owner(Handler, Channels, linger=20)
    channel = channel_of(owned)
    channel.unread = True
    channel.write(b"413")
    channel.close()
    assert owned.sent() == b"413"
    assert owned.sent() == b""  # the output has ended
    assert owned.client is not None
    owned.client.send(b"more")
    owned.advance(19.5)
    assert not owned.is_finished
    owned.advance(0.5)
    assert owned.is_finished
    assert owned.expired == []  # it is no client's fault


@pytest.mark.parametrize("linger", [2, None])
def test_a_client_that_ends_its_side_is_not_lingered_for(
    owner: MakeOwner, linger: float | None
) -> None:
    owned = owner(Handler, Channels, linger=linger)
    channel = channel_of(owned)
    channel.unread = True
    channel.close()
    owned.turn()
    if linger is None:  # the write deadline, 60, is over with the last byte
        owned.advance(1000)
    assert not owned.is_finished
    assert owned.expired == []
    assert owned.client is not None
    owned.client.close()
    owned.turn()
    assert owned.is_finished


def test_nor_is_one_that_has_ended_it_before(owner: MakeOwner) -> None:
    owned = owner(Handler, Channels)
    channel = channel_of(owned)
    channel.unread = channel.ended = True
    channel.close()
    owned.turn()
    assert owned.is_finished


def test_what_is_more_than_a_socket_does_not_linger(owner: MakeOwner) -> None:
    owned = owner(Handler, Channels, plain=False)
    channel = channel_of(owned)
    channel.unread = True
    channel.close()
    assert owned.below.disconnecting


def test_closing_twice_is_closing(owner: MakeOwner) -> None:
    owned = owner(Handler, Channels)
    channel = channel_of(owned)
    channel.close()
    channel.close()
    owned.turn()
    assert owned.is_finished
    channel.close()


def test_a_client_that_goes_away_breaks_the_channel(owner: MakeOwner) -> None:
    owned = owner(Handler, Channels)
    channel = channel_of(owned)
    channel.begin()
    channel.write(b"hello")
    assert not channel.is_broken()
    channel.abort()
    owned.turn()
    assert channel.is_broken()
    assert owned.record.sent == 5
    channel.close()  # for nothing
    channel.finish(Outcome.LOST)
    assert owned.is_finished
    assert owned.outcomes == [(0, Outcome.LOST)]
