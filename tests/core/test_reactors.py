"""Reactors: all that is asked of one is there in Twisted's."""

from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from zope.interface.verify import verifyClass

from sockserve.core.reactors import IReactor, as_reactor


def test_a_reactor_of_twisteds_has_all_that_is_asked_of_one() -> None:
    assert verifyClass(IReactor, SelectReactor, tentative=True)


def test_a_clock_stands_for_a_reactor() -> None:
    clock = Clock()
    assert as_reactor(clock) is clock
