"""
Runs Twisted's own tests, as installed, on the uvloop reactor: C{python -m tests.reactors.run_suites
MODULE ...}, with trial's options.

Those that try each reactor (C{ReactorBuilder}) try ours, one for each test; the others run on the
global one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
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
#: What fails for root, on any reactor.
NOT_FOR_ROOT = (
    "twisted.internet.test.test_process.ProcessTestsBuilder.test_changeUID",
    "twisted.internet.test.test_process.PTYProcessTestsBuilder.test_changeUID",
    "twisted.web.test.test_static.StaticFileTests.test_forbiddenResource",
    "twisted.conch.test.test_checkers.SSHPublicKeyDatabaseTests.test_checkKeyAsRoot",
    "twisted.conch.test.test_openssh_compat.OpenSSHFactoryTests.test_getPrivateKeysAsRoot",
)


def UVLoopReactor(case: object) -> uvloop.UVLoopReactor:
    """A reactor whose loop is closed after the test."""
    reactor = uvloop.UVLoopReactor()
    loop = reactor._asyncioEventloop
    cast(SynchronousTestCase, case).addCleanup(loop.close)
    return reactor


def skip(name: str, reason: str) -> None:
    """Skip a test, if it is one of those that were asked for."""
    if any(name.startswith(asked) for asked in sys.argv[1:]):
        namedAny(name).skip = reason


if __name__ == "__main__":
    uvloop.install()
    ReactorBuilder._reactors = ["tests.reactors.run_suites.UVLoopReactor"]
    # Some run commands that came with Twisted.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    for name, reason in SKIPPED.items():
        skip(name, reason)
    if os.geteuid() == 0:
        for name in NOT_FOR_ROOT:
            skip(name, "not for root")
    trial.run()
