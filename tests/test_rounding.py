"""Comparisons with room for rounding."""

import numpy as np
import pytest

from cpfnet.rounding import above, below


@pytest.mark.parametrize("limit", [5e-5, 0.2, 1.0, 3.0, 1e6, -1000.0])
def test_rounding_is_neither_above_nor_below_and_more_is(limit):
    for near in (limit, np.float32(limit), limit * (1 + 1e-6), limit * (1 - 1e-6)):
        assert not above(near, limit)
        assert not below(near, limit)
    assert above(limit + 1e-3 * abs(limit), limit)
    assert below(limit - 1e-3 * abs(limit), limit)


def test_of_arrays_each_element_and_what_is_no_number_is_neither():
    values = np.array([0.999, 0.99999999, 1.00000003, 1.001, np.inf, np.nan])
    np.testing.assert_array_equal(above(values, 1.0), [False, False, False, True, True, False])
    np.testing.assert_array_equal(below(values, 1.0), [True, False, False, False, False, False])


def test_nothing_is_as_near_to_zero_as_zero():
    assert above(1e-12, 0)
    assert not above(0.0, 0)
    assert not above(5.0, np.inf)
    assert not below(-5.0, -np.inf)
