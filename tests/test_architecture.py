"""The order of the house: which room may know which, and what each shows."""

import ast
import importlib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from sockserve import SockserveError

HOUSE = Path(__file__).parents[1] / "sockserve"
LONGEST_ROOM_LINES = 450
DOORS = 10

#: The ring of each room; a package's stands for all in it. Imports point to the same ring or
#: a lower one. The front page, sockserve/__init__.py, has no ring: it shows what others own.
RINGS = {
    "interfaces": 0,
    "core.statistics": 1,
    "http.h1": 1,
    "http.files.ranges": 1,
    "http.files.targets": 1,
    "core": 2,
    "executors": 2,
    "sockets": 3,
    "handlers": 3,
    "streams": 4,
    "http": 5,
    "listeners": 6,
    "dropin": 7,
    "observe": 7,
    "service": 8,
    "run": 9,
    "tap": 10,
    "socketserver": 10,
    "http.server": 10,
    "testing": 10,
}

#: Public names that __all__ leaves out, as the one of the module that the room mirrors does.
NOT_SHOWN = {"sockserve.http.server": {"test"}}

FRONT_PAGE = "sockserve"
#: The other page that has no ring for the same reason.
HTTP_PAGE = "sockserve.http"


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(HOUSE.parent).with_suffix("").parts).removesuffix(".__init__")


ROOMS = {_dotted(path): path for path in sorted(HOUSE.rglob("*.py"))}
TREES = {room: ast.parse(path.read_text(), str(path)) for room, path in ROOMS.items()}
every_room = pytest.mark.parametrize("room", ROOMS)


def _imports(room: str, tree: ast.AST) -> Iterator[str]:
    """All that is imported anywhere in C{tree}, dotted and absolute, with the names taken."""
    package = room.split(".") if ROOMS[room].stem == "__init__" else room.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _room_of(name: str) -> str | None:
    """The room that an imported name is, or is in; C{None} for what is not of the house."""
    while name and name not in ROOMS:
        name = name.rpartition(".")[0]
    return name or None


def _known_to(room: str) -> set[str]:
    known = {_room_of(name) for name in _imports(room, TREES[room])}
    return {other for other in known if other not in (None, room)}


def _ring(room: str) -> int | None:
    names = room.split(".")[1:]
    while names:
        if (ring := RINGS.get(".".join(names))) is not None:
            return ring
        names.pop()
    return None


def test_every_room_has_a_ring() -> None:
    assert ROOMS
    assert [
        room for room in ROOMS if room not in (FRONT_PAGE, HTTP_PAGE) and _ring(room) is None
    ] == []


@every_room
def test_imports_point_up(room: str) -> None:
    if room in (FRONT_PAGE, HTTP_PAGE):
        return
    for other in _known_to(room) - {FRONT_PAGE, HTTP_PAGE}:
        assert _ring(other) <= _ring(room), f"{room} may not know {other}"
        inside = room.split(".")[1] == other.split(".")[1]
        if _ring(room) < 2 or _ring(room) == DOORS:
            mirrored = (room, other) == ("sockserve.http.server", "sockserve.socketserver")
            assert _ring(other) < _ring(room) or inside or mirrored, f"{room} may not know {other}"


def test_no_import_goes_in_a_circle() -> None:
    try:
        TopologicalSorter({room: _known_to(room) for room in ROOMS}).prepare()
    except CycleError as circle:
        pytest.fail(" imports ".join(reversed(circle.args[1])), pytrace=False)


@every_room
def test_pure_rooms_know_no_twisted_socket_or_clock(room: str) -> None:
    if room == FRONT_PAGE or _ring(room) != 1:
        return
    outside = {name.partition(".")[0] for name in _imports(room, TREES[room])}
    assert outside.isdisjoint({"twisted", "socket", "time"})


@every_room
def test_the_reactor_is_an_argument(room: str) -> None:
    """Only the door that C{twistd} opens, whose caller has installed it, may fetch it."""
    tree = TREES[room]
    if room == "sockserve.tap":
        tree = ast.Module(
            [node for node in tree.body if getattr(node, "name", None) != "makeService"], []
        )
    assert "twisted.internet.reactor" not in set(_imports(room, tree))


@every_room
def test_all_is_what_is_public(room: str) -> None:
    if room.rpartition(".")[2].startswith("_"):
        return
    module = importlib.import_module(room)
    defined = {
        node.name
        for node in TREES[room].body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
    }
    assert defined - set(module.__all__) == NOT_SHOWN.get(room, set()), "public, but not in __all__"
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert len(set(module.__all__)) == len(module.__all__)


@every_room
def test_our_errors_have_one_root(room: str) -> None:
    """Besides those of the stdlib that users already catch."""
    for value in vars(importlib.import_module(room)).values():
        if isinstance(value, type) and issubclass(value, Exception):
            assert value.__module__ != room or issubclass(value, SockserveError), value


@every_room
def test_a_room_is_not_too_long(room: str) -> None:
    lines = len(ROOMS[room].read_text().splitlines())
    assert lines <= LONGEST_ROOM_LINES
