"""Entropy of probabilities, against scipy's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import softmax

from cpfnet.inference.quality.entropy import entropy


@pytest.mark.parametrize("shape", [(2, 5, 6), (4, 3, 5, 6)])
def test_exclusive_classes(shape):
    planes = softmax(np.random.default_rng(0).normal(0, 2, shape), axis=0).astype(np.float32)
    found = entropy(planes, exclusive=True)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, stats.entropy(planes, axis=0, base=shape[0]), atol=1e-6)


def test_regions_are_each_there_or_not():
    planes = np.random.default_rng(0).random((3, 5, 6)).astype(np.float32)
    expected = np.mean([stats.entropy(np.stack([p, 1 - p]), axis=0, base=2) for p in planes], axis=0)
    np.testing.assert_allclose(entropy(planes, exclusive=False), expected, atol=1e-6)


def test_planes_may_come_one_by_one():
    planes = softmax(np.random.default_rng(0).normal(0, 2, (3, 5, 6)), axis=0)
    np.testing.assert_array_equal(entropy((plane for plane in planes), exclusive=True), entropy(planes, exclusive=True))


def test_planes_are_left_as_they_are():
    planes = np.full((2, 3, 3), 0.5, np.float32)
    assert (entropy(planes, exclusive=False) == 1).all()
    assert (planes == 0.5).all()


@settings(deadline=None)
@given(count=st.integers(2, 9), exclusive=st.booleans())
def test_from_certain_to_all_alike(count, exclusive):
    certain = np.zeros((count, 1, 1), np.float32)
    certain[1] = 1
    alike = np.full((count, 1, 1), 1 / count if exclusive else 0.5, np.float32)
    assert entropy(certain, exclusive=exclusive) == 0
    assert entropy(alike, exclusive=exclusive) == pytest.approx(1, abs=1e-6)
