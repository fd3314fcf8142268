"""Writing: when bytes leave, how a slow reader is waited for, and what guards that."""

from array import array
from typing import Any

import pytest
from twisted.internet.interfaces import ISSLTransport
from zope.interface import directlyProvides

from sockserve.interfaces import DeadlineExpired, Phase
from sockserve.readers import HIGH_WATER_BYTES, LOW_WATER_BYTES
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
    connection.transport.make_room()
    assert connection.transport.packets == [b"head and body"]
    connection.reader.feed(b"\n")
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
    assert connection.writer.closed
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
    connection.writer.fail(BrokenPipeError("first"))
    connection.writer.fail(BrokenPipeError("second"))
    with pytest.raises(BrokenPipeError, match="first"):
        call.result()
    connection.transport.make_room()
    # No more than the batch, or the buffer, that the transport had already.
    assert len(connection.transport.sent) <= 2 * HIGH_WATER_BYTES


def test_a_failed_writer_leaves_no_delayed_call_once_the_timer_stops() -> None:
    connection = Connection(room=0)
    connection.writer.write(DATA)
    connection.writer.fail(BrokenPipeError())
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
