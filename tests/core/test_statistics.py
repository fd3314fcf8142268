"""Statistics: what is counted, and what pages and logs are given."""

import json
from math import inf

import pytest

from sockserve.core.statistics import (
    DURATION_BUCKETS_SECONDS,
    Histogram,
    HTTPRequestRecord,
    ListenerStatistics,
    RequestRecord,
)
from sockserve.interfaces import Phase


def test_bounds_rise() -> None:
    assert list(DURATION_BUCKETS_SECONDS) == sorted(set(DURATION_BUCKETS_SECONDS))


@pytest.mark.parametrize(
    ("seconds", "bound"),
    [
        (0, 0.0005),
        (0.0005, 0.0005),  # an upper bound belongs to its bucket, as Prometheus's C{le}
        (0.0006, 0.001),
        (0.3, 0.5),
        (1, 1.0),
        (299, 300.0),
        (300, 300.0),
        (300.1, inf),
        (1e6, inf),
    ],
)
def test_a_duration_is_counted_in_the_bucket_of_its_upper_bound(
    seconds: float, bound: float
) -> None:
    histogram = Histogram()
    histogram.add(seconds)
    bounds = [*DURATION_BUCKETS_SECONDS, inf]
    counted = dict(zip(bounds, histogram.counts, strict=True))
    assert {upper for upper, count in counted.items() if count} == {bound}


def test_a_histogram_has_count_and_total() -> None:
    histogram = Histogram()
    assert (histogram.count, histogram.total) == (0, 0)
    for seconds in (0.25, 0.25, 2, 500):
        histogram.add(seconds)
    assert (histogram.count, histogram.total) == (4, 502.5)


def test_records_add_up() -> None:
    statistics = ListenerStatistics("tcp:7000")
    statistics.record(RequestRecord(("192.0.2.1", 1), "Echo", {"handle": 2.0}, 10, 20))
    statistics.record(
        RequestRecord(("192.0.2.1", 2), "Echo", {"handle": 0.5, "queue": 0.25}, 1, 2, "error")
    )
    told = statistics.snapshot()
    assert (told["received"], told["sent"]) == (11, 22)
    assert told["durations"] == {
        "handle": {"count": 2, "total": 2.5},
        "queue": {"count": 1, "total": 0.25},
    }


def test_bytes_that_the_system_does_not_tell_count_for_nothing() -> None:
    statistics = ListenerStatistics()
    statistics.record(RequestRecord("", "Echo", received=None, sent=None))
    statistics.record(RequestRecord("", "Echo", received=5, sent=7))
    assert (statistics.received, statistics.sent) == (5, 7)


def test_records_do_not_share_their_phases() -> None:
    first, second = RequestRecord("", "Echo"), RequestRecord("", "Echo")
    first.phases["handle"] = 1.0
    assert second.phases == {}
    assert second.outcome == "ok"


def test_a_snapshot_is_plain_data_and_stays_as_it_was() -> None:
    statistics = ListenerStatistics("tcp:7000")
    statistics.accepted = 3
    statistics.active = 1
    statistics.requests = 2
    statistics.errors = 1
    statistics.abandoned = 1
    statistics.responses[4] = 7
    statistics.refused["network"] += 1
    statistics.failures["handshake"] += 1
    statistics.expiries[Phase.IDLE] += 2
    statistics.record(RequestRecord("", "Echo", {"handle": 1.5}, 10, 20))
    told = statistics.snapshot()
    as_told = json.loads(json.dumps(told))

    statistics.accepted += 1
    statistics.refused["network"] += 1
    statistics.failures["handshake"] += 1
    statistics.expiries[Phase.IDLE] += 1
    statistics.responses[4] += 1
    statistics.record(RequestRecord("", "Echo", {"handle": 1.5}))
    assert told == as_told
    assert as_told == {
        "listener": "tcp:7000",
        "accepted": 3,
        "active": 1,
        "refused": {"network": 1},
        "failures": {"handshake": 1},
        "requests": 2,
        "errors": 1,
        "responses": {"4xx": 7},
        "expiries": {"idle": 2},
        "received": 10,
        "sent": 20,
        "abandoned": 1,
        "durations": {"handle": {"count": 1, "total": 1.5}},
    }


def test_requests_count_with_how_long_they_took() -> None:
    statistics = ListenerStatistics()
    for failed, seconds in [(False, 0.5), (False, 0.25), (True, 2.0), (True, 0.0)]:
        statistics.count_handled(failed, seconds)
    told = statistics.snapshot()
    assert (told["requests"], told["errors"]) == (4, 2)
    assert told["durations"] == {"handle": {"count": 4, "total": 2.75}}


@pytest.mark.parametrize("seconds", [0.0, 0.0005, 0.0006, 0.3, 300.0, 301.0])
def test_the_duration_of_a_request_counts_as_any_other(seconds: float) -> None:
    handled, lasted = ListenerStatistics(), ListenerStatistics()
    handled.count_handled(False, seconds)
    lasted.observe_duration("handle", seconds)
    assert handled.durations["handle"].counts == lasted.durations["handle"].counts
    assert handled.durations["handle"].total == lasted.durations["handle"].total


def test_a_record_of_an_http_request_counts_as_any_other() -> None:
    """One that has seen neither head nor answer says so."""
    record = HTTPRequestRecord("", "Hello", received=5, sent=7)
    assert (record.request_line, record.status) == ("-", 0)
    assert (record.referer, record.user_agent) == ("-", "-")
    statistics = ListenerStatistics()
    statistics.record(record)
    assert (statistics.received, statistics.sent) == (5, 7)
