"""The running interpreter's own tests, with our modules in the place of its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: What is run, and how many tests really run at least.  (As root, http.server's of CGI do not.)
SUITES = {
    "socketserver": (["test.test_socketserver"], 25),
    "http.server": (["test.test_httpservers"], 45),
    "xmlrpc": (["test.test_xmlrpc"], 90),
    "wsgiref": (["test.test_wsgiref"], 33),
    # What of it has to do with servers.
    "logging": (
        [
            "test.test_logging.SocketHandlerTest",
            "test.test_logging.UnixSocketHandlerTest",
            "test.test_logging.DatagramHandlerTest",
            "test.test_logging.UnixDatagramHandlerTest",
            "test.test_logging.SysLogHandlerTest",
            "test.test_logging.UnixSysLogHandlerTest",
            "test.test_logging.IPv6SysLogHandlerTest",
            "test.test_logging.HTTPHandlerTest",
            "test.test_logging.ConfigDictTest.test_listen_config_1_ok",
            "test.test_logging.ConfigDictTest.test_listen_config_10_ok",
            "test.test_logging.ConfigDictTest.test_listen_verify",
        ],
        14,
    ),
}

#: Tests that are left out: the suite, the test, and the reason why it cannot apply to any
#: module but the standard library's.  That ours differ is none.
SKIPPED: list[tuple[str, str, str]] = []

#: Those of xmlrpc wait, for what they are about, half a minute in all.
PATIENCE_SECONDS = 240


def need_tests():
    """Skip where the interpreter comes without its tests; fail in CI, as C{need_tool} does."""
    try:
        if importlib.util.find_spec("test.test_socketserver") is not None:
            return
    except ModuleNotFoundError:  # there is no package of that name at all
        pass
    package = "libpython{}.{}-testsuite".format(*sys.version_info)
    message = f"this Python comes without its own tests; Debian has them in {package}"
    if os.environ.get("CI"):
        pytest.fail(f"{message}: see .ci/run")
    pytest.skip(message)


@pytest.mark.parametrize("suite", SUITES)
def test_the_interpreters_own_tests_pass(tmp_path, suite):
    need_tests()
    names, least = SUITES[suite]
    skipped = [test for of, test, _ in SKIPPED if of == suite]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    words = ["-m", "sockserve", "-m", "tests.stdlib.replaced"]
    done = subprocess.run(
        [sys.executable, *words, *names, "--skip", *skipped],
        cwd=tmp_path,  # they leave files in the current one
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE_SECONDS,
    )
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, said
    ran = int(said.rpartition("really ran: ")[2])
    assert ran >= least, said
