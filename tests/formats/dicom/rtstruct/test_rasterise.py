"""Filling outlines: against matplotlib, against areas, and against itself turned over."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib.path import Path as Outline

from cpfnet.formats.dicom.rtstruct.rasterise import crossing, fill

SHAPE = (17, 23)
ANYWHERE = arrays.arrays(
    np.float64, st.tuples(st.integers(3, 12), st.just(2)), elements=st.floats(-6, 30, allow_subnormal=False)
)
ON_PIXELS = arrays.arrays(np.int64, st.tuples(st.integers(3, 8), st.just(2)), elements=st.integers(-2, 20)).map(
    lambda outline: outline.astype(float)
)


def centres(shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 2)


def distances(outline: np.ndarray) -> np.ndarray:
    """From every pixel centre to the outline, pixels."""
    starts, ends = outline, np.roll(outline, -1, axis=0)
    along = ends - starts
    length = np.maximum((along**2).sum(axis=1), 1e-300)
    share = np.clip(((centres()[:, None] - starts) * along).sum(axis=2) / length, 0, 1)
    return np.linalg.norm(centres()[:, None] - starts - share[..., None] * along, axis=2).min(axis=1).reshape(SHAPE)


def winding_parity(outline: np.ndarray) -> np.ndarray:
    """Even–odd by summing triangles, each judged by matplotlib, for centres off all triangles' edges."""
    inside = np.zeros(len(centres()), dtype=bool)
    for second, third in pairwise(outline[1:]):
        triangle = np.array([outline[0], second, third])
        inside ^= Outline(triangle).contains_points(centres())
    return inside.reshape(SHAPE)


@settings(max_examples=150, deadline=None)
@given(outline=ANYWHERE, shift=st.tuples(st.floats(0.1, 0.9), st.floats(0.1, 0.9)))
def test_even_odd_equals_the_sum_of_triangles(outline: np.ndarray, shift: tuple[float, float]) -> None:
    outline = outline + shift
    fans = [np.array([outline[0], a, b]) for a, b in pairwise(outline[1:])]
    clear = (
        np.min([distances(fan) for fan in fans], axis=0) > 1e-3
    )  # matplotlib's word on edges is not to be relied upon
    np.testing.assert_array_equal(fill([outline], SHAPE)[clear], winding_parity(outline)[clear])


@settings(max_examples=100, deadline=None)
@given(outline=st.one_of(ANYWHERE, ON_PIXELS), turn=st.integers(0, 11), seed=st.integers(0, 7))
def test_flips_direction_and_first_point_do_not_count(outline: np.ndarray, turn: int, seed: int) -> None:
    gap = distances(outline)
    assume(not ((gap > 1e-6) & (gap < 1e-4)).any())  # neither on the outline nor off it
    mask = fill([outline], SHAPE)
    np.testing.assert_array_equal(fill([np.roll(outline, turn, axis=0)[:: 1 - 2 * (seed % 2)]], SHAPE), mask)
    for axis in (0, 1):
        flipped = outline.copy()
        flipped[:, axis] = SHAPE[axis] - 1 - flipped[:, axis]
        np.testing.assert_array_equal(np.flip(fill([flipped], SHAPE), axis), mask)
    np.testing.assert_array_equal(fill([outline[:, ::-1]], SHAPE[::-1]).T, mask)


@settings(max_examples=60, deadline=None)
@given(outline=ON_PIXELS)
def test_centres_on_an_outline_belong(outline: np.ndarray) -> None:
    assert fill([outline], SHAPE)[distances(outline) < 1e-9].all()


@settings(max_examples=60, deadline=None)
@given(outlines=st.lists(ANYWHERE, min_size=2, max_size=4))
def test_outlines_combine_by_exclusive_or(outlines: list[np.ndarray]) -> None:
    clear = np.min([distances(outline) for outline in outlines], axis=0) > 1e-4
    each = np.logical_xor.reduce([fill([outline], SHAPE) for outline in outlines])
    np.testing.assert_array_equal(fill(outlines, SHAPE)[clear], each[clear])


@settings(max_examples=30, deadline=None)
@given(
    radii=st.tuples(st.floats(20, 60), st.floats(20, 60)),
    centre=st.tuples(st.floats(70, 80), st.floats(70, 80)),
    turn=st.floats(0, np.pi),
)
@example(radii=(20.0, 25.0), centre=(70.0, 70.0), turn=0.0)  # a dozen pixels on the line itself
def test_ellipses(radii: tuple[float, float], centre: tuple[float, float], turn: float) -> None:
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    points = np.stack([radii[0] * np.cos(angle), radii[1] * np.sin(angle)], axis=1)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    filled = fill([points @ rotation.T + centre], (150, 150))
    # The polygon's sides lie within 1e-5 of the ellipse: only pixels that lie on it so closely may fall on either side.
    pixels = np.stack(np.meshgrid(np.arange(150), np.arange(150), indexing="ij"), axis=-1)
    level = (((pixels - centre) @ rotation / radii) ** 2).sum(axis=-1)
    assert filled[level < 1 - 1e-4].all()
    assert not filled[level > 1 + 1e-4].any()


def square(low: float, high: float) -> np.ndarray:
    return np.array([(low, low), (low, high), (high, high), (high, low)])


def test_key_hole_is_a_hole() -> None:
    outer, inner = square(1.6, 14.4), square(4.6, 9.4)
    joined = np.concatenate(
        [outer, outer[:1], inner[::-1], inner[-1:]]
    )  # there along the channel, round the hole, and back
    expected = np.zeros(SHAPE, dtype=bool)
    expected[2:15, 2:15] = True
    expected[5:10, 5:10] = False
    np.testing.assert_array_equal(fill([joined], SHAPE), expected)
    np.testing.assert_array_equal(fill([outer, inner], SHAPE), expected)
    island = fill([outer, inner, square(5.6, 7.4)], SHAPE)
    np.testing.assert_array_equal(island ^ expected, np.pad(np.ones((2, 2), bool), ((6, 9), (6, 15))))


def test_key_hole_whose_channel_runs_through_pixel_centres() -> None:
    outer, inner = square(2, 14), square(5, 9)
    joined = np.concatenate([outer, outer[:1], inner[::-1], inner[-1:]])
    expected = np.zeros(SHAPE, dtype=bool)
    expected[2:15, 2:15] = True
    expected[6:9, 6:9] = False  # the outline of a hole belongs to what surrounds it
    np.testing.assert_array_equal(fill([joined], SHAPE), expected)


def test_outlines_through_the_centres_of_border_pixels_keep_them() -> None:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[3:9, 4:12] = True
    np.testing.assert_array_equal(fill([np.array([(3.0, 4), (3, 11), (8, 11), (8, 4)])], SHAPE), mask)


def test_what_lies_outside_is_cut_off() -> None:
    assert fill([square(-5, 100)], SHAPE).all()
    assert not fill([square(40.5, 60.5)], SHAPE).any()
    assert not fill([square(-9.5, -3.5)], SHAPE).any()
    partly = fill([square(-4.5, 3.5)], SHAPE)
    assert partly.sum() == 16
    assert partly[:4, :4].all()


def test_only_outlines_that_partly_cover_each_other_cross() -> None:
    assert not crossing([square(1, 10), square(2, 5)], SHAPE)  # a hole
    assert not crossing([square(1, 5), square(5, 9)], SHAPE)  # neighbours
    assert not crossing([square(1, 5)], SHAPE)
    assert crossing([square(1, 10), square(12, 14), square(6, 13)], SHAPE)


@given(boxes=st.lists(st.tuples(*(st.integers(0, 12),) * 2, *(st.integers(1, 8),) * 2), min_size=1, max_size=9))
def test_crossing_squares(boxes: list[tuple[int, int, int, int]]) -> None:
    """By sets of pixels, of all pairs."""
    outlines, pixels = [], []
    for top, left, height, width in boxes:
        low, high = np.array([top, left]) - 0.5, np.array([top + height, left + width]) - 0.5
        outlines.append(np.array([low, (low[0], high[1]), high, (high[0], low[1])]))
        pixels.append({(i, j) for i in range(top, top + height) for j in range(left, left + width)})
    cross = [bool(a & b) and not a <= b and not b <= a for a, b in combinations(pixels, 2)]
    assert crossing(outlines, (24, 24)) == any(cross)
