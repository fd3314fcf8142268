"""Reading: what a coroutine handler gets from its rfile, and which deadline guards it."""

import asyncio
import io
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import ensureDeferred

from sockserve.interfaces import DeadlineExpired, Phase
from sockserve.streams.reader import HIGH_WATER_BYTES, LOW_WATER_BYTES, StreamReader
from tests.transports import Call, Connection

TEXT = b"one\ntwo\r\n\n\nfive\0\xff\nlast"


def connection_with(data: bytes = b"", *, eof: bool = False, **deadlines: Any) -> Connection:
    connection = Connection(**deadlines)
    if data:
        connection.reader.feed(data)
    if eof:
        connection.reader.feed_eof()
    return connection


def reader_of(data: bytes, *, eof: bool = True) -> StreamReader:
    return connection_with(data, eof=eof).reader


async def pieces(read: Callable[[], Coroutine[Any, Any, bytes]]) -> list[bytes]:
    """Read until end of file."""
    seen = []
    while piece := await read():
        seen.append(piece)
    return seen


# As the standard library's


@pytest.mark.parametrize("size", [-1, 0, 1, 2, 3, 4, 5, 100])
@pytest.mark.parametrize("data", [TEXT, b"", b"\n", b"no newline", b"one\n"])
def test_readline_is_that_of_files(data: bytes, size: int) -> None:
    reader, file = reader_of(data), io.BytesIO(data)
    for _ in range(len(data) + 2):
        assert Call(reader.readline(size)).result() == file.readline(size)
    assert reader.at_eof() is (file.tell() == len(data))


@pytest.mark.parametrize("size", [-1, 0, 1, 3, 100])
@pytest.mark.parametrize("data", [TEXT, b"", b"\n"])
def test_read_is_that_of_files(data: bytes, size: int) -> None:
    reader, file = reader_of(data), io.BytesIO(data)
    for _ in range(len(data) + 2):
        assert Call(reader.read(size)).result() == file.read(size)


@pytest.mark.parametrize("data", [TEXT, b"", b"\n", b"\n\n", b"no newline"])
def test_iteration_is_that_of_files(data: bytes) -> None:
    async def lines(reader: StreamReader) -> list[bytes]:
        return [line async for line in reader]

    assert Call(lines(reader_of(data))).result() == list(io.BytesIO(data))


def of_asyncio(data: bytes) -> asyncio.StreamReader:
    """Whose end has come, so that it never waits and needs no loop."""
    loop: Any = SimpleNamespace(get_debug=lambda: False)
    reader = asyncio.StreamReader(loop=loop)
    reader.feed_data(data)
    reader.feed_eof()
    return reader


@pytest.mark.parametrize(
    "read",
    [
        lambda reader: reader.readuntil(),
        lambda reader: reader.readuntil(b"\n\n"),
        lambda reader: reader.readuntil(b"\r\n"),
        lambda reader: reader.readuntil(b"\0"),
        lambda reader: reader.readuntil(b"never"),
        lambda reader: reader.readuntil(b""),
        lambda reader: reader.readexactly(0),
        lambda reader: reader.readexactly(7),
        lambda reader: reader.readexactly(100),
        lambda reader: reader.readexactly(-1),
    ],
)
@pytest.mark.parametrize("data", [TEXT, b"", b"\n"])
def test_readuntil_and_readexactly_are_those_of_asyncio(
    data: bytes, read: Callable[[Any], Coroutine[Any, Any, bytes]]
) -> None:
    def outcome(reader: Any) -> Any:
        try:
            return Call(read(reader)).result()
        except asyncio.IncompleteReadError as error:
            return type(error), error.partial, error.expected
        except ValueError as error:
            return type(error)

    ours, theirs = reader_of(data), of_asyncio(data)
    for _ in range(3):
        assert outcome(ours) == outcome(theirs)
        assert ours.at_eof() == theirs.at_eof()


def test_read_to_the_end_waits_for_the_end() -> None:
    reader = reader_of(b"", eof=False)
    call = Call(reader.read())
    for piece in (b"a", b"b" * 100_000, b"c"):
        reader.feed(piece)
        assert call.waiting
    reader.feed_eof()
    assert call.result() == b"a" + b"b" * 100_000 + b"c"


def test_read_gives_what_there_is() -> None:
    reader = reader_of(b"abc", eof=False)
    assert Call(reader.read(100)).result() == b"abc"
    call = Call(reader.read(100))
    assert call.waiting
    reader.feed(b"de")
    assert call.result() == b"de"


# Bytes that come in pieces


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda reader: reader.readline(), b"one\n"),
        (lambda reader: reader.readline(3), b"one"),
        (lambda reader: reader.readuntil(b"o\r\n"), b"one\ntwo\r\n"),
        (lambda reader: reader.readexactly(6), b"one\ntw"),
        (lambda reader: anext(reader), b"one\n"),
    ],
    ids=["readline", "readline(3)", "readuntil", "readexactly", "iteration"],
)
def test_a_read_waits_for_all_it_needs_and_takes_no_more(read: Any, expected: bytes) -> None:
    reader = reader_of(b"", eof=False)

    async def reads() -> bytes:
        return await read(reader)

    call = Call(reads())
    for number, byte in enumerate(TEXT[: len(expected)]):
        assert call.waiting, f"after {number} bytes"
        reader.feed(bytes([byte]))
    assert call.result() == expected
    reader.feed(TEXT[len(expected) :])
    reader.feed_eof()
    assert expected + Call(reader.read()).result() == TEXT


def test_several_lines_in_one_piece() -> None:
    reader = reader_of(b"", eof=False)
    call = Call(pieces(reader.readline))
    reader.feed(b"one\ntwo\nth")
    reader.feed(b"ree\nfour")
    reader.feed_eof()
    assert call.result() == [b"one\n", b"two\n", b"three\n", b"four"]


def test_what_is_received_is_counted() -> None:
    reader = reader_of(b"abc", eof=False)
    Call(reader.read(2)).result()
    reader.feed(b"de")
    assert reader.received == 5


# Limits


@pytest.mark.parametrize("arrives", ["at once", "byte by byte"])
@pytest.mark.parametrize(
    "read",
    [
        lambda reader: reader.readline(),
        lambda reader: reader.readuntil(b"\r\n"),
        lambda reader: anext(reader),
    ],
    ids=["readline", "readuntil", "iteration"],
)
@pytest.mark.parametrize("excess", [0, 1, 5])
def test_a_line_may_be_as_long_as_the_limit(read: Any, excess: int, arrives: str) -> None:
    """With its newline; and however its bytes arrive."""
    connection = connection_with()
    reader = connection.reader
    reader.limit = 10
    line = b"x" * (8 + excess) + b"\r\n"

    async def reads() -> bytes:
        return await read(reader)

    if arrives == "at once":
        reader.feed(line)
        call = Call(reads())
    else:
        call = Call(reads())
        for byte in line:
            reader.feed(bytes([byte]))
    if excess:
        with pytest.raises(asyncio.LimitOverrunError, match="10 bytes"):
            call.result()
    else:
        assert call.result() == line


@pytest.mark.parametrize("end_first", [True, False])
@pytest.mark.parametrize("size", [9, 10, 11])
def test_the_limit_holds_for_a_last_line_without_newline(size: int, end_first: bool) -> None:
    reader = reader_of(b"x" * size, eof=False)
    reader.limit = 10
    if end_first:
        reader.feed_eof()
        call = Call(reader.readline())
    else:
        call = Call(reader.readline())
        reader.feed_eof()
    if size > 10:
        with pytest.raises(asyncio.LimitOverrunError):
            call.result()
    else:
        assert call.result() == b"x" * size


@pytest.mark.parametrize("separator", [b"\n", b"\r\n"])
@pytest.mark.parametrize("arrives", ["at once", "byte by byte"])
def test_what_is_too_long_can_be_skipped(separator: bytes, arrives: str) -> None:
    """As with asyncio: C{consumed} bytes can be taken without losing the separator."""
    reader = reader_of(b"", eof=False)
    reader.limit = 10

    async def short_lines() -> list[bytes]:
        seen = []
        skipping = False
        while True:
            try:
                line = await reader.readuntil(separator)
            except asyncio.LimitOverrunError as error:
                await reader.readexactly(error.consumed)
                skipping = True
            except asyncio.IncompleteReadError:
                return seen
            else:
                if not skipping:
                    seen.append(line)
                skipping = False

    call = Call(short_lines())
    data = separator.join([b"one", b"y" * 33, b"two", b"z" * 10, b"x", b""])
    for piece in [data] if arrives == "at once" else [bytes([byte]) for byte in data]:
        reader.feed(piece)
    reader.feed_eof()
    assert call.result() == [b"one" + separator, b"two" + separator, b"x" + separator]


def test_a_named_limit_is_not_an_error() -> None:
    reader = reader_of(b"x" * 100 + b"\n")
    reader.limit = 10
    assert Call(reader.readline(60)).result() == b"x" * 60
    assert Call(reader.readline(60)).result() == b"x" * 40 + b"\n"


def test_the_limit_is_not_for_counted_reads() -> None:
    reader = reader_of(b"x" * 100)
    reader.limit = 10
    assert Call(reader.readexactly(50)).result() == b"x" * 50
    assert Call(reader.read()).result() == b"x" * 50


# The end, and errors


def test_after_the_end_every_read_gives_nothing() -> None:
    reader = reader_of(b"")
    for _ in range(2):
        assert reader.at_eof()
        assert Call(reader.read()).result() == b""
        assert Call(reader.read(5)).result() == b""
        assert Call(reader.readline()).result() == b""
        assert Call(pieces(reader.readline)).result() == []


def test_a_broken_connection_is_raised_after_what_had_come() -> None:
    reader = reader_of(b"one\ntwo", eof=False)
    reader.fail(ConnectionResetError("gone"))
    assert Call(reader.readline()).result() == b"one\n"
    with pytest.raises(ConnectionResetError, match="gone"):
        Call(reader.readline()).result()


def test_after_the_error_there_is_only_end_of_file() -> None:
    """A handler that reads on whatever is raised comes to an end, and gets no half a line."""
    reader = reader_of(b"half a li", eof=False)
    reader.fail(ConnectionResetError("gone"))
    with pytest.raises(ConnectionResetError, match="gone"):
        Call(reader.readline()).result()
    for _ in range(2):
        assert Call(reader.readline()).result() == b""
    assert reader.at_eof()


def test_whoever_waits_gets_the_first_error() -> None:
    reader = reader_of(b"", eof=False)
    call = Call(reader.read())
    reader.fail(ConnectionResetError("first"))
    reader.fail(ConnectionResetError("second"))
    with pytest.raises(ConnectionResetError, match="first"):
        call.result()


def test_one_read_at_a_time() -> None:
    reader = reader_of(b"", eof=False)
    first = Call(reader.readline())
    with pytest.raises(RuntimeError, match="another read is already waiting"):
        Call(reader.read(1)).result()
    reader.feed(b"line\n")
    assert first.result() == b"line\n"


@pytest.mark.parametrize("driver", [Call, ensureDeferred])
def test_a_cancelled_read_lets_the_next_one_read(driver: Callable[..., Any]) -> None:
    reader = reader_of(b"", eof=False)
    for _ in range(3):
        waits = driver(reader.readline())
        if isinstance(waits, Call):
            waits.task.cancel(TimeoutError())
        else:
            waits.addErrback(lambda failure: None)
            waits.cancel()
        reader.feed(b"x")
    call = Call(reader.readline())
    reader.feed(b"\n")
    assert call.result() == b"xxx\n"


# Watermarks


def test_a_fast_sender_is_made_to_wait() -> None:
    connection = connection_with(bytes(HIGH_WATER_BYTES))
    assert connection.transport.reading
    connection.reader.feed(b"1")
    assert not connection.transport.reading


def test_it_may_go_on_below_the_low_watermark() -> None:
    connection = connection_with(bytes(HIGH_WATER_BYTES + 1))
    assert not connection.transport.reading
    Call(connection.reader.read(HIGH_WATER_BYTES - LOW_WATER_BYTES)).result()
    assert not connection.transport.reading
    Call(connection.reader.read(1)).result()
    assert connection.transport.reading


def test_what_somebody_waits_for_does_not_pause() -> None:
    connection = connection_with()
    call = Call(connection.reader.readexactly(HIGH_WATER_BYTES + 1))
    connection.reader.feed(bytes(HIGH_WATER_BYTES + 1))
    assert len(call.result()) == HIGH_WATER_BYTES + 1
    assert connection.transport.reading


@pytest.mark.parametrize("size", [HIGH_WATER_BYTES + 1, 1_000_000])
def test_a_message_larger_than_the_watermark_is_read(size: int) -> None:
    connection = connection_with()
    data = b"x" * size + b"\n"
    while not connection.reader.unread() or connection.transport.reading:
        connection.reader.feed(data[connection.reader.received :][:4096])
    connection.reader.limit = 2_000_000
    call = Call(connection.reader.readline())
    while call.waiting:
        assert connection.transport.reading
        connection.reader.feed(data[connection.reader.received :][:4096])
    assert call.result() == data
    assert connection.transport.reading


def test_a_handler_that_keeps_up_never_pauses_the_sender() -> None:
    connection = connection_with()
    call = Call(connection.reader.read())
    for _ in range(100):
        connection.reader.feed(bytes(HIGH_WATER_BYTES))
        assert connection.transport.reading
    connection.reader.feed_eof()
    assert len(call.result()) == 100 * HIGH_WATER_BYTES


# The end of the service and of the connection


def test_between_messages_the_service_may_end_it() -> None:
    reader = reader_of(b"", eof=False)
    call = Call(reader.readline())
    reader.end_between_messages()
    assert call.result() == b""


def test_a_message_that_has_begun_is_read_to_its_end() -> None:
    reader = reader_of(b"", eof=False)
    call = Call(pieces(reader.readline))
    reader.feed(b"one\ntw")
    reader.end_between_messages()
    assert call.waiting
    reader.feed(b"o\n")
    assert call.result() == [b"one\n", b"two\n"]


def test_a_handler_that_is_busy_finds_the_end_when_it_reads_again() -> None:
    reader = reader_of(b"one\n", eof=False)
    reader.end_between_messages()
    assert Call(pieces(reader.readline)).result() == [b"one\n"]


def test_discarded_bytes_take_no_memory_and_let_the_sender_go_on() -> None:
    connection = connection_with(bytes(HIGH_WATER_BYTES + 1))
    assert not connection.transport.reading
    assert connection.reader.discard()
    assert connection.transport.reading
    connection.reader.feed(bytes(HIGH_WATER_BYTES + 1))
    assert connection.transport.reading
    assert not connection.reader.unread()


@pytest.mark.parametrize(("data", "eof", "unread"), [(b"", False, False), (b"x", True, False)])
def test_discard_tells_whether_there_was_anything(data: bytes, eof: bool, unread: bool) -> None:
    assert reader_of(data, eof=eof).discard() is unread


# Deadlines


def test_idle_is_for_the_first_byte() -> None:
    connection = connection_with(idle=60, header=30)
    call = Call(connection.reader.readline())
    connection.advance(59)
    assert connection.expired == []
    connection.advance(1)
    # Waits from 0: 0 + 60.
    assert connection.expired == [(60, Phase.IDLE)]
    with pytest.raises(DeadlineExpired) as expired:
        call.result()
    assert expired.value.phase is Phase.IDLE


@pytest.mark.parametrize(
    "read",
    [
        lambda reader: reader.readline(),
        lambda reader: reader.read(10),
        lambda reader: reader.readexactly(4),
        lambda reader: reader.readuntil(b"\n"),
    ],
    ids=["readline", "read", "readexactly", "readuntil"],
)
def test_idle_begins_anew_with_each_message(read: Any) -> None:
    connection = connection_with(idle=60, header=30, body_rate=None)

    async def reads() -> None:
        while True:
            assert await read(connection.reader) == b"one\n"

    call = Call(reads())
    for _ in range(5):
        connection.advance(59)
        connection.reader.feed(b"one\n")
    # The last came at 5 * 59 = 295; 295 + 60 = 355.
    connection.advance(100)
    assert connection.expired == [(355, Phase.IDLE)]
    with pytest.raises(DeadlineExpired):
        call.result()


def test_a_handler_that_does_not_read_is_not_idle() -> None:
    connection = connection_with(b"one\n", idle=60, header=30)
    Call(connection.reader.readline()).result()
    call = Call(connection.reader.readline())
    connection.reader.feed(b"two\n")
    call.result()
    connection.advance(1000)
    assert connection.expired == []


def test_idle_can_be_set_for_one_connection() -> None:
    connection = connection_with(idle=60)
    connection.reader.idle = 5
    Call(connection.reader.read(1))
    connection.advance(10)
    assert connection.expired == [(5, Phase.IDLE)]  # 0 + 5


@pytest.mark.parametrize(
    "read",
    [
        lambda reader: reader.readline(),
        lambda reader: reader.readuntil(b"\r\n"),
        lambda reader: reader.readline(100),
    ],
    ids=["readline", "readuntil", "readline(100)"],
)
def test_a_trickle_does_not_put_off_the_header_deadline(read: Any) -> None:
    connection = connection_with(idle=20, header=30)
    call = Call(read(connection.reader))
    connection.advance(10)
    while call.waiting:
        connection.reader.feed(b"x")
        connection.advance(1)
    # The first byte came at 10, and one every second since: 10 + 30.
    assert connection.expired == [(40, Phase.HEADER)]
    with pytest.raises(DeadlineExpired) as expired:
        call.result()
    assert expired.value.phase is Phase.HEADER


def test_each_line_has_a_header_deadline_of_its_own() -> None:
    connection = connection_with(idle=20, header=30)
    call = Call(pieces(connection.reader.readline))
    for _ in range(5):
        connection.reader.feed(b"ha")
        connection.advance(29)
        connection.reader.feed(b"lf\n")
        connection.advance(1)
    assert connection.expired == []
    connection.reader.feed(b"ha")
    connection.advance(50)
    # The sixth begins at 5 * 30 = 150; 150 + 30 = 180.
    assert connection.expired == [(180, Phase.HEADER)]
    assert not call.waiting


def test_a_line_that_began_before_it_was_read_counts_from_the_read() -> None:
    connection = connection_with(b"half", idle=20, header=30)
    connection.advance(100)
    Call(connection.reader.readline())
    connection.advance(50)
    assert connection.expired == [(130, Phase.HEADER)]  # 100 + 30


def test_a_body_has_a_total() -> None:
    connection = connection_with(idle=60, body=20, body_rate=None)
    call = Call(connection.reader.readexactly(1000))
    connection.advance(5)
    while call.waiting:
        connection.reader.feed(b"x")
        connection.advance(1)
    # The first byte came at 5, and one every second since: 5 + 20.
    assert connection.expired == [(25, Phase.BODY)]


@pytest.mark.parametrize(
    ("first", "each_second", "passes"),
    [
        (1, 0, 5),  # the grace period
        (1200, 0, 5),  # 1200 / 240 = 5: just the grace period
        (2400, 0, 10),  # 2400 / 240
        (1, 100, 5),  # at 5 s: 501 bytes, of 1200 that were due
        (2400, 120, 19),  # at 19 s: 2400 + 19 * 120 = 4680 > 19 * 240 = 4560; at 20 s: level
        (1, 300, None),  # at 5 s: 1 + 4 * 300 = 1201 > 5 * 240, and more from then on
        (1, 10_000, None),
    ],
)
def test_a_body_has_a_least_rate(first: int, each_second: int, passes: int | None) -> None:
    connection = connection_with(idle=300, body=None, body_rate=240)
    call = Call(connection.reader.readexactly(1_000_000))
    connection.advance(7)  # nothing of this counts
    connection.reader.feed(bytes(first))
    for _ in range(90):
        connection.advance(1)
        if not call.waiting:
            break
        connection.reader.feed(bytes(each_second))
    if passes is None:
        assert connection.expired == []
    else:
        assert connection.expired == [(7 + passes, Phase.BODY)]


def test_a_burst_is_no_leave_to_stall() -> None:
    connection = connection_with(idle=30, body=None, body_rate=240)
    Call(connection.reader.readexactly(100_000))
    connection.reader.feed(bytes(48_000))
    connection.advance(100)
    # 48000 / 240 = 200 s were earned, but a connection may be silent for 30 s only.
    assert connection.expired == [(30, Phase.BODY)]


def test_a_body_that_has_come_is_over() -> None:
    connection = connection_with(b"x", idle=60, header=30, body=20)
    call = Call(connection.reader.readexactly(2))
    connection.reader.feed(b"x")
    call.result()
    connection.advance(100)
    assert connection.expired == []


def test_a_body_after_a_header_given_up_is_guarded_as_a_body() -> None:
    """A line was too long, so the rest is read by count; what guards that ends with it."""
    connection = connection_with(b"x" * 8, idle=60, header=30, body=20, body_rate=None)
    connection.reader.limit = 10
    line = Call(connection.reader.readline())
    connection.advance(10)
    connection.reader.feed(b"x" * 8)
    with pytest.raises(asyncio.LimitOverrunError):
        line.result()
    call = Call(connection.reader.readexactly(20))
    connection.advance(15)  # 10 + 15 < 10 + 20
    connection.reader.feed(b"x" * 4)
    assert call.result() == b"x" * 20
    connection.advance(100)
    assert connection.expired == []


@pytest.mark.parametrize(
    "deadlines",
    [{"idle": None}, {"header": None}, {"body": None, "body_rate": None, "idle": None}],
)
def test_no_deadline_no_expiry(deadlines: dict[str, None]) -> None:
    connection = connection_with(**deadlines)
    if "idle" in deadlines:
        call = Call(connection.reader.readexactly(5))
        if "body" in deadlines:
            connection.reader.feed(b"x")
    else:
        call = Call(connection.reader.readline())
        connection.reader.feed(b"x")
    connection.advance(10_000)
    assert call.waiting
    assert connection.expired == []
