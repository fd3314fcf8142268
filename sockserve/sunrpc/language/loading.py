"""
Loading: classes, numbers and programs from a text of RPC's language.

This room owns what the names in such a text mean.  It must not know its grammar.
"""

from __future__ import annotations

import keyword
import os
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from sockserve.core.messages import nearest
from sockserve.interfaces import ConfigurationError
from sockserve.sunrpc.language.syntax import (
    ConstDefinition,
    Declaration,
    Definition,
    EnumBody,
    ProcedureDefinition,
    ProgramDefinition,
    Spec,
    StructBody,
    TypeDefinition,
    UnionBody,
    Value,
    VersionDefinition,
    parse,
)
from sockserve.sunrpc.language.tokens import LanguageError
from sockserve.sunrpc.programs import Procedure, Program, Version
from sockserve.sunrpc.xdr import types
from sockserve.sunrpc.xdr.declaring import Struct, Union
from sockserve.sunrpc.xdr.types import Field, XDRType, is_endless

__all__ = ["load", "loads"]

#: The types that have no definition, and those that C{rpcgen} knows besides.
_BUILT_IN: dict[str, XDRType] = {
    "int": types.INT,
    "unsigned int": types.UNSIGNED_INT,
    "hyper": types.HYPER,
    "unsigned hyper": types.UNSIGNED_HYPER,
    "float": types.FLOAT,
    "double": types.DOUBLE,
    "quadruple": types.QUAD,
    "bool": types.BOOL,
    "void": types.VOID,
    "string": types.StringType(),
    **dict.fromkeys(["long", "short", "char", "int8_t", "int16_t", "int32_t"], types.INT),
    **dict.fromkeys(["unsigned long", "unsigned short", "unsigned char"], types.UNSIGNED_INT),
    **dict.fromkeys(["u_int", "u_long", "u_short", "u_char"], types.UNSIGNED_INT),
    **dict.fromkeys(["uint8_t", "uint16_t", "uint32_t"], types.UNSIGNED_INT),
    **dict.fromkeys(["u_int8_t", "u_int16_t", "u_int32_t"], types.UNSIGNED_INT),
    **dict.fromkeys(["int64_t", "longlong_t", "quad_t"], types.HYPER),
    **dict.fromkeys(["uint64_t", "u_int64_t", "u_longlong_t", "u_quad_t"], types.UNSIGNED_HYPER),
}
_TRUTH = {"TRUE": 1, "FALSE": 0}


def load(path: str | os.PathLike[str]) -> Any:
    """
    Read a file in RPC's language, as C{rpcgen} takes it.

    @param path: from the current folder; C{Path(__file__).with_name("calc.x")} is next to a module.
    @return: a module with all that it defines: constants, enumerations and their members,
        structures, unions, types, and programs (L{Program}).  A name that is a keyword of Python's
        has C{_} behind it.
    @raise ConfigurationError: it cannot be read, or has a mistake: one line, with the file's.
    """
    name = os.fspath(path)
    try:
        text = Path(name).read_text()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"{name}: {why}") from error
    return loads(text, name)


def loads(text: str, name: str = "<text>") -> Any:
    """
    L{load} of a text.

    @param name: the file's, for messages.
    @raise ConfigurationError: it has a mistake.
    """
    return _Loader(text, name).module()


def _python_name(name: str) -> str:
    return f"{name}_" if keyword.iskeyword(name) else name


class _Following(NamedTuple):
    """The value of a member that has none of its own: one more than another's."""

    previous: str | None


class _Loader:
    """A text whose names are being looked up: each when it is first asked for."""

    def __init__(self, text: str, file: str) -> None:
        self._file = file
        self._types: dict[str, TypeDefinition] = {}
        self._values: dict[str, Value | _Following | int] = dict(_TRUTH)
        self._made: dict[str, XDRType] = {}
        self._making: set[str] = set()
        self._module = ModuleType(Path(file).stem.replace("-", "_"), f"What {file} defines.")
        self._module.__file__ = file
        self._definitions = parse(text, file)

    def module(self) -> ModuleType:
        """All that the text defines, checked."""
        for definition in self._definitions:
            self._enter(definition)
        for definition in self._definitions:
            if isinstance(definition, ConstDefinition):
                self._show(definition.name, self._number(definition.value))
            elif isinstance(definition, TypeDefinition):
                self._show_type(definition)
        for definition in self._definitions:
            if isinstance(definition, TypeDefinition):
                self._check(definition)
        for definition in self._definitions:
            if isinstance(definition, ProgramDefinition):
                self._show(definition.name, self._program(definition))
        return self._module

    def _fail(self, line: int, message: str) -> NoReturn:
        raise LanguageError(self._file, line, message)

    def _enter(self, definition: Definition) -> None:
        """Note a name, whose meaning may depend on those after it."""
        name = definition.name
        if name in self._types or name in self._values or name in _BUILT_IN:
            self._fail(definition.line, f"{name} is defined twice")
        if isinstance(definition, ConstDefinition):
            self._values[name] = definition.value
        elif isinstance(definition, TypeDefinition):
            self._types[name] = definition
            body = definition.declaration.spec.body
            if isinstance(body, EnumBody):
                self._enter_members(body)

    def _enter_members(self, body: EnumBody) -> None:
        previous = None
        for name, value, line in body.members:
            if name in self._values or name in self._types:
                self._fail(line, f"{name} is defined twice")
            # As rpcgen and C have it, one without a value is one more than that before it.
            self._values[name] = _Following(previous) if value is None else value
            previous = name

    def _show(self, name: str, value: object) -> None:
        setattr(self._module, _python_name(name), value)

    def _show_type(self, definition: TypeDefinition) -> None:
        found = self._type_called(definition.name, definition.line)
        if isinstance(found, types.EnumType):
            self._show(definition.name, found.members)
            for member in found.members.__members__.items():
                self._show(*member)
        else:
            self._show(definition.name, getattr(found, "cls", found))

    def _check(self, definition: TypeDefinition) -> None:
        """Have all of a type looked up, and that it has an end."""
        found = self._made[definition.name]
        list(found.parts())
        if isinstance(found, (types.StructType, types.FixedArray)) and is_endless(found):
            self._fail(definition.line, f"{definition.name} contains itself, so it has no end")

    # Numbers

    def _number(self, value: Value) -> int:
        text, line = value
        more = 0
        seen = set()
        while not (text[0].isdigit() or text[0] == "-"):
            if text in seen or text not in self._values:
                hint = nearest(text, [name for name in self._values if name != text])
                self._fail(line, f"no number is called {text}{hint}")
            seen.add(text)
            found = self._values[text]
            if isinstance(found, _Following):
                if found.previous is None:
                    return more
                more += 1
                text = found.previous
            elif isinstance(found, int):
                return found + more
            else:
                text, line = found
        return self._literal(text, line) + more

    def _literal(self, text: str, line: int) -> int:
        digits = text.lstrip("-")
        try:
            if digits[:2] in ("0x", "0X"):
                number = int(digits, 16)
            else:
                number = int(digits, 8 if digits[0] == "0" and len(digits) > 1 else 10)
        except ValueError:
            self._fail(line, f"{text} is no number; one that begins with 0 is octal")
        return -number if text[0] == "-" else number

    def _size(self, value: Value | None) -> int | None:
        if value is None:
            return None
        number = self._number(value)
        if not 0 <= number < 2**32:
            self._fail(value.line, f"{number} is out of range for a length: 0 to 4294967295")
        return number

    # Types

    def _type_called(self, name: str, line: int) -> XDRType:
        if name in self._made:
            return self._made[name]
        built_in = _BUILT_IN.get(name)
        if built_in is not None:
            return built_in
        definition = self._types.get(name)
        if definition is None:
            hint = nearest(name, [*self._types, *_BUILT_IN])
            self._fail(line, f"no type is called {name}{hint}")
        if name in self._making:
            self._fail(line, f"{name} is defined by itself")
        self._making.add(name)
        made = self._declared(definition.declaration, name)
        self._made[name] = made
        return made

    def _declared(self, declaration: Declaration, name: str) -> XDRType:
        """
        The type of what is declared.

        @param name: what one is called that is written out there.
        """
        shape, spec = declaration.shape, declaration.spec
        size = self._size(shape.size)
        if spec.name == "opaque":
            if shape.kind == "[":
                return types.FixedOpaque(size or 0)
            return types.Opaque(size)
        if spec.name == "string":
            return types.StringType(size)
        element = self._specified(spec, name)
        if shape.kind == "*":
            return types.OptionalType(element)
        if shape.kind == "[":
            return types.FixedArray(element, size or 0)
        if shape.kind == "<":
            if not isinstance(element, types.NamedType) and not element.least():
                self._fail(declaration.line, f"the elements of {declaration.name} take no bytes")
            return types.Array(element, size)
        return element

    def _specified(self, spec: Spec, name: str) -> XDRType:
        body = spec.body
        if body is None:
            return self._type_called(spec.name, spec.line)
        if isinstance(body, EnumBody):
            if not spec.name and name not in self._types:
                self._enter_members(body)
            return self._enum(body, name)
        return self._struct(body, name) if isinstance(body, StructBody) else self._union(body, name)

    def _enum(self, body: EnumBody, name: str) -> XDRType:
        members: dict[str, int] = {}
        for member, _, line in body.members:
            number = self._number(Value(member, line))
            if not -(2**31) <= number < 2**31:
                self._fail(line, f"{member}: {number} is out of range for an enumeration")
            members[_python_name(member)] = number
        return types.EnumType(
            IntEnum(_python_name(name), members, module=self._module.__name__)  # type: ignore[arg-type]
        )

    def _class(self, base: type, name: str, annotations: Mapping[str, object]) -> Any:
        namespace = {"__annotations__": dict(annotations), "__module__": self._module.__name__}
        return type(_python_name(name), (base,), namespace)

    def _struct(self, body: StructBody, name: str) -> XDRType:
        lines: dict[str, int] = {}
        for each in body.fields:
            field = _python_name(each.name)
            if not field:
                self._fail(each.line, f"void is no field of {name}")
            if field in lines:
                self._fail(each.line, f"{name} has two fields {each.name}")
            if field.startswith("__"):
                self._fail(each.line, f"{each.name} is no name for a field in Python")
            lines[field] = each.line
        # Their types are looked up later: a list's element has a field of its own type.
        cls = self._class(Struct, name, dict.fromkeys(lines, object))

        def fields() -> Sequence[Field]:
            return [
                Field(_python_name(each.name), self._declared(each, f"{name}_{each.name}"))
                for each in body.fields
            ]

        found = cls.xdr_type = types.StructType(cls, fields, cls.__init__)
        return found

    def _union(self, body: UnionBody, name: str) -> XDRType:
        cls = self._class(Union, name, {})

        def arms() -> tuple[XDRType, Mapping[int, Field], Field | None]:
            kind = self._discriminant(body.switch, name)
            found: dict[int, Field] = {}
            default = None
            for cases, declaration in body.arms:
                type = self._declared(declaration, f"{name}_{declaration.name}")
                arm = Field(_python_name(declaration.name), type)
                for case in cases:
                    if case is None:
                        if default is not None:
                            self._fail(declaration.line, f"{name} has two defaults")
                        default = arm
                        continue
                    number = self._number(case)
                    if number in found:
                        self._fail(case.line, f"{name} has two arms for {case.text}")
                    if isinstance(kind, types.EnumType) and number not in list(kind.members):
                        self._fail(case.line, f"{case.text} is no member of {kind.label}")
                    found[number] = arm
            return kind, found, default

        found = cls.xdr_type = types.UnionType(cls, arms)
        return found

    def _discriminant(self, switch: Declaration, name: str) -> XDRType:
        kind = self._declared(switch, f"{name}_{switch.name}")
        is_enum = isinstance(kind, types.EnumType)
        if not is_enum and kind not in (types.INT, types.UNSIGNED_INT, types.BOOL):
            self._fail(
                switch.line,
                f"{kind.label} chooses no arm of {name}; int, unsigned int, bool and enumerations"
                " do",
            )
        return kind

    # Programs

    def _program_number(self, what: str, value: Value) -> int:
        number = self._number(value)
        if not 0 <= number < 2**32:
            self._fail(value.line, f"{what}: {number} is out of range; 0 to 4294967295 are in it")
        return number

    def _program(self, definition: ProgramDefinition) -> Program:
        versions: dict[int, Version] = {}
        for each in definition.versions:
            version = self._version(each)
            if version.number in versions:
                self._fail(each.line, f"{definition.name} has two versions {version.number}")
            versions[version.number] = version
        if not versions:
            self._fail(definition.line, f"{definition.name} has no version")
        number = self._program_number(f"program {definition.name}", definition.number)
        return Program(number, definition.name, versions)

    def _version(self, definition: VersionDefinition) -> Version:
        procedures: dict[int, Procedure] = {}
        for each in definition.procedures:
            made = self._procedure(each)
            if made.number in procedures:
                self._fail(each.line, f"{definition.name} has two procedures {made.number}")
            procedures[made.number] = made
        number = self._program_number(f"version {definition.name}", definition.number)
        self._show(definition.name, number)
        return Version(number, definition.name, procedures)

    def _procedure(self, definition: ProcedureDefinition) -> Procedure:
        name = definition.name
        arguments = [self._declared(each, name) for each in definition.arguments]
        if types.VOID in arguments:
            self._fail(definition.line, f"{name}: void is no argument among others")
        result = self._declared(definition.result, name)
        number = self._program_number(f"procedure {name}", definition.number)
        if number == 0 and (arguments or result is not types.VOID):
            self._fail(definition.line, f"{name}: procedure 0 takes and gives nothing")
        return Procedure(number, name, arguments, result)
