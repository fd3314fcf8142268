"""
Loading: the import of objects by names like C{MODULE:CLASS}.

This room owns the import, and the messages about names that are not there.  It must not know
how the objects are used.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import pkgutil
import socketserver
import sys
import sysconfig
import traceback
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ReactorAlreadyInstalledError

from sockserve.core.handler_kinds import handler_name
from sockserve.core.messages import nearest, one_line
from sockserve.dropin.service import why_not_served
from sockserve.handlers import BaseRequestHandler
from sockserve.interfaces import ConfigurationError
from sockserve.run.handler_check import application_fault, check_handler
from sockserve.run.values import text

__all__ = [
    "handler_given",
    "load_handler",
    "load_server",
    "meant_name",
    "named_handlers",
    "names_here",
]

#: The classes of all handlers but those that are any callable.
_HANDLERS = (BaseRequestHandler, socketserver.BaseRequestHandler)

#: How the names of files begin that are no user's: ours, and what is installed, or no file.
_NOT_USERS = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
    *(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")),
    "<frozen ",
)


def load_handler(name: str) -> Callable[..., Any]:
    """
    Import a handler class, or another callable that makes a handler.

    @param name: C{MODULE:CLASS} or C{MODULE.CLASS}; the module may be in the current
        folder.
    @raise ConfigurationError: there is no such module or name, importing it fails, or it
        is no handler.
    """
    found: object = _load("handler", name, "CLASS")
    check_handler(found, f"handler {name!r}")
    assert callable(found)
    return found


def handler_given(word: str, value: object) -> Callable[..., Any]:
    """
    The handler that a value is, or names.

    @param word: the option's name, for messages.
    @raise ConfigurationError: it is none.
    """
    if not callable(value):
        return load_handler(text(word, value))
    check_handler(value, f"{word} {handler_name(value)}")
    return value


def load_server(name: str) -> socketserver.BaseServer:
    """
    Import a server object.

    @param name: C{MODULE:OBJECT}, the server object or a callable that returns it.
    @raise ConfigurationError: there is no such name, or the object cannot be served.
    """
    found: Any = _load("server", name, "OBJECT")
    if isinstance(found, type) and issubclass(found, _HANDLERS):
        raise ConfigurationError(f"server {name!r}: it is a handler's class; name it as handler")
    if not isinstance(found, socketserver.BaseServer) and callable(found):
        if fault := application_fault(found):
            raise ConfigurationError(f"server {name!r}: {fault}")
        try:
            found = found()
        except (Exception, SystemExit) as error:
            raise ConfigurationError(
                f"server {name!r}: calling it raised {type(error).__name__}: {one_line(error)}"
                f"{_place(error)}"
            ) from error
    if not isinstance(found, socketserver.BaseServer):
        if inspect.iscoroutine(found):
            found.close()
        raise ConfigurationError(
            f"server {name!r}: {found!r} is not a socketserver.BaseServer, nor returns one"
        )
    if fault := why_not_served(found):
        raise ConfigurationError(f"server {name!r}: {fault}")
    return found


def meant_name(name: str) -> str:
    """A hint at the name that the path of a module's file stands for; perhaps nothing."""
    path, colon, attribute = name.partition(":")
    module = path.removesuffix(".py").removeprefix("./").replace("/", ".")
    if not colon:
        module, _, attribute = module.rpartition(".")
    if all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")]):
        return f"; did you mean '{module}:{attribute}'?"
    return ""


def named_handlers(file: str) -> list[str]:
    """
    The names, C{MODULE:CLASS}, of what seem to be handlers in a module's file; it is not imported,
    as it may be a program.

    @param file: from this folder on.
    """
    module = file.removesuffix(".py").removeprefix("./").replace("/", ".")
    try:
        with open(file, "rb") as source:
            tree = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):
        return []
    names: list[str] = []
    for each in tree.body:
        if isinstance(each, ast.ClassDef):
            bases = [ast.unparse(base).rpartition(".")[2] for base in each.bases]
            if any(base.endswith("Handler") or base in names for base in bases):
                names.append(each.name)
    return [f"{module}:{name}" for name in names]


def names_here() -> list[str]:
    """The names in this folder; none where they cannot be read."""
    try:
        return sorted(os.listdir())
    except OSError:
        return []


def _namesakes(name: str) -> str:
    """A hint at handlers of that name in this folder; perhaps nothing."""
    files = [each for each in names_here() if each.endswith(".py")]
    there = [each for file in files for each in named_handlers(file)]
    found = [repr(each) for each in there if each.endswith(f":{name}")]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _beside(module_name: str) -> list[str]:
    """The names of the modules that are where one would be that there is not."""
    package, dot, _ = module_name.rpartition(".")
    path = getattr(sys.modules.get(package), "__path__", ()) if dot else [os.getcwd()]
    return [f"{package}{dot}{each.name}" for each in pkgutil.iter_modules(path)]


def _handlers_of(module: object, name: str) -> str:
    """A hint at the handlers' classes of a module; perhaps nothing."""
    own = [
        f"{name}:{each.__name__}"
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, _HANDLERS) and each.__module__ == name
    ]
    return f"; it has {', '.join(own)}" if own else ""


def _shadowed(module: object, here: str) -> str:
    """A hint at a module of this folder in whose place another of its name was found; perhaps
    nothing."""
    file = getattr(module, "__file__", None) or "a part of Python"
    own = f"{getattr(module, '__name__', '').partition('.')[0]}.py"
    if file.startswith(here + os.sep) or not os.path.exists(os.path.join(here, own)):
        return ""
    return f", which is {file}, and not the {own} of this folder; give that another name"


def _load(word: str, name: str, kind: str) -> Any:
    """
    Import the object that C{MODULE:NAME} or C{MODULE.NAME} names.

    @param word: the option's name, for messages.
    @param kind: what C{NAME} is called in messages.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon:
        module_name, _, attribute = name.rpartition(".")
    if module_name.endswith(".py") or "/" in module_name:
        raise ConfigurationError(
            f"{word} {name!r}: write MODULE:{kind}; a module's name is what import takes"
            f"{meant_name(name)}"
        )
    if not module_name or not attribute or not all(module_name.split(".")):
        named = named_handlers(f"{name.removesuffix(':').replace('.', '/')}.py")
        hint = f"; did you mean {' or '.join(map(repr, named))}?" if named else meant_name(name)
        raise ConfigurationError(f"{word} {name!r}: write MODULE:{kind}{hint}")
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            hint = nearest(error.name, _beside(error.name), error.name.rpartition(".")[0])
            if not hint:
                hint = _namesakes(attribute)
            raise ConfigurationError(f"{word} {name!r}: no module {error.name!r}{hint}") from None
        raise ConfigurationError(
            f"{word} {name!r}: importing it: {error}{_place(error)}"
        ) from error
    except ReactorAlreadyInstalledError as error:
        raise ConfigurationError(
            f"{word} {name!r}: it installs a reactor, and there is one; name that by --reactor"
            f" instead{_place(error)}"
        ) from error
    except (Exception, SystemExit) as error:  # a script without a main guard ends itself
        raise ConfigurationError(
            f"{word} {name!r}: importing it raised {type(error).__name__}: {one_line(error)}"
            f"{_place(error)}"
        ) from error
    found: Any = module
    where = module_name
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            hint = nearest(part, [word for word in dir(found) if not word.startswith("_")])
            if found is module and word == "handler":
                hint = hint or _handlers_of(module, module_name)
            hint = _shadowed(module, here) or hint
            raise ConfigurationError(f"{word} {name!r}: no {part!r} in {where}{hint}") from None
        where = f"{where}.{part}"
    return found


def _place(error: BaseException) -> str:
    """The line of a user's file at which an import has failed, in brackets."""
    if isinstance(error, SyntaxError):
        return ""  # its own words have that
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_NOT_USERS)
    ]
    if not frames:
        return ""
    file, here = frames[-1].filename, os.getcwd() + os.sep
    return f" ({file.removeprefix(here)}:{frames[-1].lineno})"
