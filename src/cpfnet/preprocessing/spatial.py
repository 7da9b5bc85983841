"""From the grid of an Image to the grid that a network sees, and back to the source voxel by voxel.

There are two steps, and one `Trace` records both:

1. *Orientation*, exact: the stored axes are permuted and flipped (never interpolated) so that slices, rows and columns
   run along fixed patient directions, as nearly as the stored axes allow (an oblique scan stays oblique).
2. *Resampling*, only along axes whose size changes. The convention is that of pixels with an area: both grids cover
   exactly the same box, edge to edge, so index ``i`` of ``n`` lies at ``(i + ½)·m/n − ½`` among the ``m`` source
   indices. The kernel is linear; where the grid becomes coarser, the kernel becomes wider with it (a triangle of two
   target voxels), so that nothing aliases.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cpfnet.errors import InputRefused
from cpfnet.image import Image, Source, spacing_of
from cpfnet.labels import IGNORED
from cpfnet.planning import Spatial

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from cpfnet.formats.file_types import Header

RIGHT_TO_LEFT, ANTERIOR_TO_POSTERIOR, INFERIOR_TO_SUPERIOR = np.eye(3)
"""Directions in LPS."""

DIRECTIONS = {
    "axial": (INFERIOR_TO_SUPERIOR, ANTERIOR_TO_POSTERIOR, RIGHT_TO_LEFT),
    "coronal": (ANTERIOR_TO_POSTERIOR, -INFERIOR_TO_SUPERIOR, RIGHT_TO_LEFT),
    "sagittal": (RIGHT_TO_LEFT, -INFERIOR_TO_SUPERIOR, ANTERIOR_TO_POSTERIOR),
}
"""Where (depth, height, width) run: slices in radiological view, the patient's right on the left, head up."""


@dataclass(frozen=True)
class Trace:
    """How an Image's grid became the network's: everything that the way back needs.

    Attributes:
        shape: the source's spatial shape.
        affine: the source's.
        source: the Image's, for writing.
        axes: network axis n is the source's axis ``axes[n]`` …
        flips: … reversed where True.
        grid: the network's spatial shape.
    """

    shape: tuple[int, ...]
    affine: np.ndarray | None
    source: Source | None
    axes: tuple[int, ...]
    flips: tuple[bool, ...]
    grid: tuple[int, ...]

    @property
    def oriented(self) -> tuple[int, ...]:
        """Spatial shape between orientation and resampling."""
        return tuple(self.shape[axis] for axis in self.axes)

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """The source's mm between neighbours, along the network's (depth, height, width), before resampling."""
        if self.affine is None:
            return None
        spacing = spacing_of(self.affine)
        depth, height, width = (spacing[axis] for axis in self.axes)
        return depth, height, width

    @property
    def pixel_volume(self) -> float | None:
        """Volume of one pixel of the source, mm³; None without millimetres."""
        return None if self.affine is None else float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def pixel_share(self) -> float:
        """Pixels of the network's grid for each pixel of the source: the scale from source sizes to network sizes."""
        return math.prod(self.grid) / math.prod(self.shape)

    @property
    def grid_affine(self) -> np.ndarray | None:
        """Network indices (depth, height, width, 1) → LPS mm."""
        if self.affine is None:
            return None
        to_source = np.zeros((4, 4))
        to_source[3, 3] = 1
        for axis, (old, flip, n) in enumerate(zip(self.axes, self.flips, self.grid, strict=True)):
            m = self.shape[old]
            step, start = m / n, (m / n - 1) / 2
            to_source[old, axis] = -step if flip else step
            to_source[old, 3] = m - 1 - start if flip else start
        return self.affine @ to_source

    def orient(self, array: np.ndarray) -> np.ndarray:
        """``(…, source grid)`` → ``(…, oriented)``; a view."""
        lead = array.ndim - len(self.axes)
        array = array.transpose(*range(lead), *(lead + axis for axis in self.axes))
        return np.flip(array, tuple(lead + axis for axis, flip in enumerate(self.flips) if flip))

    def restore_orientation(self, array: np.ndarray) -> np.ndarray:
        """``(…, oriented)`` → ``(…, source grid)``; a view."""
        lead = array.ndim - len(self.axes)
        array = np.flip(array, tuple(lead + axis for axis, flip in enumerate(self.flips) if flip))
        return array.transpose(*range(lead), *(lead + int(axis) for axis in np.argsort(self.axes)))


def trace(image: Image | Header, spatial: Spatial) -> Trace:
    """What the Plan's `spatial` means for one Image; its header will do.

    Raises:
        InputRefused: the Plan needs millimetres or directions and the Image has none.
    """
    ndim = len(image.shape)
    axes, flips = tuple(range(ndim)), (False,) * ndim
    if ndim == 3 and (spatial.slices != "stored" or spatial.spacing is not None) and image.affine is None:
        needs = f"{spatial.slices} slices" if spatial.slices != "stored" else "a spacing in mm"
        raise InputRefused(
            f"the plan works on {needs}, and this volume has no geometry in patient coordinates",
            fix="convert it to NIfTI with its true spacing and orientation",
        )
    if image.affine is not None and spatial.slices != "stored":
        axes, flips = closest_axes(image.affine, DIRECTIONS[spatial.slices])
    oriented = tuple(image.shape[axis] for axis in axes)
    grid = oriented
    if ndim == 2 and spatial.size is not None:
        grid = spatial.size
    elif ndim == 2 and spatial.longest is not None:
        grid = tuple(max(1, round(n * spatial.longest / max(oriented))) for n in oriented)
    if image.affine is not None and spatial.spacing is not None:
        spacing = spacing_of(image.affine)
        grid = tuple(
            # A half is a half, whatever the last digits are.
            n if wanted is None else max(1, round(round(n * spacing[axis] / wanted, 3)))
            for n, axis, wanted in zip(oriented, axes, spatial.spacing, strict=True)
        )
    return Trace(image.shape, image.affine, image.source, axes, flips, grid)


def closest_axes(affine: np.ndarray, directions: tuple[np.ndarray, ...]) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Which stored axis runs along each direction, and whether it runs backwards.

    It is the assignment with the largest sum of |cosines|, so that each axis is used once, however oblique the scan is.

    Args:
        affine: array indices → LPS mm.
        directions: unit vectors in LPS.

    Returns:
        ``axes, flips``, as in `Trace`.
    """
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.stack(directions) @ columns
    # At exactly 45° two assignments are equally good: with rounding, the same one always wins.
    fits = np.round(np.abs(cosines), 6)
    axes = max(itertools.permutations(range(3)), key=lambda order: sum(fits[i, axis] for i, axis in enumerate(order)))
    return axes, tuple(bool(cosines[i, axis] < 0) for i, axis in enumerate(axes))


def source_slices(before: int, after: int, start: int, stop: int) -> tuple[int, int]:
    """First and last + 1 of the slices that `resample` needs to make the slices ``start … stop - 1``.

    Args:
        before: number of slices before resampling.
        after: number of slices after it.
        start, stop: the slices that are wanted.
    """
    if before == after:
        return start, stop
    columns = _weights(before, after)[start:stop].indices
    return int(columns.min()), int(columns.max()) + 1


def resample(
    array: np.ndarray,
    shape: tuple[int, ...],
    *,
    whole: tuple[int, ...] | None = None,
    start: int = 0,
    stop: int | None = None,
) -> np.ndarray:
    """Linear resampling, edge to edge; an array that has ``shape`` is returned as it is.

    Each slice of the result is the same, to the last bit, whether it is made alone or with all others.

    Args:
        array: one plane, ``([depth,] height, width)`` float32.
        shape: of the whole result.
        whole, start, stop: to make only the slices ``start … stop - 1`` of the result: ``array`` then holds their
            `source_slices`, of a plane whose shape is ``whole``.

    Returns:
        float32; values of a slice stay within the extremes of the slices that it is made from.
    """
    before = array.shape if whole is None else whole
    if before == shape:
        return array
    first, last = source_slices(before[0], shape[0], start, shape[0] if stop is None else stop)
    rest = tuple(range(1, array.ndim))
    lows, highs = array.min(axis=rest), array.max(axis=rest)
    # Shrinking axes first: this leaves less work for the others.
    for axis in sorted(range(array.ndim), key=lambda a: shape[a] / before[a]):
        m, n = before[axis], shape[axis]
        if m != n:
            weights = _weights(m, n)
            if axis == 0:
                weights = weights[start:stop][:, first:last]
                rows = weights.indptr[:-1]
                lows = np.minimum.reduceat(lows[weights.indices], rows)
                highs = np.maximum.reduceat(highs[weights.indices], rows)
            front = np.moveaxis(array, axis, 0)
            out = weights @ np.ascontiguousarray(front).reshape(len(front), -1)
            array = np.moveaxis(out.reshape(len(out), *front.shape[1:]), 0, axis)
    sides = (slice(None), *[None] * len(rest))
    return np.clip(array, lows[sides], highs[sides], out=array)  # weights add up to 1 only up to rounding


def _weights(m: int, n: int) -> csr_array:
    """float32 ``(n, m)``: the share of each source index in each target index; rows sum to 1."""
    from scipy.sparse import csr_array

    ratio = m / n
    reach = max(ratio, 1.0)
    centres = (np.arange(n) + 0.5) * ratio - 0.5
    offsets = np.arange(int(np.ceil(2 * reach)) + 1)
    columns = np.floor(centres - reach).astype(int)[:, None] + 1 + offsets
    values = np.clip(1 - np.abs(columns - centres[:, None]) / reach, 0, None)
    values[(columns < 0) | (columns >= m)] = 0  # nothing lies beyond an edge
    values /= values.sum(axis=1, keepdims=True)
    row, at = np.nonzero(values)
    return csr_array((values[row, at].astype(np.float32), (row, columns[row, at])), shape=(n, m))


def resample_codes(codes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resampling of codes: each target voxel takes the code with the largest share in it (`resample` of each code).

    No new code appears. Between equal shares the later code wins, so structures win over background, and everything
    wins over not annotated.

    Args:
        codes: uint8 ``([depth,] height, width)``.
        shape: of the result.
    """
    if codes.shape == shape:
        return codes
    present = np.flatnonzero(np.bincount(codes.ravel(), minlength=256)).tolist()
    out = np.full(shape, present[0], dtype=np.uint8)
    best = np.full(shape, -np.inf, dtype=np.float32)
    for code in sorted(present, key=lambda c: -1 if c == IGNORED else c):
        share = resample((codes == code).astype(np.float32), shape)
        wins = share >= best - 1e-6
        out[wins] = code
        np.copyto(best, share, where=wins)
    return out
