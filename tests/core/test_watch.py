"""The watch of a reactor: a thread that asks it again and again whether it still turns."""

import threading

import pytest
from twisted.internet.task import Clock

from sockserve.core.forking import ThreadRole, mark_thread, this_thread
from sockserve.core.watch import ASK_SECONDS, STUCK_SECONDS, StretchCounter, watch_of

pytestmark = pytest.mark.usefixtures("no_leaks")


class Looks:
    """A counter, and looks at given intervals."""

    def __init__(self) -> None:
        self.now = Clock()
        self.used = Clock()
        self.counter = StretchCounter(self.now.seconds, self.used.seconds)

    def look(
        self,
        count: int = 1,
        *,
        after: float = ASK_SECONDS,
        used: float = 0.0,
        answered: bool = False,
    ) -> list[bool]:
        found = []
        for _ in range(count):
            self.now.advance(after)
            self.used.advance(used)
            found.append(self.counter.look(answered))
        return found


@pytest.fixture
def looks() -> Looks:
    return Looks()


def test_a_reactor_that_answers_is_not_stuck(looks: Looks) -> None:
    assert not any(looks.look(100, answered=True))


def test_a_stretch_is_told_of_once(looks: Looks) -> None:
    """4 looks, a quarter of a second apart, make a second."""
    assert looks.look(4) == [False, False, False, True]
    assert looks.counter.stuck == STUCK_SECONDS
    assert not any(looks.look(100))


def test_the_next_stretch_is_told_of_again(looks: Looks) -> None:
    looks.look(8)
    looks.look(answered=True)
    assert looks.look(4) == [False, False, False, True]


def test_turns_that_each_take_less_do_not_add_up(looks: Looks) -> None:
    for _ in range(10):
        assert not any(looks.look(3))
        looks.look(answered=True)


def test_a_process_that_was_stopped_is_not_stuck(looks: Looks) -> None:
    assert looks.look(after=600) == [False]
    assert looks.look(3) == [False] * 3


def test_a_thread_that_let_no_other_run_is_stuck(looks: Looks) -> None:
    assert looks.look(after=3, used=2.9) == [True]


def test_what_it_answered_before_that_does_not_count(looks: Looks) -> None:
    assert looks.look(after=3, used=2.9, answered=True) == [True]
    assert looks.counter.is_held
    assert looks.look(answered=True) == [False]
    assert not looks.counter.is_held


def watches() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "sockserve watch"]


def test_what_stands_for_a_reactor_is_not_watched() -> None:
    clock = Clock()
    watch, before = watch_of(clock), watches()
    watch.hold()
    assert watches() == before
    assert clock.getDelayedCalls() == []
    assert this_thread.role is None
    watch.release()


async def test_a_reactors_thread_is_marked_even_if_there_is_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Children that handlers fork go by the mark; it does not outlast the server."""
    from twisted.internet import reactor

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    watch, before = watch_of(reactor), watches()
    watch.hold()
    watch.hold()
    assert (this_thread.role, watches()) == (ThreadRole.REACTOR, before)
    watch.release()
    assert this_thread.role is ThreadRole.REACTOR
    watch.release()
    assert this_thread.role is None
    monkeypatch.undo()
    watch.hold()
    assert len(watches()) == len(before) + 1
    watch.release()
    assert watches() == before


async def test_a_reactor_is_watched_while_somebody_holds_it() -> None:
    from twisted.internet import reactor

    before = watches()
    watch = watch_of(reactor)
    assert watch_of(reactor) is watch
    watch.hold()
    watch.hold()
    assert len(watches()) == 1
    assert this_thread.role is ThreadRole.REACTOR
    watch.release()
    assert len(watches()) == 1
    watch.release()
    assert watches() == before == []
    assert this_thread.role is None


async def test_a_thread_that_has_run_a_reactor_is_what_it_was() -> None:
    """As that of a handler which does."""
    from twisted.internet import reactor

    watch = watch_of(reactor)
    mark_thread(ThreadRole.WORKER)
    try:
        watch.hold()
        assert this_thread.role is ThreadRole.REACTOR
        watch.release()
        assert this_thread.role is ThreadRole.WORKER
    finally:
        mark_thread(None)
