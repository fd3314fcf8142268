"""
Procedures as methods of a handler's class, and the program they come to.

This room owns how methods and the procedures of a program find each other.  It must not know how
calls come.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from sockserve.core.messages import nearest
from sockserve.interfaces import ConfigurationError
from sockserve.sunrpc.programs import Procedure, Program, Version, check_number
from sockserve.sunrpc.xdr.declaring import hints_of, type_of

__all__ = ["Table", "Target", "find_table", "procedure"]

_F = TypeVar("_F", bound=Callable[..., Any])

#: The attribute of a method in which L{procedure} notes its arguments.
_MARK = "_sunrpc_procedure"


class _Mark(NamedTuple):
    number: int
    versions: tuple[int, ...]
    is_idempotent: bool


class Target(NamedTuple):
    """
    A procedure, with the method that serves it.

    @ivar method: the method's name.
    @ivar is_idempotent: whether it may be called twice for one call.
    """

    procedure: Procedure
    method: str
    is_idempotent: bool


class Table(NamedTuple):
    """
    A program, with the methods that serve it.

    @ivar targets: by version and procedure.
    @ivar is_coroutine: whether its methods are C{async def}.
    """

    program: Program
    targets: Mapping[tuple[int, int], Target]
    is_coroutine: bool


def procedure(
    number: int, *, version: int | tuple[int, ...] = 1, idempotent: bool = False
) -> Callable[[_F], _F]:
    """
    Mark a method of a handler as a procedure of its program.  The annotations of what it takes and
    returns are the types of the procedure's.

    @param number: the procedure's: 1 or more, as 0 does nothing in each program.
    @param version: the program's versions that have it.
    @param idempotent: whether it may run again when a client asks again over UDP, as one that
        changes nothing may: its replies are not kept.
    @raise ConfigurationError: a number cannot be.
    """
    versions = (version,) if isinstance(version, int) else tuple(version)

    def mark(method: _F) -> _F:
        name = getattr(method, "__name__", repr(method))
        if check_number(f"procedure {name}", number) == 0:
            raise ConfigurationError(
                f"procedure {name}: 0 is the procedure that does nothing, which each program has"
            )
        for each in versions:
            check_number(f"procedure {name}: version", each)
        setattr(method, _MARK, _Mark(number, versions, idempotent))
        return method

    return mark


def find_table(cls: type, program: object) -> Table:
    """
    The program of a handler's class.

    @param program: its number, when methods are marked as procedures; or a L{Program}, whose
        procedures are the methods of their names in lower case, C{add_2} or C{add}.
    @raise ConfigurationError: it is none, or a method is missing or cannot be one.
    """
    if isinstance(program, Program):
        found, targets = program, _named_methods(cls, program)
    else:
        number = check_number(f"handler {cls.__name__}: program", program)
        found, targets = _marked_methods(cls, number)
    kinds = {
        inspect.iscoroutinefunction(getattr(cls, target.method)): target.method
        for target in targets.values()
    }
    if len(kinds) == 2:
        raise ConfigurationError(
            f"handler {cls.__name__}: {kinds[True]} is async def but {kinds[False]} is not; a"
            " request runs in one place, so make all procedures async def, or none"
        )
    return Table(found, targets, True in kinds)


def _named_methods(cls: type, program: Program) -> dict[tuple[int, int], Target]:
    targets = {}
    for version in program.versions.values():
        for each in version.procedures.values():
            if each.number == 0:  # it does nothing, whatever it is called
                continue
            plain = each.name.lower()
            named = f"{plain}_{version.number}"
            method = named if hasattr(cls, named) else plain
            if not callable(getattr(cls, method, None)):
                known = [name for name in vars(cls) if not name.startswith("_")]
                raise ConfigurationError(
                    f"handler {cls.__name__}: no method {plain} (or {named}) for the procedure"
                    f" {each.name} of {program.name}{nearest(plain, known)}"
                )
            targets[version.number, each.number] = Target(each, method, _is_idempotent(cls, method))
    return targets


def _is_idempotent(cls: type, method: str) -> bool:
    mark = getattr(getattr(cls, method), _MARK, None)
    return isinstance(mark, _Mark) and mark.is_idempotent


def _marked_methods(cls: type, number: int) -> tuple[Program, dict[tuple[int, int], Target]]:
    targets: dict[tuple[int, int], Target] = {}
    versions: dict[int, dict[int, Procedure]] = {}
    for name in dir(cls):
        method = inspect.getattr_static(cls, name)
        mark = getattr(method, _MARK, None)
        if not isinstance(mark, _Mark):
            continue
        each = _procedure_of(cls, name, method, mark)
        for version in mark.versions:
            twin = targets.get((version, mark.number))
            if twin is not None:
                raise ConfigurationError(
                    f"handler {cls.__name__}: {twin.method} and {name} are both procedure"
                    f" {mark.number} of version {version}"
                )
            targets[version, mark.number] = Target(each, name, mark.is_idempotent)
            versions.setdefault(version, {})[mark.number] = each
    if not targets:
        raise ConfigurationError(
            f"handler {cls.__name__}: it has no procedure; mark its methods @procedure(NUMBER)"
        )
    found = {
        version: Version(version, str(version), procedures)
        for version, procedures in sorted(versions.items())
    }
    return Program(number, cls.__name__, found), targets


def _procedure_of(cls: type, name: str, method: Callable[..., Any], mark: _Mark) -> Procedure:
    where = f"procedure {cls.__name__}.{name}"
    hints = hints_of(method, where)
    arguments = []
    for parameter in list(inspect.signature(method).parameters.values())[1:]:
        if parameter.name not in hints:
            raise ConfigurationError(f"{where}: {parameter.name} has no annotation, so no type")
        arguments.append(type_of(hints[parameter.name], f"{where}: {parameter.name}"))
    if "return" not in hints:
        raise ConfigurationError(f"{where}: what it returns has no annotation; write -> None")
    return Procedure(mark.number, name, arguments, type_of(hints["return"], f"{where}: return"))
