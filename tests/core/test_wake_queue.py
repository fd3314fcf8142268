"""The wake-up queue: many timers, one delayed call."""

from collections.abc import Callable
from math import inf
from weakref import WeakSet, ref

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.wake_queue import WakeQueue, wake_queue_of
from sockserve.interfaces import Phase


class Sleeping:
    """A sleeper that notes when it is woken."""

    def __init__(self, clock: Clock, queue: WakeQueue, wake_at: float) -> None:
        self.clock = clock
        self.queue = queue
        self.woken: list[float] = []
        self.wake_at = wake_at
        queue.add(self)

    def wake(self) -> None:
        self.woken.append(self.clock.seconds())
        self.wake_at = inf

    def move(self, at: float) -> None:
        self.wake_at = at
        self.queue.forget()
        self.queue.add(self)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> WakeQueue:
    return WakeQueue(clock)


def test_each_is_woken_at_its_time_by_one_delayed_call(clock: Clock, queue: WakeQueue) -> None:
    sleepers = [Sleeping(clock, queue, at) for at in (3.0, 1.0, 2.0, 1.0)]
    assert [call.getTime() for call in clock.getDelayedCalls()] == [1.0]
    clock.pump([1.0] * 4)
    assert [sleeper.woken for sleeper in sleepers] == [[3.0], [1.0], [2.0], [1.0]]
    assert clock.getDelayedCalls() == []


def test_who_comes_late_wakes_all_that_are_due_in_order(clock: Clock, queue: WakeQueue) -> None:
    order: list[str] = []
    for name, at in (("b", 2.0), ("a", 1.0), ("c", 9.0)):
        sleeper = Sleeping(clock, queue, at)
        sleeper.wake = lambda name=name: order.append(name)  # type: ignore[method-assign,misc]
    clock.advance(5.0)
    assert order == ["a", "b"]
    assert [call.getTime() for call in clock.getDelayedCalls()] == [9.0]


def test_who_has_moved_is_woken_once(clock: Clock, queue: WakeQueue) -> None:
    sleeper = Sleeping(clock, queue, 5.0)
    sleeper.move(2.0)
    clock.advance(2.0)
    sleeper.wake_at = 5.0  # the time of the first entry, again
    queue.add(sleeper)
    clock.advance(3.0)
    assert sleeper.woken == [2.0, 5.0]
    assert clock.getDelayedCalls() == []


def test_who_is_added_by_another_comes_after_those_that_are_due(
    clock: Clock, queue: WakeQueue
) -> None:
    """Else two that add each other would keep all others waiting."""
    added: list[Sleeping] = []
    first, second = Sleeping(clock, queue, 1.0), Sleeping(clock, queue, 1.5)
    first.wake = lambda: added.append(Sleeping(clock, queue, 1.0))  # type: ignore[method-assign]
    second.wake = lambda: second.woken.extend(added[0].woken)  # type: ignore[method-assign]
    clock.advance(2.0)
    assert (added[0].woken, second.woken) == ([2.0], [])


def test_one_that_raises_stops_no_other(clock: Clock, queue: WakeQueue) -> None:
    bad, good, later = (Sleeping(clock, queue, at) for at in (1.0, 1.0, 2.0))
    bad.wake = lambda: 1 / 0  # type: ignore[method-assign,assignment]
    with capturedLogs() as logged:
        clock.advance(1.0)
    clock.advance(1.0)
    assert (good.woken, later.woken) == ([1.0], [2.0])
    assert ["ZeroDivisionError" in str(event["log_failure"]) for event in logged] == [True]


def test_those_that_are_over_are_not_kept(clock: Clock) -> None:
    """A server that opens and closes connections all the time keeps none until its deadline."""
    staying = DeadlineTimer(clock, lambda phase: None)
    staying.arm(Phase.IDLE, 60)
    kept: WeakSet[Callable[[Phase], object]] = WeakSet()
    for _ in range(1000):
        expired = lambda phase: None  # noqa: E731
        kept.add(expired)
        timer = DeadlineTimer(clock, expired)
        timer.arm(Phase.IDLE, 60)
        timer.stop()
    assert len(kept) < 100
    staying.stop()
    assert clock.getDelayedCalls() == []


def test_a_clock_has_one_queue_which_does_not_outlast_it() -> None:
    clock = Clock()
    queue = ref(wake_queue_of(clock))
    assert wake_queue_of(clock) is queue()
    assert wake_queue_of(Clock()) is not queue()
    del clock
    assert queue() is None
