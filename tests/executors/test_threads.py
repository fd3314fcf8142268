"""Threads: the pool where blocking handlers run by default."""

import ctypes
import functools
import os
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs

from sockserve.executors.threads import SLOW_JOB_SECONDS, ThreadExecutor
from sockserve.interfaces import Outcome
from tests.contracts import HeldJob, Job, QueueContract
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.usefixtures("no_leaks")

needs_pidfd = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="needs pidfd_open (Linux 5.3)"
)


@pytest.fixture
def reactor() -> Any:
    from twisted.internet import reactor

    return reactor


@pytest.fixture
def threads(no_leaks: None, reactor: Any) -> Iterator[Callable[..., ThreadExecutor]]:
    """Makes pools, whose threads are gone after the test."""
    pools = []

    def pool(limit: int, **settings: Any) -> ThreadExecutor:
        pools.append(ThreadExecutor(reactor, limit, **settings))
        return pools[-1]

    yield pool
    for each in pools:
        each.stop()


class TestSerial(QueueContract):
    start = "threading.Thread.start"
    no_more = RuntimeError("can't start new thread")

    @pytest.fixture
    def executor(self, threads: Any) -> Any:
        return threads(1)


class TestThreads(QueueContract):
    start = "threading.Thread.start"
    no_more = RuntimeError("can't start new thread")

    @pytest.fixture
    def executor(self, threads: Any) -> Any:
        return threads(4)


def names_of(pool: ThreadExecutor, seen: list[Any]) -> Job:
    def work() -> Outcome:
        seen.append((threading.get_ident(), threading.current_thread().name))
        return Outcome.OK

    return Job(work)


async def test_handlers_run_beside_the_reactor(threads: Any) -> None:
    seen: list[Any] = []
    job = names_of(threads(2), seen)
    threads(2).run(job)
    await job.over
    assert seen[0][0] != threading.get_ident()


async def test_a_new_thread_is_the_pools_from_its_first_job_on(
    threads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late the reactor's thread goes on after it has started it."""
    pool = threads(2)
    first = HeldJob()
    pool.run(first)
    served = threading.Event()
    start = threading.Thread.start

    def start_slowly(thread: threading.Thread) -> None:
        start(thread)
        assert served.wait(PATIENCE_SECONDS)

    def work() -> Outcome:
        is_the_pools.append(pool.has_thread(threading.current_thread()))
        served.set()
        return Outcome.OK

    is_the_pools: list[bool] = []
    job = Job(work)
    monkeypatch.setattr(threading.Thread, "start", start_slowly)
    pool.run(job)
    await job.over
    first.release()
    await first.over
    first.close()
    assert is_the_pools == [True]


async def test_threads_that_run_at_once_have_names_of_their_own(threads: Any) -> None:
    """Whichever listener's pool they are of."""
    pools = [threads(3), threads(3)]
    names: list[str] = []

    class Named(HeldJob):
        def serve(self) -> Outcome:
            names.append(threading.current_thread().name)
            return super().serve()

    first = Job()
    pools[0].run(first)
    await first.over
    jobs = [Named() for _ in range(6)]
    for number, job in enumerate(jobs):
        pools[number % 2].run(job)
    for job in jobs:
        job.release()
    await gatherResults([job.over for job in jobs])
    for job in jobs:
        job.close()
    assert len(set(names)) == len(names) == 6


async def _until(condition: Callable[[], bool]) -> None:
    """For what ends on a thread and tells nobody."""
    from twisted.internet import reactor

    deadline = reactor.seconds() + PATIENCE_SECONDS
    while not condition():
        assert reactor.seconds() < deadline
        await deferLater(reactor, 0.01)


def _new_since(before: set[threading.Thread]) -> set[threading.Thread]:
    """The threads that C{before} has not: what others have left may still come to its end."""
    return set(threading.enumerate()) - before


async def test_the_pool_grows_only_as_needed_and_shrinks(threads: Any) -> None:
    pool = threads(100, idle_seconds=0.05)
    before = set(threading.enumerate())
    jobs = [HeldJob() for _ in range(5)]
    for job in jobs:
        pool.run(job)
    # Once it shows that each takes longer than a moment.
    await _until(lambda: len(_new_since(before)) == 5)
    for job in jobs:
        job.release()
    await gatherResults([job.over for job in jobs])
    for job in jobs:
        job.close()
    # Idle for longer than 0.05 s, all of them retire.
    await _until(lambda: not _new_since(before))
    job = Job()
    pool.run(job)
    assert await job.over is Outcome.OK


async def test_threads_of_a_burst_retire_while_few_requests_come(threads: Any) -> None:
    """Two of 20 are enough for one job after another; the others are idle for 0.3 s soon."""
    from twisted.internet import reactor

    pool = threads(100, idle_seconds=0.3)
    jobs = [HeldJob() for _ in range(20)]
    for job in jobs:
        pool.run(job)
    await _until(lambda: pool.threads == 20)
    for job in jobs:
        job.release()
    await gatherResults([job.over for job in jobs])
    for job in jobs:
        job.close()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while pool.threads > 2:
        assert time.monotonic() < deadline
        small = Job()
        pool.run(small)
        await small.over
        await deferLater(reactor, 0.02)


async def test_threads_that_retire_do_not_lose_a_job(threads: Any) -> None:
    """A job comes just when its thread is about to go."""
    pool = threads(2, idle_seconds=0.001)
    for _ in range(200):
        jobs = [Job(), Job(), Job()]
        for job in jobs:
            pool.run(job)
        await gatherResults([job.over for job in jobs])


async def test_stop_fires_when_idle_threads_are_gone(threads: Any) -> None:
    pool = threads(5)
    before = set(threading.enumerate())
    jobs = [HeldJob() for _ in range(5)]
    for job in jobs:
        pool.run(job)
    await _until(lambda: len(_new_since(before)) == 5)
    for job in jobs:
        job.release()
    await gatherResults([job.over for job in jobs])
    await pool.stop()
    assert not _new_since(before)
    for job in jobs:
        job.close()


async def test_threads_do_not_keep_the_process(threads: Any) -> None:
    seen: list[bool] = []

    def work() -> Outcome:
        seen.append(threading.current_thread().daemon)
        return Outcome.OK

    job = Job(work)
    threads(1).run(job)
    await job.over
    assert seen == [True]


async def test_a_thread_cannot_be_killed(threads: Any) -> None:
    pool = threads(1)
    job = HeldJob()
    pool.run(job)
    assert not pool.kill(job)
    job.release()
    assert await job.over is Outcome.OK
    job.close()


async def test_what_a_job_raises_past_its_server_is_logged(threads: Any) -> None:
    def work() -> Outcome:
        raise ValueError("past handle_error")

    job = Job(work)
    with capturedLogs() as logged:
        threads(1).run(job)
        await job.over
    assert [event["log_failure"].getErrorMessage() for event in logged] == ["past handle_error"]


# Which thread takes which job


class TurnedReactor(Clock):
    """A clock whose turns a test makes, and what threads tell it when the test listens."""

    def __init__(self) -> None:
        super().__init__()
        self._told: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def callFromThread(self, call: Callable[..., None], *arguments: Any) -> None:
        self._told.put(functools.partial(call, *arguments))

    def turn(self) -> None:
        """Hear what threads have said by now."""
        try:
            self._told.get(timeout=SLOW_JOB_SECONDS)()
        except queue.Empty:
            pass
        self.advance(0)

    def listen(self, heard: Callable[[], object]) -> None:
        """Turns in which no time passes, until C{heard} is true."""
        while not heard():
            self._told.get(timeout=PATIENCE_SECONDS)()
            self.advance(0)


class SteppedJob(Job):
    """One that tells when it has begun, and ends when it may."""

    def __init__(self, *, held: bool = True) -> None:
        super().__init__(self._step)
        self._begun, self._may_end = threading.Event(), threading.Event()
        self.served = 0
        self.thread: int | None = None
        self.thread_name = ""
        if not held:
            self._may_end.set()

    def _step(self) -> Outcome:
        self.served += 1
        self.thread = threading.get_ident()
        self.thread_name = threading.current_thread().name
        self._begun.set()
        assert self._may_end.wait(PATIENCE_SECONDS)
        return Outcome.OK

    def begun(self) -> bool:
        """Wait until it is being served."""
        return self._begun.wait(PATIENCE_SECONDS)

    def has_begun(self) -> bool:
        return self._begun.is_set()

    def release(self) -> None:
        self._may_end.set()

    def is_over(self) -> bool:
        return len(self.told) == 2

    def _next_turn(self, call: Callable[..., None], argument: Any) -> None:
        """Nobody waits for it here."""


class Turns:
    """A pool on a L{TurnedReactor}."""

    def __init__(self, limit: int) -> None:
        self.reactor = TurnedReactor()
        #: Whether the process uses the processor all the time, or never.
        self.is_busy = False
        self.pool = ThreadExecutor(
            self.reactor,
            limit,
            processor_seconds=lambda: self.reactor.seconds() if self.is_busy else 0.0,
        )
        self._jobs: list[SteppedJob] = []

    def run(self, count: int = 1, *, held: bool = True) -> list[SteppedJob]:
        """Run jobs, all in one turn."""
        jobs = [SteppedJob(held=held) for _ in range(count)]
        self._jobs += jobs
        for job in jobs:
            self.pool.run(job)
        self.reactor.advance(0)
        return jobs

    def moment(self) -> None:
        self.reactor.advance(SLOW_JOB_SECONDS)

    def finish(self, *jobs: SteppedJob) -> None:
        for job in jobs:
            job.release()
        self.reactor.listen(lambda: all(job.is_over() for job in jobs))

    def close(self) -> None:
        """Everything is over, and nothing is left behind."""
        for job in self._jobs:
            job.release()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not all(job.is_over() for job in self._jobs):
            assert time.monotonic() < deadline, "a job was lost"
            self.reactor.turn()
            self.moment()
        stopped = self.pool.stop()
        self.reactor.listen(lambda: stopped.called)
        assert self.reactor.getDelayedCalls() == []
        assert [job.served for job in self._jobs] == [1] * len(self._jobs)


@pytest.fixture
def turns(no_leaks: None) -> Iterator[Callable[[int], Turns]]:
    made: list[Turns] = []

    def make(limit: int) -> Turns:
        made.append(Turns(limit))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_short_jobs_of_a_turn_share_a_thread(turns: Callable[[int], Turns]) -> None:
    turning = turns(10)
    jobs = turning.run(20, held=False)
    turning.reactor.listen(lambda: all(job.is_over() for job in jobs))
    assert len({job.thread for job in jobs}) == 1
    assert [job.lasted for job in jobs] == [0] * 20


def test_an_idle_thread_serves_again_under_a_new_name(turns: Callable[[int], Turns]) -> None:
    """Programs keep what belongs to a connection under the name of its thread."""
    turning = turns(10)
    jobs: list[SteppedJob] = []
    for _ in range(5):
        jobs += turning.run(held=False)
        turning.finish(*jobs)
    assert len({job.thread for job in jobs}) == 1
    assert len({job.thread_name for job in jobs}) == 5


def test_who_waits_behind_a_long_job_gets_a_thread_in_a_moment(
    turns: Callable[[int], Turns],
) -> None:
    turning = turns(10)
    (long,) = turning.run()
    assert long.begun()
    behind = turning.run(3)
    assert not any(job.has_begun() for job in behind)
    turning.moment()
    assert all(job.begun() for job in behind)
    turning.finish(*behind)
    assert not long.is_over()


def test_who_comes_when_all_threads_have_long_jobs_gets_one_at_once(
    turns: Callable[[int], Turns],
) -> None:
    turning = turns(10)
    (long,) = turning.run()
    assert long.begun()
    turning.moment()
    turning.moment()
    (next_one,) = turning.run()
    assert next_one.begun()  # with no time passed


def test_a_long_job_is_told_once_that_it_lasts(turns: Callable[[int], Turns]) -> None:
    turning = turns(2)
    (long,) = turning.run()
    assert long.begun()
    turning.moment()
    assert long.lasted == 0  # it may have begun just now
    for _ in range(5):
        turning.moment()
    assert long.lasted == 1
    assert turning.reactor.getDelayedCalls() == []  # nothing is left to look for
    turning.finish(long)
    assert long.told == ["started", Outcome.OK]


def test_a_job_whose_end_is_not_heard_of_yet_is_not_told_that_it_lasts(
    turns: Callable[[int], Turns],
) -> None:
    turning = turns(1)
    (job,) = turning.run()
    assert job.begun()
    turning.moment()
    job.release()
    turning.reactor.listen(lambda: job.is_over())
    for _ in range(3):
        turning.moment()
    assert job.lasted == 0


def test_a_job_that_waited_is_not_taken_for_one_that_lasts(turns: Callable[[int], Turns]) -> None:
    """One that begins when another ends has its own moment."""
    turning = turns(1)
    first, second = turning.run(2)
    assert first.begun()
    for _ in range(3):
        turning.moment()
    assert (first.lasted, second.lasted) == (1, 0)
    turning.finish(first)
    turning.reactor.advance(0)
    assert second.begun()
    turning.moment()
    assert second.lasted == 0
    turning.moment()
    assert second.lasted == 1


def test_no_more_threads_than_the_limit(turns: Callable[[int], Turns]) -> None:
    turning = turns(3)
    jobs = turning.run(7)
    assert jobs[0].begun()
    for _ in range(5):
        turning.moment()
    assert all(job.begun() for job in jobs[:3])
    assert not any(job.has_begun() for job in jobs[3:])
    assert (turning.pool.running, turning.pool.waiting) == (3, 4)
    for number, job in enumerate(jobs):
        turning.finish(job)
        for _ in range(2):
            turning.moment()
        assert all(job.begun() for job in jobs[: number + 4])
        assert not any(job.has_begun() for job in jobs[number + 4 :])
    assert len({job.thread for job in jobs}) <= 3


@pytest.mark.parametrize(
    ("ended", "busy", "more"),
    [
        # Of a moment (1 ms) each had 0.17 ms, or 0.5 ms.  Short is below 0.25 ms.
        (6, True, False),
        (6, False, False),
        (2, True, False),  # it is the processor that they wait for
        (2, False, True),
        (0, True, True),  # somebody is stuck
        (0, False, True),
    ],
)
def test_more_threads_are_for_jobs_that_wait_for_something_else(
    turns: Callable[[int], Turns],
    ended: int,
    busy: bool,
    more: bool,
) -> None:
    turning = turns(10)
    turning.is_busy = busy
    turning.run(ended, held=False)
    (current,) = turning.run()
    behind = turning.run(3)
    assert current.begun()  # by whom the others have been served
    before = turning.pool.threads
    turning.moment()
    assert turning.pool.threads == before + 3 * more
    if more:
        assert all(job.begun() for job in behind)


def test_a_thread_that_has_not_had_the_processor_yet_is_waited_for(
    turns: Callable[[int], Turns], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a long turn, say: many threads at once would keep each other from it."""
    turning = turns(10)
    started: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: started.append(thread))
    jobs = turning.run(4)
    turning.moment()
    turning.moment()
    assert len(started) == 1
    monkeypatch.undo()
    started[0].start()
    assert jobs[0].begun()
    turning.moment()
    assert all(job.begun() for job in jobs)


def test_looking_around_that_begins_others_does_not_look_twice(
    turns: Callable[[int], Turns],
) -> None:
    """The look hears of an end before the reactor is told, and begins who waited."""
    turning = turns(1)
    first, second = turning.run(2)
    assert first.begun()
    first.release()
    while not turning.pool.done:  # it ends, and the reactor has not listened yet
        time.sleep(0)
    turning.moment()
    assert first.is_over()
    delays = [call.getTime() for call in turning.reactor.getDelayedCalls()]
    assert len([at for at in delays if at > turning.reactor.seconds()]) == 1
    turning.reactor.advance(0)
    assert second.begun()


@pytest.mark.parametrize("looks", [0, 1, 2, 5])
def test_stopping_leaves_no_delayed_call(turns: Callable[[int], Turns], looks: int) -> None:
    turning = turns(4)
    jobs = turning.run(3)
    for _ in range(looks):
        turning.moment()
    for job in jobs:
        job.release()
    while not all(job.is_over() for job in jobs):
        turning.reactor.turn()
        turning.moment()
    stopped = turning.pool.stop()
    assert turning.reactor.getDelayedCalls() == []
    turning.reactor.listen(lambda: stopped.called)


def test_threads_stopped_while_others_serve_are_not_lost(turns: Callable[[int], Turns]) -> None:
    turning = turns(2)
    one, other = turning.run(2)
    assert one.begun()
    turning.moment()
    assert other.begun()
    turning.finish(one)
    stopped = turning.pool.stop()
    turning.reactor.listen(lambda: stopped.called)
    late = turning.run(1)[0]
    for _ in range(3):
        turning.moment()
    assert late.begun()


def test_a_job_that_comes_while_its_thread_goes_idle_is_served_at_once(
    turns: Callable[[int], Turns],
) -> None:
    turning = turns(1)
    goes_idle, may_go = threading.Event(), threading.Event()

    class Idle(list[Any]):
        def append(self, worker: Any) -> None:
            goes_idle.set()
            assert may_go.wait(PATIENCE_SECONDS)
            super().append(worker)

    (first,) = turning.run()
    assert first.begun()
    turning.pool.idle = Idle()
    turning.finish(first)
    assert goes_idle.wait(PATIENCE_SECONDS)
    (second,) = turning.run()  # its thread has looked for jobs, and does not count as idle
    may_go.set()
    assert second.begun()  # with no time passed


def test_a_system_without_another_thread_serves_by_those_there_are(
    turns: Callable[[int], Turns], monkeypatch: pytest.MonkeyPatch
) -> None:
    turning = turns(4)
    (long,) = turning.run()
    assert long.begun()
    starts = []

    def none_left(thread: threading.Thread) -> None:
        starts.append(thread)
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", none_left)
        (waiting,) = turning.run()
        for _ in range(3):
            turning.moment()
        assert starts
        assert not waiting.has_begun()
        long.release()
        assert waiting.begun()
        turning.finish(waiting)
        assert long.is_over()


def test_a_job_that_raises_when_told_that_it_lasts_keeps_no_other_waiting(
    turns: Callable[[int], Turns], monkeypatch: pytest.MonkeyPatch
) -> None:
    turning = turns(4)

    def runs_long() -> None:
        raise ValueError("so what")

    (long,) = turning.run()
    monkeypatch.setattr(long, "runs_long", runs_long)
    assert long.begun()
    turning.moment()
    (behind,) = turning.run()
    with capturedLogs() as logged:
        turning.moment()
    assert [event["log_failure"].getErrorMessage() for event in logged] == ["so what"]
    turning.moment()
    assert behind.begun()


# Storms


class CountedJob(Job):
    """One that takes the time it is given, and notes that it was served."""

    def __init__(self, seconds: float, served: list[int], number: int) -> None:
        super().__init__(self._serve)
        self._seconds, self._served, self._number = seconds, served, number

    def _serve(self) -> Outcome:
        if self._seconds:
            threading.Event().wait(self._seconds)
        self._served.append(self._number)
        return Outcome.OK


@pytest.mark.parametrize("limit", [1, 2, 8])
@pytest.mark.parametrize("seed", range(3))
async def test_of_many_jobs_none_is_lost_and_none_served_twice(
    threads: Any, reactor: Any, limit: int, seed: int
) -> None:
    """Short and long ones, many or few in a turn, with pauses in which threads go idle."""
    chance = random.Random(seed)
    pool = threads(limit)
    served: list[int] = []
    jobs: list[CountedJob] = []
    while len(jobs) < 600:
        for _ in range(chance.choice([1, 1, 2, 10, 50])):
            seconds = chance.choice([0.0] * 20 + [0.0005, 0.002, 0.01])
            jobs.append(CountedJob(seconds, served, len(jobs)))
            pool.run(jobs[-1])
            assert pool.running <= limit
        await deferLater(reactor, chance.choice([0, 0, 0.0005, 0.003]))
    assert await gatherResults([job.over for job in jobs]) == [Outcome.OK] * len(jobs)
    assert (pool.running, pool.waiting) == (0, 0)
    assert sorted(served) == list(range(len(jobs)))
    if limit == 1:
        assert served == sorted(served)
    assert all(job.lasted <= 1 for job in jobs)
    await pool.stop()


async def test_serial_serves_one_at_a_time(threads: Any) -> None:
    events: list[tuple[str, int]] = []

    def work(number: int) -> Callable[[], Outcome]:
        def serve() -> Outcome:
            events.append(("begin", number))
            threading.Event().wait(0.002 if number % 5 == 0 else 0)
            events.append(("end", number))
            return Outcome.OK

        return serve

    jobs = [Job(work(number)) for number in range(50)]
    pool = threads(1)
    for job in jobs:
        pool.run(job)
    await gatherResults([job.over for job in jobs])
    assert events == [(what, number) for number in range(50) for what in ("begin", "end")]


async def test_a_pool_serves_on_after_it_was_stopped_in_the_middle_of_things(
    threads: Any, reactor: Any
) -> None:
    pool = threads(3)
    served: list[int] = []
    jobs: list[CountedJob] = []
    for _ in range(100):
        for seconds in (0, 0.001, 0):
            jobs.append(CountedJob(seconds, served, len(jobs)))
            pool.run(jobs[-1])
        await deferLater(reactor, 0)
        pool.stop()
    await gatherResults([job.over for job in jobs])
    assert sorted(served) == list(range(len(jobs)))
    await pool.stop()


# Calls


async def test_a_call_runs_on_a_thread_and_gives_what_it_returns(threads: Any) -> None:
    pool = threads(1)
    thread, number = await pool.call(lambda: (threading.current_thread(), int("7")))
    assert thread is not threading.main_thread()
    assert number == 7


async def test_a_call_raises_what_its_function_raises(threads: Any) -> None:
    with pytest.raises(ValueError, match="seven"):
        await threads(1).call(int, "seven")


async def test_a_call_without_a_thread_raises(
    threads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(OSError, match="no thread to be had"):
        await threads(1).call(int, "7")


async def test_a_thread_at_work_when_its_pool_stops_leaves_when_it_is_done(threads: Any) -> None:
    pool = threads(1)
    go_on = threading.Event()
    found: list[threading.Thread] = []

    def work() -> None:
        found.append(threading.current_thread())
        assert go_on.wait(PATIENCE_SECONDS)

    called = pool.call(work)
    await _until(lambda: bool(found))
    await pool.stop()
    go_on.set()
    await called
    await _until(lambda: not found[0].is_alive())


# What a program sets around jobs


async def test_a_program_puts_its_own_around_each_job(threads: Any, reactor: Any) -> None:
    pool, seen = threads(1), []
    usual = pool.serve

    def serve(job: Any) -> Outcome:
        seen.append(threading.current_thread())
        return usual(job)  # type: ignore[no-any-return]

    pool.serve = serve
    assert await pool.call(threading.current_thread) is seen[0]
    assert len(seen) == 1


async def test_a_threads_end_is_told_on_it(threads: Any, reactor: Any) -> None:
    pool, seen = threads(1), []
    pool.at_thread_end = lambda: seen.append(threading.current_thread())
    thread = await pool.call(threading.current_thread)
    assert seen == []
    await pool.stop()
    assert seen == [thread]


async def test_a_job_does_not_wait_for_a_thread_that_takes_long_to_leave(threads: Any) -> None:
    pool = threads(3, idle_seconds=0.01)  # one more than the first job may have brought up
    leaving: list[threading.Thread] = []
    may_leave = threading.Event()

    def at_end() -> None:
        leaving.append(threading.current_thread())
        assert may_leave.wait(PATIENCE_SECONDS)

    pool.at_thread_end = at_end
    await pool.call(int)
    await _until(lambda: bool(leaving))
    try:
        assert await pool.call(threading.current_thread) is not leaving[0]
        assert leaving[0].is_alive()
    finally:
        may_leave.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("moment", ["before it is told", "after it was told"])
async def test_a_job_whose_thread_is_ended_at_its_end_ends_once(threads: Any, moment: str) -> None:
    pool = threads(1)
    ended: list[Any] = []

    class Done(deque[Any]):
        def append(self, each: Any) -> None:
            ended.append(each)
            if len(ended) > 1 or moment == "after it was told":
                super().append(each)
            if len(ended) == 1:
                raise SystemExit

    pool.done = Done()
    first = Job(lambda: Outcome.OK)
    pool.run(first)
    await first.over
    second = Job(lambda: Outcome.OK)
    pool.run(second)
    await second.over
    ends = [Outcome.OK if moment == "after it was told" else Outcome.ERROR, Outcome.OK]
    assert [first.told, second.told] == [["started", end] for end in ends]
    assert pool.running == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_thread_that_another_has_ended_is_replaced(threads: Any) -> None:
    """As by libraries that limit how long a function runs."""
    pool = threads(1)
    ended = await pool.call(threading.current_thread)
    await _until(lambda: bool(pool.idle))
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    assert raise_in(ctypes.c_ulong(ended.ident), ctypes.py_object(SystemExit)) == 1
    assert await pool.call(threading.current_thread) is not ended
    await _until(lambda: not ended.is_alive())
    assert pool.threads == 1


async def test_a_threads_end_that_raises_is_logged(threads: Any, reactor: Any) -> None:
    pool = threads(1)
    pool.at_thread_end = lambda: 1 / 0
    await pool.call(int)
    with capturedLogs() as events:
        await pool.stop()
    assert [event["log_failure"].type for event in events] == [ZeroDivisionError]
    assert pool.threads == 0
