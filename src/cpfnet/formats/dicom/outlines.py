"""Pixels → outlines: polygons that enclose the centres of exactly these pixels.

The outlines run half-way between pixels inside and outside (marching squares), at most half a pixel from the edges of the pixels and
at least 0.25 pixels from every centre, so that no reader's rule for centres on an outline matters. A hole is joined to its outer
outline by a key-hole, as DICOM prescribes (PS3.3, C.8.8.6.3): thus one reader's even–odd and another's union of all outlines give the same.
"""

from __future__ import annotations

import numpy as np
from skimage.measure import find_contours


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """The outlines of all pixels of one slice; none of them touch, and none encloses another.

    Pixels that touch only at a corner have outlines of their own.

    Args:
        mask: bool ``(height, width)``.

    Returns:
        Each ``(points, 2)``: (row, column) in pixels, whole numbers at pixel centres, the first point not repeated.
    """
    if not mask.any():
        return []
    used = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
    low = np.array([index[0] for index in used])
    cut = mask[tuple(slice(index[0], index[-1] + 1) for index in used)]
    rings = [ring[:-1] for ring in find_contours(np.pad(cut, 1).astype(np.float32), 0.5)]
    areas = [_area(ring) for ring in rings]
    outer = np.sign(areas[int(np.argmax(np.abs(areas)))])  # the largest is no hole
    out = [ring for ring, area in zip(rings, areas, strict=True) if area * outer > 0]
    holes = [ring for ring, area in zip(rings, areas, strict=True) if area * outer < 0]
    spans = [(float(ring[:, 1].min()), float(ring[:, 1].max())) for ring in out]  # holes do not widen them
    for hole in sorted(
        holes, key=lambda ring: float(ring[:, 0].min())
    ):  # from the top: what lies above is joined already
        _join(hole, out, spans)
    return [_corners(ring) + (low - 1) for ring in out]


def _area(ring: np.ndarray) -> float:
    rows, columns = ring.T
    return float(rows @ np.roll(columns, -1) - columns @ np.roll(rows, -1)) / 2


def _join(hole: np.ndarray, rings: list[np.ndarray], spans: list[tuple[float, float]]) -> None:
    """Splice a hole into the ring above it, by a slit from its top straight upwards.

    The slit lies a quarter of a pixel beside the centres of a column, where no outline has a corner.
    """
    top = int(np.argmin(hole[:, 0]))
    column = hole[top, 1] + 0.25
    edge, start = min(_crossings(hole, column), key=lambda found: found[1])
    nearest = (-np.inf, 0, 0)
    for number, ring in enumerate(rings):
        for index, row in _crossings(ring, column) if spans[number][0] < column < spans[number][1] else ():
            if nearest[0] < row < start:
                nearest = (row, number, index)
    row, number, index = nearest
    ring, upper, lower = rings[number], np.array([[row, column]]), np.array([[start, column]])
    turned = np.roll(hole, -(edge + 1), axis=0)
    rings[number] = np.vstack([ring[: index + 1], upper, lower, turned, lower, upper, ring[index + 1 :]])


def _crossings(ring: np.ndarray, column: float) -> list[tuple[int, float]]:
    """Where a ring crosses a column: the number of the edge, and the row."""
    ends = np.roll(ring, -1, axis=0)
    found = np.flatnonzero((ring[:, 1] < column) != (ends[:, 1] < column))
    share = (column - ring[found, 1]) / (ends[found, 1] - ring[found, 1])
    rows = ring[found, 0] + share * (ends[found, 0] - ring[found, 0])
    return list(zip(found.tolist(), rows.tolist(), strict=True))


def _corners(ring: np.ndarray) -> np.ndarray:
    """Without the points in the middle of straight lines."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    back = (before * after).sum(axis=1) < 0  # the end of a slit, should it meet a line head-on
    return ring[(np.abs(turn) > 1e-9) | back]
