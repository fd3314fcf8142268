"""The wheel, as a user gets it: built, installed into an empty environment, found by twistd."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# One wheel for all of them.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]


def _run(*command: str | Path, cwd: Path) -> str:
    # Nothing of the environment the tests run in may help, nor the source tree.
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=cwd, env=environ, text=True, capture_output=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, so that this too is known to be whole."""
    dist = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--outdir", dist, ROOT, cwd=dist)
    (built,) = dist.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel and what it depends on."""
    home = tmp_path_factory.mktemp("empty")
    venv.create(home, with_pip=True)
    _run(home / "bin/python", "-m", "pip", "install", wheel, cwd=home)
    return home / "bin/python"


def test_wheel_holds_the_package_and_the_plugin_only(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sockserve").rglob("*.py")}
    plugin = "twisted/plugins/sockserve_plugin.py"
    assert names == sources | {"sockserve/py.typed", plugin}


def test_wheel_carries_the_licence(wheel: Path) -> None:
    assert [n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("licenses/LICENSE")]


def test_twistd_lists_sockserve(python: Path, tmp_path: Path) -> None:
    listed = _run(python.with_name("twistd"), "--help", cwd=tmp_path)
    assert [line for line in listed.splitlines() if line.split()[:1] == ["sockserve"]]


def test_installed_sockserve_is_whole(python: Path, tmp_path: Path) -> None:
    _run(python, "-m", "pip", "check", cwd=tmp_path)
    said = _run(python, "-c", "import sockserve; print(sockserve.__file__)", cwd=tmp_path)
    assert Path(said.strip()).is_relative_to(python.parents[1])
    _run(python.with_name("twistd"), "sockserve", "--help", cwd=tmp_path)
