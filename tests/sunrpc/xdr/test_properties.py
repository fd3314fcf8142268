"""Hypothesis: values of random types come back, and any bytes are a value or an error."""

from enum import IntEnum
from typing import Annotated, Any

from hypothesis import given
from hypothesis import strategies as st

from sockserve.sunrpc import (
    Case,
    DecodeError,
    Double,
    Fixed,
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


class Kind(IntEnum):
    A = 0
    B = 1
    C = 2


class Pair(Struct):
    left: Int
    right: Annotated[bytes, Max(9)]


class Either(Union, switch=Kind):
    pair: Annotated[Pair, Case(Kind.A)]
    many: Annotated[list[Pair], Case(Kind.B)]
    nothing: Annotated[None, Otherwise]


class Node(Struct):
    value: Either
    next: "Node | None"


PAIRS = st.builds(Pair, st.integers(-(2**31), 2**31 - 1), st.binary(max_size=9))
EITHERS = st.one_of(
    st.builds(Either, st.just(Kind.A), PAIRS),
    st.builds(Either, st.just(Kind.B), st.lists(PAIRS, max_size=4)),
    st.just(Either(Kind.C)),
)


def nodes(values: list[Either]) -> Node | None:
    first = None
    for value in values:
        first = Node(value, first)
    return first


_PLAIN: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (Int, st.integers(-(2**31), 2**31 - 1)),
    (UnsignedInt, st.integers(0, 2**32 - 1)),
    (Hyper, st.integers(-(2**63), 2**63 - 1)),
    (UnsignedHyper, st.integers(0, 2**64 - 1)),
    (Double, st.floats(allow_nan=False)),
    (Quad, st.builds(Quad, st.integers(0, 2**128 - 1))),
    (bool, st.booleans()),
    (Kind, st.sampled_from(Kind)),
    (bytes, st.binary(max_size=20)),
    (str, st.text("aé\U0001f600\udcff", max_size=20)),
    (Annotated[bytes, Fixed(7)], st.binary(min_size=7, max_size=7)),
    (Pair, PAIRS),
    (Either, EITHERS),
    (Node | None, st.lists(EITHERS, max_size=5).map(nodes)),
]


def _wider(inner: tuple[Any, st.SearchStrategy[Any]]) -> list[tuple[Any, Any]]:
    kind, values = inner
    return [
        (list[kind], st.lists(values, max_size=5)),  # type: ignore[valid-type]
        (Annotated[list[kind], Fixed(3)], st.lists(values, min_size=3, max_size=3)),  # type: ignore[valid-type]
        (kind | None, st.none() | values),
    ]


_TYPES = _PLAIN + [
    wide for each in _PLAIN if "Optional" not in repr(each[0]) for wide in _wider(each)
]


@given(st.data(), st.sampled_from(_TYPES))
def test_what_is_packed_comes_back(data: st.DataObject, kind: tuple[Any, Any]) -> None:
    value = data.draw(kind[1])
    packed = pack(kind[0], value)
    assert len(packed) % 4 == 0
    assert unpack(kind[0], packed) == value


@given(st.binary(max_size=200), st.sampled_from(_TYPES))
def test_any_bytes_are_a_value_or_an_error(data: bytes, kind: tuple[Any, Any]) -> None:
    try:
        value = unpack(kind[0], data)
    except DecodeError:
        return
    assert len(pack(kind[0], value)) == len(data)


@given(st.floats())
def test_a_float_is_the_same_as_a_quadruple(value: float) -> None:
    assert repr(float(Quad.from_float(value))).lstrip("-") == repr(value).lstrip("-")
