"""What users import: a few public pages, each name on them explained and typed, and no others."""

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import sockserve
from sockserve import ClientGone, HandshakeFailed, PeerError, SockserveError
from sockserve.auth import NotAuthenticated, PlaintextPipelined
from sockserve.core.logs import Topic
from sockserve.http import RemoteProtocolError
from sockserve.http.files.disk import OutsideRoot
from sockserve.listeners.certificates import FileError
from sockserve.listeners.descriptions import WordError
from sockserve.listeners.proxy_header import ProxyHeaderError
from sockserve.sunrpc import DecodeError, MalformedCall, RecordTooLong, RPCMismatch

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: For those who change sockserve, these also name what is not public.
INSIDE = {"architecture.md", "design-notes.md"}
#: Names a configuration file, and no module.
FILES = {"sockserve.toml"}

PAGES = [
    "sockserve",
    "sockserve.server",
    "sockserve.service",
    "sockserve.http",
    "sockserve.auth",
    "sockserve.aio",
    "sockserve.sql",
    "sockserve.sunrpc",
    "sockserve.sunrpc.xdrlib",
    "sockserve.testing",
    "sockserve.reactors.uvloop",
    "sockserve.socketserver",
    "sockserve.http.server",
    "sockserve.django",
    "sockserve.django.tasks",
    # What twistd's plugin opens, which an application can do as well.
    "sockserve.tap",
]

#: Errors that no user's code meets.
NOT_MET = {FileError, OutsideRoot, ProxyHeaderError, WordError}

ROOMS = [
    importlib.import_module(each.name)
    for each in pkgutil.walk_packages(sockserve.__path__, "sockserve.")
]


def names_of(page: str) -> list[str]:
    names: list[str] = importlib.import_module(page).__all__
    return names


each_page = pytest.mark.parametrize("page", PAGES)
#: All names on the pages, with what they are.
SHOWN = {
    f"{page}.{name}": getattr(importlib.import_module(page), name)
    for page in PAGES
    for name in names_of(page)
}
each_doc = pytest.mark.parametrize("doc", DOCS, ids=lambda doc: doc.relative_to(ROOT).as_posix())


# The pages


@each_page
def test_a_page_says_what_it_shows(page: str) -> None:
    module = importlib.import_module(page)
    assert inspect.getdoc(module)
    assert module.__all__


def test_pages_are_listed_for_users() -> None:
    section = (ROOT / "docs/README.md").read_text().split("\n## What to import\n")[1]
    listed = re.findall(r"^\| `([\w.]+)` \|", section.split("\n## ")[0], re.MULTILINE)
    assert sorted(listed) == sorted(PAGES)


@pytest.mark.parametrize("page", ["sockserve", "sockserve.http", "sockserve.sql"])
def test_a_page_that_imports_late_shows_what_type_checkers_see(page: str) -> None:
    module = importlib.import_module(page)
    shown = {
        alias.name: node.module
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    names = names_of(page)
    assert set(names) <= set(shown)
    assert set(names) <= set(dir(module))
    for name in names:
        assert getattr(module, name) is getattr(importlib.import_module(str(shown[name])), name)


def test_each_name_is_explained() -> None:
    sources = "".join(Path(str(room.__file__)).read_text() for room in ROOMS)
    constants = set(re.findall(r"^#: .*\n(?:#: .*\n)*(\w+)\b", sources, re.MULTILINE))
    assert SHOWN
    assert {
        name
        for name, value in SHOWN.items()
        if not (inspect.getdoc(value) if callable(value) else name.rpartition(".")[2] in constants)
    } == set()


def _ours(value: Any) -> list[type]:
    """The classes that a class gets its members from, but for other people's."""
    return [each for each in value.__mro__ if each.__module__.startswith("sockserve.")]


def _methods(cls: type) -> Iterator[tuple[str, Any, bool]]:
    """The public methods that a class has itself: name, function, whether it takes C{self}."""
    for name, value in vars(cls).items():
        function = value.fget if isinstance(value, property) else value
        function = getattr(function, "__func__", function)
        if inspect.isfunction(function) and (name == "__init__" or not name.startswith("_")):
            yield name, function, not isinstance(value, staticmethod)


def test_public_methods_are_explained() -> None:
    unexplained = {
        f"{name}.{method}"
        for name, value in SHOWN.items()
        if inspect.isclass(value)
        for cls in _ours(value)
        for method, *_ in _methods(cls)
        # A constructor may be explained with its class.
        if method != "__init__" and not inspect.getdoc(getattr(value, method))
    }
    assert unexplained == set()


def _untyped(function: Any, bound: bool) -> list[str]:
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1 if bound else 0 :]
    untyped = [each.name for each in parameters if each.annotation is each.empty]
    returns = signature.return_annotation is not signature.empty
    return untyped if returns else [*untyped, "return"]


def test_public_functions_and_methods_are_typed() -> None:
    functions = {
        f"{cls.__name__}.{method}": _untyped(function, bound)
        for value in SHOWN.values()
        if inspect.isclass(value)
        for cls in _ours(value)
        for method, function, bound in _methods(cls)
    } | {name: _untyped(each, False) for name, each in SHOWN.items() if inspect.isfunction(each)}
    assert functions
    assert {name: missing for name, missing in functions.items() if missing} == {}


# Errors


def _errors() -> set[type[Exception]]:
    return {
        value
        for room in ROOMS
        for value in vars(room).values()
        if inspect.isclass(value)
        and issubclass(value, Exception)
        and value.__module__ == room.__name__
    }


def test_the_errors_of_ours_are_found() -> None:
    assert {SockserveError, RemoteProtocolError} < _errors()


def test_all_errors_of_ours_have_one_root() -> None:
    assert {error for error in _errors() if not issubclass(error, SockserveError)} == set()


def test_the_faults_of_a_peer_are_told_apart() -> None:
    assert {error for error in _errors() if issubclass(error, PeerError)} == {
        PeerError,
        HandshakeFailed,
        NotAuthenticated,
        PlaintextPipelined,
        ProxyHeaderError,
        RemoteProtocolError,
        ClientGone,
        DecodeError,
        MalformedCall,
        RPCMismatch,
        RecordTooLong,
    }


def test_errors_that_users_may_catch_are_on_a_page() -> None:
    shown = {name for page in PAGES for name in names_of(page)}
    assert {error for error in _errors() if error.__name__ not in shown} == NOT_MET


# What the docs send users to


def _is_public(name: str) -> bool:
    """Whether a dotted name is a public page, or something on one."""
    if name in PAGES:
        return True
    for page in sorted(PAGES, key=len, reverse=True):
        if name.startswith(f"{page}."):
            first, *rest = name.removeprefix(f"{page}.").split(".")
            value = getattr(importlib.import_module(page), first, None)
            return first in names_of(page) and all(
                (value := getattr(value, each, None)) is not None for each in rest
            )
    return False


def _is_there(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def _is_logger(name: str, doc: Path, text: str) -> bool:
    """Whether a dotted name is a namespace of the log, and meant as that."""
    if doc.name in ("logs-and-counters.md", "configure-logging.md"):
        return name in list(Topic)
    words = " ".join(text.split())
    return name in list(Topic) and (f"logger `{name}`" in words or f'Logger("{name}")' in words)


@each_doc
def test_dotted_names_are_public(doc: Path) -> None:
    text = doc.read_text()
    names = set(re.findall(r"(?<![\w/.-])sockserve(?:\.[A-Za-z_]\w*)+", text))
    found = _is_there if doc.name in INSIDE else _is_public
    assert [
        name
        for name in sorted(names - FILES)
        if not found(name) and not _is_logger(name, doc, text)
    ] == []


def _imported(text: str) -> Iterator[tuple[str, str]]:
    """All that is imported from sockserve in listings and prose: module and name."""
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                yield from ((node.module, alias.name) for alias in node.names)
    yield from re.findall(r"from (sockserve[\w.]*) import ([\w*]+)", text)


@each_doc
def test_imports_are_public(doc: Path) -> None:
    imported = {
        (module, name)
        for module, name in _imported(doc.read_text())
        if module.partition(".")[0] == "sockserve"
    }
    assert {
        (module, name)
        for module, name in imported
        if not (module in PAGES and (name in names_of(module) or f"{module}.{name}" in PAGES))
    } == set()


def test_a_name_that_is_not_public_is_found_out() -> None:
    assert _is_public("sockserve.http.server.HTTPServer.serve_forever")
    assert not _is_public("sockserve.core.deadlines")
    assert not _is_public("sockserve.http.h1.framing.LocalProtocolError")
    assert not _is_public("sockserve.server.StreamFactory.nonsense")
    assert list(_imported("```python\nfrom sockserve.core import a, b\n```\n")) == [
        ("sockserve.core", "a"),
        ("sockserve.core", "b"),
        ("sockserve.core", "a"),
    ]


def test_no_page_is_hidden_by_a_name() -> None:
    """A module and a name of its package's page that are spelled alike are two things."""
    for page in PAGES:
        value = importlib.import_module(page)
        assert isinstance(value, ModuleType)
        assert pkgutil.resolve_name(page) is value
