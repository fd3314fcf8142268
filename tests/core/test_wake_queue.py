"""The wake-up queue: many timers, one delayed call."""

import gc
from collections.abc import Callable
from weakref import ref

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.wake_queue import Entry, WakeQueue, wake_queue_of
from sockserve.interfaces import Phase


class Sleeping:
    """A sleeper that notes when it is woken, and may do something then."""

    def __init__(
        self, queue: WakeQueue, clock: Clock, at: float, act: Callable[[], object] = lambda: None
    ) -> None:
        self._queue, self._clock, self._act = queue, clock, act
        self.woken: list[float] = []
        self.entry: Entry = queue.add(at, self)

    def wake(self, now: float) -> None:
        self.woken.append(now)
        self._act()

    def remove(self) -> None:
        self._queue.remove(self.entry)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> WakeQueue:
    return WakeQueue(clock)


def calls(clock: Clock) -> list[float]:
    return [call.getTime() for call in clock.getDelayedCalls()]


def test_each_is_woken_at_its_time_by_one_delayed_call(clock: Clock, queue: WakeQueue) -> None:
    sleepers = [Sleeping(queue, clock, at) for at in (3.0, 1.0, 2.0, 1.0)]
    assert calls(clock) == [1.0]
    clock.pump([1.0] * 4)
    assert [sleeper.woken for sleeper in sleepers] == [[3.0], [1.0], [2.0], [1.0]]
    assert calls(clock) == []


def test_a_call_that_comes_late_wakes_all_that_are_due_in_order(
    clock: Clock, queue: WakeQueue
) -> None:
    order: list[str] = []
    for name, at in (("b", 2.0), ("a", 1.0), ("c", 9.0)):
        Sleeping(queue, clock, at, lambda name=name: order.append(name))  # type: ignore[misc]
    clock.advance(5.0)
    assert order == ["a", "b"]
    assert calls(clock) == [9.0]


def test_what_came_while_the_reactor_was_kept_from_its_turns_is_heard_first(
    clock: Clock, queue: WakeQueue
) -> None:
    """It makes delayed calls before it listens to what is there by then."""
    sleeper = Sleeping(queue, clock, 1.0)
    clock.callLater(3.0, sleeper.remove)  # as what comes puts off a deadline
    clock.advance(5.0)
    assert sleeper.woken == []


def test_what_becomes_due_while_the_reactor_listens_has_its_turn_of_that(
    clock: Clock, queue: WakeQueue
) -> None:
    first, second = Sleeping(queue, clock, 1.0), Sleeping(queue, clock, 2.0)
    first_turn = clock.callLater(1.0, lambda: clock.callLater(0, clock.advance, 5.0))
    clock.callLater(6.0, second.remove)
    clock.advance(1.0)
    assert not first_turn.active()
    assert (first.woken, second.woken) == ([1.0], [])


def test_who_is_removed_is_not_woken(clock: Clock, queue: WakeQueue) -> None:
    gone, there = Sleeping(queue, clock, 1.0), Sleeping(queue, clock, 2.0)
    gone.remove()
    clock.advance(5.0)
    assert (gone.woken, there.woken) == ([], [5.0])


def test_with_nobody_left_there_is_no_delayed_call(clock: Clock, queue: WakeQueue) -> None:
    sleepers = [Sleeping(queue, clock, at) for at in (1.0, 2.0)]
    for sleeper in sleepers:
        sleeper.remove()
    assert calls(clock) == []
    again = Sleeping(queue, clock, 3.0)
    clock.advance(3.0)
    assert again.woken == [3.0]


def test_when_the_last_is_woken_no_call_is_left_for_removed_ones(
    clock: Clock, queue: WakeQueue
) -> None:
    Sleeping(queue, clock, 1.0)
    Sleeping(queue, clock, 2.0).remove()
    clock.advance(1.0)
    assert calls(clock) == []


def test_one_that_is_woken_may_remove_others(clock: Clock, queue: WakeQueue) -> None:
    """Also those that are due by now, and those behind them wait on."""
    others: list[Sleeping] = []

    def remove_others() -> None:
        for other in others:
            other.remove()

    Sleeping(queue, clock, 1.0, remove_others)
    others += [Sleeping(queue, clock, at) for at in (1.0, 2.0)]
    late = Sleeping(queue, clock, 3.0)
    clock.pump([1.0] * 3)
    assert [each.woken for each in [*others, late]] == [[], [], [3.0]]


def test_a_timer_may_be_armed_and_stopped_while_others_are_due(clock: Clock) -> None:
    """Each connection has its own deadlines, whatever becomes of those beside it."""
    expired: list[tuple[str, float]] = []

    def first_expired(phase: Phase) -> None:
        expired.append(("first", clock.seconds()))
        first.arm(Phase.LIFETIME, 5)
        first.arm(Phase.WRITE, 2)
        first.stop()

    first = DeadlineTimer(clock, first_expired)
    first.arm(Phase.HANDLE, 3)
    over = DeadlineTimer(clock, lambda phase: expired.append(("over", clock.seconds())))
    over.arm(Phase.HANDLE, 3)
    over.stop()
    clock.advance(1)
    last = DeadlineTimer(clock, lambda phase: expired.append(("last", clock.seconds())))
    last.arm(Phase.HANDLE, 3)
    clock.pump([1.0] * 10)
    assert expired == [("first", 3.0), ("last", 4.0)]
    assert calls(clock) == []


def test_who_is_added_by_another_comes_after_those_that_are_due(
    clock: Clock, queue: WakeQueue
) -> None:
    """Else two that add each other would keep all others waiting."""
    order: list[str] = []

    def add() -> None:
        order.append("first")
        Sleeping(queue, clock, 1.5, lambda: order.append("added"))

    Sleeping(queue, clock, 1.0, add)
    Sleeping(queue, clock, 1.5, lambda: order.append("second"))
    clock.advance(2.0)
    assert order == ["first", "second", "added"]


@pytest.mark.parametrize("error", [ValueError("a fault"), SystemExit(1)])
def test_one_that_raises_stops_no_other(
    clock: Clock, queue: WakeQueue, error: BaseException
) -> None:
    def fail() -> None:
        raise error

    Sleeping(queue, clock, 1.0, fail)
    beside, later = Sleeping(queue, clock, 1.0), Sleeping(queue, clock, 2.0)
    with capturedLogs() as logged:
        clock.advance(1.0)
    clock.advance(1.0)
    assert (beside.woken, later.woken) == ([1.0], [2.0])
    assert [event["log_failure"].value for event in logged] == [error]


def test_what_has_moved_a_hundred_times_is_woken_once(clock: Clock) -> None:
    expired: list[float] = []
    timer = DeadlineTimer(clock, lambda phase: expired.append(clock.seconds()))
    for seconds in range(200, 100, -1):
        timer.arm(Phase.IDLE, seconds)
    clock.advance(500)
    assert expired == [500]
    assert calls(clock) == []


def test_a_stopped_timer_keeps_nothing_alive(clock: Clock) -> None:
    """A server that opens and closes connections all the time keeps none until its deadline."""
    staying = DeadlineTimer(clock, lambda phase: None)
    staying.arm(Phase.IDLE, 60)

    def connection_over() -> "ref[Callable[[Phase], object]]":
        def expired(phase: Phase) -> None:
            """Belongs to the connection."""

        timer = DeadlineTimer(clock, expired)
        timer.arm(Phase.IDLE, 60)
        timer.stop()
        return ref(expired)

    assert [kept for _ in range(10) if (kept := connection_over()()) is not None] == []


def test_a_clock_has_one_queue_which_does_not_outlast_it() -> None:
    clock = Clock()
    timer = DeadlineTimer(clock, lambda phase: None)
    timer.arm(Phase.IDLE, 60)
    assert wake_queue_of(clock) is wake_queue_of(clock)
    assert wake_queue_of(clock) is not wake_queue_of(Clock())
    gone = ref(clock)
    del clock, timer
    gc.collect()
    assert gone() is None
