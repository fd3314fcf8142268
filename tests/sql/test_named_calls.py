"""Delayed calls of which there is one by each name."""

from twisted.internet.task import Clock

from sockserve.sql.named_calls import NamedCalls


def test_a_call_takes_the_place_of_the_one_of_its_name() -> None:
    clock, called = Clock(), []
    calls = NamedCalls(clock)
    calls.later("look", 2.0, lambda: called.append("first"))
    calls.later("look", 1.0, lambda: called.append("second"))
    calls.later("poll", 1.0, lambda: called.append("other"))
    assert "look" in calls
    clock.advance(5.0)
    assert called == ["second", "other"]
    assert "look" not in calls
    assert clock.getDelayedCalls() == []


def test_cancelled_none_is_called() -> None:
    clock = Clock()
    calls = NamedCalls(clock)
    calls.later("look", 1.0, lambda: 1 / 0)
    calls.cancel()
    clock.advance(5.0)
    assert "look" not in calls
