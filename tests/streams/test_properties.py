"""What holds for any bytes, however they are cut, and for any times."""

import asyncio
import io
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.statistics import DURATION_BUCKETS_SECONDS, Histogram
from sockserve.interfaces import Phase
from tests.transports import Call, Connection

quick = settings(max_examples=150, deadline=None)

#: Rich in what reads look for.
texts = st.lists(st.sampled_from([b"\n", b"\r", b"a", b"bc", b"\0", b"x" * 9]), max_size=40).map(
    b"".join
)
cuts = st.lists(st.integers(0, 60), max_size=12)

reads = st.lists(
    st.one_of(
        st.tuples(st.just("readline")),
        st.tuples(st.just("readuntil"), st.sampled_from([b"\n", b"\r\n", b"a\n", b"\0"])),
        st.tuples(st.just("readexactly"), st.integers(0, 30)),
        st.tuples(st.just("__anext__")),
    ),
    max_size=12,
)


def pieces(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut for cut in at if cut <= len(data)), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


async def outcomes(reader: Any, calls: list[tuple[Any, ...]]) -> list[Any]:
    """What each read comes to; and the rest."""
    seen: list[Any] = []
    for name, *arguments in calls:
        try:
            seen.append(await getattr(reader, name)(*arguments))
        except asyncio.IncompleteReadError as error:
            seen.append((error.partial, error.expected))
        except asyncio.LimitOverrunError as error:
            # Too long, and there is as much of it.
            seen.append("overrun")
            await reader.readexactly(error.consumed)
        except StopAsyncIteration:
            seen.append("stop")
    return [*seen, await reader.read()]


def cut_up(data: bytes, at: list[int], calls: Any, limit: int | None = None) -> list[Any]:
    """What reads come to whose bytes arrive in pieces, each read waiting for them."""
    reader = Connection().reader
    if limit is not None:
        reader.limit = limit
    call = Call(outcomes(reader, calls))
    for piece in pieces(data, at):
        reader.feed(piece)
    reader.feed_eof()
    return call.result()


@quick
@given(texts, cuts, reads)
def test_any_cut_of_the_same_bytes_reads_as_asyncios_reader(
    data: bytes, at: list[int], calls: list[Any]
) -> None:
    loop: Any = SimpleNamespace(get_debug=lambda: False)  # it never waits: its end has come
    theirs = asyncio.StreamReader(loop=loop)
    theirs.feed_data(data)
    theirs.feed_eof()
    assert cut_up(data, at, calls) == Call(outcomes(theirs, calls)).result()


@quick
@given(texts, cuts, st.lists(st.integers(-1, 12), max_size=12))
def test_any_cut_of_the_same_bytes_gives_the_lines_of_a_file(
    data: bytes, at: list[int], limits: list[int]
) -> None:
    file = io.BytesIO(data)
    expected = [*(file.readline(limit) for limit in limits), file.read()]
    assert cut_up(data, at, [("readline", limit) for limit in limits]) == expected


@quick
@given(texts, cuts, st.integers(1, 20), st.sampled_from(["readline", "__anext__"]))
def test_whether_a_line_is_too_long_does_not_depend_on_the_cut(
    data: bytes, at: list[int], limit: int, name: str
) -> None:
    line = io.BytesIO(data).readline()
    (first, *_) = cut_up(data, at, [(name,)], limit)
    if len(line) > limit:
        assert first == "overrun"
    else:
        assert first == (line if line or name == "readline" else "stop")


@quick
@given(texts, cuts, st.integers(4, 20), st.sampled_from([b"\n", b"\r\n", b"a\n"]))
def test_nor_does_it_with_separators(
    data: bytes, at: list[int], limit: int, separator: bytes
) -> None:
    start = data.find(separator)
    end = len(data) if start < 0 else start + len(separator)
    (first, *_) = cut_up(data, at, [("readuntil", separator)], limit)
    if end > limit:
        assert first == "overrun"
    else:
        assert first == (data[:end] if start >= 0 else (data, None))


@quick
@given(texts, cuts, st.lists(st.integers(1, 10)))
def test_nothing_is_lost_or_swapped(data: bytes, at: list[int], sizes: list[int]) -> None:
    parts = cut_up(data, at, [("read", size) for size in sizes])
    assert b"".join(parts) == data
    assert all(len(part) <= size for part, size in zip(parts, sizes, strict=False))


@quick
@given(st.lists(st.binary(max_size=300), max_size=30), st.lists(st.integers(1, 200)), st.booleans())
def test_writes_leave_in_order_however_much_the_kernel_takes(
    data: list[bytes], room: list[int], direct: bool
) -> None:
    connection = Connection(room=0, direct=direct)
    for number, piece in enumerate(data):
        connection.writer.corked = number % 3 == 0
        connection.writer.write(piece)
        if number < len(room):
            connection.transport.make_room(room[number])
    connection.writer.send_held()
    connection.transport.make_room()
    assert connection.transport.sent == b"".join(data)
    assert connection.writer.sent == len(connection.transport.sent)


phases = st.sampled_from([Phase.IDLE, Phase.HEADER, Phase.WRITE])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("arm"), phases, st.none() | st.integers(0, 20)),
        st.tuples(st.just("disarm"), phases),
        st.tuples(st.just("advance"), st.integers(1, 15)),
    ),
    max_size=40,
)


@quick
@given(steps)
def test_one_timer_does_what_a_delayed_call_for_each_phase_would(steps: list[Any]) -> None:
    clock = Clock()
    expired: list[tuple[float, Phase]] = []
    timer = DeadlineTimer(clock, lambda phase: expired.append((clock.seconds(), phase)))
    due: dict[Phase, int] = {}
    expected: list[tuple[float, Phase]] = []
    now = 0
    for name, *arguments in [*steps, ("advance", 30)]:
        if name == "advance":
            for _ in range(arguments[0]):
                now += 1
                clock.advance(1)
                for phase in [phase for phase, at in due.items() if at <= now]:
                    del due[phase]
                    expected.append((now, phase))
            continue
        getattr(timer, name)(*arguments)
        phase, *seconds = arguments
        due.pop(phase, None)
        if seconds and seconds[0] is not None:
            due[phase] = now + seconds[0]
    assert sorted(expired) == sorted(expected)
    assert clock.getDelayedCalls() == []


@quick
@given(st.lists(st.floats(0, 1000, allow_nan=False)))
def test_a_histogram_counts_each_duration_once_where_it_belongs(durations: list[float]) -> None:
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    assert histogram.count == len(durations)
    below = 0
    for bound, count in zip(DURATION_BUCKETS_SECONDS, histogram.counts, strict=False):
        below += count
        assert below == sum(seconds <= bound for seconds in durations)
