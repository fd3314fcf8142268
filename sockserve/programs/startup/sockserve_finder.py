"""
The finder of the modules that take the place of the standard library's.

This room owns the moment at which sockserve is imported: when the program, or a library, first
asks for one of these modules, and as of the path that the interpreter has begun with.  A module of
the program's own of such a name is left alone.  It must not know what the modules are made of
(L{sockserve.programs.modules}), and imports nothing of sockserve's before that moment.
"""

from __future__ import annotations

import _thread
import atexit
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import FrameType, ModuleType

__all__ = ["REPLACED", "Finder", "install", "split_command", "tell"]

#: The modules that are replaced, with the files that the standard library has of them.
REPLACED = {"socketserver": "socketserver.py", "http.server": os.path.join("http", "server.py")}

#: The stages of a finder.  (No enum: what it takes is not imported yet.)
_NOT_LOADED, _LOADING, _LOADED = "not loaded", "loading", "loaded"


def install(folder: str) -> None:
    """
    Have the modules found from now on.

    @param folder: this one, which C{sys.path} still has.
    """
    _, command = split_command(sys.orig_argv[1:])
    if command[:1] == ["-m"] and command[1].partition(".")[0] == "sockserve":
        return  # it has no need of it
    finder = Finder([entry for entry in sys.path if entry != folder], folder)
    sys.meta_path.insert(0, finder)
    if os.environ.get("_SOCKSERVE_EXPLAIN") == str(os.getpid()):
        atexit.register(finder.tell_if_unused)
    if any(name in sys.modules for name in REPLACED):  # a .pth file has asked for them
        finder.load()


def split_command(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """
    The options of an interpreter, and what it runs: C{-m MODULE}, C{-c CODE} or a file, with all
    that follows.

    @param arguments: what follows the interpreter's name.
    """
    options: list[str] = []
    words = list(arguments)
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        at = next((at for at, letter in enumerate(word) if letter in "cmWX"), 0)
        if not word.startswith("--") and at and word[at] in "cm":
            options += [word[:at]] if at > 1 else []
            return options, [f"-{word[at]}", *filter(None, [word[at + 1 :]]), *words]
        options.append(word)
        has_value = at + 1 == len(word) and at > 0
        if word == "--check-hash-based-pycs" or (has_value and not word.startswith("--")):
            options += words[:1]
            del words[:1]
    return options, words


def tell(line: str) -> None:
    """Say what is done here, if that was asked for."""
    program = os.environ.get("_SOCKSERVE_EXPLAIN")
    if program and sys.__stderr__ is not None:
        child = "" if program == str(os.getpid()) else f"[{os.getpid()}]"
        try:
            sys.__stderr__.write(f"sockserve{child}: {line}\n")
            sys.__stderr__.flush()
        except (OSError, ValueError):  # it was closed
            pass


class _Imported:
    """The loader of a module that has been imported while it was looked for."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._spec = module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module that there is."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module as it was."""
        module.__spec__ = self._spec


class Finder:
    """
    The finder, one for an interpreter.

    @param path: the path that the interpreter has begun with.
    @param folder: this one.
    """

    def __init__(self, path: list[str], folder: str) -> None:
        # For good
        root = os.path.dirname(os.path.dirname(os.path.dirname(folder)))
        # Last: whatever else is there is not for the program.
        self._path = path if root in path else [*path, root]
        #: What was said already.
        self._told: set[str] = set()
        #: Another thread that asks meanwhile is to have the modules, too.
        self._lock = _thread.RLock()
        # Its lock is held where this changes
        self._stage = _NOT_LOADED

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification of a module that is replaced; None for any other. (any thread)"""
        if name not in REPLACED and (name != "sockserve" or self._stage is _LOADED):
            return None
        with self._lock:
            return None if self._stage is _LOADING else self._find(name, path)

    def _find(self, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
        if name == "sockserve":
            # While it is imported it asks for what is replaced, and so would never be.
            self.load()
            return ModuleSpec(name, _Imported(sys.modules[name]))  # type: ignore[arg-type]
        own = self._own_module(name, path)
        if own is not None:
            if name not in self._told:
                self._told.add(name)
                tell(f"{name} is not replaced: the program has {own}")
            return None
        self.load()
        found: ModuleSpec = sys.modules["sockserve.programs.modules"].replacement_spec(name)
        return found

    def _own_module(self, name: str, path: Sequence[str] | None) -> str | None:
        """
        The place of a module of the program's own that has that name, or that of one which this one
        needs; None if there is no such module.
        """
        spec = PathFinder.find_spec("socketserver", self._path)
        library = os.path.dirname(spec.origin or "") if spec is not None else ""
        for each in ("socketserver", name):
            found = PathFinder.find_spec(each, path if "." in each else None)
            origin = None if found is None else found.origin
            if origin != os.path.join(library, REPLACED[each]):
                return origin or "another"
        return None

    def load(self) -> None:
        """Import sockserve, unless that is done, and nothing that is the program's."""
        if self._stage is _LOADED:
            return
        import warnings

        self._stage, reached = _LOADING, _NOT_LOADED
        path = sys.path
        own = [entry or os.getcwd() for entry in path if entry not in self._path]
        kept = self._take_out(own)
        before = set(sys.modules)
        sys.path = self._path
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the program's are asked for
                from sockserve.programs import modules
                from sockserve.programs.explanation import explain
            modules.take_names()
            was_there = any(name in before for name in REPLACED)
            modules.make_room(set(sys.modules) - (set() if was_there else before))
            reached = _LOADED
            if os.environ.get("_SOCKSERVE_EXPLAIN"):
                tell(f"{' and '.join(REPLACED)} are replaced by sockserve's")
                explain(tell)
        finally:
            sys.path = path
            self._let_own_be_found(own, set(sys.modules) - before)
            sys.modules.update(kept)
            self._stage = reached

    def _take_out(self, own: list[str]) -> dict[str, ModuleType]:
        """
        Take from C{sys.modules} what sockserve cannot use: what has come from the program's folders
        under a name that means something else to sockserve, and a module that waits for this to go
        on (C{wsgiref.simple_server}, which asks for C{http.server}).
        """
        frame: FrameType | None = sys._getframe()
        waiting = set()  # of this thread's: another's goes on by itself
        while frame is not None:
            if frame.f_code.co_name == "<module>":
                waiting.add(frame.f_globals.get("__name__"))
            frame = frame.f_back
        roots = tuple(os.path.join(entry, "") for entry in own)
        taken = {
            name
            for name, module in list(sys.modules.items())
            if "." not in name
            and (getattr(module, "__file__", None) or "").startswith(roots)
            and PathFinder.find_spec(name, self._path) is not None
        }
        return {
            name: sys.modules.pop(name)
            for name in list(sys.modules)
            if name.partition(".")[0] in taken or (name in waiting and name != "__main__")
        }

    def _let_own_be_found(self, own: list[str], names: set[str]) -> None:
        """Forget what sockserve has imported where the program has its own under such a name."""
        taken = set()
        for name in names:
            if "." not in name and name != "sockserve" and own:
                found = PathFinder.find_spec(name, own)
                spec = getattr(sys.modules[name], "__spec__", None)
                if found is not None and found.origin and spec and found.origin != spec.origin:
                    taken.add(name)
        for name in names:
            if name.partition(".")[0] in taken:
                del sys.modules[name]

    def tell_if_unused(self) -> None:
        """Say that nobody has asked for the modules, if so."""
        if self._stage is not _LOADED and not self._told:
            tell(f"nothing is replaced: neither {' nor '.join(REPLACED)} was imported")
