"""What the tests of reactors share."""

import importlib.util
import os

import pytest


def need_uvloop() -> None:
    """Skip a test where there is no uvloop; in CI, which installs it, fail."""
    if importlib.util.find_spec("uvloop") is None:
        if os.environ.get("CI"):
            pytest.fail("uvloop is missing, and CI is to have it: see pyproject.toml")
        pytest.skip("needs uvloop: pip install 'sockserve[uvloop]'")
