"""Quadruples, and the floats that are nearest."""

import math

import pytest

from sockserve.sunrpc import Quad


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1.0, -2.5, 0.1, 5e-324, 1.7976931348623157e308, math.inf, -math.inf]
)
def test_a_float_comes_back(value: float) -> None:
    assert repr(float(Quad.from_float(value))) == repr(value)


def test_what_is_no_number_comes_back() -> None:
    assert math.isnan(float(Quad.from_float(math.nan)))


def test_more_than_a_float_holds_is_the_nearest() -> None:
    assert float(Quad(0x7FFE << 112)) == math.inf
    assert float(Quad(1 << 127 | 0x7FFE << 112)) == -math.inf
    assert float(Quad(1)) == 0.0
    assert float(Quad(0x3FFF << 112 | 1)) == 1.0


def test_numbers_are_told_apart_by_their_bits() -> None:
    assert Quad.from_float(0.0) != Quad.from_float(-0.0)
    assert len({Quad(1), Quad(1), Quad(2)}) == 2
    assert Quad(1) != 1
    assert repr(Quad(255)) == "Quad(0x000000000000000000000000000000ff)"
    with pytest.raises(ValueError, match="128 bits"):
        Quad(2**128)
