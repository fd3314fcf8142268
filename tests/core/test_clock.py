"""The clock of a reactor: time that the system's clock, when it is set, does not move."""

import time

import pytest
from twisted.internet.base import ReactorBase
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.task import Clock

from sockserve.core.clock import MonotonicClock, clock_of, keep_steady
from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.interfaces import Phase

HOUR = 3600.0


class Times:
    """Both times of a machine, and a reactor that goes by the one that can be set."""

    def __init__(self) -> None:
        self.system = Clock()  # also the reactor
        self.system.rightNow = 1e9
        self.steady = Clock()
        self.clock = MonotonicClock(self.system, self.steady.seconds, self.system.seconds)
        self.called: list[str] = []

    def pass_by(self, seconds: float) -> None:
        self.steady.advance(seconds)
        self.system.advance(seconds)

    def set_system(self, seconds: float) -> None:
        self.system.rightNow += seconds


@pytest.fixture
def times() -> Times:
    return Times()


def test_a_call_comes_when_its_seconds_have_passed(times: Times) -> None:
    call = times.clock.callLater(5, times.called.append, "now")
    assert call.active()
    assert repr(call) == "<call of list.append in 5.000 s>"
    assert call.getTime() == times.clock.seconds() + 5
    assert times.clock.getDelayedCalls() == [call]
    times.pass_by(4.9)
    assert times.called == []
    times.pass_by(0.1)
    assert times.called == ["now"]
    assert not call.active()
    assert times.clock.getDelayedCalls() == []


def test_set_forward_no_call_comes_early(times: Times) -> None:
    times.clock.callLater(5, times.called.append, "now")
    times.pass_by(1)
    times.set_system(HOUR)
    times.pass_by(3.9)
    assert times.called == []
    times.pass_by(0.1)
    assert times.called == ["now"]


def test_set_back_no_call_comes_late(times: Times) -> None:
    times.clock.callLater(5, times.called.append, "now")
    times.pass_by(1)
    times.set_system(-HOUR)
    times.clock.look_for_step()
    times.pass_by(3.9)
    assert times.called == []
    times.pass_by(0.1)
    assert times.called == ["now"]


def test_a_step_that_is_noticed_late_makes_no_call_later_than_that(times: Times) -> None:
    times.clock.callLater(5, times.called.append, "now")
    times.set_system(-HOUR)
    times.pass_by(6)
    assert times.called == []
    times.clock.look_for_step()
    times.pass_by(0)
    assert times.called == ["now"]


def test_steps_add_up(times: Times) -> None:
    times.clock.callLater(5, times.called.append, "now")
    for step in (-HOUR, 2 * HOUR, -HOUR, -HOUR):
        times.set_system(step)
        times.clock.look_for_step()
        times.pass_by(1)
    assert times.called == []
    times.pass_by(1)
    assert times.called == ["now"]


def test_a_call_is_moved_as_a_reactors_own(times: Times) -> None:
    later = times.clock.callLater(5, times.called.append, "reset later")
    earlier = times.clock.callLater(5, times.called.append, "reset earlier")
    delayed = times.clock.callLater(5, times.called.append, "delayed")
    times.pass_by(1)
    later.reset(10)
    earlier.reset(1)
    delayed.delay(1)
    times.pass_by(1)
    assert times.called == ["reset earlier"]
    times.pass_by(4)  # 5 + 1 since it was made
    assert times.called == ["reset earlier", "delayed"]
    times.pass_by(5)  # 10 since it was reset
    assert times.called == ["reset earlier", "delayed", "reset later"]


def test_a_call_that_is_over_is_not_moved_or_cancelled(times: Times) -> None:
    cancelled = times.clock.callLater(5, times.called.append, "never")
    cancelled.cancel()
    assert not cancelled.active()
    assert times.system.getDelayedCalls() == []
    called = times.clock.callLater(0, times.called.append, "now")
    times.pass_by(0)
    for call, error in ((cancelled, AlreadyCancelled), (called, AlreadyCalled)):
        with pytest.raises(error):
            call.cancel()
        with pytest.raises(error):
            call.reset(1)
        with pytest.raises(error):
            call.delay(1)
    assert times.called == ["now"]


def test_deadlines_go_by_it(times: Times) -> None:
    expired: list[Phase] = []
    timer = DeadlineTimer(times.clock, expired.append)
    timer.arm(Phase.HEADER, 30)
    timer.arm(Phase.IDLE, 60)
    times.pass_by(20)
    times.set_system(HOUR)
    times.pass_by(9)
    assert expired == []
    times.set_system(-3 * HOUR)
    times.clock.look_for_step()
    times.pass_by(1)
    assert expired == [Phase.HEADER]
    times.pass_by(30)
    assert expired == [Phase.HEADER, Phase.IDLE]
    timer.stop()


def test_a_clock_that_stands_for_a_reactor_is_its_own() -> None:
    clock = Clock()
    assert clock_of(clock) is clock


def test_all_who_ask_have_the_same() -> None:
    class Reactor(ReactorBase):
        """One that no other test has had go by a time of its own."""

        def installWaker(self) -> None:
            pass

    reactor = Reactor()
    assert clock_of(reactor) is clock_of(reactor)
    assert clock_of(reactor).seconds is time.monotonic


def test_a_reactor_that_is_ours_goes_on_from_the_systems_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Reactor:
        seconds = staticmethod(time.time)

    reactor = Reactor()
    keep_steady(reactor)
    assert clock_of(reactor) is reactor
    assert reactor.seconds() == pytest.approx(time.time(), abs=60)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    before = reactor.seconds()
    keep_steady(reactor)  # again changes nothing
    assert before <= reactor.seconds() < before + 60


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_what_is_for_the_end_of_the_turn_comes_then_whatever_the_system_says(
    times: Times, step: float
) -> None:
    times.clock.callLater(0, times.called.append, "now")
    times.set_system(step)
    times.pass_by(0)
    assert times.called == ["now"]
