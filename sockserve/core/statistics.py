"""
Statistics: the counters of a listener, and the record of each request.

This room owns numbers.  It must not know clocks, sockets or where the numbers are
shown.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Any

import attrs

from sockserve.interfaces import Phase

__all__ = [
    "DURATION_BUCKETS_SECONDS",
    "HTTPRequestRecord",
    "Histogram",
    "ListenerStatistics",
    "RequestRecord",
]

#: Upper bounds of the buckets of phase durations: a decade in three steps, from half a
#: millisecond to five minutes, in the way of Prometheus's default buckets.
DURATION_BUCKETS_SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0, 300.0,
)  # fmt: skip


#: Most handlers take no longer.
_SHORTEST_SECONDS = DURATION_BUCKETS_SECONDS[0]


class Histogram:
    """
    Durations, counted by upper bound.

    @ivar counts: one more than the bounds: the last is for what is longer than all.
    @ivar total: the sum of all durations in seconds.
    """

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(DURATION_BUCKETS_SECONDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        short = seconds <= _SHORTEST_SECONDS
        self.counts[0 if short else bisect_left(DURATION_BUCKETS_SECONDS, seconds)] += 1
        self.total += seconds

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self.counts)


@attrs.define(slots=True)
class RequestRecord:
    """
    The record of one request, for counters and logs.

    @ivar peer: the client's address.
    @ivar handler: the handler class's name.
    @ivar phases: seconds spent, by name: C{handshake}, C{queue} (waiting for a worker),
        C{handle} (setup to finish), C{write} (from there until all had left).
    @ivar received: bytes from the peer; None where the system does not tell.
    @ivar sent: bytes to the peer; likewise.
    @ivar outcome: C{ok}, C{error}, C{refused: REASON}, C{failed: handshake}, C{failed: proxy
        header}, C{expired: PHASE} or C{lost}.
    @ivar reason: why it has failed, in a few words; None where the outcome says all.
    """

    peer: Any
    handler: str
    phases: dict[str, float] = attrs.Factory(dict)
    received: int | None = 0
    sent: int | None = 0
    outcome: str = "ok"
    reason: str | None = attrs.field(default=None, kw_only=True)


@attrs.define(slots=True)
class HTTPRequestRecord(RequestRecord):
    """
    The record of one HTTP request.

    @ivar request_line: as sent; C{-} when no head came.
    @ivar status: of the response; 0 when none began, or none that could be seen.
    @ivar referer: the request's C{Referer}, or C{-}.
    @ivar user_agent: its C{User-Agent}, or C{-}.
    @ivar sent: bytes of the response's body.
    """

    request_line: str = "-"
    status: int = 0
    referer: str = "-"
    user_agent: str = "-"


class ListenerStatistics:
    """
    The counters of one listener, since it was made.

    @ivar listener: its description.
    @ivar accepted: connections accepted (datagrams received).
    @ivar active: connections open (datagram requests being served) now.
    @ivar refused: by reason: C{network}, C{peer}, C{verify}, C{descriptors}, C{gone},
        C{truncated}, C{malformed}; C{arguments} and C{credentials}, of calls on connections that
        go on.
    @ivar failures: connections that came to no request, by what has failed: C{handshake},
        C{proxy header}.
    @ivar requests: requests whose handler ran to an end.
    @ivar errors: of these, how many raised.
    @ivar responses: HTTP responses by the first digit of their status.
    @ivar expiries: by phase.
    @ivar received: bytes from peers, of requests that have ended.
    @ivar sent: bytes to peers, likewise.
    @ivar abandoned: handlers that still run now though their deadline passed long ago.
    @ivar durations: a histogram per phase name.
    """

    __slots__ = (
        "_handled",
        "abandoned",
        "accepted",
        "active",
        "durations",
        "errors",
        "expiries",
        "failures",
        "listener",
        "received",
        "refused",
        "requests",
        "responses",
        "sent",
    )

    def __init__(self, listener: str = "") -> None:
        self.listener = listener
        self.accepted = 0
        self.active = 0
        self.refused: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.requests = 0
        self.errors = 0
        self.responses = [0] * 10
        self.expiries: Counter[Phase] = Counter()
        self.received = 0
        self.sent = 0
        self.abandoned = 0
        self.durations: dict[str, Histogram] = {}
        #: That of C{handle}, once a request has been handled.
        self._handled: Histogram | None = None

    def record(self, record: RequestRecord) -> None:
        """Count a request that has ended."""
        self.received += record.received or 0
        self.sent += record.sent or 0
        for phase, seconds in record.phases.items():
            self.observe_duration(phase, seconds)

    def count_request(self, failed: bool) -> None:
        """Count a request whose handler has finished, and whose record is yet to come."""
        self.requests += 1
        if failed:
            self.errors += 1

    def count_handled(self, failed: bool, seconds: float) -> None:
        """Count a request whose handler has finished, and how long that has taken."""
        self.requests += 1  # not by count_request: this is called for each packet
        if failed:
            self.errors += 1
        handled = self._handled
        if handled is None:
            handled = self._handled = self.histogram("handle")
        bucket = (
            0 if seconds <= _SHORTEST_SECONDS else bisect_left(DURATION_BUCKETS_SECONDS, seconds)
        )
        handled.counts[bucket] += 1
        handled.total += seconds

    def observe_duration(self, phase: str, seconds: float) -> None:
        """Count how long a phase of a request lasted."""
        (self.durations.get(phase) or self.histogram(phase)).add(seconds)

    def histogram(self, phase: str) -> Histogram:
        """The durations of a phase, counted from now on if they were not."""
        histogram = self.durations.get(phase)
        if histogram is None:
            histogram = self.durations[phase] = Histogram()
        return histogram

    def snapshot(self) -> dict[str, Any]:
        """All counters as plain data, for pages and logs."""
        return {
            "listener": self.listener,
            "accepted": self.accepted,
            "active": self.active,
            "refused": dict(self.refused),
            "failures": dict(self.failures),
            "requests": self.requests,
            "errors": self.errors,
            "responses": {
                f"{digit}xx": count for digit, count in enumerate(self.responses) if count
            },
            "expiries": {str(phase): count for phase, count in self.expiries.items()},
            "received": self.received,
            "sent": self.sent,
            "abandoned": self.abandoned,
            "durations": {
                phase: {"count": histogram.count, "total": histogram.total}
                for phase, histogram in self.durations.items()
            },
        }
