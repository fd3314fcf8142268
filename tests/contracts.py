"""
Contracts: what every implementation of a seam does, as suites to derive from.

A test module derives a C{Test…} class from a suite for each implementation, the real ones
and those in memory, and says how one is made.
"""

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import capturedLogs
from zope.interface import implementer
from zope.interface.verify import verifyObject

from sockserve.interfaces import IExecutor, IJob, Outcome

__all__ = ["ExecutorContract", "HeldJob", "Job", "QueueContract"]


@implementer(IJob)
class Job:
    """
    Notes what it is told.

    @ivar told: C{"started"}, C{"forked"}, what L{serve} came to, or the error.
    @ivar lasted: how often it was told that it lasts; a machine under load may do so.
    @ivar over: fires with its outcome, on the reactor's next turn.
    """

    def __init__(self, work: Callable[[], Outcome] = lambda: Outcome.OK) -> None:
        self._work = work
        self.told: list[Any] = []
        self.lasted = 0
        self.over: Deferred[Outcome] = Deferred()

    def serve(self) -> Outcome:
        return self._work()

    def started(self) -> None:
        self.told.append("started")

    def runs_long(self) -> None:
        assert self.told[-1] == "started"
        self.lasted += 1

    def forked(self) -> None:
        self.told.append("forked")

    def ended(self, outcome: Outcome) -> None:
        self.told.append(outcome)
        self._next_turn(self.over.callback, outcome)

    def failed(self, error: OSError) -> None:
        self.told.append(error)
        self._next_turn(self.over.errback, error)

    def _next_turn(self, call: Callable[..., None], argument: Any) -> None:
        from twisted.internet import reactor

        reactor.callLater(0, call, argument)


class HeldJob(Job):
    """
    One that runs until it is released, on a thread or in a child.

    @ivar begun: set when it runs; in a child, there.
    """

    def __init__(self) -> None:
        super().__init__(self._hold)
        self.begun = threading.Event()
        self._read, self._write = os.pipe()

    def _hold(self) -> Outcome:
        self.begun.set()
        os.read(self._read, 1)
        return Outcome.OK

    def release(self) -> None:
        os.write(self._write, b"!")

    def close(self) -> None:
        self.release()  # of a test that failed
        os.close(self._read)
        os.close(self._write)


class Unusual(BaseException):
    """What no C{except Exception} catches."""


def raises(error: BaseException) -> Callable[[], Outcome]:
    def work() -> Outcome:
        raise error

    return work


class ExecutorContract:
    """L{IExecutor}: derive, and override the fixture C{executor}."""

    @pytest.fixture
    def executor(self) -> Iterator[Any]:
        raise NotImplementedError

    def test_it_provides_the_interface(self, executor: Any) -> None:
        assert verifyObject(IExecutor, executor)
        assert verifyObject(IJob, Job())

    @pytest.mark.parametrize("outcome", Outcome)
    async def test_a_job_is_told_what_became_of_it(self, executor: Any, outcome: Outcome) -> None:
        job = Job(lambda: outcome)
        executor.run(job)
        assert await job.over is outcome
        assert [told for told in job.told if told != "forked"] == ["started", outcome]
        assert (executor.running, executor.waiting) == (0, 0)

    @pytest.mark.parametrize(
        ("error", "outcome"),
        [
            (ValueError("no"), Outcome.ERROR),
            (SystemExit(3), Outcome.OK),  # as threading: it ends silently
            (Unusual(), Outcome.ERROR),
        ],
        ids=repr,
    )
    async def test_a_job_that_raises_ends_and_the_next_one_runs(
        self, executor: Any, error: BaseException, outcome: Outcome
    ) -> None:
        for _ in range(3):
            job = Job(raises(error))
            executor.run(job)
            assert await job.over is outcome
        job = Job()
        executor.run(job)
        assert await job.over is Outcome.OK
        assert (executor.running, executor.waiting) == (0, 0)

    async def test_more_jobs_than_places_all_run(self, executor: Any) -> None:
        jobs = [Job() for _ in range(3 * executor.limit + 1)]
        for job in jobs:
            executor.run(job)
            assert executor.running <= executor.limit
        assert await gatherResults([job.over for job in jobs]) == [Outcome.OK] * len(jobs)
        assert (executor.running, executor.waiting) == (0, 0)

    async def test_a_job_may_be_run_when_another_ends(self, executor: Any) -> None:
        second = Job()

        class First(Job):
            def ended(self, outcome: Outcome) -> None:
                executor.run(second)
                super().ended(outcome)

        first = First()
        executor.run(first)
        await first.over
        assert await second.over is Outcome.OK

    async def test_a_job_that_is_over_can_be_neither_withdrawn_nor_killed(
        self, executor: Any
    ) -> None:
        job = Job()
        executor.run(job)
        await job.over
        assert not executor.withdraw(job)
        assert not executor.kill(job)

    def test_nor_can_one_that_was_never_run(self, executor: Any) -> None:
        assert not executor.withdraw(Job())
        assert not executor.kill(Job())

    async def test_stop_fires(self, executor: Any) -> None:
        await executor.stop()
        job = Job()
        executor.run(job)
        await job.over
        await executor.stop()
        await executor.stop()


class QueueContract(ExecutorContract):
    """What those do besides whose jobs run beside the reactor."""

    @pytest.fixture
    def hold(self, executor: Any) -> Iterator[Callable[[int], list[HeldJob]]]:
        """Runs so many jobs that come to no end before they are released."""
        made: list[HeldJob] = []

        def run(count: int) -> list[HeldJob]:
            jobs = [HeldJob() for _ in range(count)]
            made.extend(jobs)
            for job in jobs:
                executor.run(job)
            return jobs

        yield run
        for job in made:
            job.close()

    @pytest.fixture
    def held(self, executor: Any, hold: Callable[[int], list[HeldJob]]) -> list[HeldJob]:
        """A job in every executor."""
        return hold(executor.limit)

    async def test_the_limit_holds_and_places_go_to_who_waits_longest(
        self, executor: Any, held: list[HeldJob], hold: Callable[[int], list[HeldJob]]
    ) -> None:
        waiting = hold(3)
        assert (executor.running, executor.waiting) == (executor.limit, 3)
        assert [job.told for job in waiting] == [[], [], []]

        for number, (leaving, coming) in enumerate(zip([held[0], *waiting], waiting, strict=False)):
            leaving.release()
            await leaving.over
            assert "started" in coming.told
            assert [job.told for job in waiting[number + 1 :]] == [[]] * (2 - number)
            assert (executor.running, executor.waiting) == (executor.limit, 2 - number)

        for job in [*held[1:], waiting[-1]]:
            job.release()
            await job.over
        assert (executor.running, executor.waiting) == (0, 0)

    async def test_only_a_job_that_waits_can_be_withdrawn(
        self, executor: Any, held: list[HeldJob]
    ) -> None:
        first, second = Job(), Job()
        executor.run(first)
        executor.run(second)
        assert executor.withdraw(first)
        assert not executor.withdraw(first)
        assert not executor.withdraw(held[0])
        assert executor.waiting == 1
        for job in held:
            job.release()
        await gatherResults([job.over for job in held])
        await second.over
        assert first.told == []

    async def test_a_job_that_raises_when_told_of_its_end_holds_up_no_other(
        self, executor: Any
    ) -> None:
        class Unhappy(Job):
            def ended(self, outcome: Outcome) -> None:
                super().ended(outcome)
                raise ValueError("not now")

        jobs = [Unhappy() if number % 2 else Job() for number in range(2 * executor.limit + 2)]
        with capturedLogs() as logged:
            for job in jobs:
                executor.run(job)
            await gatherResults([job.over for job in jobs])
        failures = [event["log_failure"].getErrorMessage() for event in logged]
        assert failures == ["not now"] * (executor.limit + 1)
        assert (executor.running, executor.waiting) == (0, 0)

    async def test_stop_does_not_wait_for_a_job_that_runs(
        self, executor: Any, held: list[HeldJob]
    ) -> None:
        await executor.stop()
        assert executor.running == len(held)
        for job in held:
            job.release()
        assert await gatherResults([job.over for job in held]) == [Outcome.OK] * len(held)

    async def test_a_job_that_gets_no_place_from_the_system_is_told_so(
        self, executor: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def none_left(*_: object) -> None:
            raise self.no_more

        with monkeypatch.context() as patch:
            patch.setattr(self.start, none_left)
            job = Job()
            executor.run(job)
        with pytest.raises(OSError):  # noqa: PT011 - an errno where the system gives one
            await job.over
        assert job.told[0] == "started"
        assert (executor.running, executor.waiting) == (0, 0)
        job = Job()
        executor.run(job)
        assert await job.over is Outcome.OK

    #: What starts a worker, and what it raises when the system has none left.
    start: str
    no_more: Exception
