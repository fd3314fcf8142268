"""Ranges and preconditions as RFC 9110 has them, sections 13 and 14."""

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockserve.http.files.ranges import (
    MOST_RANGES,
    ByteRange,
    Validators,
    conditional_fields,
    content_range,
    http_date,
    multipart,
    precondition,
    selected_ranges,
)

ETAG = '"tag"'
MODIFIED = 784111777
SENT = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
AFTER = "Sun, 06 Nov 1994 08:49:38 GMT"
CURRENT = Validators(ETAG, MODIFIED)


def select(field, size=1000, if_range=None, current=CURRENT):
    fields = {"range": field} if if_range is None else {"range": field, "if-range": if_range}
    ranges = selected_ranges(fields, current, size)
    return ranges if ranges is None else [tuple(part) for part in ranges]


# Ranges


@pytest.mark.parametrize(
    ("field", "ranges"),
    [
        # RFC 9110, 14.1.2's own
        ("bytes=0-499", [(0, 500)]),
        ("bytes=500-999", [(500, 1000)]),
        ("bytes=-500", [(500, 1000)]),
        ("bytes=500-", [(500, 1000)]),
        ("bytes=0-0,-1", [(0, 1), (999, 1000)]),
        ("bytes=500-600,601-999", [(500, 601), (601, 1000)]),
        # the edges
        ("bytes=0-", [(0, 1000)]),
        ("bytes=0-5000", [(0, 1000)]),
        ("bytes=999-", [(999, 1000)]),
        ("bytes=-1000", [(0, 1000)]),
        ("bytes=-5000", [(0, 1000)]),
        ("bytes=007-0008", [(7, 9)]),
        (f"bytes=0-{'9' * 5000}", [(0, 1000)]),
        (f"bytes=-{'9' * 5000}", [(0, 1000)]),
        # the order asked for, lists as RFC 9110, 5.6.1 lets clients write them, any case
        ("bytes=20-29,0-9", [(20, 30), (0, 10)]),
        ("bytes= , 0-0 ,\t,5-5,", [(0, 1), (5, 6)]),
        ("BYTES=0-0", [(0, 1)]),
        # of several, those that are there
        ("bytes=0-9,5000-", [(0, 10)]),
    ],
)
def test_ranges_asked_for(field, ranges):
    assert select(field) == ranges


@pytest.mark.parametrize("field", ["bytes=1000-", "bytes=1000-1001", "bytes=-0", "bytes=-0,2000-"])
def test_nothing_asked_for_is_there(field):
    assert select(field) == []


@pytest.mark.parametrize(
    "field",
    [
        *("", "bytes", "bytes=", "bytes=,", "bytes=-", "bytes=a-b", "bytes=1", "bytes=1-2-3"),
        *("bytes=5-4", "bytes=0-0,5-4", "bytes=0--1", "bytes=+0-1", "bytes=0 -1", "bytes=0x0-1"),
        *("bytes=\u0661-\u0662", "lines=0-1", "bytes 0-1", "bytes=0-1, bytes=2-3"),
    ],
)
def test_what_is_no_range_is_ignored(field):
    assert select(field) is None


def test_the_number_of_ranges_is_bounded():
    def asked(count):
        return "bytes=" + ",".join(f"{2 * n}-{2 * n}" for n in range(count))

    assert len(select(asked(MOST_RANGES))) == MOST_RANGES
    assert select(asked(MOST_RANGES + 1)) is None


@pytest.mark.parametrize(
    ("field", "ranges"),
    [
        ("bytes=0-,0-", None),
        ("bytes=0-599,400-999", None),
        ("bytes=-1000,0-0", None),
        ("bytes=" + "0-,-1," * 40, None),
        ("bytes=0-9,5-14", [(0, 10), (5, 15)]),
    ],
)
def test_overlaps_never_add_up_to_more_than_the_file(field, ranges):
    assert select(field) == ranges


@pytest.mark.parametrize("field", ["bytes=0-", "bytes=0-99", "bytes=-5", "bytes=7-"])
def test_an_empty_file_is_sent_whole(field):
    assert select(field, size=0) is None


@given(
    st.lists(
        st.tuples(st.none() | st.integers(0, 120), st.none() | st.integers(0, 120)).map(
            lambda pair: "-".join("" if n is None else str(n) for n in pair)
        )
    ),
    st.integers(0, 100),
)
def test_whatever_is_asked_is_in_the_file_and_not_longer(specs, size):
    ranges = selected_ranges({"range": "bytes=" + ",".join(specs)}, CURRENT, size)
    for part in ranges or []:
        assert 0 <= part.start < part.stop <= size
    assert sum(part.size for part in ranges or []) <= size


# If-Range


@pytest.mark.parametrize(
    ("if_range", "applies"),
    [
        (ETAG, True),
        ('"other"', False),
        ('W/"tag"', False),
        (SENT, True),
        ("Sunday, 06-Nov-94 08:49:37 GMT", True),
        (BEFORE, False),
        (AFTER, False),
        ("tag", False),
        ("", False),
        ("yesterday", False),
    ],
)
def test_if_range(if_range, applies):
    assert select("bytes=0-9", if_range=if_range) == ([(0, 10)] if applies else None)


def test_if_range_takes_no_weak_tag_though_it_is_the_same():
    weak = Validators('W/"tag"', MODIFIED)
    assert select("bytes=0-9", if_range='W/"tag"', current=weak) is None


def test_beyond_the_end_of_a_changed_file_is_no_error():
    assert select("bytes=5000-", if_range='"other"') is None


# Preconditions

OK, NOT_MODIFIED, FAILED = None, HTTPStatus.NOT_MODIFIED, HTTPStatus.PRECONDITION_FAILED
MATCH, NONE_MATCH = "if-match", "if-none-match"
SINCE, UNMODIFIED = "if-modified-since", "if-unmodified-since"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, OK),
        ({MATCH: ETAG}, OK),
        ({MATCH: "*"}, OK),
        ({MATCH: '"a", "tag"'}, OK),
        ({MATCH: '"other"'}, FAILED),
        ({MATCH: 'W/"tag"'}, FAILED),
        ({MATCH: "tag"}, FAILED),
        ({UNMODIFIED: SENT}, OK),
        ({UNMODIFIED: AFTER}, OK),
        ({UNMODIFIED: BEFORE}, FAILED),
        ({UNMODIFIED: "never"}, OK),
        ({NONE_MATCH: ETAG}, NOT_MODIFIED),
        ({NONE_MATCH: 'W/"tag"'}, NOT_MODIFIED),
        ({NONE_MATCH: "*"}, NOT_MODIFIED),
        ({NONE_MATCH: '"a,b" ,W/"tag"'}, NOT_MODIFIED),
        ({NONE_MATCH: '"other", "ta"'}, OK),
        ({NONE_MATCH: '"a"tag"b"'}, OK),
        ({SINCE: SENT}, NOT_MODIFIED),
        ({SINCE: AFTER}, NOT_MODIFIED),
        ({SINCE: BEFORE}, OK),
        ({SINCE: "0"}, OK),
        # the order of RFC 9110, 13.2.2
        ({MATCH: ETAG, UNMODIFIED: BEFORE}, OK),
        ({MATCH: '"other"', UNMODIFIED: AFTER}, FAILED),
        ({MATCH: '"other"', NONE_MATCH: ETAG}, FAILED),
        ({MATCH: ETAG, NONE_MATCH: ETAG}, NOT_MODIFIED),
        ({UNMODIFIED: BEFORE, NONE_MATCH: ETAG}, FAILED),
        ({UNMODIFIED: SENT, SINCE: SENT}, NOT_MODIFIED),
        ({NONE_MATCH: '"other"', SINCE: AFTER}, OK),
        ({NONE_MATCH: ETAG, SINCE: BEFORE}, NOT_MODIFIED),
    ],
)
def test_preconditions(fields, status):
    assert precondition(fields, CURRENT) is status


def test_a_weak_tag_of_ours_is_good_for_none_match_only():
    weak = Validators('W/"tag"', MODIFIED)
    assert precondition({NONE_MATCH: '"tag"'}, weak) is NOT_MODIFIED
    assert precondition({MATCH: 'W/"tag"'}, weak) is FAILED


def test_conditional_fields_joins_what_is_repeated():
    headers = [
        ("Host", "localhost"),
        ("IF-None-Match", ' "a" '),
        ("Range", "bytes=0-1"),
        ("if-none-match", ETAG),
        ("range", "bytes=2-3"),
    ]
    fields = conditional_fields(headers)
    assert fields == {NONE_MATCH: f'"a", {ETAG}', "range": "bytes=0-1, bytes=2-3"}
    assert precondition(fields, CURRENT) is NOT_MODIFIED
    assert selected_ranges(fields, CURRENT, 1000) is None


# Dates


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        (SENT, MODIFIED),
        ("Sunday, 06-Nov-94 08:49:37 GMT", MODIFIED),
        ("Sun Nov  6 08:49:37 1994", MODIFIED),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Sat, 31 Dec 2016 23:59:60 GMT", 1483228799),
        ("Tuesday, 01-Jan-30 00:00:00 GMT", 1893456000),
        ("Wed, 31 Dec 1969 23:59:59 GMT", -1),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253402300799),
        *((no_date, None) for no_date in ("", "0", "Sun, 06 Nov 1994", SENT + ", " + SENT)),
        ("Sun, 31 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 24:49:37 GMT", None),
        ("Sun, 06 Nov 0000 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 CET", None),
        ("Sun, 06 nov 1994 08:49:37 GMT", None),
        ("Sun, 0\u0666 Nov 1994 08:49:37 GMT", None),
        (None, None),
    ],
)
def test_dates_in_all_three_forms(field, seconds):
    assert http_date(field) == seconds


# What is sent


def test_content_range():
    assert content_range(ByteRange(0, 500), 1234) == "bytes 0-499/1234"
    assert content_range(None, 1234) == "bytes */1234"


def test_multipart_is_as_long_as_it_says():
    body, length = multipart([ByteRange(0, 2), ByteRange(5, 9)], 10, "text/plain", "B")
    content = b"0123456789"
    filled = b"".join(
        content[part.start : part.stop] if isinstance(part, ByteRange) else part for part in body
    )
    assert filled == (
        b"--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01"
        b"\r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 5-8/10\r\n\r\n5678"
        b"\r\n--B--\r\n"
    )
    assert length == len(filled)
