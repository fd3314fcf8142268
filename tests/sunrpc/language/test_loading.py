"""Files in RPC's language: what they define, and mistakes in them."""

from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest

from sockserve import ConfigurationError
from sockserve.sunrpc import LanguageError, Quad, load, loads, pack, unpack

TEXT = """
/* Several
   lines */
%#include "something.h"
const SIZE = 0x10;
const OCTAL = 010;   // eight
const LESS = -1;
const SAME = SIZE;
enum color { RED, GREEN = 5, BLUE };
typedef opaque handle[SIZE];
typedef string name<255>;
typedef struct node *list;
struct node {
    name text;
    node *next;
};
struct all {
    unsigned a; unsigned hyper b; hyper c; long d; uint64_t e; quadruple q;
    bool f; float g; double h; color i;
    opaque j[5]; opaque k<>; string l<>;
    int m[2]; int n<3>; int *o;
    enum { FIRST = 1, SECOND = 2 } p;
    struct { int inner; } from;
    union switch (bool more) { case TRUE: int yes; case FALSE: void; } class;
    union switch (unsigned int which) { case 1: case 2: int x; default: void; } r;
    handle s;
};
program ONE {
    version ONE_1 {
        void NOTHING(void) = 0;
        list GET(int, string<5>, all, color *) = 1;
        string SAY(string) = 2;
        enum color PICK(struct node) = 3;
    } = 1;
    version ONE_3 { void QUIET() = 1; } = 3;
} = 0x20000001;
"""


@pytest.fixture(scope="session")
def module() -> Any:
    return loads(TEXT, "one.x")


def test_numbers_are_there(module: Any) -> None:
    assert (module.SIZE, module.OCTAL, module.LESS, module.SAME) == (16, 8, -1, 16)
    assert (module.ONE_1, module.ONE_3) == (1, 3)


def test_an_enumeration_counts_on_where_no_value_is_given(module: Any) -> None:
    assert issubclass(module.color, IntEnum)
    assert list(module.color) == [0, 5, 6]
    assert module.BLUE is module.color.BLUE


def test_a_value_of_each_type_comes_back(module: Any) -> None:
    all_ = module.all
    fields = [each.type for each in all_.xdr_type.fields]
    kinds = {each.name: each.type for each in all_.xdr_type.fields}
    value = all_(
        *(1, 2, -3, -4, 5, Quad(6), True, 0.5, 0.1, module.GREEN, b"12345", b"k", "l"),
        *([1, 2], [3], None, kinds["p"].members.SECOND, kinds["from_"].cls(7)),
        *(kinds["class_"].cls(True, 8), kinds["r"].cls(9, None), b"s" * 16),
    )
    assert len(fields) == 21
    assert unpack(all_, pack(all_, value)) == value


def test_a_list_comes_back(module: Any) -> None:
    value = module.node("a", module.node("b", None))
    assert unpack(module.list, pack(module.list, value)) == value
    assert pack(module.list, None) == bytes(4)


def test_a_program_has_its_procedures(module: Any) -> None:
    program = module.ONE
    assert (program.number, program.name, list(program.versions)) == (0x20000001, "ONE", [1, 3])
    get = program.versions[1].procedures[1]
    assert (get.name, len(get.arguments)) == ("GET", 4)
    assert program.versions[3].procedures[1].arguments == []
    assert "ONE" in repr(program)


MISTAKES = [
    ("struct a {int x};", "1: ';' expected, not '}'"),
    ("\n\nstruct", "3: a name expected, not the end of the file"),
    ("banana", "1: const, typedef, enum, struct, union or program expected, not 'banana'"),
    ("const A = 09;", "1: 09 is no number; one that begins with 0 is octal"),
    ("const A = Z;", "1: no number is called Z"),
    ("const A = B; const B = A;", "1: no number is called B"),
    ("const A = {;", "1: a number or the name of one expected, not '{'"),
    ("const A = 1; const A = 2;", "1: A is defined twice"),
    ("enum a { B = 1, B = 2 };", "1: B is defined twice"),
    ("enum a { B = 0x80000000 };", "1: B: 2147483648 is out of range for an enumeration"),
    ("struct a { colour b; }; enum color { C = 1 };", "1: no type is called colour; did you mean"),
    ("struct a {\n a b;\n};", "1: a contains itself, so it has no end"),
    ("typedef a b[3]; struct a { b c; };", "1: b contains itself, so it has no end"),
    ("typedef a b; typedef b a;", "1: b is defined by itself"),
    ("struct a { int x;\nint x; };", "2: a has two fields x"),
    ("struct a { void; };", "1: void is no field of a"),
    ("struct a { int __x; };", "1: __x is no name for a field in Python"),
    ("struct a { opaque x; };", "1: '[' or '<' behind the name of opaque expected"),
    ("struct a { string x; };", "1: '<' behind the name of a string expected"),
    ("struct a { string *x; };", "1: string *: write a typedef first"),
    ("struct a { int x[-1]; };", "1: -1 is out of range for a length"),
    ("struct a { case x; };", "1: a type expected, not 'case'"),
    ("typedef opaque a[0]; typedef a b<>;", "1: the elements of b take no bytes"),
    ("typedef void;", "1: void has no name"),
    ("union u switch (float f) { case 1: int a; };", "1: float chooses no arm of u"),
    ("union u switch (int f) { case 1: int a; case 1: int b; };", "1: u has two arms for 1"),
    ("union u switch (int f) { default: int a; default: int b; };", "1: u has two defaults"),
    ("union u switch (int f) { int a; };", "1: case, default or '}' expected, not 'int'"),
    ("enum e {A = 1}; union u switch (e f) { case 2: int a; };", "1: 2 is no member of e"),
    ("program P { version V { int F(int) = 1; } = 1; } = 0x1ffffffff;", "1: program P: 858993"),
    ("program P { version V { int F(int) = 1; } = -1; } = 1;", "1: version V: -1 is out of"),
    ("program P { version V { int F(int) = 0; } = 1; } = 1;", "1: F: procedure 0 takes and"),
    ("program P { version V { int F(opaque) = 1; } = 1; } = 1;", "1: opaque here needs a"),
    ("program P { version V { int F(int, void) = 1; } = 1; } = 1;", "1: F: void is no argument"),
    (
        "program P { version V { int F(int) = 1;\nint G(int) = 1; } = 1; } = 1;",
        "2: V has two procedures 1",
    ),
    (
        "program P { version V { } = 1; version W { } = 1; } = 1;",
        "1: P has two versions 1",
    ),
    ("program P { } = 1;", "1: P has no version"),
    ("/* x", "1: a comment without end"),
    ("\n\n  @", "3: '@' is no word"),
    ("const A = 12ab;", "1: '12ab' is no word"),
    ("#include <x.h>", "1: a line for C's preprocessor"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_mistake_is_told_in_one_line_with_its_place(text: str, message: str) -> None:
    with pytest.raises(LanguageError) as raised:
        loads(text, "bad.x")
    assert str(raised.value).startswith(f"bad.x:{message}")
    assert "\n" not in str(raised.value)


def test_a_file_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "two.x").write_text("const A = 1;")
    module = load(tmp_path / "two.x")
    assert (module.__name__, module.A) == ("two", 1)


def test_a_file_that_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.x: No such file or directory"):
        load(tmp_path / "none.x")
    (tmp_path / "binary.x").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"binary\.x: 'utf-8'"):
        load(tmp_path / "binary.x")


def test_an_empty_text_defines_nothing() -> None:
    assert [name for name in vars(loads("")) if not name.startswith("__")] == []
