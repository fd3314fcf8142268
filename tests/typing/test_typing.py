"""
What type checkers say of programs on sockserve: nothing of one that is right, and what is wrong of
one that is not.

They get the two programs as a user's would be, without a configuration of ours or a plugin.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RIGHT, WRONG = HERE / "right.py", HERE / "wrong.py"


def _mypy(folder: Path) -> str:
    configuration = folder / "mypy.ini"
    configuration.write_text("[mypy]\nstrict = true\n")
    command = [sys.executable, "-m", "mypy", "--config-file", configuration, RIGHT, WRONG]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout


def _pyright(folder: Path) -> str:
    pytest.importorskip("basedpyright", reason="pyright is not installed")
    asked = ["--pythonpath", sys.executable, RIGHT, WRONG]  # the programs ask for strictness
    command = [sys.executable, "-m", "basedpyright", *asked]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout


@pytest.mark.parametrize("checker", [_mypy, _pyright])
def test_a_type_checker_names_the_mistakes_and_nothing_else(checker, tmp_path: Path) -> None:
    found = checker(tmp_path)
    errors = re.findall(r"(right|wrong)\.py:(\d+)(?::\d+)?(?: -|:) error", found)
    assert not [line for program, line in errors if program == "right"], found
    lines = enumerate(WRONG.read_text().splitlines(), 1)
    mistakes = {number for number, line in lines if line.endswith("# wrong")}
    assert mistakes - {int(line) for program, line in errors if program == "wrong"} == set(), found
