"""
Runs Twisted's own tests, as installed, on the uvloop reactor: C{python -m tests.reactors.run_suites
MODULE ...}, with trial's options.

Those that try each reactor (C{ReactorBuilder}) try ours, one for each test; the others run on the
global one.
"""

from __future__ import annotations

import sys
from typing import cast

from twisted.internet.test.reactormixins import ReactorBuilder
from twisted.scripts import trial
from twisted.trial.unittest import SynchronousTestCase

from sockserve.reactors import uvloop


def UVLoopReactor(case: object) -> uvloop.UVLoopReactor:  # noqa: N802  # the tests' names have it
    """A reactor whose loop is closed after the test."""
    reactor = uvloop.UVLoopReactor()
    loop = reactor._asyncioEventloop
    cast(SynchronousTestCase, case).addCleanup(loop.close)
    return reactor


if __name__ == "__main__":
    ReactorBuilder._reactors = ["tests.reactors.run_suites.UVLoopReactor"]
    uvloop.install()
    trial.run()
