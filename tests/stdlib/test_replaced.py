"""The running interpreter's own tests, with our modules in the place of its own."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: What is run, how many tests it has at least, and what is skipped, with the reason why it
#: cannot apply.
RUNS = [
    (
        "test.test_socketserver",
        25,
        # It compares the module's names with those whose __module__ is its name; the
        # handler classes are the stdlib's own, and 3.11 lacks two of the servers.
        ["MiscTestCase.test_all"],
    ),
    (
        "test.test_httpservers",
        60,
        # Likewise; HTTPSServer came with 3.14.
        ["MiscTestCase.test_all"],
    ),
    ("test.test_xmlrpc", 80, []),
    ("test.test_wsgiref", 30, []),
    ("test.test_logging.SocketHandlerTest", 2, []),
    ("test.test_logging.UnixSocketHandlerTest", 2, []),
    ("test.test_logging.DatagramHandlerTest", 1, []),
    ("test.test_logging.UnixDatagramHandlerTest", 1, []),
    ("test.test_logging.SysLogHandlerTest", 2, []),
    ("test.test_logging.HTTPHandlerTest", 1, []),
]

PATIENCE_SECONDS = 300


@pytest.mark.parametrize(("tests", "least", "skipped"), RUNS, ids=[run[0] for run in RUNS])
def test_the_interpreters_own_tests_pass(tests, least, skipped):
    if importlib.util.find_spec("test.test_socketserver") is None:
        message = "this Python comes without its tests; Debian's are in libpython3-testsuite"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.stdlib.replaced", tests, *skipped],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    count = re.search(r"^Ran (\d+) tests?", ran.stderr, re.MULTILINE)
    assert count is not None
    assert int(count[1]) >= least
