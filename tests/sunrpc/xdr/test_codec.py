"""Values of each type of XDR, there and back; and what is no value."""

import copy
import dataclasses
import pickle
import struct
import traceback
from enum import IntEnum
from typing import Annotated, Any

import pytest

from sockserve import ConfigurationError
from sockserve.sunrpc import (
    Case,
    Codec,
    DecodeError,
    Double,
    EncodeError,
    Fixed,
    Float,
    Hyper,
    Int,
    Max,
    Otherwise,
    Quad,
    Struct,
    Union,
    UnsignedHyper,
    UnsignedInt,
    pack,
    unpack,
)
from sockserve.sunrpc.xdr.declaring import type_of
from sockserve.sunrpc.xdr.errors import MAX_DEPTH
from sockserve.sunrpc.xdr.unpacking import make_unpack_from


class Color(IntEnum):
    RED = 2
    GREEN = -3


class Point(Struct):
    x: Int
    y: Double


class Node(Struct):
    value: Int
    next: "Node | None"


class Tree(Struct):
    left: "Tree | None"
    right: "Tree | None"
    value: Int


class Switch(Struct):
    number: UnsignedInt
    is_on: bool


class Answer(Union, switch=Color):
    point: Annotated[Point, Case(Color.RED)]
    text: Annotated[str, Otherwise]


class Strict(Union):
    one: Annotated[bool, Case(1, 2)]


class Nobody(Struct):
    pass


class Large(Struct):
    numbers: Annotated[list[Int], Fixed(100)]
    points: list[Point]
    answers: Annotated[list[Answer], Max(2)]


POINT = struct.pack(">id", 1, 2.5)

VALUES: list[tuple[Any, Any, bytes]] = [
    (Int, -2, b"\xff\xff\xff\xfe"),
    (int, 7, b"\0\0\0\7"),
    (UnsignedInt, 2**32 - 1, b"\xff\xff\xff\xff"),
    (Hyper, -2, b"\xff" * 7 + b"\xfe"),
    (UnsignedHyper, 2**64 - 1, b"\xff" * 8),
    (Float, 1.5, struct.pack(">f", 1.5)),
    (float, 0.1, struct.pack(">d", 0.1)),
    (Quad, Quad.from_float(1.0), b"\x3f\xff" + bytes(14)),
    (bool, True, b"\0\0\0\1"),
    (Color, Color.GREEN, b"\xff\xff\xff\xfd"),
    (None, None, b""),
    (Nobody, Nobody(), b""),
    (bytes, b"abcde", b"\0\0\0\5abcde\0\0\0"),
    (Annotated[bytes, Max(4)], b"abcd", b"\0\0\0\4abcd"),
    (Annotated[bytes, Fixed(5)], b"abcde", b"abcde\0\0\0"),
    (Annotated[bytes, Fixed(0)], b"", b""),
    (str, "né", b"\0\0\0\3n\xc3\xa9\0"),
    (str, "\udcff", b"\0\0\0\1\xff\0\0\0"),
    (list[Int], [1, 2], b"\0\0\0\2\0\0\0\1\0\0\0\2"),
    (list[str], ["a", ""], b"\0\0\0\2\0\0\0\1a\0\0\0\0\0\0\0"),
    (Annotated[list[bool], Fixed(2)], [True, False], b"\0\0\0\1\0\0\0\0"),
    (Annotated[list[Int], Fixed(0)], [], b""),
    (Int | None, None, bytes(4)),
    (Int | None, 3, b"\0\0\0\1\0\0\0\3"),
    (None | str, "", b"\0\0\0\1\0\0\0\0"),
    (list[Quad], [Quad(1)], b"\0\0\0\1" + bytes(15) + b"\1"),
    (list[Annotated[bytes, Fixed(2)]], [b"ab"], b"\0\0\0\1ab\0\0"),
    (list[Annotated[list[Int], Fixed(2)]], [[1, 2]], b"\0\0\0\1\0\0\0\1\0\0\0\2"),
    (list[Int], list(range(600)), struct.pack(">I600i", 600, *range(600))),
    (Point, Point(1, 2.5), POINT),
    (list[Point], [Point(1, 2.5)] * 2, b"\0\0\0\2" + POINT * 2),
    (list[Switch], [Switch(7, True), Switch(8, False)], struct.pack(">5I", 2, 7, 1, 8, 0)),
    (list[Switch], [], bytes(4)),
    (
        Annotated[list[Switch], Fixed(40)],
        [Switch(7, True)] * 40,
        struct.pack(">2I", 7, 1) * 40,
    ),
    (Answer, Answer(Color.RED, Point(1, 2.5)), b"\0\0\0\2" + POINT),
    (Answer, Answer(Color.GREEN, "a"), b"\xff\xff\xff\xfd\0\0\0\1a\0\0\0"),
    (Strict, Strict(2, False), b"\0\0\0\2\0\0\0\0"),
    (Node, Node(1, Node(2, None)), b"\0\0\0\1\0\0\0\1\0\0\0\2\0\0\0\0"),
    (Node | None, None, bytes(4)),
    (
        Tree,
        Tree(None, Tree(None, None, 2), 1),
        b"\0\0\0\0\0\0\0\1" + bytes(8) + b"\0\0\0\2\0\0\0\1",
    ),
    (
        Large,
        Large(list(range(100)), [Point(1, 2.5)], [Answer(Color.GREEN, "")]),
        struct.pack(">100i", *range(100))
        + b"\0\0\0\1"
        + POINT
        + b"\0\0\0\1\xff\xff\xff\xfd\0\0\0\0",
    ),
]
each_value = pytest.mark.parametrize(("kind", "value", "data"), VALUES, ids=lambda each: None)


@each_value
def test_a_value_is_packed_as_the_rfc_says(kind: Any, value: Any, data: bytes) -> None:
    assert pack(kind, value) == data


@each_value
def test_bytes_are_unpacked_as_the_value(kind: Any, value: Any, data: bytes) -> None:
    assert unpack(kind, data) == value
    assert unpack(kind, memoryview(data)) == value
    assert unpack(kind, memoryview(data).cast("I")) == value
    spread = b"".join(bytes([each, 0]) for each in data)
    assert unpack(kind, memoryview(spread)[::2]) == value


@each_value
def test_a_codec_is_the_functions_of_one_type(kind: Any, value: Any, data: bytes) -> None:
    codec = Codec(kind)
    assert codec.pack(value) == data
    assert codec.unpack(bytearray(data)) == value


@each_value
def test_bytes_that_end_early_or_late_are_no_value(kind: Any, value: Any, data: bytes) -> None:
    for size in range(len(data)):
        with pytest.raises(DecodeError) as caught:
            unpack(kind, data[:size])
        said = "".join(traceback.format_exception(caught.value))
        assert "During handling of" not in said
    for make in (bytes, memoryview, lambda late: memoryview(late).cast("I")):
        with pytest.raises(DecodeError, match="4 bytes more than it has"):
            unpack(kind, make(data + b"\0\0\0\0"))


def test_a_value_among_others_has_a_place() -> None:
    unpack_from = make_unpack_from(type_of(bytes))
    assert unpack_from(b"....\0\0\0\1a\0\0\0....", 4) == (b"a", 12)
    for data in (b"....\0\0\0\1a", b"....\0\0\0\1", b"....", b""):
        with pytest.raises(DecodeError):
            unpack_from(data, 4)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (bool, b"\0\0\0\2"),
        (Color, b"\0\0\0\1"),
        (Int | None, b"\0\0\0\2\0\0\0\0"),
        (bytes, b"\xff\xff\xff\xff"),
        (Annotated[str, Max(2)], b"\0\0\0\3abc\0"),
        (list[Int], b"\x7f\xff\xff\xff\0\0\0\0"),
        (list[Node], b"\x10\0\0\0"),
        (Annotated[list[Int], Max(1)], b"\0\0\0\2" + bytes(8)),
        (Strict, b"\0\0\0\3\0\0\0\0"),
        (Answer, b"\0\0\0\0\0\0\0\0"),
    ],
)
def test_what_is_no_value_is_not_unpacked(kind: Any, data: bytes) -> None:
    with pytest.raises(DecodeError):
        unpack(kind, data)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Int, 2**31),
        (Int, "1"),
        (UnsignedInt, -1),
        (Float, 1e300),
        (bool, 2),
        (Color, 1),
        (None, 0),
        (bytes, "text"),
        (str, b"bytes"),
        (Annotated[str, Max(2)], "né"),
        (Annotated[bytes, Fixed(2)], b"abc"),
        (Annotated[list[Int], Fixed(2)], [1]),
        (Annotated[list[Int], Fixed(100)], [1]),
        (Annotated[list[Int], Max(1)], [1, 2]),
        (list[Int], [None]),
        (Point, None),
        (Strict, Strict(3, True)),
        (Answer, Answer(7, "")),
        (Quad, 1.0),
        (list[Point], [[1]]),
        (list[Switch], [Switch(7, 2)]),  # type: ignore[arg-type]
        (list[Switch], [Switch(-1, True)]),
        (list[Switch], [None]),
        (Annotated[list[Point], Fixed(2)], 5),
    ],
)
def test_what_is_no_value_is_not_packed(kind: Any, value: Any) -> None:
    with pytest.raises(EncodeError):
        pack(kind, value)


def test_a_list_may_have_any_length() -> None:
    first = None
    for number in range(50_000):
        first = Node(number, first)
    last = unpack(Node, pack(Node, first))
    assert last.value == 49_999
    count = 0
    while last is not None:
        last, count = last.next, count + 1
    assert count == 50_000


def test_other_values_are_nested_so_deep_and_no_deeper() -> None:
    tree = None
    for number in range(MAX_DEPTH + 1):
        tree = Tree(tree, None, number)
    assert pack(Tree, unpack(Tree, pack(Tree, tree))) == pack(Tree, tree)
    with pytest.raises(EncodeError, match="nested"):
        pack(Tree, Tree(tree, None, 0))
    with pytest.raises(DecodeError, match="nested"):
        unpack(Tree, b"\0\0\0\1" * 100_000)


class Endless(Struct):
    again: "Endless"


class Unknown(Struct):
    field: "Nothing"  # type: ignore[name-defined]  # noqa: F821


class NoCase(Union):
    arm: Int


class TwoCases(Union):
    arm: Annotated[Int, Case(1)]
    other: Annotated[Int, Case(1)]


class ByText(Union, switch=str):
    arm: Annotated[Int, Case(1)]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Endless, "has no end"),
        (Unknown, "Nothing"),
        (list[Nobody], "no bytes"),
        (NoCase, "Case"),
        (TwoCases, "two arms"),
        (ByText, "chooses no arm"),
        (dict, "no type of XDR"),
        (int | str, "no type of XDR"),
        (list[None], "no bytes"),
        (Int | str | None, "no type of XDR"),
        (Annotated[Int, Max(3)], None),
        (Annotated[bool, Max(3)], "does not go with bool"),
        (Annotated[str, Fixed(3)], "does not go with string"),
        (Annotated[str, Max(-1)], "no length"),
    ],
)
def test_what_is_no_type_is_told_in_one_line(kind: Any, words: str | None) -> None:
    if words is None:  # the type itself, whatever is noted besides
        assert unpack(kind, bytes(4)) == 0
        return
    with pytest.raises(ConfigurationError, match=words) as raised:
        unpack(kind, b"")
    assert "\n" not in str(raised.value)


def test_values_of_a_union_are_compared_and_shown() -> None:
    assert Strict(1, True) != Strict(2, True)
    assert Strict(1, True) != 1
    assert repr(Strict(1, True)) == "Strict(1, True)"


class Checked(Struct):
    low: Int
    high: Int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


class Doubling(Struct):
    number: Int

    def __init__(self, number: int) -> None:
        self.number = 2 * number


class CheckedNode(Struct):
    value: Int
    next: "CheckedNode | None"

    def __post_init__(self) -> None:
        if self.value < 0:
            raise ValueError("a value below 0")


def test_what_an_element_of_a_list_does_when_it_is_made_is_done_when_it_is_unpacked() -> None:
    value = CheckedNode(1, CheckedNode(2, None))
    assert unpack(CheckedNode, pack(CheckedNode, value)) == value
    with pytest.raises(ValueError, match="below 0"):
        unpack(CheckedNode, struct.pack(">iIiI", 1, 1, -1, 0))


def test_what_a_structure_does_when_it_is_made_is_done_when_it_is_unpacked() -> None:
    with pytest.raises(ValueError, match="low is above high"):
        unpack(Checked, struct.pack(">ii", 2, 1))
    assert unpack(Doubling, struct.pack(">i", 2)).number == 4
    assert unpack(list[Doubling], struct.pack(">Ii", 1, 2))[0].number == 4


@pytest.mark.parametrize("make", [bytearray, memoryview])
@pytest.mark.parametrize("kind", [bytes, Annotated[bytes, Fixed(5)]])
def test_bytes_may_be_in_any_buffer(kind: Any, make: Any) -> None:
    assert pack(kind, make(b"abcde")) == pack(kind, b"abcde")


@pytest.mark.parametrize("value", [5, [1, 2], "text", None])
def test_what_is_no_bytes_is_not_taken_for_some(value: object) -> None:
    with pytest.raises(EncodeError):
        pack(bytes, value)


def test_a_structure_has_its_fields_and_no_other_attributes() -> None:
    point = Point(1, 2.5)
    assert unpack(Point, pack(Point, point)).__slots__ == ["x", "y"]
    with pytest.raises(AttributeError):
        point.z = 3  # type: ignore[attr-defined]
    assert copy.copy(point) == pickle.loads(pickle.dumps(point)) == point
    assert dataclasses.asdict(point) == {"x": 1, "y": 2.5}


class Level(Struct):
    number: Int
    height: Int = 3


class Higher(Level):
    height: Int
    name: str = ""


class Shape(Point):
    z: Int


class Noted(Struct):
    __slots__ = ("__dict__", "number")
    number: Int


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (Level(1), struct.pack(">ii", 1, 3)),
        (Higher(1, name="a"), struct.pack(">iiI4s", 1, 3, 1, b"a")),
        (Shape(1, 2.5, 4), POINT + struct.pack(">i", 4)),
        (Noted(7), struct.pack(">i", 7)),
    ],
)
def test_a_structure_may_have_defaults_a_base_or_slots_of_its_own(value: Any, data: bytes) -> None:
    assert pack(type(value), value) == data
    assert unpack(type(value), data) == value


class Texts(Struct):
    first: str
    second: bytes
    third: str
    numbers: list[Int]
    points: list[Point]


def test_values_of_more_sizes_than_are_kept_are_packed_and_unpacked() -> None:
    """Each of the 600 lengths has layouts of its own, of which 512 are kept."""
    for size in (*range(600), *range(600)):
        points = [Point(size, 0.5)] * (size & 3)
        value = Texts("a" * size, b"b" * (size // 2), "cc" * size, [size] * size, points)
        assert unpack(Texts, pack(Texts, value)) == value
