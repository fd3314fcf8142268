"""
The files that a process is made of, as far as a user writes them.

This room owns which modules are a user's own, and how old a file is.  It must not
know what is done when one changes.
"""

from __future__ import annotations

import math
import os
import sys
import sysconfig
from pathlib import Path

__all__ = ["changed_at", "own_files"]

#: The folders of what is installed, wherever they lie.
_INSTALLED = {"site-packages", "dist-packages"}


def own_files() -> list[str]:
    """The files of all modules that were imported, but for Python's, installed ones and
    sockserve's."""
    others = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    others.append(str(Path(__file__).parents[1]))
    folders = tuple(os.path.realpath(each) + os.sep for each in others)
    found = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name == "__main__" or not isinstance(file, str) or not file.isprintable():
            continue
        file = os.path.realpath(file)
        if not file.startswith(folders) and _INSTALLED.isdisjoint(file.split(os.sep)):
            found.add(file)
    return sorted(found)


def changed_at(file: str) -> float:
    """The time of a file's last change, as C{time.time} has it; infinite if it is not there."""
    try:
        return os.stat(file).st_ctime
    except OSError:
        return math.inf
