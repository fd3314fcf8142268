"""What is imported late: when something of it is asked for, and no sooner."""

import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sockserve.core import late
from sockserve.core.late import LateModule
from tests.patience import PATIENCE_SECONDS

LATE = "late_room"
SLOW = "slow_room"  # begins, waits until it may go on, and asks the page for a name of another room
PAGE = "late_page"


@pytest.fixture(autouse=True)
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that nobody has imported, and a page that shows what it has."""
    (tmp_path / f"{LATE}.py").write_text("class Late:\n    pass\n")
    (tmp_path / f"{PAGE}.py").write_text(
        "import threading\n"
        "from sockserve.core.late import show_late\n"
        "begun, go_on = threading.Event(), threading.Event()\n"
        f"show_late(__name__, {{'Late': '{LATE}', 'Missing': '{LATE}', 'Slow': '{SLOW}'}})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{SLOW}.py").write_text(
        f"import {PAGE}\n"
        f"{PAGE}.begun.set()\n"
        f"assert {PAGE}.go_on.wait(10)\n"
        f"Late = {PAGE}.Late\n"
        "class Slow:\n    pass\n"
    )
    for name in (LATE, PAGE, SLOW):
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]


def test_a_module_is_imported_when_something_of_it_is_asked_for() -> None:
    module = LateModule(LATE)
    assert LATE not in sys.modules
    found = module.Late
    assert found is sys.modules[LATE].Late
    assert vars(module)["Late"] is found


def test_a_look_at_what_python_asks_of_all_objects_imports_nothing() -> None:
    module = LateModule(LATE)
    assert not hasattr(module, "__wrapped__")
    assert LATE not in sys.modules


def test_a_name_that_a_module_lacks() -> None:
    with pytest.raises(AttributeError, match=r"module 'late_room' has no attribute 'Missing'"):
        LateModule(LATE).Missing  # noqa: B018


def test_a_page_imports_the_room_of_a_name() -> None:
    import late_page

    assert "Late" in dir(late_page)
    assert LATE not in sys.modules
    assert late_page.Late is sys.modules[LATE].Late
    assert vars(late_page)["Late"] is late_page.Late


def test_a_name_that_a_page_lacks() -> None:
    import late_page

    with pytest.raises(AttributeError, match=r"module 'late_page' has no attribute 'early'"):
        late_page.early  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'early' from 'late_page'"):
        from late_page import early  # noqa: F401
    assert LATE not in sys.modules


def test_a_name_that_the_room_lacks() -> None:
    import late_page

    with pytest.raises(AttributeError, match=r"module 'late_room' has no attribute 'Missing'"):
        late_page.Missing  # noqa: B018


class Call(threading.Thread):
    """A call on a thread that the process does not wait for, if it hangs."""

    def __init__(self, do: Callable[..., Any], *arguments: Any) -> None:
        super().__init__(daemon=True)
        self._do, self._arguments = do, arguments
        self.start()

    def run(self) -> None:
        self._result = self._do(*self._arguments)

    def result(self) -> Any:
        self.join(PATIENCE_SECONDS)
        assert not self.is_alive()
        return self._result


def fork_and_use(page: ModuleType) -> int:
    """The exit status of a child that asks the page for its slow room."""
    child = os.fork()
    if not child:
        signal.alarm(10)
        os._exit(0 if page.Slow.__name__ == "Slow" else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_threads_that_import_each_others_rooms_both_end(monkeypatch: pytest.MonkeyPatch) -> None:
    import late_page

    import_directly, asked = importlib.import_module, threading.Event()

    def tell_and_import(name: str) -> ModuleType:
        asked.set()
        return import_directly(name)

    monkeypatch.setattr(importlib, "import_module", tell_and_import)
    direct = Call(import_directly, SLOW)
    assert late_page.begun.wait(PATIENCE_SECONDS)
    asks = Call(getattr, late_page, "Slow")
    assert asked.wait(PATIENCE_SECONDS)  # it waits for the first, which is to ask the page
    late_page.go_on.set()
    assert asks.result() is direct.result().Slow


class Told(threading.Condition):
    """It tells that somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_awaited = threading.Event()

    def wait_for(self, *arguments: Any) -> bool:
        self.is_awaited.set()
        return bool(super().wait_for(*arguments))


def test_a_fork_waits_for_the_late_imports_of_other_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import late_page

    changed = Told()
    monkeypatch.setattr(late, "_changed", changed)
    asks = Call(getattr, late_page, "Slow")
    assert late_page.begun.wait(PATIENCE_SECONDS)
    forks = Call(fork_and_use, late_page)
    assert changed.is_awaited.wait(PATIENCE_SECONDS)
    late_page.go_on.set()
    assert forks.result() == 0
    assert asks.result() is sys.modules[SLOW].Slow


def test_a_fork_waits_no_longer_than_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is imported late may wait for the thread that forks."""
    import late_page

    waits = []

    class Impatient(threading.Condition):
        def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> bool:
            waits.append(timeout)
            return bool(super().wait_for(predicate, 0))

    monkeypatch.setattr(late, "_changed", Impatient())
    asks = Call(getattr, late_page, "Slow")
    assert late_page.begun.wait(PATIENCE_SECONDS)
    child = os.fork()
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert waits == [late.FORK_WAIT_SECONDS]
    late_page.go_on.set()
    asks.result()


def test_two_threads_that_import_and_fork_do_not_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits_in_vain = []

    class Watched(threading.Condition):
        def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> bool:
            has_come = bool(super().wait_for(predicate, timeout))
            waits_in_vain.append(not has_come)
            return has_come

    monkeypatch.setattr(late, "_changed", Watched())
    for name in ("first", "second"):
        (tmp_path / f"{name}_fork.py").write_text(
            "import late_page, os\n"
            f"late_page.both.wait({PATIENCE_SECONDS})\n"
            "child = os.fork()\n"
            "if not child:\n    os._exit(7)\n"
            "Status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        )
    import late_page

    late_page.both = threading.Barrier(2)  # type: ignore[attr-defined]
    modules = [late.LateModule("first_fork"), late.LateModule("second_fork")]
    calls = [Call(getattr, module, "Status") for module in modules]
    assert [call.result() for call in calls] == [7, 7]
    assert not any(waits_in_vain)


def test_what_is_imported_late_may_fork(tmp_path: Path) -> None:
    (tmp_path / f"{LATE}.py").write_text(
        "import os\n"
        "child = os.fork()\n"
        "if not child:\n    os._exit(7)\n"
        "Late = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
    )
    import late_page

    assert late_page.Late == 7
