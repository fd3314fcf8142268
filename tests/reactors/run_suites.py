"""
Runs Twisted's own tests, as installed, on the uvloop reactor: C{python -m tests.reactors.run_suites
MODULE ...}, with trial's options.

Those that try each reactor (C{ReactorBuilder}) try ours, one for each test; the others run on the
global one.
"""

from __future__ import annotations

from typing import cast

from twisted.internet.test.reactormixins import ReactorBuilder
from twisted.python.reflect import namedAny
from twisted.scripts import trial
from twisted.trial.unittest import SynchronousTestCase

from sockserve.reactors import uvloop

#: What is not for this reactor, and why: the page docs/reference/uvloop-reactor.md has the same.
SKIPPED = {
    "twisted.internet.test.test_fdset.ReactorFDSetTestsBuilder.test_lostFileDescriptor": (
        "epoll cannot detect lost file descriptors"  # Twisted skips it for epoll, by its name
    ),
    "twisted.internet.test.test_unix.UNIXTestsBuilder.test_avoidLeakingFileDescriptors": (
        "the kernel closes descriptors that nobody asks for, and nothing is logged"
    ),
}


def UVLoopReactor(case: object) -> uvloop.UVLoopReactor:
    """A reactor whose loop is closed after the test."""
    reactor = uvloop.UVLoopReactor()
    loop = reactor._asyncioEventloop
    cast(SynchronousTestCase, case).addCleanup(loop.close)
    return reactor


if __name__ == "__main__":
    uvloop.install()
    ReactorBuilder._reactors = ["tests.reactors.run_suites.UVLoopReactor"]
    for name, reason in SKIPPED.items():
        namedAny(name).skip = reason
    trial.run()
