"""Outlines of pixels, judged by matplotlib's and scikit-image's own polygon filling and by connected components."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib.path import Path as Polygon
from scipy import ndimage
from skimage.draw import polygon2mask

from cpfnet.formats.dicom.rtstruct.trace_contours import outlines


@settings(max_examples=200, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))))
def test_outlines_enclose_exactly_the_pixels(mask: np.ndarray) -> None:
    found = outlines(mask)
    parts, count = ndimage.label(mask)  # connected by edges
    assert len(found) == count
    centres = np.argwhere(np.ones_like(mask))
    united = np.zeros_like(parts)
    for outline in found:
        for inside in (
            polygon2mask(mask.shape, outline),
            Polygon(outline).contains_points(centres).reshape(mask.shape),
        ):
            (number,) = np.unique(parts[inside])
            np.testing.assert_array_equal(inside, parts == number)  # holes stay holes
        united[inside] = number
    np.testing.assert_array_equal(united, parts)


@settings(max_examples=50, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_outlines_keep_away_from_centres_and_near_to_edges(mask: np.ndarray) -> None:
    centres = np.argwhere(np.ones_like(mask))
    whole = ndimage.binary_fill_holes(mask)  # without slits, which cross the inside
    inside, outside = (np.argwhere(np.pad(part, 1, constant_values=part is not whole)) - 1 for part in (whole, ~whole))
    for outline in (*outlines(mask), *outlines(whole)):
        steps = np.linspace(outline, np.roll(outline, -1, axis=0), 9).reshape(-1, 2)
        assert np.linalg.norm(steps[:, None] - centres, axis=2).min() >= 0.25 - 1e-9
    for outline in outlines(whole):
        steps = np.linspace(outline, np.roll(outline, -1, axis=0), 9).reshape(-1, 2)
        for pixels in (inside, outside):
            assert np.abs(steps[:, None] - pixels).max(axis=2).min(axis=1).max() <= 0.75 + 1e-9


def test_straight_lines_have_two_points() -> None:
    mask = np.zeros((30, 40), bool)
    mask[5:25, 4:36] = True
    (outline,) = outlines(mask)
    assert len(outline) == 8  # the corners are cut


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_noise_is_outlined(share: float) -> None:
    """As a network makes it that has learned nothing."""
    mask = np.random.default_rng(1).random((160, 160)) < share
    drawn = np.zeros_like(mask)
    for outline in outlines(mask):
        drawn ^= polygon2mask(mask.shape, outline)
    np.testing.assert_array_equal(drawn, mask)
