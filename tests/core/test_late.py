"""What is imported late: when something of it is asked for, and no sooner."""

import sys
from pathlib import Path

import pytest

from sockserve.core.late import LateModule

LATE = "late_room"
PAGE = "late_page"


@pytest.fixture(autouse=True)
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that nobody has imported, and a page that shows what it has."""
    (tmp_path / f"{LATE}.py").write_text("class Late:\n    pass\n")
    (tmp_path / f"{PAGE}.py").write_text(
        "from sockserve.core.late import show_late\n"
        f"show_late(__name__, {{'Late': '{LATE}', 'Missing': '{LATE}'}})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in (LATE, PAGE):
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
