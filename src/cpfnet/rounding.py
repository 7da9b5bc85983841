"""Comparisons that allow for rounding: numbers that are equal on paper are equal here."""

from __future__ import annotations

from typing import Any, TypeVar

ROUNDING = 1e-5
"""Share of a number that may be rounding.

Files keep geometry as float32 or as decimals: the column of an oblique affine that stands for 1 mm has a length of
1.00000003, and a spacing of 1/3 mm is written as 0.333333. Runtimes and threads add up float32 in another order. All
such differences are below 1e-5, and no measured distance, volume or probability is known so well.
"""

_Number = TypeVar("_Number", bound=Any)
"""A number, or an array of them."""


def above(value: _Number, limit: float) -> _Number:
    """Is it larger, by more than rounding? For an array: each element."""
    return value > limit + ROUNDING * abs(limit)


def below(value: _Number, limit: float) -> _Number:
    """Is it smaller, by more than rounding? For an array: each element."""
    return value < limit - ROUNDING * abs(limit)
