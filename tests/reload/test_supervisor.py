"""A supervisor whose system has no process for it."""

import errno
import subprocess

import pytest

from sockserve import ConfigurationError
from sockserve.reload.supervisor import _Supervisor
from sockserve.reload.watching import Watch

pytestmark = pytest.mark.usefixtures("no_leaks")

WHY = "no process can be started: Resource temporarily unavailable"


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> _Supervisor:
    def refuse(*of: object, **how: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    return _Supervisor(None, Watch)


def test_the_first_process_that_cannot_be_is_one_line(supervisor: _Supervisor) -> None:
    with pytest.raises(ConfigurationError) as caught:
        supervisor._start("")
    assert str(caught.value) == f"reload: {WHY}"


def test_a_later_one_leaves_all_as_it_was(
    supervisor: _Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor._start("a.py changed")
    said = f"not reloaded: a.py changed, but {WHY}; waiting for a change\n"
    assert capsys.readouterr().err == said
