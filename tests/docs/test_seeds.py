"""The page of old promises: each has one row, and a command that shows it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/seeds.md").read_text()
COMMANDS = dict(re.findall(r"^\| ([SOG]\d+): .* \| `([^`]*)` \|$", PAGE, re.MULTILINE))
ROWS = [f"{kind}{n}" for kind, last in (("S", 12), ("O", 3), ("G", 10)) for n in range(1, last + 1)]
#: By row, the file of tests, and the words of which a test's name has one; none for all tests.
TESTS = {
    row: (words[2], words[4].split(" or ") if "-k" in words else [""])
    for row, words in ((row, shlex.split(command)) for row, command in COMMANDS.items())
    if words[0] == "pytest"
}


def test_each_promise_has_a_row() -> None:
    assert re.findall(r"^\| ([SOG]\d+)", PAGE, re.MULTILINE) == ROWS
    assert list(COMMANDS) == ROWS


@pytest.fixture(scope="session")
def collected() -> list[str]:
    """The tests in the files that rows name, which run with all others."""
    files = sorted({file for file, _ in TESTS.values()})
    command = [sys.executable, "-m", "pytest", "-n0", "--collect-only", "-q", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_the_tests_that_rows_name_are_there(collected: list[str]) -> None:
    for row, (file, words) in TESTS.items():
        for word in words:
            assert any(each.startswith(f"{file}::") and word in each for each in collected), row


@pytest.mark.parametrize("row", [row for row in ROWS if COMMANDS[row].startswith("PORT=")])
def test_the_example_that_a_row_names_is_a_pages_and_has_a_test(row: str) -> None:
    command = COMMANDS[row]
    [name] = re.findall(r"examples/(\w+)/run\.sh", command)
    assert (ROOT / "examples" / name / "run.sh").exists()
    assert (ROOT / f"tests/examples/test_{name}.py").exists()
    pages = [page.read_text() for page in (ROOT / "docs/howto").glob("*.md")]
    assert any(f"$ {command}\n" in page for page in pages)
