"""The watch over output in the kernel: when a client takes too little, and what is not known."""

import socket

import pytest
from twisted.internet.task import Clock

from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.deadlines import Deadlines
from sockserve.interfaces import Phase
from sockserve.sockets.lending import TransferCounts
from sockserve.sockets.output_watch import OutputWatch
from tests.sockets.test_lending import fill, needs_tcp_info, tcp_pair


class Watched:
    """
    A connection whose output the kernel has.

    @ivar counts: what the kernel tells of it.
    @ivar faults: when C{write} has passed.
    """

    def __init__(self, **deadlines: float | None) -> None:
        self.clock = Clock()
        self.counts: TransferCounts | None = None
        self.faults: list[float] = []
        timer = DeadlineTimer(self.clock, self._deadline_passed)
        self.watch = OutputWatch(Deadlines(**deadlines), timer, lambda sock: self.counts)

    def _deadline_passed(self, phase: Phase) -> None:
        assert phase is Phase.WRITE
        if not self.watch.takes_output(None):
            self.faults.append(self.clock.seconds())

    def tell(self, *, sent: int, unsent: int) -> None:
        self.counts = TransferCounts(0, sent, unsent, 0.0, 0.0)


def test_a_client_that_has_taken_all_is_looked_at_again_and_again() -> None:
    watched = Watched(write=5)
    watched.tell(sent=10, unsent=0)
    watched.clock.pump([1] * 100)
    assert watched.faults == []
    watched.tell(sent=20, unsent=10)
    watched.clock.pump([1] * 9)
    assert watched.faults == [], "it was seen at 105 s, as sent just then"
    watched.clock.pump([1])
    assert watched.faults == [110]


def test_one_that_takes_something_has_as_long_again() -> None:
    """Half of it by the second look, at 10 s, and no more."""
    watched = Watched(write=5, write_rate=None)
    watched.tell(sent=10, unsent=10)
    watched.clock.pump([1] * 6)
    watched.tell(sent=10, unsent=5)
    watched.clock.pump([1] * 8)
    assert watched.faults == []
    watched.clock.pump([1])
    assert watched.faults == [15]


@pytest.mark.parametrize("write", [None, 5])
def test_what_cannot_be_told_is_no_fault(write: float | None) -> None:
    watched = Watched(write=write)
    watched.clock.pump([1] * 100)
    assert watched.faults == []
    assert watched.watch.seconds_left(None) is None
    assert not watched.clock.getDelayedCalls(), "it cannot be told later either"


@needs_tcp_info
def test_the_kernel_is_asked_about_the_socket(no_leaks: None) -> None:
    clock = Clock()
    watch = OutputWatch(Deadlines(write=5), DeadlineTimer(clock, lambda phase: None))
    ours, theirs = tcp_pair()
    with ours, theirs:
        fill(ours)
        assert watch.takes_output(ours)
        clock.advance(5)
        assert not watch.takes_output(ours)
    assert watch.takes_output(ours), "it is closed"
    assert watch.takes_output(None)
    with socket.socket(socket.AF_UNIX) as other:
        assert watch.takes_output(other)
