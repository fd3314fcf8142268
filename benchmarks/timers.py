"""Microseconds to re-arm one of 100,000 deadlines: ``python -m benchmarks.timers NAME``."""

import random
import sys
import time

from twisted.internet import reactor

ARMED = 100_000
REARMED_PER_TURN = 1_000
SECONDS = 60.0


def microseconds(rearm, timers):
    """In shuffled order, as connections are; what the loop has to sweep up counts."""
    random.Random(1).shuffle(timers)
    reactor.iterate(0)
    started = time.perf_counter()
    for first in range(0, ARMED, REARMED_PER_TURN):
        for timer in timers[first : first + REARMED_PER_TURN]:
            rearm(timer)
        reactor.iterate(0)
    return (time.perf_counter() - started) / ARMED * 1e6


def timers_twisted():
    calls = [reactor.callLater(SECONDS, int) for _ in range(ARMED)]
    return microseconds(lambda call: call.reset(SECONDS), calls)


def timers_sockserve():
    from sockserve.core.deadline_timer import DeadlineTimer
    from sockserve.interfaces import Phase

    timers = [DeadlineTimer(reactor, print) for _ in range(ARMED)]
    for timer in timers:
        timer.arm(Phase.IDLE, SECONDS)
    return microseconds(lambda timer: timer.arm(Phase.IDLE, SECONDS), timers)


if __name__ == "__main__":
    print(globals()[sys.argv[1].replace("-", "_")]())
