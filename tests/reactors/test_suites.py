"""Twisted's own tests of reactors run on ours: here those that take no long; all of them by
C{make reactor-suites}."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reactors.tools import need_uvloop

ROOT = Path(__file__).parents[2]

SUITES = {
    "streams": ["internet.test.test_tcp", "internet.test.test_unix", "internet.test.test_tls"],
    "the rest": [
        "internet.test.test_base",
        "internet.test.test_core",
        "internet.test.test_fdset",
        "internet.test.test_process",
        "internet.test.test_threads",
        "internet.test.test_time",
        "internet.test.test_udp",
    ],
    "on the global reactor": [
        "test.test_internet",
        "test.test_ssl",
        "test.test_tcp",
        "test.test_udp",
        "test.test_unix",
    ],
}


@pytest.mark.parametrize("name", SUITES)
def test_twisteds_own_tests_pass(name: str, tmp_path: Path) -> None:
    need_uvloop()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.reactors.run_suites"),
            f"--temp-directory={tmp_path / 'trial'}",
            *(f"twisted.{module}" for module in SUITES[name]),
        ],
        cwd=ROOT,
        # Warnings are no affair of ours.
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        errors="backslashreplace",
    )
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
    assert "\nPASSED (" in done.stdout
    # What the loop itself has caught.
    assert "Exception in callback" not in done.stdout + done.stderr
