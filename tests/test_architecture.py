"""The order of the house: which package may know which, and what each room shows."""

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "sockserve"
LONGEST_ROOM_LINES = 450

#: The house from the ground up.  A package imports only itself and what comes before it, and
#: the page docs/discussion/architecture.md draws it in this order.  What is named with its
#: package's name is a part that has a place of its own.
ORDER = [
    "interfaces",
    # Pure: data in, data out.
    "core.statistics",
    "http.h1",
    "http.files.ranges",
    "http.files.targets",
    "sunrpc.xdr",
    "sunrpc.xdrlib",
    # What is served, and by what means.
    "core",
    "reactors",
    "aio",
    "executors",
    "sockets",
    "streams",
    "handlers",
    "auth",
    "http",
    "sunrpc",
    "observe",
    "listeners",
    "testing",
    "dropin",
    "sql",
    # What a program or a person starts.
    "service",
    "run",
    "reload",
    "tap",
    "command",
    "django",
    # Public pages and the drop-in modules.
    "server",
    "socketserver",
    "http.server",
    "programs",
    "__main__",
]
PURE = {
    "core.statistics",
    "http.h1",
    "http.files.ranges",
    "http.files.targets",
    "sunrpc.xdr",
    "sunrpc.xdrlib",
}

#: Pages that show what other rooms own, and that no room imports from.  (Those of packages, as
#: sockserve.http, have no place below their rooms.)
PAGES = {
    "sockserve",
    "sockserve.auth",
    "sockserve.django",
    "sockserve.django.tasks",
    "sockserve.http",
    "sockserve.server",
    "sockserve.sql",
    "sockserve.sunrpc",
}

#: The one room of the listeners that names what may be spoken on a connection.
TABLE_OF_WAYS = "sockserve.listeners.ways"

#: Public names that __all__ leaves out, as the one of the module that the room mirrors does.
NOT_SHOWN = {"sockserve.http.server": {"test"}}


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(HOUSE.parent).with_suffix("").parts).removesuffix(".__init__")


ROOMS = {_dotted(path): path for path in sorted(HOUSE.rglob("*.py"))}
TEXTS = {room: path.read_text() for room, path in ROOMS.items()}
TREES = {room: ast.parse(text, str(ROOMS[room])) for room, text in TEXTS.items()}


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


@cache
def _known_to(room: str) -> frozenset[str]:
    known = {_room_of(name) for name in _imports(room, TREES[room])}
    return frozenset(other for other in known if other not in (None, room))


def _late(tree: ast.AST) -> Iterator[str]:
    """The rooms that are imported late, by their names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("LateModule", "show_late"):
            for word in ast.walk(node):
                if isinstance(word, ast.Constant) and word.value in ROOMS:
                    yield str(word.value)


def _place(room: str) -> str | None:
    """The entry of the order that a room belongs to: the longest that names it."""
    names = room.split(".")[1:]
    while names and ".".join(names) not in ORDER:
        names.pop()
    return ".".join(names) or None


def test_every_room_has_a_place() -> None:
    assert ROOMS
    assert [room for room in ROOMS if room != "sockserve" and _place(room) is None] == []


def test_every_place_has_a_room() -> None:
    assert set(ORDER) - {_place(room) for room in ROOMS} == set()


def test_imports_lead_to_the_same_package_or_one_before_it() -> None:
    upwards = set()
    for room in set(ROOMS) - PAGES:
        place = _place(room)
        assert place is not None
        before = ORDER[: ORDER.index(place) + 1]
        upwards |= {(room, other) for other in _known_to(room) if _place(other) not in before}
    assert upwards == set()


def test_what_is_imported_late_is_imported_for_type_checkers() -> None:
    """So that it is known to all the tests here, and what is asked of it to mypy."""
    late = {room: set(_late(tree)) for room, tree in TREES.items()}
    assert {room for room, others in late.items() if others} >= {
        "sockserve",
        "sockserve.http",
        "sockserve.socketserver",
    }
    assert {room for room, others in late.items() if others - _known_to(room)} == set()


def test_pages_are_for_users() -> None:
    assert {room for room in ROOMS if _known_to(room) & PAGES} == set()


LISTENERS = [room for room in ROOMS if _place(room) == "listeners"]


def test_listeners_import_http_in_one_place() -> None:
    knowing = {
        room
        for room in LISTENERS
        if any(other.startswith("sockserve.http") for other in _known_to(room))
    }
    assert knowing == {TABLE_OF_WAYS}


def test_listeners_name_nothing_of_http_elsewhere() -> None:
    """Neither in code nor in words, but that TLS tells a client which speaks plain HTTP so."""
    others = set(LISTENERS) - {TABLE_OF_WAYS, "sockserve.listeners.tls"}
    assert {room for room in others if "http" in TEXTS[room].lower()} == set()


def test_no_import_goes_in_a_circle() -> None:
    try:
        TopologicalSorter({room: _known_to(room) for room in ROOMS}).prepare()
    except CycleError as circle:
        pytest.fail(" imports ".join(reversed(circle.args[1])), pytrace=False)


def test_pure_rooms_know_no_twisted_socket_or_clock() -> None:
    outside = {
        (room, name.partition(".")[0])
        for room in ROOMS
        if _place(room) in PURE
        for name in _imports(room, TREES[room])
    }
    assert outside
    assert {
        (room, name) for room, name in outside if name in ("twisted", "socket", "time")
    } == set()


def test_the_reactor_is_an_argument() -> None:
    """
    Only the doors may fetch it: the one that C{twistd} opens, whose caller has installed it, the
    own command's, and that of a project of Django's, where nobody else runs it.
    """
    openings = {"sockserve.tap": "makeService", "sockserve.command": "serve"}
    fetching = set()
    for room, tree in TREES.items():
        nodes = [node for node in tree.body if getattr(node, "name", "") != openings.get(room)]
        if "twisted.internet.reactor" in _imports(room, ast.Module(nodes, [])):
            fetching.add(room)
    assert fetching == {"sockserve.django.reactor_thread"}


def test_all_is_what_is_public() -> None:
    wrong = {}
    for room, tree in TREES.items():
        if room.rpartition(".")[2].startswith("_"):
            continue
        module = importlib.import_module(room)
        defined = {
            node.name
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and not node.name.startswith("_")
        }
        missing = defined - set(module.__all__) - NOT_SHOWN.get(room, set())
        unknown = {name for name in module.__all__ if not hasattr(module, name)}
        twice = len(module.__all__) - len(set(module.__all__))
        if missing or unknown or twice:
            wrong[room] = (missing, unknown, twice)
    assert wrong == {}


def test_no_room_is_too_long() -> None:
    lines = {room: len(text.splitlines()) for room, text in TEXTS.items()}
    assert {room: count for room, count in lines.items() if count > LONGEST_ROOM_LINES} == {}


def test_only_the_test_kit_knows_the_test_kit() -> None:
    kit = {room for room in ROOMS if room.startswith("sockserve.testing")}
    assert kit
    assert {room for room in set(ROOMS) - kit if _known_to(room) & kit} == set()


# What a test may change

#: The name of a constant, or the dotted way to it.
_CONSTANT = re.compile(r"(\w+\.)*_*[A-Z][A-Z0-9_]+")

#: What changes an attribute that it is given the name of: of the language, of pytest, and of
#: C{unittest.mock} (C{patch}, C{patch.object}, C{patch.multiple}).
_CHANGERS = {"setattr", "delattr", "patch", "object", "multiple"}


def _changed_constants(tree: ast.AST) -> Iterator[str]:
    """The constants of other modules that a test changes."""
    imported = {
        alias.asname or alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            names = _names_to_change(node)
        elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            way = ast.unparse(node)
            names = [way] if way.partition(".")[0] in imported else []
        else:
            continue
        yield from filter(_CONSTANT.fullmatch, names)


def _names_to_change(call: ast.Call) -> list[str]:
    """The names of attributes that a call says are to be changed."""
    called = getattr(call.func, "attr", getattr(call.func, "id", None))  # or an expression
    if called not in _CHANGERS:
        return []
    words = {word.arg: word.value for word in call.keywords if word.arg is not None}
    # Either the whole way, or where it is and the name; what comes behind is the value.
    places = [*call.args[:2], *(words.get(name) for name in ("target", "name", "attribute"))]
    named = [place.value for place in places if isinstance(place, ast.Constant)]
    return [name for name in named[:1] if isinstance(name, str)] + list(words)


def test_no_test_changes_a_constant_of_a_module() -> None:
    """What a test wants otherwise, a user may: it is a setting, or an argument."""
    changed = {
        str(path.relative_to(HOUSE.parent)): list(_changed_constants(ast.parse(path.read_text())))
        for path in sorted((HOUSE.parent / "tests").rglob("*.py"))
    }
    assert changed
    assert {path: names for path, names in changed.items() if names} == {}


@pytest.mark.parametrize(
    ("code", "is_found"),
    [
        ('monkeypatch.setattr(room, "LINGER_SECONDS", 0.05)', True),
        ('monkeypatch.setattr(sockserve.core.room, "_EVERY", 0.05)', True),
        ('monkeypatch.setattr("sockserve.core.room.LINGER_SECONDS", 0.05)', True),
        ('monkeypatch.setattr(target=room, name="LINGER_SECONDS", value=0.05)', True),
        ('monkeypatch.delattr(room, "MAX2")', True),
        ('setattr(room, "LINGER_SECONDS", 0.05)', True),
        ('mock.patch("sockserve.core.room.LINGER_SECONDS", 0.05)', True),
        ('patch.object(room, "LINGER_SECONDS", 0.05)', True),
        ("patch.multiple(room, LINGER_SECONDS=0.05)", True),
        ("import room\nroom.LINGER_SECONDS = 0.05", True),
        ("import sockserve.core\nsockserve.core.room.LINGER_SECONDS += 1", True),
        ("def test():\n    from core import room as it\n    del it.LINGER_SECONDS", True),
        ('monkeypatch.setattr(room, "linger", LINGER_SECONDS)', False),
        ('monkeypatch.setattr("sys.platform", "OS2")', False),
        ('monkeypatch.setattr(Handler, "do_GET", None)', False),
        ('monkeypatch.setattr(room, "Thread", None)', False),
        ('monkeypatch.setenv("LINGER_SECONDS", "1")', False),
        ("import room\nseconds = room.LINGER_SECONDS", False),
        ("connection.TLS = True", False),  # what a test has made by itself
    ],
)
def test_a_changed_constant_is_found(code: str, is_found: bool) -> None:
    assert bool(list(_changed_constants(ast.parse(code)))) == is_found


def test_no_test_is_a_test_case_of_unittests() -> None:
    """pytest would not find it: its plugin for those is off (see C{pyproject.toml})."""
    found = [
        f"{path.name}: {node.name}"
        for path in sorted((HOUSE.parent / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(base).endswith("TestCase") for base in node.bases)
    ]
    assert found == []
