"""When answers wait for those of other connections, and when they leave by themselves."""

import os

from twisted.internet.task import Clock

from sockserve.streams.outbox import ALONE_TURNS, LOOK_EACH, Outbox


class Sender:
    """A connection's output that counts how often it was sent."""

    def __init__(self) -> None:
        self.times = 0
        self.forgotten = 0

    def send_held(self) -> None:
        self.times += 1

    def forget_held(self) -> None:
        self.forgotten += 1


class Answering:
    """A connection that is answered again and again by one outbox."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.outbox = Outbox(self.clock)
        self.sender = Sender()

    def leaves_at_once(self) -> bool:
        """Answer once, and go on to the next turn; gives whether that was not waited for."""
        self.outbox.send(self.sender)
        left = not self.clock.getDelayedCalls()
        self.clock.advance(0)
        return left

    def answer_until_at_once(self) -> int:
        """Answer until the answers do not wait any more; gives how many have waited."""
        waited = 0
        while not self.leaves_at_once():
            waited += 1
        return waited


def test_answers_that_come_alone_do_not_wait_for_the_end_of_the_turn() -> None:
    answering = Answering()
    assert answering.answer_until_at_once() == ALONE_TURNS
    assert answering.sender.times == ALONE_TURNS + 1


def test_one_in_many_waits_to_see_whether_it_still_comes_alone() -> None:
    answering = Answering()
    answering.answer_until_at_once()
    left = [answering.leaves_at_once() for _ in range(3 * LOOK_EACH)]
    assert left.count(False) == 3
    assert answering.sender.times == ALONE_TURNS + 1 + 3 * LOOK_EACH


def test_answers_that_come_together_are_gathered_again() -> None:
    answering, other = Answering(), Sender()
    answering.answer_until_at_once()
    while not answering.clock.getDelayedCalls():  # until one waits
        answering.outbox.send(answering.sender)
    times = answering.sender.times
    answering.outbox.send(other)
    assert (answering.sender.times, other.times) == (times, 0)
    answering.clock.advance(0)
    assert (answering.sender.times, other.times) == (times + 1, 1)
    assert answering.answer_until_at_once() == ALONE_TURNS


def test_two_in_each_turn_are_always_gathered() -> None:
    answering, other = Answering(), Sender()
    for turn in range(1, 4 * ALONE_TURNS):
        answering.outbox.send(answering.sender)
        answering.outbox.send(other)
        assert answering.sender.times == other.times == turn - 1
        answering.clock.advance(0)


def test_a_child_sends_nothing_of_what_its_parent_is_about_to_send() -> None:
    answering = Answering()
    answering.outbox.send(answering.sender)
    child = os.fork()
    if not child:
        answering.clock.advance(0)
        os._exit(answering.sender.times * 2 + (answering.sender.forgotten != 1))
    assert os.waitpid(child, 0)[1] == 0
    answering.clock.advance(0)
    assert (answering.sender.times, answering.sender.forgotten) == (1, 0)
