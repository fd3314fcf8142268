"""The watch on the files that a server is made of, on real files."""

import importlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue

import pytest

from sockserve.reload.files import own_files
from sockserve.reload.watching import Watch
from tests.patience import PATIENCE_SECONDS


class Told:
    """What a watch has told."""

    def __init__(self) -> None:
        self.changes: SimpleQueue[Sequence[str]] = SimpleQueue()

    def next(self) -> list[str]:
        return [os.path.basename(path) for path in self.changes.get(timeout=PATIENCE_SECONDS)]


def test_what_changed_before_it_was_watched_is_told(tmp_path: Path) -> None:
    before = time.time() - 1
    (tmp_path / "hello.py").touch()
    told = Told()
    watch = Watch([str(tmp_path / "hello.py")], before, told.changes.put, pytest.fail)
    assert told.next() == ["hello.py"]
    watch.end()


def test_what_editors_write_beside_a_file_is_no_change(tmp_path: Path) -> None:
    for name in ("hello.py", "s.toml"):
        (tmp_path / name).touch()
    os.mkdir(tmp_path / ".git")
    os.mkdir(tmp_path / "package")
    told = Told()
    files = [str(tmp_path / name) for name in ("hello.py", "s.toml", "gone.py")]
    watch = Watch(files, time.time() + 1000, told.changes.put, pytest.fail)
    assert told.next() == ["gone.py"], "it has begun"
    for name in (".hello.py.swp", "hello.py~", ".#hello.py", "4913", "x.txt", ".git/x.py"):
        (tmp_path / name).write_text("x")
    (tmp_path / "package" / "new.py").touch()
    assert told.next() == ["new.py"]
    beside = tmp_path / "s.toml.tmp"
    beside.write_text("x")
    beside.rename(tmp_path / "s.toml")
    assert told.next() == ["s.toml"]
    watch.end()


def test_the_files_of_a_process_are_those_that_its_user_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "written_here.py").touch()
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "installed_there.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(installed)
    names = ("written_here", "installed_there")
    try:
        for name in names:
            importlib.import_module(name)
        found = own_files()
    finally:
        for name in names:
            sys.modules.pop(name, None)
    assert str(tmp_path / "written_here.py") in found
    assert str(installed / "installed_there.py") not in found
    house = Path(own_files.__code__.co_filename).parents[1]
    assert not [file for file in found if Path(file).is_relative_to(house)]
    assert os.__file__ not in found
