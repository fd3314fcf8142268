"""What all tests share: coroutine tests, and the check that a test leaves nothing behind."""

import gc
import inspect
import itertools
import math
import os
import signal
import threading
from collections.abc import Generator, Iterator

import pytest
import pytest_twisted

from tests.processes import children_of

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the tests in the background has it ignored, and so would programs that
    # tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup, likewise
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# What is collected stays, and looking for garbage in it meanwhile takes longer than collecting it.
gc.disable()

#: How long what a test started may take to end after it: a worker thread on its way out, a
#: connection whose close is in a socket's buffer.
_SETTLE_SECONDS = 20.0


def pytest_itemcollected(item: pytest.Item) -> None:
    """Run C{async def} tests on the reactor; undecorated, they would pass without being run."""
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
        pytest_twisted.ensureDeferred(item.function)


#: Where tests are that take half a minute each.
_LONG = (
    "tests/stdlib/",
    "tests/programs/",
    "tests/docs/",
    "tests/typing/",
    "tests/integration/test_leaks.py",
    "tests/integration/test_sql_kills.py",
)

#: Into how many parts the other tests are cut that run at the same time.
_PARTS = 12


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Begin with what takes longest, or all would wait for it in the end.

    Workers that get one test at a time, as some of these mostly wait, get one of each part in turn,
    or all would wait at the same time.
    """

    def is_long(item: pytest.Item) -> bool:
        return item.nodeid.startswith(_LONG) or item.get_closest_marker("slow") is not None

    items.sort(key=is_long, reverse=True)
    if hasattr(config, "workerinput") and config.getoption("maxschedchunk") == 1:
        begin = sum(map(is_long, items))
        length = math.ceil((len(items) - begin) / _PARTS)
        parts = [items[start : start + length] for start in range(begin, len(items), length or 1)]
        turns = itertools.chain.from_iterable(itertools.zip_longest(*parts))
        items[begin:] = [item for item in turns if item is not None]


def pytest_collection_finish() -> None:
    """
    What has been imported by now stays: nobody needs to look through it again and again for
    what tests leave behind, which takes as long as many of them.
    """
    gc.enable()
    gc.freeze()


_reactor_stopped = threading.Event()


def pytest_sessionstart() -> None:
    from twisted.internet import reactor

    reactor.addSystemEventTrigger("after", "shutdown", _reactor_stopped.set)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """End the run when a test has stopped the reactor, which starts but once a process."""
    done = yield
    if _reactor_stopped.is_set():
        # By what this test did, or the one before as its last act: a stop takes a turn.
        item.session.shouldstop = f"the reactor has stopped in {item.nodeid}, or just before it"
    return done


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say no more than needed of what passes: a worker's reports take as long as many tests."""
    report = yield
    if report.passed:
        report.keywords = {}
    return report


@pytest.fixture(scope="session")
def _warm_reactor() -> None:
    """
    Have what a process opens once, for good: the reactor's wakers, the fd kept for EMFILE, and the
    reactor of servers that serve on the thread of C{serve_forever}.
    """
    from twisted.internet import reactor
    from twisted.internet.protocol import Factory

    from sockserve.dropin.background_reactor import private_reactor

    private_reactor()

    def listen() -> object:
        return reactor.listenTCP(0, Factory(), interface="127.0.0.1").stopListening()

    _in_reactor(listen)


@pytest.fixture
def no_leaks(_warm_reactor: None) -> Iterator[None]:
    """
    Fail a test that leaves a descriptor, a thread, a child or a delayed call behind.

    It looks at what is new since its own start, so ask for it before the fixtures that it
    is to watch, or for a whole module: C{pytestmark = pytest.mark.usefixtures("no_leaks")}.
    """
    before = _held()

    async def left_behind() -> set[str]:
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        if not _held() - before:
            return set()
        gc.collect()  # which takes as long as most tests, so only where it can help
        deadline = reactor.seconds() + _SETTLE_SECONDS
        while (new := _held() - before) and reactor.seconds() < deadline:
            await deferLater(reactor, 0.01)
        return {str(thing) for thing in new}

    yield
    left = _in_reactor(left_behind)
    if left:
        pytest.fail("left behind:\n  " + "\n  ".join(sorted(left)), pytrace=False)


def _in_reactor(function):
    """Wait for what C{function}, called by the reactor, returns (not by what suspends it)."""
    from twisted.internet import reactor
    from twisted.internet.defer import maybeDeferred
    from twisted.internet.task import deferLater

    return pytest_twisted.blockon(deferLater(reactor, 0, maybeDeferred, function))


def _held() -> set[object]:
    from twisted.internet import reactor

    pool = reactor.getThreadPool().threads  # the reactor keeps its own until it stops
    return {
        *_descriptors(),
        *(f"child {pid}" for pid in children_of()),
        *(thread for thread in threading.enumerate() if thread not in pool),
        *reactor.getDelayedCalls(),
    }


def _descriptors() -> Iterator[str]:
    for number in os.listdir("/proc/self/fd"):
        try:
            yield f"descriptor {number} {os.readlink(f'/proc/self/fd/{number}')}"
        except FileNotFoundError:
            pass  # the one that listed the folder
