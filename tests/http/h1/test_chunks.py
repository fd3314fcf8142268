"""
The reader of chunks by itself: its parts, its limits, and any split of the same bytes.

What is and what is not a chunk is in L{tests.http.h1.test_reader}, for whole requests.
"""

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sockserve.http.h1.chunks import (
    CHUNK_OVERHEAD_BYTES,
    MAX_CHUNK_LINE_BYTES,
    MAX_CHUNK_OVERHEAD_BYTES,
    ChunkReader,
)
from sockserve.http.h1.framing import RemoteProtocolError
from sockserve.http.h1.sizes import MAX_HEADER_BYTES, MAX_HEADER_FIELDS

quick = settings(max_examples=300, deadline=None)


class Seen:
    """
    All that a reader has made of some bytes.

    @ivar body: the body.
    @ivar unread: the bytes that it has left.
    @ivar status: of its refusal, or None.
    @ivar why: what that says.
    @ivar complete: whether the body is.
    """

    def __init__(self, *pieces: bytes) -> None:
        reader = ChunkReader()
        self.body = b""
        self.status: int | None = None
        self.why = ""
        self.unread = bytearray()
        for piece in pieces:
            self.unread += piece
            self._read(reader)
        self.complete = reader.complete

    def _read(self, reader: ChunkReader) -> None:
        while self.status is None:
            try:
                body, size = reader.read(self.unread)
            except RemoteProtocolError as error:
                self.status, self.why = error.status, str(error)
                return
            self.body += body
            del self.unread[:size]
            if not size:
                return

    @property
    def summary(self) -> tuple[bytes, bytes, int | None, bool]:
        # Of a refused message nobody reads on; how much of it has been read depends on how
        # much was there.
        unread = b"" if self.status is not None else bytes(self.unread)
        return self.body, unread, self.status, self.complete


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """The same bytes, in pieces that begin at these places."""
    places = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


# Parts


def test_a_message_leaves_what_follows_it() -> None:
    seen = Seen(b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\nGET / HTTP")
    assert seen.summary == (b"abcde", b"GET / HTTP", None, True)


def test_after_the_end_nothing_is_read() -> None:
    reader = ChunkReader()
    assert reader.read(b"0\r\n\r\n") == (b"", 5)
    assert reader.complete
    assert reader.read(b"0\r\n\r\n") == (b"", 0)


@pytest.mark.parametrize("data", [b"", b"3", b"3\r", b"3;a", b'A;a="\r'])
def test_a_line_that_has_not_all_come_is_left_for_the_next_call(data: bytes) -> None:
    reader = ChunkReader()
    assert reader.read(data) == (b"", 0)
    assert not reader.complete


def test_data_is_given_as_it_comes() -> None:
    reader = ChunkReader()
    assert reader.read(b"5\r\nab") == (b"ab", 5)
    assert reader.read(b"c") == (b"c", 1)
    assert reader.read(b"de\r") == (b"de", 2), "the end of a chunk is read as one"
    assert reader.read(b"\r\n0\r\n") == (b"", 5)
    assert reader.read(b"\r") == (b"", 0)
    assert reader.read(b"\r\n") == (b"", 2)
    assert reader.complete


def test_what_is_good_comes_before_the_refusal() -> None:
    reader = ChunkReader()
    body, size = reader.read(b"2\r\nab\r\nnonsense\r\n")
    assert (body, size) == (b"ab", 7)
    with pytest.raises(RemoteProtocolError, match="does not begin so") as refusal:
        reader.read(b"nonsense\r\n")
    assert refusal.value.status == 400
    assert not reader.complete


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"g\r\n", "does not begin so"),
        (b"g", "does not begin so"),  # with no need of more
        (b"1\r\nabc", "longer than it said"),
        (b"1\r\na\n", "longer than it said"),
        (b"0\r\nno colon\r\n", "trailer is malformed"),
        (b"0\r\n: no name", "trailer is malformed"),
    ],
)
def test_the_refusal_says_why(data: bytes, why: str) -> None:
    seen = Seen(data)
    assert seen.status == 400
    assert why in seen.why


# Limits


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("ended", [True, False])
def test_the_line_of_a_chunk_has_4_kib(over: int, ended: bool) -> None:
    line = b"1;" + b"x" * (MAX_CHUNK_LINE_BYTES - 4 + over) + b"\r\n"
    data = line + b"a" if ended else line[:-1] + b"x"
    assert Seen(data).status == (431 if over else None)


@pytest.mark.parametrize("over", [0, 1])
def test_what_there_may_be_beside_the_body(over: int) -> None:
    """
    A chunk of 1 byte may have 16 + 2 bytes beside it, of which 2 are its end; each of these has
    1024 more.  16 of them are just what all may have, and a byte of the last is too much.
    """
    more = MAX_CHUNK_OVERHEAD_BYTES // 16
    line = b"1;" + b"x" * (more + CHUNK_OVERHEAD_BYTES - 4) + b"\r\n"
    chunks = (line + b"a\r\n") * 16
    assert Seen(chunks).summary == (b"a" * 16, b"", None, False)
    last = b"1;" + b"x" * (CHUNK_OVERHEAD_BYTES - 4 + over) + b"\r\n"
    assert Seen(chunks + last).status == (431 if over else None)


def test_little_beside_a_chunk_makes_good_for_much_beside_another() -> None:
    """16 bytes a chunk are free: each short one wins 11 back, but no credit is kept."""
    long = b"1;" + b"x" * 1024 + b"\r\na\r\n"
    short = b"1\r\na\r\n"
    assert Seen(short * 10_000 + long * 17).status == 431
    assert Seen((long + short * 100) * 40).status is None


@pytest.mark.parametrize("over", [0, 1])
def test_trailers_are_so_many_at_most(over: int) -> None:
    seen = Seen(b"0\r\n" + b"A: b\r\n" * (MAX_HEADER_FIELDS + over) + b"\r\n")
    assert (seen.status, seen.complete) == ((431, False) if over else (None, True))


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("ended", [True, False])
def test_trailers_are_so_long_at_most(over: int, ended: bool) -> None:
    """All lines count, and the empty one; and one that never ends does as it comes."""
    first = b"A: b\r\n"
    second = b"B: " + b"x" * (MAX_HEADER_BYTES - len(first) - 7 + over)
    seen = Seen(b"0\r\n" + first + second + (b"\r\n\r\n" if ended else b"xxxx"))
    assert seen.status == (431 if over else None)
    assert seen.complete is (ended and not over)


# Any split of the same bytes

extensions = st.sampled_from([b"", b";a", b" ; a\t=\tb", b';a="b; \\" \xff"'])
chunks = st.builds(
    lambda data, zeros, extension: b"0" * zeros + b"%x%b\r\n%b\r\n" % (len(data), extension, data),
    st.sampled_from([b"a", b"\r\n", b"0\r\n\r\n", b"x" * 20, b"\xff\0"]),
    st.integers(0, 3),
    extensions,
)
trailers = st.lists(st.sampled_from([b"A:\r\n", b"Content-Length: 5\r\n", b"B: \xff\r\n"])).map(
    b"".join
)
endings = st.builds(
    lambda zeros, lines: b"0" * zeros + b"\r\n%b\r\n" % lines, st.integers(1, 3), trailers
)
messages = st.builds(lambda parts, ending: b"".join(parts) + ending, st.lists(chunks), endings)
#: What matters to the grammar, in any order.
scraps = st.lists(
    st.sampled_from(
        [b"\r\n", b"\r", b"\n", b"0", b"1", b"a", b"F", b";", b"=", b'"', b"\\", b" ", b":", b"\0"]
    ),
    max_size=12,
).map(b"".join)
cuts = st.lists(st.integers(0, 1000), max_size=8)


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A message with scraps in it."""
    message = draw(messages)
    place = draw(st.integers(0, len(message)))
    return message[:place] + draw(scraps) + message[place + draw(st.integers(0, 3)) :]


@quick
@given(st.one_of(messages, spoilt(), scraps), cuts)
@example(b"1\r\n1\r\n0\r\n\r\n", [1, 2, 4, 5, 8])
@example(b"1\rx\r\n", [2])
@example(b"00000000000000001\r\n", [16])
def test_any_split_of_the_same_bytes_reads_the_same(data: bytes, at: list[int]) -> None:
    whole = Seen(data).summary
    assert Seen(*cut(data, at)).summary == whole
    assert Seen(*cut(data, list(range(len(data))))).summary == whole


@quick
@given(st.lists(st.binary(min_size=1)), extensions, trailers, st.binary(max_size=5), cuts)
def test_what_was_put_into_chunks_comes_out(
    pieces: list[bytes], extension: bytes, lines: bytes, rest: bytes, at: list[int]
) -> None:
    data = b"".join(b"%X%b\r\n%b\r\n" % (len(each), extension, each) for each in pieces)
    seen = Seen(*cut(data + b"0\r\n" + lines + b"\r\n" + rest, at))
    assert seen.summary == (b"".join(pieces), rest, None, True)
