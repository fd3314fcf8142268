"""
Quadruple-precision numbers (RFC 4506, section 4.8), which Python has no type for.

This room owns their 128 bits, and the way from and to C{float}.  It must not know where they are.
"""

from __future__ import annotations

import math

__all__ = ["Quad"]

_BIAS, _FRACTION_BITS, _LARGEST_EXPONENT = 16383, 112, 0x7FFF
_FRACTION = 2**_FRACTION_BITS - 1


class Quad:
    """
    A floating-point number of 128 bits, kept as it came.  C{float} gives the nearest of 64 bits.

    @ivar bits: as a whole number: sign, 15 bits of exponent, 112 of fraction.
    """

    __slots__ = ("bits",)

    def __init__(self, bits: int) -> None:
        if not 0 <= bits < 2**128:
            raise ValueError("a quadruple has 128 bits")
        self.bits = bits

    @classmethod
    def from_float(cls, value: float) -> Quad:
        """The number that C{value} is; each C{float} is one."""
        sign = (math.copysign(1.0, value) < 0) << 127
        if math.isnan(value):
            return cls(sign | _LARGEST_EXPONENT << _FRACTION_BITS | 1 << (_FRACTION_BITS - 1))
        if math.isinf(value):
            return cls(sign | _LARGEST_EXPONENT << _FRACTION_BITS)
        if not value:
            return cls(sign)
        mantissa, exponent = math.frexp(abs(value))
        fraction = int(math.ldexp(mantissa, 53)) << (_FRACTION_BITS - 52)
        return cls(sign | (exponent - 1 + _BIAS) << _FRACTION_BITS | (fraction & _FRACTION))

    def __float__(self) -> float:
        sign = -1.0 if self.bits >> 127 else 1.0
        exponent = self.bits >> _FRACTION_BITS & _LARGEST_EXPONENT
        fraction = self.bits & _FRACTION
        if exponent == _LARGEST_EXPONENT:
            return math.nan if fraction else sign * math.inf
        if exponent:
            fraction |= 1 << _FRACTION_BITS
        else:
            exponent = 1
        power = exponent - _BIAS - _FRACTION_BITS
        try:
            # Division of whole numbers rounds once, to the nearest.
            found = float(fraction << power) if power >= 0 else fraction / (1 << -power)
        except OverflowError:
            found = math.inf
        return sign * found

    def __eq__(self, other: object) -> bool:
        return self.bits == other.bits if isinstance(other, Quad) else NotImplemented

    def __hash__(self) -> int:
        return hash((Quad, self.bits))

    def __repr__(self) -> str:
        return f"Quad({self.bits:#034x})"
