"""The page on the architecture: its drawing is the order, and the functions it names exist."""

import inspect
import pkgutil
import re

import pytest

from tests.docs.test_listings import PAGES, ROOT
from tests.test_architecture import ORDER

PAGE = (ROOT / "docs/discussion/architecture.md").read_text()
_NAME = r"`(sockserve(?:\.\w+)+)`"
NAMES = sorted(set(re.findall(_NAME, PAGE)))
TRIPS = {
    section.partition("\n")[0]: section for section in PAGE.split("\n## ") if section[:4] == "Trip"
}

SEAMS = {"channel", "cycle", "executor", "listener", "source"}


def test_the_packages_are_drawn_in_their_order() -> None:
    drawn = re.findall(r"^│ ([\w.]+) ", PAGE, re.MULTILINE)
    assert drawn == ORDER[::-1]


def test_the_drawing_is_a_box() -> None:
    lines = re.findall(r"^[┌├│└].*", PAGE, re.MULTILINE)
    assert {len(line) for line in lines} == {len(lines[0])}


def test_the_seams_are_drawn_and_explained() -> None:
    assert set(re.findall(r"◆ (\w+)", PAGE)) == SEAMS
    section = PAGE.split("\n## The seams\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| (\w+) \|", section, re.MULTILINE)) - {"seam"} == SEAMS


def test_what_is_named_is_there() -> None:
    values = {name: pkgutil.resolve_name(name) for name in NAMES}
    assert values
    assert {
        name
        for name, value in values.items()
        if (inspect.isfunction(value) or inspect.isclass(value))
        and not value.__module__.startswith("sockserve")  # it is somebody else's
    } == set()


def test_there_are_three_trips() -> None:
    assert [name[:6] for name in TRIPS] == ["Trip 1", "Trip 2", "Trip 3"]


@pytest.mark.parametrize("trip", TRIPS)
def test_each_step_of_a_trip_names_where_it_happens(trip: str) -> None:
    steps = re.split(r"^(\d+)\. ", TRIPS[trip], flags=re.MULTILINE)[1:]
    numbers, texts = [int(number) for number in steps[::2]], steps[1::2]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 9
    for number, text in zip(numbers, texts, strict=True):
        named = [pkgutil.resolve_name(name) for name in re.findall(_NAME, text)]
        assert any(callable(each) for each in named), f"{trip}, step {number}"


def test_rooms_that_the_docs_name_are_there() -> None:
    packages = {path.name for path in (ROOT / "sockserve").iterdir() if path.is_dir()}
    named = {
        room
        for page in [*PAGES, ROOT / "CONTRIBUTING.md"]
        for room in re.findall(r"`(\w+(?:/\w+)+)(?:\.py)?`", page.read_text())
        if room.partition("/")[0] in packages
    }
    assert len(named) > 20
    assert {room for room in named if not (ROOT / "sockserve" / f"{room}.py").exists()} == set()
