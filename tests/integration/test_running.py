"""How the tests are run: what C{tests/conftest.py} sees to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

STOPPER = """
def test_that_stops_the_reactor():
    from twisted.internet import reactor

    reactor.stop()


def test_in_whose_turn_it_stops():
    pass


def test_after_it():
    pass
"""


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_a_stopped_reactor_ends_the_run(tmp_path: Path, workers: str) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]")
    (tmp_path / "test_it.py").write_text(STOPPER)
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", workers]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, tmp_path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
    )
    assert done.returncode == pytest.ExitCode.INTERRUPTED, done
    assert "the reactor has stopped in test_it.py::test_in_whose_turn_it_stops" in done.stdout
    assert "1 failed, 1 passed" in done.stdout
