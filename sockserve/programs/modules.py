"""
The modules that take the place of the standard library's in an unchanged program.

This room owns what such a program finds under the names C{socketserver} and C{http.server}: a
module with all that the standard library's has, but with the drop-in modules' servers.  It must
not know when they are asked for (L{sockserve.programs.startup.sockserve_finder}).
"""

from __future__ import annotations

import ast
import http.server
import importlib
import socketserver
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from types import CodeType, ModuleType
from typing import Any

from typing_extensions import override

# What serves as well, before a program's own modules can be found in the place of what it needs.
import sockserve.dropin.serving
import sockserve.http.server
import sockserve.socketserver

__all__ = ["make_room", "replacement_spec", "take_names"]

_STANDARD: dict[str, ModuleType] = {"socketserver": socketserver, "http.server": http.server}

_DROP_IN = {"socketserver": sockserve.socketserver, "http.server": sockserve.http.server}

#: What the drop-in modules have instead; not what only later Pythons have.
_NAMES: dict[str, dict[str, Any]] = {
    name: {
        each: getattr(_DROP_IN[name], each)
        for each in (*module.__all__, "test")
        if hasattr(module, each)
    }
    for name, module in _STANDARD.items()
}


def make_room(names: Iterable[str]) -> None:
    """
    Have the standard library's modules, and whatever is made on them, imported anew by the next
    that asks for one.

    @param names: the modules that may be among these.
    """
    kinds = ("BaseServer", "ThreadingMixIn", "ForkingMixIn")
    servers = tuple(getattr(socketserver, kind) for kind in kinds)
    ours = tuple(getattr(sockserve.socketserver, kind) for kind in kinds)
    for name in names:
        module = sys.modules[name]
        if name.partition(".")[0] in ("sockserve", "__main__"):
            continue
        if any(
            # Not what an object says of itself: there are some that become what they stand for
            # when they are asked.
            issubclass(type(value), type)
            and issubclass(value, servers)
            and not issubclass(value, ours)
            for value in list(_names_in(module).values())
        ):
            del sys.modules[name]
            package, _, last = name.rpartition(".")
            if package and _names_in(sys.modules[package]).get(last) is module:
                delattr(sys.modules[package], last)


def _names_in(module: ModuleType) -> dict[str, Any]:
    """A module's names, of one that is loaded when it is asked for them none."""
    try:
        names: dict[str, Any] = object.__getattribute__(module, "__dict__")
    except AttributeError:
        return {}
    return names


def take_names() -> None:
    """
    Have what takes the place of the standard library's classes called as they are: what a program
    prints, or pickles, is as it would be, and so is the source that is found for it.
    """
    for module, names in _NAMES.items():
        for name, value in names.items():
            if value.__module__.startswith("sockserve."):
                value.__module__ = module
                line = vars(getattr(_STANDARD[module], name)).get("__firstlineno__")
                if line is not None:  # Python 3.13
                    value.__firstlineno__ = line


def replacement_spec(name: str) -> ModuleSpec:
    """The specification of the module that is to have that name."""
    path = _STANDARD[name].__file__
    assert path is not None
    spec = spec_from_file_location(name, path, loader=_Loader(name, path))
    assert spec is not None
    return spec


class _Replacement(ModuleType):
    """
    A module in the place of the standard library's.

    The standard library's code still is what most of it consists of, and has its own module's
    names: what a program changes here, it changes there.
    """

    @override
    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if not name.startswith("__") and name not in _NAMES[self.__name__]:
            setattr(_STANDARD[self.__name__], name, value)

    @override
    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        if not name.startswith("__") and name not in _NAMES[self.__name__]:
            delattr(_STANDARD[self.__name__], name)


class _Loader(SourceFileLoader):
    """The loader of such a module; its file is the standard library's."""

    @override
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Replacement(spec.name)

    @override
    def exec_module(self, module: ModuleType) -> None:
        standard = _STANDARD[module.__name__]
        names = {name: value for name, value in vars(standard).items() if name not in vars(module)}
        names |= _NAMES[module.__name__]
        if "socketserver" in names:  # as the module does that is replaced
            names["socketserver"] = importlib.import_module("socketserver")
        vars(module).update(names, __doc__=standard.__doc__, __all__=list(standard.__all__))

    @override
    def get_code(self, fullname: str) -> CodeType | None:
        """
        The code that C{python -m http.server} runs: the command line of this Python's own, on
        the classes of the module that it would import.
        """
        if fullname != "http.server":
            return super().get_code(fullname)
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path), path)
        last = len(tree.body)
        while last and not (
            isinstance(tree.body[last - 1], ast.If)
            and "__main__" in ast.unparse(tree.body[last - 1])
        ):
            last -= 1
        at = max(last - 1, 0)
        names = [ast.alias(name) for name in _STANDARD[fullname].__all__]
        imported = ast.ImportFrom(fullname, names, 0)
        tree.body.insert(at, ast.copy_location(imported, tree.body[at]))
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)
