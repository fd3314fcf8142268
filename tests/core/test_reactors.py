"""Reactors: all that is asked of one is there in Twisted's."""

import asyncio
from types import SimpleNamespace
from typing import Any

from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from zope.interface.verify import verifyClass

from sockserve.core.reactors import IReactor, as_reactor, turn_end_of


def test_a_reactor_of_twisteds_has_all_that_is_asked_of_one() -> None:
    assert verifyClass(IReactor, SelectReactor, tentative=True)


def test_a_clock_stands_for_a_reactor() -> None:
    clock = Clock()
    assert as_reactor(clock) is clock


def test_the_end_of_a_clocks_turn() -> None:
    clock, calls = Clock(), []
    call_at_turn_end = turn_end_of(clock)
    call_at_turn_end(lambda: calls.append("called"))
    call_at_turn_end(lambda: calls.append("cancelled")).cancel()
    assert calls == []
    clock.advance(0)
    assert calls == ["called"]


def test_the_end_of_an_event_loops_turn() -> None:
    """What has been heard by then comes before it."""
    loop = asyncio.new_event_loop()
    reactor: Any = SimpleNamespace(_asyncioEventloop=loop)
    calls: list[str] = []
    call_at_turn_end = turn_end_of(reactor)

    def hear() -> None:
        call_at_turn_end(lambda: calls.append("the end"))
        call_at_turn_end(lambda: calls.append("cancelled")).cancel()
        call_at_turn_end(loop.stop)

    loop.call_soon(hear)
    loop.call_soon(calls.append, "heard")
    loop.run_forever()
    loop.close()
    assert calls == ["heard", "the end"]
