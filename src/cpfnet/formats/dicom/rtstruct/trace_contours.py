"""From pixels to outlines: polygons that enclose the centres of exactly these pixels.

The outlines run half-way between pixels inside and outside (marching squares), at most half a pixel from the edges of
the pixels and at least 0.25 pixels from every centre, so that no reader's rule for centres on an outline matters. A
hole is joined to its outer outline by a key-hole, as DICOM requires (PS3.3, C.8.8.6.3): so readers that use the
even–odd rule and readers that use the union of all outlines give the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from skimage.measure import find_contours


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """The outlines of all pixels of one slice; none of them touch, and none encloses another.

    Pixels that touch only at a corner have separate outlines.

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
    areas = np.array([_area(ring) for ring in rings])
    holes = areas * areas[np.argmax(np.abs(areas))] < 0  # the largest ring is not a hole
    return [_corners(ring) + (low - 1) for ring in _joined(rings, holes)]


def _area(ring: np.ndarray) -> float:
    rows, columns = ring.T
    return float(rows @ np.roll(columns, -1) - columns @ np.roll(rows, -1)) / 2


def _joined(rings: list[np.ndarray], holes: np.ndarray) -> Iterator[np.ndarray]:
    """The outer rings, each hole joined to the ring above it by a slit straight upwards from its top.

    Slits lie a quarter of a pixel beside the centres of a column, where no ring has a corner and each edge is crossed
    at most once.
    """
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    number = np.concatenate([np.arange(len(ring)) for ring in rings])
    starts, ends = np.vstack(rings), np.vstack([np.roll(ring, -1, axis=0) for ring in rings])
    left, right = np.minimum(starts[:, 1], ends[:, 1]), np.maximum(starts[:, 1], ends[:, 1])
    column = np.floor(left) + 0.25
    crossed = np.flatnonzero((left < column) & (column < right))
    owner, number, starts, ends, column = (part[crossed] for part in (owner, number, starts, ends, column))
    row = starts[:, 0] + (column - starts[:, 1]) / (ends[:, 1] - starts[:, 1]) * (ends[:, 0] - starts[:, 0])
    order = np.lexsort((row, column))  # down each column
    place = {(int(owner[edge]), int(number[edge])): at for at, edge in enumerate(order)}

    spliced: list[dict[int, np.ndarray]] = [{} for _ in rings]
    tops = {int(hole): int(np.argmin(rings[hole][:, 0])) for hole in np.flatnonzero(holes)}
    # From below: each hole is complete when it is joined.
    for hole, top in sorted(tops.items(), key=lambda item: -rings[item[0]][item[1], 0]):
        ring = rings[hole]
        after = (top + 1) % len(ring)
        edge = top if ring[after, 1] > ring[top, 1] else (top - 1) % len(ring)
        at = place[hole, edge]
        lower, upper = order[at], order[at - 1]
        slit = np.array([[row[upper], column[upper]], [row[lower], column[lower]]])
        whole = _insert(ring, spliced[hole], edge + 1)
        spliced[owner[upper]][int(number[upper])] = np.vstack([slit, whole, slit[::-1]])
    for index in np.flatnonzero(~holes):
        yield _insert(rings[index], spliced[index], 0)


def _insert(ring: np.ndarray, inserts: dict[int, np.ndarray], first: int) -> np.ndarray:
    """A ring that begins at its point ``first``, with points inserted into edges (numbered by their first point)."""
    turned = np.roll(ring, -first, axis=0)
    parts, done = [], 0
    for stop, edge in sorted(((edge - first) % len(ring) + 1, edge) for edge in inserts):
        parts += [turned[done:stop], inserts[edge]]
        done = stop
    return np.vstack([*parts, turned[done:]])


def _corners(ring: np.ndarray) -> np.ndarray:
    """The ring without points inside straight lines."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    back = (before * after).sum(axis=1) < 0  # the end of a slit, where the ring turns back
    return ring[(np.abs(turn) > 1e-9) | back]
