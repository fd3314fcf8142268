"""
A release: built into an empty folder, checked, then installed and run as a user would.

C{make release} runs it.  It uploads nothing.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]

PLUGINS = {"twisted/plugins/sockserve_plugin.py", "twisted/plugins/sockserve_reactors.py"}
SCHEMA = "sockserve/sockserve.schema.json"

#: What the source distribution has at its top; the folders as they are here.
FOLDERS = [
    ".ci",
    "benchmarks",
    "docs",
    "examples",
    "newsfragments",
    "sockserve",
    "tests",
    "twisted",
]
FILES = [
    ".editorconfig",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "mkdocs.yml",
    "pyproject.toml",
]


def main(dist: Path) -> None:
    """Leave a wheel and a source distribution in C{dist} that have passed every check."""
    dist.mkdir(parents=True, exist_ok=True)
    if any(dist.iterdir()):
        fail(f"{dist} is not empty")
    # The wheel is built from the source distribution, so that this too is known to be whole.
    run(sys.executable, "-m", "build", "--outdir", dist, ROOT)
    (wheel,) = dist.glob("*.whl")
    (source,) = dist.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, source)
    check_wheel(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(source) as archive:
        check_source(archive.getnames())
    for built in (wheel, source):
        check_installed(built)
        print(f"{built.name}: whole, can be installed, runs")


def check_wheel(names: Iterable[str]) -> None:
    """The wheel holds the package and the plugin, and beside them only what describes it."""
    described = {name for name in names if name.partition("/")[0].endswith(".dist-info")}
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "sockserve").rglob("*")
        if path.suffix in (".py", ".html")
    }
    compare(set(names) - described, sources | PLUGINS | {"sockserve/py.typed", SCHEMA})
    if not any(name.endswith("/licenses/LICENSE") for name in described):
        fail("missing: the licence")


def check_source(names: Iterable[str]) -> None:
    """The source distribution holds all to test and document it, and nothing a build leaves."""
    inside = {name.partition("/")[2] for name in names}
    compare({name.partition("/")[0] for name in inside}, {*FOLDERS, *FILES, "PKG-INFO"})
    kinds = (".html", ".md", ".png", ".py", ".typed")
    here = {path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()}
    sources = {path.relative_to(ROOT).as_posix() for path in here if path.suffix in kinds}
    compare({name for name in inside if "/" in name and name.endswith(kinds)}, sources)
    if left := sorted(name for name in inside if "__pycache__" in name):
        fail(f"too much: {left}")


def check_installed(built: Path) -> None:
    """In an environment with nothing else C{built} brings all it needs, and twistd finds it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder).resolve()
        venv.create(home)
        python, twistd = home / "bin/python", home / "bin/twistd"
        pip = (sys.executable, "-m", "pip", "--python", python)
        # What is not run need not be compiled.
        run(*pip, "install", "--quiet", "--no-compile", built, cwd=home)
        run(*pip, "check", cwd=home)
        found = run(python, "-c", "import sockserve; print(sockserve.__file__)", cwd=home)
        if not Path(found.strip()).is_relative_to(home):
            fail(f"imported from elsewhere: {found}")
        listed = run(twistd, "--help", cwd=home).splitlines()
        if not any(line.split()[:1] == ["sockserve"] for line in listed):
            fail("twistd does not list sockserve")
        for option in ("--help", "--version", "--check"):
            run(twistd, "--nodaemon", "--pidfile=", "sockserve", option, cwd=home)
            run(home / "bin/sockserve", option, cwd=home)
        completion = run(home / "bin/sockserve", "--print-completion", "bash", cwd=home)
        if "--max-connections" not in completion:
            fail("sockserve completes no options")


def compare(found: set[str], expected: set[str]) -> None:
    """End with the names that are missing or too many, if any are."""
    if found != expected:
        fail(f"missing: {sorted(expected - found)}; too much: {sorted(found - expected)}")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Give what a command prints; end if it fails."""
    # Nothing of this environment may help, nor the source tree.
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=cwd, env=environ, text=True, capture_output=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        fail(f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def fail(why: str) -> NoReturn:
    """End, with C{why} on standard error and status 1."""
    sys.exit(f"release: {why}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
