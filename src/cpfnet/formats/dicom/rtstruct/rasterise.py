"""From outlines to pixels: which pixel centres lie inside.

A pixel belongs to a structure if a ray from its centre crosses the outlines an odd number of times. So holes are left
out, whether they are drawn as separate outlines or joined to the outer one by a key-hole (DICOM PS3.3, C.8.8.6.3), and
the direction of drawing does not matter. A centre *on* an outline belongs, too: so nothing depends on flips, and
outlines through pixel centres, as some tools draw them, keep their outermost pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

_ON = 1e-5
"""Pixels: a centre nearer than this is on the outline. Coordinates in files are decimal texts, equal only up to
rounding."""
_AT_ONCE = 4096
"""Number of edges that are processed together."""
_PAIRS = 500
"""The most pairs of outlines that are tested for crossings, which only cause a message."""


def fill(outlines: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """The pixels inside the outlines of one structure on one slice.

    Args:
        outlines: each ``(points, 2)``, (row, column) in pixels, whole numbers at pixel centres; the last point is
            joined to the first.
        shape: (height, width). Parts of outlines beyond it are cut off.

    Returns:
        bool ``shape``.
    """
    out = np.zeros(shape, dtype=bool)
    window, moved = _cropped(outlines, shape)
    inside, on = np.zeros_like(out[window]), out[window]
    starts = np.concatenate(moved)
    ends = np.concatenate([np.roll(outline, -1, axis=0) for outline in moved])
    for first in range(0, len(starts), _AT_ONCE):  # parity adds up over edges, so this needs little memory
        edges = starts[first : first + _AT_ONCE], ends[first : first + _AT_ONCE]
        inside ^= _enclosed(*edges, inside.shape)
        _mark(on, *edges)
        _mark(on.T, edges[0][:, ::-1], edges[1][:, ::-1])
    on |= inside
    return out


def crossing(outlines: Sequence[np.ndarray], shape: tuple[int, int]) -> bool:
    """Do two outlines enclose common pixels although neither lies inside the other? Arguments as for `fill`."""
    for pair in islice(_near(outlines), _PAIRS):
        window, moved = _cropped([outlines[i] for i in pair], shape)
        size = window[0].stop - window[0].start, window[1].stop - window[1].start
        first, second = (_enclosed(starts, np.roll(starts, -1, axis=0), size) for starts in moved)
        common = np.count_nonzero(first & second)
        if 0 < common < min(np.count_nonzero(first), np.count_nonzero(second)):
            return True
    return False


def _bounds(outlines: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest (row, column) of each, ``(outlines, 2)``."""
    points, first = np.concatenate(outlines), np.cumsum([0, *map(len, outlines[:-1])])
    return np.minimum.reduceat(points, first), np.maximum.reduceat(points, first)


def _near(outlines: Sequence[np.ndarray]) -> Iterator[tuple[int, int]]:
    """Pairs whose bounds overlap; sorted by rows, since a noisy slice has thousands of outlines, millions of pairs."""
    low, high = _bounds(outlines)
    order = np.argsort(low[:, 0], kind="stable")
    ends = np.searchsorted(low[order, 0], high[order, 0], side="right")
    for at, one in enumerate(order):
        below = order[at + 1 : ends[at]]
        meet = (low[below, 1] <= high[one, 1]) & (low[one, 1] <= high[below, 1])
        yield from ((int(one), int(other)) for other in below[meet])


def _cropped(outlines: Sequence[np.ndarray], shape: tuple[int, int]) -> tuple[tuple[slice, slice], list[np.ndarray]]:
    """The part of the image that outlines reach, and the outlines in its coordinates."""
    lowest, highest = _bounds(outlines)
    low = np.clip(np.floor(lowest.min(axis=0)), 0, shape).astype(int)
    high = np.clip(np.ceil(highest.max(axis=0)) + 1, low, shape).astype(int)
    return (slice(low[0], high[0]), slice(low[1], high[1])), [outline - low for outline in outlines]


def _lines(starts: np.ndarray, ends: np.ndarray, count: int, slack: float) -> tuple[np.ndarray, np.ndarray]:
    """For every row of the grid (0 … count − 1) that an edge reaches: the row, and the number of the edge."""
    low, high = np.minimum(starts[:, 0], ends[:, 0]), np.maximum(starts[:, 0], ends[:, 0])
    first = np.clip(np.ceil(low - slack), 0, count).astype(np.int64)
    last = np.floor(high + slack) + 1 if slack else np.ceil(high)  # without slack half-open, so that joints count once
    reached = np.maximum(np.clip(last, 0, count).astype(np.int64) - first, 0)
    edge = np.repeat(np.arange(len(starts)), reached)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(reached) - reached, reached) + first[edge]
    return row, edge


def _across(starts: np.ndarray, ends: np.ndarray, row: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """The column where each edge crosses its row; beyond the ends of an edge, the column of that end."""
    rise = ends[edge, 0] - starts[edge, 0]
    share = np.divide(row - starts[edge, 0], rise, out=np.zeros(len(row)), where=rise != 0)
    return starts[edge, 1] + np.clip(share, 0, 1) * (ends[edge, 1] - starts[edge, 1])


def _enclosed(starts: np.ndarray, ends: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Even–odd rule: each crossing of an edge with a row switches inside and outside for all pixels to its right."""
    height, width = shape
    row, edge = _lines(starts, ends, height, 0.0)
    right = np.clip(np.ceil(_across(starts, ends, row, edge)), 0, width).astype(np.int64)
    changes = np.bincount(row * (width + 1) + right, minlength=height * (width + 1)).reshape(height, width + 1)
    return np.cumsum(changes[:, :width].astype(np.uint8), axis=1, dtype=np.uint8) % 2 == 1  # only odd or even counts


def _mark(on: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
    """Set the pixels whose centres lie on edges steeper than 45°; a call with transposed arguments finds the others."""
    rise, run = np.abs(ends - starts).T
    steep = rise >= run
    row, edge = _lines(starts[steep], ends[steep], on.shape[0], _ON)
    column = _across(starts[steep], ends[steep], row, edge)
    nearest = np.rint(column)
    hit = (np.abs(column - nearest) <= _ON) & (nearest >= 0) & (nearest < on.shape[1])
    on[row[hit], nearest[hit].astype(np.int64)] = True
