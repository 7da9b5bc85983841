"""How thick and how long-drawn a structure is: what decides whether it survives shrinking, and whether it is a tube."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LARGEST_CROP = 512
"""Pixels along a side of the piece that is looked at, in 2-D; volumes: a quarter of it."""

TUBULAR_LENGTH = 25.0
"""A structure is tubular where the centre line of its largest piece is longer than this many radii (a disc has none, a
3:1 ellipse about 4) …"""

TUBULAR_RADIUS = 0.03
"""… and its radius is below this share of the image's longest side."""


@dataclass(frozen=True)
class Structure:
    """One class in one label.

    Attributes:
        pixels: of the whole class.
        radius: median distance from the centre line to the edge, pixels.
        length: of the centre line of the largest piece, pixels.
    """

    pixels: int
    radius: float
    length: float

    def tubular(self, shape: tuple[int, ...]) -> bool:
        return self.length > TUBULAR_LENGTH * self.radius and self.radius < TUBULAR_RADIUS * max(shape)


def measure(mask: np.ndarray) -> Structure | None:
    """Look at one mask, ``([depth,] height, width)`` bool; None where it is empty.

    Of a large mask only a piece in the middle of its bounding box is looked at, so time and memory stay bounded.
    """
    from scipy import ndimage
    from skimage.morphology import skeletonize

    pixels = int(np.count_nonzero(mask))
    if not pixels:
        return None
    side = LARGEST_CROP if mask.ndim == 2 else LARGEST_CROP // 4
    window = []
    for axis in range(mask.ndim):
        found = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        start, stop = int(found[0]), int(found[-1]) + 1
        if stop - start > side:
            start += (stop - start - side) // 2
            stop = start + side
        window.append(slice(start, stop))
    piece = np.pad(mask[tuple(window)], 1)
    if not piece.any():
        return Structure(pixels, 0.5, 0.0)
    pieces, count = ndimage.label(piece, ndimage.generate_binary_structure(piece.ndim, piece.ndim))
    line = skeletonize(piece)
    if not line.any():
        line = piece
    radius = float(np.median(ndimage.distance_transform_edt(piece)[line]))
    longest = int(np.bincount(pieces[line], minlength=count + 1)[1:].max())
    return Structure(pixels, max(radius, 0.5), float(longest))
