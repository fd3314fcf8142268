"""A bounded executor, whose places a test gives and frees, and what guards those that run."""

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from twisted.logger import LogLevel, capturedLogs
from zope.interface import implementer

from sockserve.executors.base import BoundedExecutor, call_excepthook, serve_logged
from sockserve.interfaces import IClientJob, IJob, Outcome


@implementer(IJob)
class Job:
    """
    Notes what it is told, in the list that it shares with others.

    @ivar tells: called when the job is told something, by its name.
    """

    def __init__(self, name: str, told: list[Any], **tells: Callable[[], object]) -> None:
        self.name = name
        self._told = told
        self._tells = tells

    def _note(self, what: str, *details: Any) -> None:
        self._told.append((self.name, what, *details))
        if what in self._tells:
            self._tells[what]()

    def serve(self) -> Outcome:
        self._note("serve")
        return Outcome.OK

    def started(self) -> None:
        self._note("started")

    def runs_long(self) -> None:
        self._note("runs_long")

    def forked(self) -> None:
        self._note("forked")

    def ended(self, outcome: Outcome) -> None:
        self._note("ended", outcome)

    def failed(self, error: OSError) -> None:
        self._note("failed", error)


@implementer(IClientJob)
class ClientJob(Job):
    """
    A job with a client.

    @ivar is_alone: whether that has gone.
    """

    is_alone = False

    def has_left(self) -> bool:
        return self.is_alone

    def client_left(self) -> None:
        self._note("client_left")


class Executor(BoundedExecutor):
    """
    Serves nothing: a test says when a job has ended.

    @ivar begun: jobs that have a place, in order.
    @ivar shortage: raised when the next job is given its executor.
    @ivar queued: how many were waiting, each time that one more had to.
    """

    shortage: OSError | None = None

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.begun: list[IJob] = []
        self.queued: list[int] = []

    def _start(self, job: IJob) -> None:
        if self.shortage is not None:
            raise self.shortage
        self.begun.append(job)

    def _job_queued(self) -> None:
        self.queued.append(self.waiting)

    def end(self, job: IJob, outcome: Outcome = Outcome.OK) -> None:
        """A job is over."""
        self._ended(job, outcome)


@pytest.fixture
def told() -> list[Any]:
    return []


@pytest.fixture
def jobs(told: list[Any]) -> Callable[[str], list[Job]]:
    """Makes jobs with names of a letter."""
    return lambda names: [Job(name, told) for name in names]


def run(executor: Executor, jobs: list[Job]) -> None:
    for job in jobs:
        executor.run(job)


# Places, and the queue for them


def test_jobs_begin_at_once_as_long_as_there_are_places(
    jobs: Callable[[str], list[Job]], told: list[Any]
) -> None:
    executor = Executor(2)
    a, b = jobs("ab")
    run(executor, [a, b])
    assert told == [("a", "started"), ("b", "started")]
    assert executor.begun == [a, b]
    assert (executor.limit, executor.running, executor.waiting) == (2, 2, 0)
    assert executor.queued == []


def test_one_more_than_the_limit_waits_until_one_has_ended(
    jobs: Callable[[str], list[Job]], told: list[Any]
) -> None:
    executor = Executor(2)
    a, b, c = jobs("abc")
    run(executor, [a, b, c])
    assert (executor.running, executor.waiting) == (2, 1)
    executor.end(b, Outcome.LOST)
    assert told[2:] == [("b", "ended", Outcome.LOST), ("c", "started")]
    assert (executor.running, executor.waiting) == (2, 0)


def test_who_waits_longest_begins_first(jobs: Callable[[str], list[Job]]) -> None:
    executor = Executor(1)
    waiting = jobs("abcd")
    run(executor, waiting)
    for job in waiting:
        assert executor.begun[-1] is job
        executor.end(job)
    assert executor.begun == waiting
    assert (executor.running, executor.waiting) == (0, 0)


def test_that_a_job_waits_is_told_of_when_it_is_in_the_queue(
    jobs: Callable[[str], list[Job]],
) -> None:
    executor = Executor(1)
    a, b, c, d = jobs("abcd")
    run(executor, [a, b, c])
    assert executor.queued == [1, 2]
    executor.end(a)
    executor.run(d)
    assert executor.queued == [1, 2, 2]


def test_nothing_need_be_done_about_jobs_that_wait(jobs: Callable[[str], list[Job]]) -> None:
    executor = BoundedExecutor(0)
    run(executor, jobs("a"))  # type: ignore[arg-type]
    assert executor.waiting == 1


def test_how_a_job_is_served_is_for_others_to_say(jobs: Callable[[str], list[Job]]) -> None:
    with pytest.raises(NotImplementedError):
        BoundedExecutor(1).run(jobs("a")[0])


def test_a_job_that_waits_can_be_withdrawn_once_and_is_told_nothing(
    jobs: Callable[[str], list[Job]], told: list[Any]
) -> None:
    executor = Executor(1)
    a, b, c = jobs("abc")
    run(executor, [a, b, c])
    assert executor.withdraw(b)
    assert not executor.withdraw(b)
    assert executor.waiting == 1
    executor.end(a)
    assert executor.begun == [a, c]
    assert "b" not in {name for name, *_ in told}


def test_a_job_that_has_begun_or_was_never_run_cannot_be_withdrawn(
    jobs: Callable[[str], list[Job]],
) -> None:
    executor = Executor(1)
    a, b = jobs("ab")
    executor.run(a)
    assert not executor.withdraw(a)
    assert not executor.withdraw(b)
    assert executor.running == 1
    executor.end(a)
    assert not executor.withdraw(a)


def test_a_job_may_be_withdrawn_by_one_that_ends(
    jobs: Callable[[str], list[Job]], told: list[Any]
) -> None:
    executor = Executor(1)
    b, c = jobs("bc")
    a = Job("a", told, ended=lambda: executor.withdraw(b))
    run(executor, [a, b, c])
    executor.end(a)
    assert executor.begun == [a, c]


def test_a_job_that_raises_when_told_of_its_end_gives_its_place_away(
    jobs: Callable[[str], list[Job]], told: list[Any]
) -> None:
    def unhappy() -> None:
        raise ValueError("not now")

    executor = Executor(1)
    (b,) = jobs("b")
    a = Job("a", told, ended=unhappy)
    run(executor, [a, b])
    with capturedLogs() as logged:
        executor.end(a)
    assert [event["log_failure"].getErrorMessage() for event in logged] == ["not now"]
    assert executor.begun == [a, b]


def test_a_job_that_comes_when_one_ends_goes_to_the_end_of_the_queue(
    jobs: Callable[[str], list[Job]], told: list[Any]
) -> None:
    """A connection's next request, say: who sends many at once would keep all others out."""
    executor = Executor(1)
    b, c, d = jobs("bcd")
    a = Job("a", told, ended=lambda: executor.run(d))
    run(executor, [a, b, c])
    executor.end(a)
    assert executor.begun == [a, b]
    executor.end(b)
    executor.end(c)
    assert executor.begun == [a, b, c, d]
    assert (executor.running, executor.waiting) == (1, 0)


def test_a_job_that_comes_when_the_last_one_ends_begins_at_once(
    jobs: Callable[[str], list[Job]], told: list[Any]
) -> None:
    executor = Executor(1)
    (b,) = jobs("b")
    executor.run(a := Job("a", told, ended=lambda: executor.run(b)))
    executor.end(a)
    assert executor.begun == [a, b]
    assert executor.queued == []


def test_one_whose_client_has_left_while_it_waited_does_not_begin(told: list[Any]) -> None:
    """With one place, the second and the third wait, and the client of the second goes."""
    executor = Executor(1)
    first, second, third = (ClientJob(name, told) for name in "abc")
    first.is_alone = True  # it is not asked: it does not wait
    run(executor, [first, second, third])
    second.is_alone = True
    executor.end(first)
    assert executor.begun == [first, third]
    assert told[1:] == [("a", "ended", Outcome.OK), ("b", "client_left"), ("c", "started")]
    assert (executor.running, executor.waiting) == (1, 0)


def test_one_that_raises_when_it_hears_of_that_keeps_no_other_waiting(told: list[Any]) -> None:
    executor = Executor(1)
    first, third = ClientJob("a", told), ClientJob("c", told)
    second = ClientJob("b", told, client_left=lambda: 1 / 0)
    run(executor, [first, second, third])
    second.is_alone = True
    with capturedLogs() as logs:
        executor.end(first)
    assert executor.begun == [first, third]
    assert [event["log_failure"].type for event in logs] == [ZeroDivisionError]


# A system without threads or processes


def test_a_job_for_which_the_system_has_no_place_has_failed(
    jobs: Callable[[str], list[Job]], told: list[Any]
) -> None:
    executor = Executor(1)
    executor.shortage = error = OSError("no thread to be had")
    a, b = jobs("ab")
    executor.run(a)
    assert told == [("a", "started"), ("a", "failed", error)]
    assert (executor.running, executor.waiting) == (0, 0)
    executor.shortage = None
    executor.run(b)
    assert executor.begun == [b]


def test_all_that_wait_hear_of_a_shortage(
    jobs: Callable[[str], list[Job]], told: list[Any]
) -> None:
    executor = Executor(1)
    a, b, c = jobs("abc")
    run(executor, [a, b, c])
    executor.shortage = OSError("no thread to be had")
    executor.end(a)
    assert [each[:2] for each in told[2:]] == [
        ("b", "started"),
        ("b", "failed"),
        ("c", "started"),
        ("c", "failed"),
    ]
    assert (executor.running, executor.waiting) == (0, 0)


def test_a_job_that_raises_when_told_of_its_failure_keeps_no_other_waiting(
    jobs: Callable[[str], list[Job]], told: list[Any]
) -> None:
    def unhappy() -> None:
        executor.shortage = None
        raise ValueError("not now")

    executor = Executor(1)
    a, c = jobs("ac")
    run(executor, [a, Job("b", told, failed=unhappy), c])
    executor.shortage = OSError("no thread to be had")
    with capturedLogs() as logged:
        executor.end(a)
    assert [event["log_failure"].getErrorMessage() for event in logged] == ["not now"]
    assert executor.begun == [a, c]
    assert executor.running == 1


def test_only_a_shortage_is_a_jobs_failure(jobs: Callable[[str], list[Job]]) -> None:
    """Anything else is a mistake of ours, and for whoever runs the job to hear of."""

    class Mistaken(Executor):
        def _start(self, job: IJob) -> None:
            raise KeyError("a mistake")

    with pytest.raises(KeyError, match="a mistake"):
        Mistaken(1).run(jobs("a")[0])


# What guards those that serve


class Unusual(BaseException):
    """What no C{except Exception} catches."""


@pytest.mark.parametrize("outcome", Outcome)
def test_serving_gives_what_came_of_it(outcome: Outcome, told: list[Any]) -> None:
    class Served(Job):
        def serve(self) -> Outcome:
            return outcome

    assert serve_logged(Served("a", told)) is outcome
    assert told == []


@pytest.mark.parametrize(
    ("error", "outcome", "logged"),
    [
        (ValueError("no"), Outcome.ERROR, 1),
        (Unusual(), Outcome.ERROR, 1),
        (KeyboardInterrupt(), Outcome.ERROR, 1),
        (SystemExit(3), Outcome.OK, 0),  # as threading: it ends silently
    ],
    ids=repr,
)
def test_what_serving_raises_ends_nothing(
    told: list[Any], error: BaseException, outcome: Outcome, logged: int
) -> None:
    def serve() -> None:
        raise error

    with capturedLogs() as events:
        assert serve_logged(Job("a", told, serve=serve)) is outcome
    assert [event["log_failure"].value for event in events] == [error] * logged
    for event in events:
        assert event["log_level"] is LogLevel.critical
        assert event["log_namespace"] == "sockserve.handlers"


def test_the_excepthook_is_called_as_by_the_thread_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", calls.append)
    error = Unusual()
    try:
        raise error
    except Unusual:
        traceback = sys.exc_info()[2]
        call_excepthook()
    (arguments,) = calls
    assert arguments.exc_type is Unusual
    assert arguments.exc_value is error
    assert arguments.exc_traceback is traceback
    assert arguments.thread is threading.current_thread()
