"""What follows a deadline of a datagram's."""

import pytest
from twisted.internet.defer import Deferred

from sockserve import BaseRequestHandler, Deadlines
from sockserve.interfaces import Phase
from tests.listeners.test_datagrams import Listener


@pytest.mark.parametrize(
    "deadlines", [{"handle": 3}, {"lifetime": 3}, {"handle": 3, "lifetime": 3}], ids=", ".join
)
def test_a_coroutine_has_its_time_to_clean_up_and_is_then_ended(deadlines):
    ended = []

    class Handler(BaseRequestHandler):
        async def handle(self):
            try:
                try:
                    await Deferred()
                except TimeoutError:
                    await Deferred()
            finally:
                ended.append(True)

    listener = Listener(Handler, deadlines=Deadlines(**deadlines))
    listener.receive(b"x")
    listener.clock.advance(3)
    assert sum(listener.statistics.expiries.values()) == 1
    listener.clock.advance(Deadlines().abandon - 0.1)
    assert (listener.statistics.active, ended) == (1, [])
    listener.clock.advance(0.2)  # 3 + Deadlines().abandon + 0.1
    assert (listener.statistics.active, ended) == (0, [True])
    assert listener.outcomes == [f"expired: {next(iter(deadlines))}"]
    # A thread would still run; of a coroutine nothing is left.
    assert listener.statistics.abandoned == 0
    assert listener.clock.getDelayedCalls() == []


def test_a_coroutine_that_cleans_up_in_its_time_is_not_ended():
    cleaned = Deferred()

    class Handler(BaseRequestHandler):
        async def handle(self):
            try:
                await Deferred()
            except TimeoutError:
                await cleaned
                self.request[1].sendto(b"too late", self.client_address)

    listener = Listener(Handler, deadlines=Deadlines(handle=3, lifetime=3))
    listener.receive(b"x")
    listener.clock.advance(3)
    listener.clock.advance(Deadlines().abandon - 0.1)
    cleaned.callback(None)
    assert listener.answers == [b"too late"]
    assert listener.statistics.active == 0
    assert listener.statistics.expiries[Phase.HANDLE] + listener.statistics.expiries[
        Phase.LIFETIME
    ] == len(listener.records)
    assert listener.clock.getDelayedCalls() == []
