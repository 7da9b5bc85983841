"""Centre lines and thin vessels, by hand on bars whose width is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cpfnet.evaluation.metrics.vessels import THIN, cldice, thin, thin_recall
from tests.evaluation.metrics.test_binary import SHAPES


def bar(width: int, length: int = 30) -> np.ndarray:
    out = np.zeros((width + 8, length + 8), bool)
    out[4 : 4 + width, 4 : 4 + length] = True
    return out


def slanted(width: float, degrees: float, offset: float = 0.0, size: int = 120) -> np.ndarray:
    """Pixels whose centres lie within half the width of a line."""
    angle = np.radians(degrees)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    across, along = x * np.sin(angle) - y * np.cos(angle) - offset, x * np.cos(angle) + y * np.sin(angle)
    return (np.abs(across) <= width / 2) & (np.abs(along) < 0.4 * size)


def test_cldice_of_a_line_and_its_broken_copy():
    line = np.zeros((9, 30), bool)
    line[4, 2:28] = True
    broken = line.copy()
    broken[4, 10:23] = False  # half of the line
    assert cldice(line, line) == 1
    assert cldice(broken, line) == pytest.approx(2 * 1 * 0.5 / 1.5)
    thick = np.zeros_like(line)
    thick[3:6, 1:29] = True  # width is not topology
    assert cldice(thick, line) == pytest.approx(1, abs=0.05)  # thinning shortens a thick end by a pixel


@given(st.data())
def test_cldice_is_a_share(data):
    masks = hnp.arrays(bool, data.draw(SHAPES)).filter(lambda m: m.any())
    assert 0 <= cldice(data.draw(masks), data.draw(masks)) <= 1


@pytest.mark.parametrize("width", range(1, 8))
def test_bars_are_thin_up_to_three_pixels(width):
    for mask in (bar(width), bar(width).T):
        np.testing.assert_array_equal(thin(mask), mask & (width <= THIN))


@pytest.mark.parametrize(("radius", "centre"), [(1, 0), (1.5, 0), (2.2, 0.25), (2.5, 0), (3, 0.25)])
def test_tubes_in_volumes(radius, centre):
    z, y, x = np.mgrid[:12, :12, :30]
    tube = (np.hypot(z - 5.5 + centre, y - 6 + centre) <= radius) & (x > 2) & (x < 27)
    share = thin(tube).sum() / tube.sum()
    assert share == 1 if radius <= 1.5 else share < 0.1


def test_a_volume_of_one_slice_is_the_image_it_is():
    for width in (3, 4):
        np.testing.assert_array_equal(thin(bar(width)[:, None])[:, 0], thin(bar(width)))


@pytest.mark.parametrize("degrees", [20, 30, 45, 60, 115, 150])
@pytest.mark.parametrize("offset", [0, 0.3, 0.6])
def test_slanted_vessels(degrees, offset):
    narrow, broad = slanted(2.7, degrees, offset), slanted(3.8, degrees, offset)
    np.testing.assert_array_equal(thin(narrow), narrow)
    assert thin(broad).sum() < 0.05 * broad.sum()


def test_diagonals_are_counted_by_their_real_width():
    y, x = np.mgrid[:40, :40]
    inside = (x + y > 15) & (x + y < 65)
    four, five = inside & (np.abs(x - y - 0.5) < 2), inside & (np.abs(x - y) < 3)  # 4 × 0.71 = 2.8 and 5 × 0.71 = 3.5
    assert thin(four).all(where=four)
    assert not thin(five).any()


def test_a_branch_is_thin_and_its_stem_is_not():
    mask = np.zeros((40, 60), bool)
    mask[10:17, 2:58] = True  # 7 wide
    mask[17:38, 30:32] = True  # 2 wide
    found = thin(mask)
    assert not found[10:17].any()
    assert found[19:38, 30:32].all()


def test_a_rough_edge_is_no_vessel():
    mask = np.zeros((20, 60), bool)
    mask[6:13, 3:57] = True
    mask[5, 4:56:5] = True  # one pixel out here and there
    assert thin(mask).sum() <= 2


@given(hnp.arrays(bool, SHAPES))
def test_thin_pixels_are_of_the_mask_and_a_margin_changes_nothing(mask):
    found = thin(mask)
    assert not (found & ~mask).any()
    wide = np.pad(mask, 3)
    np.testing.assert_array_equal(thin(wide)[(slice(3, -3),) * mask.ndim], found)


def test_recall_counts_thin_pixels_alone():
    truth = np.zeros((40, 60), bool)
    truth[5, 5:45] = True  # 40 thin pixels
    truth[20:30, 5:55] = True
    prediction = np.zeros_like(truth)
    prediction[5, 5:15] = True
    assert thin_recall(prediction, truth) == 10 / 40  # what is missed of the wide one does not count
    prediction[0:12] = True
    assert thin_recall(prediction, truth) == 1  # nor does what is too much
    assert math.isnan(thin_recall(prediction, np.zeros_like(truth)))
    wide = truth.copy()
    wide[:15] = False
    assert math.isnan(thin_recall(prediction, wide))
    nothing = np.zeros((0, 0), bool)
    assert math.isnan(thin_recall(nothing, nothing))
