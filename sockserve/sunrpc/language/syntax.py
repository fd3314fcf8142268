"""
Syntax: the definitions in a text of RPC's language, as they are written.

This room owns the grammar (RFC 4506, section 6.3, and RFC 5531, section 12.2, with what C{rpcgen}
takes besides).  It must not know which names there are: what a name means is found later.
"""

from __future__ import annotations

from typing import NamedTuple

from sockserve.sunrpc.language.tokens import LanguageError, Token, tokens_of

__all__ = [
    "ConstDefinition",
    "Declaration",
    "Definition",
    "EnumBody",
    "ProcedureDefinition",
    "ProgramDefinition",
    "Shape",
    "Spec",
    "StructBody",
    "TypeDefinition",
    "UnionBody",
    "Value",
    "VersionDefinition",
    "parse",
]


class Value(NamedTuple):
    """A number, or the name of one."""

    text: str
    line: int


class EnumBody(NamedTuple):
    """The members of an enumeration, by name."""

    members: list[tuple[str, Value | None, int]]


class StructBody(NamedTuple):
    """The fields of a structure."""

    fields: list[Declaration]


class UnionBody(NamedTuple):
    """The arms of a union: each with its cases, of which None is C{default}."""

    switch: Declaration
    arms: list[tuple[list[Value | None], Declaration]]


class Spec(NamedTuple):
    """
    A type, as it is named or written out.

    @ivar name: C{unsigned int}, C{opaque}, C{pair} ...
    @ivar body: of one that is written out.
    """

    name: str
    line: int
    body: EnumBody | StructBody | UnionBody | None = None


class Shape(NamedTuple):
    """
    What stands around a name besides the type.

    @ivar kind: C{[}, C{<}, C{*}, or empty for nothing.
    @ivar size: what is within; None for nothing.
    """

    kind: str = ""
    size: Value | None = None


class Declaration(NamedTuple):
    """A name with a type; of C{void} the name is empty."""

    name: str
    spec: Spec
    shape: Shape
    line: int


class TypeDefinition(NamedTuple):
    """C{typedef}, C{enum}, C{struct} or C{union}."""

    name: str
    declaration: Declaration
    line: int


class ConstDefinition(NamedTuple):
    """C{const}."""

    name: str
    value: Value
    line: int


class ProcedureDefinition(NamedTuple):
    """A procedure of a version."""

    name: str
    result: Declaration
    arguments: list[Declaration]
    number: Value
    line: int


class VersionDefinition(NamedTuple):
    """A version of a program."""

    name: str
    procedures: list[ProcedureDefinition]
    number: Value
    line: int


class ProgramDefinition(NamedTuple):
    """C{program}."""

    name: str
    versions: list[VersionDefinition]
    number: Value
    line: int


Definition = TypeDefinition | ConstDefinition | ProgramDefinition

#: Words that name nothing else.
_RESERVED = frozenset(
    [
        *("bool", "case", "const", "default", "double", "quadruple", "enum", "float", "hyper"),
        *("int", "opaque", "program", "string", "struct", "switch", "typedef", "union"),
        *("unsigned", "version", "void"),
    ]
)


def parse(text: str, file: str) -> list[Definition]:
    """
    The definitions in a text.

    @param file: its name, for messages.
    @raise LanguageError: something is not as the language has it.
    """
    return _Parser(text, file).definitions()


class _Parser:
    """A text while it is read: recursive descent, with one word in view."""

    def __init__(self, text: str, file: str) -> None:
        self._file = file
        self._tokens = tokens_of(text, file)
        self._next = next(self._tokens)

    def definitions(self) -> list[Definition]:
        found: list[Definition] = []
        while self._next.kind != "end":
            found.append(self._definition())
            self._take(";")
        return found

    # Words

    def _wrong(self, expected: str, token: Token) -> LanguageError:
        shown = token.text if token.kind == "end" else repr(token.text)
        return LanguageError(self._file, token.line, f"{expected} expected, not {shown}")

    def _any(self) -> Token:
        token = self._next
        if token.kind != "end":
            self._next = next(self._tokens)
        return token

    def _take(self, text: str) -> Token:
        token = self._any()
        if token.text != text or token.kind == "end":
            raise self._wrong(repr(text), token)
        return token

    def _takes(self, *texts: str) -> str:
        """Take one of these words if it is next."""
        if self._next.kind != "end" and self._next.text in texts:
            return self._any().text
        return ""

    def _name(self) -> Token:
        token = self._any()
        if token.kind != "name" or token.text in _RESERVED:
            raise self._wrong("a name", token)
        return token

    def _value(self) -> Value:
        token = self._any()
        if token.kind == "number" or (token.kind == "name" and token.text not in _RESERVED):
            return Value(token.text, token.line)
        raise self._wrong("a number or the name of one", token)

    # Definitions

    def _definition(self) -> Definition:
        token = self._any()
        line = token.line
        if token.text == "typedef":
            declaration = self._declaration()
            if not declaration.name:
                raise LanguageError(self._file, line, "void has no name, so no typedef")
            return TypeDefinition(declaration.name, declaration, line)
        if token.text in ("enum", "struct", "union"):
            name = self._name().text
            spec = Spec(name, line, self._body(token.text))
            return TypeDefinition(name, Declaration(name, spec, Shape(), line), line)
        if token.text == "const":
            name = self._name().text
            self._take("=")
            return ConstDefinition(name, self._value(), line)
        if token.text == "program":
            return self._program(line)
        raise self._wrong("const, typedef, enum, struct, union or program", token)

    def _body(self, word: str) -> EnumBody | StructBody | UnionBody:
        if word == "enum":
            return self._enum()
        return self._struct() if word == "struct" else self._union()

    def _enum(self) -> EnumBody:
        self._take("{")
        members = []
        while True:
            name = self._name()
            members.append((name.text, self._value() if self._takes("=") else None, name.line))
            if not self._takes(","):
                break
        self._take("}")
        return EnumBody(members)

    def _struct(self) -> StructBody:
        self._take("{")
        fields = []
        while not self._takes("}"):
            fields.append(self._declaration())
            self._take(";")
        return StructBody(fields)

    def _union(self) -> UnionBody:
        self._take("switch")
        self._take("(")
        switch = self._declaration()
        self._take(")")
        self._take("{")
        arms: list[tuple[list[Value | None], Declaration]] = []
        while not self._takes("}"):
            cases: list[Value | None] = []
            while word := self._takes("case", "default"):
                cases.append(self._value() if word == "case" else None)
                self._take(":")
            if not cases:
                raise self._wrong("case, default or '}'", self._next)
            arms.append((cases, self._declaration()))
            self._take(";")
        return UnionBody(switch, arms)

    def _program(self, line: int) -> ProgramDefinition:
        name = self._name().text
        self._take("{")
        versions = []
        while not self._takes("}"):
            versions.append(self._version())
        self._take("=")
        return ProgramDefinition(name, versions, self._value(), line)

    def _version(self) -> VersionDefinition:
        line = self._take("version").line
        name = self._name().text
        self._take("{")
        procedures = []
        while not self._takes("}"):
            procedures.append(self._procedure())
        self._take("=")
        number = self._value()
        self._take(";")
        return VersionDefinition(name, procedures, number, line)

    def _procedure(self) -> ProcedureDefinition:
        result = self._nameless()
        name = self._name()
        self._take("(")
        arguments = []
        if not self._takes(")"):
            arguments.append(self._nameless())
            while self._takes(","):
                arguments.append(self._nameless())
            self._take(")")
        if len(arguments) == 1 and arguments[0].spec.name == "void":
            arguments = []
        self._take("=")
        number = self._value()
        self._take(";")
        return ProcedureDefinition(name.text, result, arguments, number, name.line)

    # Types

    def _nameless(self) -> Declaration:
        """The type of an argument or a result; of an array C{rpcgen} wants a typedef."""
        spec = self._spec()
        shape = Shape()
        if spec.name == "string" and self._takes("<"):
            shape = self._angle()
        elif spec.name == "opaque":
            raise LanguageError(self._file, spec.line, "opaque here needs a typedef")
        elif self._takes("*"):
            shape = Shape("*")
        return Declaration("", spec, shape, spec.line)

    def _declaration(self) -> Declaration:
        spec = self._spec()
        if spec.name == "void":
            return Declaration("", spec, Shape(), spec.line)
        is_optional = bool(self._takes("*"))
        name = self._name()
        shape = Shape("*") if is_optional else Shape()
        if is_optional and spec.name in ("string", "opaque"):
            raise LanguageError(self._file, spec.line, f"{spec.name} *: write a typedef first")
        if not is_optional:
            if self._takes("["):
                shape = Shape("[", self._value())
                self._take("]")
            elif self._takes("<"):
                shape = self._angle()
        if spec.name == "string" and shape.kind != "<":
            raise self._wrong("'<' behind the name of a string", self._next)
        if spec.name == "opaque" and not shape.kind:
            raise self._wrong("'[' or '<' behind the name of opaque", self._next)
        return Declaration(name.text, spec, shape, name.line)

    def _angle(self) -> Shape:
        size = None
        if self._next.text != ">":
            size = self._value()
        self._take(">")
        return Shape("<", size)

    def _spec(self) -> Spec:
        token = self._any()
        if token.text == "unsigned":
            word = self._takes("int", "hyper", "long", "short", "char")
            return Spec(f"unsigned {word or 'int'}", token.line)
        if token.text in ("enum", "struct", "union"):
            if (token.text != "union" and self._next.text == "{") or self._next.text == "switch":
                return Spec("", token.line, self._body(token.text))
            return Spec(self._name().text, token.line)
        is_type = token.text not in ("case", "const", "default", "program", "switch", "typedef")
        if token.kind != "name" or not is_type or token.text == "version":
            raise self._wrong("a type", token)
        return Spec(token.text, token.line)
