"""Records on a stream: their fragments, and their bounds."""

import pytest

from sockserve.sunrpc import RecordTooLong
from sockserve.sunrpc.records import MAX_FRAGMENTS, Record, fragments


def test_fragments_come_together() -> None:
    record = Record(10)
    assert not record.has_begun()
    assert record.begin_fragment(b"\0\0\0\2") == 2
    record.add(b"ab")
    assert record.has_begun()
    assert not record.is_whole
    assert record.begin_fragment(b"\x80\0\0\3") == 3
    record.add(b"cde")
    assert record.is_whole
    assert record.data() == b"abcde"


def test_a_record_has_no_more_than_its_bytes() -> None:
    record = Record(4)
    record.begin_fragment(b"\0\0\0\4")
    record.add(b"abcd")
    with pytest.raises(RecordTooLong, match="max_record_bytes"):
        record.begin_fragment(b"\x80\0\0\1")
    with pytest.raises(RecordTooLong):
        Record(4).begin_fragment(b"\x7f\xff\xff\xff")


def test_a_record_has_no_more_than_so_many_fragments() -> None:
    record = Record(4)
    for _ in range(MAX_FRAGMENTS):
        assert record.begin_fragment(bytes(4)) == 0
        record.add(b"")
    with pytest.raises(RecordTooLong, match="fragments"):
        record.begin_fragment(b"\x80\0\0\0")


def test_what_is_sent_is_one_fragment() -> None:
    assert list(fragments(b"abc")) == [b"\x80\0\0\3abc"]


def test_what_is_longer_than_a_mark_can_say_is_several() -> None:
    assert b"".join(fragments(b"abcde", 2)) == b"\0\0\0\2ab\0\0\0\2cd\x80\0\0\1e"
