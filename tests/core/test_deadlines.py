"""Deadlines: what may be asked for, and one timer for all of a connection's."""

from collections.abc import Callable
from math import inf, nan
from typing import Any

import attrs
import pytest
from twisted.internet.task import Clock

from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.deadlines import Deadlines
from sockserve.interfaces import ConfigurationError, Phase

FIELDS = [field.name for field in attrs.fields(Deadlines)]


class Timer(DeadlineTimer):
    """A timer on a clock of its own that notes what expires when."""

    __slots__ = ("clock", "expired", "on_expiry")

    def __init__(self) -> None:
        self.clock = Clock()
        self.expired: list[tuple[float, Phase]] = []
        self.on_expiry: dict[Phase, Callable[[], Any]] = {}
        super().__init__(self.clock, self._note)

    def _note(self, phase: Phase) -> None:
        self.expired.append((self.clock.seconds(), phase))
        self.on_expiry.get(phase, lambda: None)()

    def run(self, seconds: int) -> list[tuple[float, Phase]]:
        """Turn the clock second by second; gives what has expired since the beginning."""
        self.clock.pump([1] * seconds)
        return self.expired


@pytest.fixture
def timer():
    timer = Timer()
    yield timer
    timer.stop()
    assert timer.clock.getDelayedCalls() == []


# Bodies that end with their connection


@pytest.mark.parametrize(
    ("named", "elapsed", "received", "seconds"),
    [
        ({}, 1, 0, 4),  # the rate, after 5
        ({}, 50, 240 * 70, 10),  # 70 by the rate, 60 for all
        ({}, 61, 10**9, 0),
        ({"idle": 3}, 0, 10**9, 3),
        ({"body": 100}, 50, 10**9, 50),
        ({"body": 20}, 15, 10**9, 5),
        ({"body_rate": None, "idle": None}, 1000, 0, None),  # nobody has asked for an end
        ({"body_rate": None}, 1000, 0, 300),
        ({"body_grace": None}, 50, 0, 10),
        ({"body_grace": None, "idle": None}, 50, 0, 10),
        ({"body_grace": None, "idle": None}, 61, 0, 0),
    ],
)
def test_a_body_that_a_thread_waits_for(
    named: dict[str, float | None], elapsed: float, received: int, seconds: float | None
) -> None:
    assert Deadlines(**named).connection_body_seconds(elapsed, received) == seconds


# What may be asked for


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("seconds", [0, -1, -0.0, inf, nan, True, False, "60", b"1", [60]])
def test_a_wrong_number_is_refused_by_name(name: str, seconds: object) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Deadlines(**{name: seconds})
    assert f"deadline {name}: " in str(refused.value)
    assert repr(seconds) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("seconds", [None, 1, 0.001, 1e9])
def test_a_right_number_is_kept(name: str, seconds: float | None) -> None:
    assert getattr(Deadlines(**{name: seconds}), name) == seconds


def test_an_unknown_phase_is_refused() -> None:
    with pytest.raises(TypeError, match="haeder"):
        Deadlines(haeder=30)  # type: ignore[call-arg]


#: What is no phase.
OTHERS = {
    "body_rate", "write_rate", "body_grace", "linger", "quiet", "abandon", "keepalive",
    "user_timeout",
}  # fmt: skip


def test_every_phase_has_a_deadline_of_its_name() -> None:
    assert {str(phase) for phase in Phase} == set(FIELDS) - OTHERS


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({}, 120),  # 2 * 60
        ({"keepalive": 40}, 80),
        ({"keepalive": None}, None),
        ({"write": 120}, 120),
        ({"write": 121}, None),  # it would end what has 121 s to leave
        ({"write": None}, None),
        ({"write": None, "user_timeout": 5}, 5),
        ({"user_timeout": None}, None),
    ],
)
def test_the_user_timeout_lets_all_probes_be_sent_and_cuts_no_write_short(
    given: dict[str, float | None], seconds: float | None
) -> None:
    assert Deadlines(**given).user_timeout == seconds


def test_without_options_no_slow_peer_is_waited_for_without_end() -> None:
    given = Deadlines()
    guards = ("handshake", "idle", "header", "body_rate", "write", "drain")
    assert [name for name in guards if getattr(given, name) is None] == []


# A body


def test_the_least_rate_of_a_body_is_not_asked_for_before_its_grace() -> None:
    """At 10 bytes/s, 100 bytes are 10 s, and 20 bytes 2 s; 3 s have passed."""
    given = Deadlines(body_rate=10, body_grace=4)
    assert given.body_seconds(3, 100, None) == 7
    assert given.body_seconds(3, 20, None) == 1  # the grace is longer
    assert given.body_seconds(5, 20, None) == 0
    assert Deadlines(body_rate=10, body_grace=60).body_seconds(5, 20, None) == 55


@pytest.mark.parametrize("never", ["body_rate", "body_grace"])
def test_a_body_has_no_least_rate_unless_both_are_given(never: str) -> None:
    given = Deadlines(**{never: None})
    assert given.body_seconds(1000, 0, None) is None
    assert given.body_seconds(1000, 0, 7) == 7
    assert attrs.evolve(given, body=1001).body_seconds(1000, 0, 7) == 1


# One phase


def test_a_deadline_passes_once_at_its_time(timer: Timer) -> None:
    timer.clock.advance(5)
    timer.arm(Phase.IDLE, 10)
    # Armed at 5 for 10 seconds: 5 + 10 = 15.
    assert timer.run(9) == []
    assert timer.run(1) == [(15, Phase.IDLE)]
    assert timer.run(100) == [(15, Phase.IDLE)]
    assert timer.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("first", "at", "then", "due"),
    [
        (10, 6, 10, 16),  # later: 6 + 10
        (60, 0, 5, 5),  # earlier: 0 + 5
        (60, 20, 10, 30),  # earlier than the first, 20 + 10
        (10, 4, 6, 10),  # the same moment again: 4 + 6
        (10, 9, 100, 109),  # at the last moment: 9 + 100
    ],
)
def test_arming_again_replaces(timer: Timer, first: int, at: int, then: int, due: int) -> None:
    timer.arm(Phase.HEADER, first)
    timer.run(at)
    timer.arm(Phase.HEADER, then)
    assert timer.run(due - at - 1) == []
    assert timer.run(1) == [(due, Phase.HEADER)]
    assert timer.run(200) == [(due, Phase.HEADER)]


@pytest.mark.parametrize(
    "disarm",
    [lambda timer: timer.disarm(Phase.IDLE), lambda timer: timer.arm(Phase.IDLE, None)],
    ids=["disarm", "arm for never"],
)
def test_what_is_disarmed_does_not_pass(timer: Timer, disarm: Callable[[Timer], None]) -> None:
    disarm(timer)  # never armed: no harm
    timer.arm(Phase.IDLE, 10)
    disarm(timer)
    disarm(timer)
    assert timer.run(20) == []
    assert timer.clock.getDelayedCalls() == []
    timer.arm(Phase.IDLE, 5)
    assert timer.run(5) == [(25, Phase.IDLE)]  # 20 + 5


def test_a_deadline_never_passes_inside_arm(timer: Timer) -> None:
    timer.arm(Phase.BODY, 0)
    assert timer.expired == []
    timer.clock.advance(0)
    assert timer.expired == [(0, Phase.BODY)]


def test_the_timer_tells_the_time(timer: Timer) -> None:
    timer.run(7)
    assert timer.seconds() == 7


# Several phases


def test_each_phase_passes_at_its_own_time(timer: Timer) -> None:
    timer.arm(Phase.LIFETIME, 30)
    timer.arm(Phase.IDLE, 10)
    timer.arm(Phase.HANDLE, 20)
    assert len(timer.clock.getDelayedCalls()) == 1
    assert timer.run(40) == [(10, Phase.IDLE), (20, Phase.HANDLE), (30, Phase.LIFETIME)]


def test_disarming_one_phase_leaves_the_others(timer: Timer) -> None:
    timer.arm(Phase.IDLE, 10)
    timer.arm(Phase.WRITE, 10)
    timer.arm(Phase.LIFETIME, 12)
    timer.run(9)
    timer.disarm(Phase.IDLE)
    assert timer.run(10) == [(10, Phase.WRITE), (12, Phase.LIFETIME)]


def test_a_clock_that_leaps_passes_all_that_are_due(timer: Timer) -> None:
    """The reactor was held up for longer than the deadlines are."""
    timer.arm(Phase.IDLE, 10)
    timer.arm(Phase.WRITE, 20)
    timer.arm(Phase.LIFETIME, 100)
    timer.clock.advance(50)
    assert sorted(timer.expired) == [(50, Phase.IDLE), (50, Phase.WRITE)]
    assert timer.run(50)[2:] == [(100, Phase.LIFETIME)]


# What an expiry does to the timer


def test_an_expiry_may_arm_its_own_phase_again(timer: Timer) -> None:
    timer.on_expiry[Phase.IDLE] = lambda: timer.arm(Phase.IDLE, 5)
    timer.arm(Phase.IDLE, 5)
    # 5, 5 + 5, 10 + 5
    assert timer.run(15) == [(5, Phase.IDLE), (10, Phase.IDLE), (15, Phase.IDLE)]


@pytest.mark.parametrize(("seconds", "due"), [(0, 5), (3, 8), (15, 20), (60, 65)])
def test_an_expiry_may_arm_another_phase(timer: Timer, seconds: int, due: int) -> None:
    timer.on_expiry[Phase.IDLE] = lambda: timer.arm(Phase.WRITE, seconds)
    timer.arm(Phase.IDLE, 5)
    timer.arm(Phase.LIFETIME, 30)
    timer.run(100)
    # Idle passes at 5, so write at 5 + seconds, before or after lifetime at 30.
    assert timer.expired == sorted([(5, Phase.IDLE), (due, Phase.WRITE), (30, Phase.LIFETIME)])


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda timer: timer.disarm(Phase.WRITE), []),
        (lambda timer: timer.arm(Phase.WRITE, 5), [(15, Phase.WRITE)]),  # 10 + 5
        (lambda timer: timer.arm(Phase.WRITE, None), []),
        (lambda timer: timer.stop(), []),
    ],
    ids=["disarms", "puts off", "arms for never", "stops"],
)
def test_an_expiry_may_save_another_that_is_due(
    timer: Timer, change: Callable[[Timer], None], left: list[tuple[float, Phase]]
) -> None:
    timer.on_expiry[Phase.IDLE] = lambda: change(timer)
    timer.arm(Phase.IDLE, 10)
    timer.arm(Phase.WRITE, 10)
    assert timer.run(100) == [(10, Phase.IDLE), *left]


# Delayed calls


def test_stop_leaves_no_delayed_call(timer: Timer) -> None:
    timer.arm(Phase.IDLE, 10)
    timer.arm(Phase.LIFETIME, 5)
    timer.stop()
    assert timer.clock.getDelayedCalls() == []
    assert timer.run(20) == []


def test_stop_is_for_good(timer: Timer) -> None:
    """A connection is over, and a handler that was left behind still reads from it."""
    timer.stop()
    timer.stop()
    timer.arm(Phase.IDLE, 10)
    assert timer.clock.getDelayedCalls() == []
    assert timer.run(20) == []


def test_stop_inside_an_expiry_is_for_good(timer: Timer) -> None:
    def end() -> None:
        timer.stop()
        timer.arm(Phase.WRITE, 5)

    timer.on_expiry[Phase.IDLE] = end
    timer.arm(Phase.IDLE, 10)
    timer.arm(Phase.LIFETIME, 50)
    assert timer.run(100) == [(10, Phase.IDLE)]


def test_arming_again_for_later_does_not_touch_the_reactor(timer: Timer) -> None:
    """What makes 100,000 armed deadlines cheap."""
    timer.arm(Phase.IDLE, 300)
    (call,) = timer.clock.getDelayedCalls()
    for _ in range(299):
        timer.clock.advance(1)
        timer.disarm(Phase.IDLE)
        timer.arm(Phase.IDLE, 300)
        assert timer.clock.getDelayedCalls() == [call]
    # Last armed at 299 for 300: 599.
    assert timer.run(299) == []
    assert timer.run(1) == [(599, Phase.IDLE)]


def test_who_knows_the_time_need_not_have_it_asked_for(timer: Timer) -> None:
    """Armed from a moment ago, it is due that much earlier."""
    timer.run(5)
    timer.arm(Phase.IDLE, 10, 3)
    # 3 + 10 = 13.
    assert timer.run(7) == []
    assert timer.run(1) == [(13, Phase.IDLE)]


@pytest.mark.parametrize(
    ("first", "then", "due"), [(10, 4, 4), (4, 10, 10), (10, None, None)], ids=str
)
def test_arming_from_a_moment_replaces_as_arming_does(
    timer: Timer, first: int, then: int | None, due: int | None
) -> None:
    timer.arm(Phase.IDLE, first)
    timer.arm(Phase.IDLE, then, 0)  # 0 + then
    assert timer.run(50) == ([] if due is None else [(due, Phase.IDLE)])


def test_arming_from_a_moment_after_stop_is_for_nothing(timer: Timer) -> None:
    timer.stop()
    timer.arm(Phase.IDLE, 1, 0)
    assert timer.run(5) == []
