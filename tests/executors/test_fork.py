"""Forking: the children in which blocking handlers run, and an executor by its name."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogLevel, capturedLogs

from sockserve.executors import make_executor
from sockserve.executors.fork import DEFAULT_MAX_CHILDREN, ForkExecutor
from sockserve.executors.threads import DEFAULT_THREADS, ThreadExecutor
from sockserve.interfaces import ConfigurationError, Outcome
from sockserve.testing import InlineExecutor
from tests.contracts import ExecutorContract, HeldJob, Job, QueueContract

pytestmark = pytest.mark.usefixtures("no_leaks")

needs_pidfd = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="needs pidfd_open (Linux 5.3)"
)


@pytest.fixture
def reactor() -> Any:
    from twisted.internet import reactor

    return reactor


class TestInline(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Any:
        return InlineExecutor()


@needs_pidfd
class TestFork(QueueContract):
    start = "os.fork"
    no_more = BlockingIOError(errno.EAGAIN, "no more processes")

    @pytest.fixture
    def executor(self, no_leaks: None, reactor: Any) -> Any:
        return ForkExecutor(reactor, 3)


# Children


@pytest.fixture
def children(no_leaks: None, reactor: Any) -> ForkExecutor:
    if not hasattr(os, "pidfd_open"):
        pytest.skip("needs pidfd_open (Linux 5.3)")
    return ForkExecutor(reactor, 5)


class TellingJob(Job):
    """One whose child tells the test something."""

    def __init__(self, tell: Callable[[], Any]) -> None:
        super().__init__(self._tell)
        self._what = tell
        self._read, self._write = os.pipe()

    def _tell(self) -> Outcome:
        os.write(self._write, repr(self._what()).encode())
        return Outcome.OK

    async def heard(self) -> str:
        await self.over
        os.close(self._write)
        with open(self._read, "rb") as pipe:
            return pipe.read().decode()


async def test_each_request_has_a_child(children: ForkExecutor) -> None:
    jobs = [TellingJob(os.getpid) for _ in range(3)]
    for job in jobs:
        children.run(job)
        assert job.told == ["started", "forked"]
    pids = {int(await job.heard()) for job in jobs}
    assert len(pids) == 3
    assert os.getpid() not in pids


async def test_a_child_has_a_copy_of_everything(children: ForkExecutor) -> None:
    things = ["the parent's"]

    def work() -> list[str]:
        things.append("the child's")
        return things

    job = TellingJob(work)
    children.run(job)
    assert await job.heard() == repr(["the parent's", "the child's"])
    assert things == ["the parent's"]


async def test_a_child_can_be_killed(children: ForkExecutor) -> None:
    jobs = [HeldJob(), HeldJob()]
    for job in jobs:
        children.run(job)
    with capturedLogs() as logged:
        assert children.kill(jobs[0])
        assert await jobs[0].over is Outcome.ERROR
    assert logged == []  # it was asked for
    assert not children.kill(jobs[0])
    assert children.running == 1
    jobs[1].release()
    assert await jobs[1].over is Outcome.OK
    for job in jobs:
        job.close()


@pytest.mark.parametrize(
    "end",
    [
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        lambda: os.kill(os.getpid(), signal.SIGALRM),
        lambda: os._exit(77),
    ],
    ids=["killed", "signalled", "left"],
)
async def test_a_child_that_dies_is_logged(children: ForkExecutor, end: Callable[[], Any]) -> None:
    job = Job(end)
    with capturedLogs() as logged:
        children.run(job)
        assert await job.over is Outcome.ERROR
    assert [event["log_level"] for event in logged] == [LogLevel.error]
    assert children.running == 0


async def test_a_child_can_be_ended_by_the_usual_signals(children: ForkExecutor) -> None:
    """The reactor's handlers are not the child's."""
    ends = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    jobs = [Job(lambda number=number: os.kill(os.getpid(), number)) for number in ends]
    for job in jobs:
        children.run(job)
    assert await gatherResults([job.over for job in jobs]) == [Outcome.ERROR] * 3


async def test_a_child_leaves_nothing_of_the_parents_to_run(
    children: ForkExecutor, tmp_path: Any
) -> None:
    """Neither the parent's C{finally}s nor what it has registered for its exit."""
    import atexit

    ran = tmp_path / "ran"
    note = lambda: ran.write_text(str(os.getpid()))  # noqa: E731
    atexit.register(note)
    try:
        for work in (lambda: Outcome.OK, lambda: sys.exit(0)):
            job = Job(work)
            children.run(job)
            await job.over
    finally:
        atexit.unregister(note)
    assert not ran.exists()


class Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class Client(Protocol):
    def __init__(self) -> None:
        self.heard: Deferred[bytes] = Deferred()
        self.over: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        heard, self.heard = self.heard, Deferred()
        heard.callback(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.over.callback(None)


async def test_children_do_not_disturb_the_parents_connections(
    children: ForkExecutor, reactor: Any
) -> None:
    """They go on while a child runs and after it ended, and close when the parent says so."""
    servers: list[Echo] = []

    class Connections(Factory):
        noisy = False

        def buildProtocol(self, addr: Any) -> Echo:
            servers.append(Echo())
            return servers[-1]

    port = reactor.listenTCP(0, Connections(), interface="127.0.0.1")
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)

    async def talk(client: Client) -> None:
        heard = client.heard
        client.transport.write(b"hello")
        assert await heard == b"hello"

    first = await connectProtocol(endpoint, Client())
    await talk(first)
    held = HeldJob()
    children.run(held)
    await talk(first)
    for _ in range(3):
        short = Job()
        children.run(short)
        await short.over
        await talk(first)
    second = await connectProtocol(endpoint, Client())
    await talk(second)
    # The child would hold it open if it had kept its copy of the descriptor.
    servers[0].transport.loseConnection()
    await first.over
    held.release()
    await held.over
    held.close()
    await talk(second)
    servers[1].transport.loseConnection()
    await second.over
    await port.stopListening()


def test_without_pidfds_there_is_no_fork(reactor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    with pytest.raises(ConfigurationError, match=r"fork.*use threads"):
        ForkExecutor(reactor)


# By name


@pytest.mark.parametrize(
    ("name", "options", "kind", "limit"),
    [
        ("serial", {}, ThreadExecutor, 1),
        ("serial", {"threads": 9, "max_children": 9}, ThreadExecutor, 1),
        ("threads", {}, ThreadExecutor, DEFAULT_THREADS),
        ("threads", {"threads": 7}, ThreadExecutor, 7),
        pytest.param("fork", {}, ForkExecutor, DEFAULT_MAX_CHILDREN, marks=needs_pidfd),
        pytest.param("fork", {"max_children": 3}, ForkExecutor, 3, marks=needs_pidfd),
    ],
)
def test_an_executor_by_name(
    reactor: Any, name: str, options: dict[str, int], kind: type, limit: int
) -> None:
    executor = make_executor(reactor, name, **options)
    assert type(executor) is kind
    assert executor.limit == limit


@pytest.mark.parametrize("name", ["", "Threads", "thread", "process"])
def test_a_wrong_name_is_refused(reactor: Any, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name!r}: choose serial, threads or fork"):
        make_executor(reactor, name)
