"""Load: which jobs of a pool take long, and when more threads are worth it."""

import pytest
from twisted.internet.task import Clock

from sockserve.executors.load import BUSY_SHARE, SHORT_SECONDS, STALL_SECONDS, PoolLoad
from tests.contracts import Job


class Moments:
    """A load whose clocks a test turns."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.processor = 0.0
        self.load = PoolLoad(self.clock, lambda: self.processor)

    def begin(self, count: int) -> list[Job]:
        jobs = [Job() for _ in range(count)]
        for job in jobs:
            self.load.job_began(job)
        return jobs

    def look(self, *waiting: Job) -> set[Job]:
        return self.load.turn_slow(self.load.recent_except(waiting))

    def after(self, seconds: float, *, busy: float = 0.0) -> None:
        self.load.remember()
        self.clock.advance(seconds)
        self.processor += busy * seconds


def test_a_job_that_two_looks_find_being_served_is_slow() -> None:
    moments = Moments()
    (job,) = moments.begin(1)
    assert moments.look() == set()
    assert moments.look() == {job}
    assert moments.look() == set()  # told once
    assert moments.load.slow == {job}
    assert not moments.load.has_recent


def test_a_job_that_waits_is_not_slow() -> None:
    moments = Moments()
    (job,) = moments.begin(1)
    for _ in range(3):
        assert moments.look(job) == set()
    assert moments.look() == set()  # its first moment
    assert moments.look() == {job}


def test_a_job_that_ends_in_a_look_is_not_slow() -> None:
    moments = Moments()
    (job,) = moments.begin(1)
    moments.look()
    served = moments.load.recent_except([])
    moments.load.job_ended(job)  # it is heard of just now
    assert moments.load.turn_slow(served) == set()
    assert not moments.load.has_recent


def test_a_slow_job_that_ends_is_forgotten() -> None:
    moments = Moments()
    (job,) = moments.begin(1)
    moments.look()
    moments.look()
    moments.load.job_ended(job)
    assert moments.load.slow == set()


@pytest.mark.parametrize(
    ("ended", "at_work", "busy", "more"),
    [
        (0, 1, 1.0, True),  # whoever is at work is stuck
        (4, 1, 0.0, True),  # 4 of SHORT_SECONDS each: just not short
        (5, 1, 0.0, False),  # 1. four fifths of that each
        (5, 2, 0.0, True),  # but by two threads: eight fifths
        (4, 1, BUSY_SHARE + 0.01, False),  # 2. the processor is what they wait for
        (4, 1, BUSY_SHARE - 0.01, True),
    ],
)
def test_more_threads_are_worth_it_or_not(
    ended: int, at_work: int, busy: float, more: bool
) -> None:
    moments = Moments()
    jobs = moments.begin(10)
    moments.after(4 * SHORT_SECONDS, busy=busy)
    for job in jobs[:ended]:
        moments.load.job_ended(job)
    assert moments.load.wants_more_threads(10 - ended, at_work, served=1) is more


@pytest.mark.parametrize(("at_work", "more"), [(0, True), (1, False), (2, False)])
def test_more_threads_do_not_help_those_that_have_not_had_the_processor_yet(
    at_work: int, more: bool
) -> None:
    moments = Moments()
    moments.begin(10)
    moments.after(1)
    assert moments.load.wants_more_threads(10, at_work, served=0) is more


def test_more_threads_take_the_place_of_those_that_never_come_to_serve() -> None:
    """Something may keep them from that, or have ended them."""
    moments = Moments()
    moments.begin(10)
    answers = []
    for _ in range(4):
        moments.after(STALL_SECONDS / 2)
        answers.append(moments.load.wants_more_threads(10, 1, served=0))
    assert answers == [False, False, True, False]  # and not for each look


@pytest.mark.parametrize("moves", ["ends", "is served", "does not wait"])
def test_threads_have_time_to_come_whenever_something_has_moved(moves: str) -> None:
    moments = Moments()
    jobs = moments.begin(10)
    assert not moments.load.wants_more_threads(10, 1, served=0)
    moments.after(STALL_SECONDS / 2)
    if moves == "ends":
        moments.load.job_ended(jobs[0])
    moments.load.wants_more_threads(
        0 if moves == "does not wait" else 9, 1, served=moves == "is served"
    )
    moments.after(STALL_SECONDS / 2)
    assert not moments.load.wants_more_threads(9, 1, served=0)


def test_only_what_ended_since_the_last_look_counts() -> None:
    moments = Moments()
    jobs = moments.begin(2)
    moments.load.job_ended(jobs[0])
    moments.after(1)
    assert moments.load.wants_more_threads(1, 1, served=1)
