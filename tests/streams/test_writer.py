"""Writing: when bytes leave, how a slow reader is waited for, and what guards that."""

from array import array
from typing import Any

import pytest
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from zope.interface import directlyProvides

from sockserve.core.tasks import Task, Wakeup
from sockserve.interfaces import DeadlineExpired, Phase
from sockserve.streams.outbox import Outbox
from sockserve.streams.reader import HIGH_WATER_BYTES, LOW_WATER_BYTES
from sockserve.streams.writer import StreamWriter
from tests.transports import Call, Connection

DATA = bytes(range(256)) * 4096  # 1 MiB, in which a lost or swapped piece shows

both_ways = pytest.mark.parametrize("direct", [True, False], ids=["plain", "wrapped"])


# Order and pieces


@both_ways
@pytest.mark.parametrize("piece", [1000, 65536, 65537, 300_000, len(DATA)])
@pytest.mark.parametrize("room", [1 << 30, 100_000, 4096])
def test_everything_leaves_in_order(direct: bool, piece: int, room: int) -> None:
    """However much the kernel takes at a time."""
    connection = Connection(room=0, direct=direct)
    for start in range(0, len(DATA), piece):
        connection.writer.write(DATA[start : start + piece])
        connection.transport.make_room(room // 10)
    while len(connection.transport.sent) < len(DATA):
        before = len(connection.transport.sent)
        connection.transport.make_room(room)
        assert len(connection.transport.sent) > before
    assert connection.transport.sent == DATA
    assert connection.writer.sent == len(DATA)


def test_bytes_are_sent_at_once_when_nothing_is_queued() -> None:
    connection = Connection()
    connection.writer.write(b"one")
    assert connection.transport.packets == [b"one"]
    assert connection.transport not in connection.transport.reactor.writers


@both_ways
def test_what_a_turn_writes_leaves_in_one_piece(direct: bool) -> None:
    connection = Connection(direct=direct)

    async def answers() -> None:
        connection.writer.write(b"head ")
        connection.writer.writelines([b"and ", b"body"])
        assert connection.transport.packets == []
        await connection.reader.readline()
        connection.writer.write(b"good-bye")

    call = Call(answers(), connection.writer)
    connection.clock.advance(0)
    connection.transport.make_room()
    assert connection.transport.packets == [b"head and body"]
    connection.reader.feed(b"\n")
    connection.clock.advance(0)
    connection.transport.make_room()
    assert connection.transport.packets == [b"head and body", b"good-bye"]
    call.result()


@both_ways
def test_flush_sends_what_is_held_back(direct: bool) -> None:
    connection = Connection(direct=direct)
    connection.writer.corked = True
    connection.writer.flush()
    connection.writer.write(b"progress")
    connection.writer.flush()
    connection.transport.make_room()
    assert connection.transport.packets == [b"progress"]


def test_a_turn_that_writes_much_does_not_hold_it_back() -> None:
    connection = Connection()
    connection.writer.corked = True
    for _ in range(3):
        connection.writer.write(bytes(HIGH_WATER_BYTES // 2))
    assert len(connection.transport.sent) >= HIGH_WATER_BYTES


@pytest.mark.parametrize(
    ("data", "sent"),
    [
        (b"bytes", b"bytes"),
        (bytearray(b"array"), b"array"),
        (memoryview(b"a view")[2:], b"view"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (array("H", [0x4141, 0x4242]), b"AABB"),
        (b"", b""),
    ],
)
def test_any_buffer_can_be_written(data: Any, sent: bytes) -> None:
    connection = Connection()
    assert connection.writer.write(data) == len(sent)
    assert connection.transport.sent == sent


@pytest.mark.parametrize("data", ["text", None, 7, [b"list"]])
def test_what_is_no_buffer_is_a_type_error(data: Any) -> None:
    with pytest.raises(TypeError):
        Connection().writer.write(data)


@both_ways
def test_a_buffer_may_be_reused_after_write(direct: bool) -> None:
    connection = Connection(room=0, direct=direct)
    data = bytearray(b"before")
    connection.writer.write(data)
    data[:] = b"after!"
    connection.transport.make_room()
    assert connection.transport.sent == b"before"


# Watermarks


@both_ways
def test_drain_waits_above_the_high_watermark_until_the_low_one(direct: bool) -> None:
    connection = Connection(room=0, direct=direct)
    # What the transport holds is not the writer's to count: a batch, or its own buffer.
    connection.writer.write(bytes(HIGH_WATER_BYTES))
    connection.writer.write(b"1")
    connection.writer.write(bytes(HIGH_WATER_BYTES))
    connection.writer.write(b"1")
    call = Call(connection.writer.drain())
    assert call.waiting
    while call.waiting:
        queued = 2 * HIGH_WATER_BYTES + 2 - len(connection.transport.sent)
        assert queued > LOW_WATER_BYTES
        connection.transport.make_room(1024)
    assert call.result() is None


@both_ways
def test_drain_below_the_watermark_does_not_wait(direct: bool) -> None:
    connection = Connection(room=0, direct=direct)
    connection.writer.write(bytes(HIGH_WATER_BYTES))
    assert not Call(connection.writer.drain()).waiting


@both_ways
def test_memory_stays_at_the_watermarks_with_a_slow_reader(direct: bool) -> None:
    connection = Connection(room=0, direct=direct)
    writer, transport = connection.writer, connection.transport
    written = 0

    async def sends() -> None:
        nonlocal written
        while written < len(DATA):
            written += writer.write(DATA[written:][:10_000])
            await writer.drain()

    call = Call(sends(), writer)
    while call.waiting:
        # One batch or buffer in the transport, one queue above it, and one write.
        assert written - len(transport.sent) <= 2 * HIGH_WATER_BYTES + 2 * 10_000
        connection.clock.advance(0)
        transport.make_room(5000)
    transport.make_room()
    assert transport.sent == DATA


# Deadlines


@both_ways
def test_bytes_that_do_not_leave_have_a_deadline(direct: bool) -> None:
    connection = Connection(room=0, direct=direct, write=60)
    connection.advance(5)
    connection.writer.write(bytes(200_000))
    call = Call(connection.writer.drain())
    connection.advance(100)
    # Written at 5: 5 + 60.
    assert connection.expired == [(65, Phase.WRITE)]
    with pytest.raises(DeadlineExpired) as expired:
        call.result()
    assert expired.value.phase is Phase.WRITE


def test_one_byte_that_does_not_leave_has_a_deadline() -> None:
    connection = Connection(room=0, write=60)
    connection.writer.write(b"x")
    connection.advance(100)
    assert connection.expired == [(60, Phase.WRITE)]  # 0 + 60


def test_a_reader_that_trickles_does_not_put_off_the_deadline() -> None:
    connection = Connection(room=0, write=60)
    connection.writer.write(bytes(HIGH_WATER_BYTES))
    for _ in range(100):
        connection.transport.make_room(100)
        connection.advance(1)
    # 100 bytes a second: a batch of 65536 had not left at 0 + 60.
    assert connection.expired == [(60, Phase.WRITE)]


def test_each_batch_has_a_deadline_of_its_own() -> None:
    connection = Connection(room=0, write=60)
    connection.writer.write(bytes(4 * HIGH_WATER_BYTES))
    for _ in range(2):
        connection.advance(50)
        connection.transport.make_room(HIGH_WATER_BYTES)
    connection.advance(200)
    # The third batch begins at 2 * 50 = 100: 100 + 60.
    assert connection.expired == [(160, Phase.WRITE)]


@both_ways
def test_bytes_that_have_left_have_no_deadline(direct: bool) -> None:
    connection = Connection(room=0, direct=direct, write=60)
    for _ in range(3):
        connection.writer.write(bytes(200_000))
        connection.advance(59)
        connection.transport.make_room(200_000)
    connection.advance(1000)
    assert connection.expired == []


# The end


@both_ways
def test_close_ends_the_output_after_everything_has_left(direct: bool) -> None:
    connection = Connection(room=0, direct=direct)
    connection.writer.write(DATA)
    connection.writer.close()
    connection.writer.close()
    connection.transport.make_room(len(DATA) - 1)
    assert not connection.transport.write_ended
    connection.transport.make_room()
    assert connection.transport.sent == DATA
    assert connection.transport.write_ended


@both_ways
def test_close_sends_what_is_held_back(direct: bool) -> None:
    connection = Connection(direct=direct)
    connection.writer.corked = True
    connection.writer.write(b"last words")
    connection.writer.close()
    connection.transport.make_room()
    assert connection.transport.sent == b"last words"
    assert connection.transport.write_ended


def test_tls_is_not_cut_off_by_a_half_close() -> None:
    connection = Connection(direct=False)
    directlyProvides(connection.transport, ISSLTransport)
    connection.writer.write(b"data")
    connection.writer.close()
    connection.transport.make_room()
    assert connection.transport.sent == b"data"
    assert not connection.transport.write_ended


def test_writing_after_close_is_an_error() -> None:
    connection = Connection()
    connection.writer.close()
    with pytest.raises(ValueError, match="closed"):
        connection.writer.write(b"more")


@pytest.mark.parametrize("error", [BrokenPipeError(), ConnectionResetError()], ids=repr)
def test_a_peer_that_has_gone_ends_the_connection(error: OSError) -> None:
    connection = Connection()
    connection.writer.write(b"heard")
    connection.transport.broken = error
    connection.writer.write(b"not heard")
    assert connection.transport.aborted
    assert connection.writer.write(b"nor this") == 8
    for _ in range(2):
        with pytest.raises(BrokenPipeError):
            Call(connection.writer.drain()).result()


@both_ways
def test_whoever_drains_gets_the_error_and_the_queue_is_forgotten(direct: bool) -> None:
    connection = Connection(room=0, direct=direct)
    connection.writer.write(DATA)
    call = Call(connection.writer.drain())
    connection.writer.discard(BrokenPipeError("first"))
    connection.writer.discard(BrokenPipeError("second"))
    with pytest.raises(BrokenPipeError, match="first"):
        call.result()
    connection.transport.make_room()
    # No more than the batch, or the buffer, that the transport had already.
    assert len(connection.transport.sent) <= 2 * HIGH_WATER_BYTES


def test_a_failed_writer_leaves_no_delayed_call_once_the_timer_stops() -> None:
    connection = Connection(room=0)
    connection.writer.write(DATA)
    connection.writer.discard(BrokenPipeError())
    connection.timer.stop()
    assert connection.clock.getDelayedCalls() == []


# From plain to wrapped


def test_a_transport_that_becomes_tls_says_when_to_pause() -> None:
    connection = Connection(room=0)
    connection.transport.make_room(5)
    connection.writer.write(b"plain")
    connection.writer.wrapped()
    connection.writer.write(DATA)
    assert connection.transport.sent == b"plain"
    call = Call(connection.writer.drain())
    assert call.waiting
    connection.transport.make_room()
    call.result()
    assert connection.transport.sent == b"plain" + DATA


# What connections of one server send together


def post(writer: StreamWriter, data: bytes, outbox: Outbox) -> None:
    writer.outbox = outbox
    writer.write_at_turn_end(data)


class Outgoing:
    """Connections of one server, with the outbox they share."""

    def __init__(self, count: int) -> None:
        self.clock = Clock()
        self.outbox = Outbox(self.clock)
        self.connections = [Connection() for _ in range(count)]

    def post(self, number: int, data: bytes) -> None:
        post(self.connections[number].writer, data, self.outbox)

    @property
    def packets(self) -> list[list[bytes]]:
        """By connection."""
        return [connection.transport.packets for connection in self.connections]


def test_what_connections_post_leaves_at_the_end_of_the_turn() -> None:
    """All of it by one delayed call, and what one has posted in one piece, in order."""
    outgoing = Outgoing(3)
    order: list[int] = []
    for number, connection in enumerate(outgoing.connections):
        send = connection.transport.send
        connection.transport.send = (  # type: ignore[method-assign]
            lambda data, number=number, send=send: order.append(number) or send(data)
        )
    for number, data in [(2, b"a"), (0, b"b"), (2, b"c"), (1, b"d"), (0, b"e")]:
        outgoing.post(number, data)
    assert outgoing.packets == [[], [], []]
    (call,) = outgoing.clock.getDelayedCalls()
    assert call.getTime() == 0
    outgoing.clock.advance(0)
    assert outgoing.packets == [[b"be"], [b"d"], [b"ac"]]
    assert order == [2, 0, 1]  # whoever posted first
    assert outgoing.clock.getDelayedCalls() == []


def test_each_turn_has_a_delayed_call_of_its_own() -> None:
    outgoing = Outgoing(1)
    for turn in range(3):
        outgoing.post(0, b"%d" % turn)
        assert len(outgoing.clock.getDelayedCalls()) == 1
        outgoing.clock.advance(0)
    assert outgoing.packets == [[b"0", b"1", b"2"]]


def test_what_is_posted_while_the_outbox_is_emptied_leaves_by_another_call() -> None:
    """A client that is answered may ask again at once."""
    outgoing = Outgoing(2)
    send = outgoing.connections[0].transport.send

    def answered(data: bytes) -> int:
        if data == b"first":
            outgoing.post(1, b"second")
            assert len(outgoing.clock.getDelayedCalls()) == 1
        return send(data)

    outgoing.connections[0].transport.send = answered  # type: ignore[method-assign]
    outgoing.post(0, b"first")
    outgoing.clock.advance(0)  # with a Clock that turn and the next
    assert outgoing.packets == [[b"first"], [b"second"]]


@both_ways
def test_posted_and_written_bytes_keep_their_order(direct: bool) -> None:
    connection, outbox = Connection(direct=direct), Outbox(clock := Clock())
    writer = connection.writer
    writer.corked = True
    writer.write(b"1")
    post(writer, b"2", outbox)
    writer.write(b"3")
    writer.corked = False
    writer.write(b"4")  # does not wait for the end of the turn, nor leave before the others
    connection.transport.make_room()
    assert connection.transport.sent == b"1234"
    post(writer, b"5", outbox)
    clock.advance(0)
    connection.transport.make_room()
    assert connection.transport.sent == b"12345"
    assert writer.sent == 5


@both_ways
def test_posting_above_the_watermark_does_not_wait_for_the_end_of_the_turn(direct: bool) -> None:
    connection, outbox = Connection(direct=direct), Outbox(clock := Clock())
    post(connection.writer, bytes(HIGH_WATER_BYTES), outbox)
    connection.transport.make_room()
    assert connection.transport.sent == b""
    post(connection.writer, b"1", outbox)
    connection.transport.make_room()
    assert connection.transport.sent == bytes(HIGH_WATER_BYTES) + b"1"
    clock.advance(0)
    assert connection.writer.is_empty()


@both_ways
def test_posting_while_the_client_takes_nothing_waits_for_it(direct: bool) -> None:
    connection, outbox = Connection(room=0, direct=direct), Outbox(clock := Clock())
    writer = connection.writer
    writer.write(bytes(2 * HIGH_WATER_BYTES))
    post(writer, b"more", outbox)
    clock.advance(0)
    assert connection.transport.sent == b""
    connection.transport.make_room()
    assert connection.transport.sent == bytes(2 * HIGH_WATER_BYTES) + b"more"
    assert writer.is_empty()


@both_ways
@pytest.mark.parametrize("posts_again", [False, True], ids=["", "posts-again"])
def test_closing_before_the_end_of_the_turn_sends_what_was_posted(
    direct: bool, posts_again: bool
) -> None:
    connection, outbox = Connection(direct=direct), Outbox(clock := Clock())
    post(connection.writer, b"last words", outbox)
    connection.writer.close()
    if posts_again:
        post(connection.writer, b"too late", outbox)
    clock.advance(0)
    connection.transport.make_room()
    assert connection.transport.sent == b"last words"
    assert connection.transport.write_ended


@both_ways
@pytest.mark.parametrize("posts_again", [False, True], ids=["", "posts-again"])
def test_what_was_posted_to_a_connection_that_is_lost_goes_nowhere(
    direct: bool, posts_again: bool
) -> None:
    lost, other = Connection(direct=direct), Connection()
    outbox = Outbox(clock := Clock())
    for connection in (lost, other):
        post(connection.writer, b"posted", outbox)
    lost.writer.discard(ConnectionResetError())
    if posts_again:
        post(lost.writer, b"too late", outbox)
    clock.advance(0)
    lost.transport.make_room()
    assert lost.transport.sent == b""
    assert lost.writer.queued_bytes == 0
    assert other.transport.sent == b"posted"


def test_a_client_that_has_gone_does_not_keep_others_from_their_answers() -> None:
    """Its connection shows that only when the outbox is emptied."""
    outgoing = Outgoing(3)
    outgoing.connections[1].transport.broken = ConnectionResetError()
    for number in range(3):
        outgoing.post(number, b"answer")
    outgoing.clock.advance(0)
    assert outgoing.packets == [[b"answer"], [], [b"answer"]]
    assert outgoing.connections[1].transport.aborted
    assert outgoing.connections[1].writer.is_broken()


def test_nor_does_one_whose_end_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody does who hears that a connection is gone is not the others' business."""
    outgoing = Outgoing(3)

    def raising() -> None:
        raise ZeroDivisionError("on purpose")

    transport = outgoing.connections[1].transport
    transport.broken = ConnectionResetError()
    monkeypatch.setattr(transport, "abortConnection", raising)
    for number in range(3):
        outgoing.post(number, b"answer")
    with capturedLogs() as events:
        outgoing.clock.advance(0)
    assert outgoing.packets == [[b"answer"], [], [b"answer"]]
    assert [event["log_failure"].type for event in events] == [ZeroDivisionError]
    outgoing.post(2, b"next")
    outgoing.clock.advance(0)
    assert outgoing.packets[2] == [b"answer", b"next"]


def test_posted_bytes_that_do_not_leave_have_a_deadline() -> None:
    connection, outbox = Connection(room=0, write=60), Outbox(clock := Clock())
    post(connection.writer, b"x", outbox)
    connection.advance(5)
    clock.advance(0)
    connection.advance(100)
    assert connection.expired == [(65, Phase.WRITE)]  # sent at 5: 5 + 60


# How much waits


@both_ways
def test_waiting_and_is_empty_tell_what_is_still_here(direct: bool) -> None:
    connection = Connection(room=0, direct=direct)
    writer = connection.writer
    assert (writer.queued_bytes, writer.is_empty()) == (0, True)
    writer.corked = True
    writer.write(b"held back")
    assert (writer.queued_bytes, writer.is_empty()) == (9, False)
    writer.write(bytes(3 * HIGH_WATER_BYTES))
    while not writer.is_empty():
        here = len(b"held back") + 3 * HIGH_WATER_BYTES - len(connection.transport.sent)
        # The rest is the transport's: a batch, or its own buffer.
        assert here - 2 * HIGH_WATER_BYTES <= writer.queued_bytes <= here
        connection.transport.make_room(10_000)
    assert writer.queued_bytes == 0
    if direct:  # the kernel has it all; a wrapped transport's buffer is its own
        assert len(connection.transport.sent) == len(b"held back") + 3 * HIGH_WATER_BYTES


@pytest.mark.parametrize("taken", [1, 5])
def test_a_part_the_kernel_did_not_take_still_waits(taken: int) -> None:
    connection = Connection(room=taken)
    connection.writer.write(b"123456")
    assert not connection.writer.is_empty()
    connection.transport.make_room()
    assert connection.writer.is_empty()
    assert connection.transport.sent == b"123456"


@both_ways
def test_who_waits_for_all_to_have_left_does_not_wait_for_the_end_of_the_turn(direct: bool) -> None:
    connection = Connection(direct=direct)
    connection.writer.corked = True
    connection.writer.write(b"held")
    connection.writer.uncork()
    call = Call(connection.writer.emptied())
    connection.transport.make_room()
    assert connection.transport.sent == b"held"
    call.result()
    connection.clock.advance(0)
    assert connection.transport.sent == b"held"


def test_what_was_written_leaves_before_its_handler_goes_on() -> None:
    """Be that in the same turn."""
    connection = Connection()
    gate = Wakeup()
    left: list[bytes] = []

    async def serves() -> None:
        connection.writer.write(b"before")
        await gate
        left.append(bytes(connection.transport.sent))

    Task(serves(), lambda result, error: None, connection.writer).start()
    assert not connection.writer.is_empty()
    gate.wake()
    assert left == [b"before"]


def test_what_is_forgotten_does_not_leave() -> None:
    connection = Connection()
    connection.writer.corked = True
    connection.writer.write(b"the parent's")
    connection.writer.uncork()
    connection.writer.forget_held()
    connection.clock.advance(0)
    connection.writer.write(b"the child's")
    assert connection.transport.sent == b"the child's"
