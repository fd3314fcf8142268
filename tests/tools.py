"""Programs that are not Python packages, which some tests run."""

import os
import shutil

import pytest

#: Where Debian keeps servers, which a user's PATH need not have.
_SBIN = ":/usr/local/sbin:/usr/sbin:/sbin"


def need_tool(name: str) -> str:
    """
    Give the path of the program C{name}.  Without it a user's test is skipped, and
    one in CI, where C{.ci/run} installs all of them, fails.
    """
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + _SBIN)
    if path is None and os.environ.get("CI"):
        pytest.fail(f"{name} is missing, and CI is to have it: see .ci/run")
    if path is None:
        pytest.skip(f"needs {name}")
    return path
